package erofs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
)

const (
	workers    = 8
	bufferSize = 512 << 10 // of a worker
)

// Write writes an image of entries to w, from its beginning, and returns its
// size in bytes, a multiple of [BlockSize]. Each of these bytes is written
// once, several at a time and not in order. The entries may be in any order.
//
// It fails where the root or a parent is missing, a path is there twice, a
// name is too long, or a file's content is not as long as its Size.
func Write(w io.WriterAt, entries []Entry, o Options) (size int64, err error) {
	if err := o.check(); err != nil {
		return 0, err
	}
	nodes, err := newTree(entries)
	if err != nil {
		return 0, err
	}
	l, err := newLayout(nodes, o.BuildTime)
	if err != nil {
		return 0, err
	}
	img := &image{w: w, layout: l}
	if err := img.writeShared(); err != nil {
		return 0, err
	}
	if err := img.writeNodes(); err != nil {
		return 0, err
	}
	super{
		Options: o, rootNid: uint16(nodes[0].nid()), inodes: uint64(len(nodes)),
		blocks: l.blocks, xattrs: l.xattrs,
	}.put(img.first[:])
	if _, err := w.WriteAt(img.first[:], 0); err != nil {
		return 0, fmt.Errorf("writing the superblock: %w", err)
	}
	return int64(l.blocks) * BlockSize, nil
}

// image is an image that is being written.
type image struct {
	w io.WriterAt
	*layout
	// first is the first block, which is written when its checksum is known.
	first [BlockSize]byte
}

func (img *image) writeAt(b []byte, at int64) error {
	if at < BlockSize {
		n := copy(img.first[at:], b)
		b, at = b[n:], at+int64(n)
	}
	if len(b) == 0 {
		return nil
	}
	if _, err := img.w.WriteAt(b, at); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(b), at, err)
	}
	return nil
}

// writeShared writes the extended attributes that inodes share.
func (img *image) writeShared() error {
	if len(img.shared) == 0 {
		return nil
	}
	b := []byte(strings.Join(img.shared, ""))
	return img.writeAt(fill(b, BlockSize), int64(img.layout.xattrs)*BlockSize)
}

// fill appends zeros up to a multiple of size.
func fill(b []byte, size int) []byte {
	if rest := len(b) % size; rest > 0 {
		b = append(b, make([]byte, size-rest)...)
	}
	return b
}

// writeNodes writes the nodes, several at a time. It returns the error of the
// first node that has one: nodes are handed out in order, and those that were
// handed out are finished.
func (img *image) writeNodes() error {
	var (
		mu       sync.Mutex
		next     int
		failed   error
		failedAt int
		wg       sync.WaitGroup
	)
	take := func() (int, bool) {
		mu.Lock()
		defer mu.Unlock()
		if failed != nil || next == len(img.nodes) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(workers, len(img.nodes)) {
		wg.Go(func() {
			buf := make([]byte, bufferSize)
			for {
				i, ok := take()
				if !ok {
					return
				}
				n := img.nodes[i]
				if err := img.writeNode(n, buf); err != nil {
					mu.Lock()
					if failed == nil || i < failedAt {
						failed, failedAt = fmt.Errorf("%q: %w", n.entry.Path, err), i
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return failed
}

// writeNode writes an inode with its attributes and data. It reads data into
// buf.
func (img *image) writeNode(n *node, buf []byte) error {
	var content io.Reader
	switch {
	case n.isDir():
		content = bytes.NewReader(encodeDir(n))
	case n.mode&typeMask == typeSymlink:
		content = strings.NewReader(n.entry.Target)
	case n.mode&typeMask == typeRegular && n.entry.Open != nil:
		f, err := n.entry.Open()
		if err != nil {
			return err
		}
		defer f.Close()
		content = f
	default:
		content = bytes.NewReader(nil)
	}
	head := n.append(make([]byte, 0, n.room))
	head = n.xattrs.append(head, img.ids)
	tail, err := img.writeData(n, content, buf)
	if err != nil {
		return err
	}
	head = append(head, tail...)
	return img.writeAt(head[:n.room], n.at)
}

// writeData writes the data of a node, but for the part behind the inode,
// which it returns. That is valid until buf is used again.
func (img *image) writeData(n *node, content io.Reader, buf []byte) (tail []byte, err error) {
	at := int64(n.start) * BlockSize
	for left := n.size - n.tail; left > 0; {
		b := buf[:min(left, int64(len(buf)))]
		if err := n.readFull(content, b, n.size-n.tail-left); err != nil {
			return nil, err
		}
		left -= int64(len(b))
		// Only the end of the data does not fill a block, and is behind
		// what buf has room for by less than a block.
		b = fill(b, BlockSize)
		if err := img.writeAt(b, at); err != nil {
			return nil, err
		}
		at += int64(len(b))
	}
	tail = buf[:n.tail]
	if err := n.readFull(content, tail, n.size-n.tail); err != nil {
		return nil, err
	}
	var more [1]byte
	switch _, err := io.ReadFull(content, more[:]); err {
	case io.EOF:
		return tail, nil
	case nil:
		return nil, fmt.Errorf("content is longer than its size of %d bytes", n.size)
	default:
		return nil, err
	}
}

// readFull reads the part of a node's content that begins at off.
func (n *node) readFull(content io.Reader, b []byte, off int64) error {
	got, err := io.ReadFull(content, b)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("content has %d bytes, want %d: %w", off+int64(got), n.size, io.ErrUnexpectedEOF)
	}
	return err
}

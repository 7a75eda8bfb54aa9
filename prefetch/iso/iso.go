// Package iso reads files out of an ISO 9660 image (ECMA-119), such as a
// distribution's installation medium.
//
// # Names
//
// A file is asked for by its path, "BaseOS/repodata/repomd.xml". Names are
// those of Rock Ridge where the image has them, else those of Joliet, which
// ends them after 64 (in lenient images 103) characters, else ISO 9660's own,
// without version and whatever their case.
//
// # Limits
//
// What is read besides a file's bytes is bounded, whatever the image says:
//
//	volume descriptors     64
//	a path                 64 names
//	a directory            64 MiB and 500,000 records; the 16 last read are kept
//	continuation areas     32 for one record, of 8 KiB each
//
// Files of several extents (4 GiB and more) are read; interleaved and zisofs
// compressed ones, symbolic links, and images that are UDF only are refused.
// Nothing is verified: the caller knows the image's digest, or the file's.
package iso

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
)

const (
	sectorSize  = 2048 // ECMA-119, section 6.1.2
	firstSector = 16   // of the volume descriptors (section 6.2.1)

	maxDescriptors = 64
	maxDepth       = 64
	maxDirectory   = 64 << 20
	maxRecords     = 500_000
	keptDirs       = 16
)

// Image is an open image. It may be used from many goroutines.
type Image struct {
	r     io.ReaderAt
	size  int64
	block int64 // bytes of a logical block
	names naming
	root  node
	skip  int // bytes of a system use area before its entries (SUSP, section 5.3)

	mu   sync.Mutex
	dirs []*directory // the latest first
}

// naming is which of its names an image's files go by.
type naming int

const (
	plain naming = iota
	joliet
	rockRidge
)

// node is what a name stands for.
type node struct {
	extents []extent
	dir     bool
	problem string // why a file of that name cannot be read
}

// extent is bytes of the image.
type extent struct{ start, size int64 }

// directory is one that has been read.
type directory struct {
	at    extent
	nodes map[string]node
}

// New reads the volume descriptors of an image of so many bytes.
func New(r io.ReaderAt, size int64) (*Image, error) {
	i := &Image{r: r, size: size}
	primary, supplement, err := i.descriptors()
	if err != nil {
		return nil, fmt.Errorf("reading an ISO image: %w", err)
	}
	if err := i.choose(primary, supplement); err != nil {
		return nil, fmt.Errorf("reading an ISO image: %w", err)
	}
	return i, nil
}

// descriptors finds the primary volume descriptor, and Joliet's.
func (i *Image) descriptors() (primary, supplement []byte, err error) {
	for n := range int64(maxDescriptors) {
		b := make([]byte, sectorSize)
		if err := i.readAt(b, (firstSector+n)*sectorSize); err != nil {
			return nil, nil, err
		}
		if n == 0 && string(b[1:6]) != "CD001" {
			return nil, nil, fmt.Errorf("got %q where it should say %q", b[1:6], "CD001")
		}
		if b[0] == 255 || string(b[1:6]) != "CD001" { // section 8.1.1
			break
		}
		switch {
		case b[0] == 1 && primary == nil:
			primary = b
		case b[0] == 2 && supplement == nil && isJoliet(b[88:120]):
			supplement = b
		}
	}
	if primary == nil {
		return nil, nil, errors.New("it has no primary volume descriptor")
	}
	return primary, supplement, nil
}

// isJoliet looks for UCS-2 among the escape sequences (Joliet, section 2).
func isJoliet(escapes []byte) bool {
	for _, level := range []string{"%/@", "%/C", "%/E"} {
		if bytes.HasPrefix(escapes, []byte(level)) {
			return true
		}
	}
	return false
}

// choose finds out which names the image has.
func (i *Image) choose(primary, supplement []byte) error {
	if err := i.setRoot(primary); err != nil {
		return err
	}
	skip, ok, err := i.sharing()
	switch {
	case err != nil:
		return fmt.Errorf("the root directory: %w", err)
	case ok:
		i.names, i.skip = rockRidge, skip
	case supplement != nil:
		i.names = joliet
		return i.setRoot(supplement)
	}
	return nil
}

// setRoot takes block size and root directory of a volume descriptor
// (sections 8.4.13 and 8.4.18).
func (i *Image) setRoot(b []byte) error {
	i.block = int64(binary.LittleEndian.Uint16(b[128:]))
	if i.block < 512 || i.block > sectorSize || i.block&(i.block-1) != 0 {
		return fmt.Errorf("blocks of %d bytes, want 512, 1024 or 2048", i.block)
	}
	root, err := i.parseRecord(b[156:190])
	if err != nil {
		return fmt.Errorf("the root directory: %w", err)
	}
	i.root = root.node
	return nil
}

// readAt fills b, or fails.
func (i *Image) readAt(b []byte, off int64) error {
	if off < 0 || off > i.size-int64(len(b)) {
		return fmt.Errorf("it ends at byte %d, and lacks those up to %d", i.size, off+int64(len(b)))
	}
	n, err := i.r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Open finds a file by its path from the root, in which names are separated
// by slashes. The error is fs.ErrNotExist where there is none.
func (i *Image) Open(name string) (*File, error) {
	f, err := i.open(name)
	if err != nil {
		return nil, fmt.Errorf("opening %q of an ISO image: %w", name, err)
	}
	return f, nil
}

func (i *Image) open(name string) (*File, error) {
	parts := slices.DeleteFunc(strings.Split(name, "/"), func(s string) bool { return s == "" })
	if len(parts) > maxDepth {
		return nil, fmt.Errorf("%d names deep, want at most %d", len(parts), maxDepth)
	}
	at := i.root
	for _, part := range parts {
		if !at.dir {
			return nil, fs.ErrNotExist
		}
		d, err := i.read(at)
		if err != nil {
			return nil, err
		}
		var ok bool
		if at, ok = d.nodes[i.fold(part)]; !ok {
			return nil, fs.ErrNotExist
		}
	}
	switch {
	case at.dir:
		return nil, errors.New("it is a directory")
	case at.problem != "":
		return nil, errors.New(at.problem)
	}
	f := &File{r: i.r, extents: at.extents}
	for _, e := range at.extents {
		f.size += e.size
	}
	return f, nil
}

// fold is the form in which names are compared.
func (i *Image) fold(name string) string {
	if i.names == plain {
		return strings.ToUpper(name)
	}
	return name
}

// read reads a directory, or takes one that was read before.
func (i *Image) read(n node) (*directory, error) {
	if len(n.extents) != 1 {
		return nil, errors.New("a directory of several extents")
	}
	at := n.extents[0]
	i.mu.Lock()
	defer i.mu.Unlock()
	k := slices.IndexFunc(i.dirs, func(d *directory) bool { return d.at == at })
	if k >= 0 {
		d := i.dirs[k]
		i.dirs = slices.Insert(slices.Delete(i.dirs, k, k+1), 0, d)
		return d, nil
	}
	nodes, err := i.list(at)
	if err != nil {
		return nil, fmt.Errorf("the directory at byte %d: %w", at.start, err)
	}
	d := &directory{at, nodes}
	i.dirs = slices.Insert(i.dirs[:min(len(i.dirs), keptDirs-1)], 0, d)
	return d, nil
}

// File is a file of an image.
type File struct {
	r       io.ReaderAt
	extents []extent
	size    int64
}

// Size is the file's length in bytes.
func (f *File) Size() int64 { return f.size }

// ReadAt reads bytes at an offset of the file.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("reading an ISO image: negative offset")
	}
	done := 0
	for _, e := range f.extents {
		if done == len(p) {
			break
		}
		if off >= e.size {
			off -= e.size
			continue
		}
		part := p[done:]
		part = part[:min(int64(len(part)), e.size-off)]
		n, err := f.r.ReadAt(part, e.start+off)
		done += n
		if n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return done, err
		}
		off = 0
	}
	if done < len(p) {
		return done, io.EOF
	}
	return done, nil
}

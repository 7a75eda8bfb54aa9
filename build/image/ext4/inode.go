package ext4

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// File types, as st_mode has them.
const (
	typeMask    = 0o170000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeRegular = 0o100000
	typeSymlink = 0o120000
)

// Flags of inodes.
const (
	flagEncrypt = 0x800
	flagExtents = 0x80000
	flagInline  = 0x10000000
)

// Parts of an inode (struct ext4_inode).
const (
	inodeMap  = 0x28 // i_block
	mapSize   = 60
	inodeBase = 128
)

// inode is one, with what it says.
type inode struct {
	number   int64
	raw      []byte
	mode     uint32
	uid, gid uint32
	size     int64
	mtime    int64
	links    uint16
	flags    uint32
	rdev     uint32
	acl      int64 // the block of attributes, 0 for none
	xattrs   map[string][]byte
	inline   []byte // content behind the first 60 bytes
}

// inode reads an inode and its attributes.
func (f *FS) inode(n int64) (*inode, error) {
	i, err := f.fields(n)
	if err != nil {
		return nil, err
	}
	return i, f.attributes(i)
}

// fields reads an inode without its attributes.
func (f *FS) fields(n int64) (*inode, error) {
	if n < 1 || n > f.inodes {
		return nil, fmt.Errorf("inode %d of %d", n, f.inodes)
	}
	g := f.groups[(n-1)/f.inodesPer]
	off := g.table*f.block + (n-1)%f.inodesPer*f.inodeSize
	if g.table <= 0 || off+f.inodeSize > f.Size() {
		return nil, fmt.Errorf("inode %d lies at block %d of %d", n, g.table, f.blocks)
	}
	i := &inode{number: n, raw: make([]byte, f.inodeSize)}
	if err := readFull(f.r, i.raw, off); err != nil {
		return nil, fmt.Errorf("reading inode %d: %w", n, err)
	}
	le, b := binary.LittleEndian, i.raw
	i.mode, i.links, i.flags = uint32(le.Uint16(b)), le.Uint16(b[0x1a:]), le.Uint32(b[0x20:])
	i.uid = uint32(le.Uint16(b[2:])) | uint32(le.Uint16(b[0x78:]))<<16
	i.gid = uint32(le.Uint16(b[0x18:])) | uint32(le.Uint16(b[0x7a:]))<<16
	i.acl = int64(le.Uint32(b[0x68:])) | int64(le.Uint16(b[0x76:]))<<32
	size := uint64(le.Uint32(b[4:])) | uint64(le.Uint32(b[0x6c:]))<<32
	if size > 1<<56 {
		return nil, fmt.Errorf("inode %d: %d bytes", n, size)
	}
	i.size = int64(size)
	i.mtime = int64(int32(le.Uint32(b[0x10:]))) //nolint:gosec // it is signed
	if i.extra() >= 12 {                        // i_mtime_extra: the lowest two bits are further ones of the time
		i.mtime += int64(le.Uint32(b[0x88:])&3) << 32
	}
	if t := i.mode & typeMask; t == typeChar || t == typeBlock {
		i.rdev = uint32(le.Uint16(b[inodeMap:]))
		if i.rdev == 0 {
			i.rdev = le.Uint32(b[inodeMap+4:])
		}
	}
	return i, nil
}

// extra is how many bytes of fields there are behind the first 128.
func (i *inode) extra() int {
	if len(i.raw) < inodeBase+4 {
		return 0
	}
	return int(binary.LittleEndian.Uint16(i.raw[0x80:]))
}

// piece is a run of blocks of a file. from is 0 where the blocks are not
// written yet: they read as zeros.
type piece struct{ logical, from, count int64 }

// budget is what a walk may still look at.
type budget struct {
	entries, listing, extents, blocks int64
}

func newBudget() *budget { return &budget{maxEntries, maxListing, maxExtents, maxBlocks} }

var (
	errExtents = errors.New("files have too many pieces or blocks")
	errTree    = errors.New("the extents are not in order")
)

// extents are the pieces of a file in their order.
func (f *FS) extents(i *inode, w *budget) ([]piece, error) {
	if i.flags&flagInline != 0 || i.size == 0 && i.mode&typeMask != typeDir {
		return nil, nil
	}
	var l pieces
	l.w, l.f = w, f
	var err error
	if root := i.raw[inodeMap : inodeMap+mapSize]; i.flags&flagExtents != 0 {
		err = l.tree(root, -1)
	} else {
		err = l.pointers(root, (i.size+f.block-1)/f.block)
	}
	return l.list, err
}

// pieces gathers the pieces of a file.
type pieces struct {
	f    *FS
	w    *budget
	list []piece
	next int64 // the logical block that may come next
}

// add adds blocks that lie behind each other.
func (l *pieces) add(p piece, written bool) error {
	if p.logical < l.next || p.count < 1 {
		return errTree
	}
	if p.from <= 0 || p.from+p.count > l.f.blocks {
		return fmt.Errorf("blocks %d to %d of %d", p.from, p.from+p.count-1, l.f.blocks)
	}
	l.next = p.logical + p.count
	if !written {
		return nil
	}
	if last := len(l.list) - 1; last >= 0 && l.list[last].logical+l.list[last].count == p.logical && l.list[last].from+l.list[last].count == p.from {
		l.list[last].count += p.count
		return nil
	}
	if l.w.extents--; l.w.extents < 0 {
		return errExtents
	}
	l.list = append(l.list, p)
	return nil
}

// tree reads a node of a tree of extents (struct ext4_extent_header, _idx and
// _extent). depth is what the node above says, -1 for the topmost.
func (l *pieces) tree(b []byte, depth int) error {
	le := binary.LittleEndian
	entries, own := int(le.Uint16(b[2:])), int(le.Uint16(b[6:]))
	switch {
	case le.Uint16(b) != 0xf30a:
		return fmt.Errorf("no extents: they begin with %x", b[:2])
	case 12+12*entries > len(b) || own > 5 || depth >= 0 && own != depth-1:
		return fmt.Errorf("%d extents at depth %d", entries, own)
	}
	if l.w.blocks -= int64(entries) + 1; l.w.blocks < 0 {
		return errExtents
	}
	for n := range entries {
		e := b[12+12*n:]
		logical := int64(le.Uint32(e))
		if own == 0 {
			count, written := int64(le.Uint16(e[4:])), true
			if count > 1<<15 {
				count, written = count-1<<15, false
			}
			if err := l.add(piece{logical, int64(le.Uint32(e[8:])) | int64(le.Uint16(e[6:]))<<32, count}, written); err != nil {
				return err
			}
			continue
		}
		if logical < l.next {
			return errTree
		}
		below := make([]byte, l.f.block)
		if err := l.f.readBlock(below, int64(le.Uint32(e[4:]))|int64(le.Uint16(e[8:]))<<32); err != nil {
			return fmt.Errorf("extents: %w", err)
		}
		if err := l.tree(below, own); err != nil {
			return err
		}
	}
	return nil
}

// pointers reads the block numbers of ext2 and ext3: 12 of blocks, and one each
// of a block of numbers, of one of such, and of one of these.
func (l *pieces) pointers(root []byte, blocks int64) error {
	le := binary.LittleEndian
	covers := int64(1)
	at := int64(0)
	for n := range 15 {
		if n >= 12 {
			covers *= l.f.block / 4
		}
		if at < blocks {
			if err := l.pointer(int64(le.Uint32(root[4*n:])), at, covers, blocks); err != nil {
				return err
			}
		}
		at += covers
	}
	if at < blocks {
		return fmt.Errorf("%d blocks, more than an inode can have", blocks)
	}
	return nil
}

// pointer follows one number that stands for so many blocks from at on.
func (l *pieces) pointer(n, at, covers, blocks int64) error {
	if l.w.blocks--; l.w.blocks < 0 {
		return errExtents
	}
	switch {
	case n == 0:
		return nil
	case covers == 1:
		return l.add(piece{at, n, 1}, true)
	}
	b := make([]byte, l.f.block)
	if err := l.f.readBlock(b, n); err != nil {
		return fmt.Errorf("block numbers: %w", err)
	}
	covers /= l.f.block / 4
	for i := int64(0); i < l.f.block/4 && at < blocks; i++ {
		if err := l.pointer(int64(binary.LittleEndian.Uint32(b[4*i:])), at, covers, blocks); err != nil {
			return err
		}
		at += covers
	}
	return nil
}

// content reads a file, with zeros where nothing was written.
func (f *FS) content(i *inode, list []piece) io.Reader {
	if i.flags&flagInline != 0 {
		b := append(bytes.Clone(i.raw[inodeMap:inodeMap+mapSize]), i.inline...)
		return io.MultiReader(bytes.NewReader(b[:min(int64(len(b)), i.size)]), io.LimitReader(zeros{}, max(0, i.size-int64(len(b)))))
	}
	var parts []io.Reader
	at := int64(0)
	for _, p := range list {
		start := min(p.logical*f.block, i.size)
		if start > at {
			parts = append(parts, io.LimitReader(zeros{}, start-at))
		}
		at = min(start+p.count*f.block, i.size)
		if at > start {
			parts = append(parts, exact{io.NewSectionReader(f.r, p.from*f.block, at-start)})
		}
	}
	if at < i.size {
		parts = append(parts, io.LimitReader(zeros{}, i.size-at))
	}
	return io.MultiReader(parts...)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// exact does not end before its section does.
type exact struct{ *io.SectionReader }

func (e exact) Read(p []byte) (int, error) {
	n, err := e.SectionReader.Read(p)
	if n == 0 && err == io.EOF {
		if at, _ := e.Seek(0, io.SeekCurrent); at < e.Size() {
			return 0, io.ErrUnexpectedEOF
		}
	}
	return n, err
}

// small reads what is short: at most most bytes.
func (f *FS) small(i *inode, most int64, w *budget) ([]byte, error) {
	if i.size > most {
		return nil, fmt.Errorf("%d bytes, more than %d", i.size, most)
	}
	list, err := f.extents(i, w)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(f.content(i, list))
}

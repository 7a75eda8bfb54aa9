package squashfs

import (
	"errors"
	"fmt"
	"io"
)

// Types of inodes; the extended form of each is 7 more.
const (
	typeDir = iota + 1
	typeFile
	typeLink
	typeBlock
	typeChar
	typeFIFO
	typeSocket
)

// extended is between a type and its extended form.
const extended = 7

// fileTypes are those of stat, by the types above.
var fileTypes = map[uint16]uint32{
	typeDir: 0o040000, typeFile: 0o100000, typeLink: 0o120000, typeBlock: 0o060000, typeChar: 0o020000, typeFIFO: 0o010000, typeSocket: 0o140000,
}

// inode is one, of whatever form.
type inode struct {
	typ          uint16 // of the basic form
	mode         uint32
	uid, gid     uint32
	mtime        int64
	number       uint32
	xattr        uint32
	size         uint64
	target       string
	rdev         uint32
	listing      int64 // where a folder's begins in the table of folders
	listingAt    uint16
	start        int64 // of a file's blocks
	blocks       []uint32
	fragment     uint32
	fragmentFrom uint32
}

// readInode reads the inode that a reference leads to.
func (f *FS) readInode(ref uint64) (*inode, error) {
	end := int64(f.sb.Folders)
	s, err := f.stream(int64(f.sb.InodeTable)+int64(ref>>16), int(ref&0xffff), end)
	if err != nil {
		return nil, err
	}
	var h struct {
		Type, Perm, UID, GID uint16
		Mtime, Number        uint32
	}
	r := fields{s: s}
	r.u16(&h.Type, &h.Perm, &h.UID, &h.GID)
	r.u32(&h.Mtime, &h.Number)
	if r.err != nil {
		return nil, r.err
	}
	i := &inode{typ: h.Type, mtime: int64(h.Mtime), number: h.Number, xattr: none}
	isExtended := h.Type > extended
	if isExtended {
		i.typ -= extended
	}
	typ, ok := fileTypes[i.typ]
	if !ok {
		return nil, fmt.Errorf("inode %d has type %d", h.Number, h.Type)
	}
	i.mode = typ | uint32(h.Perm)&0o7777
	if int(h.UID) >= len(f.ids) || int(h.GID) >= len(f.ids) {
		return nil, fmt.Errorf("inode %d belongs to owners %d and %d of %d", h.Number, h.UID, h.GID, len(f.ids))
	}
	i.uid, i.gid = f.ids[h.UID], f.ids[h.GID]
	if err := f.readBody(&r, i, isExtended); err != nil {
		return nil, fmt.Errorf("inode %d: %w", h.Number, err)
	}
	return i, nil
}

// readBody reads what is behind an inode's header.
func (f *FS) readBody(r *fields, i *inode, isExtended bool) error {
	var links, skip uint32
	switch i.typ {
	case typeDir:
		return f.readFolder(r, i, isExtended)
	case typeFile:
		return f.readFile(r, i, isExtended)
	case typeLink:
		var size uint32
		r.u32(&links, &size)
		if r.err == nil && (size == 0 || size > maxTarget) {
			return fmt.Errorf("a link's target of %d bytes", size)
		}
		i.target = string(r.bytes(int(size)))
	case typeBlock, typeChar:
		r.u32(&links, &i.rdev)
	default:
		r.u32(&skip)
	}
	if isExtended {
		r.u32(&i.xattr)
	}
	return r.err
}

func (f *FS) readFolder(r *fields, i *inode, isExtended bool) error {
	var links, parent, start, size uint32
	if isExtended {
		var index uint16
		r.u32(&links, &size, &start, &parent)
		r.u16(&index, &i.listingAt)
		r.u32(&i.xattr)
	} else {
		var small uint16
		r.u32(&start, &links)
		r.u16(&small, &i.listingAt)
		r.u32(&parent)
		size = uint32(small)
	}
	if r.err == nil && size > maxListing {
		return fmt.Errorf("a folder's listing of %d bytes", size)
	}
	i.listing, i.size = int64(start), uint64(size)
	return r.err
}

func (f *FS) readFile(r *fields, i *inode, isExtended bool) error {
	var links uint32
	if isExtended {
		var start, sparse uint64
		r.u64(&start, &i.size, &sparse)
		r.u32(&links, &i.fragment, &i.fragmentFrom, &i.xattr)
		i.start = int64(start)
	} else {
		var start, size uint32
		r.u32(&start, &i.fragment, &i.fragmentFrom, &size)
		i.start, i.size = int64(start), uint64(size)
	}
	if r.err != nil {
		return r.err
	}
	n := i.size / uint64(f.sb.BlockSize)
	if i.fragment == none {
		n = (i.size + uint64(f.sb.BlockSize) - 1) / uint64(f.sb.BlockSize)
	}
	// Each block has four bytes in the table of inodes.
	if i.start < 0 || i.size > 1<<62 || n > (f.sb.Folders-f.sb.InodeTable)*metadataSize/4 {
		return fmt.Errorf("a file of %d bytes from %d on", i.size, i.start)
	}
	for range n {
		var size uint32
		if r.u32(&size); r.err != nil {
			return r.err
		}
		i.blocks = append(i.blocks, size)
	}
	return nil
}

// fields reads numbers one after another, until one cannot be read.
type fields struct {
	s   *stream
	err error
}

func (r *fields) bytes(n int) []byte {
	if r.err != nil {
		return nil
	}
	var b []byte
	if b, r.err = r.s.bytes(n); errors.Is(r.err, io.EOF) {
		r.err = io.ErrUnexpectedEOF
	}
	return b
}

func (r *fields) u16(to ...*uint16) {
	for _, p := range to {
		if b := r.bytes(2); r.err == nil {
			*p = uint16(b[0]) | uint16(b[1])<<8
		}
	}
}

func (r *fields) u32(to ...*uint32) {
	for _, p := range to {
		var low, high uint16
		r.u16(&low, &high)
		*p = uint32(low) | uint32(high)<<16
	}
}

func (r *fields) u64(to ...*uint64) {
	for _, p := range to {
		var low, high uint32
		r.u32(&low, &high)
		*p = uint64(low) | uint64(high)<<32
	}
}

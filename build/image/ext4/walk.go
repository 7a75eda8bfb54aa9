package ext4

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
)

// Entry is a name in a file system, and what it is the name of.
type Entry struct {
	// Path is "" for the root. Others have no slash in front.
	Path string
	// Mode is the file type (S_IFMT) and the permissions, with setuid,
	// setgid and sticky.
	Mode     uint32
	UID, GID uint32
	Mtime    int64 // seconds since 1970
	Size     int64 // of a regular file in bytes
	// Open opens the content of a regular file. It may have far more bytes
	// than the image: what was never written is read as zeros.
	Open func() (io.ReadCloser, error)
	// Target is what a symbolic link points to.
	Target string
	// HardLink is the path of the entry that this one is another name of.
	HardLink string
	// Rdev is the number of a device as st_rdev of Linux has it.
	Rdev uint32
	// Xattrs are extended attributes by their full name.
	Xattrs map[string][]byte
	// Extents are where the content lies in the image, each an offset and a
	// number of bytes; nil where it lies in the inode.
	Extents [][2]int64
}

// Walk calls fn for every entry, a directory before what is in it, in the order
// of their names: the first name of an inode that has several comes with all
// there is to say, the others are hard links to it and have in addition the
// same.
//
// It refuses folders with two names, and names that cannot be or are there
// twice.
func (f *FS) Walk(fn func(e Entry) error) error {
	w := &walker{f: f, fn: fn, budget: newBudget(), first: map[int64]string{}, folders: map[int64]bool{}}
	return w.entry("", rootInode)
}

type walker struct {
	*budget
	f       *FS
	fn      func(Entry) error
	first   map[int64]string // by inode number, where it has several names
	folders map[int64]bool
}

// entry visits an inode, and what is below it.
func (w *walker) entry(name string, number int64) error {
	i, e, err := w.describe(name, number)
	if err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	if err := w.fn(e); err != nil {
		return err
	}
	if i.mode&typeMask != typeDir {
		return nil
	}
	return w.folder(name, i)
}

// describe says what an inode is.
func (w *walker) describe(name string, number int64) (*inode, Entry, error) {
	i, err := w.f.inode(number)
	if err != nil {
		return nil, Entry{}, err
	}
	e := Entry{Path: name, Mode: i.mode, UID: i.uid, GID: i.gid, Mtime: i.mtime, Rdev: i.rdev, Xattrs: i.xattrs}
	if i.flags&flagEncrypt != 0 {
		return nil, e, errors.New("it is encrypted")
	}
	switch i.mode & typeMask {
	case typeDir:
		if w.folders[i.number] {
			return nil, e, errors.New("a folder with two names")
		}
		w.folders[i.number] = true
	case typeSymlink:
		e.Target, err = w.f.target(i, w.budget)
	case typeRegular:
		var list []piece
		list, err = w.f.extents(i, w.budget)
		e.Size = i.size
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(w.f.content(i, list)), nil }
		e.Extents = w.f.places(i, list)
	case 0:
		err = errors.New("an inode that is not in use")
	}
	if i.links > 1 && i.mode&typeMask != typeDir {
		if first, ok := w.first[i.number]; ok {
			e.HardLink = first
		} else {
			w.first[i.number] = name
		}
	}
	return i, e, err
}

// places are the pieces in bytes, without what is behind the end.
func (f *FS) places(i *inode, list []piece) [][2]int64 {
	var out [][2]int64
	for _, p := range list {
		if n := min(p.count*f.block, i.size-p.logical*f.block); n > 0 {
			out = append(out, [2]int64{p.from * f.block, n})
		}
	}
	return out
}

// target is what a symbolic link points to: in the inode where it is short.
func (f *FS) target(i *inode, w *budget) (string, error) {
	if i.size < mapSize && i.flags&(flagExtents|flagInline) == 0 {
		return string(i.raw[inodeMap : inodeMap+i.size]), nil
	}
	b, err := f.small(i, maxPath, w)
	return string(b), err
}

// child is an entry of a folder.
type child struct {
	name   string
	number int64
}

// folder visits what is in a folder.
func (w *walker) folder(name string, i *inode) error {
	children, err := w.list(i)
	if err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	for _, c := range children {
		p := path.Join(name, c.name)
		if len(p) > maxPath {
			return fmt.Errorf("a path of %d bytes", len(p))
		}
		if err := w.entry(p, c.number); err != nil {
			return err
		}
	}
	return nil
}

// list reads a folder by its blocks, one after the other: those of a hash tree
// look like blocks without names.
func (w *walker) list(i *inode) ([]child, error) {
	if w.listing -= i.size; w.listing < 0 {
		return nil, fmt.Errorf("folders have more than %d bytes", maxListing)
	}
	var out []child
	var err error
	if i.flags&flagInline != 0 { // 4 bytes are the number of the folder above
		if out, err = w.dirents(out, i.raw[inodeMap+4:inodeMap+mapSize]); err == nil {
			out, err = w.dirents(out, i.inline)
		}
	} else {
		out, err = w.blocks(i)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, func(a, b child) int { return cmp.Compare(a.name, b.name) })
	for n := 1; n < len(out); n++ {
		if out[n].name == out[n-1].name {
			return nil, fmt.Errorf("%q is there twice", out[n].name)
		}
	}
	return out, nil
}

// blocks reads a folder that has blocks.
func (w *walker) blocks(i *inode) ([]child, error) {
	pieces, err := w.f.extents(i, w.budget)
	if err != nil {
		return nil, err
	}
	var out []child
	b := make([]byte, w.f.block)
	next := int64(0)
	for _, p := range pieces {
		for n := range p.count {
			at := p.logical + n
			if at*w.f.block >= i.size {
				return out, nil
			}
			if at != next {
				return nil, fmt.Errorf("the folder has no block %d", next)
			}
			next++
			if err := w.f.readBlock(b, p.from+n); err != nil {
				return nil, err
			}
			if out, err = w.dirents(out, b); err != nil {
				return nil, err
			}
		}
	}
	if next*w.f.block < i.size {
		return nil, fmt.Errorf("the folder has no block %d", next)
	}
	return out, nil
}

// dirents reads names and their inodes (struct ext4_dir_entry_2).
func (w *walker) dirents(out []child, b []byte) ([]child, error) {
	le := binary.LittleEndian
	for len(b) >= 8 {
		number, length, nameLength := int64(le.Uint32(b)), int(le.Uint16(b[4:])), int(b[6])
		if length == 0xffff || length == 0 && w.f.block == 64<<10 {
			length = 64 << 10
		}
		if w.f.incompatible&featFiletype == 0 {
			nameLength |= int(b[7]) << 8
		}
		if length < 8 || length%4 != 0 || length > len(b) || number != 0 && 8+nameLength > length {
			return nil, fmt.Errorf("an entry of %d bytes where %d are left", length, len(b))
		}
		if name := b[8:min(length, 8+nameLength)]; number != 0 && string(name) != "." && string(name) != ".." {
			if len(name) == 0 || bytes.IndexByte(name, 0) >= 0 || strings.ContainsRune(string(name), '/') {
				return nil, fmt.Errorf("an entry called %q", name)
			}
			if w.entries--; w.entries < 0 {
				return nil, fmt.Errorf("more than %d entries", maxEntries)
			}
			out = append(out, child{string(name), number})
		}
		b = b[length:]
	}
	return out, nil
}

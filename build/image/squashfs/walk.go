package squashfs

import (
	"errors"
	"fmt"
	"io"
	"path"
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
	// Open opens the content of a regular file.
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
	// number of bytes.
	Extents [][2]int64
}

// Walk calls fn for every entry, a directory before what is in it, in the order
// of their names: the first name of an inode that has
// several comes with all there is to say, the others are hard links to it and
// have in addition the same.
//
// It refuses folders with two names, names that are not in order, and more than
// four million entries.
func (f *FS) Walk(fn func(e Entry) error) error {
	w := &walker{f: f, fn: fn, first: map[uint32]string{}, folders: map[uint64]bool{}}
	return w.entry("", f.sb.Root)
}

type walker struct {
	f       *FS
	fn      func(Entry) error
	n       int
	first   map[uint32]string // by inode number
	folders map[uint64]bool   // by reference
}

// entry visits the inode at a reference, and what is below it.
func (w *walker) entry(name string, ref uint64) error {
	if w.n++; w.n > maxEntries {
		return fmt.Errorf("more than %d entries", maxEntries)
	}
	i, err := w.f.readInode(ref)
	if err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	e := Entry{Path: name, Mode: i.mode, UID: i.uid, GID: i.gid, Mtime: i.mtime, Target: i.target, Rdev: i.rdev}
	if e.Xattrs, err = w.f.xattrs(i.xattr); err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	switch i.typ {
	case typeDir:
		if w.folders[ref] {
			return fmt.Errorf("/%s: a folder with two names", name)
		}
		w.folders[ref] = true
	case typeFile:
		e.Size = int64(i.size)
		e.Open = func() (io.ReadCloser, error) { return w.f.open(i) }
		if e.Extents, err = w.f.extents(i); err != nil {
			return fmt.Errorf("/%s: %w", name, err)
		}
		fallthrough
	default:
		if first, ok := w.first[i.number]; ok {
			e.HardLink = first
		} else {
			w.first[i.number] = name
		}
	}
	if err := w.fn(e); err != nil {
		return err
	}
	if i.typ != typeDir {
		return nil
	}
	return w.folder(name, i)
}

// child is an entry of a folder.
type child struct {
	name string
	ref  uint64
}

// folder visits what is in a folder.
func (w *walker) folder(name string, i *inode) error {
	children, err := w.f.list(i)
	if err != nil {
		return fmt.Errorf("/%s: %w", name, err)
	}
	for _, c := range children {
		if err := w.entry(path.Join(name, c.name), c.ref); err != nil {
			return err
		}
	}
	return nil
}

// list reads a folder. Its size counts three bytes for "." and "..", which are
// not there.
func (f *FS) list(i *inode) ([]child, error) {
	if i.size < 4 {
		return nil, nil
	}
	s, err := f.stream(int64(f.sb.Folders)+i.listing, int(i.listingAt), int64(f.sb.Size))
	if err != nil {
		return nil, err
	}
	limited := &io.LimitedReader{R: s, N: int64(i.size) - 3}
	r := fields{s: s}
	var out []child
	for left := limited.N; left > 0; {
		var count, start, number uint32
		r.u32(&count, &start, &number)
		left -= 12
		if r.err == nil && count >= 256 {
			return nil, fmt.Errorf("a header of %d entries", count)
		}
		for range uint64(count) + 1 {
			var offset, relative, typ, size uint16
			r.u16(&offset, &relative, &typ, &size)
			b := r.bytes(int(size) + 1)
			if r.err != nil {
				return nil, r.err
			}
			if left -= 8 + int64(len(b)); left < 0 || len(out) == maxEntries {
				return nil, errors.New("a listing that is longer than it says")
			}
			name := string(b)
			switch {
			case name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
				return nil, fmt.Errorf("an entry called %q", name)
			case len(out) > 0 && out[len(out)-1].name >= name:
				return nil, fmt.Errorf("%q comes behind %q", name, out[len(out)-1].name)
			}
			out = append(out, child{name, uint64(start)<<16 | uint64(offset)})
		}
	}
	return out, nil
}

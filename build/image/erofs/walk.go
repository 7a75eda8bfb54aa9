package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxPath    = 4096    // bytes of a path
	maxEntries = 4 << 20 // of an image
	maxHeld    = 64 << 20
)

// Walk calls fn for every entry, a directory before what is in it, in the
// order of their names. The first name of an inode that has several comes
// with all there is to say, the others are hard links to it and have in
// addition the same. Content is read when it is opened, from the image, which
// must be there until then; it may be opened several times, and at any time.
//
// Walk stops at the first error, fn's included. It refuses images that no
// sound file system has: directories with two names, with names that are not
// in order, or with entries of another type than the inode's. It holds what it
// needs to recognise names of the same inode, and refuses images of more than
// four million entries.
func (f *FS) Walk(fn func(e Entry) error) error {
	w := &walker{FS: f, fn: fn, dirs: make(map[uint64]bool), links: make(map[uint64]string)}
	root, err := f.readInode(uint64(f.super.rootNid))
	if err != nil {
		return fmt.Errorf("erofs: root: %w", err)
	}
	if root.mode&typeMask != typeDir {
		return fmt.Errorf("erofs: root has mode %#o, want a directory", root.mode)
	}
	return w.visit("", root, root.nid)
}

type walker struct {
	*FS
	fn      func(e Entry) error
	entries int
	dirs    map[uint64]bool   // directories that were seen
	links   map[uint64]string // first paths of other inodes with several
	held    int               // bytes of paths in links
}

// visit calls fn for a path, and for what is below it.
func (w *walker) visit(path string, i *file, parent uint64) error {
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("erofs: more than %d entries", maxEntries)
	}
	e, err := w.entry(path, i)
	if err != nil {
		return fmt.Errorf("erofs: %q: %w", path, err)
	}
	if err := w.fn(e); err != nil {
		return err
	}
	if i.mode&typeMask != typeDir {
		return nil
	}
	if w.dirs[i.nid] {
		return fmt.Errorf("erofs: %q: directory %d is in more than one place", path, i.nid)
	}
	w.dirs[i.nid] = true
	return w.visitDir(path, i, parent)
}

func (w *walker) entry(path string, i *file) (Entry, error) {
	e := Entry{Path: path, Mode: i.mode, UID: i.uid, GID: i.gid, Mtime: i.mtime}
	var err error
	if e.Xattrs, err = w.readXattrs(i); err != nil {
		return e, err
	}
	switch i.mode & typeMask {
	case typeRegular:
		if e.Extents, err = w.places(i); err != nil {
			return e, err
		}
		e.Size = i.size
		e.Open = func() (io.ReadCloser, error) {
			r, err := w.content(i)
			return io.NopCloser(r), err
		}
	case typeSymlink:
		if e.Target, err = w.readTarget(i); err != nil {
			return e, err
		}
	case typeChar, typeBlock:
		e.Rdev = i.start
	}
	if i.links > 1 && i.mode&typeMask != typeDir {
		if first, ok := w.links[i.nid]; ok {
			e.HardLink = first
		} else if w.held += len(path); w.held > maxHeld {
			return e, errors.New("too many files with several names")
		} else {
			w.links[i.nid] = path
		}
	}
	return e, nil
}

// places are the bytes of the image that a file's data is in.
func (w *walker) places(i *file) (out [][2]int64, err error) {
	add := func(off, size int64) {
		if n := len(out); n > 0 && out[n-1][0]+out[n-1][1] == off {
			out[n-1][1] += size
		} else if size > 0 {
			out = append(out, [2]int64{off, size})
		}
	}
	if i.isCompressed() {
		extents, err := w.compressed(i)
		for _, x := range extents {
			add(x.at, x.size)
		}
		return out, err
	}
	blocks, tail, err := w.extents(i)
	if err != nil {
		return nil, err
	}
	for _, r := range []*io.SectionReader{blocks, tail} {
		_, off, size := r.Outer()
		add(off, size)
	}
	return out, nil
}

// visitDir visits what is in a directory. It holds one block of it.
func (w *walker) visitDir(path string, i *file, parent uint64) error {
	r, err := w.content(i)
	if err != nil {
		return fmt.Errorf("erofs: %q: %w", path, err)
	}
	d := dirWalk{walker: w, path: path, nid: i.nid, parent: parent}
	block := make([]byte, min(BlockSize, i.size))
	for left := i.size; left > 0; left -= int64(len(block)) {
		block = block[:min(BlockSize, left)]
		if _, err := io.ReadFull(r, block); err != nil {
			return fmt.Errorf("erofs: reading directory %q: %w", path, err)
		}
		if err := d.visitBlock(block); err != nil {
			return err
		}
	}
	if d.dots != 2 {
		return fmt.Errorf("erofs: directory %q lacks its own entry or its parent's", path)
	}
	return nil
}

// dirWalk is a directory that is being walked through.
type dirWalk struct {
	*walker
	path        string
	nid, parent uint64
	previous    string
	dots        int // of . and ..
}

// visitBlock visits what is in a block of a directory.
func (d *dirWalk) visitBlock(block []byte) error {
	le := binary.LittleEndian
	if len(block) < direntSize {
		return fmt.Errorf("erofs: directory %q has a block of %d bytes", d.path, len(block))
	}
	names := int(le.Uint16(block[8:]))
	if names == 0 || names%direntSize != 0 || names > len(block) {
		return fmt.Errorf("erofs: directory %q: names of a block begin at %d", d.path, names)
	}
	for at := 0; at < names; at += direntSize {
		b := block[at:]
		start, end := int(le.Uint16(b[8:])), len(block)
		if at+direntSize < names {
			end = int(le.Uint16(b[direntSize+8:]))
		}
		if start < names || start > end || end > len(block) {
			return fmt.Errorf("erofs: directory %q has a name from %d to %d", d.path, start, end)
		}
		name := block[start:end]
		if at+direntSize == names {
			name, _, _ = bytes.Cut(name, []byte{0}) // zeros fill the block
		}
		if err := d.visitName(string(name), le.Uint64(b), b[10]); err != nil {
			return err
		}
	}
	return nil
}

func (d *dirWalk) visitName(name string, nid uint64, kind byte) error {
	if name <= d.previous {
		return fmt.Errorf("erofs: directory %q has %q after %q", d.path, name, d.previous)
	}
	d.previous = name
	if name == "." || name == ".." {
		d.dots++
		if want := map[string]uint64{".": d.nid, "..": d.parent}[name]; nid != want {
			return fmt.Errorf("erofs: directory %q has inode %d for %q, want %d", d.path, nid, name, want)
		}
		return nil
	}
	path := name
	if d.path != "" {
		path = d.path + "/" + name
	}
	if len(path) > maxPath {
		return fmt.Errorf("erofs: path %.80q… has more than %d bytes", path, maxPath)
	}
	if bytes.IndexByte([]byte(name), '/') >= 0 {
		return fmt.Errorf("erofs: directory %q has the name %q", d.path, name)
	}
	if err := checkPath(name); err != nil {
		return fmt.Errorf("erofs: directory %q: %w", d.path, err)
	}
	i, err := d.readInode(nid)
	if err != nil {
		return fmt.Errorf("erofs: %q: %w", path, err)
	}
	if want := direntType(i.mode); kind != want {
		return fmt.Errorf("erofs: %q has the type %d in its directory, want %d", path, kind, want)
	}
	return d.visit(path, i, d.nid)
}

package erofs

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Entry is a name in a file system, and what it is the name of.
type Entry struct {
	// Path is "" for the root. Others have no slash in front, and no empty,
	// "." or ".." parts.
	Path string
	// Mode is the file type (S_IFMT) and the permissions, with setuid,
	// setgid and sticky.
	Mode     uint32
	UID, GID uint32
	Mtime    int64 // seconds since 1970
	Size     int64 // of a regular file in bytes
	// Open opens the content of a regular file. It may be nil for an empty
	// one. Write calls the Opens of several entries at a time.
	Open func() (io.ReadCloser, error)
	// Target is what a symbolic link points to.
	Target string
	// HardLink is the path of the entry that this one is another name of,
	// which is not itself such a one, nor a directory. Write takes nothing
	// else from this one but its path.
	HardLink string
	// Rdev is the number of a device as st_rdev of Linux has it: bits 8 to
	// 19 are the major number, 0 to 7 and 20 to 31 the minor.
	Rdev uint32
	// Xattrs are extended attributes by their full name.
	Xattrs map[string][]byte
	// Extents are where the content lies in the image, each an offset and a
	// number of bytes. Walk gives them, Write takes no notice.
	Extents [][2]int64
}

// node is an inode: an entry without the entries that are hard links to it.
type node struct {
	entry    *Entry
	parent   *node // of a directory; the root is its own
	children []child
	names    uint32 // of other than directories
	subdirs  uint32
	ino      uint32 // from 1, in the order of the tree; 0: not yet known
	xattrs   xattrBody

	// What the layout decides.
	inode
	at   int64 // of the inode in the image, in bytes
	room int64 // from there to the next inode or the end of its block
	tail int64 // bytes of data behind the inode
}

func (n *node) isDir() bool { return n.entry.Mode&typeMask == typeDir }

// nid is the number that directories have for the inode.
func (n *node) nid() uint64 { return uint64(n.at / slotSize) }

// child is a name in a directory.
type child struct {
	name string
	node *node
}

// newTree returns the nodes of entries in the order of the first of their
// paths, the root in front. The order is that of a walk through the tree, so
// that what is in a directory follows it.
func newTree(entries []Entry) ([]*node, error) {
	sorted := make([]*Entry, len(entries))
	keys := make(map[*Entry]string, len(entries))
	own := make(map[string]*node, len(entries))
	for i := range entries {
		e := &entries[i]
		if err := checkPath(e.Path); err != nil {
			return nil, err
		}
		sorted[i] = e
		keys[e] = strings.ReplaceAll(e.Path, "/", "\x00")
		if e.HardLink != "" {
			continue
		}
		n, err := newNode(e)
		if err != nil {
			return nil, fmt.Errorf("%q: %w", e.Path, err)
		}
		own[e.Path] = n
	}
	slices.SortFunc(sorted, func(a, b *Entry) int { return cmp.Compare(keys[a], keys[b]) })
	var nodes []*node
	for i, e := range sorted {
		if i > 0 && e.Path == sorted[i-1].Path {
			return nil, fmt.Errorf("%q is there twice", e.Path)
		}
		n, err := attach(e, own)
		if err != nil {
			return nil, err
		}
		if n.ino == 0 {
			nodes = append(nodes, n)
			n.ino = uint32(len(nodes))
		}
	}
	if len(nodes) == 0 {
		return nil, errors.New("no entry for the root")
	}
	return nodes, nil
}

// attach gives an entry to the directory that it is in, and returns the node
// that it is a name of.
func attach(e *Entry, own map[string]*node) (*node, error) {
	n := own[e.Path]
	if e.HardLink != "" {
		if n = own[e.HardLink]; n == nil {
			return nil, fmt.Errorf("%q: hard link to %q, which is no entry or itself a hard link", e.Path, e.HardLink)
		}
		if n.isDir() {
			return nil, fmt.Errorf("%q: hard link to %q, which is a directory", e.Path, e.HardLink)
		}
	}
	n.names++
	if e.Path == "" {
		if !n.isDir() {
			return nil, fmt.Errorf("the root has mode %#o, want a directory", e.Mode)
		}
		n.parent = n
		return n, nil
	}
	dir, name := "", e.Path
	if i := strings.LastIndexByte(e.Path, '/'); i >= 0 {
		dir, name = e.Path[:i], e.Path[i+1:]
	}
	parent := own[dir]
	switch {
	case parent == nil:
		return nil, fmt.Errorf("%q: no entry for its directory %q", e.Path, dir)
	case !parent.isDir():
		return nil, fmt.Errorf("%q: %q is not a directory", e.Path, dir)
	}
	parent.children = append(parent.children, child{name, n})
	if n.isDir() {
		n.parent = parent
		parent.subdirs++
	}
	return n, nil
}

func checkPath(path string) error {
	if path == "" {
		return nil
	}
	for part := range strings.SplitSeq(path, "/") {
		switch {
		case part == "" || part == "." || part == "..":
			return fmt.Errorf("path %q has the part %q", path, part)
		case len(part) > maxName:
			return fmt.Errorf("path %.80q… has a name of %d bytes, more than %d", path, len(part), maxName)
		case strings.IndexByte(part, 0) >= 0:
			return fmt.Errorf("path %q has a NUL in it", path)
		}
	}
	return nil
}

// newNode checks what an entry says of an inode.
func newNode(e *Entry) (*node, error) {
	if e.Mode > 0xffff || direntType(e.Mode) == 0 {
		return nil, fmt.Errorf("mode %#o is not one of a file", e.Mode)
	}
	if e.Mode&typeMask == typeRegular {
		if e.Size < 0 || e.Size > maxBlocks*BlockSize {
			return nil, fmt.Errorf("size is %d", e.Size)
		}
		if e.Size > 0 && e.Open == nil {
			return nil, fmt.Errorf("no content for %d bytes", e.Size)
		}
	}
	if e.Mode&typeMask == typeSymlink {
		if e.Target == "" || len(e.Target) > maxTarget || strings.IndexByte(e.Target, 0) >= 0 {
			return nil, fmt.Errorf("target %.80q: want 1 to %d bytes without a NUL", e.Target, maxTarget)
		}
	}
	own, err := encodeXattrs(e.Xattrs)
	if err != nil {
		return nil, err
	}
	n := &node{entry: e, xattrs: xattrBody{own: own}}
	if size := n.xattrs.size(); size > maxXattrs {
		return nil, fmt.Errorf("extended attributes have %d bytes, more than %d", size, maxXattrs)
	}
	return n, nil
}

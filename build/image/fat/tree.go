package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
	"time"
)

// Attributes of a directory entry.
const (
	attrReadOnly = 0x01
	attrLabel    = 0x08
	attrFolder   = 0x10
	attrArchive  = 0x20
	attrLong     = 0x0f

	deleted = 0xe5 // the first byte of an entry that is free
)

// node is a file or a folder.
type node struct {
	name     string
	parent   *node
	children map[string]*node // by folded name; nil for a file
	sorted   []*node
	short    [11]byte
	flags    byte // lower-case base and extension
	long     bool
	file     File
	cluster  int64
}

func (n *node) isFolder() bool { return n.children != nil }

func (n *node) path() string {
	if n.parent == nil {
		return ""
	}
	return path.Join(n.parent.path(), n.name)
}

// newTree makes the folders of the files, checks all names, and makes the
// short ones.
func newTree(files []File) (*node, error) {
	root := &node{children: map[string]*node{}}
	sorted := slices.Clone(files)
	slices.SortStableFunc(sorted, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for _, f := range sorted {
		if f.Size < 0 || max(f.Size, f.Room) > maxFile {
			return nil, fmt.Errorf("%q has %d bytes, at most %d fit a file", f.Path, max(f.Size, f.Room), int64(maxFile))
		}
		if err := root.add(f); err != nil {
			return nil, err
		}
	}
	return root, root.finish()
}

func (n *node) add(f File) error {
	at := n
	parts := strings.Split(f.Path, "/")
	for i, name := range parts {
		if err := checkName(name); err != nil {
			return fmt.Errorf("%q: %w", f.Path, err)
		}
		child, last := at.children[fold(name)], i == len(parts)-1
		switch {
		case child == nil:
			child = &node{name: name, parent: at}
			if last {
				child.file = f
			} else {
				child.children = map[string]*node{}
			}
			at.children[fold(name)] = child
		case last || !child.isFolder() || child.name != name:
			return fmt.Errorf("%q and %q have one name", f.Path, child.path())
		}
		at = child
	}
	return nil
}

// finish sorts the children and gives them short names, those first that
// need no made one.
func (n *node) finish() error {
	n.sorted = slices.SortedFunc(maps.Values(n.children), func(a, b *node) int { return strings.Compare(a.name, b.name) })
	taken := make(map[[11]byte]bool, len(n.sorted))
	for _, c := range n.sorted {
		var ok bool
		if c.short, c.flags, ok = shortName(c.name); ok {
			taken[c.short] = true
		} else {
			c.long = true
		}
	}
	size := int64(2 * entrySize) // "." and ".."; the root has a label instead
	for _, c := range n.sorted {
		if c.long {
			short, err := makeShort(c.name, taken)
			if err != nil {
				return fmt.Errorf("%q: %w", c.path(), err)
			}
			c.short = short
			taken[c.short] = true
		}
		size += c.entries() * entrySize
		if c.isFolder() {
			if err := c.finish(); err != nil {
				return err
			}
		}
	}
	if size > maxFolder {
		return fmt.Errorf("folder %q needs %d bytes, at most %d are possible", n.path(), size, maxFolder)
	}
	return nil
}

// entries is the number of directory entries that n takes in its folder.
func (n *node) entries() int64 {
	if !n.long {
		return 1
	}
	return 1 + int64(longEntries(n.name))
}

// folderLength is the length of a folder's entries in bytes.
func (n *node) folderLength(label bool) int64 {
	count := int64(0)
	switch {
	case n.parent != nil:
		count = 2
	case label:
		count = 1
	}
	for _, c := range n.sorted {
		count += c.entries()
	}
	return count * entrySize
}

// clusters is how many clusters n and all below it take, or have set aside.
func (n *node) clusters(size int64, label bool) int64 {
	if !n.isFolder() {
		return (max(n.file.Size, n.file.Room) + size - 1) / size
	}
	sum := max(1, (n.folderLength(label)+size-1)/size)
	for _, c := range n.sorted {
		sum += c.clusters(size, label)
	}
	return sum
}

// place gives all folders and then all files that are not empty their
// clusters of size bytes, and returns all folders and all files.
func (n *node) place(t *table, size int64, label bool) (folders, files []*node) {
	folders = []*node{n}
	for i := 0; i < len(folders); i++ {
		f := folders[i]
		f.cluster = t.chain(max(1, (f.folderLength(label)+size-1)/size))
		for _, c := range f.sorted {
			if c.isFolder() {
				folders = append(folders, c)
			}
		}
	}
	for _, f := range folders {
		for _, c := range f.sorted {
			if !c.isFolder() {
				end := t.next + c.clusters(size, label)
				c.cluster = t.chain((c.file.Size + size - 1) / size)
				t.next = end
				files = append(files, c)
			}
		}
	}
	return folders, files
}

// encode makes the folder's directory entries, padded to a cluster.
func (n *node) encode(s stamp, cluster int64, label string, padded [11]byte) []byte {
	length := max(n.folderLength(label != ""), 1)
	b := make([]byte, 0, (length+cluster-1)/cluster*cluster)
	switch {
	case n.parent != nil:
		b = s.entry(b, [11]byte([]byte(".          ")), attrFolder, 0, n.cluster, 0)
		above := n.parent.cluster
		if n.parent.parent == nil {
			above = 0 // the root, whatever its cluster ("." and "..")
		}
		b = s.entry(b, [11]byte([]byte("..         ")), attrFolder, 0, above, 0)
	case label != "":
		b = s.entry(b, padded, attrLabel, 0, 0, 0)
	}
	for _, c := range n.sorted {
		if c.long {
			b = appendLong(b, c.name, c.short)
		}
		if c.isFolder() {
			b = s.entry(b, c.short, attrFolder, c.flags, c.cluster, 0)
		} else {
			b = s.entry(b, c.short, c.file.attributes(), c.flags, c.cluster, c.file.Size)
		}
	}
	return b[:cap(b)]
}

// copy writes the file's content, and zeros up to the end of its cluster.
func (n *node) copy(w io.WriterAt, g geometry) error {
	r, err := n.file.Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	if n.cluster == 0 {
		return expectEnd(r, 0)
	}
	out := io.NewOffsetWriter(w, g.offset(n.cluster))
	got, err := io.Copy(out, io.LimitReader(r, n.file.Size))
	if err != nil {
		return err
	}
	if got < n.file.Size {
		return fmt.Errorf("got %d bytes, want %d", got, n.file.Size)
	}
	if err := expectEnd(r, n.file.Size); err != nil {
		return err
	}
	pad := (g.clusterBytes() - n.file.Size%g.clusterBytes()) % g.clusterBytes()
	_, err = out.Write(make([]byte, pad))
	return err
}

// expectEnd refuses a reader that has more than the size bytes it gave.
func expectEnd(r io.Reader, size int64) error {
	var more [1]byte
	switch _, err := io.ReadFull(r, more[:]); err {
	case io.EOF:
		return nil
	case nil:
		return fmt.Errorf("got more than %d bytes", size)
	default:
		return err
	}
}

// stamp is a time as directory entries have it.
type stamp struct {
	date, time uint16
	tenth      byte // hundredths of a second beyond time
}

// newStamp converts seconds since 1970 to the format's local time, which is
// UTC here ("Date and Time Formats").
func newStamp(seconds int64) stamp {
	const first, last = 315532800, 4354819199 // 1980-01-01 and 2107-12-31 23:59:59
	t := time.Unix(min(max(seconds, first), last), 0).UTC()
	return stamp{
		date:  uint16(t.Year()-1980)<<9 | uint16(t.Month())<<5 | uint16(t.Day()),
		time:  uint16(t.Hour())<<11 | uint16(t.Minute())<<5 | uint16(t.Second()/2),
		tenth: byte(t.Second() % 2 * 100),
	}
}

// entry appends a short directory entry.
func (s stamp) entry(b []byte, name [11]byte, attr, flags byte, cluster, size int64) []byte {
	e := make([]byte, entrySize)
	copy(e, name[:])
	e[11], e[12], e[13] = attr, flags, s.tenth
	binary.LittleEndian.PutUint16(e[14:], s.time)
	binary.LittleEndian.PutUint16(e[16:], s.date)
	binary.LittleEndian.PutUint16(e[18:], s.date)
	binary.LittleEndian.PutUint16(e[20:], uint16(cluster>>16))
	binary.LittleEndian.PutUint16(e[22:], s.time)
	binary.LittleEndian.PutUint16(e[24:], s.date)
	binary.LittleEndian.PutUint16(e[26:], uint16(cluster))
	binary.LittleEndian.PutUint32(e[28:], uint32(size))
	return append(b, e...)
}

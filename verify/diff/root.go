package diff

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"caisson/build/fsimage"
	"caisson/build/image/erofs"
	"caisson/build/image/ext4"
)

// superblock is where a file system's is, what it says, and where in it a
// checksum of itself and of what follows is.
type superblock struct {
	span
	checksum span
	fields   []field
}

func superblockOf(kind string) superblock {
	if kind == fsimage.Squashfs { // Documentation/filesystems/squashfs.rst
		return superblock{span: span{0, 96}, fields: squashfsFields()}
	}
	if kind == fsimage.Ext4 { // Documentation/filesystems/ext4/super.rst
		return superblock{span: span{1024, 2048}, fields: ext4Fields()}
	}
	return superblock{span{1024, 1024 + 128}, span{1024 + 4, 1024 + 8}, erofsFields()} // Documentation/filesystems/erofs.rst
}

// File types, as st_mode has them.
const (
	typeMask    = 0o170000
	typeFIFO    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeRegular = 0o100000
	typeSymlink = 0o120000
	typeSocket  = 0o140000
)

func typeName(mode uint32) string {
	switch mode & typeMask {
	case typeFIFO:
		return "fifo"
	case typeChar:
		return "character device"
	case typeDir:
		return "folder"
	case typeBlock:
		return "block device"
	case typeRegular:
		return "file"
	case typeSymlink:
		return "symbolic link"
	case typeSocket:
		return "socket"
	}
	return octal(mode & typeMask)
}

// root compares two file systems of a kind that a root can have.
func (d *differ) root(n *Node, v volume, kind string) {
	if v.measured != "" {
		n.comment(v.measured)
	}
	sb := superblockOf(kind)
	super := sb.span
	x, y := readUpTo(v.a, super.off, super.end-super.off), readUpTo(v.b, super.off, super.end-super.off)
	if v.changed.touches(super) {
		s := d.child(n, beside(v.prefix(), "superblock"))
		if kind == fsimage.EROFS && len(v.changed.and(spans{super}).minus(spans{sb.checksum})) == 0 {
			s.comment("the checksum is of what follows in its block as well")
		}
		d.fields(s, x, y, super.off, sb.fields)
	}
	c := &comparison{differ: d, spot: v.spot(), prefix: v.prefix(), changed: v.changed, timed: true}
	c.spot.boot = false
	c.a, c.b = readRoot(v.a, kind), readRoot(v.b, kind)
	if c.a.err != nil || c.b.err != nil {
		d.failed(n, c.a.err, c.b.err)
		c.damaged(n, v, spans{super})
		return
	}
	c.trees(n)
	c.rest(n, [2]io.ReaderAt{v.a, v.b}, spans{super}, "between the files")
}

// damaged names, by the file system that could be read, what lies where the
// other differs.
func (c *comparison) damaged(n *Node, v volume, known spans) {
	sound := c.a
	if c.a.err != nil {
		sound = c.b
	}
	left := v.changed.minus(known)
	if len(left) == 0 {
		return
	}
	s := c.child(n, beside(c.prefix, "bytes"))
	at := sound.at
	if sound.err != nil {
		at = func(off int64) string {
			if name := c.a.at(off); name != "" {
				return name
			}
			return c.b.at(off)
		}
	}
	c.raw(s, v.a, v.b, 0, left, at)
}

// readRoot reads all but the content of the files.
func readRoot(r *io.SectionReader, kind string) *tree {
	t := newTree()
	rec := &recorder{r: r, size: r.Size()}
	fsys, err := fsimage.OpenKind(rec, kind)
	if err != nil {
		t.err = err
		return t
	}
	rec.take()
	t.err = fsys.Walk(func(e erofs.Entry) error {
		x := &entry{path: absolute(e.Path), mode: e.Mode, mtime: e.Mtime, size: e.Size, attrs: erofsAttrs(e)}
		read := rec.take()
		// An empty folder's content is read after it was visited.
		if last := len(t.entries) - 1; last >= 0 && len(read) > 0 && isEmpty(t.entries[last], x.path) {
			t.entries[last].meta = append(t.entries[last].meta, read[0])
			read = read[1:]
		}
		x.meta = normalise(read)
		if e.HardLink == "" {
			x.open = e.Open
			for _, s := range e.Extents {
				x.data = append(x.data, span{s[0], s[0] + s[1]})
			}
		}
		t.add(x)
		return nil
	})
	if last := len(t.entries) - 1; last >= 0 {
		t.entries[last].meta = normalise(append(rec.take(), t.entries[last].meta...))
	}
	rec.done = true
	if f, ok := fsys.(bookkeeper); ok {
		for _, r := range f.Regions() {
			t.regions = append(t.regions, named{span: span{r.Off, r.Off + r.Size}, path: r.Name})
		}
		t.inode = f.Inode
	}
	t.index()
	return t
}

// bookkeeper is a file system whose inodes and other structures have places.
type bookkeeper interface {
	Regions() []ext4.Region
	Inode(off int64) (start int64, ok bool)
}

// inodeField names the field of struct ext4_inode that a byte is of.
func inodeField(off int64) string {
	name := ""
	for _, f := range []struct {
		off  int64
		name string
	}{
		{0, "mode"}, {2, "owner"}, {4, "size"}, {8, "atime"}, {12, "ctime"}, {16, "mtime"}, {20, "dtime"}, {24, "group"}, {26, "links"}, {28, "blocks"},
		{32, "flags"}, {36, "version"}, {40, "block map"}, {100, "generation"}, {104, "attributes"}, {108, "size"}, {112, "blocks"}, {118, "attributes"},
		{120, "owner"}, {122, "group"}, {124, "checksum"}, {128, "size of the fields"}, {130, "checksum"}, {132, "ctime"}, {136, "mtime"}, {140, "atime"},
		{144, "crtime"}, {152, "version"}, {156, "project"}, {160, "attributes"},
	} {
		if f.off <= off {
			name = f.name
		}
	}
	return name
}

// inodeFields says which fields of inodes differ, and in how many.
func (c *comparison) inodeFields(n *Node, where spans) {
	if n == nil || c.a.inode == nil {
		return
	}
	counts := map[string]int64{}
	last := map[string]int64{}
	for _, s := range where {
		for off := s.off; off < s.end; off++ {
			start, ok := c.a.inode(off)
			if !ok {
				break
			}
			if name := inodeField(off - start); counts[name] == 0 || last[name] != start {
				counts[name]++
				last[name] = start
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		n.comment(fmt.Sprintf("%s of %s", name, count(counts[name], "inode", "inodes")))
	}
}

// isEmpty tells whether e is a folder without anything in it, if path is what
// a walk comes to next.
func isEmpty(e *entry, path string) bool {
	return e.mode&typeMask == typeDir && !strings.HasPrefix(path, strings.TrimSuffix(e.path, "/")+"/")
}

// erofsAttrs is what is said of an entry, but for its time.
func erofsAttrs(e erofs.Entry) []attr {
	list := []attr{
		{"type", typeName(e.Mode)}, {"mode", octal(e.Mode &^ typeMask)},
		{"owner", fmt.Sprintf("%d:%d", e.UID, e.GID)},
	}
	switch e.Mode & typeMask {
	case typeSymlink:
		list = append(list, attr{"target", oneLine(e.Target)})
	case typeChar, typeBlock:
		list = append(list, attr{"device", fmt.Sprintf("%d:%d", e.Rdev>>8&0xfff, e.Rdev&0xff|e.Rdev>>12&0xfff00)})
	}
	if e.HardLink != "" {
		list = append(list, attr{"hard link to", oneLine(absolute(e.HardLink))})
	}
	for _, name := range slices.Sorted(maps.Keys(e.Xattrs)) {
		list = append(list, attr{"xattr " + oneLine(name), xattrText(e.Xattrs[name])})
	}
	return list
}

func xattrText(b []byte) string {
	const most = 256
	if len(b) > most {
		return fmt.Sprintf("%d bytes, %s…", len(b), hexText(b[:most]))
	}
	if isText(b) {
		return fmt.Sprintf("%q", b)
	}
	return hexText(b)
}

// squashfsFields are those of struct squashfs_super_block in Linux.
func squashfsFields() []field {
	return []field{
		{"magic", 0, 4, hexadecimal}, {"inodes", 4, 4, decimal}, {"made", 8, 4, unixTime}, {"block size", 12, 4, decimal},
		{"fragments", 16, 4, decimal}, {"compression", 20, 2, decimal}, {"block size bits", 22, 2, decimal}, {"flags", 24, 2, hexadecimal},
		{"owners", 26, 2, decimal}, {"root inode", 32, 8, hexadecimal}, {"bytes", 40, 8, decimal}, {"table of owners", 48, 8, decimal},
		{"table of attributes", 56, 8, decimal}, {"table of inodes", 64, 8, decimal}, {"table of folders", 72, 8, decimal},
		{"table of fragments", 80, 8, decimal}, {"export table", 88, 8, decimal},
	}
}

// ext4Fields are those of struct ext4_super_block in Linux.
func ext4Fields() []field {
	return []field{
		{"inodes", 0, 4, decimal}, {"blocks", 4, 4, decimal}, {"free blocks", 12, 4, decimal}, {"free inodes", 16, 4, decimal},
		{"block size", 24, 4, decimal}, {"mounted", 44, 4, unixTime}, {"written", 48, 4, unixTime}, {"mounts", 52, 2, decimal},
		{"magic", 56, 2, hexadecimal}, {"state", 58, 2, hexadecimal}, {"minor revision", 62, 2, decimal}, {"checked", 64, 4, unixTime}, {"inode size", 88, 2, decimal},
		{"compatible features", 92, 4, hexadecimal}, {"incompatible features", 96, 4, hexadecimal}, {"read-only features", 100, 4, hexadecimal},
		{"uuid", 104, 16, uuid}, {"label", 120, 16, quoted}, {"last mounted at", 136, 64, quoted}, {"uuid of the journal", 208, 16, uuid},
		{"hash seed", 236, 16, hexText}, {"made", 264, 4, unixTime}, {"kilobytes written", 376, 8, decimal}, {"checksum seed", 624, 4, hexadecimal},
		{"checksum", 1020, 4, hexadecimal},
	}
}

// erofsFields are those of struct erofs_super_block in Linux.
func erofsFields() []field {
	return []field{
		{"magic", 0, 4, hexadecimal}, {"checksum", 4, 4, hexadecimal}, {"compatible features", 8, 4, hexadecimal},
		{"block size bits", 12, 1, decimal}, {"root inode", 14, 2, decimal}, {"inodes", 16, 8, decimal},
		{"build time", 24, 8, unixTime}, {"build time nanoseconds", 32, 4, decimal}, {"blocks", 36, 4, decimal},
		{"first metadata block", 40, 4, decimal}, {"first attribute block", 44, 4, decimal},
		{"uuid", 48, 16, uuid}, {"label", 64, 16, quoted}, {"incompatible features", 80, 4, hexadecimal},
	}
}

package diff

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"

	"caisson/build/fsimage"
	"caisson/build/image/ocilayout"
)

// spot is where a content is.
type spot struct {
	path  string
	part  string // as Source.Owner has it
	boot  bool   // firmware starts it, and measures it
	depth int
}

// below is the spot of something in what is there.
func (s spot) below(name string) spot {
	s.path = strings.TrimPrefix(join(s.path, name), join("", ""))
	s.part = ""
	s.depth++
	return s
}

// kind is what a content is, and how two of it are shown. show is given a
// spot in the content. It says false where the bytes have to be shown as well.
type kind struct {
	name string
	show func(d *differ, n *Node, at spot, a, b *io.SectionReader) bool
}

// sniffed is how much of a content is looked at to tell its kind.
const sniffed = 64<<10 + 512

// kindOf tells the kind of a content by how it begins, and the little that
// has nothing to be known by, by its name. It has no name where it is not
// known.
func kindOf(r *io.SectionReader, name string) kind {
	b := readUpTo(r, 0, min(sniffed, r.Size()))
	has := func(off int, magic string) bool { return bytes.HasPrefix(slice(b, off, len(magic)), []byte(magic)) }
	switch {
	case has(0, "\x7fELF"):
		return kind{"an ELF file", (*differ).elf}
	case has(0, "MZ") && (peOffset(b) > 0 || strings.HasSuffix(strings.ToLower(name), ".efi")):
		return kind{"a PE image", (*differ).peFile}
	case compression(b) != "":
		return kind{"compressed with " + compression(b), (*differ).packed}
	case has(0, "PK\x03\x04"), has(0, "PK\x05\x06"):
		return kind{"a zip archive", (*differ).zip}
	case has(0, "!<arch>\n"):
		return kind{"an ar archive", (*differ).ar}
	case has(257, "ustar") && ocilayout.Is(r, r.Size()):
		return kind{"a container image", (*differ).oci}
	case has(257, "ustar"):
		return kind{"a tar archive", (*differ).tar}
	case has(0, "07070"):
		return kind{"a cpio archive", (*differ).cpio}
	case has(0, "\xed\xab\xee\xdb"):
		return kind{"an RPM package", (*differ).rpm}
	case has(0, "SQLite format 3\x00"), has(0, "RpmP"), has(12, "\x61\x15\x06\x00"), has(12, "\x00\x06\x15\x61"):
		return kind{"a database", (*differ).rpmdb}
	case has(0, "\xde\x12\x04\x95"), has(0, "\x95\x04\x12\xde"):
		return kind{"a catalog of translations", (*differ).mo}
	case strings.HasSuffix(name, ".pyc") && has(2, "\r\n") && len(b) >= pycHeader:
		return kind{"compiled Python", (*differ).pyc}
	case fileSystem(r) != "":
		return kind{fileSystem(r), (*differ).fileSystem}
	}
	return kind{}
}

// compression names the program that what begins so was compressed with.
func compression(b []byte) string {
	for _, c := range []struct{ name, magic string }{
		{"gzip", "\x1f\x8b\x08"}, {"xz", "\xfd7zXZ\x00"}, {"zstd", "\x28\xb5\x2f\xfd"}, {"lz4", "\x04\x22\x4d\x18"},
	} {
		if bytes.HasPrefix(b, []byte(c.magic)) {
			return c.name
		}
	}
	if bytes.HasPrefix(b, []byte("BZh")) && bytes.HasPrefix(slice(b, 4, 6), []byte("1AY&SY")) {
		return "bzip2"
	}
	return ""
}

// fileSystem names the file system that an image has, "" for none.
func fileSystem(r io.ReaderAt) string {
	for _, m := range []struct {
		kind  string
		off   int64
		magic string
	}{
		{fsimage.EROFS, 1024, "\xe2\xe1\xf5\xe0"}, {fsimage.Squashfs, 0, "hsqs"}, {fsimage.Ext4, 1024 + 56, "\x53\xef"},
		{"fat", 82, "FAT32   "}, {"fat", 54, "FAT16   "},
	} {
		if string(readUpTo(r, m.off, int64(len(m.magic)))) != m.magic {
			continue
		}
		if m.kind != fsimage.Ext4 || number(readUpTo(r, 1024+24, 4)) <= 6 { // two bytes are no proof: blocks have 1 to 64 KiB
			return m.kind
		}
	}
	return ""
}

// fileSystem compares file systems in files.
func (d *differ) fileSystem(n *Node, at spot, a, b *io.SectionReader) bool {
	changed, err := compare(d.ctx, a, b, min(a.Size(), b.Size()))
	if err != nil {
		n.comment(err.Error())
		return false
	}
	d.inFileSystem(n, volume{name: at.path, part: at.part, a: a, b: b, changed: changed, depth: at.depth + 1}, fileSystem(a))
	return len(n.Details) > 0
}

// inFileSystem compares file systems of a kind.
func (d *differ) inFileSystem(n *Node, v volume, kind string) {
	if kind == "fat" {
		d.fat(n, v)
	} else {
		d.root(n, v, kind)
	}
}

// opaque names what is known, and not looked into; "" for nothing.
func opaque(r io.ReaderAt) string {
	for _, m := range []struct {
		kind  string
		off   int64
		magic string
	}{
		{"an XFS file system", 0, "XFSB"}, {"a btrfs file system", 65536 + 64, "_BHRfS_M"}, {"a LUKS volume", 0, "LUKS\xba\xbe"},
		{"swap space", 4086, "SWAPSPACE2"}, {"a physical volume of LVM", 512, "LABELONE"}, {"an ISO 9660 file system", 32769, "CD001"},
		{"a hash tree of dm-verity", 0, "verity\x00\x00"},
	} {
		if string(readUpTo(r, m.off, int64(len(m.magic)))) == m.magic {
			return m.kind
		}
	}
	return ""
}

// contents shows how two contents differ: by what is in them where it is
// known what they are, else as text or bytes.
func (d *differ) contents(n *Node, at spot, a, b *io.SectionReader) {
	if n == nil {
		return
	}
	found, err := compareContent(io.NewSectionReader(a, 0, a.Size()), io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		n.comment(err.Error())
	}
	if found.equal() {
		return
	}
	x, y := kindOf(a, cmp.Or(at.path, d.a.Name)), kindOf(b, cmp.Or(at.path, d.b.Name))
	switch {
	case x.name != y.name:
		n.comment(fmt.Sprintf("%s in %s, %s in %s", x.describe(), d.a.Name, y.describe(), d.b.Name))
	case x.name == "":
		if what := cmp.Or(opaque(a), opaque(b)); what != "" {
			n.comment(notFurther + "it is " + what)
		}
	case at.depth >= maxDepth:
		n.comment(fmt.Sprintf("%s%s, and %d other things are around it", notFurther, x.name, at.depth))
	default:
		sizes(n, found)
		before := len(n.Comments)
		shown := x.show(d, n, at, a, b)
		if prune(n); shown && (len(n.Details) > 0 || n.UnifiedDiff != nil || len(n.Comments) > before) {
			return
		}
		found.sized = true
	}
	if found.sizeA <= maxText && found.sizeB <= maxText && d.asText(n, found, readUpTo(a, 0, found.sizeA), readUpTo(b, 0, found.sizeB)) {
		return
	}
	d.explain(n, found, 0)
}

func (k kind) describe() string {
	if k.name == "" {
		return "something else"
	}
	return k.name
}

func sizes(n *Node, c blob) {
	if c.sizeA != c.sizeB {
		n.comment(fmt.Sprintf("size: %d and %d bytes", c.sizeA, c.sizeB))
	}
}

// asText shows what differs by lines, where both are texts.
func (d *differ) asText(n *Node, found blob, x, y []byte) bool {
	if !isText(x) || !isText(y) || len(x) == 0 && len(y) == 0 {
		return false
	}
	indented, other, ok := indentJSON(x, y)
	if ok {
		x, y = indented, other
	}
	linesA, linesB := splitLines(x), splitLines(y)
	if longLines(linesA, linesB) {
		return false
	}
	if !found.sized {
		sizes(n, found)
	}
	if ok {
		n.comment("shown with each value on its line")
	}
	before := n.UnifiedDiff
	d.text(n, linesA, linesB, 1)
	return n.UnifiedDiff != before
}

// longLines tells whether lines that differ are too long to be shown whole.
func longLines(a, b []string) bool {
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		a, b = a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		a, b = a[:len(a)-1], b[:len(b)-1]
	}
	long := func(line string) bool { return len(line) > maxLine }
	return slices.ContainsFunc(a, long) || slices.ContainsFunc(b, long)
}

// peFile compares PE images.
func (d *differ) peFile(n *Node, at spot, a, b *io.SectionReader) bool {
	d.pe(n, at, a, b)
	return true
}

// order is the byte order of numbers that begin with a magic number.
func order(b []byte, little string) binary.ByteOrder {
	if bytes.HasPrefix(b, []byte(little)) {
		return binary.LittleEndian
	}
	return binary.BigEndian
}

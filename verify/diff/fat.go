package diff

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"caisson/build/image/fat"
)

const (
	direntSize = 32
	attrLong   = 0x0f // of the entries of a long name
)

// fatLayout is where the parts of a FAT file system lie, in bytes ("FAT:
// General Overview of On-Disk Format", "Boot Sector and BPB Structure").
type fatLayout struct {
	boot, info, backup span
	tables             []span
	data               span
	wide               bool // FAT32
}

// newFATLayout reads it off a boot sector that fat.Open has found sound.
func newFATLayout(b []byte) fatLayout {
	u16 := func(off int) int64 { return int64(binary.LittleEndian.Uint16(b[off:])) }
	u32 := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	bytesPer := u16(11)
	l := fatLayout{boot: span{0, sector}, wide: u16(22) == 0}
	length, total := u16(22), u16(19)
	if total == 0 {
		total = u32(32)
	}
	if l.wide {
		length = u32(36)
		if at := u16(48); at > 0 && at < u16(14) {
			l.info = span{at * bytesPer, at*bytesPer + sector}
		}
		if at := u16(50); at > 0 && at < u16(14) {
			l.backup = span{at * bytesPer, at*bytesPer + sector}
		}
	}
	off := u16(14) * bytesPer
	for range b[16] {
		l.tables = append(l.tables, span{off, off + length*bytesPer})
		off += length * bytesPer
	}
	l.data = span{off, total * bytesPer}
	return l
}

// regions are the parts that are no clusters, by their names.
func (l fatLayout) regions() []region {
	list := []region{{"boot sector", l.boot, fatBootFields(l.wide), inLookup}}
	if l.info.end > 0 {
		list = append(list, region{"information sector", l.info, fatInfoFields(), inNoPCR})
	}
	if l.backup.end > 0 {
		list = append(list, region{"backup boot sector", l.backup, fatBootFields(l.wide), inNoPCR})
	}
	for i, t := range l.tables {
		measured := inNoPCR
		if i == 0 {
			measured = inLookup
		}
		list = append(list, region{fmt.Sprintf("allocation table %d of %d", i+1, len(l.tables)), t, nil, measured})
	}
	return list
}

// region is a part with a name, and the fields that it has; nil for none.
type region struct {
	name string
	span
	fields   []field
	measured string
}

// fat compares two FAT file systems.
func (d *differ) fat(n *Node, v volume) {
	x, y := readFAT(v.a), readFAT(v.b)
	d.failed(n, x.err, y.err)
	layout := x.layout
	if x.fsys == nil {
		layout = y.layout
	}
	if x.fsys == nil && y.fsys == nil {
		d.raw(n, v.a, v.b, 0, v.changed, nil)
		return
	}
	var known []span
	for _, r := range layout.regions() {
		known = append(known, r.span)
		inside := v.changed.within(r.span)
		if len(inside) == 0 {
			continue
		}
		s := d.child(n, beside(v.prefix(), r.name))
		s.comment(r.measured)
		if r.fields != nil {
			d.fields(s, readUpTo(v.a, r.off, r.end-r.off), readUpTo(v.b, r.off, r.end-r.off), r.off, r.fields)
			continue
		}
		d.raw(s, io.NewSectionReader(v.a, r.off, r.end-r.off), io.NewSectionReader(v.b, r.off, r.end-r.off), r.off, inside, nil)
	}
	c := &comparison{differ: d, spot: v.spot(), prefix: v.prefix(), measured: inNoPCR, a: &x.tree, b: &y.tree, changed: v.changed}
	if x.err != nil || y.err != nil {
		c.damaged(n, v, normalise(known))
		return
	}
	c.trees(n)
	folders := normalise(slices.Concat(x.folders, y.folders))
	d.dirents(n, v, folders)
	c.rest(n, [2]io.ReaderAt{v.a, v.b}, normalise(slices.Concat(known, folders)), "between the files")
}

// fatTree is what could be read of a FAT file system. Its files' places are
// known, but not which part of a folder is whose.
type fatTree struct {
	tree
	fsys    *fat.FS // nil where the boot sector makes no sense
	layout  fatLayout
	folders []span
}

func readFAT(r *io.SectionReader) *fatTree {
	t := &fatTree{tree: *newTree()}
	rec := &recorder{r: r, size: r.Size()}
	if t.fsys, t.err = fat.Open(rec, r.Size()); t.err != nil {
		t.fsys = nil
		return t
	}
	t.layout = newFATLayout(readUpTo(r, 0, sector))
	rec.take()
	t.err = t.fsys.Walk(func(f fat.File) error {
		if t.byPath[absolute(f.Path)] != nil {
			return fmt.Errorf("the path %q is there twice", f.Path)
		}
		t.add(&entry{path: absolute(f.Path), mode: typeRegular, size: f.Size, open: f.Open})
		return nil
	})
	for _, s := range rec.take() {
		if s.off >= t.layout.data.off {
			t.folders = append(t.folders, s)
		}
	}
	for _, e := range t.entries {
		e.data = rec.place(e.open)
		if _, err := e.open(); err != nil && t.err == nil {
			t.err = err // the file's chain of clusters is broken
		}
	}
	rec.done = true
	t.index()
	return t
}

// dirents shows the folder entries that differ.
func (d *differ) dirents(n *Node, v volume, folders spans) {
	done := int64(-1)
	for _, s := range v.changed.and(folders) {
		for off := s.off / direntSize * direntSize; off < s.end; off += direntSize {
			if off <= done {
				continue
			}
			done = off
			a, b := readUpTo(v.a, off, direntSize), readUpTo(v.b, off, direntSize)
			name := direntName(a)
			if other := direntName(b); name != other {
				name += " or " + other
			}
			e := d.child(n, beside(v.prefix(), "folder entry "+name))
			e.comment(inLookup)
			d.fields(e, a, b, off, direntFields(a, b))
		}
	}
}

func direntName(b []byte) string {
	switch {
	case len(b) < direntSize || b[0] == 0:
		return "(none)"
	case b[11]&0x3f == attrLong:
		return "of a long name"
	}
	return quoted(b[:11])
}

// direntFields are those of "FAT Directory Structure".
func direntFields(a, b []byte) []field {
	if len(a) < direntSize || len(b) < direntSize || a[11]&0x3f == attrLong || b[11]&0x3f == attrLong {
		return nil
	}
	date := func(b []byte) string {
		v := number(b)
		return fmt.Sprintf("%04d-%02d-%02d", 1980+v>>9, v>>5&15, v&31)
	}
	clock := func(b []byte) string {
		v := number(b)
		return fmt.Sprintf("%02d:%02d:%02d", v>>11, v>>5&63, 2*(v&31))
	}
	return []field{
		{"name", 0, 11, quoted}, {"attributes", 11, 1, hexadecimal}, {"case of the name", 12, 1, hexadecimal},
		{"created, hundredths", 13, 1, decimal}, {"created, time", 14, 2, clock}, {"created, date", 16, 2, date},
		{"accessed, date", 18, 2, date}, {"first cluster, high", 20, 2, decimal},
		{"written, time", 22, 2, clock}, {"written, date", 24, 2, date},
		{"first cluster, low", 26, 2, decimal}, {"size", 28, 4, decimal},
	}
}

// fatBootFields are those of "Boot Sector and BPB Structure", of FAT32 or of
// FAT16.
func fatBootFields(wide bool) []field {
	list := []field{
		{"jump", 0, 3, hexText}, {"name of the formatter", 3, 8, quoted}, {"bytes of a sector", 11, 2, decimal},
		{"sectors of a cluster", 13, 1, decimal}, {"reserved sectors", 14, 2, decimal}, {"allocation tables", 16, 1, decimal},
		{"sectors, 16 bits", 19, 2, decimal}, {"sectors", 32, 4, decimal}, {"signature", 510, 2, hexText},
	}
	if !wide {
		return append(list, field{"root entries", 17, 2, decimal}, field{"sectors of a table", 22, 2, decimal},
			field{"serial", 39, 4, hexadecimal}, field{"label", 43, 11, quoted}, field{"type", 54, 8, quoted})
	}
	return append(list, field{"sectors of a table", 36, 4, decimal}, field{"root cluster", 44, 4, decimal},
		field{"information sector", 48, 2, decimal}, field{"backup boot sector", 50, 2, decimal},
		field{"serial", 67, 4, hexadecimal}, field{"label", 71, 11, quoted}, field{"type", 82, 8, quoted})
}

func fatInfoFields() []field {
	return []field{{"free clusters", 488, 4, decimal}, {"next free cluster", 492, 4, decimal}}
}

package diff

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"unicode/utf16"

	"caisson/build/image/gpt"
)

const (
	sector     = gpt.SectorSize
	tableHead  = 92      // bytes of a header, UEFI 2.10, table 5.5
	maxEntries = 1 << 20 // bytes of a table's entries
)

// table is the partition table of one disk, as far as it can be read.
type table struct {
	err             error // of the strict reader
	primary, backup *copyOfTable
	parts           []part // in the order of the disk, without overlaps
	old             bool   // it is in the MBR alone
}

// copyOfTable is a header and its entries, checked for nothing but bounds.
type copyOfTable struct {
	at, entriesAt int64 // bytes
	header        []byte
	entries       []byte
	entrySize     int
}

// part is a partition and its number in the table, from 1.
type part struct {
	gpt.Partition
	number int
}

func (p part) span() span { return span{p.Start(), p.Start() + p.Size()} }

// label is how the partition is shown.
func (p part) label() string { return fmt.Sprintf("%s (partition %d)", p.name(), p.number) }

// name is what stands before the colon of paths in the partition.
func (p part) name() string {
	switch p.Type {
	case gpt.TypeESP:
		return "esp"
	case gpt.TypeRootX86_64, gpt.TypeRootARM64:
		return "root"
	case gpt.TypeRootVerityX86_64, gpt.TypeRootVerityARM64:
		return "root-verity"
	}
	if p.Name != "" {
		return p.Name
	}
	return fmt.Sprintf("partition-%d", p.number)
}

// readTables reads both tables. Where only one of them is sound, it says for
// both where entries and partitions lie.
func (d *differ) readTables() [2]*table {
	t := [2]*table{readTable(d.a.Disk, d.a.Size), readTable(d.b.Disk, d.b.Size)}
	for i, other := range []int{1, 0} {
		if t[i].err != nil && t[other].err == nil {
			size := []int64{d.a.Size, d.b.Size}[i]
			t[i].primary.follow(t[other].primary, []io.ReaderAt{d.a.Disk, d.b.Disk}[i])
			if d.a.Size == d.b.Size {
				t[i].backup.follow(t[other].backup, []io.ReaderAt{d.a.Disk, d.b.Disk}[i])
			}
			t[i].parts = slices.Clone(t[other].parts)
			t[i].parts = slices.DeleteFunc(t[i].parts, func(p part) bool { return p.span().end > size })
		}
	}
	return t
}

func readTable(r io.ReaderAt, size int64) *table {
	t := &table{}
	_, t.err = gpt.Read(r, size)
	sectors := size / sector
	t.primary = readCopy(r, sectors, 1)
	t.backup = readCopy(r, sectors, sectors-1)
	for _, c := range []*copyOfTable{t.primary, t.backup} {
		if t.parts = c.parts(sectors); len(t.parts) > 0 {
			break
		}
	}
	if mbr := mbrParts(readUpTo(r, 0, sector), uint64(max(0, sectors))); len(mbr) > 0 && !t.partitioned() { //nolint:gosec // it is not negative
		return &table{primary: &copyOfTable{}, backup: &copyOfTable{}, parts: mbr, old: true}
	}
	return t
}

// mbrParts are the primary partitions of a disk that has no GUID table (UEFI
// 2.10, table 5.1); nil where the sector is something else, as the first of a
// FAT may be.
func mbrParts(b []byte, sectors uint64) []part {
	const records, protective, esp = 446, 0xee, 0xef
	if len(b) < sector || b[510] != 0x55 || b[511] != 0xaa {
		return nil
	}
	var out []part
	for i := range 4 {
		e := b[records+16*i:]
		first, count := number(e[8:12]), number(e[12:16])
		switch {
		case e[4] == 0 && first == 0 && count == 0:
			continue
		case e[0]&0x7f != 0 || e[4] == 0 || e[4] == protective || first == 0 || count == 0 || first+count > sectors:
			return nil
		}
		p := part{number: i + 1, Partition: gpt.Partition{First: first, Last: first + count - 1}}
		if e[4] == esp {
			p.Type = gpt.TypeESP
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b part) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(out); i++ {
		if out[i].First <= out[i-1].Last {
			return nil
		}
	}
	return out
}

// readCopy reads the header in sector lba; its entries are missing where the
// header makes no sense.
func readCopy(r io.ReaderAt, sectors, lba int64) *copyOfTable {
	if lba < 1 || lba >= sectors {
		return &copyOfTable{}
	}
	c := &copyOfTable{at: lba * sector, header: readUpTo(r, lba*sector, sector)}
	if len(c.header) < sector || string(c.header[:8]) != "EFI PART" {
		return c
	}
	at, count, size := binary.LittleEndian.Uint64(c.header[72:]), binary.LittleEndian.Uint32(c.header[80:]), binary.LittleEndian.Uint32(c.header[84:])
	length := uint64(count) * uint64(size)
	if at < 2 || at >= uint64(sectors) || size < 128 || size > 4096 || length > maxEntries || length > uint64(sectors)*sector {
		return c
	}
	c.entriesAt, c.entrySize = int64(at)*sector, int(size)
	c.entries = readUpTo(r, c.entriesAt, int64(length))
	return c
}

// partitioned tells whether it looks like a disk's, sound or not.
func (t *table) partitioned() bool {
	return len(t.parts) > 0 || bytes.HasPrefix(t.primary.header, []byte("EFI PART")) || bytes.HasPrefix(t.backup.header, []byte("EFI PART"))
}

// follow reads the entries where those of a sound copy are.
func (c *copyOfTable) follow(sound *copyOfTable, r io.ReaderAt) {
	c.entriesAt, c.entrySize = sound.entriesAt, sound.entrySize
	c.entries = readUpTo(r, c.entriesAt, int64(len(sound.entries)))
}

// spans is where the copy lies.
func (c *copyOfTable) spans() []span {
	return []span{{c.at, c.at + int64(len(c.header))}, {c.entriesAt, c.entriesAt + int64(len(c.entries))}}
}

// parts are the partitions of the entries that make sense.
func (c *copyOfTable) parts(sectors int64) []part {
	var all []part
	for i := 0; c.entrySize > 0 && (i+1)*c.entrySize <= len(c.entries); i++ {
		e := c.entries[i*c.entrySize:]
		p := part{number: i + 1, Partition: gpt.Partition{
			Type: gpt.GUID(e[0:16]), ID: gpt.GUID(e[16:32]), Name: entryName(e),
			First: binary.LittleEndian.Uint64(e[32:]), Last: binary.LittleEndian.Uint64(e[40:]), Attrs: binary.LittleEndian.Uint64(e[48:]),
		}}
		if p.Type != (gpt.GUID{}) && p.First > 1 && p.First <= p.Last && p.Last < uint64(sectors) {
			all = append(all, p)
		}
	}
	slices.SortStableFunc(all, func(a, b part) int { return cmp.Compare(a.First, b.First) })
	var out []part
	for _, p := range all {
		if len(out) == 0 || p.First > out[len(out)-1].Last {
			out = append(out, p)
		}
	}
	return out
}

func entryName(e []byte) string {
	var units []uint16
	for i := 56; i+2 <= 128; i += 2 {
		u := binary.LittleEndian.Uint16(e[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}

// around says between what a gap lies.
func (t *table) around(gap span) string {
	before, after := "the partition table", "the end of the disk"
	for _, p := range t.parts {
		if p.span().end <= gap.off {
			before = p.label()
		}
	}
	for _, p := range slices.Backward(t.parts) {
		if p.span().off >= gap.end {
			after = p.label()
		}
	}
	return "between " + before + " and " + after
}

// paired is a partition of both disks, or of one.
type paired struct{ a, b *part }

// pair finds for each partition its counterpart: by type and name, then by
// type, by name, and by number.
func pair(a, b []part) []paired {
	out := make([]paired, len(a))
	usedB := make([]bool, len(b))
	for i := range a {
		out[i].a = &a[i]
	}
	for _, same := range []func(x, y part) bool{
		func(x, y part) bool { return x.Type == y.Type && x.Name == y.Name },
		func(x, y part) bool { return x.Type == y.Type },
		func(x, y part) bool { return x.Name == y.Name },
		func(x, y part) bool { return x.number == y.number },
	} {
		for i := range out {
			for j := range b {
				if out[i].b == nil && !usedB[j] && same(*out[i].a, b[j]) {
					out[i].b, usedB[j] = &b[j], true
				}
			}
		}
	}
	for j := range b {
		if !usedB[j] {
			out = append(out, paired{b: &b[j]})
		}
	}
	return out
}

// tables compares MBR and both copies of the table, and returns where they
// lie.
func (d *differ) tables(top *Node, t [2]*table) []span {
	claimed := []span{{0, sector}}
	n := d.child(top, "partition table")
	x, y := readUpTo(d.a.Disk, 0, sector), readUpTo(d.b.Disk, 0, sector)
	if !bytes.Equal(x, y) {
		name := "protective MBR"
		if t[0].old && t[1].old {
			name = "MBR"
		}
		m := d.child(n, name)
		m.comment(inNoPCR)
		d.fields(m, x, y, 0, mbrFields())
	}
	for _, c := range []struct {
		name, measured string
		a, b           *copyOfTable
	}{
		{"primary", inPCR5, t[0].primary, t[1].primary},
		{"backup", inNoPCR, t[0].backup, t[1].backup},
	} {
		d.copies(n, c.name, c.measured, c.a, c.b)
		claimed = append(claimed, c.a.spans()...)
		claimed = append(claimed, c.b.spans()...)
	}
	if n != nil && len(n.Details) > 0 {
		d.failed(n, t[0].err, t[1].err)
	}
	return claimed
}

// copies compares a copy of the table.
func (d *differ) copies(parent *Node, name, measured string, a, b *copyOfTable) {
	if !bytes.Equal(a.header, b.header) {
		n := d.child(parent, name+" header")
		if bytes.Equal(slice(a.header, 0, tableHead), slice(b.header, 0, tableHead)) {
			n.comment(inNoPCR)
		} else {
			n.comment(measured)
		}
		d.fields(n, a.header, b.header, a.at, headerFields())
	}
	if bytes.Equal(a.entries, b.entries) {
		return
	}
	if a.entrySize != b.entrySize || len(a.entries) != len(b.entries) {
		n := d.child(parent, name+" entries")
		n.comment(measured)
		n.comment(fmt.Sprintf("%d bytes of entries in one, %d in the other", len(a.entries), len(b.entries)))
		return
	}
	for i := 0; i < len(a.entries); i += a.entrySize {
		x, y := a.entries[i:i+a.entrySize], b.entries[i:i+a.entrySize]
		if bytes.Equal(x, y) {
			continue
		}
		n := d.child(parent, fmt.Sprintf("%s entry %d", name, i/a.entrySize+1))
		if !used(x) && !used(y) {
			n.comment("not in use; " + inNoPCR)
		} else {
			n.comment(measured)
		}
		d.fields(n, x, y, a.entriesAt+int64(i), entryFields())
	}
}

// used tells whether an entry has a type.
func used(entry []byte) bool { return gpt.GUID(entry[:16]) != gpt.GUID{} }

func guid(b []byte) string { return gpt.GUID(b).String() }

// mbrFields are those of UEFI 2.10, table 5.1.
func mbrFields() []field {
	list := []field{{"boot code", 0, 440, hexText}, {"disk signature", 440, 4, hexText}, {"signature", 510, 2, hexText}}
	for i := range 4 {
		list = append(list, field{fmt.Sprintf("partition record %d", i+1), 446 + 16*i, 16, hexText})
	}
	return list
}

// headerFields are those of UEFI 2.10, table 5.5.
func headerFields() []field {
	return []field{
		{"signature", 0, 8, quoted}, {"revision", 8, 4, hexadecimal}, {"header size", 12, 4, decimal}, {"header CRC", 16, 4, hexadecimal},
		{"this header's sector", 24, 8, decimal}, {"other header's sector", 32, 8, decimal},
		{"first usable sector", 40, 8, decimal}, {"last usable sector", 48, 8, decimal}, {"disk id", 56, 16, guid},
		{"sector of the entries", 72, 8, decimal}, {"number of entries", 80, 4, decimal}, {"size of an entry", 84, 4, decimal},
		{"CRC of the entries", 88, 4, hexadecimal},
	}
}

// entryFields are those of UEFI 2.10, table 5.6.
func entryFields() []field {
	return []field{
		{"type", 0, 16, guid}, {"id", 16, 16, guid}, {"first sector", 32, 8, decimal}, {"last sector", 40, 8, decimal},
		{"attributes", 48, 8, hexadecimal}, {"name", 56, 72, func(b []byte) string {
			return fmt.Sprintf("%q", entryName(append(make([]byte, 56), b...)))
		}},
	}
}

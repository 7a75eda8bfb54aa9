package diff

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"caisson/build/image/uki"
)

const maxHeaders = 64 << 10

// pe compares two PE images: headers, sections by their names, and what is
// between them.
func (d *differ) pe(n *Node, at spot, a, b *io.SectionReader) {
	if n == nil {
		return
	}
	if at.boot {
		n.comment(d.inProgram(a, b))
	}
	path := at.path
	changed, err := compare(d.ctx, a, b, min(a.Size(), b.Size()))
	if err != nil {
		n.comment(err.Error())
		return
	}
	x, errA := uki.Read(a, a.Size())
	y, errB := uki.Read(b, b.Size())
	d.failed(n, errA, errB)
	headers := d.peHeaders(n, at, a, b)
	signatures := d.signatures(n, at, a, b)
	if x == nil || y == nil {
		sound := x
		if sound == nil {
			sound = y
		}
		left := changed.minus(normalise(append(signatures, headers)))
		if len(left) > 0 {
			d.raw(d.child(n, join(path, "bytes")), a, b, 0, left, sectionAt(sound))
		}
		return
	}
	d.sections(n, at, a, b, x, y)
	if slices.EqualFunc(x.Sections, y.Sections, samePlace) {
		known := append(signatures, headers)
		for _, s := range x.Sections {
			known = append(known, inFile(s))
		}
		if left := changed.minus(normalise(known)); len(left) > 0 {
			s := d.child(n, join(path, "padding"))
			s.comment("between the sections or behind them")
			d.raw(s, a, b, 0, left, nil)
		}
	}
	if len(n.Details) == 0 {
		n.comment("headers and sections say the same")
		d.raw(n, a, b, 0, changed, nil)
	}
}

func samePlace(x, y uki.ImageSection) bool {
	return x.Name == y.Name && x.Offset == y.Offset && x.VirtualSize == y.VirtualSize && x.SizeOfRawData == y.SizeOfRawData
}

// inFile is where a section's content lies in the file.
func inFile(s uki.ImageSection) span {
	return span{s.Offset, s.Offset + int64(min(s.SizeOfRawData, s.VirtualSize))}
}

func sectionAt(im *uki.Image) func(off int64) string {
	return func(off int64) string {
		if im == nil {
			return ""
		}
		for _, s := range im.Sections {
			if w := inFile(s); w.off <= off && off < w.end {
				return "section " + s.Name
			}
		}
		return ""
	}
}

// peHeaders compares the headers, and returns where they lie.
func (d *differ) peHeaders(n *Node, at spot, a, b *io.SectionReader) span {
	x, y := readHeaders(a), readHeaders(b)
	if !bytes.Equal(x, y) {
		s := d.child(n, at.below("headers").path)
		if at.boot {
			s.comment("changes PCR 4, but for CheckSum and the place of the signature, which the measured hash leaves out")
		}
		d.fields(s, x, y, 0, peFields(x, y))
	}
	return span{0, int64(min(len(x), len(y)))}
}

// readHeaders is as many bytes as the image says its headers have.
func readHeaders(r io.ReaderAt) []byte {
	b := readUpTo(r, 0, maxHeaders)
	size := slice(b, peOffset(b)+24+60, 4)
	if size == nil {
		return b[:min(len(b), page)]
	}
	return b[:min(uint64(len(b)), number(size))]
}

// peOffset is where the PE signature is, 0 where it is nowhere.
func peOffset(b []byte) int {
	at := slice(b, 60, 4)
	if at == nil || number(at) > maxHeaders || !bytes.Equal(slice(b, int(number(at)), 4), []byte("PE\x00\x00")) { //nolint:gosec // it is bounded
		return 0
	}
	return int(number(at)) //nolint:gosec // it is bounded
}

// peFields are those of Microsoft's "PE Format" that are not the same in
// every image: nil where the headers do not lie at the same place.
func peFields(a, b []byte) []field {
	pe := peOffset(a)
	if pe == 0 || pe != peOffset(b) {
		return nil
	}
	coff, opt := pe+4, pe+24
	stamp := func(b []byte) string {
		return fmt.Sprintf("%d (%s)", number(b), time.Unix(int64(number(b)), 0).UTC().Format("2006-01-02 15:04:05 UTC")) //nolint:gosec // 32 bits
	}
	list := []field{
		{"machine", coff, 2, hexadecimal}, {"number of sections", coff + 2, 2, decimal}, {"TimeDateStamp", coff + 4, 4, stamp},
		{"symbol table", coff + 8, 4, hexadecimal}, {"symbols", coff + 12, 4, decimal}, {"characteristics", coff + 18, 2, hexadecimal},
		{"linker version", opt + 2, 2, hexadecimal}, {"SizeOfCode", opt + 4, 4, decimal}, {"SizeOfInitializedData", opt + 8, 4, decimal},
		{"entry point", opt + 16, 4, hexadecimal}, {"ImageBase", opt + 24, 8, hexadecimal}, {"SizeOfImage", opt + 56, 4, decimal},
		{"SizeOfHeaders", opt + 60, 4, decimal}, {"CheckSum", opt + 64, 4, hexadecimal}, {"subsystem", opt + 68, 2, decimal},
		{"certificate table", opt + 112 + 8*4, 8, hexText},
	}
	count, size := slice(a, coff+2, 2), slice(a, coff+16, 2)
	for i := range int(min(number(count), 96)) { //nolint:gosec // it is bounded
		at := opt + int(number(size)) + 40*i //nolint:gosec // 16 bits
		name := fmt.Sprintf("section %d", i+1)
		list = append(list, field{name, at, 40, sectionText})
	}
	return list
}

// sectionText is an entry of the section table.
func sectionText(b []byte) string {
	return fmt.Sprintf("%s %d bytes at address %#x, %d in the file at %#x, characteristics %#x",
		quoted(b[:8]), number(b[8:12]), number(b[12:16]), number(b[16:20]), number(b[20:24]), number(b[36:40]))
}

// numbered is a section and how many of its name come before it.
type numbered struct {
	*uki.ImageSection
	before int
}

func numberSections(im *uki.Image) []numbered {
	seen := map[string]int{}
	out := make([]numbered, 0, len(im.Sections))
	for i := range im.Sections {
		s := &im.Sections[i]
		out = append(out, numbered{s, seen[s.Name]})
		seen[s.Name]++
	}
	return out
}

// sections compares the sections' content, which is what the file has of
// them: the zeros that follow in memory are the headers' matter.
func (d *differ) sections(n *Node, at spot, a, b io.ReaderAt, x, y *uki.Image) {
	left := numberSections(y)
	for _, s := range numberSections(x) {
		i := slices.IndexFunc(left, func(o numbered) bool { return o.Name == s.Name && o.before == s.before })
		if i < 0 {
			d.onlySection(n, at, s, true)
			continue
		}
		d.section(n, at.below(s.Name), s.Name, stored(a, s), stored(b, left[i]))
		left = slices.Delete(left, i, i+1)
	}
	for _, s := range left {
		d.onlySection(n, at, s, false)
	}
}

func (d *differ) onlySection(n *Node, at spot, s numbered, first bool) {
	o := d.only(n, at.below(s.Name).path, first)
	if at.boot {
		o.comment(measuredAs(s.Name))
	}
	o.comment(fmt.Sprintf("a section of %d bytes", s.VirtualSize))
	if s.VirtualSize > page {
		return
	}
	b := readUpTo(s.Open(), 0, int64(s.VirtualSize))
	lines := hexdump(b, 0)
	if isText(b) {
		lines = splitLines(b)
	}
	if first {
		d.text(o, lines, nil, 1)
	} else {
		d.text(o, nil, lines, 1)
	}
}

// stored gives what the file has of a section.
func stored(r io.ReaderAt, s numbered) *io.SectionReader {
	w := inFile(*s.ImageSection)
	return io.NewSectionReader(r, w.off, w.end-w.off)
}

func (d *differ) section(parent *Node, at spot, name string, a, b *io.SectionReader) {
	found, err := compareContent(reopen(a)(), reopen(b)())
	if err == nil && found.equal() {
		return
	}
	n := d.child(parent, at.path)
	if at.boot {
		n.comment(measuredAs(name))
	}
	if err != nil {
		n.comment(err.Error())
	}
	if name == ".initrd" {
		if d.initrd(n, at, reopen(a), reopen(b)) {
			return
		}
		d.explain(n, found, 0)
		return
	}
	at.boot = false // said of the section
	d.contents(n, at, a, b)
}

// inProgram says what a program that firmware starts changes.
func (d *differ) inProgram(a, b *io.SectionReader) string {
	x, errA := uki.Authenticode(a, a.Size())
	y, errB := uki.Authenticode(b, b.Size())
	if errA == nil && errB == nil && x == y {
		return fmt.Sprintf("the hash that is measured and signed is the same, sha256:%x: in no PCR, unless by Secure Boot in PCR 7", x)
	}
	return inUKI
}

// signatures shows what the certificate tables have otherwise, and returns
// where they lie ("PE Format", "The Attribute Certificate Table").
func (d *differ) signatures(n *Node, at spot, a, b *io.SectionReader) []span {
	var tables [2]*io.SectionReader
	var where []span
	for i, r := range []*io.SectionReader{a, b} {
		h := readHeaders(r)
		entry := slice(h, peOffset(h)+24+112+8*4, 8)
		tables[i] = io.NewSectionReader(r, 0, 0)
		if entry == nil || peOffset(h) == 0 {
			continue
		}
		if off, size := int64(number(entry[:4])), int64(number(entry[4:])); size > 0 && off < r.Size() { //nolint:gosec // 32 bits
			tables[i] = io.NewSectionReader(r, off, min(size, r.Size()-off))
			where = append(where, span{off, off + tables[i].Size()})
		}
	}
	found, err := compareContent(reopen(tables[0])(), reopen(tables[1])())
	if err != nil || found.equal() {
		return where
	}
	s := d.child(n, at.below("signatures").path)
	s.comment("the signatures of Secure Boot")
	x, errA := uki.Signatures(a, a.Size())
	y, errB := uki.Signatures(b, b.Size())
	d.failed(s, errA, errB)
	s.comment(fmt.Sprintf("%d and %d signatures", len(x), len(y)))
	d.explain(s, found, 0)
	return where
}

// measuredAs says which PCRs a section of a UKI changes.
func measuredAs(name string) string {
	switch name {
	case ".cmdline", ".initrd":
		return inCmdline
	case ".linux", ".osrel":
		return "changes PCR 4 and 11"
	}
	return inSection
}

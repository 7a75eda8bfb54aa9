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
func (d *differ) pe(n *Node, path string, a, b *io.SectionReader) {
	if n == nil {
		return
	}
	n.comment(inUKI)
	if a.Size() != b.Size() {
		n.comment(fmt.Sprintf("size: %d and %d bytes", a.Size(), b.Size()))
	}
	changed, err := compare(a, b, min(a.Size(), b.Size()))
	if err != nil {
		n.comment(err.Error())
		return
	}
	x, errA := uki.Read(a, a.Size())
	y, errB := uki.Read(b, b.Size())
	d.failed(n, errA, errB)
	headers := d.peHeaders(n, path, a, b)
	if x == nil || y == nil {
		sound := x
		if sound == nil {
			sound = y
		}
		left := changed.minus(spans{headers})
		if len(left) > 0 {
			d.raw(d.child(n, join(path, "bytes")), a, b, 0, left, sectionAt(sound))
		}
		return
	}
	d.sections(n, path, a, b, x, y)
	if slices.EqualFunc(x.Sections, y.Sections, samePlace) {
		known := []span{headers}
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
func (d *differ) peHeaders(n *Node, path string, a, b *io.SectionReader) span {
	x, y := readHeaders(a), readHeaders(b)
	if !bytes.Equal(x, y) {
		s := d.child(n, join(path, "headers"))
		s.comment("changes PCR 4, but for CheckSum and the place of the signature, which the measured hash leaves out")
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
func (d *differ) sections(n *Node, path string, a, b io.ReaderAt, x, y *uki.Image) {
	left := numberSections(y)
	for _, s := range numberSections(x) {
		i := slices.IndexFunc(left, func(o numbered) bool { return o.Name == s.Name && o.before == s.before })
		if i < 0 {
			d.onlySection(n, path, s, true)
			continue
		}
		d.section(n, join(path, s.Name), s.Name, stored(a, s), stored(b, left[i]))
		left = slices.Delete(left, i, i+1)
	}
	for _, s := range left {
		d.onlySection(n, path, s, false)
	}
}

func (d *differ) onlySection(n *Node, path string, s numbered, first bool) {
	o := d.only(n, join(path, s.Name), first)
	o.comment(measuredAs(s.Name))
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
func stored(r io.ReaderAt, s numbered) func() io.Reader {
	w := inFile(*s.ImageSection)
	return func() io.Reader { return io.NewSectionReader(r, w.off, w.end-w.off) }
}

func (d *differ) section(parent *Node, path, name string, openA, openB func() io.Reader) {
	found, err := compareContent(openA(), openB())
	if err == nil && found.equal() {
		return
	}
	n := d.child(parent, path)
	n.comment(measuredAs(name))
	if err != nil {
		n.comment(err.Error())
	}
	if name == ".initrd" && d.initrd(n, path, openA, openB) {
		return
	}
	d.explain(n, found, 0)
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

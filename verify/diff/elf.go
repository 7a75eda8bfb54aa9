package diff

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Bounds of an ELF file that is looked into.
const (
	maxSections = 1 << 15
	maxTable    = 64 << 20 // bytes of a table of symbols or texts
)

// moduleSignature ends a signed kernel module (Linux,
// Documentation/admin-guide/module-signing.rst).
const moduleSignature = "~Module signature appended~\n"

// elfFile is an ELF file, as far as it can be read ("Tool Interface Standard:
// Executable and Linking Format", and the 64-bit object format).
type elfFile struct {
	r        *io.SectionReader
	order    binary.ByteOrder
	wide     bool // 64 bits
	header   []byte
	segments []string
	sections []elfSection
	headers  []span   // where headers lie
	asked    bool     // for what follows
	named    []symbol // functions and variables
}

type elfSection struct {
	name                        string
	before                      int // sections of the same name in front
	nameAt, typ, link, info     uint32
	flags, addr, off, size, ent uint64
	align                       uint64
}

// in reads a field of 2, 4 or 8 bytes.
func (f *elfFile) in(b []byte, off, n int) uint64 {
	p := slice(b, off, n)
	switch {
	case p == nil:
		return 0
	case n == 2:
		return uint64(f.order.Uint16(p))
	case n == 4:
		return uint64(f.order.Uint32(p))
	}
	return f.order.Uint64(p)
}

// word reads a field at one of two places, of 4 or 8 bytes.
func (f *elfFile) word(b []byte, narrow, wide int) uint64 {
	if f.wide {
		return f.in(b, wide, 8)
	}
	return f.in(b, narrow, 4)
}

// either is one of two numbers.
func (f *elfFile) either(narrow, wide int) int {
	if f.wide {
		return wide
	}
	return narrow
}

func readELF(r *io.SectionReader) (*elfFile, error) {
	f := &elfFile{r: r, order: binary.LittleEndian, header: readUpTo(r, 0, 64)}
	if len(f.header) < 52 {
		return nil, errors.New("the ELF header is cut off")
	}
	f.wide = f.header[4] == 2
	if f.header[5] == 2 {
		f.order = binary.BigEndian
	}
	f.header = f.header[:min(len(f.header), f.either(52, 64))]
	f.headers = []span{{0, int64(len(f.header))}}
	f.readSegments()
	return f, f.readSections()
}

// table reads as many entries as there are of a table.
func (f *elfFile) table(at, size, count uint64) []byte {
	if count > maxSections || size > page || at > uint64(f.r.Size()) {
		return nil
	}
	b := readUpTo(f.r, int64(at), int64(size*count))
	f.headers = append(f.headers, span{int64(at), int64(at) + int64(len(b))})
	return b
}

func (f *elfFile) readSegments() {
	size, count := f.in(f.header, f.either(42, 54), 2), f.in(f.header, f.either(44, 56), 2)
	b := f.table(f.word(f.header, 28, 32), size, count)
	for size >= uint64(f.either(32, 56)) && uint64(len(b)) >= size {
		flags := elf.ProgFlag(f.in(b, f.either(24, 4), 4))
		f.segments = append(f.segments, fmt.Sprintf("%s: %d bytes at %#x, in memory %d at %#x, %s, aligned to %#x\n", elf.ProgType(f.in(b, 0, 4)),
			f.word(b, 16, 32), f.word(b, 4, 8), f.word(b, 20, 40), f.word(b, 8, 16), flags, f.word(b, 28, 48)))
		b = b[size:]
	}
}

func (f *elfFile) readSections() error {
	size, count, names := f.in(f.header, f.either(46, 58), 2), f.in(f.header, f.either(48, 60), 2), f.in(f.header, f.either(50, 62), 2)
	if count == 0 {
		return nil // they are not needed to run it
	}
	b := f.table(f.word(f.header, 32, 40), size, count)
	if size < uint64(f.either(40, 64)) || uint64(len(b)) < size*count || names >= count {
		return fmt.Errorf("%d ELF sections of %d bytes, the names in the one of number %d", count, size, names)
	}
	for ; len(b) > 0; b = b[size:] {
		f.sections = append(f.sections, elfSection{
			nameAt: uint32(f.in(b, 0, 4)), typ: uint32(f.in(b, 4, 4)), flags: f.word(b, 8, 8), addr: f.word(b, 12, 16), off: f.word(b, 16, 24),
			size: f.word(b, 20, 32), link: uint32(f.in(b, f.either(24, 40), 4)), info: uint32(f.in(b, f.either(28, 44), 4)),
			align: f.word(b, 32, 48), ent: f.word(b, 36, 56),
		})
	}
	texts := f.content(f.sections[names])
	seen := map[string]int{}
	for i := range f.sections {
		s := &f.sections[i]
		s.name = stringAt(texts, uint64(s.nameAt))
		s.before = seen[s.name]
		seen[s.name]++
	}
	return nil
}

// stringAt is a text that ends with a NUL.
func stringAt(b []byte, off uint64) string {
	if off >= uint64(len(b)) {
		return ""
	}
	s, _, _ := bytes.Cut(b[off:min(uint64(len(b)), off+page)], []byte{0})
	return string(s)
}

// open is what the file has of a section.
func (f *elfFile) open(s elfSection) *io.SectionReader {
	if elf.SectionType(s.typ) == elf.SHT_NOBITS || s.off >= uint64(f.r.Size()) {
		return io.NewSectionReader(f.r, 0, 0)
	}
	return io.NewSectionReader(f.r, int64(s.off), min(int64(min(s.size, 1<<62)), f.r.Size()-int64(s.off)))
}

// content reads a table.
func (f *elfFile) content(s elfSection) []byte {
	return readUpTo(f.open(s), 0, min(f.open(s).Size(), maxTable))
}

// line is what is said of a section, but for where it lies.
func (s elfSection) line() string { return fmt.Sprintf("%s, %d bytes\n", s.kind(), s.size) }

// kind is that without the size.
func (s elfSection) kind() string {
	return fmt.Sprintf("%s, %s, entries of %d, aligned to %d", elf.SectionType(s.typ), elf.SectionFlag(s.flags), s.ent, s.align)
}

// elf compares two ELF files: headers, sections by their names, and what is
// between them.
func (d *differ) elf(n *Node, at spot, a, b *io.SectionReader) bool {
	x, errA := readELF(a)
	y, errB := readELF(b)
	d.failed(n, errA, errB)
	if errA != nil || errB != nil {
		return false
	}
	if !bytes.Equal(x.header, y.header) {
		d.fields(d.child(n, at.below("ELF header").path), x.header, y.header, 0, elfFields(x, y))
	}
	if !slices.Equal(x.segments, y.segments) {
		d.text(d.child(n, at.below("program headers").path), x.segments, y.segments, 1)
	}
	moved := d.elfSections(n, at, x, y)
	if len(n.Details) == 0 && moved > 0 {
		n.comment(fmt.Sprintf("%d sections lie elsewhere, all of them have the same content", moved))
	}
	d.elfRest(n, at, x, y)
	return len(n.Details) > 0
}

// elfSections compares the sections, and returns how many lie elsewhere.
func (d *differ) elfSections(n *Node, at spot, x, y *elfFile) (moved int) {
	type key struct {
		name   string
		before int
	}
	others := map[key]elfSection{}
	for _, s := range y.sections {
		others[key{s.name, s.before}] = s
	}
	var only, left []elfSection
	for _, s := range x.sections {
		o, ok := others[key{s.name, s.before}]
		if !ok {
			only = append(only, s)
			continue
		}
		delete(others, key{s.name, s.before})
		if s.off != o.off || s.addr != o.addr {
			moved++
		}
		d.elfSection(n, at.below(s.name), x, y, s, o)
	}
	for _, s := range y.sections {
		if _, ok := others[key{s.name, s.before}]; ok {
			left = append(left, s)
		}
	}
	for i, list := range [][]elfSection{only, left} {
		for _, s := range list {
			d.only(n, at.below(s.name).path, i == 0).comment("a section: " + strings.TrimSpace(s.line()))
		}
	}
	return moved
}

// elfSection compares a section.
func (d *differ) elfSection(parent *Node, at spot, x, y *elfFile, s, o elfSection) {
	a, b := x.open(s), y.open(o)
	found, err := compareContent(d.metered(reopen(a)()), d.metered(reopen(b)())) // sections can be the same place
	if err == nil && found.equal() && s.line() == o.line() {
		return
	}
	n := d.child(parent, at.path)
	if n == nil {
		return
	}
	if s.kind() != o.kind() || s.size != o.size && found.equal() {
		d.text(n, []string{s.line()}, []string{o.line()}, 1)
	}
	if err != nil {
		n.comment(err.Error())
		return
	}
	if found.equal() {
		return
	}
	if linesA, linesB := x.describe(s), y.describe(o); !slices.Equal(linesA, linesB) {
		sizes(n, found)
		d.text(n, linesA, linesB, 1)
		return
	}
	if name := x.symbolAt(s, found.first); name != "" {
		n.comment("the first difference is in " + name)
	} else if s.addr > 0 {
		n.comment(fmt.Sprintf("the first difference is at address %#x", s.addr+uint64(found.first)))
	}
	d.explain(n, found, 0)
}

// elfRest shows what differs in no section: a signature behind a kernel
// module, and padding.
func (d *differ) elfRest(n *Node, at spot, x, y *elfFile) {
	endA, endB := x.end(), y.end()
	a, b := io.NewSectionReader(x.r, endA, x.r.Size()-endA), io.NewSectionReader(y.r, endB, y.r.Size()-endB)
	found, err := compareContent(reopen(a)(), reopen(b)())
	if err == nil && !found.equal() {
		name := "behind the sections"
		s := d.child(n, at.below(name).path)
		for i, r := range []*io.SectionReader{a, b} {
			if r.Size() > int64(len(moduleSignature)) && string(readUpTo(r, r.Size()-int64(len(moduleSignature)), int64(len(moduleSignature)))) == moduleSignature {
				s.comment("the signature of a kernel module, in " + []string{d.a.Name, d.b.Name}[i])
			}
		}
		d.explain(s, found, 0)
	}
	if endA != endB || !slices.Equal(x.known(), y.known()) {
		return // where sections moved, so did the padding
	}
	changed, err := compare(d.ctx, x.r, y.r, endA)
	if err != nil {
		n.comment(err.Error())
		return
	}
	if left := changed.minus(x.known()); len(left) > 0 {
		d.raw(d.child(n, at.below("between the sections").path), x.r, y.r, 0, left, nil)
	}
}

// known is where headers and sections lie.
func (f *elfFile) known() spans {
	list := slices.Clone(f.headers)
	for _, s := range f.sections {
		list = append(list, span{int64(min(s.off, 1<<62)), int64(min(s.off, 1<<62)) + f.open(s).Size()})
	}
	return normalise(list)
}

// end is behind all of that.
func (f *elfFile) end() int64 {
	k := f.known()
	return min(k[len(k)-1].end, f.r.Size())
}

// elfFields are those of the ELF header.
func elfFields(x, y *elfFile) []field {
	if x.wide != y.wide || x.order != y.order {
		return []field{{"ident", 0, 16, hexText}}
	}
	number := func(show func(v uint64) string) func(b []byte) string {
		return func(b []byte) string { return show(x.in(b, 0, len(b))) }
	}
	decimal := number(func(v uint64) string { return fmt.Sprint(v) })
	hexadecimal := number(func(v uint64) string { return fmt.Sprintf("%#x", v) })
	w, at := x.either(4, 8), x.either(24, 24)
	return []field{
		{"ident", 0, 16, hexText}, {"type", 16, 2, number(func(v uint64) string { return elf.Type(v).String() })},
		{"machine", 18, 2, number(func(v uint64) string { return elf.Machine(v).String() })}, {"version", 20, 4, decimal},
		{"entry point", at, w, hexadecimal}, {"program headers at", at + w, w, decimal}, {"section headers at", at + 2*w, w, decimal},
		{"flags", at + 3*w, 4, hexadecimal}, {"program headers", at + 3*w + 8, 2, decimal}, {"section headers", at + 3*w + 12, 2, decimal},
		{"section of the names", at + 3*w + 14, 2, decimal},
	}
}

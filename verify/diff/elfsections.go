package diff

import (
	"bytes"
	"debug/elf"
	"fmt"
	"slices"
	"strings"
)

// describe is what a section says, by lines; nil where it is only bytes.
func (f *elfFile) describe(s elfSection) []string {
	switch t := elf.SectionType(s.typ); {
	case s.flags&uint64(elf.SHF_COMPRESSED) != 0:
		return nil
	case t == elf.SHT_NOTE:
		return f.notes(f.content(s))
	case t == elf.SHT_SYMTAB, t == elf.SHT_DYNSYM:
		return f.symbolLines(s)
	case t == elf.SHT_DYNAMIC:
		return f.dynamic(s)
	case s.name == ".gnu_debuglink":
		return f.debugLink(f.content(s))
	case t == elf.SHT_STRTAB, s.name == ".comment", s.name == ".modinfo", s.name == ".interp":
		return textLines(f.content(s))
	}
	return nil
}

// textLines are texts that end with a NUL each.
func textLines(b []byte) []string {
	if bytes.Count(b, []byte{0}) > maxTextLines {
		return nil
	}
	var out []string
	for part := range bytes.SplitSeq(b, []byte{0}) {
		if len(part) > 0 {
			out = append(out, string(part)+"\n")
		}
	}
	return out
}

// debugLink is the name of the file with debugging information, and its CRC.
func (f *elfFile) debugLink(b []byte) []string {
	name, _, _ := bytes.Cut(b, []byte{0})
	at := (len(name) + 4) &^ 3
	return []string{string(name) + "\n", fmt.Sprintf("CRC %#08x\n", f.in(b, at, 4))}
}

// notes are the notes of a section.
func (f *elfFile) notes(b []byte) []string {
	var out []string
	for len(b) >= 12 && len(out) < maxTextLines {
		nameSize, size, typ := f.in(b, 0, 4), f.in(b, 4, 4), f.in(b, 8, 4)
		descAt := 12 + (nameSize+3)&^3
		if nameSize > uint64(len(b)) || size > uint64(len(b)) || descAt+size > uint64(len(b)) {
			return append(out, fmt.Sprintf("cut off: %x\n", b[:min(len(b), 64)]))
		}
		name := strings.TrimRight(string(b[12:12+nameSize]), "\x00")
		out = append(out, noteLine(name, typ, b[descAt:descAt+size])+"\n")
		b = b[min(uint64(len(b)), descAt+(size+3)&^3):]
	}
	return out
}

func noteLine(name string, typ uint64, desc []byte) string {
	const buildID, packaging = 3, 0xcafe1a7e
	switch {
	case name == "GNU" && typ == buildID:
		return "build id " + hexText(desc)
	case name == "Go" && typ == 4:
		return fmt.Sprintf("Go build id %q", desc)
	case name == "FDO" && typ == packaging:
		return "package " + strings.TrimRight(string(desc), "\x00\n")
	}
	return fmt.Sprintf("note %q of type %d: %s", name, typ, hexText(desc[:min(len(desc), 256)]))
}

// linked is the table of texts that a section refers to.
func (f *elfFile) linked(s elfSection) []byte {
	if uint64(s.link) >= uint64(len(f.sections)) {
		return nil
	}
	return f.content(f.sections[s.link])
}

// symbol is an entry of a table of symbols.
type symbol struct {
	name        string
	value, size uint64
	info, other byte
	section     uint16
}

func (f *elfFile) symbols(s elfSection) []symbol {
	b, texts := f.content(s), f.linked(s)
	size := f.either(16, 24)
	out := make([]symbol, 0, len(b)/size)
	for ; len(b) >= size; b = b[size:] {
		at := f.either(12, 4) // of info, other and section
		out = append(out, symbol{
			name: stringAt(texts, f.in(b, 0, 4)), value: f.word(b, 4, 8), size: f.word(b, 8, 16),
			info: b[at], other: b[at+1], section: uint16(f.in(b, at+2, 2)),
		})
	}
	return out
}

// symbolLines are the symbols in the order of their names; nil where they are
// too many.
func (f *elfFile) symbolLines(s elfSection) []string {
	if s.size/uint64(f.either(16, 24)) > maxTextLines {
		return nil
	}
	var out []string
	for _, y := range f.symbols(s) {
		in := elf.SectionIndex(y.section).String()
		if int(y.section) < len(f.sections) {
			in = f.sections[y.section].name
		}
		out = append(out, fmt.Sprintf("%s: %#x, %d bytes, %s %s %s, %s\n", y.name, y.value, y.size,
			elf.ST_BIND(y.info), elf.ST_TYPE(y.info), elf.ST_VISIBILITY(y.other), in))
	}
	slices.Sort(out)
	return out
}

// dynamic is what the dynamic linker is told.
func (f *elfFile) dynamic(s elfSection) []string {
	b, texts := f.content(s), f.linked(s)
	size := f.either(8, 16)
	var out []string
	for ; len(b) >= size && len(out) < maxTextLines; b = b[size:] {
		tag, value := elf.DynTag(f.word(b, 0, 0)), f.word(b, 4, 8) //nolint:gosec // any value is shown
		switch tag {
		case elf.DT_NEEDED, elf.DT_SONAME, elf.DT_RPATH, elf.DT_RUNPATH:
			out = append(out, fmt.Sprintf("%s %s\n", tag, stringAt(texts, value)))
		case elf.DT_NULL:
			return out
		default:
			out = append(out, fmt.Sprintf("%s %#x\n", tag, value))
		}
	}
	return out
}

// symbolAt names the symbol that is at an offset of a section.
func (f *elfFile) symbolAt(s elfSection, off int64) string {
	index := slices.Index(f.sections, s)
	at := uint64(off)
	if elf.Type(f.in(f.header, 16, 2)) != elf.ET_REL {
		at += s.addr // values are addresses
	}
	for _, y := range f.namedSymbols() {
		if int(y.section) == index && y.value <= at && at-y.value < y.size {
			return fmt.Sprintf("%s, %d bytes behind its beginning", y.name, at-y.value)
		}
	}
	return ""
}

// maxNamed is how many symbols a table may have by which places are named.
const maxNamed = 1 << 18

// namedSymbols are the functions and variables of the first table of each
// type.
func (f *elfFile) namedSymbols() []symbol {
	if f.asked {
		return f.named
	}
	f.asked = true
	for _, t := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		i := slices.IndexFunc(f.sections, func(s elfSection) bool { return elf.SectionType(s.typ) == t })
		if i < 0 || f.sections[i].size/uint64(f.either(16, 24)) > maxNamed {
			continue
		}
		for _, y := range f.symbols(f.sections[i]) {
			if t := elf.ST_TYPE(y.info); (t == elf.STT_FUNC || t == elf.STT_OBJECT) && y.size > 0 {
				f.named = append(f.named, y)
			}
		}
	}
	return f.named
}

// Package uki writes and reads unified kernel images: a PE image, systemd's
// stub, to which sections with the kernel, the initrd and the command line
// are added (UAPI specification "Unified Kernel Image"; Microsoft's "PE
// Format").
//
// Limits first: PE32+ images below 2 GiB, section names of at most 8 bytes,
// one section of a name, no profiles. Of the stub, its headers and sections
// are kept; its symbol table, which the format deprecates for images, and a
// signature, which adding sections breaks, are left out. TimeDateStamp and
// CheckSum are zero: nothing checks them before an image boots, and tools
// that fill them use the clock. The same stub and sections give the same
// bytes.
//
// A .sbat that is added takes the place of the stub's (see SBAT), which is still
// there as .oldsbat: where a stub has no room to let its own grow, as ukify has
// it do, that always works.
//
// The added sections lie at addresses behind the stub's last section, each
// aligned to the larger of SectionAlignment and a page, and in the file
// aligned to FileAlignment. SizeOfRawData is aligned, VirtualSize is the
// section's own size, so that what the stub measures has no padding.
package uki

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	page     = 4096
	maxImage = 1<<31 - 1
)

// Section is a section to add: Size bytes that Open gives. Open is called
// once by Write and never by Size.
type Section struct {
	Name string
	Size int64
	Open func() (io.ReadCloser, error)
	// NoNX takes the mark NX_COMPAT from the image: it is a kernel that has not
	// got it.
	NoNX bool
}

// The section with revocation levels, and what a stub's own becomes.
const (
	sectionSBAT    = ".sbat"
	sectionOldSBAT = ".oldsbat"
)

// Size is the length in bytes of the image that Write would write.
func Size(stub io.ReaderAt, stubSize int64, sections []Section) (int64, error) {
	p, err := newPlan(stub, stubSize, sections)
	if err != nil {
		return 0, err
	}
	return p.size, nil
}

// Write writes the stub with the sections added to it, in their order, and
// returns the image's length in bytes. It reads the sections as it writes
// them and holds none.
func Write(w io.Writer, stub io.ReaderAt, stubSize int64, sections []Section) (int64, error) {
	p, err := newPlan(stub, stubSize, sections)
	if err != nil {
		return 0, err
	}
	out := &counter{w: w}
	if _, err := out.Write(p.headers); err != nil {
		return out.n, fmt.Errorf("writing the headers: %w", err)
	}
	// The stub's file layout is kept; a shift of the headers moves all of it.
	body := io.NewSectionReader(stub, p.bodyStart, p.bodyEnd-p.bodyStart)
	if _, err := io.Copy(out, body); err != nil {
		return out.n, fmt.Errorf("copying the stub: %w", err)
	}
	for i, s := range sections {
		if err := out.padTo(p.offsets[i]); err != nil {
			return out.n, fmt.Errorf("writing section %q: %w", s.Name, err)
		}
		if err := out.section(s); err != nil {
			return out.n, fmt.Errorf("writing section %q: %w", s.Name, err)
		}
	}
	if err := out.padTo(p.size); err != nil {
		return out.n, fmt.Errorf("writing the image: %w", err)
	}
	return out.n, nil
}

// plan is where everything goes.
type plan struct {
	headers            []byte
	bodyStart, bodyEnd int64   // what is copied of the stub
	offsets            []int64 // of the added sections in the file
	size               int64
}

func newPlan(stub io.ReaderAt, stubSize int64, sections []Section) (*plan, error) {
	h, err := readHeaders(stub, stubSize)
	if err != nil {
		return nil, fmt.Errorf("reading the stub: %w", err)
	}
	if err := checkNames(h.sections, sections); err != nil {
		return nil, err
	}
	sectionAlign, fileAlign := int64(h.u32(h.opt+optAlignment)), int64(h.u32(h.opt+optFileAlign))
	if !powerOfTwo(sectionAlign) || !powerOfTwo(fileAlign) || fileAlign > maxHeaders || sectionAlign > 1<<24 {
		return nil, fmt.Errorf("reading the stub: alignments %#x in memory and %#x in the file", sectionAlign, fileAlign)
	}
	p := &plan{bodyStart: int64(len(h.raw))}
	address := int64(0)
	first := int64(h.u32(h.opt + optImageSize))
	p.bodyEnd = p.bodyStart
	for _, s := range h.sections {
		address = max(address, int64(s.VirtualAddress)+int64(s.VirtualSize))
		first = min(first, int64(s.VirtualAddress))
		if s.SizeOfRawData > 0 {
			if int64(s.Offset) < p.bodyStart {
				return nil, fmt.Errorf("reading the stub: section %q lies in the headers", s.Name)
			}
			p.bodyEnd = max(p.bodyEnd, int64(s.Offset)+int64(s.SizeOfRawData))
		}
	}
	shift, err := headerShift(h, len(sections), fileAlign, first)
	if err != nil {
		return nil, err
	}
	table := make([]sectionHeader, 0, len(sections))
	offset := alignUp(p.bodyEnd+shift, fileAlign)
	added := int64(0)
	for _, s := range sections {
		address = alignUp(address, max(sectionAlign, page))
		raw := alignUp(s.Size, fileAlign)
		if offset+raw > maxImage || address+s.Size > maxImage {
			return nil, fmt.Errorf("section %q of %d bytes makes the image larger than 2 GiB", s.Name, s.Size)
		}
		table = append(table, sectionHeader{
			Name: s.Name, VirtualSize: uint32(s.Size), VirtualAddress: uint32(address),
			SizeOfRawData: uint32(raw), Offset: uint32(offset), Characteristics: characteristics(s.Name),
		})
		p.offsets = append(p.offsets, offset)
		address, offset, added = address+s.Size, offset+raw, added+raw
	}
	p.size = offset
	p.headers = h.extend(table, shift, added, alignUp(address, sectionAlign))
	if slices.ContainsFunc(sections, func(s Section) bool { return s.NoNX }) {
		at := h.opt + optDLLCharacteristics
		binary.LittleEndian.PutUint16(p.headers[at:], h.u16(at)&^nxCompat)
	}
	return p, nil
}

// headerShift is how far the stub's sections must move back in the file for
// the headers to have room for n more sections; with most stubs it is 0.
func headerShift(h *headers, n int, fileAlign, firstAddress int64) (int64, error) {
	need := int64(h.table + (len(h.sections)+n)*sectionHeaderSize)
	shift := max(0, alignUp(need-int64(len(h.raw)), fileAlign))
	if int64(len(h.raw))+shift > firstAddress {
		return 0, fmt.Errorf("the stub has no room for %d more section headers", n)
	}
	if _, size := h.directory(dirDebug); shift > 0 && size > 0 {
		return 0, fmt.Errorf("the stub has no room for %d more section headers, and debug data that cannot be moved", n)
	}
	return shift, nil
}

// extend makes the image's headers from the stub's.
func (h *headers) extend(added []sectionHeader, shift, rawSize, imageSize int64) []byte {
	b := make([]byte, len(h.raw)+int(shift))
	copy(b, h.raw)
	put16 := func(off int, v int) { binary.LittleEndian.PutUint16(b[off:], uint16(v)) }
	put32 := func(off int, v int64) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	put16(h.coff+coffSections, len(h.sections)+len(added))
	put32(h.coff+coffTime, 0)
	put32(h.coff+coffSymbols, 0)
	put32(h.coff+coffSymbols+4, 0)
	put32(h.opt+optInitialized, int64(h.u32(h.opt+optInitialized))+rawSize)
	put32(h.opt+optImageSize, imageSize)
	put32(h.opt+optHeadersSize, int64(len(b)))
	put32(h.opt+optCheckSum, 0)
	if h.dirs > dirSecurity {
		clear(b[h.opt+optionalFixed+8*dirSecurity:][:8])
	}
	replaced := slices.ContainsFunc(added, func(s sectionHeader) bool { return s.Name == sectionSBAT })
	for i, s := range h.sections {
		if replaced && s.Name == sectionSBAT {
			copy(b[h.table+i*sectionHeaderSize:][:8], sectionOldSBAT)
		}
		if s.SizeOfRawData > 0 {
			put32(h.table+i*sectionHeaderSize+20, int64(s.Offset)+shift)
		}
	}
	end := h.table + len(h.sections)*sectionHeaderSize
	clear(b[end:])
	for i, s := range added {
		e := b[end+i*sectionHeaderSize:][:sectionHeaderSize]
		copy(e, s.Name)
		binary.LittleEndian.PutUint32(e[8:], s.VirtualSize)
		binary.LittleEndian.PutUint32(e[12:], s.VirtualAddress)
		binary.LittleEndian.PutUint32(e[16:], s.SizeOfRawData)
		binary.LittleEndian.PutUint32(e[20:], s.Offset)
		binary.LittleEndian.PutUint32(e[36:], s.Characteristics)
	}
	return b
}

// checkNames refuses names that do not fit, that repeat, and long names of
// the stub, which lie in the symbol table that is left out.
func checkNames(old []sectionHeader, added []Section) error {
	seen := make(map[string]bool, len(old)+len(added))
	for _, s := range old {
		if strings.HasPrefix(s.Name, "/") {
			return fmt.Errorf("reading the stub: section name %q lies in the symbol table", s.Name)
		}
		seen[s.Name] = true
	}
	for _, s := range added {
		switch {
		case len(s.Name) < 2 || len(s.Name) > 8 || s.Name[0] != '.' || strings.ContainsFunc(s.Name, notPrintable):
			return fmt.Errorf("section name %q: want a dot and 1 to 7 printable characters", s.Name)
		case seen[s.Name] && (s.Name != sectionSBAT || seen[sectionOldSBAT]):
			return fmt.Errorf("two sections %q", s.Name)
		case s.Size <= 0:
			return fmt.Errorf("section %q has %d bytes", s.Name, s.Size)
		}
		seen[s.Name] = true
		if s.Name == sectionSBAT {
			seen[sectionOldSBAT] = true // and a second one is too much
		}
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

func powerOfTwo(n int64) bool { return n > 0 && n&(n-1) == 0 }

// characteristics of an added section: stubs before 258 may run an old kernel
// in place, so .linux is code.
func characteristics(name string) uint32 {
	if name == ".linux" {
		return sectionCode | sectionExecute | sectionRead
	}
	return sectionInitialized | sectionRead
}

// counter counts what it writes.
type counter struct {
	w io.Writer
	n int64
}

func (c *counter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// section copies s, which must have exactly the size it says.
func (c *counter) section(s Section) error {
	r, err := s.Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	n, err := io.Copy(c, io.LimitReader(r, s.Size))
	if err != nil {
		return err
	}
	if n < s.Size {
		return fmt.Errorf("got %d bytes, want %d", n, s.Size)
	}
	var more [1]byte
	if _, err := io.ReadFull(r, more[:]); err == nil {
		return fmt.Errorf("got more than %d bytes", s.Size)
	} else if err != io.EOF {
		return err
	}
	return nil
}

// padTo writes zeros up to the offset end.
func (c *counter) padTo(end int64) error {
	var zeros [page]byte
	for c.n < end {
		if _, err := c.Write(zeros[:min(page, end-c.n)]); err != nil {
			return err
		}
	}
	return nil
}

package uki

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Offsets and constants of Microsoft's "PE Format", sections "COFF File
// Header", "Optional Header" and "Section Table".
const (
	dosHeaderSize     = 64
	coffHeaderSize    = 20
	sectionHeaderSize = 40
	magicPE32Plus     = 0x20b
	optionalFixed     = 112 // the optional header up to its data directories
	dirSecurity       = 4
	dirDebug          = 6

	coffMachine    = 0
	coffSections   = 2
	coffTime       = 4
	coffSymbols    = 8
	coffOptional   = 16
	optInitialized = 8
	optAlignment   = 32
	optFileAlign   = 36
	optImageSize   = 56
	optHeadersSize = 60
	optCheckSum    = 64
	optDirectories = 108

	sectionCode        = 0x00000020
	sectionInitialized = 0x00000040
	sectionExecute     = 0x20000000
	sectionRead        = 0x40000000
)

const (
	maxHeaders  = 1 << 16 // SizeOfHeaders; a page is usual
	maxSections = 96      // what Windows' loader accepts
)

// Machine types of the COFF header.
const (
	MachineAMD64 uint16 = 0x8664
	MachineARM64 uint16 = 0xaa64
)

// headers are the parsed headers of a PE32+ image.
type headers struct {
	raw      []byte // the first SizeOfHeaders bytes
	coff     int    // offset of the COFF header in raw
	opt      int    // offset of the optional header
	table    int    // offset of the section table
	dirs     int    // number of data directories
	sections []sectionHeader
}

// sectionHeader is an entry of the section table, in its order.
type sectionHeader struct {
	Name            string
	VirtualSize     uint32
	VirtualAddress  uint32
	SizeOfRawData   uint32
	Offset          uint32 // PointerToRawData
	Characteristics uint32
}

func (h *headers) u16(off int) uint16 { return binary.LittleEndian.Uint16(h.raw[off:]) }
func (h *headers) u32(off int) uint32 { return binary.LittleEndian.Uint32(h.raw[off:]) }

// directory is a data directory: where its data lies and how long it is.
func (h *headers) directory(i int) (addr, size uint32) {
	if i >= h.dirs {
		return 0, 0
	}
	return h.u32(h.opt + optionalFixed + 8*i), h.u32(h.opt + optionalFixed + 8*i + 4)
}

// readHeaders reads and checks what every user of an image relies on.
func readHeaders(r io.ReaderAt, size int64) (*headers, error) {
	dos := make([]byte, dosHeaderSize)
	if err := readAt(r, size, dos, 0); err != nil {
		return nil, fmt.Errorf("reading the DOS header: %w", err)
	}
	if string(dos[:2]) != "MZ" {
		return nil, fmt.Errorf("not a PE image: got %q at its start, want %q", dos[:2], "MZ")
	}
	pe := int64(binary.LittleEndian.Uint32(dos[60:]))
	if pe < 4 || pe > maxHeaders {
		return nil, fmt.Errorf("PE header at %d", pe)
	}
	fixed := make([]byte, 4+coffHeaderSize+optionalFixed)
	if err := readAt(r, size, fixed, pe); err != nil {
		return nil, fmt.Errorf("reading the PE header: %w", err)
	}
	if string(fixed[:4]) != "PE\x00\x00" {
		return nil, fmt.Errorf("not a PE image: got signature %q", fixed[:4])
	}
	opt := fixed[4+coffHeaderSize:]
	if magic := binary.LittleEndian.Uint16(opt); magic != magicPE32Plus {
		return nil, fmt.Errorf("optional header has magic %#x, only PE32+ (%#x) is known", magic, magicPE32Plus)
	}
	length := binary.LittleEndian.Uint32(opt[optHeadersSize:])
	if length > maxHeaders {
		return nil, fmt.Errorf("headers of %d bytes", length)
	}
	h := &headers{raw: make([]byte, length), coff: int(pe) + 4}
	h.opt = h.coff + coffHeaderSize
	if err := readAt(r, size, h.raw, 0); err != nil {
		return nil, fmt.Errorf("reading the headers: %w", err)
	}
	if len(h.raw) < h.opt+optionalFixed {
		return nil, fmt.Errorf("headers of %d bytes are too short", length)
	}
	h.dirs = int(min(h.u32(h.opt+optDirectories), 16))
	h.table = h.opt + int(h.u16(h.coff+coffOptional))
	if h.opt+optionalFixed+8*h.dirs > h.table {
		return nil, fmt.Errorf("optional header of %d bytes has no room for its %d directories", h.table-h.opt, h.dirs)
	}
	return h, h.readSections(size)
}

// readSections reads the section table and checks that the sections lie in
// the file, and in the loaded image without overlap.
func (h *headers) readSections(size int64) error {
	count := int(h.u16(h.coff + coffSections))
	if count > maxSections || h.table+count*sectionHeaderSize > len(h.raw) {
		return fmt.Errorf("%d sections do not fit headers of %d bytes", count, len(h.raw))
	}
	for i := range count {
		b := h.raw[h.table+i*sectionHeaderSize:][:sectionHeaderSize]
		s := sectionHeader{
			Name:            string(bytes.TrimRight(b[:8], "\x00")),
			VirtualSize:     binary.LittleEndian.Uint32(b[8:]),
			VirtualAddress:  binary.LittleEndian.Uint32(b[12:]),
			SizeOfRawData:   binary.LittleEndian.Uint32(b[16:]),
			Offset:          binary.LittleEndian.Uint32(b[20:]),
			Characteristics: binary.LittleEndian.Uint32(b[36:]),
		}
		if s.SizeOfRawData > 0 && int64(s.Offset)+int64(s.SizeOfRawData) > size {
			return fmt.Errorf("section %q has bytes %d to %d of a file of %d", s.Name, s.Offset, int64(s.Offset)+int64(s.SizeOfRawData), size)
		}
		h.sections = append(h.sections, s)
	}
	image := uint64(h.u32(h.opt + optImageSize))
	sorted := slices.Clone(h.sections)
	slices.SortStableFunc(sorted, func(a, b sectionHeader) int { return cmp.Compare(a.VirtualAddress, b.VirtualAddress) })
	end := uint64(0)
	for _, s := range sorted {
		if uint64(s.VirtualAddress) < end {
			return fmt.Errorf("section %q at address %#x overlaps the one before it", s.Name, s.VirtualAddress)
		}
		if end = uint64(s.VirtualAddress) + uint64(s.VirtualSize); end > image {
			return fmt.Errorf("section %q ends at address %#x of an image of %#x", s.Name, end, image)
		}
	}
	return nil
}

// readAt fills b from a file of size bytes.
func readAt(r io.ReaderAt, size int64, b []byte, off int64) error {
	if off < 0 || off+int64(len(b)) > size {
		return fmt.Errorf("bytes %d to %d of a file of %d: %w", off, off+int64(len(b)), size, io.ErrUnexpectedEOF)
	}
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}

func alignUp(n, to int64) int64 { return (n + to - 1) / to * to }

// Package ovmf reads what a firmware file of EDK II for x86 virtual machines
// says of itself: the table of GUIDs that ends 32 bytes before the file's end
// (OvmfPkg/ResetVector/Ia16/ResetVectorVtf0.asm), and the records that its
// entries point to from the end.
//
// Limits first: a file has at most 64 MiB, ends with whole pages of 4 KiB, and
// is mapped so that it ends at 4 GiB. A file of code alone (OVMF_CODE.fd) is
// read like one with its variables (OVMF.fd); which one a machine is given is
// the caller's to know. A table that has an entry twice is refused.
package ovmf

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"caisson/build/image/gpt"
)

const (
	// PageSize is the size of what is measured at once, in bytes.
	PageSize = 4096
	maxSize  = 64 << 20
	fourGiB  = 1 << 32

	tableEnd    = 32 // from the end of the file: the reset vector is behind it
	entryHeader = 18 // size, GUID
)

// footer is the entry that the table ends with.
func footer() gpt.GUID {
	return gpt.GUID{0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d}
}

// Firmware is a firmware file and its table.
type Firmware struct {
	Data    []byte
	entries map[gpt.GUID][]byte
}

// Read reads a firmware file. It fails where there is no table.
func Read(r io.Reader) (*Firmware, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return nil, err
	}
	switch {
	case len(b) > maxSize:
		return nil, fmt.Errorf("a firmware of more than %d bytes", maxSize)
	case len(b) == 0 || len(b)%PageSize != 0:
		return nil, fmt.Errorf("a firmware of %d bytes, want pages of %d", len(b), PageSize)
	}
	f := &Firmware{Data: b, entries: map[gpt.GUID][]byte{}}
	if err := f.readTable(b[:len(b)-tableEnd]); err != nil {
		return nil, fmt.Errorf("table of GUIDs: %w", err)
	}
	return f, nil
}

// readTable reads the table that b ends with. Its entries are read from the
// last one on: data, their size with this header, a GUID.
func (f *Firmware) readTable(b []byte) error {
	size, id := entryEnd(b)
	if id != footer() {
		return errors.New("there is none: not a firmware of EDK II for virtual machines")
	}
	if int(size) < entryHeader || int(size) > len(b) {
		return fmt.Errorf("it says that it has %d bytes", size)
	}
	table := b[len(b)-int(size) : len(b)-entryHeader]
	for len(table) >= entryHeader {
		n, id := entryEnd(table)
		if int(n) < entryHeader || int(n) > len(table) {
			return fmt.Errorf("entry %s of %d bytes, %d are left", id, n, len(table))
		}
		if _, twice := f.entries[id]; twice {
			return fmt.Errorf("two entries %s", id)
		}
		f.entries[id] = table[len(table)-int(n) : len(table)-entryHeader]
		table = table[:len(table)-int(n)]
	}
	return nil
}

// entryEnd is the header that an entry ends with.
func entryEnd(b []byte) (uint16, gpt.GUID) {
	h := b[len(b)-entryHeader:]
	return binary.LittleEndian.Uint16(h), gpt.GUID(h[2:])
}

// Base is where the file begins in the guest's physical memory.
func (f *Firmware) Base() uint64 { return fourGiB - uint64(len(f.Data)) }

// Number is the 32-bit number that an entry begins with; false where there is
// no such entry.
func (f *Firmware) Number(id gpt.GUID) (uint32, bool) {
	e := f.entries[id]
	if len(e) < 4 {
		return 0, false
	}
	return binary.LittleEndian.Uint32(e), true
}

// maxItems bounds the items of a list: firmware has about ten.
const maxItems = 64

// List are the items, of size bytes each, of the list that an entry points to
// by its distance from the file's end. It begins with four letters, its size,
// the version 1 and the number of items; false where there is no such entry.
func (f *Firmware) List(id gpt.GUID, letters string, size int) ([][]byte, bool, error) {
	distance, ok := f.Number(id)
	if !ok {
		return nil, false, nil
	}
	const header = 16
	if uint64(distance) > uint64(len(f.Data)) || distance < header {
		return nil, true, fmt.Errorf("%s: it starts %d bytes before the end of %d", letters, distance, len(f.Data))
	}
	b := f.Data[len(f.Data)-int(distance):]
	length, version, count := binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), binary.LittleEndian.Uint32(b[12:])
	switch {
	case string(b[:4]) != letters:
		return nil, true, fmt.Errorf("%s: it starts with %q", letters, b[:4])
	case version != 1:
		return nil, true, fmt.Errorf("%s: version %d, only 1 is known", letters, version)
	case count > maxItems:
		return nil, true, fmt.Errorf("%s: %d items", letters, count)
	case uint64(length) > uint64(len(b)) || header+int(count)*size > int(length):
		return nil, true, fmt.Errorf("%s: %d items of %d bytes in %d, %d are left", letters, count, size, length, len(b))
	}
	items := make([][]byte, count)
	for i := range items {
		items[i] = b[header+i*size:][:size]
	}
	return items, true, nil
}

package gpt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

// maxTable bounds the entries of a foreign table in bytes; tables in use have
// 16 KiB.
const maxTable = 1 << 20

// header has the fields of UEFI 2.10, table 5.5, that are not constant.
type header struct {
	raw                   []byte // headerSize bytes
	my, alternate         uint64
	firstUsable           uint64
	lastUsable            uint64
	disk                  GUID
	table                 uint64
	count, size, tableCRC uint32
}

// Read reads the partition table of a disk of size bytes. It is an error when
// the MBR is not a protective one, when a checksum is wrong, when the two
// copies differ, and when the partitions overlap or leave the disk.
func Read(r io.ReaderAt, size int64) (*Table, error) {
	mbr := make([]byte, SectorSize)
	if size < 6*SectorSize {
		return nil, fmt.Errorf("a disk of %d bytes has no room for a partition table", size)
	}
	if err := readAt(r, mbr, 0); err != nil {
		return nil, fmt.Errorf("reading the protective MBR: %w", err)
	}
	if !isProtective(mbr) {
		return nil, errNoMBR
	}
	sectors := uint64(size / SectorSize)
	primary, entries, err := readCopy(r, sectors, 1)
	if err != nil {
		return nil, fmt.Errorf("primary partition table: %w", err)
	}
	backup, backupEntries, err := readCopy(r, sectors, primary.alternate)
	if err != nil {
		return nil, fmt.Errorf("backup partition table: %w", err)
	}
	if err := sameTable(primary, backup); err != nil {
		return nil, err
	}
	if !bytes.Equal(entries, backupEntries) {
		return nil, fmt.Errorf("the primary and the backup partition entries differ")
	}
	t := &Table{DiskID: primary.disk, header: primary.raw}
	for e := range slices.Chunk(entries, int(primary.size)) {
		if GUID(e[:16]) == (GUID{}) {
			continue
		}
		t.Partitions = append(t.Partitions, decode(e))
		t.entries = append(t.entries, e)
	}
	if err := check(t.Partitions, primary.firstUsable, primary.lastUsable); err != nil {
		return nil, err
	}
	return t, nil
}

// isProtective tells whether one of the four entries of the MBR covers the
// disk for a GPT (UEFI 2.10, section 5.2.3).
func isProtective(mbr []byte) bool {
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return false
	}
	for i := range 4 {
		e := mbr[446+16*i:][:16]
		if e[4] == 0xee && binary.LittleEndian.Uint32(e[8:]) == 1 {
			return true
		}
	}
	return false
}

// readCopy reads the header in sector lba and its entries.
func readCopy(r io.ReaderAt, sectors, lba uint64) (*header, []byte, error) {
	if lba >= sectors {
		return nil, nil, fmt.Errorf("header in sector %d of a disk of %d", lba, sectors)
	}
	b := make([]byte, SectorSize)
	if err := readAt(r, b, int64(lba)*SectorSize); err != nil {
		return nil, nil, fmt.Errorf("reading the header: %w", err)
	}
	h, err := decodeHeader(b)
	if err != nil {
		return nil, nil, err
	}
	length := uint64(h.count) * uint64(h.size)
	tableSectors := (length + SectorSize - 1) / SectorSize
	switch {
	case h.my != lba:
		return nil, nil, fmt.Errorf("header says it is in sector %d, it is in %d", h.my, lba)
	case h.size < entrySize || h.size&(h.size-1) != 0 || length > maxTable:
		return nil, nil, fmt.Errorf("%d entries of %d bytes: not a table", h.count, h.size)
	case h.table >= sectors || tableSectors > sectors-h.table:
		return nil, nil, fmt.Errorf("entries from sector %d leave the disk of %d sectors", h.table, sectors)
	case h.lastUsable >= sectors || h.firstUsable > h.lastUsable:
		return nil, nil, fmt.Errorf("usable sectors %d to %d on a disk of %d", h.firstUsable, h.lastUsable, sectors)
	}
	entries := make([]byte, length)
	if err := readAt(r, entries, int64(h.table)*SectorSize); err != nil {
		return nil, nil, fmt.Errorf("reading the entries: %w", err)
	}
	if got := crc32.ChecksumIEEE(entries); got != h.tableCRC {
		return nil, nil, fmt.Errorf("entries have CRC %08x, the header says %08x", got, h.tableCRC)
	}
	return h, entries, nil
}

func decodeHeader(b []byte) (*header, error) {
	if string(b[:8]) != signature {
		return nil, fmt.Errorf("no header: got signature %q, want %q", b[:8], signature)
	}
	size := binary.LittleEndian.Uint32(b[12:])
	if size < headerSize || size > SectorSize {
		return nil, fmt.Errorf("header of %d bytes, want %d to %d", size, headerSize, SectorSize)
	}
	sum := binary.LittleEndian.Uint32(b[16:])
	zeroed := slices.Clone(b[:size])
	clear(zeroed[16:20])
	if got := crc32.ChecksumIEEE(zeroed); got != sum {
		return nil, fmt.Errorf("header has CRC %08x, it says %08x", got, sum)
	}
	return &header{
		raw:         slices.Clone(b[:headerSize]),
		my:          binary.LittleEndian.Uint64(b[24:]),
		alternate:   binary.LittleEndian.Uint64(b[32:]),
		firstUsable: binary.LittleEndian.Uint64(b[40:]),
		lastUsable:  binary.LittleEndian.Uint64(b[48:]),
		disk:        GUID(b[56:72]),
		table:       binary.LittleEndian.Uint64(b[72:]),
		count:       binary.LittleEndian.Uint32(b[80:]),
		size:        binary.LittleEndian.Uint32(b[84:]),
		tableCRC:    binary.LittleEndian.Uint32(b[88:]),
	}, nil
}

// sameTable compares what both headers say about the disk.
func sameTable(p, b *header) error {
	for _, f := range []struct {
		what            string
		primary, backup any
	}{
		{"place of the primary header", p.my, b.alternate},
		{"disk id", p.disk, b.disk},
		{"first usable sector", p.firstUsable, b.firstUsable},
		{"last usable sector", p.lastUsable, b.lastUsable},
		{"number of entries", p.count, b.count},
		{"size of an entry", p.size, b.size},
	} {
		if f.primary != f.backup {
			return fmt.Errorf("the two partition tables differ in the %s: primary %v, backup %v", f.what, f.primary, f.backup)
		}
	}
	return nil
}

func decode(e []byte) Partition {
	p := Partition{
		Type:  GUID(e[0:16]),
		ID:    GUID(e[16:32]),
		First: binary.LittleEndian.Uint64(e[32:]),
		Last:  binary.LittleEndian.Uint64(e[40:]),
		Attrs: binary.LittleEndian.Uint64(e[48:]),
	}
	name := make([]uint16, 0, nameUnits)
	for i := range nameUnits {
		u := binary.LittleEndian.Uint16(e[56+2*i:])
		if u == 0 {
			break
		}
		name = append(name, u)
	}
	p.Name = string(utf16.Decode(name))
	return p
}

// readAt fills b: io.ReaderAt may end with io.EOF beside the last bytes.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Package gpt writes and reads a GUID partition table: UEFI 2.10, section 5.
//
// Limits first: sectors are 512 bytes, the table that Write makes has 128
// entries of 128 bytes, and both copies of a table that is read must be
// whole, and say the same. Ids are the caller's: nothing here is made up, so
// the same Table gives the same bytes.
//
// What Write lays down, in sectors:
//
//	0            protective MBR: one entry of type 0xEE over the whole disk
//	1            primary header
//	2 to 33      partition entries
//	34 to n-34   partitions
//	n-33 to n-2  partition entries again
//	n-1          backup header
package gpt

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"unicode/utf16"
)

const (
	// SectorSize is the size in bytes of the sectors that First and Last count.
	SectorSize = 512
	// FirstUsable is the first sector that a partition may have in a table
	// that Write makes.
	FirstUsable = 2 + tableSectors

	headerSize   = 92 // UEFI 2.10, table 5.5
	entrySize    = 128
	entryCount   = 128
	nameUnits    = 36 // UTF-16 code units, table 5.6
	tableSectors = entryCount * entrySize / SectorSize
	revision     = 0x00010000
	signature    = "EFI PART"
)

// Partition is one entry of the table. First and Last are sectors of 512
// bytes, both of them part of the partition.
type Partition struct {
	Type, ID    GUID
	Name        string // at most 36 UTF-16 code units
	First, Last uint64
	Attrs       uint64
}

// Start is the partition's first byte on the disk.
func (p Partition) Start() int64 { return int64(p.First) * SectorSize }

// Size is the partition's length in bytes.
func (p Partition) Size() int64 { return int64(p.Last-p.First+1) * SectorSize }

// Table is a disk's partition table; the partitions are in the order of
// their entries.
type Table struct {
	DiskID     GUID
	Partitions []Partition

	header  []byte
	entries [][]byte
}

// Header is the primary header as it was read, the 92 bytes that firmware
// measures. It is nil in a table that Read did not make.
func (t *Table) Header() []byte { return slices.Clone(t.header) }

// Entries are the entries in use as they were read from the primary table,
// in their order. It is nil in a table that Read did not make.
func (t *Table) Entries() [][]byte { return slices.Clone(t.entries) }

// LastUsable is the last sector that a partition may have on a disk of size
// bytes.
func LastUsable(size int64) uint64 { return uint64(size/SectorSize) - tableSectors - 2 }

// Write writes the protective MBR and both copies of the table for a disk of
// size bytes. It writes every byte of these sectors and no other. Partitions
// that overlap, leave the usable sectors, or lack an id or a type are errors.
func Write(w io.WriterAt, size int64, t Table) error {
	if size%SectorSize != 0 || size < (2*tableSectors+4)*SectorSize {
		return fmt.Errorf("disk size %d: want a multiple of %d and at least %d bytes", size, SectorSize, (2*tableSectors+4)*SectorSize)
	}
	if len(t.Partitions) > entryCount {
		return fmt.Errorf("%d partitions, at most %d fit the table", len(t.Partitions), entryCount)
	}
	last := uint64(size/SectorSize) - 1
	if err := check(t.Partitions, FirstUsable, LastUsable(size)); err != nil {
		return err
	}
	entries := make([]byte, entryCount*entrySize)
	for i, p := range t.Partitions {
		if err := p.encode(entries[i*entrySize:][:entrySize]); err != nil {
			return err
		}
	}
	crc := crc32.ChecksumIEEE(entries)
	for _, part := range []struct {
		lba  uint64
		data []byte
	}{
		{0, protectiveMBR(last)},
		{1, encodeHeader(t.DiskID, 1, last, 2, last, crc)},
		{2, entries},
		{last - tableSectors, entries},
		{last, encodeHeader(t.DiskID, last, 1, last-tableSectors, last, crc)},
	} {
		if _, err := w.WriteAt(part.data, int64(part.lba)*SectorSize); err != nil {
			return fmt.Errorf("writing the partition table at sector %d: %w", part.lba, err)
		}
	}
	return nil
}

// check says what is wrong with the partitions of a table whose usable
// sectors are first to last.
func check(parts []Partition, first, last uint64) error {
	ids := make(map[GUID]string, len(parts))
	for _, p := range parts {
		switch other, dup := ids[p.ID]; {
		case p.Type == GUID{}:
			return fmt.Errorf("partition %q has no type", p.Name)
		case p.ID == GUID{}:
			return fmt.Errorf("partition %q has no id", p.Name)
		case dup:
			return fmt.Errorf("partitions %q and %q have one id %s", other, p.Name, p.ID)
		case p.Last < p.First:
			return fmt.Errorf("partition %q ends at sector %d before it starts at %d", p.Name, p.Last, p.First)
		case p.First < first || p.Last > last:
			return fmt.Errorf("partition %q has sectors %d to %d, the disk's usable ones are %d to %d", p.Name, p.First, p.Last, first, last)
		}
		ids[p.ID] = p.Name
	}
	sorted := slices.Clone(parts)
	slices.SortFunc(sorted, func(a, b Partition) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(sorted); i++ {
		if a, b := sorted[i-1], sorted[i]; b.First <= a.Last {
			return fmt.Errorf("partition %q from sector %d overlaps %q up to sector %d", b.Name, b.First, a.Name, a.Last)
		}
	}
	return nil
}

// encode writes the entry of UEFI 2.10, table 5.6.
func (p Partition) encode(b []byte) error {
	name := utf16.Encode([]rune(p.Name))
	if len(name) > nameUnits {
		return fmt.Errorf("partition name %q has %d UTF-16 code units, at most %d fit", p.Name, len(name), nameUnits)
	}
	if slices.Contains(name, 0) {
		return fmt.Errorf("partition name %q has a NUL in it", p.Name)
	}
	copy(b[0:], p.Type[:])
	copy(b[16:], p.ID[:])
	binary.LittleEndian.PutUint64(b[32:], p.First)
	binary.LittleEndian.PutUint64(b[40:], p.Last)
	binary.LittleEndian.PutUint64(b[48:], p.Attrs)
	for i, u := range name {
		binary.LittleEndian.PutUint16(b[56+2*i:], u)
	}
	return nil
}

// encodeHeader makes a sector with the header of UEFI 2.10, table 5.5, for a
// disk whose last sector is last.
func encodeHeader(disk GUID, my, alternate, table, last uint64, entriesCRC uint32) []byte {
	b := make([]byte, SectorSize)
	copy(b, signature)
	binary.LittleEndian.PutUint32(b[8:], revision)
	binary.LittleEndian.PutUint32(b[12:], headerSize)
	binary.LittleEndian.PutUint64(b[24:], my)
	binary.LittleEndian.PutUint64(b[32:], alternate)
	binary.LittleEndian.PutUint64(b[40:], FirstUsable)
	binary.LittleEndian.PutUint64(b[48:], last-tableSectors-1)
	copy(b[56:], disk[:])
	binary.LittleEndian.PutUint64(b[72:], table)
	binary.LittleEndian.PutUint32(b[80:], entryCount)
	binary.LittleEndian.PutUint32(b[84:], entrySize)
	binary.LittleEndian.PutUint32(b[88:], entriesCRC)
	binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// protectiveMBR makes the first sector: UEFI 2.10, section 5.2.3.
func protectiveMBR(last uint64) []byte {
	b := make([]byte, SectorSize)
	e := b[446:462]
	copy(e, []byte{0, 0x00, 0x02, 0x00, 0xee, 0xff, 0xff, 0xff}) // CHS 0/0/2 to "does not fit"
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

var errNoMBR = errors.New("no protective MBR: want an entry of type 0xee from sector 1 in sector 0")

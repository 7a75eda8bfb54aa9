package gpt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
)

// Edit is a table that is changed in place: what is not changed keeps its
// bytes and its number.
type Edit struct {
	mbr     []byte
	header  header
	entries []byte
}

// Numbered is a partition with its number, which is that of its entry from 1.
type Numbered struct {
	Number int
	Partition
}

// OpenEdit reads the table of a disk of size bytes, as strictly as Read. The
// copy at the disk's end may be elsewhere, as it is where the disk was made
// larger.
func OpenEdit(r io.ReaderAt, size int64) (*Edit, error) {
	if _, err := Read(r, size); err != nil {
		return nil, err
	}
	e := &Edit{mbr: make([]byte, SectorSize)}
	if err := readAt(r, e.mbr, 0); err != nil {
		return nil, fmt.Errorf("reading the protective MBR: %w", err)
	}
	h, entries, err := readCopy(r, uint64(size/SectorSize), 1)
	if err != nil {
		return nil, err
	}
	e.header, e.entries = *h, entries
	return e, nil
}

// Partitions are those in use, in the order of their numbers.
func (e *Edit) Partitions() []Numbered {
	var all []Numbered
	for i, b := range e.slots() {
		if GUID(b[:16]) != (GUID{}) {
			all = append(all, Numbered{i + 1, decode(b)})
		}
	}
	return all
}

func (e *Edit) slots() [][]byte {
	return slices.Collect(slices.Chunk(e.entries, int(e.header.size)))
}

// Backup is where the second copy of the table lies: its entries and its
// header, in bytes. It is not there any more after the disk has grown.
func (e *Edit) Backup() (start, end int64) {
	end = int64(e.header.alternate+1) * SectorSize
	return end - int64(e.tableSectors()+1)*SectorSize, end
}

// tableSectors is the length of one copy of the entries.
func (e *Edit) tableSectors() uint64 {
	return (uint64(len(e.entries)) + SectorSize - 1) / SectorSize
}

// Set changes a partition that is there.
func (e *Edit) Set(n Numbered) error {
	slots := e.slots()
	if n.Number < 1 || n.Number > len(slots) {
		return fmt.Errorf("partition %d of a table with %d", n.Number, len(slots))
	}
	b := make([]byte, entrySize)
	if err := n.encode(b); err != nil {
		return err
	}
	copy(slots[n.Number-1], b)
	return nil
}

// Add adds a partition under the first number that is free, and returns that.
func (e *Edit) Add(p Partition) (int, error) {
	for i, b := range e.slots() {
		if GUID(b[:16]) == (GUID{}) {
			clear(b)
			return i + 1, e.Set(Numbered{i + 1, p})
		}
	}
	return 0, fmt.Errorf("all %d entries of the partition table are in use", e.header.count)
}

// Write writes the protective MBR and both copies of the table for a disk that
// now has size bytes. It changes of the MBR only how large it says that the
// disk is. What is wrong with the partitions is an error, as in Write.
func (e *Edit) Write(w io.WriterAt, size int64) error {
	if size%SectorSize != 0 {
		return fmt.Errorf("disk size %d: want a multiple of %d", size, SectorSize)
	}
	h := e.header
	if size/SectorSize <= int64(h.firstUsable+e.tableSectors())+1 { //nolint:gosec // both are sectors of a disk
		return fmt.Errorf("disk size %d: too small for the partition table", size)
	}
	last := uint64(size/SectorSize) - 1
	h.alternate = last
	h.lastUsable = last - e.tableSectors() - 1
	var parts []Partition
	for _, p := range e.Partitions() {
		parts = append(parts, p.Partition)
	}
	if err := check(parts, h.firstUsable, h.lastUsable); err != nil {
		return err
	}
	if h.table < 2 || h.table+e.tableSectors() > h.firstUsable {
		return errors.New("the partition table's entries lie among the partitions")
	}
	h.tableCRC = crc32.ChecksumIEEE(e.entries)
	backup := h
	backup.my, backup.alternate, backup.table = last, 1, last-e.tableSectors()
	for _, part := range []struct {
		lba  uint64
		data []byte
	}{
		{0, growMBR(e.mbr, e.header.alternate, last)},
		{1, h.encode()},
		{h.table, e.entries},
		{backup.table, e.entries},
		{last, backup.encode()},
	} {
		if _, err := w.WriteAt(part.data, int64(part.lba)*SectorSize); err != nil {
			return fmt.Errorf("writing the partition table at sector %d: %w", part.lba, err)
		}
	}
	return nil
}

// encode makes a sector with a header that keeps the disk's id and geometry.
func (h header) encode() []byte {
	b := encodeHeader(h.disk, h.my, h.alternate, h.table, 0, h.tableCRC)
	le := binary.LittleEndian
	le.PutUint64(b[40:], h.firstUsable)
	le.PutUint64(b[48:], h.lastUsable)
	le.PutUint32(b[80:], h.count)
	le.PutUint32(b[84:], h.size)
	le.PutUint32(b[16:], 0)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// growMBR is the MBR of a disk whose last sector was old and is last now:
// entries that covered the disk from sector 1 still do (UEFI 2.10, section
// 5.2.3).
func growMBR(mbr []byte, old, last uint64) []byte {
	b := slices.Clone(mbr)
	for i := range 4 {
		p := b[446+16*i:][:16]
		length := uint64(binary.LittleEndian.Uint32(p[12:]))
		if p[4] == 0xee && binary.LittleEndian.Uint32(p[8:]) == 1 && (length == min(old, 0xffffffff) || length == 0xffffffff) {
			binary.LittleEndian.PutUint32(p[12:], uint32(min(last, 0xffffffff)))
		}
	}
	return b
}

package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Options is how an image is written.
type Options struct {
	// Compress stores clusters compressed with Zstandard. Linux and QEMU 5.1
	// and later read them.
	Compress bool
	// Level is that of Zstandard, 1 to 22; 0 is 3.
	Level int
	// Workers is how many parts of the disk are read and compressed at a
	// time, 0 is 4. It does not change the bytes. Each takes about 4 MiB.
	Workers int
}

// Write writes a disk of size bytes as an image to w, from its beginning. It
// reads several parts of the disk at a time. It writes one after the other
// and nearly in order, and the header last.
func Write(w io.WriterAt, disk io.ReaderAt, size int64, o Options) error {
	switch {
	case size < 0 || size%sectorSize != 0:
		return fmt.Errorf("disk has %d bytes, want a multiple of %d", size, sectorSize)
	case size > MaxSize:
		return fmt.Errorf("disk has %d bytes, more than %d", size, int64(MaxSize))
	case o.Workers < 0 || o.Level < 0 || o.Level > 22:
		return fmt.Errorf("%d workers and compression level %d: want 0 or more, and 0 to 22", o.Workers, o.Level)
	}
	x := &writer{
		w: w, size: size, compress: o.Compress,
		free: clusterSize, refs: []uint16{1}, late: make([]byte, 0, maxLate),
		l1: make([]uint64, (size+l2Covers-1)/l2Covers),
	}
	if err := readClusters(disk, size, o, x.add); err != nil {
		return err
	}
	return x.finish()
}

// writer is an image that is being written.
type writer struct {
	w        io.WriterAt
	size     int64
	compress bool

	free int64    // where clusters are free, all up to the end
	part int64    // where the last compressed data ends; the rest of its cluster is free
	refs []uint16 // reference counts of the clusters below free

	l1     []uint64
	l2     [l2Entries]uint64
	l2Used bool

	// What is to be written next: neighbours go into one call, since each
	// call and each page that it writes in part costs as much as compressing
	// a few kilobytes.
	late   []byte
	lateAt int64
}

const maxLate = 1 << 20 // bytes

// add appends cluster number i of the disk, of which several have come
// before.
func (x *writer) add(i int64, c cluster) error {
	var entry uint64
	switch {
	case c.zero:
	case c.packed:
		at := x.allocBytes(int64(len(c.data)))
		if err := x.writeAt(c.data, at); err != nil {
			return err
		}
		entry = entryCompressed | uint64(at) | uint64(moreSectors(at, int64(len(c.data))))<<sectorsShift(clusterBits)
	default:
		at := x.allocClusters(1)
		if err := x.writeAt(c.data, at); err != nil {
			return err
		}
		entry = entryCopied | uint64(at)
	}
	x.l2[i%l2Entries] = entry
	x.l2Used = x.l2Used || entry != 0
	if last := (i+1)*clusterSize >= x.size; last || (i+1)%l2Entries == 0 {
		return x.finishL2(i / l2Entries)
	}
	return nil
}

// finishL2 writes the L2 table that is entry i of the L1 table.
func (x *writer) finishL2(i int64) error {
	if !x.l2Used {
		return nil
	}
	at := x.allocClusters(1)
	x.l1[i] = entryCopied | uint64(at)
	err := x.writeTable(x.l2[:], at)
	x.l2, x.l2Used = [l2Entries]uint64{}, false
	return err
}

// sectorsShift returns where, in the entry of a compressed cluster, the
// number of its sectors is, and its offset ends.
func sectorsShift(clusterBits int) int { return 62 - (clusterBits - 8) }

// moreSectors returns how many sectors compressed data covers beyond the one
// that it begins in.
func moreSectors(at, n int64) int64 { return (at+n-1)/sectorSize - at/sectorSize }

func (x *writer) allocClusters(n int64) int64 {
	at := x.free
	x.free += n * clusterSize
	for range n {
		x.refs = append(x.refs, 1)
	}
	return at
}

// allocBytes finds a place for compressed data, and counts it in all clusters
// that it touches.
func (x *writer) allocBytes(n int64) int64 {
	at := x.part
	room := -at & (clusterSize - 1)
	if n > room && at+room != x.free {
		at, room = x.free, 0
	}
	if n > room {
		more := (n - room + clusterSize - 1) / clusterSize
		x.free += more * clusterSize
		x.refs = append(x.refs, make([]uint16, more)...)
	}
	for c := at / clusterSize; c <= (at+n-1)/clusterSize; c++ {
		x.refs[c]++
	}
	x.part = at + n
	return at
}

// writeAt writes a copy of b, now or with what follows it.
func (x *writer) writeAt(b []byte, at int64) error {
	if at != x.lateAt+int64(len(x.late)) || len(x.late)+len(b) > maxLate {
		if err := x.flush(); err != nil {
			return err
		}
		x.lateAt = at
	}
	x.late = append(x.late, b...)
	return nil
}

// flush writes what is still to be written.
func (x *writer) flush() error {
	if _, err := x.w.WriteAt(x.late, x.lateAt); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(x.late), x.lateAt, err)
	}
	x.late = x.late[:0]
	return nil
}

// writeTable writes a table of 64-bit numbers and zeros up to the end of its
// last cluster.
func (x *writer) writeTable(table []uint64, at int64) error {
	b := make([]byte, 0, (len(table)*8+clusterSize-1)&^(clusterSize-1))
	for _, v := range table {
		b = binary.BigEndian.AppendUint64(b, v)
	}
	return x.writeAt(b[:cap(b)], at)
}

// finish writes the tables and the header.
func (x *writer) finish() error {
	// What is left of the cluster that compressed data ends in.
	if rest := -x.part & (clusterSize - 1); rest > 0 {
		if err := x.writeAt(make([]byte, rest), x.part); err != nil {
			return err
		}
	}
	// QEMU wants an L1 table also for a disk of no bytes.
	l1 := x.l1
	if len(l1) == 0 {
		l1 = make([]uint64, 1)
	}
	l1At := x.allocClusters(int64(len(l1)*8+clusterSize-1) / clusterSize)
	tableSize, blocks := refTables(int64(len(x.refs)))
	tableAt := x.allocClusters(tableSize)
	blocksAt := x.allocClusters(blocks)
	table := make([]uint64, blocks)
	for i := range table {
		table[i] = uint64(blocksAt) + uint64(i)*clusterSize
	}
	header := make([]byte, clusterSize)
	x.putHeader(header, l1At, tableAt, tableSize)
	err := errors.Join(
		x.writeTable(l1, l1At),
		x.writeTable(table, tableAt),
		x.writeRefs(blocksAt),
		x.flush(),
	)
	if err != nil { // and no header: this is no image
		return err
	}
	return errors.Join(x.writeAt(header, 0), x.flush())
}

const refsInBlock = clusterSize / 2 // of 16 bits

// refTables returns how many clusters the reference table and the reference
// blocks need to count used clusters and themselves.
func refTables(used int64) (table, blocks int64) {
	for {
		n := (used + table + blocks + refsInBlock - 1) / refsInBlock
		t := (n*8 + clusterSize - 1) / clusterSize
		if n == blocks && t == table {
			return table, blocks
		}
		table, blocks = t, n
	}
}

// writeRefs writes the reference blocks.
func (x *writer) writeRefs(at int64) error {
	for refs := x.refs; len(refs) > 0; at += clusterSize {
		n := min(refsInBlock, len(refs))
		b := make([]byte, 0, clusterSize)
		for _, v := range refs[:n] {
			b = binary.BigEndian.AppendUint16(b, v)
		}
		if err := x.writeAt(b[:clusterSize], at); err != nil {
			return err
		}
		refs = refs[n:]
	}
	return nil
}

func (x *writer) putHeader(b []byte, l1At, tableAt, tableSize int64) {
	be := binary.BigEndian
	copy(b, magic)
	be.PutUint32(b[hdrVersion:], 3)
	be.PutUint32(b[hdrClusterBits:], clusterBits)
	be.PutUint64(b[hdrSize:], uint64(x.size))
	be.PutUint32(b[hdrL1Size:], uint32(max(1, len(x.l1))))
	be.PutUint64(b[hdrL1Offset:], uint64(l1At))
	be.PutUint64(b[hdrRefTable:], uint64(tableAt))
	be.PutUint32(b[hdrRefTableSize:], uint32(tableSize))
	be.PutUint32(b[hdrRefOrder:], 4) // 16 bits
	be.PutUint32(b[hdrLength:], hdrWritten)
	if x.compress {
		be.PutUint64(b[hdrIncompatible:], featureCompression)
		b[hdrCompression] = compressionZstd
	}
	// What follows is an end of header extensions: zeros.
}

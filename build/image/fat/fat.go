// Package fat writes a FAT32 file system, as an EFI system partition has it,
// and reads FAT32, FAT16 and FAT12 and adds files to them: Microsoft's "FAT:
// General Overview of On-Disk Format", version 1.03.
//
// Limits first: Write makes file systems of 33 MiB to 2 GiB, with sectors of
// 512 bytes and clusters of 512 bytes up to 260 MiB and of 4096 above, so
// that the number of clusters always makes it FAT32. Files are below 4 GiB;
// times are UTC in steps of two seconds, and clamped to the years 1980 to
// 2107 that the format knows.
//
// Everything lies one after the other and in the order of the paths, whatever
// the order of the files given: reserved sectors, two copies of the table,
// all folders, all files. The same files and options give the same bytes.
// A name that is a DOS name but for being wholly in lower case, in its base,
// its extension or both, is written as one and flagged; every other name gets
// a long name (VFAT) and a made short one, NAME~1.EXT.
package fat

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

const (
	sector    = 512
	mib       = 1 << 20
	minSize   = 33 * mib
	maxSize   = 2 << 30
	reserved  = 32 // sectors before the first table, as most formatters leave
	smallDisk = 260 * mib

	minClusters = 65525 // fewer make a FAT16 ("FAT Type Determination")
	rootCluster = 2
	backupBoot  = 6
	endOfChain  = 0x0fffffff
	media       = 0xf8

	entrySize = 32
	maxFolder = 65536 * entrySize // "FAT Directory Structure"
	maxFile   = 1<<32 - 1
)

// File is a file: its path with slashes and without a leading one, its
// length in bytes, and its content.
type File struct {
	Path string
	Size int64
	// Room is for how many bytes clusters are set aside, so that the file can
	// grow to them without moving another: those behind Size are free. Less
	// than Size is as much as that.
	Room int64
	// ReadOnly is the attribute of that name.
	ReadOnly bool
	Open     func() (io.ReadCloser, error)
}

// attributes are those of the file's directory entry.
func (f File) attributes() byte {
	if f.ReadOnly {
		return attrArchive | attrReadOnly
	}
	return attrArchive
}

// Options are what a file system has beside its files.
type Options struct {
	Serial uint32
	Label  string // at most 11 characters, upper case; "" for none
	Time   int64  // of all files and folders, in seconds since 1970, UTC
}

// geometry is where the parts of a file system lie, in sectors.
type geometry struct {
	total      int64
	perCluster int64
	fat        int64 // of one table
	clusters   int64
}

// newGeometry lays out size bytes: the smallest table that has an entry for
// each cluster.
func newGeometry(size int64) geometry {
	g := geometry{total: size / sector, perCluster: 1}
	if size > smallDisk {
		g.perCluster = 8
	}
	for g.fat*sector/4 < g.clusters+rootCluster || g.fat == 0 {
		g.fat++
		g.clusters = (g.total - reserved - 2*g.fat) / g.perCluster
	}
	return g
}

func (g geometry) clusterBytes() int64 { return g.perCluster * sector }

// offset is the first byte of a cluster.
func (g geometry) offset(cluster int64) int64 {
	return (reserved + 2*g.fat + (cluster-rootCluster)*g.perCluster) * sector
}

// MinSize is the smallest size in bytes, a multiple of 1 MiB, in which Write
// can write the files; at least 33 MiB. Files that Write would refuse make it
// meaningless, and are Write's to report.
func MinSize(files []File) int64 {
	root, err := newTree(files)
	if err != nil {
		return minSize
	}
	for size := int64(minSize); ; size += mib {
		g := newGeometry(size)
		need := root.clusters(g.clusterBytes(), true)
		if need <= g.clusters {
			return size
		}
		size += (need - g.clusters) * g.clusterBytes() / mib * mib
	}
}

// Write writes a file system of size bytes. It expects a w that reads as
// zeros, a new file: clusters without a file are not written, so that w can
// stay sparse.
func Write(w io.WriterAt, size int64, files []File, o Options) error {
	if size < minSize || size > maxSize || size%sector != 0 {
		return fmt.Errorf("file system of %d bytes: want a multiple of %d from %d to %d", size, sector, minSize, maxSize)
	}
	label, err := volumeLabel(o.Label)
	if err != nil {
		return err
	}
	root, err := newTree(files)
	if err != nil {
		return err
	}
	return newGeometry(size).write(w, root, o, label)
}

// write writes the tree; o.Label is padded to label.
func (g geometry) write(w io.WriterAt, root *node, o Options, label [11]byte) error {
	need := root.clusters(g.clusterBytes(), o.Label != "")
	if need > g.clusters {
		return fmt.Errorf("the files need %d clusters of %d bytes, a file system of %d bytes has %d", need, g.clusterBytes(), g.total*sector, g.clusters)
	}
	table := newTable(g)
	folders, all := root.place(table, g.clusterBytes(), o.Label != "")
	for _, part := range []struct {
		sector int64
		data   []byte
	}{
		{0, bootSector(g, o.Serial, label)},
		{1, infoSector(g, table)},
		{backupBoot, bootSector(g, o.Serial, label)},
		{backupBoot + 1, infoSector(g, table)},
		{reserved, table.bytes},
		{reserved + g.fat, table.bytes},
	} {
		if _, err := w.WriteAt(part.data, part.sector*sector); err != nil {
			return fmt.Errorf("writing the file system at sector %d: %w", part.sector, err)
		}
	}
	stamp := newStamp(o.Time)
	for _, f := range folders {
		b := f.encode(stamp, g.clusterBytes(), o.Label, label)
		if _, err := w.WriteAt(b, g.offset(f.cluster)); err != nil {
			return fmt.Errorf("writing folder %q: %w", f.path(), err)
		}
	}
	for _, f := range all {
		if err := f.copy(w, g); err != nil {
			return fmt.Errorf("writing %q: %w", f.path(), err)
		}
	}
	return nil
}

// table is the file allocation table.
type table struct {
	bytes []byte
	next  int64 // the first cluster behind all files and their room
	used  int64 // clusters of files and folders
}

func newTable(g geometry) *table {
	t := &table{bytes: make([]byte, g.fat*sector), next: rootCluster}
	binary.LittleEndian.PutUint32(t.bytes, 0x0fffff00|media)
	binary.LittleEndian.PutUint32(t.bytes[4:], endOfChain) // clean, and no errors
	return t
}

// chain takes n clusters, one after the other, and returns the first; 0 for
// none.
func (t *table) chain(n int64) int64 {
	if n == 0 {
		return 0
	}
	first := t.next
	t.next += n
	t.used += n
	for c := first; c < t.next-1; c++ {
		binary.LittleEndian.PutUint32(t.bytes[4*c:], uint32(c+1))
	}
	binary.LittleEndian.PutUint32(t.bytes[4*(t.next-1):], endOfChain)
	return first
}

// bootSector makes sector 0: "Boot Sector and BPB Structure", FAT32.
func bootSector(g geometry, serial uint32, label [11]byte) []byte {
	b := make([]byte, sector)
	put16 := func(off, v int) { binary.LittleEndian.PutUint16(b[off:], uint16(v)) }
	put32 := func(off int, v int64) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	copy(b, []byte{0xeb, 0x58, 0x90})
	copy(b[3:], "MSWIN4.1") // the name that the specification recommends
	put16(11, sector)
	b[13] = byte(g.perCluster)
	put16(14, reserved)
	b[16] = 2 // tables
	b[21] = media
	put16(24, 63)  // sectors of a track
	put16(26, 255) // heads
	put32(32, g.total)
	put32(36, g.fat)
	put32(44, rootCluster)
	put16(48, 1) // information sector
	put16(50, backupBoot)
	b[64] = 0x80 // drive
	b[66] = 0x29 // serial, label and type follow
	put32(67, int64(serial))
	copy(b[71:], label[:])
	copy(b[82:], "FAT32   ")
	copy(b[90:], []byte{0xcd, 0x18, 0xeb, 0xfe}) // nothing to boot here: int 18h, and stop
	b[510], b[511] = 0x55, 0xaa
	return b
}

// infoSector makes the FSInfo sector: "FAT32 FSInfo Sector Structure".
func infoSector(g geometry, t *table) []byte {
	b := make([]byte, sector)
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	next := int64(0xffffffff)
	if t.next-rootCluster < g.clusters {
		next = t.next
	}
	binary.LittleEndian.PutUint32(b[488:], uint32(g.clusters-t.used))
	binary.LittleEndian.PutUint32(b[492:], uint32(next))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// volumeLabel pads a label to its eleven bytes.
func volumeLabel(s string) ([11]byte, error) {
	label := [11]byte([]byte("NO NAME    "))
	if s == "" {
		return label, nil
	}
	if len(s) > len(label) || s[0] == ' ' || strings.ContainsFunc(s, func(r rune) bool { return r != ' ' && !shortRune(r) }) {
		return label, fmt.Errorf("label %q: want at most 11 upper-case letters, digits and signs", s)
	}
	copy(label[:], fmt.Sprintf("%-11s", s))
	return label, nil
}

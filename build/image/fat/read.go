package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// Bounds for foreign file systems, far above what an EFI system partition
// holds.
const (
	maxDepth   = 64
	maxEntries = 1 << 20 // files and folders in all
	maxExtents = 1 << 18 // of one file
	fat16Min   = 4085    // fewer clusters make a FAT12 ("FAT Type Determination")
)

// FS is a file system that was opened.
type FS struct {
	Serial uint32
	Label  string // of the boot sector, without padding

	r           io.ReaderAt
	size        int64
	cluster     int64 // bytes
	clusters    int64
	data        int64 // offset of cluster 2
	table       int64 // offset of the first table
	tables      int64 // how many tables there are
	tableLength int64 // of one, in bytes
	bits        int64 // of an entry of the table: 12, 16 or 32
	root        int64 // first cluster (FAT32)
	rootOffset  int64 // the root's place and length (FAT12, FAT16)
	rootLength  int64
	info        int64 // offset of the information sector (FAT32); 0 for none
	mirrored    bool  // all tables are in use
}

// Open reads the boot sector of a file system of at most size bytes.
func Open(r io.ReaderAt, size int64) (*FS, error) {
	b := make([]byte, sector)
	if size < sector {
		return nil, fmt.Errorf("%d bytes are too few for a FAT file system", size)
	}
	if err := readAt(r, b, 0); err != nil {
		return nil, fmt.Errorf("reading the boot sector: %w", err)
	}
	u16 := func(off int) int64 { return int64(binary.LittleEndian.Uint16(b[off:])) }
	u32 := func(off int) int64 { return int64(binary.LittleEndian.Uint32(b[off:])) }
	if b[510] != 0x55 || b[511] != 0xaa {
		return nil, errors.New("no FAT file system: the boot sector has no signature")
	}
	bytesPer, perCluster, tables := u16(11), int64(b[13]), int64(b[16])
	if bytesPer < 512 || bytesPer > 4096 || bytesPer&(bytesPer-1) != 0 || perCluster == 0 || perCluster&(perCluster-1) != 0 || tables == 0 || tables > 2 {
		return nil, fmt.Errorf("no FAT file system: sectors of %d bytes, clusters of %d sectors, %d tables", bytesPer, perCluster, tables)
	}
	f := &FS{r: r, cluster: bytesPer * perCluster, table: u16(14) * bytesPer, tables: tables, mirrored: true}
	total := u16(19)
	if total == 0 {
		total = u32(32)
	}
	f.size = total * bytesPer
	tableSectors, serialAt := u16(22), 39
	if tableSectors == 0 {
		f.bits, tableSectors, serialAt = 32, u32(36), 67
		f.root, f.mirrored = u32(44), b[40]&0x80 == 0
		if at := u16(48); at > 0 && at < u16(14) {
			f.info = at * bytesPer
		}
	}
	f.tableLength = tableSectors * bytesPer
	f.rootOffset = f.table + tables*f.tableLength
	f.rootLength = u16(17) * entrySize
	f.data = f.rootOffset + (f.rootLength+bytesPer-1)/bytesPer*bytesPer
	f.clusters = (f.size - f.data) / f.cluster
	switch {
	case f.bits == 32:
	case f.clusters < fat16Min:
		f.bits = 12
	default:
		f.bits = 16
	}
	f.Serial = uint32(u32(serialAt))
	f.Label = strings.TrimRight(string(b[serialAt+4:serialAt+15]), " ")
	return f, f.check(size)
}

// check refuses geometries that contradict themselves.
func (f *FS) check(size int64) error {
	wide := f.bits == 32
	switch {
	case f.size > size:
		return fmt.Errorf("the FAT file system has %d bytes, its partition %d", f.size, size)
	case f.table == 0 || f.data >= f.size || f.clusters < 1:
		return fmt.Errorf("the FAT file system of %d bytes has its clusters at %d", f.size, f.data)
	case !wide && f.clusters >= minClusters:
		return fmt.Errorf("the file system has %d clusters, more than a FAT16 can have", f.clusters)
	case wide && f.rootLength != 0:
		return errors.New("the FAT32 file system has a root folder of fixed length")
	case ((f.clusters+rootCluster)*f.bits+7)/8 > f.tableLength:
		return fmt.Errorf("the FAT has %d bytes, too few for %d clusters", f.tableLength, f.clusters)
	case wide && !f.valid(f.root):
		return fmt.Errorf("the root folder starts in cluster %d of %d", f.root, f.clusters)
	}
	return nil
}

// Time is that of the volume's label, in seconds since 1970, UTC, which is that
// of all that Write wrote; 0 of a file system without one.
func (f *FS) Time() int64 {
	at := f.rootOffset
	if f.bits == 32 {
		at = f.data + (f.root-rootCluster)*f.cluster
	}
	e := make([]byte, entrySize)
	if err := readAt(f.r, e, at); err != nil || e[11] != attrLabel {
		return 0
	}
	clock, date := int(binary.LittleEndian.Uint16(e[14:])), int(binary.LittleEndian.Uint16(e[16:]))
	return time.Date(1980+date>>9, time.Month(date>>5&15), date&31, clock>>11, clock>>5&63, clock&31*2+int(e[13])/100, 0, time.UTC).Unix()
}

func (f *FS) valid(cluster int64) bool {
	return cluster >= rootCluster && cluster < f.clusters+rootCluster
}

// extent is a run of bytes: where it lies in the file system, and in the file.
type extent struct{ off, at, length int64 }

// chain follows the table from a cluster on, over as many clusters as length
// bytes take, or to the chain's end if length is negative.
func (f *FS) chain(first, length int64) ([]extent, error) {
	var runs []extent
	window := tableWindow{f: f}
	limit := f.clusters
	if length >= 0 {
		limit = (length + f.cluster - 1) / f.cluster
	}
	for c, n := first, int64(0); ; n++ {
		if length >= 0 && n == limit {
			return runs, nil
		}
		if n == f.clusters {
			return nil, fmt.Errorf("the chain from cluster %d has a loop", first)
		}
		if !f.valid(c) {
			return nil, fmt.Errorf("the chain from cluster %d leads to cluster %d of %d", first, c, f.clusters)
		}
		off := f.data + (c-rootCluster)*f.cluster
		if last := len(runs) - 1; last >= 0 && runs[last].off+runs[last].length == off {
			runs[last].length += f.cluster
		} else if runs = append(runs, extent{off, n * f.cluster, f.cluster}); len(runs) > maxExtents {
			return nil, fmt.Errorf("the chain from cluster %d has more than %d pieces", first, maxExtents)
		}
		next, end, err := window.next(c)
		if err != nil {
			return nil, err
		}
		if end {
			if length >= 0 && n+1 < limit {
				return nil, fmt.Errorf("the chain from cluster %d ends after %d bytes, the file has %d", first, (n+1)*f.cluster, length)
			}
			return runs, nil
		}
		c = next
	}
}

// tableWindow keeps the part of the table that was read last.
type tableWindow struct {
	f    *FS
	at   int64
	data []byte
}

// next is the cluster behind c, or end.
func (w *tableWindow) next(c int64) (next int64, end bool, err error) {
	next, err = w.entry(c)
	return next, next >= endFrom(w.f.bits), err
}

// entry is the table's entry of a cluster.
func (w *tableWindow) entry(c int64) (int64, error) {
	off := w.f.table + c*w.f.bits/8
	width := (w.f.bits + 7) / 8
	if w.data == nil || off < w.at || off+width > w.at+int64(len(w.data)) {
		w.at = off / 4096 * 4096
		w.data = make([]byte, min(4096+width, w.f.size-w.at)) // an entry of 12 bits may begin with the last byte
		if err := readAt(w.f.r, w.data, w.at); err != nil {
			return 0, fmt.Errorf("reading the FAT: %w", err)
		}
	}
	return decodeEntry(w.data[off-w.at:], c, w.f.bits), nil
}

// extents reads a file that lies in runs.
type extents struct {
	r    io.ReaderAt
	runs []extent
}

func (e extents) ReadAt(p []byte, off int64) (int, error) {
	n := 0
	first := sort.Search(len(e.runs), func(i int) bool { return e.runs[i].at+e.runs[i].length > off })
	for _, run := range e.runs[first:] {
		skip := off + int64(n) - run.at
		part := p[n:]
		part = part[:min(int64(len(part)), run.length-skip)]
		if err := readAt(e.r, part, run.off+skip); err != nil {
			return n, err
		}
		if n += len(part); n == len(p) {
			return n, nil
		}
	}
	return n, io.EOF
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

package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// NoRoomError says that a file system is full.
type NoRoomError struct {
	Need, Free int64 // bytes, whole clusters
}

func (e *NoRoomError) Error() string {
	return fmt.Sprintf("no room: %d bytes are needed, %d are free", e.Need, e.Free)
}

// ReadWriterAt is a file system that is changed in place.
type ReadWriterAt interface {
	io.ReaderAt
	io.WriterAt
}

// Add adds a file to a file system of at most size bytes, and the folders of
// its path that are not there. Both get the time, in seconds since 1970, UTC.
// Nothing else is changed but for what must be: entries of the tables and of
// the folders, and the count of free clusters. The clusters are the first
// that are free, so the same file system and file give the same bytes; nothing
// is set aside for File.Room. It
// fails with fs.ErrExist where there is a file or folder of that name, and
// with a [*NoRoomError]; where it fails, what it has written until then is
// left.
func Add(rw ReadWriterAt, size int64, file File, time int64) error {
	f, err := Open(rw, size)
	if err != nil {
		return err
	}
	if !f.mirrored {
		return errors.New("a FAT file system with one table in use of several is not supported")
	}
	if file.Size < 0 || file.Size > maxFile {
		return fmt.Errorf("%q has %d bytes, at most %d fit a file", file.Path, file.Size, int64(maxFile))
	}
	a := &adder{FS: f, w: rw, stamp: newStamp(time)}
	if err := a.add(file); err != nil {
		return fmt.Errorf("adding %q: %w", file.Path, err)
	}
	return nil
}

// adder adds one file.
type adder struct {
	*FS
	w     io.WriterAt
	stamp stamp
	taken int64 // clusters that were free before
	last  int64 // the last of them
}

// folder is a folder as it was read.
type folder struct {
	cluster int64 // its first; 0 for the root, as ".." has it
	runs    []extent
	data    []byte
	fixed   bool // it cannot grow: the root of FAT12 and FAT16
}

func (a *adder) add(file File) error {
	at, err := a.openRoot()
	if err != nil {
		return err
	}
	parts := strings.Split(file.Path, "/")
	for _, name := range parts {
		if err := checkName(name); err != nil {
			return err
		}
	}
	for i, name := range parts[:len(parts)-1] {
		e := a.find(at, name)
		switch {
		case e == nil:
			at, err = a.makeFolder(at, name)
		case e[11]&attrFolder == 0:
			return fmt.Errorf("%q: %w, and is no folder", strings.Join(parts[:i+1], "/"), fs.ErrExist)
		default:
			at, err = a.openFolder(a.firstCluster(e))
		}
		if err != nil {
			return err
		}
	}
	name := parts[len(parts)-1]
	if a.find(at, name) != nil {
		return fs.ErrExist
	}
	clusters, err := a.allocate((file.Size + a.cluster - 1) / a.cluster)
	if err != nil {
		return err
	}
	if err := a.content(file, clusters); err != nil {
		return err
	}
	first := int64(0)
	if len(clusters) > 0 {
		first = clusters[0]
	}
	if err := a.enter(at, name, file.attributes(), first, file.Size); err != nil {
		return err
	}
	return a.count()
}

func (a *adder) openRoot() (*folder, error) {
	if a.bits == 32 {
		d, err := a.openFolder(a.root)
		if err == nil {
			d.cluster = 0
		}
		return d, err
	}
	return a.read(&folder{runs: []extent{{off: a.rootOffset, length: a.rootLength}}, fixed: true})
}

func (a *adder) openFolder(cluster int64) (*folder, error) {
	runs, err := a.chain(cluster, -1)
	if err != nil {
		return nil, err
	}
	return a.read(&folder{cluster: cluster, runs: runs})
}

func (a *adder) read(d *folder) (*folder, error) {
	length := int64(0)
	for _, run := range d.runs {
		length += run.length
	}
	if length > maxFolder {
		return nil, fmt.Errorf("a folder on the way has %d bytes, at most %d are possible", length, maxFolder)
	}
	d.data = make([]byte, length)
	if _, err := (extents{a.r, d.runs}).ReadAt(d.data, 0); err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading a folder: %w", err)
	}
	return d, nil
}

// find is the entry of that name, or of that short name; nil where there is
// none.
func (a *adder) find(d *folder, name string) []byte {
	var found []byte
	_ = eachEntry(d.data, func(n string, e []byte) error {
		var none longName
		if isNamed(e) && found == nil && (fold(n) == fold(name) || fold(none.take(e)) == fold(name)) {
			found = e
		}
		return nil
	})
	return found
}

// makeFolder makes an empty folder in another.
func (a *adder) makeFolder(in *folder, name string) (*folder, error) {
	clusters, err := a.allocate(1)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, a.cluster)
	b = a.stamp.entry(b, [11]byte([]byte(".          ")), attrFolder, 0, clusters[0], 0)
	b = a.stamp.entry(b, [11]byte([]byte("..         ")), attrFolder, 0, in.cluster, 0)
	if err := a.writeAt(b[:cap(b)], a.offset(clusters[0])); err != nil {
		return nil, err
	}
	if err := a.enter(in, name, attrFolder, clusters[0], 0); err != nil {
		return nil, err
	}
	return a.openFolder(clusters[0])
}

// enter makes the entries of a file or folder.
func (a *adder) enter(d *folder, name string, attr byte, cluster, size int64) error {
	taken := map[[11]byte]bool{}
	_ = eachEntry(d.data, func(_ string, e []byte) error {
		taken[[11]byte(e[:11])] = true
		return nil
	})
	var b []byte
	short, flags, ok := shortName(name)
	if !ok || taken[short] {
		var err error
		if short, err = makeShort(name, taken); err != nil {
			return err
		}
		b, flags = appendLong(nil, name, short), 0
	}
	b = a.stamp.entry(b, short, attr, flags, cluster, size)
	at, err := a.slots(d, len(b))
	if err != nil {
		return err
	}
	copy(d.data[at:], b)
	return a.writeFolder(d, at, len(b))
}

// slots finds a run of free entries of so many bytes, and makes the folder
// longer where there is none. What is behind the run stays free.
func (a *adder) slots(d *folder, length int) (int, error) {
	run, end := 0, false
	at := 0
	for ; at < len(d.data) && run < length; at += entrySize {
		switch {
		case end:
		case d.data[at] == 0:
			end = true
		case d.data[at] != deleted:
			run = -entrySize
		}
		run += entrySize
	}
	if run < length {
		if err := a.extend(d, length-run); err != nil {
			return 0, err
		}
		return at - run, nil
	}
	if end && at < len(d.data) {
		// What follows the end is no entry, whatever it has.
		clear(d.data[at : at+entrySize])
		if err := a.writeFolder(d, at, entrySize); err != nil {
			return 0, err
		}
	}
	return at - length, nil
}

// extend makes a folder longer by so many bytes at least, of zeros.
func (a *adder) extend(d *folder, length int) error {
	n := (int64(length) + a.cluster - 1) / a.cluster
	switch {
	case d.fixed:
		return fmt.Errorf("the root folder of %d entries is full", len(d.data)/entrySize)
	case int64(len(d.data))+n*a.cluster > maxFolder:
		return fmt.Errorf("the folder has %d bytes, at most %d are possible", len(d.data), maxFolder)
	}
	clusters, err := a.allocate(n)
	if err != nil {
		return err
	}
	last := d.runs[len(d.runs)-1]
	if err := a.setEntry((last.off+last.length-a.data)/a.cluster+rootCluster-1, clusters[0]); err != nil {
		return err
	}
	for _, c := range clusters {
		if err := a.writeAt(make([]byte, a.cluster), a.offset(c)); err != nil {
			return err
		}
		d.runs = append(d.runs, extent{a.offset(c), int64(len(d.data)), a.cluster})
		d.data = append(d.data, make([]byte, a.cluster)...)
	}
	return nil
}

// writeFolder writes a part of a folder that has changed.
func (a *adder) writeFolder(d *folder, at, length int) error {
	for _, run := range d.runs {
		from, to := max(int64(at), run.at), min(int64(at+length), run.at+run.length)
		if from >= to {
			continue
		}
		if err := a.writeAt(d.data[from:to], run.off+from-run.at); err != nil {
			return err
		}
	}
	return nil
}

// allocate takes the first n free clusters and makes them a chain.
func (a *adder) allocate(n int64) ([]int64, error) {
	var clusters []int64
	window := tableWindow{f: a.FS}
	for c := int64(rootCluster); int64(len(clusters)) < n; c++ {
		if !a.valid(c) {
			return nil, &NoRoomError{Need: n * a.cluster, Free: int64(len(clusters)) * a.cluster}
		}
		v, err := window.entry(c)
		if err != nil {
			return nil, err
		}
		if v == 0 {
			clusters = append(clusters, c)
		}
	}
	for i, c := range clusters {
		next := int64(endOfChain)
		if i+1 < len(clusters) {
			next = clusters[i+1]
		}
		if err := a.setEntry(c, next&(1<<min(a.bits, 28)-1)); err != nil {
			return nil, err
		}
		a.last = c
	}
	a.taken += n
	return clusters, nil
}

// setEntry sets a cluster's entry in all tables.
func (a *adder) setEntry(c, value int64) error {
	b := make([]byte, max(2, a.bits/8))
	for i := range a.tables {
		at := a.table + i*a.tableLength + c*a.bits/8
		if err := readAt(a.r, b, at); err != nil {
			return fmt.Errorf("reading the FAT: %w", err)
		}
		encodeEntry(b, c, a.bits, value)
		if err := a.writeAt(b, at); err != nil {
			return err
		}
	}
	return nil
}

// content writes the file, and zeros up to the end of its last cluster.
func (a *adder) content(file File, clusters []int64) error {
	r, err := file.Open()
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	b := make([]byte, a.cluster)
	left := file.Size
	for _, c := range clusters {
		n := min(left, a.cluster)
		clear(b[n:])
		if _, err := io.ReadFull(r, b[:n]); err != nil {
			return fmt.Errorf("reading its content: %w", err)
		}
		if err := a.writeAt(b, a.offset(c)); err != nil {
			return err
		}
		left -= n
	}
	return expectEnd(r, file.Size)
}

// offset is the first byte of a cluster.
func (a *adder) offset(c int64) int64 { return a.data + (c-rootCluster)*a.cluster }

// count corrects the count of free clusters, where there is one ("FAT32
// FSInfo Sector Structure").
func (a *adder) count() error {
	if a.info == 0 || a.taken == 0 {
		return nil
	}
	b := make([]byte, sector)
	if err := readAt(a.r, b, a.info); err != nil {
		return fmt.Errorf("reading the information sector: %w", err)
	}
	le := binary.LittleEndian
	if string(b[:4]) != "RRaA" || string(b[484:488]) != "rrAa" {
		return nil
	}
	const unknown = 0xffffffff
	if free := int64(le.Uint32(b[488:])); free != unknown && free >= a.taken {
		le.PutUint32(b[488:], uint32(free-a.taken))
	}
	next := uint32(unknown)
	if a.valid(a.last + 1) {
		next = uint32(a.last + 1)
	}
	le.PutUint32(b[492:], next)
	return a.writeAt(b, a.info)
}

func (a *adder) writeAt(b []byte, off int64) error {
	if _, err := a.w.WriteAt(b, off); err != nil {
		return fmt.Errorf("writing %d bytes at %d: %w", len(b), off, err)
	}
	return nil
}

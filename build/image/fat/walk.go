package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"unicode/utf16"
)

// walker is one walk through a file system; it bounds what a hostile one can
// make it do.
type walker struct {
	f       *FS
	seen    map[int64]bool // first clusters of folders
	entries int
	used    int64 // clusters of files
	visit   func(found) error
}

// found is a file that a walk met.
type found struct {
	path     string
	cluster  int64
	size     int64
	readOnly bool
}

var errFound = errors.New("found")

// Walk calls visit for each file, in the order of the folders' entries. A
// file's Open fails where its chain of clusters is broken; what it returns
// reads the file system that was opened.
func (f *FS) Walk(visit func(File) error) error {
	return f.walk(func(e found) error {
		return visit(File{Path: e.path, Size: e.size, ReadOnly: e.readOnly, Open: func() (io.ReadCloser, error) {
			r, err := f.open(e)
			if err != nil {
				return nil, err
			}
			return io.NopCloser(r), nil
		}})
	})
}

// Lookup is the content of the file at a path with slashes; case is ignored,
// as the format does. It returns fs.ErrNotExist if there is no such file.
func (f *FS) Lookup(path string) (*io.SectionReader, error) {
	var r *io.SectionReader
	err := f.walk(func(e found) error {
		if fold(e.path) != fold(path) {
			return nil
		}
		var err error
		if r, err = f.open(e); err != nil {
			return err
		}
		return errFound
	})
	switch {
	case errors.Is(err, errFound):
		return r, nil
	case err != nil:
		return nil, err
	}
	return nil, fmt.Errorf("%q: %w", path, fs.ErrNotExist)
}

func (f *FS) open(e found) (*io.SectionReader, error) {
	var runs []extent
	if e.size > 0 {
		var err error
		if runs, err = f.chain(e.cluster, e.size); err != nil {
			return nil, fmt.Errorf("%q: %w", e.path, err)
		}
	}
	return io.NewSectionReader(extents{f.r, runs}, 0, e.size), nil
}

func (f *FS) walk(visit func(found) error) error {
	w := &walker{f: f, seen: map[int64]bool{}, visit: visit}
	if f.bits == 32 {
		return w.folder("", f.root, 0)
	}
	return w.read("", []extent{{off: f.rootOffset, length: f.rootLength}}, 0)
}

func (w *walker) folder(path string, cluster int64, depth int) error {
	if w.seen[cluster] || depth > maxDepth {
		return fmt.Errorf("folder %q in cluster %d contains itself, or lies too deep", path, cluster)
	}
	w.seen[cluster] = true
	runs, err := w.f.chain(cluster, -1)
	if err != nil {
		return fmt.Errorf("folder %q: %w", path, err)
	}
	return w.read(path, runs, depth)
}

// read walks the entries of a folder that lies in runs.
func (w *walker) read(path string, runs []extent, depth int) error {
	length := int64(0)
	for _, run := range runs {
		length += run.length
	}
	if length > maxFolder {
		return fmt.Errorf("folder %q has %d bytes, at most %d are possible", path, length, maxFolder)
	}
	b := make([]byte, length)
	if _, err := (extents{w.f.r, runs}).ReadAt(b, 0); err != nil && err != io.EOF {
		return fmt.Errorf("reading folder %q: %w", path, err)
	}
	return eachEntry(b, func(name string, e []byte) error { return w.entry(path, name, e, depth) })
}

// eachEntry calls visit for each short entry of a folder, with its name.
func eachEntry(b []byte, visit func(name string, e []byte) error) error {
	var long longName
	for ; len(b) >= entrySize && b[0] != 0; b = b[entrySize:] {
		e := b[:entrySize]
		switch {
		case e[0] == deleted:
			long = longName{}
		case e[11]&0x3f == attrLong:
			long.add(e)
		default:
			name := long.take(e)
			long = longName{}
			if err := visit(name, e); err != nil {
				return err
			}
		}
	}
	return nil
}

// isNamed tells whether an entry is a file's or a folder's, and not the
// label, nor one that every folder has.
func isNamed(e []byte) bool {
	return e[11]&attrLabel == 0 && string(e[:2]) != ". " && string(e[:3]) != ".. "
}

// firstCluster is where an entry's file or folder begins.
func (f *FS) firstCluster(e []byte) int64 {
	cluster := int64(binary.LittleEndian.Uint16(e[26:]))
	if f.bits == 32 {
		cluster |= int64(binary.LittleEndian.Uint16(e[20:])) << 16
	}
	return cluster
}

// entry handles a short entry with the name that it has.
func (w *walker) entry(path, name string, e []byte, depth int) error {
	if !isNamed(e) {
		return nil
	}
	if w.entries++; w.entries > maxEntries {
		return fmt.Errorf("the file system has more than %d files and folders", maxEntries)
	}
	if name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("folder %q has an entry with the name %q", path, name)
	}
	if path != "" {
		name = path + "/" + name
	}
	cluster := w.f.firstCluster(e)
	if e[11]&attrFolder != 0 {
		return w.folder(name, cluster, depth+1)
	}
	size := int64(binary.LittleEndian.Uint32(e[28:]))
	if w.used += (size + w.f.cluster - 1) / w.f.cluster; w.used > w.f.clusters {
		return fmt.Errorf("files up to %q have more clusters than the file system's %d", name, w.f.clusters)
	}
	return w.visit(found{path: name, cluster: cluster, size: size, readOnly: e[11]&attrReadOnly != 0})
}

// longName collects the entries of a long name, which come last part first.
type longName struct {
	units []uint16
	next  int // the number that the next entry must have
	sum   byte
}

func (l *longName) add(e []byte) {
	n := int(e[0] & 0x3f)
	if e[0]&0x40 != 0 {
		*l = longName{units: make([]uint16, n*longUnits), next: n, sum: e[13]}
	}
	if n == 0 || n != l.next || e[13] != l.sum {
		*l = longName{}
		return
	}
	l.next--
	for i, at := range longPlaces {
		l.units[l.next*longUnits+i] = binary.LittleEndian.Uint16(e[at:])
	}
}

// take is the name of the short entry e: the long one if it is whole and
// belongs to it.
func (l *longName) take(e []byte) string {
	short := [11]byte(e[:11])
	if l.units != nil && l.next == 0 && l.sum == checksum(short) {
		units := l.units
		for i, u := range units {
			if u == 0 {
				units = units[:i]
				break
			}
		}
		return string(utf16.Decode(units))
	}
	if short[0] == 0x05 {
		short[0] = 0xe5 // "DIR_Name[0]"
	}
	base := strings.TrimRight(string(short[:8]), " ")
	ext := strings.TrimRight(string(short[8:]), " ")
	if e[12]&lowerBase != 0 {
		base = strings.ToLower(base)
	}
	if e[12]&lowerExt != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}

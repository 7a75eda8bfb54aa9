package fat

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// tiny is a file system of 200 sectors, too small for Write, with a folder, a
// file of three clusters and a long name.
func tiny(t testing.TB) []byte {
	t.Helper()
	root, err := newTree([]File{file("EFI/x", strings.Repeat("x", 1100)), file("a long name", "y")})
	if err != nil {
		t.Fatal(err)
	}
	g := geometry{total: 200, perCluster: 1, fat: 2, clusters: 200 - reserved - 4}
	m := make(memory, g.total*sector)
	if err := g.write(m, root, Options{}, [11]byte{}); err != nil {
		t.Fatal(err)
	}
	return m
}

type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// readAll walks a file system and reads all files.
func readAll(r io.ReaderAt, size int64) error {
	fsys, err := Open(r, size)
	if err != nil {
		return err
	}
	return fsys.Walk(func(f File) error {
		r, err := f.Open()
		if err != nil {
			return err
		}
		n, err := io.Copy(io.Discard, r)
		if err == nil && n != f.Size {
			return errors.New("another length than the entry says")
		}
		return err
	})
}

func TestHostile(t *testing.T) {
	const (
		table = reserved * sector
		root  = table + 4*sector
		efi   = root + sector // cluster 3
	)
	link := func(b []byte, from, to uint32) { binary.LittleEndian.PutUint32(b[table+4*from:], to) }
	for _, c := range []struct {
		want   string
		change func([]byte)
	}{
		{"no signature", func(b []byte) { b[511] = 0 }},
		{"no FAT file system", func(b []byte) { b[13] = 3 }},
		{"no FAT file system", func(b []byte) { b[12] = 0 }},
		{"its partition", func(b []byte) { binary.LittleEndian.PutUint32(b[32:], 1<<31) }},
		{"too few for", func(b []byte) { binary.LittleEndian.PutUint32(b[36:], 1) }},
		{"has its clusters at", func(b []byte) { binary.LittleEndian.PutUint32(b[36:], 1<<31) }},
		{"root folder starts", func(b []byte) { b[44] = 0 }},
		{"fixed length", func(b []byte) { b[17] = 16 }},
		{"has a loop", func(b []byte) { link(b, 2, 2) }},
		{"leads to cluster", func(b []byte) { link(b, 2, 1<<20) }},
		{"ends after 1024 bytes, the file has 1100", func(b []byte) { link(b, 6, endOfChain) }},
		{"leads to cluster 0", func(b []byte) { link(b, 5, 0) }},
		{"contains itself", func(b []byte) { b[root+26] = 2 }},
		{"more clusters than", func(b []byte) { binary.LittleEndian.PutUint32(b[efi+2*entrySize+28:], 1<<31) }},
		{"with the name", func(b []byte) { b[efi+2*entrySize] = '/' }},
	} {
		b := tiny(t)
		if err := readAll(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatal(err)
		}
		c.change(b)
		if err := readAll(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// TestReadersThatFail fails the first, the second, … call of ReadAt.
func TestReadersThatFail(t *testing.T) {
	b := tiny(t)
	for fail := range 100 {
		calls := 0
		r := readerAtFunc(func(p []byte, off int64) (int, error) {
			if calls++; calls > fail {
				return 0, iotest.ErrTimeout
			}
			return bytes.NewReader(b).ReadAt(p, off)
		})
		err := readAll(r, int64(len(b)))
		if err == nil {
			return
		}
		if !errors.Is(err, iotest.ErrTimeout) {
			t.Fatalf("call %d failed: got %v", fail, err)
		}
	}
	t.Error("reading never ends")
}

// FuzzOpen gives the bytes as the start of a file system; what follows them
// is zero.
func FuzzOpen(f *testing.F) {
	f.Add(tiny(f))
	b := tiny(f)
	binary.LittleEndian.PutUint32(b[reserved*sector+8:], 3)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		const size = 4 << 20
		zeros := readerAtFunc(func(p []byte, off int64) (int, error) {
			n := 0
			if off < int64(len(b)) {
				n = copy(p, b[off:])
			}
			clear(p[n:])
			return len(p), nil
		})
		_ = readAll(zeros, size)
	})
}

package iso

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// The images of testdata were made of one folder, by
//
//	xorriso -as mkisofs -R -J -joliet-long     xorriso.iso
//	genisoimage -R                             rockridge.iso
//	genisoimage -J                             joliet.iso
//	genisoimage                                plain.iso
//
// large.sparse is the size and those sectors that are not zero of one with a
// file of 4.2 GiB, by xorriso -as mkisofs -R -iso-level 3.

func unzip(t testing.TB, name string) []byte {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t testing.TB, b []byte) *Image {
	t.Helper()
	i, err := New(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func content(t testing.TB, i *Image, name string) (string, error) {
	t.Helper()
	f, err := i.Open(name)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, f.Size()))
	if err == nil && int64(len(b)) != f.Size() {
		t.Errorf("%s: %d bytes, want %d", name, len(b), f.Size())
	}
	return string(b), err
}

func numbers() string {
	var b strings.Builder
	for n := range 2000 {
		fmt.Fprintln(&b, n+1)
	}
	return b.String()
}

func TestImages(t *testing.T) {
	const rpm = "BaseOS/Packages/h/hello-world-with-a-rather-long-name-1.0-3.el9.x86_64.rpm"
	long := "long/37-" + strings.Repeat("x", 200)
	for _, c := range []struct {
		image string
		names naming
		has   map[string]string
		not   []string
	}{
		{"xorriso.iso", rockRidge, map[string]string{"BaseOS/repodata/repomd.xml": "metadata\n", "/" + rpm: numbers(), long: "37", "a/b/c/d/e/f/g/h/i/deep.txt": "deep", "empty": ""},
			[]string{"baseos/repodata/repomd.xml", "none", "empty/x", "BaseOS/../empty", "."}},
		{"rockridge.iso", rockRidge, map[string]string{"BaseOS//repodata/repomd.xml": "metadata\n", rpm: numbers(), long: "37", "a/b/c/d/e/f/g/h/i/deep.txt": "deep", "empty": ""},
			[]string{"none", "rr_moved/none"}},
		{"joliet.iso", joliet, map[string]string{"BaseOS/repodata/repomd.xml": "metadata\n", rpm: numbers(), "empty": ""},
			[]string{"baseos/repodata/repomd.xml", "none"}},
		{"plain.iso", plain, map[string]string{"BaseOS/repodata/repomd.xml": "metadata\n", "BASEOS/REPODATA/REPOMD.XML": "metadata\n", "empty": ""}, []string{rpm, "none"}},
	} {
		t.Run(c.image, func(t *testing.T) {
			i := open(t, unzip(t, c.image))
			if i.names != c.names {
				t.Errorf("names of kind %d, want %d", i.names, c.names)
			}
			for name, want := range c.has {
				if got, err := content(t, i, name); err != nil || got != want {
					t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
				}
			}
			for _, name := range c.not {
				if _, err := i.Open(name); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			if _, err := i.Open("BaseOS"); err == nil || !strings.Contains(err.Error(), "a directory") {
				t.Errorf("a directory: got %v", err)
			}
			if _, err := i.Open(strings.Repeat("a/", 65)); err == nil || !strings.Contains(err.Error(), "at most 64") {
				t.Errorf("too deep: got %v", err)
			}
		})
	}
	if _, err := open(t, unzip(t, "xorriso.iso")).Open("link"); err == nil || !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("a link: got %v", err)
	}
}

// sparse is an image of which only some sectors are kept.
type sparse struct {
	size    int64
	sectors map[int64][]byte
}

func (s sparse) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < s.size {
		at := off / sectorSize * sectorSize
		sector := s.sectors[at]
		if sector == nil {
			sector = make([]byte, sectorSize)
		}
		k := copy(p[n:], sector[off-at:])
		n, off = n+k, off+int64(k)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func TestSeveralExtents(t *testing.T) {
	b := unzip(t, "large.sparse")
	s := sparse{int64(binary.LittleEndian.Uint64(b)), make(map[int64][]byte)}
	for b = b[8:]; len(b) > 0; b = b[8+sectorSize:] {
		s.sectors[int64(binary.LittleEndian.Uint64(b))] = b[8 : 8+sectorSize]
	}
	i, err := New(s, s.size)
	if err != nil {
		t.Fatal(err)
	}
	f, err := i.Open("large.bin")
	if err != nil {
		t.Fatal(err)
	}
	const size = 4300<<20 + 7
	if f.Size() != size || len(f.extents) != 2 {
		t.Fatalf("%d bytes in %d extents, want %d in 2", f.Size(), len(f.extents), size)
	}
	for off, want := range map[int64]string{0: "begin\x00", size - 7: "the end", 1<<32 - 2048 - 3: "across", 1 << 32: "\x00\x00"} {
		got := make([]byte, len(want))
		if n, err := f.ReadAt(got, off); err != nil || string(got) != want {
			t.Errorf("at %d: got %q, %d, %v, want %q", off, got, n, err, want)
		}
	}
	if n, err := f.ReadAt(make([]byte, 10), size-4); n != 4 || err != io.EOF {
		t.Errorf("at the end: got %d, %v", n, err)
	}
	if got, err := content(t, i, "zz"); err != nil || got != "after" {
		t.Errorf("got %q, %v", got, err)
	}
}

// What the tools make here and now of another folder.
func TestTools(t *testing.T) {
	dir := t.TempDir()
	r := rand.New(rand.NewPCG(1, 2))
	want := make(map[string]string)
	for n := range 300 {
		name := fmt.Sprintf("d%d/sub %d/Package_%d-%d.%d+~^é.rpm", n%3, n%7, n, r.IntN(100), r.IntN(1<<30))
		want[name] = strings.Repeat(name, r.IntN(200))
		path := filepath.Join(dir, "src", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(want[name]), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for n, args := range [][]string{
		{"xorriso", "-as", "mkisofs", "-R"}, {"xorriso", "-as", "mkisofs", "-J", "-joliet-long"},
		{"genisoimage", "-R"}, {"genisoimage", "-J", "-input-charset", "utf-8"}, {"genisoimage", "-R", "-J", "-U", "-T", "-input-charset", "utf-8"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			if _, err := exec.LookPath(args[0]); err != nil {
				if os.Getenv("CAISSON_TOOLS") == "required" {
					t.Fatal(err)
				}
				t.Skip(err)
			}
			out := filepath.Join(dir, fmt.Sprint(n))
			c := exec.Command(args[0], append(args[1:], "-quiet", "-o", out, filepath.Join(dir, "src"))...)
			if said, err := c.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, said)
			}
			b, err := os.ReadFile(out)
			if err != nil {
				t.Fatal(err)
			}
			i := open(t, b)
			for name, want := range want {
				if got, err := content(t, i, name); err != nil || got != want {
					t.Errorf("%s: got %d bytes, %v, want %d", name, len(got), err, len(want))
				}
			}
		})
	}
}

func TestDamaged(t *testing.T) {
	whole := unzip(t, "rockridge.iso")
	for _, n := range []int{0, 100, 32 << 10, 33 << 10, 36 << 10, 40 << 10, 50 << 10} {
		b := whole[:n]
		i, err := New(bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_, err = i.Open("BaseOS/repodata/repomd.xml")
		}
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("cut at %d: got %v", n, err)
		}
	}
	if _, err := New(strings.NewReader(strings.Repeat("no ISO ", 10_000)), 70_000); err == nil || !strings.Contains(err.Error(), "CD001") {
		t.Errorf("got %v", err)
	}
	i, err := New(readerAt{iotest.ErrReader(errors.New("broken"))}, 1<<20)
	if i != nil || err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("got %v", err)
	}
	// A reader that gives less than the image promised.
	i, err = New(bytes.NewReader(whole[:60<<10]), int64(len(whole)))
	if err == nil {
		_, err = content(t, i, "BaseOS/repodata/repomd.xml")
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

type readerAt struct{ io.Reader }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return r.Read(p) }

// Whatever the image says, opening ends, and no file has bytes that the image
// does not have.
func FuzzOpen(f *testing.F) {
	for _, name := range []string{"xorriso.iso", "rockridge.iso", "joliet.iso", "plain.iso"} {
		b := unzip(f, name)
		f.Add(b[32<<10:min(len(b), 160<<10)], "BaseOS/repodata/repomd.xml")
		f.Add(b[32<<10:min(len(b), 160<<10)], "a/b/c/d/e/f/g/h/i/deep.txt")
	}
	f.Fuzz(func(t *testing.T, b []byte, name string) {
		b = append(make([]byte, 32<<10), b...)
		i, err := New(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		file, err := i.Open(name)
		if err != nil {
			return
		}
		for _, e := range file.extents {
			if e.start < 0 || e.size < 0 || e.size > 0 && e.start+e.size > int64(len(b)) {
				t.Errorf("%q has an extent %+v of %d bytes", name, e, len(b))
			}
		}
		buf := make([]byte, 4<<10)
		if _, err := file.ReadAt(buf, max(0, file.Size()-100)); err != nil && err != io.EOF {
			t.Errorf("%q: %v", name, err)
		}
	})
}

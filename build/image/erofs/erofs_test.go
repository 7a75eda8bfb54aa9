package erofs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"caisson/lock/tooltest"
)

const buildTime = 1700000000

func testOptions() Options {
	o := Options{BuildTime: buildTime, Label: "caisson-root"}
	for i := range o.UUID {
		o.UUID[i] = byte(i * 7)
	}
	return o
}

// open returns an Open of bytes that are made from a seed.
func open(seed string, size int64) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content(seed, size))), nil }
}

func content(seed string, size int64) []byte {
	b := make([]byte, 0, size+32)
	for i := 0; int64(len(b)) < size; i++ {
		d := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, d[:]...)
	}
	return b[:size]
}

func dir(path string) Entry { return Entry{Path: path, Mode: 0o40755, Mtime: buildTime} }

func regular(path string, size int64) Entry {
	return Entry{Path: path, Mode: 0o100644, Mtime: buildTime, Size: size, Open: open(path, size)}
}

// testEntries has every type of file, sizes around those where the layout of
// data or of inodes changes, and directories of one and of several blocks.
func testEntries() []Entry {
	label := []byte("system_u:object_r:bin_t:s0\x00")
	capability := []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	entries := []Entry{
		dir(""), dir("dev"), dir("a"), dir("a/deep"), dir("a/deep/er"), dir("empty"), dir("a.b"), dir("sizes"), dir("many"), dir("labels"),
		{Path: "dev/console", Mode: 0o20600, Mtime: buildTime, Rdev: 5<<8 | 1},
		{Path: "dev/big", Mode: 0o60660, GID: 6, Mtime: buildTime, Rdev: 0xabc<<8 | 0xcd | 0x123<<20},
		{Path: "fifo", Mode: 0o10644, Mtime: buildTime},
		{Path: "socket", Mode: 0o140755, Mtime: buildTime},
		{Path: "link", Mode: 0o120777, Mtime: buildTime, Target: "a/deep/er"},
		{Path: "long link", Mode: 0o120777, Mtime: buildTime, Target: strings.Repeat("t", 4095)},
		{Path: "late", Mode: 0o120777, Mtime: buildTime + 1, Target: "later"},
		{Path: "a/su", Mode: 0o104755, Mtime: buildTime, Size: 10, Open: open("su", 10)},
		{Path: "a/sudo", HardLink: "a/su"},
		{Path: "! first", HardLink: "a/su"},
		{Path: "tmp", Mode: 0o41777, Mtime: buildTime - 5},
		{Path: "wall", Mode: 0o102755, GID: 5, Mtime: buildTime, Size: 5000, Open: open("wall", 5000)},
		{Path: "owned", Mode: 0o100600, UID: 65536, GID: 1 << 31, Mtime: buildTime, Size: 3, Open: open("owned", 3)},
		{Path: "old", Mode: 0o100600, Mtime: -1, Size: 4096 - 64, Open: open("old", 4096-64)},
		{Path: "ping", Mode: 0o100755, Mtime: buildTime, Size: 5, Open: open("ping", 5), Xattrs: map[string][]byte{"security.capability": capability, "user.a": nil, "user." + strings.Repeat("n", 249): []byte("long"), "trusted.x": []byte("y")}},
		{Path: "huge xattr", Mode: 0o100755, Mtime: buildTime, Size: 5, Open: open("huge", 5), Xattrs: map[string][]byte{"user.huge": content("xattr", 4000), "user.huger": content("xattr2", 3000)}},
		regular("größe", 1), regular("a/-", 2), regular("a/deep/er/x", 70000), regular("more than a buffer", 3*bufferSize/2),
	}
	for _, size := range []int64{0, 1, 31, 32, 33, 4032, 4063, 4064, 4065, 4095, 4096, 4097, 8192, 8193, 12288} {
		entries = append(entries, regular(fmt.Sprintf("sizes/%d", size), size))
	}
	for i := range 600 {
		entries = append(entries, regular(fmt.Sprintf("many/%s%d", strings.Repeat("n", i%90), i), int64(i*i%3000)))
	}
	for i := range 20 {
		e := regular(fmt.Sprintf("labels/%d", i), int64(i)*1000)
		e.Xattrs = map[string][]byte{"security.selinux": label, "user.n": fmt.Append(nil, i)}
		entries = append(entries, e)
	}
	return entries
}

// buffer is an image in memory.
type buffer struct{ b []byte }

func newBuffer() *buffer { return &buffer{bytes.Repeat([]byte{0xa5}, 16<<20)} }

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(b.b)) {
		return 0, fmt.Errorf("write of %d bytes at %d", len(p), off)
	}
	return copy(b.b[off:], p), nil
}

func write(t testing.TB, entries []Entry, o Options) []byte {
	t.Helper()
	b := newBuffer()
	size, err := Write(b, entries, o)
	if err != nil {
		t.Fatal(err)
	}
	if size%BlockSize != 0 {
		t.Errorf("size is %d", size)
	}
	if end := b.b[size:]; !bytes.Equal(end, bytes.Repeat([]byte{0xa5}, len(end))) {
		t.Errorf("bytes behind the image of %d were written", size)
	}
	return b.b[:size]
}

func TestGolden(t *testing.T) {
	const want = "443135a30bcaaf1da93223c0c4c64569339af7ae881a5230e27ca7f97694c3f5"
	if got := fmt.Sprintf("%x", sha256.Sum256(write(t, testEntries(), testOptions()))); got != want {
		t.Errorf("image is sha256:%s, want %s", got, want)
	}
}

func TestSameBytes(t *testing.T) {
	want := write(t, testEntries(), testOptions())
	entries := testEntries()
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(0))
	defer syscall.Umask(syscall.Umask(0o77))
	for i, n := range []int{1, 3, 8} {
		runtime.GOMAXPROCS(n)
		t.Setenv("TMPDIR", t.TempDir())
		slices.Reverse(entries)
		third := len(entries) / (i + 2)
		entries = slices.Concat(entries[third:], entries[:third])
		if !bytes.Equal(write(t, entries, testOptions()), want) {
			t.Errorf("GOMAXPROCS=%d and another order change the bytes", n)
		}
	}
}

// TestAnyName has a file with several names come with its content under
// another one of them.
func TestAnyName(t *testing.T) {
	want := write(t, testEntries(), testOptions())
	entries := testEntries()
	for i := range entries {
		switch e := &entries[i]; e.Path {
		case "a/su":
			*e = Entry{Path: e.Path, HardLink: "a/sudo"}
		case "a/sudo":
			*e = Entry{Path: e.Path, Mode: 0o104755, Mtime: buildTime, Size: 10, Open: open("su", 10)}
		case "! first":
			e.HardLink = "a/sudo"
		}
	}
	if !bytes.Equal(write(t, entries, testOptions()), want) {
		t.Error("the name that comes with the content changes the bytes")
	}
}

// walk reads all of an image, and the content of its files into a map.
func walk(b []byte) (entries []Entry, data map[string]string, o Options, err error) {
	f, err := Open(bytes.NewReader(b))
	if err != nil {
		return nil, nil, o, err
	}
	entries, data, err = walkFS(f)
	return entries, data, f.Options(), err
}

func walkReader(r io.ReaderAt) (entries []Entry, data map[string]string, err error) {
	f, err := Open(r)
	if err != nil {
		return nil, nil, err
	}
	return walkFS(f)
}

func walkFS(f *FS) (entries []Entry, data map[string]string, err error) {
	data = make(map[string]string)
	err = f.Walk(func(e Entry) error {
		entries = append(entries, e)
		if e.Open == nil {
			return nil
		}
		r, err := e.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		b, err := io.ReadAll(r)
		data[e.Path] = string(b)
		return err
	})
	return entries, data, err
}

func TestReadBack(t *testing.T) {
	b := write(t, testEntries(), testOptions())
	entries, data, o, err := walk(b)
	if err != nil {
		t.Fatal(err)
	}
	if o != testOptions() {
		t.Errorf("options are %+v, want %+v", o, testOptions())
	}
	got := make(map[string]Entry)
	for _, e := range entries {
		got[e.Path] = e
	}
	if len(got) != len(testEntries()) {
		t.Errorf("%d entries, want %d", len(got), len(testEntries()))
	}
	for _, want := range testEntries() {
		path := want.Path
		if path == "a/su" || want.HardLink == "a/su" { // the names come in another order
			want = Entry{Path: path, Mode: 0o104755, Mtime: buildTime, Size: 10, Open: open("su", 10)}
			if path != "! first" {
				want.HardLink = "! first"
			}
		}
		g := got[path]
		if want.Open != nil {
			if w := readAll(t, want); data[path] != w {
				t.Errorf("%q: content of %d bytes, want %d others", path, len(data[path]), len(w))
			}
		}
		if !maps.EqualFunc(g.Xattrs, want.Xattrs, bytes.Equal) {
			t.Errorf("%q: extended attributes are %q, want %q", path, g.Xattrs, want.Xattrs)
		}
		g.Open, want.Open, g.Xattrs, want.Xattrs, g.Extents = nil, nil, nil, nil, nil
		if fmt.Sprintf("%+v", g) != fmt.Sprintf("%+v", want) {
			t.Errorf("got %+v, want %+v", g, want)
		}
	}
	if again := write(t, entries, o); !bytes.Equal(again, b) {
		t.Errorf("image of %d bytes, read and written, is another of %d", len(b), len(again))
	}
}

func readAll(t *testing.T, e Entry) string {
	t.Helper()
	r, err := e.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// saveImage writes an image to a file.
func saveImage(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.erofs")
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

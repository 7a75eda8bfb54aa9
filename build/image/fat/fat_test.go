package fat

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

func file(path, data string) File {
	return File{Path: path, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(data)), nil
	}}
}

var testOptions = Options{Serial: 0x1234abcd, Label: "ESP", Time: 1700000001}

// testFiles have every kind of name, an empty file, one of exactly a cluster,
// a large one, and a folder of several clusters.
func testFiles() map[string]string {
	m := map[string]string{
		"EFI/BOOT/BOOTX64.EFI":             strings.Repeat("0123456789abcdef", 100_001),
		"loader/loader.conf":               "timeout 0\n",
		"EFI/Linux/a very long name.efi":   "x",
		"EFI/Linux/A Very Longer Name.efi": "y",
		"EFI/Linux/AVERYL~1.EFI":           "taken",
		"Mixed.Txt":                        "m",
		"lower.TXT":                        "l",
		"UPPER.txt":                        "u",
		"noext":                            "n",
		"empty":                            "",
		"two.dots.txt":                     strings.Repeat("s", 512),
		"übergröße – 名前 😀.conf":            "unicode",
		"exactly13char":                    "13",
		".hidden":                          "h",
		strings.Repeat("n", 251) + ".bin":  "longest",
		"plus+and,more;[chars]=.dat":       "p",
		"deep/a/b/c/d/e/f/g/file":          "d",
	}
	for i := range 60 {
		m[fmt.Sprintf("many/file number %03d.data", i)] = fmt.Sprint(i)
	}
	return m
}

func files(m map[string]string) []File {
	var all []File
	for path, data := range m { // in any order
		all = append(all, file(path, data))
	}
	return all
}

func create(t *testing.T, size int64, list []File, o Options) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "fat"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, size, list, o); err != nil {
		t.Fatal(err)
	}
	return f
}

func sum(t *testing.T, r io.ReaderAt, size int64) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(r, 0, size)); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

func TestWriteIsAlwaysTheSame(t *testing.T) {
	a := sum(t, create(t, minSize, files(testFiles()), testOptions), minSize)
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("TMPDIR", t.TempDir())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	list := files(testFiles())
	for i, f := range list {
		list[i].Open = func() (io.ReadCloser, error) {
			r, err := f.Open()
			return io.NopCloser(iotest.HalfReader(iotest.DataErrReader(r))), err
		}
	}
	if b := sum(t, create(t, minSize, list, testOptions), minSize); a != b {
		t.Error("the same files gave other bytes")
	}
	const golden = "16731bcaaa3573b455aa98128bdf90c7e46c11a3e35600a0ac98a45d99348eec"
	if a != golden {
		t.Errorf("the writer's bytes changed: got sha256:%s, want sha256:%s", a, golden)
	}
}

// sizes are the ends of both cluster sizes and what lies between, among them
// 64 MiB, at which other writers were wrong.
var sizes = []int64{minSize, minSize + 512, 64 << 20, 100 << 20, 128 << 20, 260 << 20, 260<<20 + 512, 261 << 20, 512 << 20, 2 << 30}

func TestFsckAndMtools(t *testing.T) {
	fsck, mtype, mdir := tooltest.Find(t, "fsck.vfat"), tooltest.Find(t, "mtype"), tooltest.Find(t, "mdir")
	for _, size := range sizes {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			f := create(t, size, files(testFiles()), testOptions)
			out, err := exec.Command(fsck, "-n", f.Name()).CombinedOutput()
			if err != nil || strings.Count(string(out), "\n") != 2 { // its version, the number of files
				t.Errorf("fsck.vfat is not content: %v\n%s", err, out)
			}
			for path, want := range testFiles() {
				if strings.Contains(path, "😀") || strings.Contains(path, "[") {
					continue // the tool has 8-bit names, and patterns
				}
				out, err := exec.Command(mtype, "-i", f.Name(), "::"+path).Output()
				if err != nil || string(out) != want {
					t.Errorf("mtype %q: got %d bytes, %v, want %d", path, len(out), err, len(want))
				}
			}
			out, err = exec.Command(mdir, "-i", f.Name(), "::").CombinedOutput()
			if err != nil {
				t.Errorf("mdir: %v\n%s", err, out)
			}
			for _, want := range []string{"Volume in drive : is ESP", "Volume Serial Number is 1234-ABCD", "2023-11-14  22:13", "Mixed.Txt", "lower    TXT", "UPPER    txt"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("mdir does not show %q:\n%s", want, out)
				}
			}
		})
	}
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	for _, size := range sizes {
		f := create(t, size, files(testFiles()), testOptions)
		fsys, err := Open(f, size)
		if err != nil {
			t.Fatal(err)
		}
		if fsys.Serial != testOptions.Serial || fsys.Label != "ESP" {
			t.Errorf("got serial %x and label %q", fsys.Serial, fsys.Label)
		}
		sameFiles(t, fsys, testFiles())
	}
}

func sameFiles(t *testing.T, fsys *FS, want map[string]string) {
	t.Helper()
	got := map[string]string{}
	err := fsys.Walk(func(f File) error {
		r, err := f.Open()
		if err != nil {
			return err
		}
		b, err := io.ReadAll(iotest.HalfReader(r))
		if int64(len(b)) != f.Size {
			t.Errorf("%q gave %d bytes, it says %d", f.Path, len(b), f.Size)
		}
		got[f.Path] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(got, want) {
		t.Errorf("got %q, want %q", slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want)))
	}
}

// TestReadOthers reads what mkfs.vfat and mtools wrote, files in pieces too.
func TestReadOthers(t *testing.T) {
	mkfs, mcopy, mmd, mdel := tooltest.Find(t, "mkfs.vfat"), tooltest.Find(t, "mcopy"), tooltest.Find(t, "mmd"), tooltest.Find(t, "mdel")
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	for _, bits := range []string{"12", "16", "32"} {
		image := filepath.Join(dir, "fat"+bits)
		if err := os.WriteFile(image, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(image, 40<<20); err != nil {
			t.Fatal(err)
		}
		run(mkfs, "-F", bits, "-n", "OTHER", "-i", "00c0ffee", "-s", map[string]string{"12": "32", "16": "2", "32": "1"}[bits], image)
		run(mmd, "-i", image, "::EFI", "::EFI/BOOT")
		want := map[string]string{}
		add := func(path, data string) {
			name := filepath.Join(dir, "data")
			if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
				t.Fatal(err)
			}
			run(mcopy, "-i", image, name, "::"+path)
			want[path] = data
		}
		for i := range 8 {
			add(fmt.Sprintf("gap%d", i), strings.Repeat("gap", 300))
		}
		for i := 0; i < 8; i += 2 {
			run(mdel, "-i", image, fmt.Sprintf("::gap%d", i))
			delete(want, fmt.Sprintf("gap%d", i))
		}
		add("EFI/BOOT/BOOTX64.EFI", strings.Repeat("in pieces ", 5000))
		add("EFI/BOOT/A long name.conf", "long")
		f, err := os.Open(image)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		fsys, err := Open(f, 40<<20)
		if err != nil {
			t.Fatal(err)
		}
		if fsys.Serial != 0xc0ffee || fsys.Label != "OTHER" {
			t.Errorf("got serial %x and label %q", fsys.Serial, fsys.Label)
		}
		sameFiles(t, fsys, want)
	}
}

func TestLookup(t *testing.T) {
	f := create(t, minSize, files(testFiles()), testOptions)
	fsys, err := Open(f, minSize)
	if err != nil {
		t.Fatal(err)
	}
	r, err := fsys.Lookup("efi/boot/bootx64.efi")
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(r, []byte(testFiles()["EFI/BOOT/BOOTX64.EFI"])); err != nil {
		t.Error(err)
	}
	if _, err := fsys.Lookup("EFI/none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want fs.ErrNotExist", err)
	}
	stop := errors.New("stop")
	if err := fsys.Walk(func(File) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("got %v, want the visitor's error", err)
	}
}

func TestMinSize(t *testing.T) {
	if got := MinSize(nil); got != minSize {
		t.Errorf("got %d for no files, want %d", got, minSize)
	}
	zeros := func(n int64) File {
		return File{Path: "big", Size: n, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.LimitReader(zeroReader{}, n)), nil
		}}
	}
	for _, n := range []int64{32 << 20, 34 << 20, 100 << 20, 256 << 20, 300 << 20} {
		size := MinSize([]File{zeros(n)})
		create(t, size, []File{zeros(n)}, testOptions)
		if size > minSize {
			smaller := size - mib
			if err := Write(discard{}, smaller, []File{zeros(n)}, testOptions); err == nil {
				t.Errorf("%d bytes fit %d too, MinSize says %d", n, smaller, size)
			}
		}
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) { clear(p); return len(p), nil }

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

func TestWriteRefuses(t *testing.T) {
	short, long := file("short", "abc"), file("long", "abc")
	short.Size, long.Size = 4, 2
	broken := File{Path: "broken", Size: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(io.ErrClosedPipe)), nil }}
	closed := File{Path: "closed", Size: 5, Open: func() (io.ReadCloser, error) { return nil, fs.ErrPermission }}
	empty := file("empty", "x")
	empty.Size = 0
	for _, c := range []struct {
		want  string
		size  int64
		files []File
		label string
	}{
		{"want a multiple of 512", minSize - 512, nil, ""},
		{"want a multiple of 512", maxSize + 512, nil, ""},
		{"want a multiple of 512", minSize + 1, nil, ""},
		{"upper-case", minSize, nil, "small"},
		{"upper-case", minSize, nil, "TWELVE CHARS"},
		{"have one name", minSize, []File{file("a", ""), file("A", "")}, ""},
		{"have one name", minSize, []File{file("a", ""), file("a/b", "")}, ""},
		{"have one name", minSize, []File{file("EFI/x", ""), file("efi/y", "")}, ""},
		{"is no name", minSize, []File{file("/a", "")}, ""},
		{"is no name", minSize, []File{file("a/../b", "")}, ""},
		{"forbids", minSize, []File{file("a:b", "")}, ""},
		{"ends in a blank or dot", minSize, []File{file("a.", "")}, ""},
		{"longer than 255", minSize, []File{file(strings.Repeat("n", 256), "")}, ""},
		{"not UTF-8", minSize, []File{file("\xff", "")}, ""},
		{"at most", minSize, []File{{Path: "huge", Size: 1 << 32}}, ""},
		{"need", minSize, []File{{Path: "large", Size: 34 << 20}}, ""},
		{"got 3 bytes, want 4", minSize, []File{short}, ""},
		{"more than 2 bytes", minSize, []File{long}, ""},
		{"more than 0 bytes", minSize, []File{empty}, ""},
		{"closed pipe", minSize, []File{broken}, ""},
		{"permission", minSize, []File{closed}, ""},
	} {
		err := Write(discard{}, c.size, c.files, Options{Label: c.label})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestStampIsClamped(t *testing.T) {
	for seconds, want := range map[int64]stamp{
		0:          {date: 1<<5 | 1},
		-1 << 62:   {date: 1<<5 | 1},
		1 << 62:    {date: 127<<9 | 12<<5 | 31, time: 23<<11 | 59<<5 | 29, tenth: 100},
		1700000001: {date: 43<<9 | 11<<5 | 14, time: 22<<11 | 13<<5 | 10, tenth: 100},
	} {
		if got := newStamp(seconds); got != want {
			t.Errorf("%d: got %+v, want %+v", seconds, got, want)
		}
	}
}

// TestReadOnly has the attribute seen by mtools and by Walk, of a file that was
// written and of one that was added.
func TestReadOnly(t *testing.T) {
	const size = 40 << 20
	f, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	fixed, added := file("fixed", ""), file("added", "x")
	fixed.ReadOnly, added.ReadOnly = true, true
	if err := Write(f, size, []File{fixed, file("free", "x")}, testOptions); err != nil {
		t.Fatal(err)
	}
	if err := Add(f, size, added, testOptions.Time); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"fixed": true, "free": false, "added": true} {
		out, err := exec.Command(tooltest.Find(t, "mattrib"), "-i", f.Name(), "::"+name).CombinedOutput()
		attributes, _, _ := strings.Cut(string(out), ":")
		if err != nil || strings.Contains(attributes, "R") != want {
			t.Errorf("mattrib says %q, %v, want read-only: %v", out, err, want)
		}
	}
	fs, err := Open(f, size)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]bool{}
	if err := fs.Walk(func(f File) error { got[f.Path] = f.ReadOnly; return nil }); err != nil {
		t.Fatal(err)
	}
	if want := map[string]bool{"fixed": true, "free": false, "added": true}; !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

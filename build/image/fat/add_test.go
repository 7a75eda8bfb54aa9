package fat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// ReadAt makes memory a ReadWriterAt.
func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

// foreign is a file system of mkfs.vfat's with files of mtools', in pieces.
type foreign struct {
	t     *testing.T
	image string
	size  int64
	want  map[string]string
}

// newForeign makes one with so many bits an entry.
func newForeign(t *testing.T, bits, size, perCluster int) *foreign {
	t.Helper()
	f := &foreign{t: t, image: filepath.Join(t.TempDir(), "fat"), size: int64(size), want: map[string]string{}}
	if err := os.WriteFile(f.image, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f.run("mkfs.vfat", "-F", fmt.Sprint(bits), "-s", fmt.Sprint(perCluster), "-i", "00c0ffee", f.image)
	f.run("mmd", "-i", f.image, "::EFI", "::EFI/Linux", "::EFI/BOOT")
	for i := range 6 {
		f.put(fmt.Sprintf("gap%d", i), strings.Repeat("gap", perCluster*300))
	}
	for i := 0; i < 6; i += 2 {
		f.remove(fmt.Sprintf("gap%d", i))
	}
	f.put("EFI/Linux/linux-6.12.0.efi", strings.Repeat("in pieces ", 5000))
	return f
}

func (f *foreign) run(name string, args ...string) string {
	f.t.Helper()
	out, err := exec.Command(tooltest.Find(f.t, name), args...).CombinedOutput()
	if err != nil {
		f.t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

func (f *foreign) put(path, data string) {
	f.t.Helper()
	name := filepath.Join(f.t.TempDir(), "data")
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		f.t.Fatal(err)
	}
	f.run("mcopy", "-i", f.image, name, "::"+path)
	f.want[path] = data
}

func (f *foreign) remove(path string) {
	f.t.Helper()
	f.run("mdel", "-i", f.image, "::"+path)
	delete(f.want, path)
}

// add adds a file, and returns how many sectors of the others' were changed.
func (f *foreign) add(path, data string) error {
	f.t.Helper()
	file, err := os.OpenFile(f.image, os.O_RDWR, 0)
	if err != nil {
		f.t.Fatal(err)
	}
	defer file.Close()
	err = Add(file, f.size, File{Path: path, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(data)), nil
	}}, 1700000000)
	if err == nil {
		f.want[path] = data
	}
	return err
}

func (f *foreign) mustAdd(path, data string) {
	f.t.Helper()
	if err := f.add(path, data); err != nil {
		f.t.Fatal(err)
	}
}

// check has fsck.vfat and mtools read it, and this package.
func (f *foreign) check() {
	f.t.Helper()
	if out := f.run("fsck.vfat", "-n", "-v", f.image); strings.Contains(out, "wrong") || strings.Contains(out, "ould be") {
		f.t.Errorf("fsck.vfat: %s", out)
	}
	for path, data := range f.want {
		if got := f.run("mtype", "-i", f.image, "::"+path); got != data {
			f.t.Errorf("%s: mtools reads %d bytes, want %d", path, len(got), len(data))
		}
	}
	b, err := os.ReadFile(f.image)
	if err != nil {
		f.t.Fatal(err)
	}
	fsys, err := Open(bytes.NewReader(b), f.size)
	if err != nil {
		f.t.Fatal(err)
	}
	sameFiles(f.t, fsys, f.want)
}

// TestAdd adds files to file systems that others made.
func TestAdd(t *testing.T) {
	for _, c := range []struct{ bits, size, perCluster int }{{12, 4 << 20, 4}, {16, 20 << 20, 2}, {32, 40 << 20, 1}} {
		t.Run(fmt.Sprint(c.bits), func(t *testing.T) {
			f := newForeign(t, c.bits, c.size, c.perCluster)
			f.mustAdd("EFI/Linux/linux-6.12.0.efi.extra.d/verity.addon.efi", strings.Repeat("addon", 3000))
			f.mustAdd("efi/LINUX/linux-6.12.0.EFI.extra.d/empty.addon.efi", "")
			delete(f.want, "efi/LINUX/linux-6.12.0.EFI.extra.d/empty.addon.efi")
			f.want["EFI/Linux/linux-6.12.0.efi.extra.d/empty.addon.efi"] = ""
			f.mustAdd("loader/addons/verity.addon.efi", "global")
			f.mustAdd("LOADER.TXT", "short")
			f.check()
		})
	}
}

// TestAddGrowsFolders adds files until the folder has many clusters, between
// files that were removed.
func TestAddGrowsFolders(t *testing.T) {
	for _, c := range []struct{ bits, size, perCluster int }{{12, 1 << 20, 1}, {16, 20 << 20, 1}, {32, 40 << 20, 1}} {
		t.Run(fmt.Sprint(c.bits), func(t *testing.T) {
			f := newForeign(t, c.bits, c.size, c.perCluster)
			for i := range 8 {
				f.put(fmt.Sprintf("EFI/Linux/a long name of many entries %d.efi", i), "x")
			}
			f.remove("EFI/Linux/a long name of many entries 3.efi")
			f.remove("EFI/Linux/a long name of many entries 4.efi")
			f.remove("EFI/Linux/a long name of many entries 7.efi")
			for i := range 40 {
				f.mustAdd(fmt.Sprintf("EFI/Linux/%s-%d.efi", strings.Repeat("n", i*3), i), fmt.Sprint(i))
			}
			f.check()
		})
	}
}

func TestAddRefuses(t *testing.T) {
	f := newForeign(t, 16, 20<<20, 2)
	before, err := os.ReadFile(f.image)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"EFI/Linux/LINUX-6.12.0.EFI", "EFI/Linux", "gap1/below", "EFI/Linux/LINUX-~1.EFI"} {
		if err := f.add(path, "x"); !errors.Is(err, fs.ErrExist) {
			t.Errorf("%s: got %v, want fs.ErrExist", path, err)
		}
	}
	for _, path := range []string{"", "/EFI/x", "EFI//x", "EFI/../x", "EFI/a:b", "EFI/x."} {
		if err := f.add(path, "x"); err == nil {
			t.Errorf("%q was added", path)
		}
	}
	if after, _ := os.ReadFile(f.image); !bytes.Equal(before, after) {
		t.Error("what was refused has changed the file system")
	}
	var full *NoRoomError
	if err := f.add("large", strings.Repeat("x", 20<<20)); !errors.As(err, &full) || full.Free < 15<<20 || full.Need < 20<<20 {
		t.Errorf("got %v, want *NoRoomError", err)
	}
	// The root of a FAT16 cannot grow.
	for i := range 600 {
		if err = f.add(fmt.Sprintf("F%d", i), ""); err != nil {
			break
		}
	}
	if err == nil || !strings.Contains(err.Error(), "root folder of 512 entries is full") {
		t.Errorf("got %v, want an error that the root is full", err)
	}
	f.check()
}

// TestAddIsAlwaysTheSame adds a file twice, and to what this package wrote:
// few sectors differ.
func TestAddIsAlwaysTheSame(t *testing.T) {
	var first memory
	for range 2 {
		m := make(memory, minSize)
		if err := Write(m, minSize, files(testFiles()), testOptions); err != nil {
			t.Fatal(err)
		}
		before := bytes.Clone(m)
		if err := Add(m, minSize, file("EFI/Linux/x.efi.extra.d/verity.addon.efi", "addon"), 1700000000); err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, m) {
			t.Error("other bytes the second time")
		}
		first = m
		changed := 0
		for off := 0; off < minSize; off += sector {
			if !bytes.Equal(before[off:off+sector], m[off:off+sector]) {
				changed++
			}
		}
		// Information sector, a sector of both tables, EFI/Linux, the new
		// folder, the file.
		if changed != 6 {
			t.Errorf("%d sectors were changed, want 6", changed)
		}
	}
}

// FuzzAdd adds a file to whatever the bytes are; what is added can be read,
// and nothing else is lost.
func FuzzAdd(f *testing.F) {
	f.Add(tiny(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := make(memory, 4<<20)
		copy(m, b)
		if Add(m, int64(len(m)), file("EFI/Linux/x.efi.extra.d/verity.addon.efi", "addon"), 0) != nil {
			return
		}
		fsys, err := Open(m, int64(len(m)))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fsys.Lookup("EFI/Linux/x.efi.extra.d/verity.addon.efi")
	})
}

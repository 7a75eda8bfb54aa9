package imagefile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"caisson/lock/tooltest"
)

func qemuImg(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(tooltest.Find(t, "qemu-img"), args...).CombinedOutput(); err != nil {
		t.Fatalf("qemu-img %q: %v\n%s", args, err, out)
	}
}

// testDisk has data at both ends, and zeros between them.
func testDisk() []byte {
	b := make([]byte, 8<<20)
	for i := 0; i < 1<<20; i += 32 {
		d := sha256.Sum256(fmt.Append(nil, i))
		copy(b[i:], d[:])
	}
	copy(b[len(b)-5000:], bytes.Repeat([]byte("end"), 1000))
	return b
}

func save(t *testing.T, name string, b []byte) string {
	t.Helper()
	name = filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func write(t *testing.T, disk []byte, format string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(context.Background(), f, bytes.NewReader(disk), int64(len(disk)), Options{Format: format}); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestFormats writes each format, which qemu-img and Open read, and which
// take no room for zeros.
func TestFormats(t *testing.T) {
	disk := testDisk()
	raw := save(t, "raw", disk)
	for format, qemu := range map[string]string{Qcow2: "qcow2", VHD: "vpc", Raw: "raw"} {
		name := write(t, disk, format)
		qemuImg(t, "compare", "-f", qemu, "-F", "raw", name, raw)
		d, err := Open(name)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got := make([]byte, d.Size())
		if _, err := d.ReadAt(got, 0); err != nil || d.Format != format || !bytes.Equal(got, disk) {
			t.Errorf("%s: read %d bytes as %s: %v", format, len(got), d.Format, err)
		}
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if used := st.Sys().(*syscall.Stat_t).Blocks * 512; used > 2<<20 {
			t.Errorf("%s: takes %d bytes", format, used)
		}
	}
	qemuImg(t, "check", write(t, disk, Qcow2))
}

// TestBacking opens chains of files that lie in a folder, and refuses those
// that do not.
func TestBacking(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	disk := testDisk()
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, name := range []string{at("base.raw"), filepath.Join(outside, "base.raw")} {
		if err := os.WriteFile(name, disk, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	create := func(name, backing, format string) string {
		qemuImg(t, "create", "-q", "-f", "qcow2", "-b", backing, "-F", format, at(name))
		return at(name)
	}
	if err := os.Symlink(filepath.Join(outside, "base.raw"), at("link.raw")); err != nil {
		t.Fatal(err)
	}
	create("middle.qcow2", "base.raw", "raw")
	for _, name := range []string{create("top.qcow2", "middle.qcow2", "qcow2"), create("absolute.qcow2", at("base.raw"), "raw")} {
		d, err := OpenBacked(name, dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		got := make([]byte, d.Size())
		if _, err := d.ReadAt(got, 0); err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: read %d bytes: %v", name, len(got), err)
		}
		if d.Files[len(d.Files)-1] != at("base.raw") {
			t.Errorf("read %q", d.Files)
		}
		if _, err := Open(name); err == nil || !strings.Contains(err.Error(), "backing file") {
			t.Errorf("got %v, want an error about the backing file", err)
		}
	}
	loop := create("loop.qcow2", "base.raw", "raw")
	qemuImg(t, "rebase", "-q", "-u", "-f", "qcow2", "-b", "loop.qcow2", "-F", "qcow2", loop)
	for name, want := range map[string]string{
		create("out.qcow2", filepath.Join(outside, "base.raw"), "raw"): "does not lie in",
		create("link.qcow2", "link.raw", "raw"):                        "escapes",
		loop:                                                           "based on each other",
	} {
		d, err := OpenBacked(name, dir)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, want)
		}
		if d != nil {
			t.Errorf("%s: got a disk", name)
		}
	}
	if d, err := OpenBacked(at("out.qcow2"), dir, outside); err != nil {
		t.Error(err)
	} else {
		d.Close()
	}
	for _, backing := range []string{"nbd://127.0.0.1/x", "json:{}"} {
		if _, _, err := openBacking(at("x"), backing, []string{dir}); err == nil || !strings.Contains(err.Error(), "only the names") {
			t.Errorf("%s: got %v", backing, err)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for content, want := range map[string]string{
		"KDMV":                     "VMDK",
		"vhdxfile":                 "VHDX",
		"\x1f\x8b":                 "gzip",
		"QFI\xfb\x00\x00\x00\x01x": "version 1",
		"QFI\xfb\x00\x00\x00\x03":  "reading the header",
	} {
		if _, err := Open(save(t, "image", []byte(content))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", content, err, want)
		}
	}
	if _, err := Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "folder") {
		t.Errorf("got %v", err)
	}
	if _, err := Open("/nonexistent"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestWriteStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, format := range []string{Qcow2, VHD, Raw} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		disk := bytes.NewReader(testDisk())
		if err := Write(ctx, f, disk, disk.Size(), Options{Format: format}); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: got %v", format, err)
		}
		if err := Write(context.Background(), f, disk, disk.Size()+1<<20, Options{Format: format}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%s: got %v", format, err)
		}
	}
	if err := Write(context.Background(), nil, nil, 0, Options{Format: "vmdk"}); err == nil {
		t.Error("a VMDK was written")
	}
}

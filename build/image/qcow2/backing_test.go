package qcow2

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// sized is a disk in memory.
type sized struct{ *bytes.Reader }

// TestBacking reads chains of images that qemu-img and qemu-io made: a raw
// file below a compressed image of version 2 below one of version 3 that is
// larger, with clusters of both, zero clusters and a tail.
func TestBacking(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	base := noise("base", 3<<20)
	clear(base[1<<20 : 2<<20])
	if err := os.WriteFile(at("base.raw"), base, 0o600); err != nil {
		t.Fatal(err)
	}
	qemuIO := tooltest.Find(t, "qemu-io")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-o", "compat=0.10", "-b", "base.raw", "-F", "raw", at("middle.qcow2"), "4M")
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", at("top.qcow2"), "5000K")
	for _, c := range [][]string{
		{"middle.qcow2", "write -P 7 200k 100k"}, {"middle.qcow2", "write -c -P 8 640k 64k"}, {"middle.qcow2", "write -P 9 3500k 10k"},
		{"top.qcow2", "write -P 1 10k 3k"}, {"top.qcow2", "write -z 256k 64k"}, {"top.qcow2", "write -P 3 4500k 20k"},
	} {
		runTool(t, qemuIO, "-f", "qcow2", "-c", c[1], at(c[0]))
	}
	qemuImg(t, "convert", "-O", "raw", at("top.qcow2"), at("flat"))
	want, err := os.ReadFile(at("flat"))
	if err != nil {
		t.Fatal(err)
	}
	var opened []string
	var open func(name, format string) (Disk, error)
	open = func(name, format string) (Disk, error) {
		opened = append(opened, name+" "+format)
		b, err := os.ReadFile(at(name))
		if err != nil || format == "raw" {
			return sized{bytes.NewReader(b)}, err
		}
		return OpenBacked(bytes.NewReader(b), open)
	}
	top, err := open("top.qcow2", "")
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(opened, ", "); got != "top.qcow2 , middle.qcow2 qcow2, base.raw raw" {
		t.Errorf("opened %s", got)
	}
	got := make([]byte, top.Size())
	if _, err := top.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("read other data than qemu-img")
	}
}

func TestBackingRefuses(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "top.qcow2")
	if err := os.WriteFile(filepath.Join(dir, "base"), make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	qemuImg(t, "create", "-q", "-f", "qcow2", "-b", "base", "-F", "raw", name, "1M")
	image, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	no := errors.New("no")
	if _, err := OpenBacked(bytes.NewReader(image), func(string, string) (Disk, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("got %v, want the error of open", err)
	}
	short, err := OpenBacked(bytes.NewReader(image), func(string, string) (Disk, error) {
		return brokenDisk{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := short.ReadAt(make([]byte, 10), 0); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want io.ErrUnexpectedEOF", err)
	}
	for _, change := range []func(b []byte){
		func(b []byte) { b[hdrBackingLength+3] = 0 },
		func(b []byte) { b[hdrBackingLength] = 1 },
		func(b []byte) { b[hdrBackingOffset] = 1 },
		func(b []byte) { b[hdrBackingOffset+5] = 1 },
		func(b []byte) { copy(b[bytes.Index(b, []byte("base")):], "b\x00") },
	} {
		b := bytes.Clone(image)
		change(b)
		if _, err := OpenBacked(bytes.NewReader(b), func(string, string) (Disk, error) { return brokenDisk{}, nil }); err == nil {
			t.Error("a damaged name was accepted")
		}
	}
}

// brokenDisk has less data than it says.
type brokenDisk struct{}

func (brokenDisk) Size() int64                           { return 1 << 20 }
func (brokenDisk) ReadAt(_ []byte, _ int64) (int, error) { return 0, io.EOF }

func runTool(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
}

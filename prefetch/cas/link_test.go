package cas

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"caisson/lock/digest"
)

// folder is an open folder.
func folder(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestLink(t *testing.T) {
	s := open(t)
	d := put(t, s, "hello")
	dir := folder(t, t.TempDir())
	name := filepath.Join(dir.Name(), "name")
	how, err := s.Link(d, dir, "name")
	if err != nil || how != HardLink {
		t.Fatalf("got %q, %v", how, err)
	}
	a, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.Stat(s.Path(d)); err != nil || !os.SameFile(a, b) {
		t.Errorf("not the same file: %v", err)
	}
	if _, err := s.Link(d, dir, "name"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("over a file: got %v", err)
	}
	if _, err := s.Link(d, dir, "name/x/y"); err == nil {
		t.Error("in no folder")
	}
	var m *MissingError
	if _, err := s.Link(digest.Of([]byte("nothing")), dir, "2"); !errors.As(err, &m) {
		t.Errorf("got %v", err)
	}
}

// TestLinkElsewhere copies to another file system, and does not copy what is
// damaged.
func TestLinkElsewhere(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("none", dir, "tmpfs", 0, ""); err != nil {
		t.Skip("no mounts: " + err.Error())
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	s := open(t)
	d := put(t, s, "hello")
	to := folder(t, dir)
	name := filepath.Join(dir, "name")
	how, err := s.Link(d, to, "name")
	if err != nil || how != Copy {
		t.Fatalf("got %q, %v", how, err)
	}
	b, err := os.ReadFile(name)
	if err != nil || string(b) != "hello" {
		t.Errorf("got %q, %v", b, err)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode() != 0o444 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
	damage(t, s, d, "hallo")
	var bad *DamagedError
	if _, err := s.Link(d, to, "name2"); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(name + "2"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

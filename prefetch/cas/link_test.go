package cas

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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
	if _, err := s.Link(d, dir, "no/y"); !errors.Is(err, fs.ErrNotExist) || errors.As(err, new(*MissingError)) {
		t.Errorf("in no folder: got %v", err)
	}
	if _, err := s.Link(d, dir, "name/x/y"); err == nil {
		t.Error("below a file")
	}
	var m *MissingError
	if _, err := s.Link(digest.Of([]byte("nothing")), dir, "2"); !errors.As(err, &m) {
		t.Errorf("got %v", err)
	}
}

// TestLinkLayers links from the layer that has the file.
func TestLinkLayers(t *testing.T) {
	below := open(t)
	d := put(t, below, "below")
	top := reopened(t, open(t), below.Dir())
	dir := folder(t, t.TempDir())
	if how, err := top.Link(d, dir, "name"); err != nil || how != HardLink {
		t.Fatalf("got %q, %v", how, err)
	}
	a, err := os.Stat(filepath.Join(dir.Name(), "name"))
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.Stat(below.Path(d)); err != nil || !os.SameFile(a, b) {
		t.Errorf("not the file below: %v", err)
	}
	var m *MissingError
	if _, err := top.Link(digest.Of([]byte("nothing")), dir, "2"); !errors.As(err, &m) {
		t.Errorf("got %v", err)
	}
}

// TestLinkElsewhere copies to another file system, and does not copy what is
// damaged.
func TestLinkElsewhere(t *testing.T) {
	dir := mounted(t, "none", "tmpfs", t.TempDir())
	s := open(t)
	d := put(t, s, "hello")
	to := folder(t, dir)
	wantCopy(t, s, d, to, "name", Copy)
	damage(t, s, d, "hallo")
	var bad *DamagedError
	if _, err := s.Link(d, to, "name2"); !errors.As(err, &bad) {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "name2")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something is left: %v", err)
	}
}

// TestLinkOfAnotherUser copies where the kernel does not allow a link to a file
// that the user may not write to.
func TestLinkOfAnotherUser(t *testing.T) {
	testAnotherUser(t, scratch(t), Copy)
}

// TestReflink shares the blocks where the file system can, and no link is
// allowed.
func TestReflink(t *testing.T) {
	mkfs, err := exec.LookPath("mkfs.xfs")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(320<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(mkfs, "-q", "-m", "reflink=1", image).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	testAnotherUser(t, mounted(t, image, "xfs", scratch(t)), Reflink)
}

// testAnotherUser has somebody else link from a store in dir.
func testAnotherUser(t *testing.T, dir string, want Linked) {
	t.Helper()
	if b, err := os.ReadFile("/proc/sys/fs/protected_hardlinks"); os.Geteuid() != 0 || err != nil || strings.TrimSpace(string(b)) != "1" {
		t.Skip("not root, or any user may link to any file")
	}
	s, err := Open(filepath.Join(dir, "store"))
	if err != nil {
		t.Fatal(err)
	}
	d := put(t, s, strings.Repeat("hello", 10000))
	if err := os.Mkdir(filepath.Join(dir, "view"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(filepath.Join(dir, "view"), somebody, somebody); err != nil {
		t.Fatal(err)
	}
	to := folder(t, filepath.Join(dir, "view"))
	asSomebody(t, func() {
		wantCopy(t, s, d, to, "name", want)
		if _, err := os.OpenFile(s.Path(d), os.O_WRONLY, 0); !errors.Is(err, fs.ErrPermission) {
			t.Errorf("writing to the store: got %v", err)
		}
		// What is the user's own may be changed, and is the user's alone.
		name := filepath.Join(to.Name(), "name")
		if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, []byte("other"), 0o600)); err != nil {
			t.Error(err)
		}
	})
	if err := s.Verify(d); err != nil {
		t.Error(err)
	}
}

// wantCopy links and looks at what became of it.
func wantCopy(t *testing.T, s *Store, d digest.Digest, dir *os.File, name string, want Linked) {
	t.Helper()
	how, err := s.Link(d, dir, name)
	if err != nil || how != want {
		t.Errorf("got %q, %v, want %q", how, err, want)
		return
	}
	name = filepath.Join(dir.Name(), name)
	b, err := os.ReadFile(name)
	if err != nil || digest.Of(b) != d {
		t.Errorf("got %q, %v", b, err)
	}
	if fi, err := os.Stat(name); err != nil || fi.Mode() != 0o444 {
		t.Errorf("got %v, %v", fi.Mode(), err)
	}
}

// somebody is a user that owns nothing.
const somebody = 61236

// asSomebody calls f on a thread that is somebody's, and ends with it.
func asSomebody(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocked: the thread ends
		_, _, e1 := syscall.RawSyscall(syscall.SYS_SETGROUPS, 0, 0, 0)
		_, _, e2 := syscall.RawSyscall(syscall.SYS_SETRESGID, somebody, somebody, somebody)
		_, _, e3 := syscall.RawSyscall(syscall.SYS_SETRESUID, somebody, somebody, somebody)
		if e1 != 0 || e2 != 0 || e3 != 0 {
			t.Errorf("becoming somebody else: %v %v %v", e1, e2, e3)
			return
		}
		f()
	}()
	<-done
}

// scratch is a folder that every user may read.
func scratch(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "cas-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for another user
		t.Fatal(err)
	}
	return dir
}

// mounted mounts a file system for the time of the test: an image by a loop
// device.
func mounted(t *testing.T, source, typ, dir string) string {
	t.Helper()
	if source == "none" {
		if err := unix.Mount(source, dir, typ, 0, ""); err != nil {
			t.Skip("no mounts: " + err.Error())
		}
	} else if out, err := exec.Command("mount", "-t", typ, "-o", "loop", source, dir).CombinedOutput(); err != nil {
		t.Skip("no mounts of images: " + string(out))
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil { // a store in it is open until the process ends
			t.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for another user
		t.Fatal(err)
	}
	return dir
}

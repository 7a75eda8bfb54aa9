package erofs

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestFsck(t *testing.T) {
	image := saveImage(t, write(t, testEntries(), testOptions()))
	if out := run(t, "fsck.erofs", "-d3", image); !strings.Contains(out, "No errors found") {
		t.Errorf("fsck.erofs says\n%s", out)
	}
	out := run(t, "dump.erofs", "-s", image)
	for _, want := range []string{"00070e15-1c23-2a31-383f-464d545b6269", "sb_csum mtime", "inode count:                       663"} {
		if !strings.Contains(out, want) {
			t.Errorf("dump.erofs -s does not say %q, but\n%s", want, out)
		}
	}
}

// TestExtract compares the files that fsck.erofs extracts with the entries.
func TestExtract(t *testing.T) {
	image := saveImage(t, write(t, testEntries(), testOptions()))
	out := filepath.Join(t.TempDir(), "out")
	run(t, "fsck.erofs", "--extract="+out, "--preserve-perms", image)
	compareTree(t, out, os.Getuid() == 0, false)
}

// TestMount compares the files of a mounted image with the entries.
func TestMount(t *testing.T) {
	image := saveImage(t, write(t, testEntries(), testOptions()))
	out := t.TempDir()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	mount(t, image, out)
	compareTree(t, out, true, true)
}

// compareTree compares a folder with testEntries: content, type, permissions,
// owner where the owner could be set, and time, links and extended attributes
// where it is the mounted image.
func compareTree(t *testing.T, root string, owner, mounted bool) {
	inodes := make(map[string]uint64)
	seen := 0
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		seen++
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	entries := testEntries()
	if seen != len(entries) {
		t.Errorf("%d files, want %d", seen, len(entries))
	}
	for _, e := range entries {
		path := filepath.Join(root, e.Path)
		var st syscall.Stat_t
		if err := syscall.Lstat(path, &st); err != nil {
			t.Errorf("%q: %v", e.Path, err)
			continue
		}
		inodes[e.Path] = st.Ino
		if e.HardLink != "" {
			continue
		}
		mode := e.Mode
		if !mounted { // fsck.erofs 1.5 changes the owner last, which clears setuid and setgid
			mode &^= 0o6000
			st.Mode &^= 0o6000
		}
		if st.Mode != mode {
			t.Errorf("%q: mode is %#o, want %#o", e.Path, st.Mode, mode)
		}
		if owner && (st.Uid != e.UID || st.Gid != e.GID) {
			t.Errorf("%q: owner is %d:%d, want %d:%d", e.Path, st.Uid, st.Gid, e.UID, e.GID)
		}
		if (e.Mode&typeMask == typeChar || e.Mode&typeMask == typeBlock) && uint32(st.Rdev) != e.Rdev {
			t.Errorf("%q: device is %#x, want %#x", e.Path, st.Rdev, e.Rdev)
		}
		if mounted && st.Mtim.Sec != e.Mtime {
			t.Errorf("%q: mtime is %d, want %d", e.Path, st.Mtim.Sec, e.Mtime)
		}
		compareContent(t, path, e)
		if mounted {
			compareXattrs(t, path, e)
		}
	}
	// fsck.erofs 1.5 extracts each name as a file of its own.
	if mounted && (inodes["a/su"] != inodes["a/sudo"] || inodes["a/su"] != inodes["! first"]) {
		t.Errorf("names of one file have inodes %d, %d, %d", inodes["a/su"], inodes["a/sudo"], inodes["! first"])
	}
}

func compareContent(t *testing.T, path string, e Entry) {
	switch e.Mode & typeMask {
	case typeSymlink:
		if got, err := os.Readlink(path); err != nil || got != e.Target {
			t.Errorf("%q: target is %q, %v, want %q", e.Path, got, err, e.Target)
		}
	case typeRegular:
		if got, err := os.ReadFile(path); err != nil || string(got) != readAll(t, e) {
			t.Errorf("%q: %d bytes, %v, want %d", e.Path, len(got), err, e.Size)
		}
	}
}

func compareXattrs(t *testing.T, path string, e Entry) {
	for name, want := range e.Xattrs {
		got := make([]byte, maxXattrValue)
		n, err := syscall.Getxattr(path, name, got)
		if err != nil || !bytes.Equal(got[:n], want) {
			t.Errorf("%q: %s is %q, %v, want %q", e.Path, name, got[:max(n, 0)], err, want)
		}
	}
}

func mount(t testing.TB, image, dir string) {
	t.Helper()
	if out, err := exec.Command("mount", "-t", "erofs", "-o", "loop,ro", image, dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestReadsMkfs reads an image of mkfs.erofs.
func TestReadsMkfs(t *testing.T) {
	src := t.TempDir()
	for i := range 300 {
		d := filepath.Join(src, fmt.Sprint(i%7), strings.Repeat("d", i%30+1))
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(d, fmt.Sprint("f", i)), content(fmt.Sprint(i), int64(i*i)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(src, "0/d/f0"), filepath.Join(src, "hard")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("0/d", filepath.Join(src, "soft")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"-T1700000000"}, {"--preserve-mtime"}, {"-Eforce-inode-extended"}} {
		image := filepath.Join(t.TempDir(), "image")
		run(t, "mkfs.erofs", append(args, "-x0", image, src)...)
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		entries, data, o, err := walk(b)
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		for path, got := range data {
			if want, err := os.ReadFile(filepath.Join(src, path)); err != nil || got != string(want) {
				t.Errorf("%s: %q has %d bytes, want %d, %v", args, path, len(got), len(want), err)
			}
		}
		if len(data) != 301 {
			t.Errorf("%s: %d files, want 301", args, len(data))
		}
		if ours := write(t, entries, o); len(ours) > len(b) {
			t.Errorf("%s: our image of the same has %d bytes, mkfs.erofs's %d", args, len(ours), len(b))
		}
	}
}

package squashfs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"math/rand"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// mksquashfs makes an image of a folder.
func mksquashfs(t testing.TB, dir string, args ...string) []byte {
	t.Helper()
	tool, err := exec.LookPath("mksquashfs")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("mksquashfs is not installed (squashfs-tools)")
	}
	image := filepath.Join(t.TempDir(), "image")
	cmd := exec.Command(tool, append([]string{dir, image, "-noappend", "-no-progress"}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tree makes a folder with everything that a file system can have, as far as
// the user may.
func tree(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	r := rand.New(rand.NewSource(1))
	write := func(name string, b []byte, mode os.FileMode) {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(filepath.Join(dir, name), mode); err != nil {
			t.Fatal(err)
		}
	}
	noise := make([]byte, 300000)
	r.Read(noise)
	write("noise", noise, 0o644)
	write("text", bytes.Repeat([]byte("some words, again and again\n"), 40000), 0o640)
	write("holes", append(append(bytes.Repeat([]byte("x"), 131072), make([]byte, 500000)...), "end"...), 0o600)
	write("block", bytes.Repeat([]byte("b"), 131072), 0o444)
	write("empty", nil, 0o600)
	write("set", []byte("set-uid"), 0o755|os.ModeSetuid)
	for i := range 700 {
		write(fmt.Sprintf("many/%03d ä", i), bytes.Repeat([]byte{byte(i)}, i*7), 0o644)
	}
	for _, l := range [][2]string{{"text", "again"}, {"text", "many/again"}} {
		if err := os.Link(filepath.Join(dir, l[0]), filepath.Join(dir, l[1])); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("../no/where", filepath.Join(dir, "many/link")); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "hollow/deep/er"), 0o750); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setxattr(filepath.Join(dir, "noise"), "user.long", bytes.Repeat([]byte("v"), 900), 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"text", "many/link", "hollow"} { // a link takes none of user.*
		_ = unix.Lsetxattr(filepath.Join(dir, name), "user.a", []byte("value of "+name), 0)
	}
	if os.Getuid() == 0 {
		if err := unix.Mknod(filepath.Join(dir, "device"), unix.S_IFBLK|0o660, int(unix.Mkdev(259, 70000))); err != nil {
			t.Fatal(err)
		}
		if err := os.Lchown(filepath.Join(dir, "noise"), 70000, 12); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(filepath.Join(dir, "set"), "security.selinux", []byte("label\x00"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// line says all there is to say of an entry but its links.
func line(mode, uid, gid, rdev uint32, mtime, size int64, target string, content []byte, xattrs map[string][]byte) string {
	s := fmt.Sprintf("%o %d:%d %d %d %d %q", mode, uid, gid, rdev, mtime, size, target)
	if content != nil {
		s += fmt.Sprintf(" %x", sha256.Sum256(content))
	}
	for _, name := range []string{"user.a", "user.long", "security.selinux"} {
		if v, ok := xattrs[name]; ok {
			s += fmt.Sprintf(" %s=%x", name, v)
		}
	}
	return s
}

// onDisk are the entries of a folder by path.
func onDisk(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		var target string
		var content []byte
		size := int64(0)
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			target, err = os.Readlink(name)
		case unix.S_IFREG:
			size = st.Size
			content, err = os.ReadFile(name)
		}
		if err != nil {
			return err
		}
		xattrs := map[string][]byte{}
		for _, a := range []string{"user.a", "user.long", "security.selinux"} {
			b := make([]byte, 1000)
			if n, err := unix.Lgetxattr(name, a, b); err == nil {
				xattrs[a] = b[:n]
			}
		}
		out[strings.TrimPrefix(strings.TrimPrefix(name, dir), "/")] = line(st.Mode, st.Uid, st.Gid, uint32(st.Rdev), st.Mtim.Sec, size, target, content, xattrs)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// walked are the entries of an image by path, and its hard links.
func walked(image []byte) (out, links map[string]string, err error) {
	out, links = map[string]string{}, map[string]string{}
	f, err := Open(bytes.NewReader(image))
	if err != nil {
		return nil, nil, err
	}
	err = f.Walk(func(e Entry) error {
		var content []byte
		if e.Open != nil {
			r, err := e.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			if content, err = io.ReadAll(r); err != nil {
				return fmt.Errorf("%s: %w", e.Path, err)
			}
		}
		if e.HardLink != "" {
			links[e.Path] = e.HardLink
		}
		out[e.Path] = line(e.Mode, e.UID, e.GID, e.Rdev, e.Mtime, e.Size, e.Target, content, e.Xattrs)
		return nil
	})
	return out, links, err
}

// What mksquashfs made, in each of its forms, is read as it is on the disk.
func TestRead(t *testing.T) {
	dir := tree(t)
	want := onDisk(t, dir)
	for _, args := range [][]string{
		{"-comp", "gzip"}, {"-comp", "zstd", "-b", "1M"}, {"-comp", "lz4", "-b", "4K"}, {"-comp", "xz"}, {"-comp", "lz4", "-Xhc", "-no-fragments"},
		{"-noI", "-noD", "-noF", "-noX"}, {"-always-use-fragments", "-nopad"}, {"-no-exports", "-no-duplicates", "-no-sparse"},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			image := mksquashfs(t, dir, args...)
			got, links, err := walked(image)
			if err != nil {
				t.Fatal(err)
			}
			for name, w := range want {
				if got[name] != w {
					t.Errorf("%q: got %s, want %s", name, got[name], w)
				}
			}
			if len(got) != len(want) {
				t.Errorf("%d entries, want %d", len(got), len(want))
			}
			if len(links) != 2 || links["many/again"] != "again" || links["text"] != "again" {
				t.Errorf("hard links %v", links)
			}
			f, err := Open(bytes.NewReader(image))
			if err != nil || f.Size() > int64(len(image)) || int64(len(image))-f.Size() > 4096 {
				t.Errorf("size %d of %d, %v", f.Size(), len(image), err)
			}
		})
	}
}

// A file's extents are the bytes that its content depends on, and no others.
func TestExtents(t *testing.T) {
	dir := tree(t)
	image := mksquashfs(t, dir, "-comp", "gzip", "-no-fragments")
	before, _, err := walked(image)
	if err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	var noise [][2]int64
	if err := f.Walk(func(e Entry) error {
		if e.Path == "noise" {
			noise = e.Extents
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if len(noise) == 0 {
		t.Fatal("no extents")
	}
	for _, x := range noise {
		for _, at := range []int64{x[0], x[0] + x[1]/2, x[0] + x[1] - 1} {
			b := slices.Clone(image)
			b[at] ^= 0xff
			after, _, err := walked(b)
			for name := range before {
				if err == nil && (after[name] != before[name]) != (name == "noise") {
					t.Errorf("byte %d: %q: got %s", at, name, after[name])
				}
			}
			if err != nil && !strings.Contains(err.Error(), "noise") {
				t.Errorf("byte %d: %v", at, err)
			}
		}
	}
}

// Damaged images are errors or other files, and nothing worse.
func TestDamaged(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"a": "aaa", "b/c": strings.Repeat("c", 5000), "b/d": "d"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := mksquashfs(t, dir, "-nopad", "-noI", "-noD")
	r := rand.New(rand.NewSource(7))
	for i := range 4000 {
		b := slices.Clone(image)
		for range 1 + i%3 {
			b[r.Intn(len(b))] = byte(r.Intn(256))
		}
		_, _, _ = walked(b[:len(b)-i%5*r.Intn(20)])
	}
	for n := range len(image) {
		if _, _, err := walked(image[:n]); err == nil && n < len(image)/2 {
			t.Fatalf("%d of %d bytes: no error", n, len(image))
		}
	}
}

func TestRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), []byte("a"), 0o600); err != nil {
		t.Fatal(err)
	}
	for comp, want := range map[string]string{"lzo": "compression by lzo is not read", "lzma": "compression by lzma is not read"} {
		if _, err := Open(bytes.NewReader(mksquashfs(t, dir, "-comp", comp))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", comp, err)
		}
	}
}

func FuzzOpen(f *testing.F) {
	dir := f.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), bytes.Repeat([]byte("a"), 9000), 0o600); err != nil {
		f.Fatal(err)
	}
	for _, comp := range []string{"gzip", "zstd", "lz4", "xz"} {
		f.Add(mksquashfs(f, dir, "-comp", comp, "-nopad"))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _, _ = walked(b)
	})
}

package ext4

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

func run(t testing.TB, stdin, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "E2FSPROGS_FAKE_TIME=1700000000")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return string(out)
}

// big is a file that needs many blocks, with a hole in it.
func big() []byte {
	b := make([]byte, 700<<10)
	for i := range b {
		if i < 300<<10 || i > 400<<10 {
			b[i] = byte(i>>10) ^ byte(i)
		}
	}
	return b
}

// files are those of the tests' images; a name that ends in a slash is a
// folder, a content that begins with "->" a symbolic link.
func files() map[string]string {
	m := map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\n", "etc/empty": "", "big": string(big()), "lib": "->usr/lib",
		"long": "->" + strings.Repeat("x/", 60) + "y", "a/b/c/d/e/f/g/deep": "deep", "empty/": "", "tiny": "t",
	}
	for i := range 400 { // a folder of several blocks
		m[fmt.Sprintf("many/a-name-that-takes-some-place-%03d", i)] = fmt.Sprint(i)
	}
	return m
}

// image makes an image with mke2fs.
func image(t testing.TB, args ...string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files() {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		switch target, link := strings.CutPrefix(text, "->"); {
		case strings.HasSuffix(name, "/"):
			err = os.MkdirAll(at, 0o700)
		case link:
			err = os.Symlink(target, at)
		default:
			err = os.WriteFile(at, []byte(text), 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(filepath.Join(dir, "tiny"), filepath.Join(dir, "other")); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "image")
	run(t, "", "mke2fs", append(slices.Clone(args), "-q", "-U", "00000000-0000-0000-0000-000000000001", "-E", "hash_seed=00000000-0000-0000-0000-000000000001", "-d", dir, name, "16M")...)
	value := filepath.Join(t.TempDir(), "value")
	if err := os.WriteFile(value, bytes.Repeat([]byte("v"), 300), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "ea_set etc/passwd user.short value\nea_set etc/passwd security.selinux system_u:object_r:etc_t:s0\n"+
		"ea_set -f "+value+" etc/passwd trusted.long\n"+
		"mknod console c 5 1\nset_inode_field tiny uid 70001\nset_inode_field tiny gid 99\nset_inode_field tiny mtime 20230101000000\n", "debugfs", "-w", "-f", "-", name)
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// kinds are the ways in which mke2fs is run.
func kinds() map[string][]string {
	return map[string][]string{
		"ext2":        {"-t", "ext2", "-b", "1024"},
		"ext2-old":    {"-t", "ext2", "-b", "1024", "-r", "0"},
		"ext3":        {"-t", "ext3", "-b", "2048"},
		"ext4":        {"-t", "ext4", "-b", "4096"},
		"ext4-1k":     {"-t", "ext4", "-b", "1024", "-g", "1024"},
		"ext4-32":     {"-t", "ext4", "-O", "^64bit,^metadata_csum,^flex_bg"},
		"ext4-meta":   {"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "meta_bg,^resize_inode"},
		"ext4-inline": {"-t", "ext4", "-O", "inline_data", "-I", "512"},
		"ext4-ea":     {"-t", "ext4", "-O", "ea_inode"},
		"ext4-sparse": {"-t", "ext4", "-b", "1024", "-g", "1024", "-O", "^sparse_super,^resize_inode"},
	}
}

func walk(t testing.TB, f *FS) map[string]Entry {
	t.Helper()
	out := map[string]Entry{}
	last := ""
	if err := f.Walk(func(e Entry) error {
		if key := strings.ReplaceAll(e.Path, "/", "\x00"); key < last {
			t.Errorf("%q comes behind %q", e.Path, last)
		} else {
			last = key
		}
		out[e.Path] = e
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return out
}

func content(t testing.TB, e Entry) string {
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

// TestTools reads what mke2fs wrote, in each of its ways.
func TestTools(t *testing.T) {
	for kind, args := range kinds() {
		t.Run(kind, func(t *testing.T) {
			b := image(t, args...)
			f, err := Open(bytes.NewReader(b))
			if err != nil {
				t.Fatal(err)
			}
			if f.Size() != int64(len(b)) {
				t.Errorf("size %d, want %d", f.Size(), len(b))
			}
			got := walk(t, f)
			for name, want := range files() {
				e, ok := got[strings.TrimSuffix(name, "/")]
				target, link := strings.CutPrefix(want, "->")
				switch {
				case !ok:
					t.Errorf("no %q", name)
				case strings.HasSuffix(name, "/"):
					if e.Mode != typeDir|0o700 {
						t.Errorf("%q: mode %#o", name, e.Mode)
					}
				case link:
					if e.Target != target {
						t.Errorf("%q: target %q, want %q", name, e.Target, target)
					}
				default:
					if e.Mode != typeRegular|0o640 || e.Size != int64(len(want)) || content(t, e) != want {
						t.Errorf("%q: mode %#o, %d bytes", name, e.Mode, e.Size)
					}
					checkExtents(t, b, e, want)
				}
			}
			checkSpecial(t, got, kind != "ext2-old") // which has no attributes
			if len(f.Regions()) < 3 {
				t.Errorf("regions %v", f.Regions())
			}
		})
	}
}

// checkExtents looks whether the content lies where it is said to.
func checkExtents(t *testing.T, image []byte, e Entry, want string) {
	t.Helper()
	for _, x := range e.Extents {
		if part := string(image[x[0] : x[0]+x[1]]); !strings.Contains(want, part) {
			t.Errorf("%q: at %d lies something else", e.Path, x[0])
		}
	}
}

func checkSpecial(t *testing.T, got map[string]Entry, attributes bool) {
	t.Helper()
	tiny, other := got["tiny"], got["other"]
	if tiny.HardLink != "other" || other.HardLink != "" || other.UID != 70001 || other.GID != 99 || other.Mtime != 1672531200 {
		t.Errorf("got %+v and %+v", tiny, other)
	}
	if c := got["console"]; c.Mode&typeMask != typeChar || c.Rdev != 5<<8|1 {
		t.Errorf("console: %+v", c)
	}
	x := got["etc/passwd"].Xattrs
	if attributes && (string(x["user.short"]) != "value" || string(x["security.selinux"]) != "system_u:object_r:etc_t:s0" || len(x["trusted.long"]) != 300) {
		t.Errorf("attributes %q", x)
	}
	if _, ok := got["lost+found"]; !ok {
		t.Error("no lost+found")
	}
}

// TestDebugfs compares mode, owner, size, time and place of every file with
// what debugfs says.
func TestDebugfs(t *testing.T) {
	b := image(t, "-t", "ext4", "-b", "1024", "-g", "1024")
	name := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := Open(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	for path, e := range walk(t, f) {
		if e.Mode&typeMask != typeRegular || e.Size == 0 || strings.HasPrefix(path, "many/") && path != "many/a-name-that-takes-some-place-399" {
			continue
		}
		blocks := strings.Fields(run(t, "", "debugfs", "-R", "blocks /"+path, name))
		var want []string
		for _, x := range e.Extents {
			for at := x[0]; at < x[0]+x[1]; at += 1024 {
				want = append(want, fmt.Sprint(at/1024))
			}
		}
		for _, w := range want {
			if !slices.Contains(blocks, w) {
				t.Errorf("%s: block %s is not in %v", path, w, blocks)
			}
		}
		stat := run(t, "", "debugfs", "-R", "stat /"+path, name)
		for _, w := range []string{fmt.Sprintf("Mode:  %04o", e.Mode&0o7777), fmt.Sprintf("User: %5d", e.UID), fmt.Sprintf("Size: %d", e.Size), fmt.Sprintf("mtime: 0x%08x", e.Mtime)} {
			if !strings.Contains(stat, w) {
				t.Errorf("%s: no %q in\n%s", path, w, stat)
			}
		}
	}
}

func TestReaders(t *testing.T) {
	b := image(t, "-t", "ext4")
	f, err := Open(readerAt{bytes.NewReader(b), -1})
	if err != nil {
		t.Fatal(err)
	}
	if got := content(t, walk(t, f)["big"]); got != string(big()) {
		t.Errorf("got %d bytes", len(got))
	}
	if _, err := Open(readerAt{bytes.NewReader(b), 100}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v", err)
	}
	if f, err = Open(readerAt{bytes.NewReader(b), 1 << 16}); err == nil {
		err = f.Walk(func(Entry) error { return nil })
	}
	if !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v", err)
	}
}

// readerAt fails behind an offset, if it is not negative, and says EOF with
// the last bytes.
type readerAt struct {
	r    *bytes.Reader
	from int64
}

func (r readerAt) ReadAt(p []byte, off int64) (int, error) {
	if r.from >= 0 && off+int64(len(p)) > r.from {
		return 0, iotest.ErrTimeout
	}
	n, err := r.r.ReadAt(p, off)
	if off+int64(n) == r.r.Size() {
		err = io.EOF
	}
	return n, err
}

func TestRefuse(t *testing.T) {
	good := image(t, "-t", "ext4", "-b", "1024")
	for _, c := range []struct {
		name string
		off  int
		b    []byte
		want string
	}{
		{"magic", 0x38, []byte{0, 0}, "magic 0x0, want 0xef53"},
		{"features", 0x60, []byte{1}, "are not supported"},
		{"block size", 0x18, []byte{7}, "blocks of 2^7 KiB"},
		{"blocks of a group", 0x20, []byte{0, 0, 0, 0}, "groups of 0 blocks"},
		{"inode size", 0x58, []byte{0xff, 0}, "inodes of 255 bytes"},
		{"size", 4, []byte{0xff, 0xff, 0xff, 0xff}, "groups"},
		{"descriptors", 0xfe, []byte{3, 0}, "group descriptors of 3 bytes"},
		{"inodes", 0, []byte{0xff, 0xff, 0xff, 0xff}, "inodes"},
	} {
		b := bytes.Clone(good)
		copy(b[superAt+c.off:], c.b)
		if _, err := Open(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	if _, err := Open(bytes.NewReader(good[:1500])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut: got %v", err)
	}
}

// FuzzWalk changes bytes of images of each kind, at the places that are used
// most, and cuts them.
func FuzzWalk(f *testing.F) {
	var images [][]byte
	var used [][]int
	kinds := kinds()
	for _, k := range []string{"ext2", "ext3", "ext4", "ext4-inline", "ext4-meta"} {
		b := image(f, kinds[k]...)
		images, used = append(images, b), append(used, usedBlocks(b))
	}
	for n := range images {
		f.Add(n, []byte{})
		for _, at := range []byte{0, 4, 0x20, 0x28, 0x58, 0x60} {
			f.Add(n, []byte{0, at, 0, 0xff, 1, at, 3, 0x80})
		}
	}
	f.Fuzz(func(t *testing.T, n int, changes []byte) {
		if n < 0 || n >= len(images) {
			return
		}
		p := patched{bytes.NewReader(images[n]), map[int64]byte{}}
		for ; len(changes) >= 4; changes = changes[4:] { // where, and what
			block := used[n][int(changes[0])%len(used[n])]
			p.changes[int64(block+(int(changes[1])|int(changes[2]&3)<<8))] ^= changes[3]
		}
		fs, err := Open(p)
		if err != nil {
			return
		}
		fs.Regions()
		read := int64(8 << 20) // of all files
		err = fs.Walk(func(e Entry) error {
			if e.Open == nil {
				return nil
			}
			r, err := e.Open()
			if err != nil {
				return err
			}
			defer r.Close()
			got, err := io.Copy(io.Discard, io.LimitReader(r, min(e.Size+1, read)))
			if read -= got; err == nil && read > 0 && got != e.Size {
				t.Errorf("%q has %d bytes, not %d", e.Path, got, e.Size)
			}
			return nil
		})
		if err != nil && err.Error() == "" {
			t.Error("an error that says nothing")
		}
	})
}

// patched is an image with other bytes at some places.
type patched struct {
	io.ReaderAt
	changes map[int64]byte
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.ReaderAt.ReadAt(b, off)
	for at, x := range p.changes {
		if at >= off && at < off+int64(n) {
			b[at-off] ^= x
		}
	}
	return n, err
}

// usedBlocks is where the superblock and other blocks with something in them
// are.
func usedBlocks(b []byte) []int {
	out := []int{superAt}
	zero := make([]byte, 1024)
	for at := 2048; at < len(b) && len(out) < 256; at += 1024 {
		if !bytes.Equal(b[at:at+1024], zero) {
			out = append(out, at)
		}
	}
	return out
}

package build

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

// compressed assembles the fixture with a compressed root, in a folder, and
// returns what the root is to be, the root partition's bytes and the image.
func compressed(t *testing.T, dir, format string, c lock.Compression, backwards bool) (tree map[string]string, root []byte, d *disk) {
	t.Helper()
	l := testLock()
	l.Image.Root, l.Image.Compression, l.Image.Output = format, &c, []string{"raw"}
	b, err := testBuilder(dir, l)
	if err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	if err := layStub(b); err != nil {
		t.Fatal(err)
	}
	put(t, b.tools, merged()...)
	for _, d := range []string{"proc", "dev", "tmp", "src", "out"} {
		put(t, b.tools, file{path: d, mode: os.ModeDir | 0o755})
	}
	programs(t, b.tools, mkfsArgs(format, c, "", 0)[0])
	// The C library opens it when a thread ends.
	out, err := exec.Command(tooltest.Find(t, "gcc"), "-print-file-name=libgcc_s.so.1").Output()
	if err != nil {
		t.Fatal(err)
	}
	lib, err := os.ReadFile(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	put(t, b.tools, file{path: "lib/x86_64-linux-gnu/libgcc_s.so.1", mode: 0o755, content: string(lib)})
	r, initrd, err := testRoots(b, backwards)
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	if err := finish(ctx, b, r, initrd); err != nil {
		t.Fatal(err)
	}
	tree = map[string]string{}
	for _, e := range r.tree.Entries() {
		x := e
		if e.HardLink != "" {
			x = r.tree.Get(e.HardLink)
		}
		tree[e.Path] = fmt.Sprintf("%o %d:%d %d %q %s", x.Mode, x.UID, x.GID, x.Rdev, x.Target, x.SHA256)
		for _, name := range slices.Sorted(maps.Keys(x.Xattrs)) {
			tree[e.Path] += fmt.Sprintf(" %s=%x", name, x.Xattrs[name])
		}
	}
	if d, err = b.assemble(ctx, r, initrd); err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(filepath.Join(b.work, b.imageName()+".raw"))
	if err != nil {
		t.Fatal(err)
	}
	return tree, raw[d.data.start:d.data.end()], d
}

// extracted are the files of a folder, as compressed has them; all have the
// epoch's time, and names of one file are links.
func extracted(t *testing.T, dir string) map[string]string {
	t.Helper()
	tree := map[string]string{}
	err := filepath.Walk(dir, func(name string, info os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return err
		}
		rel, target := strings.TrimPrefix(strings.TrimPrefix(name, dir), "/"), ""
		var sum digest.Digest
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if target, err = os.Readlink(name); err != nil {
				return err
			}
		case unix.S_IFREG:
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum = digest.Of(b)
		}
		if want := testLock().Epoch; st.Mtim.Sec != want {
			t.Errorf("%s: time %d, want %d", rel, st.Mtim.Sec, want)
		}
		tree[rel] = fmt.Sprintf("%o %d:%d %d %q %s", st.Mode, st.Uid, st.Gid, st.Rdev, target, sum)
		for _, attr := range []string{"security.capability", "security.ima"} {
			b := make([]byte, 100)
			if n, err := unix.Lgetxattr(name, attr, b); err == nil {
				tree[rel] += fmt.Sprintf(" %s=%x", attr, b[:n])
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// withDumped adds what fsck.erofs 1.5 does not extract: set-id bits, which its
// chown takes away, as the inodes have them, and attributes, which lie in the
// image as they are.
func withDumped(t *testing.T, got map[string]string, image string, want map[string]string) map[string]string {
	t.Helper()
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	for name, w := range want {
		if strings.HasPrefix(w, "10") && got[name] != w {
			out, err := exec.Command(tooltest.Find(t, "dump.erofs"), "--path=/"+name, image).CombinedOutput()
			m := regexp.MustCompile(`NID: (\d+)`).FindSubmatch(out)
			if err != nil || m == nil {
				t.Fatalf("%v\n%s", err, out)
			}
			nid, err := strconv.Atoi(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			inodes := int(binary.LittleEndian.Uint32(b[1024+40:])) * 4096 // struct erofs_super_block's meta_blkaddr
			mode := binary.LittleEndian.Uint16(b[inodes+32*nid+4:])       // struct erofs_inode_compact's i_mode
			_, rest, _ := strings.Cut(got[name], " ")
			got[name] = fmt.Sprintf("%o %s", mode, rest)
		}
		if i := strings.Index(w, " security."); i > 0 {
			_, value, _ := strings.Cut(w[i:], "=")
			raw, err := hex.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(b, raw) {
				got[name] += w[i:]
			}
		}
	}
	return got
}

// A compressed root is made by the tools set's program and has every owner,
// mode, device, attribute and link of the tree, though one user made it; and
// the same bytes on another file system, with files made in another order.
func TestCompressedRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can extract owners and devices")
	}
	for _, tt := range []struct {
		format string
		c      lock.Compression
	}{
		{lock.RootEROFS, lock.Compression{Algorithm: "lz4"}},
		{lock.RootEROFS, lock.Compression{Algorithm: "lz4hc", Level: 9}},
		{lock.RootSquashfs, lock.Compression{Algorithm: "zstd", Level: 19}},
		{lock.RootSquashfs, lock.Compression{Algorithm: "gzip"}},
		{lock.RootSquashfs, lock.Compression{Algorithm: "lz4"}},
		{lock.RootSquashfs, lock.Compression{Algorithm: "xz"}},
	} {
		t.Run(tt.format+" "+tt.c.Algorithm, func(t *testing.T) {
			want, root, d := compressed(t, t.TempDir(), tt.format, tt.c, false)
			if !strings.Contains(d.cmdline(), "rootfstype="+tt.format) {
				t.Errorf("command line %q", d.cmdline())
			}
			shm, err := os.MkdirTemp("/dev/shm", "")
			if err != nil {
				t.Fatal(err)
			}
			defer os.RemoveAll(shm)
			if _, again, e := compressed(t, shm, tt.format, tt.c, true); !bytes.Equal(root, again) || d.root != e.root {
				t.Error("other bytes on tmpfs, with files made from the last to the first")
			}
			dir := t.TempDir()
			image, out := filepath.Join(dir, "root.img"), filepath.Join(dir, "out")
			if err := os.WriteFile(image, root, 0o600); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(tooltest.Find(t, "unsquashfs"), "-no-progress", "-dest", out, image)
			if tt.format == lock.RootEROFS {
				cmd = exec.Command(tooltest.Find(t, "fsck.erofs"), "--preserve", "--extract="+out, image)
			}
			if text, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
			}
			got := extracted(t, out)
			if tt.format == lock.RootEROFS {
				got = withDumped(t, got, image, want)
			}
			for _, name := range slices.Sorted(maps.Keys(want)) {
				if got[name] != want[name] {
					t.Errorf("%q: got %s, want %s", name, got[name], want[name])
				}
				delete(got, name)
			}
			for name := range got {
				t.Errorf("%q: not in the tree", name)
			}
		})
	}
}

// A root whose program the tools set lacks is told before rpm has anything to
// say about it.
func TestCompressedRootWithoutProgram(t *testing.T) {
	l := testLock()
	l.Image.Root, l.Image.Compression = lock.RootSquashfs, &lock.Compression{Algorithm: "zstd"}
	b, err := testBuilder(t.TempDir(), l)
	if err != nil {
		t.Fatal(err)
	}
	defer b.log.Close()
	if err := layStub(b); err != nil {
		t.Fatal(err)
	}
	root, initrd, err := testRoots(b, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(t.Context(), b, root, initrd); err != nil {
		t.Fatal(err)
	}
	if _, err := b.assemble(t.Context(), root, initrd); err == nil || !strings.Contains(err.Error(), "no package of the tools set has mksquashfs") {
		t.Errorf("got %v", err)
	}
}

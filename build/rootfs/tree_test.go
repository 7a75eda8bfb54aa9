package rootfs

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// describe is a tree as text, a line an entry, content included.
func describe(t *testing.T, tree *Tree) string {
	t.Helper()
	var b strings.Builder
	for _, e := range tree.Entries() {
		fmt.Fprintf(&b, "%q %o", e.Path, e.Mode)
		if e.UID+e.GID != 0 {
			fmt.Fprintf(&b, " %d:%d", e.UID, e.GID)
		}
		if e.Target != "" {
			fmt.Fprintf(&b, " -> %s", e.Target)
		}
		if e.HardLink != "" {
			fmt.Fprintf(&b, " = %s", e.HardLink)
		} else if e.Is(unix.S_IFREG) {
			r, err := e.Open()
			if err != nil {
				t.Fatal(err)
			}
			content, err := io.ReadAll(r)
			r.Close()
			if err != nil {
				t.Fatal(err)
			}
			if int64(len(content)) != e.Size {
				t.Errorf("%s: size %d, content has %d bytes", e.Path, e.Size, len(content))
			}
			fmt.Fprintf(&b, " %q", content)
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// write makes files in dir: "path" -> content.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for p, content := range files {
		full := filepath.Join(dir, p)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func scan(t *testing.T, dir string) *Tree {
	t.Helper()
	tree, err := Scan(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"a/x": "closed", "a-b": "other", "shadow": "secret", "closed/in": "in", "set": "s"})
	for from, to := range map[string]string{"a/x": "a-c", "a-b": "z/b"} {
		os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755)
		if err := os.Link(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "abs")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	device := "" // only root makes one
	if syscall.Mknod(filepath.Join(dir, "device"), syscall.S_IFCHR|0o600, 0x103) == nil {
		device = "\"device\" 20600\n"
	}
	cwd, _ := os.Getwd()
	if err := os.Chdir(dir); err != nil { // a socket's path has to be short
		t.Fatal(err)
	}
	l, err := net.Listen("unix", "socket")
	os.Chdir(cwd)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for p, mode := range map[string]uint32{"a/x": 0, "shadow": 0, "closed": 0, "set": 0o6711, "socket": 0o755, "pipe": 0o600} {
		if err := unix.Chmod(filepath.Join(dir, p), mode); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Chmod(filepath.Join(dir, "closed"), 0o700) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	want := `"" 40755
"a" 40755
"a-b" 100644 "other"
"a-c" 100000 "closed"
"a/x" 100000 = a-c
"abs" 120777 -> /etc/passwd
"closed" 40000
"closed/in" 100644 "in"
` + device + `"pipe" 10600
"set" 106711 "s"
"shadow" 100000 "secret"
"socket" 140755
"z" 40755
"z/b" 100644 = a-b
`
	tree := scan(t, dir)
	if got := describe(t, tree); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if e := tree.Get("a/x"); e.SHA256 != tree.Get("a-c").SHA256 || e.Size != 6 {
		t.Errorf("a hard link has digest %s and %d bytes", e.SHA256, e.Size)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Scan(ctx, dir); err == nil {
		t.Error("a cancelled scan has no error")
	}
	if _, err := Scan(context.Background(), filepath.Join(dir, "absent")); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("an absent folder: %v", err)
	}
}

func TestRemoveFirstNames(t *testing.T) {
	build := func() *Tree {
		dir := t.TempDir()
		write(t, dir, map[string]string{"b/one": "content"})
		for _, p := range []string{"a", "b/two", "c", "d"} {
			if err := os.Link(filepath.Join(dir, "b/one"), filepath.Join(dir, p)); err != nil {
				t.Fatal(err)
			}
		}
		os.Chmod(dir, 0o755)
		return scan(t, dir)
	}
	for _, c := range []struct {
		remove []string
		want   string
	}{
		{[]string{"a"}, `"b" 40755
"b/one" 100644 "content"
"b/two" 100644 = b/one
"c" 100644 = b/one
"d" 100644 = b/one
`},
		{[]string{"a", "b"}, "\"c\" 100644 \"content\"\n\"d\" 100644 = c\n"},
		{[]string{"b", "a"}, "\"c\" 100644 \"content\"\n\"d\" 100644 = c\n"},
		{[]string{"c", "b", "a"}, "\"d\" 100644 \"content\"\n"},
		{[]string{"c", "b", "d"}, "\"a\" 100644 \"content\"\n"},
		{[]string{"a", "b", "c", "d"}, ""},
	} {
		tree := build()
		for _, p := range c.remove {
			tree.Remove(p)
		}
		if got := strings.TrimPrefix(describe(t, tree), "\"\" 40755\n"); got != c.want {
			t.Errorf("without %v: got\n%s\nwant\n%s", c.remove, got, c.want)
		}
	}
	tree := build() // a file of its own in the place of a first name
	if err := tree.PutFile("a", 0o600, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if got := describe(t, tree); !strings.Contains(got, `"a" 100600 "new"`) || !strings.Contains(got, `"b/one" 100644 "content"`) {
		t.Errorf("got\n%s", got)
	}
	if n := tree.Remove("absent"); n != 0 {
		t.Errorf("removing what is not there: %d", n)
	}
}

func TestPut(t *testing.T) {
	tree := New()
	if err := tree.PutFile("a/b/c", 0o644, []byte("x")); err != nil {
		t.Fatal(err)
	}
	for p, err := range map[string]error{
		"a":       tree.PutFile("a", 0o644, nil),
		"a/b/c/d": tree.PutFile("a/b/c/d", 0o644, nil),
		"a/b/c":   tree.PutDir("a/b/c", 0o755),
	} {
		if err == nil {
			t.Errorf("%s: no error", p)
		}
	}
	if _, err := tree.ReadFile("a/b"); err == nil {
		t.Error("a folder was read as a file")
	}
}

func TestResolve(t *testing.T) {
	tree := New()
	tree.PutFile("usr/bin/sh", 0o755, nil)
	for p, target := range map[string]string{
		"bin": "usr/bin", "abs": "/usr/bin/sh", "usr/up": "../../../../../usr/bin/sh", "loop": "loop", "a": "b", "b": "/a", "chain": "abs",
		"usr/bin/dot": "./sh", "dangling": "nowhere", "long": "bin/../bin/./sh", "through": "abs/x",
	} {
		if err := tree.PutLink(p, target); err != nil {
			t.Fatal(err)
		}
	}
	for p, want := range map[string]string{
		"usr/bin/sh": "usr/bin/sh", "/usr/bin/sh": "usr/bin/sh", "bin/sh": "usr/bin/sh", "abs": "usr/bin/sh", "usr/up": "usr/bin/sh",
		"chain": "usr/bin/sh", "bin/dot": "usr/bin/sh", "long": "usr/bin/sh", "../bin/sh": "usr/bin/sh", "": "", "bin": "usr/bin",
		"loop": "-", "a": "-", "b/x": "-", "dangling": "-", "absent": "-", "through": "-", "usr/bin/sh/x": "-",
	} {
		got := "-"
		if e := tree.Resolve(p); e != nil {
			got = e.Path
		}
		if got != want {
			t.Errorf("%q: got %q, want %q", p, got, want)
		}
	}
}

func TestRealPath(t *testing.T) {
	dir := t.TempDir()
	os.MkdirAll(filepath.Join(dir, "usr/lib"), 0o755)
	for p, target := range map[string]string{
		"lib": "usr/lib", "abs": "/usr/lib", "out": "../../../../etc", "one": "two", "two": "lib", "loop": "loop", "usr/up": "..", "gone": "/not/there",
	} {
		if err := os.Symlink(target, filepath.Join(dir, p)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for p, want := range map[string]string{
		"a": "a", "lib": "lib", "lib/x": "usr/lib/x", "abs/x/y": "usr/lib/x/y", "out/passwd": "etc/passwd", "one/x": "usr/lib/x",
		"usr/up/lib/x": "usr/lib/x", "gone/x": "not/there/x", "../lib/x": "usr/lib/x", "loop/x": "-", "new/folder/x": "new/folder/x",
	} {
		got, err := RealPath(root, p)
		if err != nil {
			got = "-"
		}
		if got != want {
			t.Errorf("%q: got %q (%v), want %q", p, got, err, want)
		}
	}
}

// TestEveryRule gives each rule something to do.
func TestEveryRule(t *testing.T) {
	made := func(r Rule) string { // a path that the rule means
		return strings.NewReplacer("*", "some").Replace(r.Match)
	}
	for _, initrd := range []bool{false, true} {
		for _, r := range Rules(initrd) {
			if r.Reason == "" {
				t.Errorf("%s has no reason", r.Match)
			}
			for _, keep := range []bool{false, true} {
				tree := New()
				at := made(r)
				tree.PutFile("zz/other", 0o644, nil)
				tree.PutFile(at+"-other", 0o644, nil)
				tree.PutFile(at+"/folder/file", 0o644, nil)
				tree.PutLink(at+"/link", "x")
				used := tree.Normalise([]Rule{r}, func(p string) bool { return keep && p == at+"/folder/file" })
				if len(used) != 1 {
					t.Errorf("%s found nothing", r.Match)
				}
				got := fmt.Sprint(tree.Get(at) != nil, tree.Get(at+"/folder") != nil, tree.Get(at+"/folder/file") != nil, tree.Get(at+"/link") != nil)
				want := map[Action]string{Remove: "false false false false", Empty: "true false false false", RemoveFiles: "true true false false"}[r.Do]
				if keep {
					want = "true true true false"
				}
				if got != want {
					t.Errorf("%s, keeping %v: got %s, want %s", r.Match, keep, got, want)
				}
				if tree.Get("zz/other") == nil || tree.Get(at+"-other") == nil && !strings.Contains(r.Match, "*") {
					t.Errorf("%s removed something else", r.Match)
				}
			}
			tree := New() // a file where a folder is expected, and the other way round
			tree.PutFile(made(r), 0o644, nil)
			tree.Normalise([]Rule{r}, nil)
			if gone := tree.Get(made(r)) == nil; gone != (r.Do == Remove) {
				t.Errorf("%s as a file: gone %v", r.Match, gone)
			}
		}
	}
	if used := New().Normalise(Rules(true), nil); used != nil {
		t.Errorf("an empty tree: %v", used)
	}
}

// TestNormaliseIsQuick removes a large part of a large tree.
func TestNormaliseIsQuick(t *testing.T) {
	tree := New()
	for i := range 30000 {
		tree.Put(&Entry{Path: fmt.Sprintf("usr/share/doc/%d/copyright", i), Mode: unix.S_IFREG | 0o644, Ino: uint64(i + 1)})
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	tree.Normalise(Rules(true), nil)
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 400000 {
		t.Errorf("%d allocations for 30,000 files", n)
	}
	if tree.Len() != 3 {
		t.Errorf("%d entries are left", tree.Len())
	}
}

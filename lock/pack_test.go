package lock

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"caisson/lock/digest"
)

func pack(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Pack(&b, dir); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// listTar is the archive as lines of mode, name, target and content.
func listTar(t *testing.T, b []byte) string {
	t.Helper()
	var out strings.Builder
	r := tar.NewReader(bytes.NewReader(b))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("%s: %+v", h.Name, h)
		}
		fmt.Fprintf(&out, "%o %s %s%q\n", h.Mode, h.Name, h.Linkname, content)
	}
}

func TestPack(t *testing.T) {
	long := strings.Repeat("long/", 60) + "name"
	dir := writeFiles(t, t.TempDir(), map[string]string{
		"b": "b", "a/b": "ab", "a.b": "a.b", "run*": "#!/bin/sh\n", "link": "->../outside", "empty/sub/x": "", "ä": "umlaut",
		"caisson.lock": "{}", "sub/caisson.lock": "{}", ".git/config": "", "sub/.git": "gitdir: x", long: "l",
		".gitignore": "*.o\n", "x.o": "", "sub/y.o": "", "sub/.gitignore": "!y.o\n",
	})
	if err := os.MkdirAll(filepath.Join(dir, "nothing"), 0o755); err != nil {
		t.Fatal(err)
	}
	got := listTar(t, pack(t, dir))
	want := `644 .gitignore "*.o\n"
644 a.b "a.b"
644 a/b "ab"
644 b "b"
644 empty/sub/x ""
777 link ../outside""
644 ` + long + ` "l"
755 run "#!/bin/sh\n"
644 sub/.gitignore "!y.o\n"
644 sub/y.o ""
644 ä "umlaut"
`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// TestPackSameBytes packs the same files as another checkout would have them.
func TestPackSameBytes(t *testing.T) {
	names := []string{"z", "a/1", "a/2", "a-b", "m/n/o", "run*"}
	make1 := func(umask int, group bool) string {
		old := syscall.Umask(umask)
		defer syscall.Umask(old)
		dir := filepath.Join(t.TempDir(), "some", "where")
		rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, n := range names {
			name, exec := strings.CutSuffix(n, "*")
			at := filepath.Join(dir, name)
			if err := os.MkdirAll(filepath.Dir(at), 0o777); err != nil {
				t.Fatal(err)
			}
			mode := os.FileMode(0o666)
			if exec {
				mode = 0o777
			}
			if err := os.WriteFile(at, []byte(name), mode); err != nil {
				t.Fatal(err)
			}
			if group {
				if err := os.Chmod(at, mode&0o774|0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		return dir
	}
	want := digest.Of(pack(t, make1(0o022, false)))
	t.Setenv("TMPDIR", t.TempDir())
	t.Setenv("TZ", "Asia/Tokyo")
	for _, dir := range []string{make1(0o077, false), make1(0o002, false), make1(0, true)} {
		if got := digest.Of(pack(t, dir)); got != want {
			t.Errorf("%s: got %s, want %s", dir, got, want)
		}
	}
	// The bytes of the format itself: a change breaks every lock there is.
	dir := writeFiles(t, t.TempDir(), map[string]string{"a": "1\n", "b/c*": "2\n", "d": "->a"})
	if got, golden := digest.Of(pack(t, dir)).Hex(), "a26c50f3e20a5f77598acd12a112ab4b1c02230cd6aa792e2e31f9d2ce325b7a"; got != golden {
		t.Errorf("the archive's bytes have changed: got %s, want %s", got, golden)
	}
}

func TestPackErrors(t *testing.T) {
	dir := t.TempDir()
	if err := Pack(io.Discard, filepath.Join(dir, "none")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
	writeFiles(t, dir, map[string]string{"file": "x"})
	if err := Pack(io.Discard, filepath.Join(dir, "file")); err == nil || !strings.HasSuffix(err.Error(), "file is not a folder") {
		t.Errorf("got %v", err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := Pack(io.Discard, dir); err == nil || !strings.HasSuffix(err.Error(), "sock is neither a file nor a symbolic link") {
		t.Errorf("got %v", err)
	}
	fifo := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(fifo, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Pack(io.Discard, fifo); err == nil || !strings.HasSuffix(err.Error(), "pipe is neither a file nor a symbolic link") {
		t.Errorf("got %v", err)
	}
	big := writeFiles(t, t.TempDir(), map[string]string{".gitignore": strings.Repeat("#", maxIgnore+1)})
	if err := Pack(io.Discard, big); err == nil || !strings.Contains(err.Error(), ".gitignore") {
		t.Errorf("got %v", err)
	}
	if err := Pack(failWriter{}, writeFiles(t, t.TempDir(), map[string]string{"a": "b"})); err == nil || !strings.HasSuffix(err.Error(), "disk full") {
		t.Errorf("got %v", err)
	}
}

type failWriter struct{}

func (failWriter) Write([]byte) (int, error) { return 0, fmt.Errorf("disk full") }

// TestCopyFileChanged changes a file between listing and reading.
func TestCopyFileChanged(t *testing.T) {
	dir := writeFiles(t, t.TempDir(), map[string]string{"a": "12345", "link": "->a"})
	for name, tt := range map[string]struct {
		file string
		size int64
		want string
	}{
		"same": {"a", 5, ""}, "grown": {"a", 4, "changed while it was read"}, "shrunk": {"a", 6, "changed while it was read"},
		"now a link": {"link", 5, "too many levels of symbolic links"}, "gone": {"b", 5, "no such file"},
	} {
		err := copyFile(io.Discard, filepath.Join(dir, tt.file), tt.size)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := copyFile(io.Discard, filepath.Join(dir, "pipe"), 1); err == nil {
		t.Error("a pipe was read")
	}
}

// names lists what Pack takes.
func names(t *testing.T, dir string) []string {
	t.Helper()
	files, _, err := listFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, f := range files {
		out = append(out, f.name)
	}
	return out
}

// gitNames is what git takes.
func gitNames(t *testing.T, dir string) []string {
	t.Helper()
	out := strings.Split(strings.TrimSuffix(runGit(t, dir, "ls-files", "-coz", "--exclude-standard"), "\x00"), "\x00")
	if out[0] == "" {
		return nil
	}
	slices.Sort(out)
	return out
}

func TestIgnoreLikeGit(t *testing.T) {
	files := map[string]string{}
	for _, n := range []string{
		"a", "b", "abc", "c", "dir/a", "dir/b/a", "dir/b/c/a", "dir/b.o", "x/dir/a", "x/y/dir/a", "foo/bar/baz", "foo/baz", "foobar",
		" lead", "trail ", "#hash", "!bang", "back\\slash", "star*", "q?", "[x]", "[", "ü", "A", "1", "-", "]", "build/out/keep", "build/out/x",
		"deep/1/2/3/4/5/f", "target/debug/x", "lib/target/x", ".hidden", "x.tar.gz", "doc/x.txt", "doc/sub/x.txt", "a:b", "^", "log/a.log", "log/keep.log",
	} {
		files[n] = ""
	}
	for name, ignore := range map[string]map[string]string{
		"names and folders": {"": "*.o\nbuild/\n/target\n!keep\n"},
		"negated":           {"": "*.log\n!keep.log\n", "log": "keep.log\n"},
		"contents":          {"": "build/out/*\n!build/out/keep\n"},
		"all inside":        {"": "build/**\n!build/out/\n!build/out/keep\n"},
		"all but one":       {"": "/*\n!/foo\n/foo/*\n!/foo/bar\n"},
		"doubled":           {"": "**/dir\nfoo/**/baz\ndeep/**/f\n"},
		"doubled in words":  {"": "fo**r\ndeep/**5/f\na**\n"},
		"doubled, alone":    {"": "**\n!foobar\n"},
		"doubled, folders":  {"": "**/\n"},
		"from the top":      {"": "/a\n/dir/a\ndoc/*.txt\n"},
		"folder only":       {"": "a/\nabc/\ndir/b/\n"},
		"escapes":           {"": "\\#hash\n\\!bang\nback\\\\slash\nstar\\*\n\\q\\?\n"},
		"spaces":            {"": " lead\ntrail\\ \nabc   \n"},
		"no spaces":         {"": "trail \n"},
		"comments":          {"": "# a\n#hash\n\n   \nabc\n"},
		"brackets":          {"": "[ab]\n[!a-zA-Z.]oo\n[[:digit:]]\n[]-]\n[\\[]x[]]\n"},
		"brackets 2":        {"": "[z-a]\n[a-\\c]bc\n[[:upper:][:punct:]]\n[^a-z]\n"},
		"bad brackets":      {"": "[\n[a\n[[:nope:]]\n[[:alpha\nabc[\n"},
		"question":          {"": "?\n??\n.h?dden\n"},
		"line ends":         {"": "\xef\xbb\xbfabc\r\nfoobar\r\n1"},
		"ends in escape":    {"": "abc\\\nfoo/bar\\\n"},
		"empty patterns":    {"": "/\n!\n!/\n//\n"},
		"several levels":    {"": "*.txt\n", "doc": "!*.txt\n", "doc/sub": "x.*\n!y.*\n"},
		"deeper from top":   {"dir": "/a\n", "dir/b": "c/a\n", "foo": "baz\n"},
		"excluded parent":   {"": "dir\n!dir/a\n!dir/b/a\n"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := writeFiles(t, t.TempDir(), files)
			for at, text := range ignore {
				writeFiles(t, dir, map[string]string{path.Join(at, ".gitignore"): text})
			}
			runGit(t, dir, "init", "-q")
			if got, want := names(t, dir), gitNames(t, dir); !slices.Equal(got, want) {
				t.Errorf("got  %q\nwant %q", got, want)
			}
			sub := filepath.Join(dir, "dir")
			want := gitNames(t, sub)
			if len(want) == 0 && len(names(t, sub)) > 0 {
				return // the folder is ignored, and named: then it is taken
			}
			if got := names(t, sub); !slices.Equal(got, want) {
				t.Errorf("dir: got  %q\nwant %q", got, want)
			}
		})
	}
}

// TestIgnoreRandom compares random rules with git.
func TestIgnoreRandom(t *testing.T) {
	rnd := rand.New(rand.NewSource(1))
	pick := func(s ...string) string { return s[rnd.Intn(len(s))] }
	element := func() string {
		var b strings.Builder
		for range 1 + rnd.Intn(3) {
			b.WriteString(pick("a", "b", "c", "a", "b", "*", "?", "[ab]", "[!a]", "\\a"))
		}
		return pick(b.String(), b.String(), b.String(), "**")
	}
	rule := func() string {
		s := element()
		for rnd.Intn(2) == 0 {
			s += "/" + element()
		}
		return pick("", "", "!") + pick("", "", "/") + s + pick("", "", "/")
	}
	for range 40 {
		dir := t.TempDir()
		files := map[string]string{}
		for range 40 {
			var elems []string
			for range 1 + rnd.Intn(4) {
				elems = append(elems, pick("a", "b", "c", "ab", "ba", "abc", "cab"))
			}
			elems[len(elems)-1] += "."[:rnd.Intn(2)]
			files["d"+strings.Join(elems, "/d")] = ""
			files[path.Join(path.Join(elems[:len(elems)-1]...), "f"+elems[len(elems)-1])] = ""
		}
		var rules []string
		for i := range 3 {
			lines := rule() + "\n" + rule() + "\n" + rule() + "\n"
			rules = append(rules, lines)
			files[path.Join([]string{"", "a", "da/db"}[i], ".gitignore")] = lines
		}
		for n := range files { // a name may be a folder's as well
			for d := path.Dir(n); d != "."; d = path.Dir(d) {
				delete(files, d)
			}
		}
		for n, content := range files {
			writeFiles(t, dir, map[string]string{n: content})
		}
		runGit(t, dir, "init", "-q")
		if got, want := names(t, dir), gitNames(t, dir); !slices.Equal(got, want) {
			for _, n := range want {
				if !slices.Contains(got, n) {
					t.Errorf("left out: %q", n)
				}
			}
			for _, n := range got {
				if !slices.Contains(want, n) {
					t.Errorf("taken: %q", n)
				}
			}
			t.Fatalf("rules %q", rules)
		}
	}
}

func FuzzParseIgnore(f *testing.F) {
	for _, s := range []string{"*.o", "!/a/**/b/", "[!a-z[:digit:]]?", "a\\", "[[:", "**/x", "a ** b\\ "} {
		f.Add(s, "a/b/c")
	}
	f.Fuzz(func(_ *testing.T, rule, name string) {
		if r, ok := parseIgnore(rule); ok && name != "" {
			r.match(strings.Split(name, "/"))
		}
	})
}

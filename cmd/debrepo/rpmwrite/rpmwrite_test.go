package rpmwrite

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// need skips where a tool is absent, and fails where tools are required.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatalf("%s is required: %v", tool, err)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

func rpm(t *testing.T, args ...string) string {
	t.Helper()
	need(t, "rpm")
	out, err := exec.Command("rpm", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("rpm %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var built = time.Unix(1600000000, 0)

func text(s string) (int64, func() (io.Reader, error)) {
	return int64(len(s)), func() (io.Reader, error) { return iotest.HalfReader(strings.NewReader(s)), nil }
}

func file(path, content string, mode uint32) File {
	f := File{Path: path, Mode: TypeRegular | mode, Owner: "root", Group: "root", MTime: built}
	f.Size, f.Open = text(content)
	return f
}

// sample has one of everything.
func sample() *Package {
	first, second := file("/opt/x/first", "same content", 0o640), file("/opt/x/second", "same content", 0o640)
	first.HardLink, second.HardLink = "set", "set"
	mutable := file("/opt/x/mutable", "old", 0o644)
	mutable.Flags, mutable.Mutable = Config|NoReplace, true
	return &Package{
		Name: "sample", Epoch: 3, Version: "1.0~rc1", Release: "2", Arch: "noarch",
		Summary: "one of everything", Description: "Two\nlines: ünïcödé.", License: "MIT", Group: "Test",
		SourceRPM: "sample-1.0~rc1-2.src.rpm", BuildHost: "host", BuildTime: built,
		Provides:  []Dep{{"sample", Equal, "3:1.0~rc1-2"}, {Name: "virtual"}, {Name: "virtual"}},
		Conflicts: []Dep{{"old", Less, "2"}}, Obsoletes: []Dep{{"old", Less, "2"}},
		Suggests: []Dep{{Name: "(a or b >= 2)"}},
		Files: []File{
			second, first, mutable,
			{Path: "/opt/x", Mode: TypeDir | 0o755, Owner: "root", Group: "root", MTime: built},
			{Path: "/opt/x/link", Mode: TypeLink | 0o777, Target: "first", Owner: "root", Group: "root", MTime: built},
			{Path: "/opt/x/ghost", Mode: TypeRegular | 0o600, Owner: "root", Group: "root", MTime: built, Flags: Ghost},
			file("/opt/x-y/large", strings.Repeat("0123456789", 100000), 0o4755),
			file("/opt/x/empty", "", 0o644),
		},
		Scripts: []Script{
			{PreIn, "<lua>", `posix.mkdir("/pre")`},
			{PostIn, "<lua>", `assert(posix.stat("/opt/x/first")); posix.mkdir("/post")`},
			{PostTrans, "<lua>", `posix.mkdir("/posttrans")`},
		},
		Triggers: []Trigger{
			{[]string{"/opt/x"}, 1000200, "<lua>", `posix.mkdir("/first")`},
			{[]string{"/none", "/opt/x-y"}, 1000100, "<lua>", `assert(posix.stat("/first")); posix.mkdir("/second")`},
			{[]string{"/elsewhere"}, 1000100, "<lua>", `posix.mkdir("/wrong")`},
		},
	}
}

func write(t *testing.T, p *Package, sign Sign) []byte {
	t.Helper()
	spool, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	var b bytes.Buffer
	if err := Write(&b, p, spool, sign); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func writeTo(t *testing.T, p *Package) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), p.FileName())
	if err := os.WriteFile(name, write(t, p, nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestQuery(t *testing.T) {
	name := writeTo(t, sample())
	for _, c := range []struct{ format, want string }{
		{"%{nevra} %{evr} %{buildtime}", "sample-3:1.0~rc1-2.noarch 3:1.0~rc1-2 1600000000"},
		{"%{description}", "Two\nlines: ünïcödé."},
		{"[%{providename}%{provideflags:depflags}%{provideversion}|]", "sample=3:1.0~rc1-2|virtual|"},
		{"[%{conflictname}%{conflictflags:depflags}%{conflictversion}|][%{obsoletes}|][%{suggests}|]", "old<2|old|(a or b >= 2)|"},
		{"[%{transfiletriggername} %{transfiletriggerindex}|][%{transfiletriggerpriorities}|]",
			"/opt/x 0|/none 1|/opt/x-y 1|/elsewhere 2|1000200|1000100|1000100|"},
		{"[%{filenames} %{filesizes} %{filenlinks} %{fileflags:fflags}|]", "/opt/x 4096 1 |/opt/x-y/large 1000000 1 |/opt/x/empty 0 1 |/opt/x/first 12 2 |" +
			"/opt/x/ghost 0 1 g|/opt/x/link 5 1 |/opt/x/mutable 3 1 cn|/opt/x/second 12 2 |"},
		{"%{size} %{rpmversion}", "1000020 4.18.0"},
	} {
		if got := rpm(t, "-qp", "--qf", c.format, name); got != c.want {
			t.Errorf("%s:\ngot  %q\nwant %q", c.format, got, c.want)
		}
	}
	if got := rpm(t, "-K", name); !strings.HasSuffix(got, ": digests OK\n") {
		t.Errorf("rpm -K: %s", got)
	}
}

// TestInstall installs into a new root: the payload, the scriptlets and the triggers, in order.
func TestInstall(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("rpm --root calls chroot, which needs root")
	}
	name, root := writeTo(t, sample()), t.TempDir()
	out := rpm(t, "--root", root, "--dbpath", "/db", "--nosignature", "-i", name)
	for line := range strings.Lines(out) { // Debian's rpm greets
		if !strings.HasPrefix(line, "rpm: ") {
			t.Errorf("rpm -i: %s", line)
		}
	}
	for _, dir := range []string{"pre", "post", "posttrans", "first", "second"} {
		if _, err := os.Stat(filepath.Join(root, dir)); err != nil {
			t.Errorf("a script did not run: %v", err)
		}
	}
	if _, err := os.Stat(filepath.Join(root, "wrong")); err == nil {
		t.Error("a trigger ran for files that are not there")
	}
	a, err := os.Stat(filepath.Join(root, "opt/x/first"))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.Stat(filepath.Join(root, "opt/x/second"))
	if err != nil {
		t.Fatal(err)
	}
	if !os.SameFile(a, b) {
		t.Error("first and second are not one file")
	}
	if c, err := os.ReadFile(filepath.Join(root, "opt/x/first")); err != nil || string(c) != "same content" {
		t.Errorf("content of the hard link: got %q, %v", c, err)
	}
	if err := os.WriteFile(filepath.Join(root, "opt/x/mutable"), []byte("changed"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := rpm(t, "--root", root, "--dbpath", "/db", "-V", "--noghost", "sample"); out != "" {
		t.Errorf("rpm -V: %s", out)
	}
}

func TestDeterministic(t *testing.T) {
	sign := func(r io.Reader, at time.Time) ([]byte, error) {
		n, err := io.Copy(io.Discard, r)
		return []byte{byte(n), byte(at.Unix())}, err
	}
	p := sample()
	first := write(t, p, sign)
	for i, j := 0, len(p.Files)-1; i < j; i, j = i+1, j-1 {
		p.Files[i], p.Files[j] = p.Files[j], p.Files[i]
	}
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("GOMAXPROCS", "1")
	if !bytes.Equal(first, write(t, p, sign)) {
		t.Error("the order of files changes the bytes")
	}
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	for _, c := range []struct {
		name, want string
		change     func(*Package)
	}{
		{"version", `version "1-2"`, func(p *Package) { p.Version = "1-2" }},
		{"no name", `name ""`, func(p *Package) { p.Name = "" }},
		{"relative", "clean absolute path", func(p *Package) { p.Files[0].Path = "opt" }},
		{"twice", "twice", func(p *Package) { p.Files[0].Path = p.Files[1].Path }},
		{"device", "neither file", func(p *Package) { p.Files[0].Mode = 0o020600 }},
		{"large", "2 GiB", func(p *Package) { p.Files[0].Size = 1 << 31 }},
		{"zero byte", "zero byte", func(p *Package) { p.Summary = "a\x00b" }},
		{"short", "got 0 bytes, want 1", func(p *Package) { p.Files[7].Size = 1 }},
		{"unreadable", "broken", func(p *Package) {
			p.Files[7].Open = func() (io.Reader, error) { return iotest.ErrReader(broken), nil }
		}},
		{"unopened", "broken", func(p *Package) { p.Files[7].Open = func() (io.Reader, error) { return nil, broken } }},
	} {
		p := sample()
		c.change(p)
		spool, err := os.CreateTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(io.Discard, p, spool, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
		spool.Close()
	}
}

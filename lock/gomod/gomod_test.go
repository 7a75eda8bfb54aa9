package gomod

import (
	"io/fs"
	"reflect"
	"strings"
	"testing"
	"testing/fstest"

	"golang.org/x/mod/module"
)

// Two hashes of the right form.
const (
	h1a = "h1:1p2G5COR51f8Q3EQ4HLJQDDL2ytLEqfL/yTawB0Jr8w="
	h1b = "h1:8wlg68NqwW7eMnI1aABk/C2pDYXj8mrMY4TyRfiLeS0="
)

// folder is a source folder of these files; A and B in them stand for hashes.
func folder(files map[string]string) fs.FS {
	fsys := fstest.MapFS{}
	for name, s := range files {
		s = strings.ReplaceAll(strings.ReplaceAll(s, " A\n", " "+h1a+"\n"), " B\n", " "+h1b+"\n")
		fsys[name] = &fstest.MapFile{Data: []byte(s)}
	}
	return fsys
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string
		want  []Module
	}{
		{"no requirements", map[string]string{"go.mod": "module m\n\ngo 1.25\n"}, []Module{}},
		{"pruned: zips of the build list only", map[string]string{
			"go.mod": "module m\n\ngo 1.25\n\nrequire a.b/c v1.1.0\n\nrequire a.b/d v1.0.0 // indirect\n",
			"go.sum": "a.b/c v1.0.0 A\na.b/c v1.0.0/go.mod B\na.b/c v1.1.0 A\na.b/c v1.1.0/go.mod B\na.b/d v1.0.0/go.mod B\n\na.b/e v1.0.0 A\n",
		}, []Module{{"a.b/c", "v1.0.0", "", h1b}, {"a.b/c", "v1.1.0", h1a, h1b}, {"a.b/d", "v1.0.0", "", h1b}}},
		{"go 1.16: every zip", map[string]string{
			"go.mod": "module m\n\ngo 1.16\n\nrequire a.b/c v1.10.0\n",
			"go.sum": "a.b/c v1.10.0 A\na.b/c v1.10.0/go.mod B\na.b/c v1.9.0 A\na.b/c v1.9.0/go.mod B\n",
		}, []Module{{"a.b/c", "v1.9.0", h1a, h1b}, {"a.b/c", "v1.10.0", h1a, h1b}}},
		{"replaced by a fork, by a folder, and one version only", map[string]string{
			"go.mod": "module m\n\ngo 1.25\n\nrequire (\n\ta.b/c v1.0.0\n\ta.b/d v1.0.0\n\ta.b/e v1.0.0\n)\n\n" +
				"replace a.b/c => x.y/Fork v1.2.3\n\nreplace a.b/d v1.0.0 => ./d\n\nreplace a.b/e v0.9.0 => ../out\n",
			"d/go.mod": "module a.b/d\n",
			"go.sum":   "x.y/Fork v1.2.3 A\nx.y/Fork v1.2.3/go.mod B\na.b/e v1.0.0 A\na.b/e v1.0.0/go.mod A\n",
		}, nil},
		{"what the go command passes over", map[string]string{
			"go.mod": "module m\n\ngo 1.25\n\nrequire a.b/c v1.0.0\n",
			"go.sum": "a.b/c v1.0.0 A\na.b/c v1.0.0 A\na.b/c v1.0.0/go.mod h2:xyz\na.b/c v1.0.0/go.mod B\n" +
				"a.b/z v1.0.0/go.mod " + emptyGoMod + "\n",
		}, []Module{{"a.b/c", "v1.0.0", h1a, h1b}}},
		{"workspace", map[string]string{
			"go.work":     "go 1.25\n\nuse (\n\t.\n\t./lib\n)\n\nreplace a.b/old => ./lib/old\n",
			"go.work.sum": "a.b/w v1.0.0/go.mod B\n",
			"go.mod":      "module m\n\ngo 1.25\n\nrequire (\n\tm/lib v0.0.0\n\ta.b/old v1.0.0\n)\n",
			"lib/go.mod":  "module m/lib\n\ngo 1.25\n\nrequire a.b/c v1.0.0\n\nreplace a.b/x => ../x\n",
			"lib/go.sum":  "a.b/c v1.0.0 A\na.b/c v1.0.0/go.mod B\na.b/c v0.9.0 A\na.b/c v0.9.0/go.mod B\n",
			"x/go.mod":    "module a.b/x\n", "lib/old/go.mod": "module a.b/old\n",
		}, []Module{{"a.b/c", "v0.9.0", h1a, h1b}, {"a.b/c", "v1.0.0", h1a, h1b}, {"a.b/w", "v1.0.0", "", h1b}}},
	} {
		got, err := Read(folder(tt.files))
		if tt.want == nil {
			if want := `go.mod: replace a.b/e => ../out: outside of the source folder`; err == nil || !strings.HasPrefix(err.Error(), want) {
				t.Errorf("%s: got %v, want %q", tt.name, err, want)
			}
			continue
		}
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: got %v, %v\nwant %v", tt.name, got, err, tt.want)
		}
	}
}

func TestReadErrors(t *testing.T) {
	const req = "module m\n\ngo 1.25\n\nrequire a.b/c v1.0.0\n"
	for _, tt := range []struct {
		files map[string]string
		want  string
	}{
		{map[string]string{}, "reading go.mod: open go.mod: file does not exist"},
		{map[string]string{"go.mod": "modul m\n"}, "unknown directive: modul"},
		{map[string]string{"go.mod": req}, "require a.b/c v1.0.0: go.sum has no hash for the go.mod of a.b/c v1.0.0; run `go mod tidy`"},
		{map[string]string{"go.mod": req, "go.sum": "a.b/c v1.0.0 A\n"}, "run `go mod tidy`"},
		{map[string]string{"go.mod": req + "\nreplace a.b/c => x.y/z v1.0.0\n", "go.sum": "a.b/c v1.0.0/go.mod A\n"}, "no hash for the go.mod of x.y/z v1.0.0"},
		{map[string]string{"go.mod": req, "go.sum": "a.b/c v1.0.0\n"}, "go.sum:1: got 2 fields"},
		{map[string]string{"go.mod": req, "go.sum": "\na.b/c v1.0.0 h1:short=\n"}, "go.sum:2: hash \"h1:short=\""},
		{map[string]string{"go.mod": req, "go.sum": "../c v1.0.0 A\n"}, "go.sum:1: malformed module path"},
		{map[string]string{"go.mod": req, "go.sum": "a.b/c v1.0.0 A\na.b/c v1.0.0 B\n"}, "go.sum:2: a.b/c v1.0.0: two hashes"},
		{map[string]string{"go.mod": req + "\nreplace a.b/c => /abs\n"}, "outside of the source folder"},
		{map[string]string{"go.mod": req + "\nreplace a.b/c => ./none\n"}, "replace a.b/c => ./none: open none/go.mod: file does not exist"},
		{map[string]string{"go.work": "go 1.25\n\nuse ../other\n"}, "go.work: use ../other: outside of the source folder"},
		{map[string]string{"go.work": "go 1.25\n\nuse ./lib\n"}, "reading lib/go.mod"},
	} {
		if _, err := Read(folder(tt.files)); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("got %v, want %q in it", err, tt.want)
		}
	}
}

func TestGoVersion(t *testing.T) {
	for _, tt := range []struct {
		files          map[string]string
		want           string
		older, younger string
	}{
		{map[string]string{"go.mod": "module m\n\ngo 1.25.3\n"}, "1.25.3", "go1.25.2", "go1.25.3"},
		{map[string]string{"go.mod": "module m\n\ngo 1.25\n"}, "1.25", "go1.24.9", "go1.25.0"},
		{map[string]string{"go.mod": "module m\n"}, "1.16", "", "go1.21.0"},
		{map[string]string{"go.mod": "module m\n\ngo 1.20\n", "go.work": "go 1.26.0\n"}, "1.26.0", "go1.26rc1", "go1.26.0"},
	} {
		fsys := folder(tt.files)
		got, err := GoVersion(fsys)
		if err != nil || got != tt.want {
			t.Errorf("got %q, %v, want %q", got, err, tt.want)
		}
		if tt.older != "" {
			if err := CheckToolchain(fsys, tt.older); err == nil {
				t.Errorf("%s passed for go %s", tt.older, tt.want)
			}
		}
		if err := CheckToolchain(fsys, tt.younger); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"", "1.26.0", "go1.26", "go1.20.1", "go1.26.0-x", "go1.26.0 ", "go2.0.0", "go1.26.0/.."} {
		if err := CheckToolchain(folder(map[string]string{"go.mod": "module m\n"}), name); err == nil {
			t.Errorf("toolchain %q was accepted", name)
		}
	}
}

func TestPaths(t *testing.T) {
	m := Module{Path: "github.com/BurntSushi/toml", Version: "v1.6.0-RC1"}
	if got, want := ZipPath(m), "github.com/!burnt!sushi/toml/@v/v1.6.0-!r!c1.zip"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	m = Module{Path: "github.com/google/uuid", Version: "v1.6.0"}
	if got, want := ModPath(m), "github.com/google/uuid/@v/v1.6.0.mod"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := ZipPath(Module{Path: "../x", Version: "v1"}); got != "" {
		t.Errorf("a path for ../x: %q", got)
	}
}

func FuzzSum(f *testing.F) {
	f.Add([]byte("a.b/c v1.0.0 " + h1a + "\na.b/c v1.0.0/go.mod " + h1b + "\n"))
	f.Add([]byte("github.com/BurntSushi/toml v1.6.0+incompatible " + h1a + "\n\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		sums := make(map[module.Version]Module)
		if parseSum("go.sum", b, sums) != nil {
			return
		}
		for _, m := range sums {
			// A file name made of it stays below the proxy's folder.
			if p := ModPath(m); !fs.ValidPath(p) {
				t.Errorf("%v lies at %q", m, p)
			}
		}
	})
}

func FuzzRead(f *testing.F) {
	f.Add("module m\n\ngo 1.25\n\nrequire a.b/c v1.0.0\n\nreplace a.b/c => ./d\n", "go 1.25\n\nuse .\n")
	f.Add("module m\n", "")
	f.Fuzz(func(_ *testing.T, mod, work string) {
		files := map[string]string{"go.mod": mod}
		if work != "" {
			files["go.work"] = work
		}
		fsys := folder(files)
		_, _ = Read(fsys)
		_, _ = GoVersion(fsys)
	})
}

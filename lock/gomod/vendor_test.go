package gomod

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"
)

// missing skips a test that wants a tool; where tools are required it fails.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CAISSON_TOOLS") == "required" {
		t.Fatal(what)
	}
	t.Skip(what)
}

func writeFiles(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, s := range files {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// proxy is a module proxy of files, in a folder.
type proxy struct {
	t   *testing.T
	dir string
	sum map[string]string // h1 by "PATH VERSION", of a go.mod by "PATH VERSION/go.mod"
}

func newProxy(t *testing.T) *proxy { return &proxy{t, t.TempDir(), make(map[string]string)} }

// add makes a module of files.
func (p *proxy) add(mpath, version string, files map[string]string) {
	p.t.Helper()
	m, src := Module{Path: mpath, Version: version}, p.t.TempDir()
	writeFiles(p.t, src, files)
	at := filepath.Join(p.dir, filepath.FromSlash(ZipPath(m)))
	writeFiles(p.t, p.dir, map[string]string{ModPath(m): files["go.mod"], strings.TrimSuffix(ZipPath(m), ".zip") + ".info": `{"Version":"` + version + `"}`})
	f, err := os.Create(at)
	if err != nil {
		p.t.Fatal(err)
	}
	defer f.Close()
	if err := modzip.CreateFromDir(f, module.Version{Path: mpath, Version: version}, src); err != nil {
		p.t.Fatal(err)
	}
	if p.sum[mpath+" "+version], err = ZipHash(at); err != nil {
		p.t.Fatal(err)
	}
	if p.sum[mpath+" "+version+"/go.mod"], err = ModHash([]byte(files["go.mod"])); err != nil {
		p.t.Fatal(err)
	}
}

// sums are go.sum lines of modules "PATH VERSION".
func (p *proxy) sums(names ...string) string {
	var b strings.Builder
	for _, n := range names {
		h1, ok := p.sum[n]
		if !ok {
			p.t.Fatalf("there is no %s", n)
		}
		b.WriteString(n + " " + h1 + "\n")
	}
	return b.String()
}

func (p *proxy) fetch(_ context.Context, m module.Version, ext, h1 string) (string, error) {
	name, key := ZipPath(Module{Path: m.Path, Version: m.Version}), m.Path+" "+m.Version
	if ext == ".mod" {
		name, key = strings.TrimSuffix(name, ".zip")+".mod", key+"/go.mod"
	}
	if h1 != "" && p.sum[key] != h1 {
		return "", errors.New(key + ": another file")
	}
	name = filepath.Join(p.dir, filepath.FromSlash(name))
	_, err := os.Stat(name)
	return name, err
}

func (p *proxy) options(packages ...string) Options {
	o := Options{
		Arches: []string{"amd64"}, Toolchain: "go1.26.0", Fetch: p.fetch,
		Unlisted: func(_ context.Context, path, version string) (string, bool, error) {
			if strings.HasPrefix(path, "private.") {
				return "", false, nil
			}
			h1, ok := p.sum[path+" "+version]
			if !ok {
				return "", false, fs.ErrNotExist
			}
			return h1, true, nil
		},
	}
	for _, name := range packages {
		o.Packages = append(o.Packages, Package{Path: name})
	}
	return o
}

// vendoredSource has the go command vendor a source that has every kind of
// dependency.
func vendoredSource(t *testing.T, p *proxy) string {
	t.Helper()
	p.add("example.org/a", "v1.0.0", map[string]string{
		"go.mod": "module example.org/a\n\ngo 1.21\n", "a.go": "package a\n\nimport _ \"embed\"\n\n//go:embed data/x.txt\nvar X string\n",
		"a_test.go": "package a\n", "data/x.txt": "x\n", "LICENSE": "free\n", "unused/u.go": "package unused\n", "sub/s.go": "package sub\n",
	})
	p.add("example.org/fork", "v1.2.0", map[string]string{"go.mod": "module example.org/orig\n\ngo 1.21\n", "o.go": "package orig\n"})
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"go.mod": "module m\n\ngo 1.21\n\nrequire (\n\texample.org/a v1.0.0\n\texample.org/orig v1.0.0\n\texample.org/local v0.0.0\n)\n\n" +
			"replace example.org/orig v1.0.0 => example.org/fork v1.2.0\n\nreplace example.org/local => ./local\n",
		"go.sum":       p.sums("example.org/a v1.0.0", "example.org/a v1.0.0/go.mod", "example.org/fork v1.2.0", "example.org/fork v1.2.0/go.mod"),
		"m.go":         "package main\n\nimport (\n\t_ \"example.org/a\"\n\t_ \"example.org/a/sub\"\n\t_ \"example.org/local\"\n\t_ \"example.org/orig\"\n)\n\nfunc main() {}\n",
		"local/go.mod": "module example.org/local\n\ngo 1.21\n", "local/l.go": "package local\n",
	})
	runGo(t, p, dir, "mod", "vendor")
	return dir
}

// runGo runs the go command on a source, with the proxy and nothing else.
func runGo(t *testing.T, p *proxy, dir string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("go"); err != nil {
		missing(t, err.Error())
	}
	cmd := exec.Command("go", args...)
	cmd.Dir = dir
	tmp, err := os.MkdirTemp("", "caisson-gomod")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(tmp) })
	cmd.Env = append(os.Environ(), "GOPROXY=file://"+p.dir, "GOSUMDB=off", "GOFLAGS=-modcacherw", "GOMODCACHE="+tmp, "GOTOOLCHAIN=local", "GOWORK=", "GOENV=off")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", args, err, out)
	}
}

// checkVendor locks a source and compares its vendor tree.
func checkVendor(p *proxy, dir string) error {
	needed, err := Load(context.Background(), os.DirFS(dir), p.options())
	if err != nil {
		return err
	}
	return CheckVendor(os.DirFS(dir), ".", needed, func(m Module) (string, error) {
		return p.fetch(context.Background(), module.Version{Path: m.Path, Version: m.Version}, ".zip", m.ZipH1)
	})
}

func TestCheckVendor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change map[string]string // to what go vendored; empty: removed
		want   string
	}{
		{"as go made it", nil, ""},
		{"changed", map[string]string{"vendor/example.org/a/a.go": "package a // evil\n"}, "vendor/example.org/a/a.go: not the file of example.org/a@v1.0.0; run `go mod vendor`, and see what has changed"},
		{"embedded file changed", map[string]string{"vendor/example.org/a/data/x.txt": "y\n"}, "vendor/example.org/a/data/x.txt: not the file"},
		{"licence changed", map[string]string{"vendor/example.org/a/LICENSE": "mine\n"}, "vendor/example.org/a/LICENSE: not the file"},
		{"file added", map[string]string{"vendor/example.org/a/sub/evil.go": "package sub\n"}, "vendor/example.org/a/sub/evil.go: not the file"},
		{"replacement changed", map[string]string{"vendor/example.org/orig/o.go": "package orig // evil\n"}, "vendor/example.org/orig/o.go: not the file"},
		{"local changed", map[string]string{"vendor/example.org/local/l.go": "package local // evil\n"}, "vendor/example.org/local/l.go: not the file"},
		{"module added", map[string]string{"vendor/evil.org/x/x.go": "package x\n"}, "vendor/evil.org/x/x.go: of no module"},
		{"not explicit", map[string]string{"vendor/modules.txt": "# example.org/a v1.0.0\nexample.org/a\n"}, "vendor/modules.txt: go.mod requires example.org/a@v1.0.0, which is not marked as explicit there; run `go mod vendor`"},
		{"no modules.txt", map[string]string{"vendor/modules.txt": "", "vendor/x/y": "z"}, ""},
		{"a workspace's", map[string]string{"vendor/modules.txt": "## workspace\n", "vendor/x/y": "z"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := newProxy(t)
			dir := vendoredSource(t, p)
			for name, text := range tt.change {
				if text == "" {
					os.Remove(filepath.Join(dir, name))
					continue
				}
				writeFiles(t, dir, map[string]string{name: text})
			}
			if err := checkVendor(p, dir); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

// TestVendorConsistency compares with the go command's own verdict.
func TestVendorConsistency(t *testing.T) {
	for name, change := range map[string][2]string{
		"as it is":            {"", ""},
		"another version":     {"example.org/a v1.0.0", "example.org/a v1.0.1"},
		"not replaced":        {"replace example.org/local => ./local", ""},
		"replaced otherwise":  {"=> ./local", "=> ./local2"},
		"replaced by another": {"example.org/fork v1.2.0", "example.org/fork v1.2.1"},
		"one more":            {"require (", "require (\n\texample.org/b v1.0.0"},
		"one less":            {"\texample.org/a v1.0.0\n", ""},
		"one replaced more":   {"=> ./local\n", "=> ./local\n\nreplace example.org/q => ./local2\n"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			dir := vendoredSource(t, p)
			b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
			if err != nil {
				t.Fatal(err)
			}
			text := string(b)
			if change[0] != "" {
				if text = strings.Replace(text, change[0], change[1], 1); text == string(b) {
					t.Fatal("nothing was changed")
				}
			}
			writeFiles(t, dir, map[string]string{"go.mod": text, "local2/go.mod": "module example.org/local\n", "local2/l.go": "package local\n"})
			cmd := exec.Command("go", "list", "-mod=vendor", ".")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=", "GOWORK=off", "GOTOOLCHAIN=local")
			out, goErr := cmd.CombinedOutput()
			s, err := readSource(os.DirFS(dir), ".")
			if err == nil {
				mods, _ := readFile(os.DirFS(dir), "vendor/modules.txt")
				c := &vendorCheck{loader: &loader{source: s}, v: parseVendor(mods)}
				if err = c.setReplacements(); err == nil {
					err = c.consistent()
				}
			} else if strings.Contains(err.Error(), "no hash") {
				err = nil // go does not look at go.sum here
				goErr = nil
			}
			if (err == nil) != (goErr == nil) {
				t.Errorf("got %v, go says %v\n%s", err, goErr, out)
			}
		})
	}
}

func FuzzVendor(f *testing.F) {
	f.Add([]byte("# example.org/a v1.0.0 => example.org/b v1.1.0\n## explicit; go 1.21\nexample.org/a\nexample.org/a/sub\n# example.org/c => ./c\n"))
	f.Add([]byte("## workspace\n# \n# x\n## explicit\n#  => \n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		v := parseVendor(b)
		for p, m := range v.packages {
			if module.CheckImportPath(p) != nil || m.Path == "" {
				t.Errorf("package %q of %v", p, m)
			}
		}
	})
}

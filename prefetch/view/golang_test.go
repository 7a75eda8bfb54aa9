package view

import (
	"archive/zip"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/gomod"
	"caisson/lock/tooltest"
	"caisson/prefetch/cas"
)

// module is a Go module to make.
type module struct {
	path, version string
	files         map[string]string
}

func (m module) zip(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range m.files {
		f, err := w.Create(m.path + "@" + m.version + "/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inputs puts the module into the store. sum is its lines of go.sum.
func (m module) inputs(t *testing.T, s *cas.Store) (in []lock.Input, sum string) {
	t.Helper()
	z, mod := m.zip(t), []byte(m.files["go.mod"])
	zd, md := put(t, s, z), put(t, s, mod)
	zh, err := gomod.ZipHash(s.Path(zd))
	if err != nil {
		t.Fatal(err)
	}
	mh, err := gomod.ModHash(mod)
	if err != nil {
		t.Fatal(err)
	}
	name := m.path + "@" + m.version
	in = []lock.Input{
		{Kind: lock.KindGo, Name: name + ".mod", SHA256: md, Go: &lock.Go{Module: m.path, Version: m.version, H1: mh}},
		{Kind: lock.KindGo, Name: name + ".zip", SHA256: zd, Go: &lock.Go{Module: m.path, Version: m.version, H1: zh}},
	}
	return in, m.path + " " + m.version + " " + zh + "\n" + m.path + " " + m.version + "/go.mod " + mh + "\n"
}

// goWorld is a program of two modules, with a toolchain that says so.
func goWorld(t *testing.T, s *cas.Store) (l *lock.Lock, source string) {
	t.Helper()
	l = &lock.Lock{}
	source = t.TempDir()
	sum := ""
	for _, m := range []module{
		{"example.com/Lib", "v1.2.3", map[string]string{
			"go.mod":   "module example.com/Lib\n\ngo 1.21\n\nrequire example.org/base/v2 v2.0.1-0.20240102030405-abcdefabcdef\n",
			"lib.go":   "package lib\n\nimport \"example.org/base/v2\"\n\nfunc Text() string { return \"lib and \" + base.Text }\n",
			"x/x.go":   "package x\n",
			"LICENSE":  "x",
			"doc/a.md": "x",
		}},
		{"example.org/base/v2", "v2.0.1-0.20240102030405-abcdefabcdef", map[string]string{
			"go.mod": "module example.org/base/v2\n\ngo 1.21\n", "base.go": "package base\n\nconst Text = \"base\"\n",
		}},
	} {
		in, lines := m.inputs(t, s)
		l.Inputs = append(l.Inputs, in...)
		sum += lines
	}
	tc := module{"golang.org/toolchain", "v0.0.1-go1.99.1.linux-amd64", map[string]string{
		"bin/go": "#!/bin/sh\necho I am go1.99.1: $*\n", "pkg/tool/x": "", "lib/x": "", "bin/gofmt": "", "VERSION": "go1.99.1\n", "_go.mod": "module std\n",
	}}
	l.Inputs = append(l.Inputs, lock.Input{
		Kind: lock.KindToolchain, Name: tc.path + "@" + tc.version + ".zip", SHA256: put(t, s, tc.zip(t)), Go: &lock.Go{Module: tc.path, Version: tc.version},
	})
	for name, content := range map[string]string{
		"go.mod":  "module app\n\ngo 1.21\n\nrequire example.com/Lib v1.2.3\n\nrequire example.org/base/v2 v2.0.1-0.20240102030405-abcdefabcdef // indirect\n",
		"go.sum":  sum,
		"main.go": "package main\n\nimport \"example.com/Lib\"\n\nfunc main() { println(lib.Text()) }\n",
	} {
		if err := os.WriteFile(filepath.Join(source, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return l, source
}

// goEnv is what a build in a pipeline has from Hermeto: the view is cache
// and proxy in one.
func goEnv(view, gomodcache string) []string {
	return []string{
		"GOMODCACHE=" + gomodcache, "GOPROXY=file://" + view + "/cache/download", "GOSUMDB=off", "GOENV=off", "GOWORK=off",
		"GOFLAGS=-mod=mod -modcacherw", "GOTOOLCHAIN=local", "GOVCS=*:off",
	}
}

func TestGo(t *testing.T) {
	goTool := tooltest.Find(t, "go")
	s := newStore(t)
	l, source := goWorld(t, s)
	tree := New(s)
	if err := tree.Go("", l); err != nil {
		t.Fatal(err)
	}
	dir := write(t, tree)
	goRun := func(env []string, args ...string) (string, error) {
		return run(t, source, env, append(append(offline(t), goTool), args...)...)
	}
	for _, tt := range []struct {
		name, cache string
		env         []string
	}{
		{"proxy", t.TempDir(), nil},
		{"proxy, read-only", t.TempDir(), []string{"GOFLAGS=-mod=readonly -modcacherw"}},
		{"proxy, with the checksum database", t.TempDir(), []string{"GOSUMDB=sum.golang.org", "GOFLAGS=-modcacherw"}},
		{"cache and proxy", dir, nil},
		{"cache", dir, []string{"GOPROXY=off"}},
		{"cache, read-only", dir, []string{"GOPROXY=off", "GOFLAGS=-mod=readonly"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			env := append(goEnv(dir, tt.cache), tt.env...)
			for _, args := range [][]string{
				{"mod", "download"}, {"mod", "verify"}, {"build", "-o", filepath.Join(t.TempDir(), "app"), "."}, {"list", "-deps", "all"}, {"mod", "vendor", "-o", t.TempDir() + "/v"},
			} {
				if out, err := goRun(env, args...); err != nil {
					t.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
				}
			}
		})
	}
	// A version by its name, for which go asks the .info.
	if out, err := goRun(goEnv(dir, t.TempDir()), "mod", "download", "-json", "example.com/Lib@v1.2.3"); err != nil || !strings.Contains(out, `"Version": "v1.2.3"`) {
		t.Errorf("%v\n%s", err, out)
	}
	// Another toolchain, by its name and as go.mod asks for it.
	out, err := goRun(append(goEnv(dir, t.TempDir()), "GOTOOLCHAIN=go1.99.1", "GOFLAGS=-modcacherw"), "env", "GOROOT")
	if err != nil || !strings.Contains(out, "I am go1.99.1: env GOROOT") {
		t.Errorf("%v\n%s", err, out)
	}
	newer := filepath.Join(t.TempDir(), "go.mod")
	if err := os.WriteFile(newer, []byte("module newer\n\ngo 1.22\n\ntoolchain go1.99.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err = run(t, filepath.Dir(newer), append(goEnv(dir, t.TempDir()), "GOTOOLCHAIN=auto", "GOFLAGS=-modcacherw"), append(offline(t), goTool, "build")...)
	if err != nil || !strings.Contains(out, "I am go1.99.1: build") {
		t.Errorf("%v\n%s", err, out)
	}
	// go has written into the view, and it is made anew all the same.
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir + "/example.com"); !os.IsNotExist(err) {
		t.Errorf("what go unpacked is still there: %v", err)
	}
}

// TestGoWorkspace builds a workspace of two modules, one of which uses the
// other, from the proxy and from the cache.
func TestGoWorkspace(t *testing.T) {
	goTool := tooltest.Find(t, "go")
	s := newStore(t)
	l, source := goWorld(t, s)
	sum, err := os.ReadFile(source + "/go.sum")
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	for name, content := range map[string]string{
		"go.work":     "go 1.21\n\nuse (\n\t./app\n\t./own\n)\n",
		"go.work.sum": string(sum),
		"own/go.mod":  "module example.net/own\n\ngo 1.21\n\nrequire example.com/Lib v1.2.3\n\nrequire example.org/base/v2 v2.0.1-0.20240102030405-abcdefabcdef // indirect\n",
		"own/own.go":  "package own\n\nimport \"example.com/Lib\"\n\nfunc Text() string { return lib.Text() }\n",
		"app/go.mod":  "module app\n\ngo 1.21\n",
		"app/main.go": "package main\n\nimport \"example.net/own\"\n\nfunc main() { println(own.Text()) }\n",
	} {
		name = filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tree := New(s)
	if err := tree.Go("", l); err != nil {
		t.Fatal(err)
	}
	dir := write(t, tree)
	for _, env := range [][]string{goEnv(dir, t.TempDir()), append(goEnv(dir, dir), "GOPROXY=off")} {
		app := filepath.Join(t.TempDir(), "app")
		env = append(env, "GOWORK="+work+"/go.work", "GOFLAGS=-modcacherw")
		if out, err := run(t, work, env, append(offline(t), goTool, "build", "-o", app, "./app")...); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		if out, err := run(t, work, nil, app); err != nil || out != "lib and base\n" {
			t.Errorf("got %q, %v", out, err)
		}
	}
}

// TestGoDamage shows that go hashes what it takes from a view.
func TestGoDamage(t *testing.T) {
	goTool := tooltest.Find(t, "go")
	s := newStore(t)
	l, source := goWorld(t, s)
	other := module{"example.org/base/v2", "v2.0.1-0.20240102030405-abcdefabcdef", map[string]string{
		"go.mod": "module example.org/base/v2\n\ngo 1.21\n", "base.go": "package base\n\nconst Text = \"evil\"\n",
	}}
	for i := range l.Inputs {
		if l.Inputs[i].Name == other.path+"@"+other.version+".zip" {
			l.Inputs[i].SHA256 = put(t, s, other.zip(t))
		}
	}
	tree := New(s)
	if err := tree.Go("", l); err != nil {
		t.Fatal(err)
	}
	dir := write(t, tree)
	for _, cache := range []string{t.TempDir(), dir} {
		out, err := run(t, source, goEnv(dir, cache), goTool, "build", "-o", os.DevNull, ".")
		if err == nil || !strings.Contains(out, "SECURITY ERROR") && !strings.Contains(out, "checksum mismatch") {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

func TestGoErrors(t *testing.T) {
	s := newStore(t)
	for _, in := range []lock.Input{
		{Kind: lock.KindGo, Name: "example.com/x@v1.0.0.info", Go: &lock.Go{Module: "example.com/x", Version: "v1.0.0"}},
		{Kind: lock.KindGo, Name: "../x@v1.0.0.zip", Go: &lock.Go{Module: "../x", Version: "v1.0.0"}},
	} {
		if err := New(s).Go("", &lock.Lock{Inputs: []lock.Input{in}}); err == nil {
			t.Errorf("%s was taken", in.Name)
		}
	}
}

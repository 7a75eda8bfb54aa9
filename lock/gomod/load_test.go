package gomod

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// world is modules to load sources against.
func loadWorld(t *testing.T) *proxy {
	p := newProxy(t)
	mod := func(path, version, more, body string) {
		p.add(path, version, map[string]string{"go.mod": "module " + path + "\n\ngo 1.21\n" + more, "x.go": body})
	}
	mod("example.org/a", "v1.0.0", "\nrequire (\n\texample.org/b v1.1.0\n\tprivate.org/c v1.0.0 // indirect\n)\n", "package a\n\nimport _ \"example.org/b\"\n")
	mod("example.org/b", "v1.0.0", "", "package b\n")
	mod("example.org/b", "v1.1.0", "\nrequire private.org/c v1.0.0\n", "package b\n\nimport _ \"private.org/c\"\n")
	mod("private.org/c", "v1.0.0", "", "package c\n")
	mod("example.org/b/sub", "v1.0.0", "", "package sub\n")
	mod("example.org/young", "v1.0.0", "\ntoolchain go1.99.1\n", "package young\n")
	p.add("example.org/younger", "v1.0.0", map[string]string{"go.mod": "module example.org/younger\n\ngo 1.99\n", "x.go": "package younger\n"})
	return p
}

// both are the sum lines of a module's two files.
func both(name string) []string { return []string{name, name + "/go.mod"} }

func TestLoad(t *testing.T) {
	p := loadWorld(t)
	sums := func(names ...string) string {
		s := ""
		for _, n := range names {
			s += p.sums(both(n)...)
		}
		return s
	}
	const head = "module m\n\ngo 1.21\n\n"
	for _, tt := range []struct {
		name  string
		files map[string]string
		cgo   bool
		want  string // "PATH@VERSION[+zip][?][<BY]", or an error
	}{
		{"listed", map[string]string{
			"go.mod": head + "require example.org/b v1.0.0\n", "go.sum": sums("example.org/b v1.0.0"), "m.go": "package main\n\nimport _ \"example.org/b\"\n",
		}, false, "example.org/b@v1.0.0+zip"},
		{"no zip in go.sum", map[string]string{
			"go.mod": head + "require example.org/b v1.0.0\n", "go.sum": p.sums("example.org/b v1.0.0/go.mod"), "m.go": "package main\n\nimport _ \"example.org/b\"\n",
		}, false, "error: package m imports example.org/b: go.sum has no hash for example.org/b v1.0.0; run `go mod tidy`"},
		{"no zip in go.sum, only for another system", map[string]string{
			"go.mod": head + "require example.org/b v1.0.0\n", "go.sum": p.sums("example.org/b v1.0.0/go.mod"),
			"m.go": "package main\n", "m_windows.go": "package main\n\nimport _ \"example.org/b\"\n",
			"n.go": "//go:build !go1.20\n\npackage main\n\nimport _ \"example.org/b\"\n", "m_test.go": "package main\n\nimport _ \"example.org/b\"\n",
		}, false, "example.org/b@v1.0.0"},
		{"without cgo", map[string]string{
			"go.mod": head + "require example.org/b v1.0.0\n", "go.sum": p.sums("example.org/b v1.0.0/go.mod"),
			"m.go": "package main\n", "c.go": "package main\n\nimport \"C\"\nimport _ \"example.org/b\"\n",
		}, false, "example.org/b@v1.0.0"},
		{"with cgo", map[string]string{
			"go.mod": head + "require example.org/b v1.0.0\n", "go.sum": p.sums("example.org/b v1.0.0/go.mod"),
			"m.go": "package main\n", "c.go": "package main\n\nimport \"C\"\nimport _ \"example.org/b\"\n",
		}, true, "error: package m imports example.org/b: go.sum has no hash for example.org/b v1.0.0; run `go mod tidy`"},
		{"nobody has it", map[string]string{"go.mod": head, "m.go": "package main\n\nimport _ \"example.org/b\"\n"}, false,
			"error: package m imports example.org/b: no required module has it; run `go mod tidy`"},
		{"two have it", map[string]string{
			"go.mod": head + "require (\n\texample.org/b v1.0.0\n\texample.org/b/sub v1.0.0\n)\n\nreplace example.org/b => ./b\n",
			"go.sum": sums("example.org/b/sub v1.0.0"), "b/go.mod": "module example.org/b\n", "b/sub/x.go": "package sub\n",
			"m.go": "package main\n\nimport _ \"example.org/b/sub\"\n",
		}, false, "error: package m imports example.org/b/sub: both example.org/b/sub@v1.0.0 and ./b have it"},
		{"through a local replacement", map[string]string{
			"go.mod": head + "require (\n\texample.org/local v0.0.0\n\texample.org/b v1.0.0 // indirect\n)\n\nreplace example.org/local => ./local\n",
			"go.sum": sums("example.org/b v1.0.0"), "local/go.mod": "module example.org/local\n\ngo 1.21\n\nrequire example.org/b v1.0.0\n",
			"local/x.go": "package local\n\nimport _ \"example.org/b\"\n", "m.go": "package main\n\nimport _ \"example.org/local\"\n",
		}, false, "example.org/b@v1.0.0+zip"},
		{"tool, exclude, retract, toolchain", map[string]string{
			"go.mod": head + "toolchain go1.25.1\n\nrequire example.org/b v1.0.0 // indirect\n\ntool example.org/b/cmd/x\n\nexclude example.org/b v1.1.0\n\nretract v0.1.0\n",
			"go.sum": sums("example.org/b v1.0.0"), "m.go": "package main\n",
		}, false, "example.org/b@v1.0.0+zip"},
		{"older than the go command's pruning", map[string]string{
			"go.mod": "module m\n\ngo 1.16\n\nrequire example.org/a v1.0.0\n", "m.go": "package main\n\nimport _ \"example.org/a\"\n",
			"go.sum": sums("example.org/a v1.0.0", "example.org/b v1.1.0", "private.org/c v1.0.0"),
		}, false, "example.org/a@v1.0.0+zip example.org/b@v1.1.0+zip<example.org/a@v1.0.0 private.org/c@v1.0.0+zip<example.org/a@v1.0.0"},
		{"only listed", map[string]string{
			"go.mod": head, "go.sum": p.sums("example.org/a v1.0.0/go.mod"), "m.go": "package main\n",
		}, false, "example.org/a@v1.0.0 listed"},
		{"workspace with a private module", map[string]string{
			"go.work": "go 1.21\n\nuse ./x\n", "x/go.mod": "module m\n\ngo 1.21\n\nrequire example.org/a v1.0.0\n", "x/m.go": "package main\n\nimport _ \"example.org/a\"\n",
		}, false, "example.org/a@v1.0.0+zip example.org/b@v1.1.0+zip<example.org/a@v1.0.0 private.org/c@v1.0.0+zip?<example.org/a@v1.0.0"},
		{"a workspace's replacement", map[string]string{
			"go.work":  "go 1.21\n\nuse ./x\n\nreplace example.org/b => example.org/b v1.0.0\n",
			"x/go.mod": "module m\n\ngo 1.21\n\nrequire example.org/a v1.0.0\n\nreplace example.org/b => ../none\n", "none/go.mod": "module example.org/b\n",
			"x/m.go": "package main\n\nimport _ \"example.org/a\"\n",
		}, false, "example.org/a@v1.0.0+zip example.org/b@v1.0.0+zip<example.org/a@v1.0.0"},
		{"replacements that contradict each other", map[string]string{
			"go.work": "go 1.21\n\nuse (\n\t./x\n\t./y\n)\n", "x/go.mod": "module x\n\nreplace example.org/b => ../b1\n", "y/go.mod": "module y\n\nreplace example.org/b => ../b2\n",
			"b1/go.mod": "module b\n", "b2/go.mod": "module b\n",
		}, false, "error: y/go.mod: replace example.org/b: another module of the workspace replaces it otherwise; decide in go.work"},
		{"two modules of a name", map[string]string{"go.work": "go 1.21\n\nuse (\n\t./x\n\t./y\n)\n", "x/go.mod": "module x\n", "y/go.mod": "module x\n"}, false,
			"error: go.work: two modules are called x"},
		{"a module for a later toolchain", map[string]string{
			"go.work": "go 1.21\n\nuse ./x\n", "x/go.mod": "module m\n\ngo 1.21\n\nrequire example.org/younger v1.0.0\n", "x/m.go": "package main\n\nimport _ \"example.org/younger\"\n",
		}, false, "error: package m imports example.org/younger: example.org/younger@v1.0.0 needs go1.99, and the toolchain is go1.26.0"},
		{"a module nobody has", map[string]string{
			"go.work": "go 1.21\n\nuse ./x\n", "x/go.mod": "module m\n\ngo 1.21\n\nrequire example.org/none v1.0.0\n", "x/m.go": "package main\n\nimport _ \"example.org/none\"\n",
		}, false, "error: package m imports example.org/none: file does not exist"},
		{"no Go", map[string]string{"go.mod": head, "m.go": "package main\n\nimport x\n"}, false, "error: package m: m.go:3:9: missing import path"},
	} {
		dir := t.TempDir()
		writeFiles(t, dir, tt.files)
		pkg := "."
		if _, ok := tt.files["x/go.mod"]; ok {
			pkg = "./x"
		}
		o := p.options(pkg)
		o.Packages[0].Cgo = tt.cgo
		if got := load(dir, o); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func load(dir string, o Options) string {
	needed, err := Load(context.Background(), os.DirFS(dir), o)
	if err != nil {
		return "error: " + err.Error()
	}
	var out []string
	for _, n := range needed {
		s := n.Path + "@" + n.Module.Version
		if n.ZipH1 != "" {
			s += "+zip"
		}
		if n.UnprovedMod || n.UnprovedZip {
			s += "?"
		}
		if n.By.Path != "" {
			s += fmt.Sprintf("<%s", n.By)
		}
		if n.Listed {
			s += " listed"
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

// TestLoadPackages looks at packages of all forms, and at all of a source for
// which no program is known.
func TestLoadPackages(t *testing.T) {
	p := loadWorld(t)
	dir := t.TempDir()
	writeFiles(t, dir, map[string]string{
		"go.work":  "go 1.21\n\nuse (\n\t.\n\t./x\n)\n",
		"go.mod":   "module m\n\ngo 1.21\n\nrequire example.org/b v1.0.0\n",
		"cmd/c.go": "package main\n\nimport _ \"m/internal\"\n", "internal/i.go": "package internal\n\nimport _ \"m/x/lib\"\n",
		"x/go.mod": "module m/x\n\ngo 1.21\n\nrequire example.org/b v1.0.0\n", "x/lib/l.go": "package lib\n\nimport _ \"example.org/b\"\n",
		"testdata/t.go": "no Go", "broken/b.go": "package broken\n\nimport _ \"nowhere.org/x\"\nimport _ \"..\"\n", "vendor/v/v.go": "no Go",
	})
	const b = "example.org/b@v1.0.0+zip"
	for pkg, want := range map[string]string{
		"./cmd": b, "m/cmd": b, "./x/lib": b, "./x/...": b, "m/internal": b, "example.org/b": b, "./cmd/...": b,
		"./broken":     "error: package m/broken imports ..: malformed import path \"..\": invalid path element \"..\"",
		"./none":       "error: package m/none: open none: no such file or directory",
		"./x...":       "error: package \"./x...\": want a folder, or one with /... behind it",
		"../x":         "error: package ../x: malformed import path \"../x\": invalid path element \"..\"",
		"example.org/": "error: package example.org/: malformed import path \"example.org/\": trailing slash",
	} {
		if got := load(dir, p.options(pkg)); got != want {
			t.Errorf("%s: got %s, want %s", pkg, got, want)
		}
	}
	if got := load(dir, p.options()); got != b {
		t.Errorf("all: got %s, want %s", got, b)
	}
}

// FuzzImports has Load look at any Go file.
func FuzzImports(f *testing.F) {
	f.Add("package main\n\nimport (\n\t\"fmt\"\n\tx \"a.b/c\"\n)\n", "require a.b/c v1.0.0\n")
	f.Add("//go:build linux\n\npackage main\n\nimport \"C\"\n", "tool a.b/c\n")
	f.Fuzz(func(_ *testing.T, file, mod string) {
		fsys := folder(map[string]string{"go.mod": "module m\n\ngo 1.25\n\n" + mod, "m.go": file})
		o := (&proxy{}).options(".")
		_, _ = Load(context.Background(), fsys, o)
	})
}

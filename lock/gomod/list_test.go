package gomod

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/module"
)

// TestList compares List with the go command: for this module, whose
// dependencies are many, and its standard library.
func TestList(t *testing.T) {
	if testing.Short() {
		t.Skip("it reads every package of the module")
	}
	out, err := exec.Command("go", "env", "GOROOT", "GOMODCACHE", "GOARCH", "GOVERSION").Output()
	if err != nil {
		missing(t, err.Error())
	}
	env := strings.Split(string(out), "\n")
	goroot, cache, arch, release := env[0], env[1], env[2], env[3]
	top, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, cgo := range []string{"0", "1"} {
		cmd := exec.Command("go", "list", "-deps", "-json=ImportPath,Standard,Module", "./...")
		cmd.Dir = top
		cmd.Env = append(os.Environ(), "GOOS=linux", "GOFLAGS=-mod=readonly", "GOPROXY=off", "GOWORK=off", "CGO_ENABLED="+cgo, "GOEXPERIMENT=none")
		text, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		var want []string
		for dec := json.NewDecoder(bytes.NewReader(text)); ; {
			var p struct {
				ImportPath string
				Module     module.Version
			}
			if err := dec.Decode(&p); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			want = append(want, p.ImportPath+" of "+p.Module.String())
		}
		slices.Sort(want)

		o := ListOptions{Cgo: cgo == "1", Std: os.DirFS(filepath.Join(goroot, "src")), Options: Options{
			Arches: []string{arch}, Toolchain: strings.Fields(release)[0],
			Fetch: func(_ context.Context, m module.Version, ext, _ string) (string, error) {
				name := ModPath(Module{Path: m.Path, Version: m.Version})
				if ext == ".zip" {
					name = ZipPath(Module{Path: m.Path, Version: m.Version})
				}
				return filepath.Join(cache, "cache/download", filepath.FromSlash(name)), nil
			},
		}}
		l, err := List(t.Context(), os.DirFS(top), o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, p := range l.Packages {
			got = append(got, p.ImportPath+" of "+p.Module.String())
		}
		for _, p := range want {
			if !slices.Contains(got, p) {
				t.Errorf("CGO_ENABLED=%s: %s is not listed", cgo, p)
			}
		}
		for _, p := range got {
			if !slices.Contains(want, p) {
				t.Errorf("CGO_ENABLED=%s: %s is listed", cgo, p)
			}
		}
	}
}

// TestListModules: where packages are from, in a source whose top is a folder
// of a larger tree.
func TestListModules(t *testing.T) {
	p := loadWorld(t)
	sums := p.sums(slices.Concat(both("example.org/b v1.0.0"), both("private.org/c v1.0.0"))...)
	for _, tt := range []struct {
		name, top string
		files     map[string]string
		local     string
		want      string // "IMPORTPATH MODULE[@VERSION] FOLDER"
	}{
		{"replacements", "m", map[string]string{
			"m/go.mod": "module m.org/m\n\ngo 1.21\n\nrequire (\n\texample.org/old v1.0.0\n\tl.org/l v0.0.0\n\tl.org/unused v0.0.0\n)\n\n" +
				"replace example.org/old => example.org/b v1.0.0\n\nreplace (\n\tl.org/l => ../l\n\tl.org/unused => ./unused\n)\n",
			"m/go.sum": sums, "m/m.go": "package m\n\nimport (\n\t_ \"example.org/old\"\n\t_ \"net/url\"\n\t_ \"nobody.org/has\"\n)\n",
			"m/broken/x.go": "package\n", "m/testdata/x.go": "package x\n", "m/tests/x_test.go": "package tests\n\nimport _ \"private.org/c\"\n",
			"m/windows/x_windows.go": "package windows\n", "m/sub/x_s390x.go": "package sub\n", "m/cgo/c.go": "package cgo\n\nimport \"C\"\n",
			"m/in/x.go": "package in\n\nimport _ \"l.org/l/deep\"\n", "l/go.mod": "module l.org/l\n", "l/deep/x.go": "package deep\n\nimport _ \"unsafe\"\n",
			"m/unused/go.mod": "module l.org/unused\n", "m/unused/x.go": "package unused\n",
		}, "l.org/l=l l.org/unused=m/unused m.org/m=m", "example.org/old example.org/b@v1.0.0 .|l.org/l/deep l.org/l deep|m.org/m m.org/m .|m.org/m/broken m.org/m broken|m.org/m/cgo m.org/m cgo|" +
			"m.org/m/in m.org/m in|m.org/m/sub m.org/m sub|m.org/m/tests m.org/m tests|net/url  net/url|runtime/cgo  runtime/cgo|syscall  syscall|unsafe  unsafe"},
		{"workspace", "w", map[string]string{
			"w/go.work": "go 1.21\n\nuse (\n\t./a\n\t../b\n)\n", "w/a/go.mod": "module w.org/a\n\ngo 1.21\n", "w/a/x.go": "package a\n\nimport _ \"w.org/b\"\n",
			"b/go.mod": "module w.org/b\n\ngo 1.21\n\nrequire example.org/b v1.0.0\n", "b/go.sum": sums, "b/x.go": "package b\n\nimport _ \"example.org/b\"\n",
		}, "w.org/a=w/a w.org/b=b", "example.org/b example.org/b@v1.0.0 .|w.org/a w.org/a .|w.org/b w.org/b ."},
	} {
		t.Run(tt.name, func(t *testing.T) {
			fsys := folder(tt.files)
			o := ListOptions{Cgo: true, Options: p.options()}
			o.Top, o.Arches = tt.top, []string{"amd64", "s390x"}
			if _, err := Load(t.Context(), fsys, o.Options); err != nil {
				t.Error(err)
			}
			l, err := List(t.Context(), fsys, o)
			if err != nil {
				t.Fatal(err)
			}
			var local, got []string
			for _, m := range l.Local {
				local = append(local, m.Path+"="+m.Dir)
			}
			for _, p := range l.Packages {
				got = append(got, p.ImportPath+" "+p.Module.String()+" "+p.Dir)
			}
			if got := strings.Join(local, " "); got != tt.local {
				t.Errorf("got modules %s, want %s", got, tt.local)
			}
			if got := strings.Join(got, "|"); got != tt.want {
				t.Errorf("got\n%s, want\n%s", got, tt.want)
			}
		})
	}
}

package lock

import (
	"bytes"
	"strings"
	"testing"
)

const workManifest = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "REPOS/base", gpgcheck: false}]}
inputs: {go: [{name: agent, dir: src, toolchain: go1.26.0}]}
steps: [{go: {input: agent, package: ./app, to: /usr/bin/agent, cgo: true}}]
`

// workWorld is a workspace without a single sum file, and modules for it: one
// is private.
func workWorld(t *testing.T) *world {
	w := newWorld(t)
	w.repo("base", "")
	var sums strings.Builder
	add := func(path, version, more, body string) {
		sums.WriteString(w.goModule(path, version, map[string]string{"go.mod": "module " + path + "\n\ngo 1.21\n" + more, "x.go": body}))
	}
	add("example.org/a", "v1.0.0", "\nrequire corp.example/b v1.0.0\n", "package a\n\nimport _ \"corp.example/b\"\n")
	add("corp.example/b", "v1.0.0", "", "package b\n")
	add("golang.org/toolchain", "v0.0.1-go1.26.0.linux-amd64", "", "")
	w.goSumDB(sums.String())
	writeFiles(t, w.dir, map[string]string{
		"src/go.work": "go 1.25\n\nuse ./app\n", "src/app/go.mod": "module app\n\ngo 1.25\n\nrequire example.org/a v1.0.0\n",
		"src/app/main.go": "package main\n\nimport _ \"example.org/a\"\n\nfunc main() {}\n",
	})
	return w
}

// TestResolveWorkspace locks what no sum file of the source lists.
func TestResolveWorkspace(t *testing.T) {
	w := workWorld(t)
	w.opts.NoSumDB = "corp.example/*"
	l := w.lock(workManifest)
	for name, want := range map[string]struct {
		why      string
		unproved bool
	}{
		"example.org/a@v1.0.0.mod":  {"go:agent src go.mod", false},
		"example.org/a@v1.0.0.zip":  {"go:agent src go.mod", false},
		"corp.example/b@v1.0.0.mod": {"go:agent example.org/a@v1.0.0 go.mod", true},
		"corp.example/b@v1.0.0.zip": {"go:agent example.org/a@v1.0.0 go.mod", true},
	} {
		in := l.Find(KindGo, name)
		if in == nil {
			t.Errorf("%s is not there", name)
			continue
		}
		if got := why(l, KindGo, name); got != want.why || in.Go.Unproved != want.unproved || !strings.HasPrefix(in.Go.H1, "h1:") {
			t.Errorf("%s: got %q, %+v, want %+v", name, got, in.Go, want)
		}
	}
	for _, u := range w.asked {
		if strings.HasPrefix(u, "/lookup/corp.example") {
			t.Errorf("the database was asked for %s", u)
		}
	}
	if !l.Steps[0].Go.Cgo {
		t.Error("cgo is not in the lock")
	}
	// An unchanged source keeps what was locked.
	w.opts.Old, w.asked = l, nil
	if again := w.lock(workManifest); !bytes.Equal(format(t, l), format(t, again)) {
		t.Error("the lock has changed")
	}
	for _, u := range w.asked {
		if !strings.Contains(u, "repodata") {
			t.Errorf("%s was fetched", u)
		}
	}
	// What was trusted on first use must not change unseen.
	writeFiles(t, w.dir, map[string]string{"src/app/more.go": "package main\n"})
	again := w.lock(workManifest)
	if in := again.Find(KindGo, "corp.example/b@v1.0.0.zip"); in.SHA256 != l.Find(KindGo, in.Name).SHA256 || !in.Go.Unproved {
		t.Errorf("got %+v", in)
	}
	w.goModule("corp.example/b", "v1.0.0", map[string]string{"go.mod": "module corp.example/b\n\ngo 1.21\n", "x.go": "package b // evil\n"})
	if _, err := w.resolve(workManifest); err == nil || !strings.Contains(err.Error(), "corp.example/b/@v/v1.0.0.zip: not the file that is wanted: got sha256:") {
		t.Errorf("got %v", err)
	}
}

func TestResolveWorkspaceErrors(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(w *world)
		want   string
	}{
		"the database knows another file": {func(w *world) {
			w.goModule("example.org/a", "v1.0.0", map[string]string{"go.mod": "module example.org/a\n\ngo 1.21\n\nrequire corp.example/b v1.0.0\n", "x.go": "package a // evil\n"})
		}, "example.org/a@v1.0.0.zip: "},
		"the database does not know it": {func(w *world) { w.goSumDB("") }, "looking up example.org/a@v1.0.0/go.mod in the checksum database: "},
		"a file is not there":           {func(w *world) { delete(w.files, "corp.example/b/@v/v1.0.0.mod") }, "corp.example/b/@v/v1.0.0.mod: file does not exist"},
		"vendored, and changed": {func(w *world) {
			writeFiles(t, w.dir, map[string]string{
				"src/vendor/modules.txt":        "## workspace\n# example.org/a v1.0.0\n## explicit; go 1.21\nexample.org/a\n# corp.example/b v1.0.0\n## go 1.21\ncorp.example/b\n",
				"src/vendor/example.org/a/x.go": "package a // evil\n", "src/vendor/corp.example/b/x.go": "package b\n",
			})
		}, "vendor/example.org/a/x.go: not the file of example.org/a@v1.0.0; run `go work vendor`"},
	} {
		w := workWorld(t)
		tt.change(w)
		if _, err := w.resolve(workManifest); err == nil || !strings.HasPrefix(err.Error(), "inputs.go: agent: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
}

// TestResolveTwoPayloads has one source vouch for a module that another takes
// at its word.
func TestResolveTwoPayloads(t *testing.T) {
	for _, order := range []string{"agent, other", "other, agent"} {
		w := workWorld(t)
		w.opts.NoSumDB = "*"
		sum := w.goModule("corp.example/b", "v1.0.0", map[string]string{"go.mod": "module corp.example/b\n\ngo 1.21\n", "x.go": "package b\n"})
		tc := w.goModule("golang.org/toolchain", "v0.0.1-go1.26.0.linux-amd64", map[string]string{"go.mod": "module golang.org/toolchain\n", "bin/go": "x"})
		w.goSumDB(tc)
		writeFiles(t, w.dir, map[string]string{"other/go.mod": "module other\n\ngo 1.25\n\nrequire corp.example/b v1.0.0\n", "other/go.sum": sum, "other/m.go": "package main\n"})
		one, two := "{name: agent, dir: src, toolchain: go1.26.0}", "{name: other, dir: other, toolchain: go1.26.0}"
		if strings.HasPrefix(order, "other") {
			one, two = two, one
		}
		l := w.lock(strings.Replace(workManifest, "{name: agent, dir: src, toolchain: go1.26.0}", one+", "+two, 1))
		if in := l.Find(KindGo, "corp.example/b@v1.0.0.zip"); in.Go.Unproved || len(in.For) != 2 {
			t.Errorf("%s: got %+v, %+v", order, in.Go, in.For)
		}
		if in := l.Find(KindGo, "example.org/a@v1.0.0.zip"); !in.Go.Unproved {
			t.Errorf("%s: got %+v", order, in.Go)
		}
	}
}

// TestResolveGoArch locks what a program for another architecture imports there
// alone, by the toolchain of the image's own.
func TestResolveGoArch(t *testing.T) {
	w := workWorld(t)
	w.opts.NoSumDB = "corp.example/*"
	writeFiles(t, w.dir, map[string]string{"src/app/main.go": "package main\n\nfunc main() {}\n", "src/app/main_arm64.go": "package main\n\nimport _ \"example.org/a\"\n"})
	for _, c := range []struct {
		arch string
		want bool
	}{{"", false}, {", arch: x86_64", false}, {", arch: aarch64", true}} {
		l := w.lock(strings.Replace(workManifest, ", cgo: true", c.arch, 1))
		if got := l.Find(KindGo, "example.org/a@v1.0.0.zip") != nil; got != c.want {
			t.Errorf("%q: its module is locked: %v, want %v", c.arch, got, c.want)
		}
		n := 0
		for _, in := range l.Inputs {
			if in.Kind == KindToolchain {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%q: %d toolchains, want that of the image's architecture", c.arch, n)
		}
	}
}

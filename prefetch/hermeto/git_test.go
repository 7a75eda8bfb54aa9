package hermeto

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/konflux"
)

// gitRepo makes a repository of a folder's files, at a commit whose time and
// so whose hash are given, with an origin.
func gitRepo(t *testing.T, dir, origin string, when int64, tags ...string) {
	t.Helper()
	runGit(t, dir, "init", "-q")
	runGit(t, dir, "remote", "add", "origin", origin)
	gitCommit(t, dir, when, tags...)
}

func gitCommit(t *testing.T, dir string, when int64, tags ...string) {
	t.Helper()
	date := fmt.Sprintf("%d +0000", when)
	runGit(t, dir, "add", "-A")
	out, err := run(t, dir, []string{"GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_SYSTEM=/dev/null", "GIT_AUTHOR_DATE=" + date, "GIT_COMMITTER_DATE=" + date},
		"git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "--allow-empty", "-m", "x")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tag := range tags {
		if name, ok := strings.CutPrefix(tag, "annotated "); ok {
			runGit(t, dir, "tag", "-a", "-m", "x", name)
		} else {
			runGit(t, dir, "tag", tag)
		}
	}
}

// components are the package URLs of a source's Go and Rust parts, and its
// commit.
func components(t *testing.T, dir, input string) (purls []string) {
	t.Helper()
	in, err := konflux.ReadPrefetchInput("in", []byte(input))
	if err != nil {
		t.Fatal(err)
	}
	p := &Plan{Lock: &lock.Lock{Arches: []string{"x86_64"}}, repos: map[string]*repository{}, req: Request{Input: in, Source: dir, Store: newStore(t)}}
	modules, err := p.goComponents(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	crates, err := p.cargoComponents()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(modules, crates...) {
		purls = append(purls, c.Name+" "+c.PURL)
	}
	return purls
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if g, w := strings.Join(slices.Compact(got), "\n"), strings.Join(want, "\n"); g != w {
		t.Errorf("got\n%s\nwant\n%s", g, w)
	}
}

// TestGit: modules and crates of a repository are called by where it is from,
// their versions are those of its tags. These are Hermeto's answers.
func TestGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, err.Error())
	}
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"go.mod":  "module example.org/x/v2\n\ngo 1.25\n\nrequire example.org/loc v1.0.0\n\nreplace example.org/loc => ./loc\n",
		"main.go": "package main\n\nimport (\n\t_ \"example.org/loc/inner\"\n\t_ \"os\"\n)\n", "cmd/y/y.go": "package main\n",
		"loc/go.mod": "module example.org/loc\n", "loc/inner/i.go": "package inner\n",
		"sub/go.mod": "module example.org/x/sub\n\nreplace example.org/lib => ../lib\n\nrequire example.org/lib v0.0.0\n", "sub/s.go": "package sub\n\nimport _ \"example.org/lib\"\n",
		"lib/go.mod": "module example.org/lib\n", "lib/l.go": "package lib\n",
		"old/go.mod":     "module example.org/old\n",
		"c/Cargo.toml":   "[package]\nname = \"c\"\nversion.workspace = true\n\n[workspace]\nmembers = [\"m\"]\n\n[workspace.package]\nversion = \"3.0\"\n\n[dependencies]\np = { path = \"../p\" }\n",
		"c/m/Cargo.toml": "[package]\nname = \"m\"\n", "p/Cargo.toml": "[package]\nname = \"p\"\n",
		"virt/Cargo.toml": "[workspace]\nmembers = []\n", "virt/Cargo.lock": "version = 3\n",
		"c/Cargo.lock": "version = 3\n\n[[package]]\nname = \"c\"\nversion = \"3.0.0\"\n\n[[package]]\nname = \"m\"\nversion = \"0.1.0\"\n\n[[package]]\nname = \"p\"\nversion = \"0.2.0\"\n\n" +
			"[[package]]\nname = \"g\"\nversion = \"0.1.0\"\nsource = \"git+https://h/g?branch=main#0123456789012345678901234567890123456789\"\n\n" +
			"[[package]]\nname = \"r\"\nversion = \"1.0.0\"\nsource = \"registry+https://github.com/rust-lang/crates.io-index\"\nchecksum = \"00\"\n",
	})
	gitRepo(t, dir, "git@Example.org:x/y.git", 1700000000, "old/v0.3.0-rc.1", "v2.4.0-beta", "old/v2.0.0", "old/v0.1.0+x")
	gitCommit(t, dir, 1700000100, "v2.1.0", "v9.0.0", "annotated v2.3.0")
	runGit(t, dir, "checkout", "-q", "-b", "other")
	gitCommit(t, dir, 1700000200, "old/v0.9.0")
	runGit(t, dir, "checkout", "-q", "main")
	commit := runGit(t, dir, "rev-parse", "HEAD")
	vcs := "vcs_url=git%2Bssh://git%40Example.org/x/y.git%40" + commit
	pseudo := "-20231114221500-" + commit[:12]
	const x = "pkg:golang/example.org/x/y"
	same(t, components(t, dir, `[{"type": "gomod"}, {"type": "gomod", "path": "sub"}, {"type": "gomod", "path": "old"}, {"type": "cargo", "path": "c"}, {"type": "cargo", "path": "virt"}]`), []string{
		"example.org/x/v2 " + x + "@v2.3.0?type=module&" + vcs,
		"example.org/x/v2 " + x + "@v2.3.0?type=package&" + vcs,
		"example.org/x/v2/cmd/y " + x + "/cmd/y@v2.3.0?type=package&" + vcs,
		"example.org/loc " + x + "/loc@v0.0.0" + pseudo + "?type=module&" + vcs,
		"example.org/loc/inner " + x + "/loc/inner@v0.0.0" + pseudo + "?type=package&" + vcs,
		"os pkg:golang/os?type=package",
		"example.org/x/sub " + x + "/sub@v0.0.0" + pseudo + "?type=module&" + vcs,
		"example.org/x/sub " + x + "/sub@v0.0.0" + pseudo + "?type=package&" + vcs,
		"example.org/lib " + x + "/lib@v0.0.0" + pseudo + "?type=module&" + vcs,
		"example.org/lib " + x + "/lib@v0.0.0" + pseudo + "?type=package&" + vcs,
		"example.org/old " + x + "/old@v0.3.0-rc.1.0.20231114221500-" + commit[:12] + "?type=module&" + vcs,
		"c pkg:cargo/c@3.0.0?" + vcs + "#c",
		"m pkg:cargo/m@0.1.0?" + vcs + "#c/m",
		"p pkg:cargo/p@0.2.0?" + vcs + "#p",
		"g pkg:cargo/g@0.1.0?vcs_url=git%2Bhttps://h/g%400123456789012345678901234567890123456789",
	})
	if n, err := Commit(dir + "/sub"); err != nil || n != 1700000100 {
		t.Errorf("got %d, %v", n, err)
	}
	if n, err := Commit(t.TempDir()); err != nil || n != 0 {
		t.Errorf("outside git: got %d, %v", n, err)
	}

	// A shallow clone knows no tags before its one commit.
	shallow := filepath.Join(t.TempDir(), "s")
	runGit(t, dir, "clone", "-q", "--depth", "1", "--no-single-branch", "file://"+dir, shallow)
	runGit(t, shallow, "fetch", "-q", "--depth", "1", "origin", "+refs/tags/*:refs/tags/*")
	r, err := readGit(shallow, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := r.goVersion("example.org/old", "old"); err != nil || v != "v0.0.0"+pseudo {
		t.Errorf("in a shallow clone: got %s, %v", v, err)
	}
	if v, err := r.goVersion("example.org/v2", "v2"); err != nil || v != "v2.3.0" {
		t.Errorf("in a folder called after the major version: got %s, %v", v, err)
	}
	for in, want := range map[string]string{
		"https://me:secret@h/x": "https://h/x", "https://token@h/x": "https://h/x", "h:x/y": "ssh://h/x/y", "h:/x/y": "ssh://h/x/y", "/a/b": "/a/b",
		"ssh://git@h/x": "ssh://git@h/x", "file:///x": "file:///x",
	} {
		if got := canonicalOrigin(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
	for origin, want := range map[string]string{"https://H:8443/a/b.git/": "h/a/b", "https://h/a/b.git": "h/a/b", "ssh://git@h/x": "h/x", "/a/b": "", "file:///a": ""} {
		if got := (&repository{origin: origin}).name(); got != want {
			t.Errorf("%s: got %s, want %s", origin, got, want)
		}
	}
}

// TestSubmodule: what lies in a submodule is from there.
func TestSubmodule(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		missing(t, err.Error())
	}
	inner, outer := t.TempDir(), t.TempDir()
	write(t, inner, map[string]string{"mod/go.mod": "module inner.org/mod\n", "mod/m.go": "package mod\n"})
	gitRepo(t, inner, "https://inner.org/repo", 1700000000, "mod/v1.2.0")
	write(t, outer, map[string]string{"go.mod": "module outer.org/m\n", "m.go": "package m\n"})
	gitRepo(t, outer, "https://outer.org/repo", 1700000100)
	runGit(t, outer, "submodule", "--quiet", "add", inner, "sub")
	gitCommit(t, outer, 1700000200, "sub/mod/v9.0.0")
	runGit(t, outer+"/sub", "remote", "set-url", "origin", "https://inner.org/repo")
	at := func(dir string) string { return runGit(t, dir, "rev-parse", "HEAD") }
	vcs := "?type=%s&vcs_url=git%%2Bhttps://%s.org/repo%%40%s"
	var want []string
	for _, typ := range []string{"module", "package"} {
		want = append(want, "inner.org/mod pkg:golang/inner.org/repo/mod@v1.2.0"+fmt.Sprintf(vcs, typ, "inner", at(inner)),
			"outer.org/m pkg:golang/outer.org/repo@v0.0.0-20231114221640-"+at(outer)[:12]+fmt.Sprintf(vcs, typ, "outer", at(outer)))
	}
	same(t, components(t, outer, `[{"type": "gomod"}, {"type": "gomod", "path": "sub/mod"}]`), want)
}

// TestWorkspace: a go.work above counts if it uses the package, once for all
// packages that it uses.
func TestWorkspace(t *testing.T) {
	files := map[string]string{
		"go.work": "go 1.25\n\nuse (\n\t.\n\t./b/c\n)\n", "go.mod": "module example.org/top\n", "t.go": "package top\n\nimport _ \"example.org/c\"\n",
		"b/c/go.mod": "module example.org/c\n", "b/c/c.go": "package c\n", "alone/go.mod": "module example.org/alone\n",
	}
	const input = `[{"type": "gomod"}, {"type": "gomod", "path": "b/c"}, {"type": "gomod", "path": "alone"}]`
	p, m, err := plan(t, input, files)
	if err != nil {
		t.Fatal(err)
	}
	if want := []lock.ManifestGo{{Name: ".", Dir: "."}, {Name: "alone", Dir: "alone"}}; !reflect.DeepEqual(m.Inputs.Go, want) {
		t.Errorf("got %+v", m.Inputs.Go)
	}
	var names []string
	for _, s := range p.Lock.Sources {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "alone/go.mod b/c/go.mod go.mod go.work" {
		t.Errorf("sources %s", got)
	}
	// Outside of git a module is called by its own name, and has no version.
	var want []string
	for _, name := range []string{"example.org/top", "example.org/c"} {
		want = append(want, name+" pkg:golang/"+name+"?type=module", name+" pkg:golang/"+name+"?type=package")
	}
	same(t, components(t, p.req.Source, input), append(want, "example.org/alone pkg:golang/example.org/alone?type=module"))
}

package lock

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"caisson/lock/digest"
	"caisson/lock/solve"
)

const oneRepo = `version: 1
name: podvm
rpm: {repos: [{id: base, baseurl: "REPOS/base", gpgkey: [KEY]}]}
`

// base is a small distribution.
func base() []pkg {
	return []pkg{
		{name: "app", evr: "1:2.0-1", arch: "x86_64", requires: []string{"libapp >= 1", "/opt/data"}, weak: []string{"docs"}, build: 1600000001},
		{name: "app", evr: "1:2.0-1", arch: "aarch64", requires: []string{"libapp >= 1", "/opt/data"}, weak: []string{"docs"}, build: 1600000002},
		{name: "libapp", evr: "1.5-1", arch: "x86_64", build: 1600000003},
		{name: "libapp", evr: "1.5-1", arch: "aarch64", build: 1600000004},
		{name: "data", evr: "1-1", arch: "noarch", build: 1600000005},
		{name: "docs", evr: "1-1", arch: "noarch", build: 1600000006},
		{name: "tool", evr: "1-1", arch: "x86_64", requires: []string{"libapp"}, build: 1600000007},
		{name: "tool", evr: "1-1", arch: "aarch64", requires: []string{"libapp"}, build: 1600000008},
	}
}

func TestResolvePackages(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", base()...)
	l := w.lock(strings.Replace(oneRepo, "gpgkey: [KEY]", "gpgkey: [KEY, KEY2]", 1) + `arches: [x86_64, aarch64]
sets:
  tools: {packages: [tool]}
  initrd: {packages: [data], modules: [erofs]}
  root: {packages: [app], exclude: [docs]}
variants:
  debug: {sets: {root: {packages: [tool, app]}}, image: {kernel: {cmdline: "+debug"}, output: [raw], services: {enable: [a.service]}}}
  other: {image: {kernel: {cmdline: "only  this"}}}
image: {kernel: {cmdline: " quiet   splash "}}
`)
	for _, tt := range []struct{ arch, set, want string }{
		{"x86_64", "tools", "libapp-1.5-1.x86_64@base tool-1-1.x86_64@base"},
		{"aarch64", "tools", "libapp-1.5-1.aarch64@base tool-1-1.aarch64@base"},
		{"x86_64", "initrd", "data-1-1.noarch@base"},
		{"x86_64", "root", "app-1:2.0-1.x86_64@base data-1-1.noarch@base libapp-1.5-1.x86_64@base"},
		{"x86_64", "root+debug", "app-1:2.0-1.x86_64@base data-1-1.noarch@base libapp-1.5-1.x86_64@base tool-1-1.x86_64@base"},
		{"s390x", "root", ""},
	} {
		if got := chosen(l, tt.arch, tt.set); got != tt.want {
			t.Errorf("%s %s: got %s, want %s", tt.arch, tt.set, got, tt.want)
		}
	}
	app := l.Find(KindRPM, "app-1:2.0-1.x86_64")
	want := Input{
		Kind: KindRPM, Name: "app-1:2.0-1.x86_64", URL: "Packages/app-2.0-1.x86_64.rpm", Repo: "base", Size: 1003,
		PURL:   "pkg:rpm/app@2.0-1?arch=x86_64&checksum=sha256:" + base()[0].sum().Hex() + "&epoch=1&repository_id=base&upstream=app-2.0-1.src.rpm",
		SHA256: base()[0].sum(), RPM: &RPM{Name: "app", Epoch: 1, Version: "2.0", Release: "1", Arch: "x86_64", SourceRPM: "app-2.0-1.src.rpm", BuildTime: 1600000001, Signed: true},
		For: []Use{{Arch: "x86_64", Set: "root", By: "app"}, {Arch: "x86_64", Set: "root+debug", By: "app"}},
	}
	if !reflect.DeepEqual(*app, want) {
		t.Errorf("got  %+v\nwant %+v", *app, want)
	}
	for name, want := range map[string]string{
		"data-1-1.noarch": "aarch64 initrd data; aarch64 root app-1:2.0-1.aarch64 /opt/data; aarch64 root+debug app-1:2.0-1.aarch64 /opt/data; " +
			"x86_64 initrd data; x86_64 root app-1:2.0-1.x86_64 /opt/data; x86_64 root+debug app-1:2.0-1.x86_64 /opt/data",
		"libapp-1.5-1.aarch64": "aarch64 root app-1:2.0-1.aarch64 libapp >= 1; aarch64 root+debug app-1:2.0-1.aarch64 libapp >= 1; aarch64 tools tool-1-1.aarch64 libapp",
		"docs-1-1.noarch":      "not there",
	} {
		if got := why(l, KindRPM, name); got != want {
			t.Errorf("%s: got %s\nwant %s", name, got, want)
		}
	}
	if len(l.Repos) != 2 || l.Repos[0].Arch != "aarch64" || !reflect.DeepEqual(l.Repos[1].Keys, []string{"AA11", "BB22", "CC33"}) || l.Repos[1].Priority != 99 || !l.Repos[1].GPGCheck || l.Repos[1].RepoGPGCheck {
		t.Errorf("got %+v", l.Repos)
	}
	if key := l.Find(KindKey, "KEY2"); key.Fingerprint != "CC33,BB22" || key.Size != 14 || key.For != nil {
		t.Errorf("got %+v", key)
	}
	for _, name := range []string{"base-x86_64/repomd.xml", "base-x86_64/primary", "base-x86_64/filelists", "base-aarch64/filelists"} {
		if l.Find(KindRepodata, name) == nil {
			t.Errorf("%s is not an input", name)
		}
	}
	if l.Find(KindRepodata, "base-x86_64/repomd.xml").SHA256 != l.Repos[1].Repomd {
		t.Error("repomd.xml is another one")
	}
	if l.Epoch != 1600000008 || !l.RPM.WeakDeps || !l.RPM.Best {
		t.Errorf("epoch %d, %+v", l.Epoch, l.RPM)
	}
	if l.Image.Cmdline != "quiet splash" || len(l.Variants) != 2 || l.Variants[0].Image.Cmdline != "quiet splash debug" || l.Variants[1].Image.Cmdline != "only this" ||
		!reflect.DeepEqual(l.Variants[0].Image.Output, []string{"raw"}) || !reflect.DeepEqual(l.Variants[0].Image.Services.Enable, []string{"a.service"}) {
		t.Errorf("got %+v, %+v", l.Image, l.Variants)
	}
	if s := l.Sets[0]; s.Name != "initrd" || !reflect.DeepEqual(s.Modules, []string{"erofs"}) {
		t.Errorf("got %+v", s)
	}
	if got := l.Sets[2]; got.Name != "root+debug" || !reflect.DeepEqual(got.Packages, []string{"app", "tool"}) || !reflect.DeepEqual(got.Exclude, []string{"docs"}) {
		t.Errorf("got %+v", got)
	}
}

func TestResolveOptions(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", base()...)
	for _, tt := range []struct{ options, want string }{
		{"", "app-1:2.0-1.x86_64@base data-1-1.noarch@base docs-1-1.noarch@base libapp-1.5-1.x86_64@base"},
		{"weakDeps: false, ", "app-1:2.0-1.x86_64@base data-1-1.noarch@base libapp-1.5-1.x86_64@base"},
	} {
		l := w.lock(strings.Replace(oneRepo, "repos:", tt.options+"best: false, repos:", 1) + "epoch: 5\nsets: {root: {packages: [app]}}\n")
		if got := chosen(l, "x86_64", "root"); got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.options, got, tt.want)
		}
		if l.Epoch != 5 || l.RPM.WeakDeps != (tt.options == "") || l.RPM.Best {
			t.Errorf("epoch %d, %+v", l.Epoch, l.RPM)
		}
		if tt.options != "" {
			continue
		}
		if got, want := why(l, KindRPM, "docs-1-1.noarch"), "x86_64 root app-1:2.0-1.x86_64 docs"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestResolveOrder shuffles what has no order.
func TestResolveOrder(t *testing.T) {
	w := newWorld(t)
	const m = oneRepo + "sets: {root: {packages: [app, tool]}, tools: {packages: [tool, data]}}\n"
	var want string
	for i := range 5 {
		pkgs := base()
		rand.New(rand.NewSource(int64(i))).Shuffle(len(pkgs), func(i, j int) { pkgs[i], pkgs[j] = pkgs[j], pkgs[i] })
		w.repo("base", "", pkgs...)
		l := w.lock(m)
		l.Repos, l.Inputs = nil, slicesOfRPM(l)
		if got := string(format(t, l)); want == "" {
			want = got
		} else if got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	// The order in the manifest does not count either.
	a := w.lock(m)
	b := w.lock(oneRepo + "sets: {tools: {packages: [data, tool]}, root: {packages: [tool, app, app]}}\n")
	b.Manifest = a.Manifest
	if !bytes.Equal(format(t, a), format(t, b)) {
		t.Error("the order of the manifest's keys counts")
	}
}

func slicesOfRPM(l *Lock) []Input {
	var out []Input
	for _, in := range l.Inputs {
		if in.Kind == KindRPM {
			out = append(out, in)
		}
	}
	return out
}

func TestResolvePriorities(t *testing.T) {
	w := newWorld(t)
	w.repo("a", "", pkg{name: "app", evr: "2-1", arch: "noarch", salt: "a"}, pkg{name: "same", evr: "1-1", arch: "noarch", salt: "a"})
	w.repo("b", "", pkg{name: "app", evr: "1-1", arch: "noarch", salt: "b"}, pkg{name: "same", evr: "1-1", arch: "noarch", salt: "b"})
	m := `version: 1
name: podvm
rpm:
  vars: {releasever: 9, stage: a}
  repos:
  - {id: a, baseurl: "REPOS/${stage}/", gpgcheck: false}
  - {id: b, baseurl: "REPOS/b", gpgkey: [KEY], priority: 50}
sets: {root: {packages: [app, same]}}
`
	l := w.lock(m)
	if got, want := chosen(l, "x86_64", "root"), "app-1-1.noarch@b same-1-1.noarch@b"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if l.Repos[0].GPGCheck || l.Repos[0].Keys != nil || l.Repos[1].Priority != 50 || !l.Find(KindRPM, "app-1-1.noarch").RPM.Signed {
		t.Errorf("got %+v", l.Repos)
	}
	l = w.lock(strings.Replace(m, ", priority: 50", "", 1))
	if got, want := chosen(l, "x86_64", "root"), "app-2-1.noarch@a same-1-1.noarch@a"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if l.Find(KindRPM, "same-1-1.noarch").RPM.Signed {
		t.Error("the package of a repository without gpgcheck is to be signed")
	}
}

// TestResolveTwoPlaces has one package in different repositories on
// different machines.
func TestResolveTwoPlaces(t *testing.T) {
	w := newWorld(t)
	data := pkg{name: "data", evr: "1-1", arch: "noarch"}
	w.repo("a/aarch64", "", data)
	w.repo("a/x86_64", "")
	w.repo("b", "", data)
	m := `version: 1
name: podvm
arches: [x86_64, aarch64]
rpm:
  repos:
  - {id: a, baseurl: "REPOS/a/$basearch", gpgcheck: false}
  - {id: b, baseurl: "REPOS/b", gpgkey: [KEY]}
sets: {root: {packages: [data]}}
`
	in := w.lock(m).Find(KindRPM, "data-1-1.noarch")
	if !in.RPM.Signed || in.Repo != "b" || !strings.Contains(in.PURL, "repository_id=b") || len(in.For) != 2 {
		t.Errorf("the stricter repository does not count: got %+v, %+v", in, in.RPM)
	}
	data.salt = "other"
	w.repo("b", "", data)
	other := data
	other.salt = ""
	w.fails(m, `two different files are both rpm data-1-1.noarch: Packages/data-1-1.noarch.rpm of repository "a" (aarch64) is `+other.sum().String()+
		`, Packages/data-1-1.noarch.rpm of repository "b" (x86_64) is `+data.sum().String()+
		"; lock from repositories of one compose, or hide one of the two by excludepkgs")
}

func TestResolveElsewhere(t *testing.T) {
	w := newWorld(t)
	data := pkg{name: "data", evr: "1-1", arch: "noarch", base: "https://other.example/pool"}
	w.repo("base", "", data)
	const m = oneRepo + "sets: {root: {packages: [data]}}\n"
	l := w.lock(m)
	in := l.Find(KindRPM, "data-1-1.noarch")
	if u, ok := l.RepoURL(in); in.URL != "https://other.example/pool/Packages/data-1-1.noarch.rpm" || !ok || u != in.URL {
		t.Errorf("got %s, %s", in.URL, u)
	}
	data.base = "ftp://other.example/"
	w.repo("base", "", data)
	w.fails(m, `set root (x86_64): data-1-1.noarch in repository "base": xml:base "ftp://other.example/": want an address of the web`)
}

// TestResolveOld locks again when the repository has moved on.
func TestResolveOld(t *testing.T) {
	w := newWorld(t)
	const m = oneRepo + "sets: {root: {packages: [app, other]}, tools: {packages: [lib]}}\n"
	app := func(v string) pkg {
		return pkg{name: "app", evr: v + "-1", arch: "noarch", requires: []string{"lib = " + v}}
	}
	lib := func(v string) pkg { return pkg{name: "lib", evr: v + "-1", arch: "noarch"} }
	other := func(v string) pkg { return pkg{name: "other", evr: v + "-1", arch: "noarch"} }
	w.repo("base", "", app("1"), lib("1"), other("1"))
	first := w.lock(m)
	moved := []pkg{app("1"), lib("1"), other("1"), app("2"), lib("2"), other("2")}
	w.repo("base", "", moved...)
	const newest = "app-2-1.noarch@base lib-2-1.noarch@base other-2-1.noarch@base"
	for _, tt := range []struct {
		name   string
		change func()
		want   string
	}{
		{"no lock", func() { w.opts.Old = nil }, newest},
		{"kept", func() {}, "app-1-1.noarch@base lib-1-1.noarch@base other-1-1.noarch@base"},
		{"all", func() { w.opts.UpdateAll = true }, newest},
		{"one", func() { w.opts.Update = []string{"other"} }, "app-1-1.noarch@base lib-1-1.noarch@base other-2-1.noarch@base"},
		{"one that needs another", func() { w.opts.Update = []string{"app"} }, "app-2-1.noarch@base lib-2-1.noarch@base other-1-1.noarch@base"},
		{"gone", func() { w.repo("base", "", moved[3:]...) }, newest},
	} {
		w.opts.Old, w.opts.Update, w.opts.UpdateAll = first, nil, false
		tt.change()
		if got := chosen(w.lock(m), "x86_64", "root"); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
	w.opts.Update = []string{"ap"}
	w.fails(m, `updating "ap": the lock has no package, git repository, image or file of that name`)
}

func TestResolveInterrupted(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", base()...)
	ctx, cancel := context.WithCancel(context.Background())
	var said []string
	w.opts.Progress = func(s string) {
		if said = append(said, s); strings.HasPrefix(s, "choosing") {
			cancel()
		}
	}
	m, err := ParseManifest("m", []byte(strings.ReplaceAll(oneRepo, "REPOS/", w.repos)+"sets: {root: {packages: [data]}, tools: {packages: [tool]}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	w.opts.Manifest = m
	if _, err := Resolve(ctx, w.opts); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if want := []string{"reading the metadata of one repository (x86_64)", "choosing the packages of root (x86_64)"}; !reflect.DeepEqual(said, want) {
		t.Errorf("got %q, want %q", said, want)
	}
}

// TestResolveLarge locks out of many packages: what is quadratic shows.
func TestResolveLarge(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", many(20000)...)
	text := strings.ReplaceAll(oneRepo, "REPOS/", w.repos) + "sets: {root: {packages: [p19999]}, tools: {packages: [p19998]}, initrd: {packages: [p100]}}\n"
	m, err := ParseManifest("m", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	w.opts.Manifest, w.opts.Digest = m, digest.Of([]byte(text))
	for range 2 {
		began := time.Now()
		l, err := Resolve(context.Background(), w.opts)
		if err != nil {
			t.Fatal(err)
		}
		resolved := time.Now()
		b := format(t, l)
		if w.opts.Old, err = Parse("l", b); err != nil {
			t.Fatal(err)
		}
		if len(l.Inputs) < 20000 {
			t.Errorf("got %d inputs", len(l.Inputs))
		}
		t.Logf("resolved in %s, formatted and parsed %d bytes in %s", resolved.Sub(began), len(b), time.Since(resolved))
	}
}

func TestLoadRepos(t *testing.T) {
	w := newWorld(t)
	w.repo("x86_64", "", base()...)
	off := false
	o := w.opts
	o.Manifest = &Manifest{RPM: ManifestRPM{Repos: []ManifestRepo{{ID: "x", BaseURL: StringList{w.repos + "$basearch"}, GPGCheck: &off}}}}
	repos, err := LoadRepos(context.Background(), o, "x86_64")
	if err != nil || len(repos) != 1 || len(repos[0].Packages) != len(base()) {
		t.Fatalf("got %d repositories, %v", len(repos), err)
	}
	pool, err := solve.NewPool(repos, solve.Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	sol, err := pool.Solve(solve.Request{Specs: []string{"/opt/data"}})
	if err != nil || len(sol.Packages) != 1 {
		t.Errorf("got %+v, %v", sol, err)
	}
}

// TestResolveModules has a repository in which a module's default stream
// hides a newer package.
func TestResolveModules(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "",
		pkg{name: "db", evr: "1-1.module", arch: "x86_64"}, pkg{name: "db", evr: "9-1", arch: "x86_64"}, pkg{name: "free", evr: "9-1", arch: "x86_64"})
	const modules = `---
document: modulemd
version: 2
data:
  name: dbms
  stream: "1"
  version: 10
  context: c0ffee
  arch: x86_64
  profiles: {default: {rpms: [db]}}
  artifacts: {rpms: ["db-0:1-1.module.x86_64"]}
---
document: modulemd-defaults
version: 1
data: {module: dbms, stream: "1", profiles: {"1": [default]}}
`
	dir := filepath.Join(strings.TrimPrefix(w.repos, "file://"), "base", "repodata")
	repomd, err := os.ReadFile(filepath.Join(dir, "repomd.xml"))
	if err != nil {
		t.Fatal(err)
	}
	data := "<data type=\"modules\"><checksum type=\"sha256\">" + digest.Of([]byte(modules)).Hex() + "</checksum><location href=\"repodata/modules.yaml\"/></data></repomd>"
	writeFiles(t, dir, map[string]string{"modules.yaml": modules, "repomd.xml": strings.Replace(string(repomd), "</repomd>", data, 1)})
	l := w.lock(oneRepo + "sets: {root: {packages: [db, free]}}\n")
	if got, want := chosen(l, "x86_64", "root"), "db-1-1.module.x86_64@base free-9-1.x86_64@base"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := l.Find(KindRPM, "db-1-1.module.x86_64").RPM.Module, "dbms:1:10:c0ffee"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if l.Find(KindRepodata, "base-x86_64/modules") == nil {
		t.Error("modules.yaml is not an input")
	}
}

// Where a build runs is no part of the image: its time does not depend on the machine's
// kernel.
func TestVMSet(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", base()...)
	without := w.lock(oneRepo + "sets: {root: {packages: [libapp]}}\n")
	l := w.lock(oneRepo + "sets: {root: {packages: [libapp]}, vm: {packages: [tool]}}\nvariants: {debug: {sets: {vm: {packages: [docs]}}}}\n")
	if got := chosen(l, "x86_64", SetVM); got != "libapp-1.5-1.x86_64@base tool-1-1.x86_64@base" {
		t.Errorf("got %s", got)
	}
	if got := chosen(l, "x86_64", SetName(SetVM, "debug")); !strings.HasPrefix(got, "docs-1-1.noarch@base ") {
		t.Errorf("got %s", got)
	}
	if l.Epoch != without.Epoch || l.Epoch != 1600000003 {
		t.Errorf("epoch %d, without the set %d", l.Epoch, without.Epoch)
	}
	for manifest, want := range map[string]string{
		"sets: {vm: {packages: [tool], scriptlets: skip}}": "of the virtual machine's kernel nothing is installed",
		"sets: {vm: {packages: [tool], modules: [erofs]}}": "modules belong to the initrd",
		"sets: {mv: {packages: [tool]}}":                   "want one of tools, initrd, root, vm",
	} {
		if _, err := ParseManifest("m", []byte(oneRepo+manifest+"\n")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", manifest, err, want)
		}
	}
}

package lock

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// store keeps what was fetched for a lock, and gives it back by digest.
type store map[digest.Digest]string

// keep copies the locked metadata.
func (s store) keep(w *world, l *Lock) {
	w.t.Helper()
	for _, in := range l.Inputs {
		if in.Kind != KindRepodata {
			continue
		}
		u, ok := l.RepoURL(&in)
		b, err := os.ReadFile(strings.TrimPrefix(u, "file://"))
		if !ok || err != nil || digest.Of(b) != in.SHA256 {
			w.t.Fatalf("%s: %v", u, err)
		}
		s[in.SHA256] = filepath.Join(w.t.TempDir(), "blob")
		if err := os.WriteFile(s[in.SHA256], b, 0o644); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (s store) open(d digest.Digest) (string, error) {
	if name, ok := s[d]; ok {
		return name, nil
	}
	return "", fs.ErrNotExist
}

func replay(t *testing.T, l *Lock, s store) *ReplayResult {
	t.Helper()
	out, err := Replay(context.Background(), l, s.open)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// appPackages are an application and what it needs, of one version.
func appPackages(v string) []pkg {
	return []pkg{
		{name: "app", evr: v + "-1", arch: "noarch", requires: []string{"lib = " + v, "/opt/lib"}},
		{name: "lib", evr: v + "-1", arch: "noarch"},
	}
}

func TestReplay(t *testing.T) {
	w, s := newWorld(t), store{}
	w.repo("base", "", appPackages("1")...)
	w.repo("z", "", pkg{name: "same", evr: "1-1", arch: "noarch", salt: "z"})
	w.repo("a", "", pkg{name: "same", evr: "1-1", arch: "noarch", salt: "a"})
	const m = `version: 1
name: podvm
arches: [x86_64, aarch64]
rpm:
  repos: # the first of equals is not the first by name
  - {id: z, baseurl: "REPOS/z", gpgcheck: false}
  - {id: base, baseurl: "REPOS/base", gpgcheck: false}
  - {id: a, baseurl: "REPOS/a", gpgcheck: false}
sets: {root: {packages: [app, same]}, tools: {packages: [lib]}}
variants: {debug: {sets: {tools: {packages: [same]}}}}
`
	first := w.lock(m)
	s.keep(w, first)
	// Nothing but the store is there.
	if err := os.RemoveAll(w.folder("base")); err != nil {
		t.Fatal(err)
	}
	if got := replay(t, first, s); !reflect.DeepEqual(got, &ReplayResult{Packages: 2 * (3 + 1 + 2)}) {
		t.Errorf("got %+v", got)
	}
	if in := first.Find(KindRPM, "same-1-1.noarch"); in.Repo != "z" {
		t.Errorf("got %+v", in)
	}

	// A newer version comes, and the lock keeps what it has.
	w.repo("base", "", append(appPackages("1"), appPackages("2")...)...)
	w.opts.Old = first
	kept := w.lock(m)
	s.keep(w, kept)
	got := replay(t, kept, s)
	if len(got.Different) != 0 || len(got.Kept) != 8 || got.Packages != 12 {
		t.Fatalf("got %+v", got)
	}
	if d := got.Kept[0]; d.String() != "set root (aarch64): app: locked app-1-1.noarch, chosen app-2-1.noarch" {
		t.Errorf("got %s", d)
	}

	for name, tt := range map[string]struct {
		change func(l *Lock)
		want   string
	}{
		"one more": {func(l *Lock) {
			in := *l.Find(KindRPM, "lib-1-1.noarch")
			in.Name, in.For = "other-1-1.noarch", []Use{{Arch: "aarch64", Set: "root"}}
			rpm := *in.RPM
			rpm.Name, in.RPM = "other", &rpm
			l.Inputs = append(l.Inputs, in)
		}, "set root (aarch64): other: locked other-1-1.noarch, chosen none"},
		"one less": {func(l *Lock) {
			in := l.Find(KindRPM, "same-1-1.noarch")
			in.For = slices.DeleteFunc(in.For, func(u Use) bool { return u.Arch == "x86_64" && u.Set == "root" })
		}, "set root (x86_64): same: locked none, chosen same-1-1.noarch"},
		"another file": {func(l *Lock) {
			l.Find(KindRPM, "lib-1-1.noarch").SHA256 = digest.Of([]byte("forged"))
		}, "set root (aarch64): lib: locked lib-1-1.noarch, chosen lib-1-1.noarch: the lock has " + digest.Of([]byte("forged")).String() + ", and the repository " + appPackages("1")[1].sum().String()},
		"another request": {func(l *Lock) {
			l.Sets[0].Packages = append(l.Sets[0].Packages, "nothing")
		}, "set root (aarch64): no solution: nothing matches \"nothing\""},
		"no filelists": {func(l *Lock) {
			l.Inputs = slices.DeleteFunc(l.Inputs, func(in Input) bool { return in.Name == "base-aarch64/filelists" })
		}, "set root (aarch64): repository base: opening filelists: " + w.repos + "base/repodata/filelists.xml is asked for and is not locked"},
		"another priority": {func(l *Lock) { l.Repos[0].Priority = 1 },
			"set root (aarch64): same: locked same-1-1.noarch, chosen same-1-1.noarch: the lock has " + (pkg{name: "same", evr: "1-1", arch: "noarch", salt: "z"}).sum().String() +
				", and the repository " + (pkg{name: "same", evr: "1-1", arch: "noarch", salt: "a"}).sum().String()},
	} {
		l, err := Parse("l", format(t, first))
		if err != nil {
			t.Fatal(err)
		}
		tt.change(l)
		got := replay(t, l, s)
		if len(got.Different) == 0 || got.Different[0].String() != tt.want {
			t.Errorf("%s: got %v, want %s", name, got.Different, tt.want)
		}
	}
}

func TestReplayRefused(t *testing.T) {
	w := newWorld(t)
	w.repo("base", "", appPackages("1")...)
	locked := w.lock(oneRepo + "sets: {root: {packages: [app]}}\n")
	forged := digest.Of([]byte("forged"))
	for name, tt := range map[string]struct {
		change func(l *Lock, s store)
		want   string
	}{
		"imported":          {func(l *Lock, _ store) { l.Imported = "rpms.lock.yaml" }, "the lock was converted from a rpms.lock.yaml, which does not say what the choice was made of"},
		"repomd":            {func(l *Lock, _ store) { l.Repos[0].Repomd = forged }, "repository \"base\" (x86_64): repodata base-x86_64/repomd.xml: the lock has sha256:"},
		"another primary":   {func(l *Lock, _ store) { l.Find(KindRepodata, "base-x86_64/primary").SHA256 = forged }, "repodata base-x86_64/primary: the lock has " + forged.String() + ", and its repository sha256:"},
		"no primary":        {func(l *Lock, s store) { delete(s, l.Find(KindRepodata, "base-x86_64/primary").SHA256) }, "repodata base-x86_64/primary: file does not exist"},
		"primary not there": {func(l *Lock, _ store) { l.Find(KindRepodata, "base-x86_64/primary").For = nil }, "base/repodata/primary.xml is asked for and is not locked"},
		"damaged": {func(l *Lock, s store) {
			if err := os.WriteFile(s[l.Find(KindRepodata, "base-x86_64/primary").SHA256], []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}, "repodata base-x86_64/primary: got " + digest.Of([]byte("x")).String() + ", want sha256:"},
	} {
		l, err := Parse("l", format(t, locked))
		if err != nil {
			t.Fatal(err)
		}
		s := store{}
		s.keep(w, l)
		tt.change(l, s)
		if _, err := Replay(context.Background(), l, s.open); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %s", name, err, tt.want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s := store{}
	s.keep(w, locked)
	if _, err := Replay(ctx, locked, s.open); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// source is a source package; its primary entry names none itself.
func source(name, evr string) pkg { return pkg{name: name, evr: evr, arch: "src", source: " "} }

func TestResolveSources(t *testing.T) {
	w, s := newWorld(t), store{}
	bins := appPackages("1")
	bins[0].source, bins[1].source = "suite-1-1.src.rpm", "suite-1-1.src.rpm"
	bins = append(bins, pkg{name: "kept", evr: "3:2-1", arch: "noarch", source: "kept-2-1.nosrc.rpm"}, source("suite", "2-1"))
	w.repo("base", "", bins...)
	kept := source("kept", "3:2-1")
	kept.arch = "nosrc"
	w.repo("source", "", source("suite", "1-1"), source("other", "1-1"), kept, source("suite", "0-1"))
	const m = `version: 1
name: podvm
rpm:
  sources: yes
  repos:
  - {id: base, baseurl: "REPOS/base", gpgcheck: false}
  - {id: source, baseurl: "REPOS/source", gpgkey: [KEY]}
sets: {root: {packages: [app]}, tools: {packages: [kept]}}
`
	l := w.lock(m)
	if got := chosen(l, "x86_64", SetSource); got != "kept-3:2-1.nosrc@source suite-1-1.src@source" {
		t.Errorf("got %s", got)
	}
	in := l.Find(KindRPM, "suite-1-1.src")
	if !reflect.DeepEqual(in.For, []Use{{Arch: "x86_64", Set: SetSource, By: "app-1-1.noarch"}}) || !in.RPM.Signed || in.RPM.SourceRPM != "" || !in.RPM.IsSource() || in.URL != "Packages/suite-1-1.src.rpm" || strings.Contains(in.PURL, "upstream") {
		t.Errorf("got %+v, %+v", in, in.RPM)
	}
	for _, set := range []string{"root", "tools"} {
		if strings.Contains(chosen(l, "x86_64", set), "src") {
			t.Errorf("a root has source packages: %s", chosen(l, "x86_64", set))
		}
	}
	s.keep(w, l)
	if got := replay(t, l, s); got.Packages != 5 || got.Different != nil || got.Kept != nil {
		t.Errorf("got %+v", got)
	}
	less, err := Parse("l", format(t, l))
	if err != nil {
		t.Fatal(err)
	}
	less.Inputs = slices.DeleteFunc(less.Inputs, func(in Input) bool { return in.Name == "suite-1-1.src" })
	if got := replay(t, less, s); len(got.Different) != 1 || got.Different[0].String() != "set source (x86_64): suite: locked none, chosen suite-1-1.src" {
		t.Errorf("got %+v", got)
	}
	if l := w.lock(strings.Replace(m, "sources: yes", "sources: no", 1)); chosen(l, "x86_64", SetSource) != "" || l.RPM.Sources != "" {
		t.Errorf("got %s", chosen(l, "x86_64", SetSource))
	}

	w.repo("source", "", source("suite", "2-1"))
	w.fails(m, "rpm.sources: no repository has 2 of the source packages; add the repositories of sources, or say sources: available:\n"+
		"  kept-2-1.nosrc.rpm (of kept-3:2-1.noarch)\n  suite-1-1.src.rpm (of app-1-1.noarch)")
	l = w.lock(strings.Replace(m, "sources: yes", "sources: available", 1))
	if !slices.Equal(l.MissingSources, []string{"kept-2-1.nosrc.rpm", "suite-1-1.src.rpm"}) || chosen(l, "x86_64", SetSource) != "" {
		t.Errorf("got %q", l.MissingSources)
	}
	s.keep(w, l)
	if got := replay(t, l, s); got.Different != nil {
		t.Errorf("got %+v", got)
	}
	l.MissingSources = l.MissingSources[1:]
	if got := replay(t, l, s); len(got.Different) != 1 || !strings.Contains(got.Different[0].String(), "missing are kept-2-1.nosrc.rpm suite-1-1.src.rpm; the lock says suite-1-1.src.rpm") {
		t.Errorf("got %v", got.Different)
	}
}

// TestResolveSourcesOtherArch has the source packages for one arch only.
func TestResolveSourcesOtherArch(t *testing.T) {
	w := newWorld(t)
	w.repo("own/x86_64", "", pkg{name: "own", evr: "1-1", arch: "x86_64"}, source("own", "1-1"))
	w.repo("own/aarch64", "", pkg{name: "own", evr: "1-1", arch: "aarch64"})
	const m = `version: 1
name: podvm
arches: [x86_64, aarch64]
rpm: {sources: "yes", repos: [{id: own, baseurl: "REPOS/own/$basearch", gpgcheck: false}]}
sets: {root: {packages: [own]}}
`
	l := w.lock(m)
	if got := why(l, KindRPM, "own-1-1.src"); got != "x86_64 source own-1-1.x86_64" {
		t.Errorf("got %s", got)
	}
}

func TestResolveSameEVR(t *testing.T) {
	w := newWorld(t)
	write := func(arch, v string) {
		w.repo("own/"+arch, "", pkg{name: "own", evr: v, arch: arch, requires: []string{"lib"}}, pkg{name: "lib", evr: v, arch: arch}, pkg{name: "only" + arch, evr: "1-1", arch: arch})
	}
	const m = `version: 1
name: podvm
arches: [x86_64, aarch64]
rpm: {sameEVR: true, repos: [{id: own, baseurl: "REPOS/own/$basearch", gpgcheck: false}]}
sets: {root: {packages: [own, "only*"]}, tools: {packages: [lib]}}
`
	write("x86_64", "1-1")
	write("aarch64", "1-1")
	if l := w.lock(m); !l.RPM.SameEVR {
		t.Error("it is not in the lock")
	}
	write("aarch64", "2:1-2")
	w.fails(m, "rpm.sameEVR: 3 packages differ between arches; lock from repositories of one compose, or update them all:\n"+
		"  lib (set root): aarch64 2:1-2, x86_64 1-1\n  lib (set tools): aarch64 2:1-2, x86_64 1-1\n  own (set root): aarch64 2:1-2, x86_64 1-1")
	w.lock(strings.Replace(m, "sameEVR: true", "sameEVR: false", 1))
}

// addData has a repository name one more metadata file.
func (w *world) addData(name, typ, text string) {
	w.t.Helper()
	at := filepath.Join(w.folder(name), "repodata")
	b, err := os.ReadFile(filepath.Join(at, "repomd.xml"))
	if err != nil {
		w.t.Fatal(err)
	}
	data := "<data type=\"" + typ + "\"><checksum type=\"sha256\">" + digest.Of([]byte(text)).Hex() + "</checksum><location href=\"repodata/" + typ + "\"/></data></repomd>"
	writeFiles(w.t, at, map[string]string{typ: text, "repomd.xml": strings.Replace(string(b), "</repomd>", data, 1)})
}

func TestAdvisories(t *testing.T) {
	w, s := newWorld(t), store{}
	w.repo("base", "", appPackages("3")...)
	entry := func(id, name, v, arch string) string {
		return `<update type="security"><id>` + id + `</id><title>T</title><severity>Low</severity><issued date="2024-05-01"/><references><reference type="cve" id="CVE-1" href="https://x.example/" title="C"/></references>` +
			`<pkglist><collection><package name="` + name + `" version="` + v + `" release="1" epoch="0" arch="` + arch + `"/><package name="` + name + `" version="` + v + `" release="1" epoch="0" arch="` + arch + `"/></collection></pkglist></update>`
	}
	w.addData("base", "updateinfo", "<updates>"+entry("A-4", "app", "4", "noarch")+entry("A-3", "app", "3", "noarch")+entry("A-2", "app", "2", "noarch")+
		entry("A-1", "app", "1", "noarch")+entry("A-3a", "app", "3", "x86_64")+entry("L-3", "lib", "3", "noarch")+entry("N", "none", "3", "noarch")+"</updates>")
	l := w.lock(oneRepo + "sets: {root: {packages: [app]}}\n")
	if in := l.Find(KindRepodata, "base-x86_64/updateinfo"); in == nil || in.URL != "repodata/updateinfo" {
		t.Fatalf("updateinfo is not locked: %+v", in)
	}
	s.keep(w, l)
	open := func(d digest.Digest) (io.ReadCloser, error) {
		name, err := s.open(d)
		if err != nil {
			return nil, err
		}
		return os.Open(name)
	}
	x, err := Advisories(l, open)
	if err != nil {
		t.Fatal(err)
	}
	at := func(v string) *RPM { return &RPM{Name: "app", Version: v, Release: "1", Arch: "noarch"} }
	for _, tt := range []struct {
		before, now *RPM
		want        string
	}{
		{at("1"), at("3"), "A-2 A-3"},
		{at("0"), at("3"), "A-1 A-2 A-3"},
		{at("3"), at("4"), "A-4"},
		{nil, at("3"), "A-3"},
		{at("3"), at("1"), ""},
		{at("3"), at("3"), ""},
		{nil, &RPM{Name: "none", Version: "3", Release: "1", Arch: "noarch"}, ""},
	} {
		var ids []string
		for _, a := range x.For(tt.before, tt.now) {
			ids = append(ids, a.ID)
		}
		if got := strings.Join(ids, " "); got != tt.want {
			t.Errorf("%+v to %+v: got %s, want %s", tt.before, tt.now, got, tt.want)
		}
	}
	want := Advisory{ID: "L-3", Type: "security", Severity: "Low", Title: "T", Issued: "2024-05-01", References: []AdvisoryReference{{"cve", "CVE-1", "https://x.example/", "C"}}}
	if got := x.For(nil, l.Find(KindRPM, "lib-3-1.noarch").RPM); !reflect.DeepEqual(got, []Advisory{want}) {
		t.Errorf("got %+v", got)
	}
	delete(s, l.Find(KindRepodata, "base-x86_64/updateinfo").SHA256)
	if _, err := Advisories(l, open); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), "repodata base-x86_64/updateinfo: ") {
		t.Errorf("got %v", err)
	}
	// A question without a lock does not fetch them.
	w.asked = nil
	if _, err := LoadRepos(context.Background(), Options{Manifest: &Manifest{RPM: ManifestRPM{Repos: []ManifestRepo{{ID: "base", BaseURL: StringList{w.repos + "base"}}}}}, Fetch: w.fetch}, "x86_64"); err != nil || len(w.asked) != 2 {
		t.Errorf("fetched %q, %v", w.asked, err)
	}
	w.addData("base", "other", "x")
	w.repo("base", "", appPackages("3")...)
	w.addData("base", "updateinfo", "<updates><update/></updates>")
	l = w.lock(oneRepo + "sets: {root: {packages: [app]}}\n")
	s.keep(w, l)
	if _, err := Advisories(l, open); err == nil || !strings.Contains(err.Error(), "has no id") {
		t.Errorf("got %v", err)
	}
}

package view

import (
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/rpmmd"
	"caisson/prefetch/cas"
)

func world(t *testing.T, s *cas.Store) *lock.Lock {
	t.Helper()
	l := &lock.Lock{Version: 1, Name: "x", Epoch: 1700000001, Arches: []string{"aarch64", "x86_64"}, Repos: []lock.Repo{
		{ID: "baseos", Arch: "x86_64", BaseURL: "https://example.org/baseos/"},
		{ID: "appstream", Arch: "x86_64", BaseURL: "https://example.org/appstream/", Priority: 10},
		{ID: "baseos", Arch: "aarch64", BaseURL: "https://example.org/baseos/"},
	}}
	both := []string{"aarch64", "x86_64"}
	l.Inputs = []lock.Input{
		pkg{name: "app", version: "2.0~rc1", arch: "x86_64", epoch: 3, requires: []string{"libfoo>=1:1.2", "/usr/share/data/data", "/usr/bin/tool"}, recommends: []string{"extra"}}.
			input(t, s, "appstream", "x86_64"),
		pkg{name: "extra", version: "1^git1", arch: "noarch", provides: []string{"thing=2-3"}}.input(t, s, "baseos", both...),
		pkg{name: "libfoo", version: "1.5", arch: "x86_64", epoch: 1, provides: []string{"libfoo=1:1.5-1.el9", "libfoo.so.1()(64bit)"}, files: []string{"/etc/libfoo.conf"}}.
			input(t, s, "baseos", "x86_64"),
		pkg{name: "data", version: "1", arch: "noarch"}.input(t, s, "baseos", both...),
		pkg{name: "tool", version: "1", arch: "noarch", files: []string{"/usr/bin/tool"}}.input(t, s, "baseos", both...),
	}
	return l
}

func rpmTree(t *testing.T, s *cas.Store, l *lock.Lock) *Tree {
	t.Helper()
	tree := New(s)
	if err := tree.RPM(t.Context(), "", l); err != nil {
		t.Fatal(err)
	}
	return tree
}

// realPackages are those of the shared data, if it is there.
func realPackages(t *testing.T, s *cas.Store) []lock.Input {
	t.Helper()
	names, err := filepath.Glob("../../../shared/data/rpms/*.rpm")
	if err != nil {
		t.Fatal(err)
	}
	if len(names) == 0 {
		t.Log("no ../shared/data/rpms: without real packages")
	}
	var out []lock.Input
	for _, n := range names {
		out = append(out, realPackage(t, s, n))
	}
	return out
}

// realPackage puts a package that is a file into the store.
func realPackage(t *testing.T, s *cas.Store, name string) lock.Input {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return lock.Input{
		Kind: lock.KindRPM, Name: filepath.Base(name), URL: "https://example.org/" + filepath.Base(name), Repo: "baseos",
		SHA256: put(t, s, b), RPM: &lock.RPM{}, For: []lock.Use{{Arch: "x86_64", By: "x"}},
	}
}

func openData(t *testing.T, dir, typ string) io.Reader {
	t.Helper()
	f, err := os.Open(dir + "/repodata/repomd.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	md, err := rpmmd.ParseRepomd(f)
	if err != nil {
		t.Fatal(err)
	}
	d := md.Find(typ)
	if d == nil {
		t.Fatalf("%s: no %s", dir, typ)
	}
	b, err := os.ReadFile(filepath.Join(dir, d.Location))
	if err != nil {
		t.Fatal(err)
	}
	if got := digest.Of(b).Hex(); got != d.Checksum.Hex || int64(len(b)) != d.Size {
		t.Errorf("%s: got %s, %d bytes, want %s, %d", d.Location, got, len(b), d.Checksum.Hex, d.Size)
	}
	z, err := gzip.NewReader(strings.NewReader(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	if got := digest.Of(text).Hex(); got != d.OpenChecksum.Hex || int64(len(text)) != d.OpenSize {
		t.Errorf("%s: opened: got %s, %d bytes, want %s, %d", d.Location, got, len(text), d.OpenChecksum.Hex, d.OpenSize)
	}
	return strings.NewReader(string(text))
}

// TestRPMAgain makes a view a second time, from what the store remembers, and
// from another store that has the same packages in another order.
func TestRPMAgain(t *testing.T) {
	s := newStore(t)
	l := world(t, s)
	first := listing(t, write(t, rpmTree(t, s, l)))
	if n := strings.Count(first, "repomd.xml"); n != 3 {
		t.Errorf("%d repositories, want 3:\n%s", n, first)
	}
	if again := listing(t, write(t, rpmTree(t, s, l))); again != first {
		t.Errorf("got %s\nwant %s", again, first)
	}
	other := newStore(t)
	o := world(t, other)
	slices.Reverse(o.Inputs)
	if again := listing(t, write(t, rpmTree(t, other, o))); again != first {
		t.Errorf("got %s\nwant %s", again, first)
	}
}

// TestRPMData takes over the groups and modules that were locked.
func TestRPMData(t *testing.T) {
	s := newStore(t)
	l := world(t, s)
	for typ, url := range map[string]string{"modules": "repodata/0a1b-modules.yaml.gz", "group": "repodata/comps.xml", "primary": "repodata/primary.xml.gz"} {
		l.Inputs = append(l.Inputs, lock.Input{
			Kind: lock.KindRepodata, Name: "baseos-x86_64/" + typ, URL: url, Repo: "baseos", SHA256: put(t, s, []byte(typ)), Size: int64(len(typ)),
			For: []lock.Use{{Arch: "x86_64", By: "repository baseos"}},
		})
	}
	dir := write(t, rpmTree(t, s, l))
	f, err := os.Open(dir + "/x86_64/baseos/repodata/repomd.xml")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	md, err := rpmmd.ParseRepomd(f)
	if err != nil {
		t.Fatal(err)
	}
	for typ, want := range map[string]string{"modules": "repodata/modules.yaml.gz", "group": "repodata/group.xml"} {
		if d := md.Find(typ); d == nil || d.Location != want || d.Checksum.Hex != digest.Of([]byte(typ)).Hex() {
			t.Errorf("%s: got %+v", typ, d)
		} else if b, err := os.ReadFile(filepath.Join(dir, "x86_64/baseos", d.Location)); err != nil || string(b) != typ {
			t.Errorf("%s: %q, %v", typ, b, err)
		}
	}
	if d := md.Find("primary"); d == nil || d.Size == int64(len("primary")) {
		t.Errorf("primary: got %+v", d)
	}
}

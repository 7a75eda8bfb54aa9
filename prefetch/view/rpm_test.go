package view

import (
	"compress/gzip"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
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

// TestDnf installs from a view, with no network: the same packages as are in
// the lock, a weak dependency and one by a file that only filelists has
// included.
func TestDnf(t *testing.T) {
	dnf := tool(t, "dnf")
	s := newStore(t)
	l := world(t, s)
	tree := rpmTree(t, s, l)
	dir := filepath.Join(t.TempDir(), "a view")
	if err := tree.RepoFiles("", dir, l); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	root, repos := t.TempDir(), t.TempDir() // dnf's list of folders is separated by spaces
	repo, err := os.ReadFile(dir + "/x86_64/repos.d/caisson.repo")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(repos+"/view.repo", repo, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := run(t, root, nil, dnf, "-y", "--installroot="+root, "--releasever=9", "--forcearch=x86_64",
		"--setopt=reposdir="+repos, "--setopt=cachedir="+root+"/cache", "--setopt=keepcache=0", "--nogpgcheck", "install", "app")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	got, err := run(t, root, nil, tool(t, "rpm"), "--root="+root, "-qa", "--qf", "%{nevra}\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	want := []string{"app-3:2.0~rc1-1.el9.x86_64", "data-1-1.el9.noarch", "extra-1^git1-1.el9.noarch", "libfoo-1:1.5-1.el9.x86_64", "tool-1-1.el9.noarch"}
	if have := slices.Sorted(slices.Values(strings.Fields(strings.ReplaceAll(got, "-0:", "-")))); !slices.Equal(have, want) {
		t.Errorf("installed %q, want %q\n%s", have, want, out)
	}
}

// TestCreaterepo compares the repodata with what createrepo_c makes of the
// same packages.
func TestCreaterepo(t *testing.T) {
	createrepo := tool(t, "createrepo_c")
	s := newStore(t)
	l := world(t, s)
	l.Inputs = append(l.Inputs, realPackages(t, s)...)
	dir := write(t, rpmTree(t, s, l)) + "/x86_64/baseos"
	other := t.TempDir()
	if out, err := run(t, "", nil, createrepo, "--general-compress-type", "gz", "--simple-md-filenames", "-o", other, dir); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ours, theirs := readPrimary(t, dir), readPrimary(t, other)
	for name, want := range theirs {
		got, ok := ours[name]
		if !ok {
			t.Errorf("%s is not in the view's primary", name)
			continue
		}
		for _, p := range []*rpmmd.Package{&got, &want} {
			p.BuildTime = 0
			for _, deps := range []*[]rpmmd.Dep{&p.Provides, &p.Requires, &p.Conflicts, &p.Obsoletes, &p.Recommends, &p.Suggests, &p.Supplements, &p.Enhances} {
				slices.SortFunc(*deps, func(a, b rpmmd.Dep) int { return strings.Compare(a.String(), b.String()) })
				*deps = slices.Compact(*deps)
			}
			slices.Sort(p.Files)
		}
		// createrepo_c leaves out all versions of libc.so.6 but the newest.
		got.Requires = slices.DeleteFunc(got.Requires, func(d rpmmd.Dep) bool {
			return strings.HasPrefix(d.Name, "libc.so.6") && !slices.Contains(want.Requires, d)
		})
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
	if len(ours) != len(theirs) {
		t.Errorf("%d packages, want %d", len(ours), len(theirs))
	}
	for _, part := range []string{"filelists", "other"} {
		got, want := readXML(t, dir, part), readXML(t, other, part)
		for id := range want {
			if !slices.Equal(got[id], want[id]) {
				t.Errorf("%s: got %q\nwant %q", part, got[id], want[id])
			}
		}
	}
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
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, lock.Input{
			Kind: lock.KindRPM, Name: filepath.Base(n), URL: "https://example.org/" + filepath.Base(n), Repo: "baseos",
			SHA256: put(t, s, b), RPM: &lock.RPM{}, For: []lock.Use{{Arch: "x86_64", By: "x"}},
		})
	}
	return out
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

func readPrimary(t *testing.T, dir string) map[string]rpmmd.Package {
	t.Helper()
	all, err := rpmmd.ParsePrimary(openData(t, dir, "primary"))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]rpmmd.Package{}
	for _, p := range all {
		out[p.Location] = p
	}
	return out
}

// readXML is the packages of filelists or other by id: sorted lines.
func readXML(t *testing.T, dir, part string) map[string][]string {
	t.Helper()
	var doc struct {
		Packages []struct {
			ID    string `xml:"pkgid,attr"`
			Name  string `xml:"name,attr"`
			Arch  string `xml:"arch,attr"`
			Files []struct {
				Type string `xml:"type,attr"`
				Path string `xml:",chardata"`
			} `xml:"file"`
			Changes []struct {
				Author string `xml:"author,attr"`
				Date   string `xml:"date,attr"`
				Text   string `xml:",chardata"`
			} `xml:"changelog"`
		} `xml:"package"`
	}
	if err := xml.NewDecoder(openData(t, dir, part)).Decode(&doc); err != nil {
		t.Fatal(err)
	}
	out := map[string][]string{}
	for _, p := range doc.Packages {
		lines := []string{p.Name + "." + p.Arch}
		for _, f := range p.Files {
			lines = append(lines, fmt.Sprint(f))
		}
		for _, c := range p.Changes { // in their order
			lines = append(lines, fmt.Sprint(len(lines), c))
		}
		slices.Sort(lines)
		out[p.ID] = lines
	}
	return out
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

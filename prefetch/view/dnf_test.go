package view

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/tooltest"
)

// dnfRoot is an empty root, and how dnf is called to fill it from a view that
// it sees by its .repo file, with no network where the machine can do so.
type dnfRoot struct {
	dir  string
	args []string
}

func newDnfRoot(t *testing.T, view, arch string) dnfRoot {
	t.Helper()
	repo, err := os.ReadFile(filepath.Join(view, arch, "repos.d/caisson.repo"))
	if err != nil {
		t.Fatal(err)
	}
	r := dnfRoot{dir: t.TempDir()}
	repos := t.TempDir() // dnf's list of folders is separated by spaces, and the view's path has one
	if err := os.WriteFile(repos+"/view.repo", repo, 0o600); err != nil {
		t.Fatal(err)
	}
	r.args = append(offline(t), tooltest.Find(t, "dnf"), "-y", "--installroot="+r.dir, "--releasever=9", "--forcearch="+arch,
		"--setopt=reposdir="+repos, "--setopt=cachedir="+r.dir+"/cache", "--setopt=keepcache=0",
		"--setopt=module_platform_id=platform:el9")
	return r
}

func (r dnfRoot) dnf(t *testing.T, args ...string) string {
	t.Helper()
	out, err := run(t, r.dir, nil, append(slices.Clone(r.args), args...)...)
	if err != nil {
		t.Fatalf("dnf %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// installed is what rpm has in the root, sorted.
func (r dnfRoot) installed(t *testing.T) []string {
	t.Helper()
	got, err := run(t, r.dir, nil, tooltest.Find(t, "rpm"), "--root="+r.dir, "-qa", "--qf", "%{nevra}\n")
	if err != nil {
		t.Fatalf("%v\n%s", err, got)
	}
	return slices.Sorted(slices.Values(strings.Fields(strings.ReplaceAll(got, "-0:", "-"))))
}

func (r dnfRoot) want(t *testing.T, want ...string) {
	t.Helper()
	if got := r.installed(t); !slices.Equal(got, want) {
		t.Errorf("installed %q, want %q", got, want)
	}
}

// TestDnf installs from a view: the same packages as are in the lock, a weak
// dependency and one by a file that only filelists has included; for another
// arch what is there for it.
func TestDnf(t *testing.T) {
	s := newStore(t)
	l := world(t, s)
	dir := dnfView(t, rpmTree(t, s, l), l)
	r := newDnfRoot(t, dir, "x86_64")
	r.dnf(t, "--nogpgcheck", "install", "app")
	r.want(t, "app-3:2.0~rc1-1.el9.x86_64", "data-1-1.el9.noarch", "extra-1^git1-1.el9.noarch", "libfoo-1:1.5-1.el9.x86_64", "tool-1-1.el9.noarch")

	r = newDnfRoot(t, dir, "aarch64")
	r.dnf(t, "--nogpgcheck", "install", "extra", "tool")
	r.want(t, "extra-1^git1-1.el9.noarch", "tool-1-1.el9.noarch")
	if out, err := run(t, r.dir, nil, append(slices.Clone(r.args), "--nogpgcheck", "install", "app")...); err == nil {
		t.Errorf("a package of another arch was found:\n%s", out)
	}
}

// dnfView writes a view with its .repo files, below a folder with a space in
// its name.
func dnfView(t *testing.T, tree *Tree, l *lock.Lock) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a view")
	if err := tree.RepoFiles("", dir, l); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.Write(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

const (
	// modules makes the older tool a module's, which hides the newer one.
	modules = `---
document: modulemd
version: 2
data:
  name: tools
  stream: "1"
  version: 1
  context: c0ffee
  arch: x86_64
  summary: tools
  description: tools
  license: {module: [MIT], content: [MIT]}
  profiles: {default: {rpms: [modular]}}
  api: {rpms: [modular]}
  artifacts: {rpms: ["modular-0:1-1.el9.noarch"]}
...
---
document: modulemd-defaults
version: 1
data: {module: tools, stream: "1", profiles: {"1": [default]}}
...
`
	comps = `<?xml version="1.0" encoding="UTF-8"?>
<comps><group><id>both</id><name>Both</name><description>both</description><default>false</default><uservisible>true</uservisible>
<packagelist><packagereq type="mandatory">tool</packagereq><packagereq type="mandatory">data</packagereq></packagelist></group></comps>
`
)

// TestDnfData shows that dnf uses the modules and groups that were locked, and
// finds source packages.
func TestDnfData(t *testing.T) {
	s := newStore(t)
	l := world(t, s)
	l.Inputs = append(l.Inputs,
		pkg{name: "modular", version: "1", arch: "noarch"}.input(t, s, "baseos", "x86_64"),
		pkg{name: "modular", version: "2", arch: "noarch"}.input(t, s, "baseos", "x86_64"))
	for _, file := range rpmbuild(t, everything) {
		if strings.HasSuffix(file, ".src.rpm") {
			l.Inputs = append(l.Inputs, realPackage(t, s, file))
		}
	}
	for name, text := range map[string]string{"modules.yaml": modules, "group.xml": comps} {
		typ := stem(name)
		l.Inputs = append(l.Inputs, lock.Input{
			Kind: lock.KindRepodata, Name: "baseos-x86_64/" + typ, URL: "repodata/0a-" + name, Repo: "baseos", SHA256: put(t, s, []byte(text)), Size: int64(len(text)),
			For: []lock.Use{{Arch: "x86_64", By: "repository baseos"}},
		})
	}
	r := newDnfRoot(t, dnfView(t, rpmTree(t, s, l), l), "x86_64")
	r.dnf(t, "--nogpgcheck", "install", "modular", "@both")
	r.want(t, "data-1-1.el9.noarch", "modular-1-1.el9.noarch", "tool-1-1.el9.noarch")
	if out := r.dnf(t, "repoquery", "--quiet", "--arch=src", "everything"); strings.TrimSpace(out) != "everything-4:1.0~rc2-1^git2.src" {
		t.Errorf("source packages: got %q", out)
	}
}

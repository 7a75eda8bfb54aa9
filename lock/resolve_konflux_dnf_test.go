package lock

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// dnfSpec makes packages with every kind of dependency between them.
const dnfSpec = `
Name: base
Version: %{v}
Release: 1
Summary: s
License: MIT
BuildArch: noarch
Provides: system-release = 9
%description
d
%files
`

func subpackage(name, lines string) string {
	return fmt.Sprintf("%%package -n %s\nSummary: s\n%s%%description -n %s\nd\n%%files -n %s\n", name, lines, name, name)
}

// dnfAnswer has dnf itself, in the root and with the repository, do what the
// prototype has it do.
const dnfAnswer = `
import json, sys, tempfile, dnf
def answer(q):
    with dnf.Base() as base, tempfile.TemporaryDirectory() as cache:
        c = base.conf
        c.installroot, c.cachedir, c.persistdir, c.logdir, c.plugins, c.best = q["root"], cache, cache, cache, False, True
        c.install_weak_deps = q["weak"]
        c.substitutions["arch"] = c.substitutions["basearch"] = "x86_64"
        c.substitutions["releasever"] = "9"
        base.repos.add_new_repo("main", c, baseurl=["file://" + q["repo"]], gpgcheck=False)
        base.fill_sack(load_system_repo=True)
        for p in q["upgrade"]: base.upgrade(p)
        for p in q["reinstall"]: base.reinstall(p)
        try:
            base.install_specs(q["install"])
            base.resolve(allow_erasing=q["erasing"])
        except dnf.exceptions.Error:
            return ["error"]
        return sorted("%s-%s@%s" % (p.name, p.evr, p.repoid) for p in (base.transaction.install_set if base.transaction else []))
print(json.dumps([answer(q) for q in json.load(sys.stdin)]))
`

// TestResolveKonfluxDNF compares with dnf, which has the real rpmdb of a
// root that our side reads out of an image.
func TestResolveKonfluxDNF(t *testing.T) {
	for _, name := range []string{"rpmbuild", "rpm", "createrepo_c"} {
		tooltest.Find(t, name)
	}
	const python = "/usr/bin/python3"
	if err := exec.Command(python, "-c", "import dnf").Run(); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("no python3 with dnf: ", err)
	}
	dir := t.TempDir()
	run := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), "HOME="+dir)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	build := func(version, subs string) {
		writeFiles(t, dir, map[string]string{version + ".spec": dnfSpec + subs})
		run("rpmbuild", "-bb", "--define", "_topdir "+dir+"/"+version, "--define", "_rpmdir "+dir+"/repo", "--define", "v "+version, dir+"/"+version+".spec")
	}
	build("1", subpackage("lib", "Provides: cap = 1\n")+subpackage("old", "Requires: lib = 1\n")+subpackage("path", "")+subpackage("rich", "Requires: (extra if lib >= 2)\n"))
	build("2", subpackage("lib", "Provides: cap = 2\n")+subpackage("app", "Requires: cap >= 1\nRecommends: nice\n")+subpackage("app2", "Requires: cap >= 2\n")+
		subpackage("nice", "")+subpackage("extra", "")+subpackage("heir", "Obsoletes: path < 2\n")+subpackage("against", "Conflicts: old\n")+subpackage("supp", "Supplements: lib\n"))
	run("createrepo_c", "-q", dir+"/repo")
	root := filepath.Join(dir, "root")
	rpms, err := filepath.Glob(dir + "/repo/noarch/*-1-1.noarch.rpm")
	if err != nil || len(rpms) != 5 {
		t.Fatal(rpms, err)
	}
	// The place that this rpm has it in, for dnf uses that one.
	run("rpm", append([]string{"--root", root, "--define", "_db_backend sqlite", "--nodeps", "-i"}, rpms...)...)
	place := strings.TrimSpace(eval(t, dir, "%_dbpath"))
	db, err := os.ReadFile(filepath.Join(root, place, "rpmdb.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t)
	w.imageAt("example.org/base:1", nil, "var/lib/rpm/rpmdb.sqlite", map[string][]byte{"x86_64": db})
	type question struct {
		Root      string   `json:"root"`
		Repo      string   `json:"repo"`
		Weak      bool     `json:"weak"`
		Erasing   bool     `json:"erasing"`
		Install   []string `json:"install"`
		Upgrade   []string `json:"upgrade"`
		Reinstall []string `json:"reinstall"`
	}
	list := func(s ...string) []string { return append([]string{}, s...) }
	questions := []question{
		{Install: list("app")}, {Install: list("app"), Weak: true}, {Install: list("app2")}, {Install: list("app2"), Erasing: true}, {Install: list("lib")},
		{Install: list("lib", "nice")}, {Upgrade: list("lib")}, {Upgrade: list("base", "rich")}, {Upgrade: list("base"), Weak: true}, {Install: list("heir")}, {Reinstall: list("old")},
		{Reinstall: list("lib"), Install: list("app")}, {Install: list("against")}, {Install: list("against"), Erasing: true}, {Upgrade: list("path")}, {Install: list("supp"), Weak: true},
	}
	for i := range questions {
		q := &questions[i]
		q.Root, q.Repo = root, dir+"/repo"
		q.Install, q.Upgrade, q.Reinstall = list(q.Install...), list(q.Upgrade...), list(q.Reinstall...)
	}
	cmd := exec.Command(python, "-c", dnfAnswer)
	cmd.Stdin = strings.NewReader(mustJSON(t, questions))
	cmd.Env = append(os.Environ(), "HOME="+dir) // where this rpm has its database is made of it
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var answers [][]string
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(questions) {
		t.Fatalf("%s: %v", out, err)
	}
	for i, q := range questions {
		in := fmt.Sprintf("packages: %s\nupgradePackages: %s\nreinstallPackages: %s\ninstallWeakDeps: %t\nallowerasing: %t\nnoSources: true\narches: [x86_64]\n",
			mustJSON(t, q.Install), mustJSON(t, q.Upgrade), mustJSON(t, q.Reinstall), q.Weak, q.Erasing) +
			"context: {image: 'example.org/base:1'}\ncontentOrigin: {repos: [{repoid: main, baseurl: 'file://" + dir + "/repo'}]}\n"
		_, k, err := w.konflux(in, KonfluxOptions{})
		got := []string{"error"}
		if err == nil {
			got = strings.Fields(konfluxNames(k, "x86_64"))
		}
		if want := answers[i]; !slices.Equal(got, want) {
			t.Errorf("%+v\ngot  %v (%v)\nwant %v", q, got, err, want)
		}
	}
}

func mustJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// eval is what rpm makes of a macro.
func eval(t *testing.T, home, macro string) string {
	t.Helper()
	cmd := exec.Command("rpm", "--eval", macro)
	cmd.Env = append(os.Environ(), "HOME="+home)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

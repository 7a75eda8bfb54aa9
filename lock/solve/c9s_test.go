package solve

import (
	"bufio"
	"errors"
	"flag"
	"math/rand"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// c9sPool indexes the two repositories of CentOS Stream 9.
func c9sPool(t testing.TB, modules bool) *Pool {
	t.Helper()
	var repos []Repo
	for _, id := range []string{"baseos", "appstream"} {
		repos = append(repos, loadRepo(t, id, filepath.Join(shared, "rpm-md/c9s-"+id)))
	}
	if modules {
		names, err := filepath.Glob(filepath.Join(shared, "rpm-md/c9s-appstream/repodata/*-modules.yaml.xz"))
		if err != nil || len(names) != 1 {
			t.Skip("no shared data rpm-md")
		}
		f, err := os.Open(names[0])
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if repos[1].Modules, err = rpmmd.ParseModules(f); err != nil {
			t.Fatal(err)
		}
	}
	p, err := NewPool(repos, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestHiddenC9S compares the number of packages that modules leave visible
// with dnf's.
func TestHiddenC9S(t *testing.T) {
	p := c9sPool(t, true)
	visible := 0
	for q := int(firstID); q < len(p.pkgs); q++ {
		if !p.modules.state.hidden[q] {
			visible++
		}
	}
	if all := len(p.pkgs) - int(firstID); all != 18774 || visible != 18258 {
		t.Errorf("%d of %d packages are visible, want 18258 of 18774", visible, all)
	}
}

// TestC9S compares with dnf's answers for every second package name of CentOS
// Stream 9, weak dependencies on. dnf was asked in the way that does not look
// for packages that obsolete the named one.
func TestC9S(t *testing.T) {
	f, err := os.Open(filepath.Join(shared, "rpm-md/c9s-dnf-weak-even.tsv"))
	if err != nil {
		t.Skip("no shared data rpm-md")
	}
	defer f.Close()
	p := c9sPool(t, true)
	asked, agreed := 0, 0
	for in := bufio.NewScanner(f); in.Scan(); {
		want := strings.Split(in.Text(), "\t")
		asked++
		got, err := p.Solve(Request{Specs: want[:1], WeakDeps: true, KeepObsoleted: true})
		var problem *Problem
		switch {
		case err != nil && !errors.As(err, &problem):
			t.Fatal(err)
		case want[1] == "fail" && err != nil:
			agreed++
		case want[1] == "fail":
			t.Errorf("%s: solved, want a problem", want[0])
		case err != nil:
			t.Errorf("%s: %v", want[0], err)
		case strconv.Itoa(len(got.Packages)) == want[2] && sum(lines(got)) == want[3]:
			agreed++
		default:
			t.Errorf("%s: %d packages, want %s", want[0], len(got.Packages), want[2])
		}
	}
	if agreed != asked || asked < 2850 {
		t.Errorf("%d of %d requests agree with dnf, want all of 2850", agreed, asked)
	}
}

var c9sRequests = flag.Int("c9s-requests", 120, "how many requests TestC9SBesideDNF makes of each kind")

// TestC9SBesideDNF asks dnf's library and us: single names without weak
// dependencies and with best, several names in one request, and names that
// cannot be installed, of which the problems are compared.
func TestC9SBesideDNF(t *testing.T) {
	dnf := newOracle(t)
	p := c9sPool(t, true)
	w := &world{rand: rand.New(rand.NewSource(1))}
	for _, id := range []string{"baseos", "appstream"} {
		path, err := filepath.Abs(filepath.Join(shared, "rpm-md/c9s-"+id))
		if err != nil {
			t.Fatal(err)
		}
		w.Repos = append(w.Repos, worldRepo{ID: id, Path: path, Priority: 99, Cost: 1000})
	}
	names := p.visibleNames()
	some := func(n int) []string {
		var list []string
		for range n {
			list = append(list, names[w.rand.Intn(len(names))])
		}
		return list
	}
	for range *c9sRequests {
		w.Requests = append(w.Requests,
			worldRequest{Specs: some(1)},
			worldRequest{Specs: some(1), Weak: w.chance(50), Best: true},
			worldRequest{Specs: some(2 + w.rand.Intn(6)), Weak: w.chance(50), Best: w.chance(50)})
	}
	for _, name := range unsolvable(t, *c9sRequests/3) {
		w.Requests = append(w.Requests, worldRequest{Specs: []string{name}, Weak: true})
	}
	problems := 0
	for i, answer := range dnf.ask(t, w) {
		if answer[0] == '"' {
			problems++
		}
		w.compare(t, p, w.Requests[i], answer, "c9s")
	}
	t.Logf("%d requests, of which dnf finds %d unsolvable", len(w.Requests), problems)
}

// unsolvable returns names that dnf cannot install, spread over all of them.
func unsolvable(t *testing.T, n int) []string {
	t.Helper()
	f, err := os.Open(filepath.Join(shared, "rpm-md/c9s-dnf-weak-even.tsv"))
	if err != nil {
		t.Skip("no shared data rpm-md")
	}
	defer f.Close()
	var all []string
	for in := bufio.NewScanner(f); in.Scan(); {
		if name, rest, _ := strings.Cut(in.Text(), "\t"); strings.HasPrefix(rest, "fail") {
			all = append(all, name)
		}
	}
	var some []string
	for i := 0; i < len(all); i += max(1, len(all)/n) {
		some = append(some, all[i])
	}
	return some
}

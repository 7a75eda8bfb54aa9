package solve

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// c9sPool indexes the two repositories of CentOS Stream 9. With modules, what
// is an artefact of a module stream is hidden: no stream is a default there.
func c9sPool(t testing.TB, modules bool) *Pool {
	t.Helper()
	var repos []Repo
	for _, id := range []string{"baseos", "appstream"} {
		repos = append(repos, loadRepo(t, id, filepath.Join(shared, "rpm-md/c9s-"+id)))
	}
	if modules {
		artefacts := c9sArtefacts(t)
		repos[1].Hidden = func(k *rpmmd.Package) bool {
			return artefacts[fmt.Sprintf("%s-%d:%s-%s.%s", k.Name, k.Epoch, k.Version, k.Release, k.Arch)]
		}
	}
	p, err := NewPool(repos, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// c9sArtefacts returns the NEVRAs that modules.yaml lists.
func c9sArtefacts(t testing.TB) map[string]bool {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(shared, "rpm-md/c9s-appstream/repodata/*-modules.yaml.xz"))
	if err != nil || len(names) != 1 {
		t.Skip("no shared data rpm-md")
	}
	f, err := os.Open(names[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := rpmmd.Decompress(f, 16<<20)
	if err != nil {
		t.Fatal(err)
	}
	artefacts, inside := map[string]bool{}, false
	for in := bufio.NewScanner(z); in.Scan(); {
		item, isItem := strings.CutPrefix(strings.TrimSpace(in.Text()), "- ")
		switch {
		case strings.HasPrefix(in.Text(), "  artifacts:"):
			inside = true
		case strings.HasPrefix(in.Text(), "  ") && in.Text()[2] != ' ', in.Text() == "...":
			inside = false
		case inside && isItem:
			artefacts[item] = true
		}
	}
	return artefacts
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

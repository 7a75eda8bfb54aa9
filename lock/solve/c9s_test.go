package solve

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// c9sPool indexes the two repositories of CentOS Stream 9.
func c9sPool(t testing.TB) *Pool {
	t.Helper()
	var repos []Repo
	for _, id := range []string{"baseos", "appstream"} {
		repos = append(repos, loadRepo(t, id, filepath.Join(shared, "rpm-md/c9s-"+id)))
	}
	p, err := NewPool(repos, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestC9S compares with dnf's answers for every second package name of CentOS
// Stream 9, weak dependencies on.
func TestC9S(t *testing.T) {
	f, err := os.Open(filepath.Join(shared, "rpm-md/c9s-dnf-weak-even.tsv"))
	if err != nil {
		t.Skip("no shared data rpm-md")
	}
	defer f.Close()
	p := c9sPool(t)
	asked, agreed := 0, 0
	for in := bufio.NewScanner(f); in.Scan(); {
		want := strings.Split(in.Text(), "\t")
		asked++
		got, err := p.Solve(Request{Specs: want[:1], WeakDeps: true})
		var problem *Problem
		switch {
		case err != nil && !errors.As(err, &problem):
			t.Fatal(err)
		case want[1] == "fail" && err != nil:
			agreed++
		case want[1] == "fail":
			t.Logf("%s: solved, want a problem", want[0])
		case err != nil:
			t.Logf("%s: %v", want[0], err)
		case strconv.Itoa(len(got.Packages)) == want[2] && sum(lines(got)) == want[3]:
			agreed++
		default:
			t.Logf("%s: %d packages, want %s", want[0], len(got.Packages), want[2])
		}
	}
	t.Logf("%d of %d agree", agreed, asked)
}

package solve

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// shared is the folder of shared test data.
const shared = "../../../shared/data"

// loadRepo reads a repository from a folder.
func loadRepo(t testing.TB, id, dir string) Repo {
	t.Helper()
	open := func(pattern string) *os.File {
		names, err := filepath.Glob(filepath.Join(dir, "repodata", pattern))
		if err != nil || len(names) != 1 {
			t.Skipf("no %s in %s", pattern, dir)
		}
		f, err := os.Open(names[0])
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	f := open("*primary.xml*")
	defer f.Close()
	pkgs, err := rpmmd.ParsePrimary(f)
	if err != nil {
		t.Fatal(err)
	}
	return Repo{ID: id, Packages: pkgs, Filelists: func() (io.ReadCloser, error) { return open("*filelists.xml*"), nil }}
}

// lines returns a solution as caisson resolve prints it.
func lines(s *Solution) []string {
	var out []string
	for _, c := range s.Packages {
		out = append(out, c.Package.String()+"@"+c.Repo)
	}
	slices.Sort(out)
	return out
}

// sum returns the first 32 hexadecimal digits of the digest of lines.
func sum(lines []string) string {
	h := sha256.Sum256([]byte(strings.Join(lines, "\n")))
	return hex.EncodeToString(h[:])[:32]
}

type microCase struct {
	Name, Arch string
	Repos      []struct {
		ID, Path string
		Priority int
	}
	Request  []string
	Install  []string
	Variants []struct {
		Weak, Best bool
		N, P       int
		H          string
	}
}

// TestMicro compares with dnf's answers to tiny questions.
func TestMicro(t *testing.T) {
	f, err := os.Open(filepath.Join(shared, "solver-micro/cases.jsonl"))
	if err != nil {
		t.Skip("no shared data solver-micro")
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var c microCase
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		t.Run(c.Name, func(t *testing.T) {
			var repos []Repo
			for _, r := range c.Repos {
				repo := loadRepo(t, r.ID, filepath.Join(shared, "solver-micro", r.Path))
				repo.Priority = r.Priority
				repos = append(repos, repo)
			}
			p, err := NewPool(repos, Options{Arch: c.Arch})
			if err != nil {
				t.Fatal(err)
			}
			for _, v := range c.Variants {
				got, err := p.Solve(Request{Specs: c.Request, WeakDeps: v.Weak, Best: v.Best})
				what := fmt.Sprintf("%v weak=%v best=%v", c.Request, v.Weak, v.Best)
				var problem *Problem
				switch {
				case err != nil && !errors.As(err, &problem):
					t.Fatal(err)
				case v.P > 0 && err == nil:
					t.Errorf("%s: got %v, want a problem", what, lines(got))
				case v.P == 0 && err != nil:
					t.Errorf("%s: %v", what, err)
				case v.P == 0 && (len(got.Packages) != v.N || sum(lines(got)) != v.H):
					t.Errorf("%s: got %v, want %d packages (%v)", what, lines(got), v.N, c.Install)
				}
			}
		})
	}
}

// TestMicroProblems compares the problems of the tiny questions with dnf's:
// ours name all that dnf's name.
func TestMicroProblems(t *testing.T) {
	dnf := newOracle(t)
	f, err := os.Open(filepath.Join(shared, "solver-micro/cases.jsonl"))
	if err != nil {
		t.Skip("no shared data solver-micro")
	}
	defer f.Close()
	for in := bufio.NewScanner(f); in.Scan(); {
		var c microCase
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			t.Fatal(err)
		}
		w := &world{}
		for _, v := range c.Variants {
			if v.P > 0 {
				w.Requests = append(w.Requests, worldRequest{Specs: c.Request, Weak: v.Weak, Best: v.Best})
			}
		}
		if len(w.Requests) == 0 {
			continue
		}
		var repos []Repo
		for _, r := range c.Repos {
			repo := loadRepo(t, r.ID, filepath.Join(shared, "solver-micro", r.Path))
			repo.Priority = r.Priority
			repos = append(repos, repo)
			path, err := filepath.Abs(filepath.Join(shared, "solver-micro", r.Path))
			if err != nil {
				t.Fatal(err)
			}
			w.Repos = append(w.Repos, worldRepo{ID: r.ID, Path: path, Priority: r.Priority, Cost: 1000})
		}
		p, err := NewPool(repos, Options{Arch: c.Arch})
		if err != nil {
			t.Fatal(err)
		}
		for i, answer := range dnf.ask(t, w) {
			w.compare(t, p, w.Requests[i], answer, c.Name)
		}
	}
}

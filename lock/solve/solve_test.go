package solve

import (
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// ask returns the solution as one line, or the problem's lines.
func ask(t testing.TB, p *Pool, r Request) string {
	t.Helper()
	s, err := p.Solve(r)
	var problem *Problem
	switch {
	case errors.As(err, &problem):
		return strings.Join(problem.Lines, "\n")
	case err != nil:
		t.Fatal(err)
	}
	return strings.ReplaceAll(strings.Join(lines(s), " "), "@r", "")
}

const library = `
app-1-1.x86_64 Requires: lib >= 1, /usr/share/data, sh | Recommends: docs
lib-1-1.x86_64
lib-2-1.x86_64
bash-5-1.x86_64 Provides: sh | Files: /usr/bin/bash
dash-1-1.x86_64 Provides: sh
data-1-1.noarch Extra: /usr/share/data
docs-1-1.noarch
docs-extra-1-1.noarch Supplements: docs
heir-1-1.x86_64 Obsoletes: gone
gone-1-1.x86_64
left-1-1.x86_64 Conflicts: right
right-1-1.x86_64
broken-1-1.x86_64 Requires: nothing >= 3
broken-2-1.x86_64 Requires: nothing >= 3
needs-broken-1-1.x86_64 Requires: broken
needs-old-1-1.x86_64 Requires: lib < 2
`

func TestReasons(t *testing.T) {
	p := textPool(t, library)
	s, err := p.Solve(Request{Specs: []string{"app", "/usr/bin/bash"}, WeakDeps: true})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range s.Packages {
		by := ""
		if c.Reason.By != nil {
			by = c.Reason.By.Name
		}
		got = append(got, fmt.Sprintf("%s %s %s%s %s", c.Package.Name, c.Reason.Kind, c.Reason.Spec, by, c.Reason.Dep))
	}
	want := []string{
		"app requested app ",
		"bash requested /usr/bin/bash ",
		"data requires app /usr/share/data",
		"docs recommends app docs",
		"docs-extra supplements docs docs",
		"lib requires app lib >= 1",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestRequests(t *testing.T) {
	p := textPool(t, library)
	for _, c := range []struct {
		name string
		req  Request
		want string
	}{
		{"newest", Request{Specs: []string{"lib"}}, "lib-2-1.x86_64"},
		{"obsoleter", Request{Specs: []string{"gone"}}, "heir-1-1.x86_64"},
		{"at its word", Request{Specs: []string{"gone"}, KeepObsoleted: true}, "gone-1-1.x86_64"},
		{"preferred", Request{Specs: []string{"lib"}, Best: true, Prefer: []string{"lib-1-1.x86_64"}}, "lib-1-1.x86_64"},
		{"preferred provider", Request{Specs: []string{"app"}, Prefer: []string{"dash-1-1.x86_64", "lib-1-1.x86_64"}},
			"app-1-1.x86_64 dash-1-1.x86_64 data-1-1.noarch lib-1-1.x86_64"},
		{"preference that no longer holds", Request{Specs: []string{"needs-old", "lib"}, Prefer: []string{"lib-2-1.x86_64"}},
			"lib-1-1.x86_64 needs-old-1-1.x86_64"},
		{"preferred, but not needed", Request{Specs: []string{"lib"}, Prefer: []string{"docs-1-1.noarch"}}, "lib-2-1.x86_64"},
		{"excluded by name", Request{Specs: []string{"app"}, Exclude: []string{"bash"}},
			"app-1-1.x86_64 dash-1-1.x86_64 data-1-1.noarch lib-2-1.x86_64"},
		{"excluded by glob and version", Request{Specs: []string{"lib"}, Exclude: []string{"li*-2-1.*"}}, "lib-1-1.x86_64"},
		{"excluded recommendation", Request{Specs: []string{"app"}, WeakDeps: true, Exclude: []string{"docs"}},
			"app-1-1.x86_64 bash-5-1.x86_64 data-1-1.noarch lib-2-1.x86_64"},
		{"nothing", Request{}, ""},
		{"conflict", Request{Specs: []string{"left", "right"}},
			"\"left\" is asked for\n  left-1-1.x86_64@r conflicts with \"right\" together with right-1-1.x86_64@r\n" +
				"\"right\" is asked for\n  right-1-1.x86_64@r is what left-1-1.x86_64@r conflicts with (\"right\")"},
		{"missing", Request{Specs: []string{"needs-broken"}},
			"\"needs-broken\" is asked for\n  needs-broken-1-1.x86_64@r requires \"broken\"\n" +
				"    broken-2-1.x86_64@r, broken-1-1.x86_64@r requires what nothing provides: \"nothing >= 3\""},
		{"everything excluded", Request{Specs: []string{"lib"}, Exclude: []string{"lib"}}, `every package that matches "lib" is filtered out by exclude filtering`},
		{"no match", Request{Specs: []string{"nosuch"}}, `nothing matches "nosuch"`},
		{"dependency excluded", Request{Specs: []string{"app"}, Exclude: []string{"data"}},
			"\"app\" is asked for\n  app-1-1.x86_64@r requires \"/usr/share/data\"\n    data-1-1.noarch@r is filtered out by exclude filtering"},
		{"two versions", Request{Specs: []string{"lib-1", "lib-2"}},
			"\"lib-1\" is asked for\n  lib-1-1.x86_64@r cannot be installed together with lib-2-1.x86_64@r\n" +
				"\"lib-2\" is asked for\n  lib-2-1.x86_64@r cannot be installed together with lib-1-1.x86_64@r"},
	} {
		if got := ask(t, p, c.req); got != c.want {
			t.Errorf("%s: got\n%s\nwant\n%s", c.name, got, c.want)
		}
	}
}

// TestFilelists checks that filelists are read only where they are needed,
// once, and that an error of theirs is no Problem.
func TestFilelists(t *testing.T) {
	opened := 0
	p, err := NewPool([]Repo{textRepo(t, "r", library, &opened)}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"lib", "/usr/bin/bash", "sh"} {
		ask(t, p, Request{Specs: []string{spec}})
	}
	if opened != 0 {
		t.Errorf("filelists were opened for what primary answers")
	}
	for range 3 {
		if got := ask(t, p, Request{Specs: []string{"app"}}); !strings.Contains(got, "data-1-1.noarch") {
			t.Errorf("got %s", got)
		}
	}
	if opened != 1 {
		t.Errorf("filelists were opened %d times, want once", opened)
	}
	if got := ask(t, p, Request{Specs: []string{"/usr/sh*/d?t[a-b]"}}); got != "data-1-1.noarch" {
		t.Errorf("glob of a path: got %s", got)
	}
	bad := textRepo(t, "bad", library, nil)
	boom := errors.New("boom")
	bad.Filelists = func() (io.ReadCloser, error) { return nil, boom }
	p, err = NewPool([]Repo{bad}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Solve(Request{Specs: []string{"app"}}); !errors.Is(err, boom) || !strings.Contains(err.Error(), "repository bad: ") {
		t.Errorf("got %v, want the error of the filelists", err)
	}
	bad.Filelists = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("<filelists>")), nil }
	if p, err = NewPool([]Repo{bad}, Options{Arch: "x86_64"}); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Solve(Request{Specs: []string{"app"}}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want the end of the filelists", err)
	}
}

func TestHiddenAndPools(t *testing.T) {
	r := textRepo(t, "r", library, nil)
	r.Modules = &rpmmd.Modules{Streams: []rpmmd.ModuleStream{{Name: "m", Stream: "1", Artifacts: []string{"lib-0:1-1.x86_64", "lib-0:2-1.x86_64"}}}}
	p, err := NewPool([]Repo{r}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, p, Request{Specs: []string{"lib"}}), `every package that matches "lib" is filtered out by modular filtering`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if _, err := NewPool([]Repo{r, r}, Options{Arch: "x86_64"}); err == nil || !strings.Contains(err.Error(), `"r" is there twice`) {
		t.Errorf("got %v, want an error for the second repository", err)
	}
	if p, err = NewPool([]Repo{textRepo(t, "r", library, nil)}, Options{Arch: "aarch64"}); err != nil {
		t.Fatal(err)
	}
	if got, want := ask(t, p, Request{Specs: []string{"lib"}}), `"lib" is there for x86_64 only`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestGroups(t *testing.T) {
	r := textRepo(t, "r", library, nil)
	r.Comps = &rpmmd.Comps{
		Groups: []rpmmd.Group{
			{ID: "core", Name: "Core", Packages: []rpmmd.GroupPackage{
				{Name: "bash", Type: "mandatory"}, {Name: "lib", Type: "default"}, {Name: "dash", Type: "optional"},
				{Name: "nosuch", Type: "mandatory"}, {Name: "docs", Type: "conditional", Requires: "data"},
			}},
			{ID: "data", Packages: []rpmmd.GroupPackage{{Name: "data", Type: "mandatory"}}},
		},
		Environments: []rpmmd.Environment{{ID: "all", Name: "Everything", Groups: []string{"core"},
			Options: []rpmmd.EnvironmentOption{{Group: "data", Default: true}}}},
	}
	p, err := NewPool([]Repo{r}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]string{
		"@core":          "bash-5-1.x86_64 lib-2-1.x86_64",
		"@Core":          "bash-5-1.x86_64 lib-2-1.x86_64",
		"@core/optional": "dash-1-1.x86_64",
		"@all":           "bash-5-1.x86_64 data-1-1.noarch docs-1-1.noarch lib-2-1.x86_64",
		"@nosuch":        `nothing matches "@nosuch"`,
	} {
		if got := ask(t, p, Request{Specs: []string{spec}}); got != want {
			t.Errorf("%s: got %s, want %s", spec, got, want)
		}
	}
}

// TestOrder shuffles the packages of a real repository, which must not change
// any answer.
func TestOrder(t *testing.T) {
	repo := loadRepo(t, "baseos", filepath.Join(shared, "rpm-md/c9s-baseos"))
	answers := func(seed int64) []string {
		r := repo
		r.Packages = slices.Clone(repo.Packages)
		rand.New(rand.NewSource(seed)).Shuffle(len(r.Packages), func(i, j int) {
			r.Packages[i], r.Packages[j] = r.Packages[j], r.Packages[i]
		})
		p, err := NewPool([]Repo{r}, Options{Arch: "x86_64"})
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for i := 0; i < len(repo.Packages); i += 25 {
			out = append(out, ask(t, p, Request{Specs: []string{repo.Packages[i].Name, repo.Packages[(i*7+3)%len(repo.Packages)].Name}, WeakDeps: true}))
		}
		return out
	}
	want := answers(1)
	for seed := range int64(2) {
		if got := answers(seed + 2); !slices.Equal(got, want) {
			t.Errorf("seed %d: other answers than seed 1", seed+2)
		}
	}
}

// TestPreferIsFixpoint solves again with the first solution preferred.
func TestPreferIsFixpoint(t *testing.T) {
	p := c9sPool(t, true)
	for _, specs := range [][]string{{"bash"}, {"httpd", "podman", "git"}, {"NetworkManager", "java-17-openjdk"}} {
		for _, weak := range []bool{true, false} {
			first, err := p.Solve(Request{Specs: specs, WeakDeps: weak})
			if err != nil {
				t.Fatal(err)
			}
			var prefer []string
			for _, c := range first.Packages {
				prefer = append(prefer, c.Package.String())
			}
			again, err := p.Solve(Request{Specs: specs, WeakDeps: weak, Best: true, Prefer: prefer})
			if err != nil || !slices.Equal(lines(first), lines(again)) {
				t.Errorf("%v, weak %v: solving again differs: %v", specs, weak, err)
			}
		}
	}
}

func BenchmarkPoolC9S(b *testing.B) {
	var repos []Repo
	for _, id := range []string{"baseos", "appstream"} {
		repos = append(repos, loadRepo(b, id, filepath.Join(shared, "rpm-md/c9s-"+id)))
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := NewPool(repos, Options{Arch: "x86_64"}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkSolveC9S asks for 245 packages' worth, with and without what the
// pool remembers.
func BenchmarkSolveC9S(b *testing.B) {
	req := Request{Specs: []string{"httpd", "podman", "nodejs", "git", "NetworkManager"}, WeakDeps: true}
	p := c9sPool(b, false)
	b.Run("again", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := p.Solve(req); err != nil {
				b.Fatal(err)
			}
		}
	})
	repos := p.repos
	b.Run("cold", func(b *testing.B) {
		for b.Loop() {
			p, err := NewPool(repos, Options{Arch: "x86_64"})
			if err != nil {
				b.Fatal(err)
			}
			if _, err := p.Solve(req); err != nil {
				b.Fatal(err)
			}
		}
	})
}

package solve

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"caisson/lock/rpmmd"
)

var (
	worldSeed = flag.Int64("world-seed", 1, "the first random world of TestWorlds")
	worldTime = flag.Duration("world-time", 8*time.Second, "how long TestWorlds goes on")
)

// world is what ask-dnf.py reads: repositories and requests, made up at random.
type world struct {
	Repos     []worldRepo      `json:"repos"`
	Installed []worldInstalled `json:"installed"`
	Excludes  []string         `json:"excludes"`
	Requests  []worldRequest   `json:"requests"`

	rand      *rand.Rand
	installed string
	names     int  // how many there are
	kernels   bool // some packages are installed beside each other
	depth     int  // of rich dependencies
	conflicts int  // percent of packages with some; likewise obsoletes
}

type worldRepo struct {
	ID       string   `json:"id"`
	Path     string   `json:"path"`
	Priority int      `json:"priority"`
	Cost     int      `json:"cost"`
	Hotfixes bool     `json:"hotfixes"`
	Excludes []string `json:"excludes"`
	Includes []string `json:"includes"`

	text, modules string
}

type worldRequest struct {
	Specs     []string `json:"specs"`
	Reinstall []string `json:"reinstall"`
	Upgrade   []string `json:"upgrade"`
	Erase     bool     `json:"erase"`
	Weak      bool     `json:"weak"`
	Best      bool     `json:"best"`
}

func (w *world) one(of ...string) string { return of[w.rand.Intn(len(of))] }
func (w *world) chance(percent int) bool { return w.rand.Intn(100) < percent }
func (w *world) name() string {
	if w.kernels && w.chance(8) {
		return "kernel"
	}
	return fmt.Sprintf("p%c", 'a'+w.rand.Intn(w.names))
}
func (w *world) version() string {
	return w.one("1", "1", "2", "2", "3", "1~rc1", "1^git1", "2.1", "1:1")
}
func (w *world) path() string {
	return w.one("/usr/bin/a", "/etc/b", "/usr/share/c", "/opt/d", "/usr/lib/e")
}
func (w *world) comparison() string { return w.one("=", "<", ">", "<=", ">=") }
func (w *world) capability() string {
	return w.one(fmt.Sprintf("c%d", w.rand.Intn(6)), fmt.Sprintf("c%d", w.rand.Intn(6)), fmt.Sprintf("c%d(x86-64)", w.rand.Intn(2)))
}
func (w *world) versionOrRelease() string { return w.version() + w.one("", "", "-1", "-2") }

// dep is a dependency, rich ones too up to a depth.
func (w *world) dep(depth int) string {
	if depth > 0 && w.chance(25) {
		a, b := w.dep(depth-1), w.dep(depth-1)
		switch w.rand.Intn(8) {
		case 0, 1:
			return "(" + a + " or " + b + ")"
		case 2:
			return "(" + a + " and " + b + ")"
		case 3:
			return "(" + a + " if " + b + ")"
		case 4:
			return "(" + a + " if " + b + " else " + w.dep(depth-1) + ")"
		case 5:
			return "(" + a + " unless " + b + ")"
		case 6:
			return "(" + w.dep(0) + " with " + w.dep(0) + ")"
		}
		return "(" + w.dep(0) + " without " + w.dep(0) + ")"
	}
	switch w.rand.Intn(10) {
	case 0:
		return w.path()
	case 1, 2:
		return w.capability()
	case 3:
		return w.capability() + " " + w.comparison() + " " + w.versionOrRelease()
	case 4, 5:
		return w.name() + " " + w.comparison() + " " + w.versionOrRelease()
	}
	return w.name()
}

func (w *world) list(percent, most int, item func() string) []string {
	var out []string
	for i := 0; i < most && w.chance(percent); i++ {
		out = append(out, item())
	}
	return out
}

// packageLine is a package as repo_test.go has them.
func (w *world) packageLine() string {
	arch := w.one("x86_64", "x86_64", "x86_64", "x86_64", "noarch", "i686")
	line := fmt.Sprintf("%s-%s-%s.%s", w.name(), w.version(), w.one("1", "1", "2"), arch)
	rich := func() string { return w.dep(w.depth) }
	for _, f := range []struct {
		rel           string
		percent, most int
		item          func() string
	}{
		{"Requires", 45, 3, rich}, {"Conflicts", w.conflicts, 2, rich}, {"Recommends", 25, 2, rich}, {"Suggests", 12, 1, rich},
		{"Supplements", 12, 1, rich}, {"Enhances", 10, 1, rich},
		{"Obsoletes", w.conflicts, 2, func() string {
			return w.one(w.name(), w.name()+" < "+w.version(), w.name()+" "+w.comparison()+" "+w.versionOrRelease())
		}},
		{"Provides", 40, 2, func() string {
			return w.one(w.capability(), w.capability()+" = "+w.versionOrRelease(), w.name()+" = "+w.version())
		}},
		{"Files", 12, 1, func() string { return w.one("/usr/bin/a", "/etc/b") }},
		{"Extra", 12, 1, func() string { return w.one("/usr/share/c", "/opt/d", "/usr/lib/e") }},
	} {
		if items := w.list(f.percent, f.most, f.item); len(items) > 0 {
			line += " | " + f.rel + ": " + strings.Join(items, ", ")
		}
	}
	return strings.Replace(line, " |", "", 1)
}

// modulesYAML puts some packages of a repository into module streams.
func (w *world) modulesYAML(lines []string) string {
	var b strings.Builder
	for i := range 1 + w.rand.Intn(3) {
		name := fmt.Sprintf("m%d", i)
		for stream := range 1 + w.rand.Intn(3) {
			for version := range 1 + w.rand.Intn(2) {
				fmt.Fprintf(&b, "---\ndocument: modulemd\nversion: 2\ndata:\n  name: %s\n  stream: \"%d\"\n  version: %d\n  context: c%d\n  arch: x86_64\n"+
					"  summary: a\n  description: b\n  license: {module: [MIT]}\n", name, stream, version+1, stream)
				if w.chance(40) {
					b.WriteString("  static_context: true\n")
				}
				if i < 2 && w.chance(40) { // m2 has no default, so defaults never contradict each other
					fmt.Fprintf(&b, "  dependencies:\n  - requires: {m2: [%s]}\n", w.one("", `"0"`, `"1"`, `"0", "1"`))
				}
				fmt.Fprintf(&b, "  profiles: {default: {rpms: [%s]}, more: {rpms: [%s, %s]}}\n  artifacts:\n    rpms:\n    - nosuch-0:1-1.x86_64\n", w.name(), w.name(), w.name())
				for range 1 + w.rand.Intn(4) {
					nevra, _, _ := strings.Cut(lines[w.rand.Intn(len(lines))], " ")
					n, rest, _ := strings.Cut(nevra, "-")
					if !strings.Contains(rest, ":") {
						rest = "0:" + rest
					}
					fmt.Fprintf(&b, "    - %s-%s\n", n, rest)
				}
				if w.chance(15) {
					fmt.Fprintf(&b, "  demodularized: {rpms: [%s]}\n", w.name())
				}
			}
		}
		if i < 2 && w.chance(60) {
			fmt.Fprintf(&b, "---\ndocument: modulemd-defaults\nversion: 1\ndata:\n  module: %s\n  stream: \"%d\"\n  profiles: {\"0\": [default], \"1\": [default]}\n", name, w.rand.Intn(2))
		}
	}
	return b.String()
}

func (w *world) request() worldRequest {
	var specs []string
	for range 1 + w.rand.Intn(6)/4 {
		switch w.rand.Intn(12) {
		case 0:
			specs = append(specs, w.capability())
		case 1:
			specs = append(specs, w.path())
		case 2:
			specs = append(specs, w.name()+"-"+w.version())
		case 3:
			specs = append(specs, w.name()+"."+w.one("x86_64", "i686", "noarch"))
		case 4:
			// Not a glob over several names: dnf takes them in an order that
			// depends on whether its cache is warm.
			lines := repoLines(w.Repos[w.rand.Intn(2)].text)
			name, _, _ := strings.Cut(lines[w.rand.Intn(len(lines))], "-") // there is one, or provides would be looked at
			specs = append(specs, name+w.one("*", "?", "-[12]*", "*.noarch"))
		case 5:
			if w.Repos[0].modules != "" || w.Repos[1].modules != "" {
				specs = append(specs, w.one("@m0", "@m0:0", "@m1:1/more", "@m1:0/*", "@m2:0::x86_64"))
				break
			}
			fallthrough
		default:
			specs = append(specs, w.name())
		}
	}
	r := worldRequest{Specs: specs, Weak: w.chance(50), Best: w.chance(50)}
	if w.installed != "" {
		w.changes(&r)
	}
	return r
}

func newWorld(seed int64) *world {
	w := &world{rand: rand.New(rand.NewSource(seed)), names: 14, depth: 2, conflicts: 8}
	if w.chance(40) {
		w.names = 4 + w.rand.Intn(16)
	}
	if w.chance(20) {
		w.kernels = true
	}
	if w.chance(20) {
		w.depth = 3
	}
	if w.chance(20) {
		w.conflicts = 20
	}
	for _, id := range []string{"main", "extra"} {
		r := worldRepo{ID: id, Priority: 99, Cost: 1000, Hotfixes: w.chance(10)}
		if w.chance(25) {
			r.Priority = 50
		}
		if w.chance(25) {
			r.Cost = 500
		}
		byFile := map[string]string{}
		for range 8 + w.rand.Intn(22) {
			l := w.packageLine()
			nevra, _, _ := strings.Cut(l, " ")
			byFile[strings.Replace(nevra, "1:", "", 1)+".rpm"] = l
		}
		var lines []string
		for _, file := range slices.Sorted(maps.Keys(byFile)) { // createrepo's order
			lines = append(lines, byFile[file])
		}
		r.text = strings.Join(lines, "\n")
		if w.chance(35) {
			r.modules = w.modulesYAML(lines)
		}
		if w.chance(10) {
			r.Excludes = w.list(70, 3, func() string { return w.one(w.name(), w.name()+"-1*", w.name()+".i686", w.name()+"-"+w.version()) })
		}
		if w.chance(5) {
			r.Includes = w.list(95, 12, func() string { return w.one(w.name(), w.name()+"*", w.name()+".x86_64") })
		}
		w.Repos = append(w.Repos, r)
	}
	if w.chance(20) {
		w.Excludes = []string{w.one(w.name(), w.name()+"-1*", w.name()+".i686")}
	}
	if w.chance(50) {
		w.install()
	}
	for range 40 {
		w.Requests = append(w.Requests, w.request())
	}
	return w
}

// pool reads the world's repositories.
func (w *world) pool(t *testing.T) *Pool {
	t.Helper()
	var repos []Repo
	for _, r := range w.Repos {
		repo := textRepo(t, r.ID, r.text, nil)
		repo.Priority, repo.Cost, repo.ModuleHotfixes = r.Priority, r.Cost, r.Hotfixes
		repo.ExcludePkgs, repo.IncludePkgs = r.Excludes, r.Includes
		if r.modules != "" {
			var err error
			if repo.Modules, err = rpmmd.ParseModules(strings.NewReader(r.modules)); err != nil {
				t.Fatal(err)
			}
		}
		repos = append(repos, repo)
	}
	p, err := NewPool(repos, Options{Arch: "x86_64", Installed: w.installedPackages(t)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// TestWorlds compares with dnf's library on repositories made up at random.
func TestWorlds(t *testing.T) {
	dnf := newOracle(t)
	asked, differ := 0, 0
	start := time.Now()
	seed := *worldSeed
	for ; time.Since(start) < *worldTime; seed++ {
		w := newWorld(seed)
		dir := t.TempDir()
		for i := range w.Repos {
			r := &w.Repos[i]
			r.Path = filepath.Join(dir, r.ID)
			writeRepo(t, r.Path, r.text, r.modules)
		}
		w.headers(w.installedPackages(t))
		answers := dnf.ask(t, w)
		p := w.pool(t)
		for i, r := range w.Requests {
			asked++
			if !w.compare(t, p, r, answers[i], fmt.Sprintf("world %d", seed)) {
				differ++
			}
		}
	}
	t.Logf("%d requests to %d worlds, %d differ", asked, seed-*worldSeed, differ)
}

// compare asks for one request, and reports whether dnf's answer is the same,
// or its problem names nothing that ours does not.
func (w *world) compare(t *testing.T, p *Pool, r worldRequest, answer json.RawMessage, what string) bool {
	t.Helper()
	var want []string
	var text string
	solvable := json.Unmarshal(answer, &want) == nil
	if !solvable {
		if err := json.Unmarshal(answer, &text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := p.Solve(Request{Specs: r.Specs, Reinstall: r.Reinstall, Upgrade: r.Upgrade, AllowErasing: r.Erase,
		WeakDeps: r.Weak, Best: r.Best, Exclude: w.Excludes})
	var problem *Problem
	if err != nil && !errors.As(err, &problem) {
		t.Fatal(err)
	}
	if err == nil {
		checkReasons(t, p, got, what)
	}
	switch {
	case err != nil && !solvable:
		missing := unnamed(problem, text)
		if len(missing) > 0 {
			t.Errorf("%s, %+v: the problem does not name %q:\n%s\ndnf: %s", what, r, missing, strings.Join(problem.Lines, "\n"), text)
		}
		return len(missing) == 0
	case err == nil && solvable && slices.Equal(changes(got), want):
		return true
	case solvable && !p.holdsTogether(t, want, w.Excludes):
		// libsolv does not see all that a rich recommendation can ask for, and
		// installs it without what it needs.
		return true
	}
	var have []string
	if err == nil {
		have = changes(got)
	}
	t.Errorf("%s, %+v:\ngot  %v (%v)\nwant %s", what, r, have, err, answer)
	return false
}

package solve

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

// worldInstalled is an installed package of a world.
type worldInstalled struct {
	Name    string              `json:"name"`
	Epoch   int                 `json:"epoch"`
	Version string              `json:"version"`
	Release string              `json:"release"`
	Arch    string              `json:"arch"`
	Deps    map[string][]rpmDep `json:"deps"`
	Files   []string            `json:"files"`
}

// rpmDep is a dependency as a header has it: name, flags, version.
type rpmDep [3]any

// install makes up installed packages: some of the repositories', some others.
func (w *world) install() {
	var all []string
	for _, r := range w.Repos {
		all = append(all, repoLines(r.text)...)
	}
	byName := map[string]bool{}
	var lines []string
	for range 2 + w.rand.Intn(14) {
		l := w.packageLine()
		if w.chance(60) {
			l = all[w.rand.Intn(len(all))]
		}
		nevra, _, _ := strings.Cut(l, " ")
		name, _, _ := strings.Cut(nevra, "-")
		_, arch, _ := cutLast(nevra, ".")
		key := name + "." + strings.Replace(arch, "noarch", "x86_64", 1)
		if byName[key] || byName[name+".noarch"] || arch == "noarch" && byName[name+".i686"] {
			continue
		}
		byName[key], byName[name+"."+arch] = true, true
		lines = append(lines, l)
	}
	w.installed = strings.Join(lines, "\n")
}

// installedPackages are the installed packages as an rpmdb has them, also for
// dnf.
func (w *world) installedPackages(t *testing.T) []rpmmd.Package {
	t.Helper()
	if w.installed == "" {
		return nil
	}
	pkgs, err := rpmmd.ParsePrimary(strings.NewReader(primaryXML(t, w.installed)))
	if err != nil {
		t.Fatal(err)
	}
	lines := repoLines(w.installed)
	for i := range pkgs {
		k := parseLine(t, lines[i])
		pkgs[i].Files = append(k.lists["Files"], k.lists["Extra"]...)
	}
	return pkgs
}

// headers turns the installed packages into what dnf's side makes headers of.
func (w *world) headers(t *testing.T) {
	t.Helper()
	for _, k := range w.installedPackages(t) {
		p := worldInstalled{Name: k.Name, Epoch: k.Epoch, Version: k.Version, Release: k.Release, Arch: k.Arch,
			Deps: map[string][]rpmDep{}, Files: k.Files}
		for rel, list := range map[string][]rpmmd.Dep{"provide": k.Provides, "require": k.Requires, "conflict": k.Conflicts,
			"obsolete": k.Obsoletes, "recommend": k.Recommends, "suggest": k.Suggests, "supplement": k.Supplements, "enhance": k.Enhances} {
			for _, d := range list {
				flags := map[rpmmd.Flags]int{0: 0, rpmmd.Less: 2, rpmmd.Greater: 4, rpmmd.Equal: 8,
					rpmmd.Less | rpmmd.Equal: 10, rpmmd.Greater | rpmmd.Equal: 12}[d.Flags]
				version := ""
				if flags != 0 {
					version = d.EVR.String()
				}
				p.Deps[rel] = append(p.Deps[rel], rpmDep{d.Name, flags, version})
			}
		}
		w.Installed = append(w.Installed, p)
	}
}

// changes adds updates and the like to a request.
func (w *world) changes(r *worldRequest) {
	if w.chance(30) {
		r.Erase = true
	}
	if w.chance(20) {
		r.Upgrade = append(r.Upgrade, w.one(w.name(), w.name(), w.name(), w.name()+"-"+w.version(), w.name()+".x86_64", "*", w.capability()))
	}
	if w.chance(10) {
		r.Reinstall = append(r.Reinstall, w.name())
	}
	if len(r.Upgrade)+len(r.Reinstall) > 0 && w.chance(60) {
		r.Specs = []string{}
	}
}

// changes returns what comes, as lines does, and then what is gone for good.
func changes(s *Solution) []string {
	names := map[string]bool{}
	for _, c := range s.Packages {
		names[c.Package.Name] = true
	}
	var gone []string
	for _, p := range s.Erased {
		if !names[p.Name] {
			gone = append(gone, "-"+p.String())
		}
	}
	slices.Sort(gone)
	return append(lines(s), slices.Compact(gone)...)
}

// checkReasons follows each reason to a request, or to an installed package.
func checkReasons(t *testing.T, p *Pool, sol *Solution, what string) {
	t.Helper()
	reasons := map[*rpmmd.Package]Reason{}
	for _, c := range sol.Packages {
		reasons[c.Package] = c.Reason
	}
	for _, c := range sol.Packages {
		r, steps := c.Reason, 0
		isHere := func(k *rpmmd.Package) bool {
			return slices.ContainsFunc(p.pkgs[firstID:p.available], func(o pkg) bool { return o.Package == k })
		}
		for ; r.Kind != Requested && r.Kind != Updates && !isHere(r.By); steps++ {
			if r.By == nil || r.Dep == "" || steps > len(sol.Packages) {
				t.Errorf("%s: the reason of %s among %v leads nowhere: %+v", what, c.Package, lines(sol), c.Reason)
				break
			}
			r = reasons[r.By]
		}
		if r.Kind == Updates && !isHere(r.By) {
			t.Errorf("%s: %s takes the place of %v, which is not installed", what, c.Package, r.By)
		}
	}
}

// TestInstalledReasons is of what installed packages change, in reasons and
// problems; that the packages are dnf's is TestWorlds' matter.
func TestInstalledReasons(t *testing.T) {
	const available = `
app-2-1.x86_64 Requires: libapp = 2
libapp-2-1.x86_64
libapp-1-1.x86_64
plugin-2-1.x86_64 Requires: libapp = 2
heir-1-1.noarch Obsoletes: gone
rival-1-1.noarch Conflicts: libapp
plain-1-1.noarch Requires: libapp`
	const installed = `
app-1-1.x86_64 Requires: libapp = 1
libapp-1-1.x86_64
plugin-1-1.x86_64 Requires: libapp = 1
gone-1-1.noarch`
	here, err := rpmmd.ParsePrimary(strings.NewReader(primaryXML(t, installed)))
	if err != nil {
		t.Fatal(err)
	}
	p, err := NewPool([]Repo{textRepo(t, "r", available, nil)}, Options{Arch: "x86_64", Installed: here})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		req  Request
		want string
	}{
		{Request{Specs: []string{"libapp"}}, ""},
		{Request{Specs: []string{"plain"}}, "plain-1-1.noarch requested plain"},
		{Request{Specs: []string{"app-2"}}, "app-2-1.x86_64 requested app-2\nlibapp-2-1.x86_64 requires app-2-1.x86_64: libapp = 2\n" +
			"plugin-2-1.x86_64 updates plugin-1-1.x86_64"},
		{Request{Specs: []string{"app"}, Best: true}, "app-2-1.x86_64 requested app\nlibapp-2-1.x86_64 requires app-2-1.x86_64: libapp = 2\n" +
			"plugin-2-1.x86_64 updates plugin-1-1.x86_64"},
		{Request{Upgrade: []string{"plugin"}}, "app-2-1.x86_64 updates app-1-1.x86_64\nlibapp-2-1.x86_64 requires plugin-2-1.x86_64: libapp = 2\n" +
			"plugin-2-1.x86_64 requested plugin"},
		{Request{Reinstall: []string{"libapp"}}, "libapp-1-1.x86_64 requested libapp"},
		{Request{Specs: []string{"heir"}}, "heir-1-1.noarch requested heir\n-gone-1-1.noarch"},
		{Request{Specs: []string{"rival"}, AllowErasing: true}, "rival-1-1.noarch requested rival\n-app-1-1.x86_64\n-libapp-1-1.x86_64\n-plugin-1-1.x86_64"},
		{Request{Reinstall: []string{"gone"}}, `no repository has the installed version of "gone"`},
		{Request{Reinstall: []string{"heir"}}, `"heir" is not installed`},
		{Request{Upgrade: []string{"plain"}}, `"plain" is not installed`},
		{Request{Upgrade: []string{"nosuch"}}, `nothing matches "nosuch"`},
		{Request{Specs: []string{"gon*"}}, `no repository has a package that matches "gon*"`},
	} {
		sol, err := p.Solve(c.req)
		var problem *Problem
		var got string
		if errors.As(err, &problem) {
			got = strings.Join(problem.Lines, "\n")
		} else {
			got = strings.Join(withReasons(sol), "\n")
		}
		if got != c.want {
			t.Errorf("%+v: got\n%s\nwant\n%s", c.req, got, c.want)
		}
	}
	_, err = p.Solve(Request{Specs: []string{"rival"}})
	if err == nil || !strings.Contains(err.Error(), "app-1-1.x86_64@System is installed") {
		t.Errorf("rival: got %v, want that app is installed", err)
	}
}

// withReasons returns what comes and why, and then what goes.
func withReasons(s *Solution) []string {
	var out []string
	for _, c := range s.Packages {
		why := c.Reason.Spec
		if c.Reason.By != nil {
			why = c.Reason.By.String()
		}
		if c.Reason.Dep != "" {
			why += ": " + c.Reason.Dep
		}
		out = append(out, c.Package.String()+" "+string(c.Reason.Kind)+" "+why)
	}
	for _, k := range s.Erased {
		out = append(out, "-"+k.String())
	}
	return out
}

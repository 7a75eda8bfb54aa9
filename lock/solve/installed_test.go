package solve

import (
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

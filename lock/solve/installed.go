package solve

import (
	"slices"

	"caisson/lock/rpmmd"
)

// SystemRepo is what problems name as the repository of installed packages.
const SystemRepo = "System"

// addInstalled makes the installed packages a repository before all others,
// with the default priority and cost.
func (p *Pool) addInstalled(installed []rpmmd.Package) {
	p.available = firstID + id(len(installed))
	if len(installed) > 0 {
		p.repos = slices.Insert(p.repos, 0, Repo{ID: SystemRepo, Priority: 99, Cost: 1000, Packages: installed})
	}
}

// isInstalled reports whether a package is there already.
func (p *Pool) isInstalled(q id) bool { return q >= firstID && q < p.available }

// bothInstalled reports whether two packages are there already, together.
func (p *Pool) bothInstalled(a, b id) bool { return p.isInstalled(a) && p.isInstalled(b) }

// holdsNow reports whether one literal of a list is true as long as nothing
// is changed. Dependencies of installed packages that do not hold are ignored:
// nothing is repaired that nobody asks about.
func (p *Pool) holdsNow(list []id) bool {
	return slices.ContainsFunc(list, func(l id) bool {
		if l < 0 {
			return !p.isInstalled(-l)
		}
		return p.isInstalled(l)
	})
}

// sameColor reports whether two packages share a width, so that one of the
// same name replaces the other.
func (p *Pool) sameColor(a, b id) bool {
	x, y := &p.pkgs[a], &p.pkgs[b]
	return x.Arch == y.Arch || x.width&y.width != 0
}

// obsoletesPackage reports whether package q has an Obsoletes that matches o.
func (p *Pool) obsoletesPackage(q, o id) bool {
	return slices.ContainsFunc(p.pkgs[q].obsoletes, func(d depID) bool { return p.matchesName(o, d) })
}

// updatesOf returns the packages that can take the place of an installed one:
// of the same name, or obsoleting it. all allows another architecture, and
// older versions in any case.
func (s *solver) updatesOf(n id, all bool) []id {
	p := s.p
	k := &p.pkgs[n]
	archOK := func(o id) bool {
		x := &p.pkgs[o]
		return all || x.Arch == k.Arch || x.arch == noarchScore || k.arch == noarchScore
	}
	older := func(o id) bool { return !all && !s.updates.downgrade && k.EVR.Compare(p.pkgs[o].EVR) > 0 }
	var list []id
	obsoleting := false
	last := id(0)
	for _, v := range p.provides(k.name) {
		o := v.by
		if o == n || o == last || s.barred(o) {
			continue
		}
		last = o
		if !p.sameColor(n, o) {
			continue
		}
		if p.pkgs[o].name != k.name {
			if !p.obsoletesPackage(o, n) {
				continue
			}
			obsoleting = true
		} else if older(o) {
			continue
		}
		if archOK(o) {
			list = append(list, o)
		}
	}
	if obsoleting {
		return list
	}
	for _, o := range s.obsoletersOf(n) {
		if archOK(o) && p.sameColor(n, o) {
			list = append(list, o)
		}
	}
	return list
}

// obsoletersOf returns the packages of other names that obsolete an installed
// one, ascending.
func (s *solver) obsoletersOf(n id) []id {
	p := s.p
	p.indexObsoletes()
	var list []id
	for _, o := range p.obsoleters[p.pkgs[n].name] {
		if p.pkgs[o].name != p.pkgs[n].name && !s.excluded[o] && p.obsoletesPackage(o, n) && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	return list
}

// replaced returns the installed packages that a package replaces: those of
// its name, unless it is installed beside them, and those it obsoletes.
func (p *Pool) replaced(q id) []id {
	var list []id
	for _, o := range p.byName[p.pkgs[q].name] {
		if p.isInstalled(o) && p.sameColor(q, o) && !p.pkgs[q].installOnly {
			list = append(list, o)
		}
	}
	for _, d := range p.pkgs[q].obsoletes {
		for _, o := range p.obsoleted(d) {
			if p.isInstalled(o) {
				list = append(list, o)
			}
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// excludeFromWeak marks what no recommendation may bring, as dnf's option
// exclude_from_weak_autodetect has it: what installed packages recommend or is
// there to supplement them, and is not installed. Somebody did not want it.
func (s *solver) excludeFromWeak() {
	p := s.p
	if p.available == firstID {
		return
	}
	s.notWeak = make([]bool, len(p.pkgs))
	isHere := func(q id) bool { return p.isInstalled(q) && !s.excluded[q] }
	names := map[int32]bool{}
	for n := firstID; n < p.available; n++ {
		names[p.pkgs[n].name] = true
		for _, d := range p.pkgs[n].recommends {
			x := p.deps[d]
			if x.op != opName {
				continue
			}
			list := p.providers(p.simpleDep(p.nameText[x.name], 0, rpmmd.EVR{}))
			if slices.ContainsFunc(list, isHere) {
				continue
			}
			for _, q := range list {
				s.notWeak[q] = s.notWeak[q] || !s.excluded[q]
			}
		}
	}
	for _, q := range p.weak {
		if p.isInstalled(q) || s.excluded[q] || names[p.pkgs[q].name] {
			continue
		}
		for _, d := range p.pkgs[q].supplements {
			if p.deps[d].op == opName && slices.ContainsFunc(p.providers(d), p.isInstalled) {
				s.notWeak[q] = true
			}
		}
	}
}

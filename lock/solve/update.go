package solve

import (
	"fmt"
	"slices"
)

// updates is what a request wants of the installed packages.
type updates struct {
	downgrade bool        // older versions may take the place of newer ones
	targets   map[id][]id // by installed package that is to be updated: what may become of it, ascending
}

// wanted reports whether an installed package is to be updated.
func (u *updates) wanted(n id) bool { return u.targets[n] != nil }

// only leaves those of a list that may become of an installed package.
func (u *updates) only(n id, list []id) []id {
	if !u.wanted(n) {
		return list
	}
	return slices.DeleteFunc(list, func(q id) bool {
		_, in := slices.BinarySearch(u.targets[n], q)
		return !in
	})
}

// reinstallJobs asks for the packages that are the same as the installed ones
// that a spec names.
func (s *solver) reinstallJobs(spec string) ([]job, error) {
	list, _, err := s.selectSpec(spec)
	if err != nil {
		return nil, err
	}
	p := s.p
	again := map[string]id{}
	for _, q := range list {
		if !p.isInstalled(q) {
			again[p.pkgs[q].Package.String()] = q
		}
	}
	var jobs []job
	here := false
	for _, n := range list {
		if !p.isInstalled(n) {
			continue
		}
		here = true
		if q := again[p.pkgs[n].Package.String()]; q != 0 {
			jobs = append(jobs, job{spec: spec, list: []id{q}})
		}
	}
	switch {
	case !here:
		return []job{{spec: spec, why: fmt.Sprintf("%q is not installed", spec)}}, nil
	case len(jobs) == 0:
		return []job{{spec: spec, why: fmt.Sprintf("no repository has the installed version of %q", spec)}}, nil
	}
	return jobs, nil
}

// addUpgrade notes what a spec wants updated. It returns a job only where
// there is nothing that could be.
func (s *solver) addUpgrade(spec string) ([]job, error) {
	list, form, err := s.selectSpec(spec)
	if err != nil {
		return nil, err
	}
	p := s.p
	if len(list) == 0 {
		return []job{{spec: spec}}, nil
	}
	if !isGlob(spec) && form != nil && !slices.ContainsFunc(list, s.concernsInstalled) {
		return []job{{spec: spec, why: fmt.Sprintf("%q is not installed", spec)}}, nil
	}
	if form != nil && form.justName() && !s.req.KeepObsoleted {
		list = s.withUpgradeObsoleters(list)
	}
	for _, q := range slices.Clone(list) {
		list = append(list, s.newestInstalled(p.pkgs[q].name)...)
	}
	slices.Sort(list)
	for _, q := range slices.Compact(list) {
		s.addTarget(q, spec)
	}
	return nil, nil
}

// concernsInstalled reports whether a package of the same name is installed
// that is not excluded, or one that it obsoletes.
func (s *solver) concernsInstalled(q id) bool {
	here := func(n id) bool { return s.p.isInstalled(n) && !s.excluded[n] }
	if slices.ContainsFunc(s.p.byName[s.p.pkgs[q].name], here) {
		return true
	}
	return slices.ContainsFunc(s.p.pkgs[q].obsoletes, func(d depID) bool { return slices.ContainsFunc(s.p.obsoleted(d), here) })
}

// withUpgradeObsoleters adds the packages that obsolete an installed one of a
// list, or one that would update it.
func (s *solver) withUpgradeObsoleters(list []id) []id {
	p := s.p
	p.indexObsoletes()
	out := slices.Clone(list)
	for _, q := range list {
		if !p.hasInstalledName(q) || !p.isInstalled(q) && !p.isUpgrade(q) {
			continue
		}
		for _, o := range p.obsoleters[p.pkgs[q].name] {
			if !p.isInstalled(o) && !s.excluded[o] && p.obsoletesPackage(o, q) {
				out = append(out, o)
			}
		}
	}
	return out
}

// isUpgrade reports whether a package is newer than all installed ones of its
// name that it could replace, of which there is one.
func (p *Pool) isUpgrade(q id) bool {
	k := &p.pkgs[q]
	found := false
	for _, n := range p.byName[k.name] {
		x := &p.pkgs[n]
		if !p.isInstalled(n) || x.Arch != k.Arch && x.arch != noarchScore && k.arch != noarchScore {
			continue
		}
		if x.EVR.Compare(k.EVR) >= 0 {
			return false
		}
		found = true
	}
	return found
}

// newestInstalled returns the newest installed packages of a name, one for
// each architecture.
func (s *solver) newestInstalled(name int32) []id {
	p := s.p
	newest := map[string]id{}
	for _, n := range p.byName[name] {
		if !p.isInstalled(n) || s.excluded[n] {
			continue
		}
		k := &p.pkgs[n]
		if o, ok := newest[k.Arch]; !ok || p.pkgs[o].EVR.Compare(k.EVR) < 0 {
			newest[k.Arch] = n
		}
	}
	var list []id
	for _, n := range newest {
		list = append(list, n)
	}
	return list
}

// addTarget notes that installed packages may become q.
func (s *solver) addTarget(q id, spec string) {
	p := s.p
	u := &s.updates
	if u.targets == nil {
		u.targets = map[id][]id{}
	}
	same := id(0)
	var from []id
	for _, n := range p.byName[p.pkgs[q].name] {
		if !p.isInstalled(n) {
			continue
		}
		from = append(from, n)
		if n != q && p.identical(n, q) {
			same = n
		}
	}
	if !p.isInstalled(q) {
		s.upgradeSpec[q] = spec
		for _, d := range p.pkgs[q].obsoletes {
			for _, n := range p.obsoleted(d) {
				if p.isInstalled(n) && p.pkgs[n].name != p.pkgs[q].name {
					from = append(from, n)
				}
			}
		}
	}
	for _, n := range from {
		u.add(n, q)
		if same != 0 && !p.isInstalled(q) {
			u.add(n, same)
		}
	}
}

func (u *updates) add(n, q id) {
	if at, in := slices.BinarySearch(u.targets[n], q); !in {
		u.targets[n] = slices.Insert(u.targets[n], at, q)
	}
}

// identical reports whether two packages are the same build.
func (p *Pool) identical(a, b id) bool {
	x, y := &p.pkgs[a], &p.pkgs[b]
	return x.name == y.name && x.evr == y.evr && x.Arch == y.Arch &&
		(x.BuildTime == y.BuildTime || x.BuildTime == 0 || y.BuildTime == 0)
}

package solve

import "slices"

// heirRules adds that packages of several names that have the same Obsoletes
// of an installed package come together: it was split.
func (s *solver) heirRules() {
	p := s.p
	s.heirs = int32(len(s.rules))
	var deps []depID
	for n := firstID; n < p.available; n++ {
		for _, o := range s.obsoletersOf(n) {
			for _, d := range p.pkgs[o].obsoletes {
				if slices.Contains(deps, d) {
					continue
				}
				if slices.ContainsFunc(p.obsoleted(d), func(x id) bool { return p.isInstalled(x) && p.sameColor(n, x) }) {
					deps = append(deps, d)
				}
			}
		}
	}
	for _, d := range deps {
		groups := s.heirGroups(d)
		for i, g := range groups {
			for _, q := range g {
				if p.isInstalled(q) {
					continue
				}
				for j, other := range groups {
					if i != j {
						s.add(-q, other)
						s.heirOf = append(s.heirOf, d)
					}
				}
			}
		}
	}
	s.heirsEnd = int32(len(s.rules))
}

// heirGroups returns the packages that have an Obsoletes of an installed
// package, by name; none where they all have one name.
func (s *solver) heirGroups(d depID) [][]id {
	p := s.p
	var list []id
	consider := func(n, o id) {
		if p.sameColor(n, o) && slices.Contains(p.pkgs[o].obsoletes, d) && !slices.Contains(list, o) {
			list = append(list, o)
		}
	}
	for _, n := range p.obsoleted(d) {
		if !p.isInstalled(n) {
			continue
		}
		for _, o := range s.obsoletersOf(n) {
			consider(n, o)
		}
		for _, o := range p.byName[p.pkgs[n].name] {
			consider(n, o)
		}
	}
	if len(list) < 2 {
		return nil
	}
	best := s.bestVersion(slices.Clone(list))
	if len(best) < 2 {
		return nil
	}
	var groups [][]id
	for _, b := range best {
		var group []id
		for _, q := range list {
			if p.pkgs[q].name == p.pkgs[b].name {
				group = append(group, q)
			}
		}
		groups = append(groups, group)
	}
	return groups
}

package solve

import "slices"

// archRules forbids packages of a worse architecture than the best that their
// name has, unless the better one of the same version comes with them. A spec
// that such a package is a candidate of lifts this for its name.
func (s *solver) archRules() {
	s.arch = int32(len(s.rules))
	asked := map[id]bool{}
	for _, j := range s.jobs {
		if j.rich == 0 {
			for _, q := range j.list {
				asked[q] = true
			}
		}
	}
	done := map[int32]bool{}
	for _, q := range s.members {
		name := s.p.pkgs[q].name
		if list := s.p.byName[name]; len(list) > 1 && !done[name] {
			done[name] = true
			s.archRulesOf(list, asked)
		}
	}
	s.archEnd = int32(len(s.rules))
}

func (s *solver) archRulesOf(list []id, asked map[id]bool) {
	p := s.p
	best := uint8(0)
	for _, q := range list {
		if a := p.pkgs[q].arch; s.member[q] && !p.isInstalled(q) && a > noarchScore && (best == 0 || a < best) {
			best = a
		}
	}
	if best == 0 {
		return
	}
	kept := s.keptArchs(list, best)
	start := len(s.rules)
	lifted := false
	for _, q := range list {
		k := &p.pkgs[q]
		if !s.member[q] || k.arch == noarchScore || k.arch == best || !p.isInstalled(q) && kept[k.arch] {
			continue
		}
		partners := s.partners(list, q, best)
		if p.isInstalled(q) && !slices.ContainsFunc(partners, p.isInstalled) {
			continue
		}
		s.add(-q, partners)
		lifted = lifted || asked[q]
	}
	for i := start; lifted && i < len(s.rules); i++ {
		s.rules[i].off = true
	}
}

// partners returns the packages of the same version as q, of noarch or the
// best architecture.
func (s *solver) partners(list []id, q id, best uint8) []id {
	k := &s.p.pkgs[q]
	var partners []id
	for _, o := range list {
		x := &s.p.pkgs[o]
		if x.evr == k.evr && x.Arch != k.Arch && (x.arch == noarchScore || x.arch == best) {
			partners = append(partners, o)
		}
	}
	return partners
}

// keptArchs returns the worse architectures of installed packages of a name
// that came without a partner: others of the same may come in their place.
func (s *solver) keptArchs(list []id, best uint8) map[uint8]bool {
	kept := map[uint8]bool{}
	for _, q := range list {
		k := &s.p.pkgs[q]
		if s.p.isInstalled(q) && k.arch != noarchScore && k.arch != best && len(s.partners(list, q, best)) == 0 {
			kept[k.arch] = true
		}
	}
	return kept
}

// bestRules forbids all but the best candidates of each job, and of the
// updates that are asked for.
func (s *solver) bestRules() {
	s.best = int32(len(s.rules))
	if s.req.Best {
		for i, j := range s.jobs {
			if j.rich == 0 {
				s.bestOfJob(i, j.list)
			}
		}
	}
	s.bestUp = int32(len(s.rules))
	if s.req.Best {
		for n := firstID; n < s.p.available; n++ {
			if s.updates.wanted(n) && slices.ContainsFunc(s.updates.targets[n], func(q id) bool { return !s.p.isInstalled(q) }) {
				s.bestUpdate(n)
			}
		}
	}
	s.bestEnd = int32(len(s.rules))
}

func (s *solver) bestOfJob(i int, list []id) {
	list = slices.DeleteFunc(slices.Clone(list), s.barred)
	best := s.filter(slices.Clone(list), recommend)
	if s.prefer != nil {
		for _, q := range list {
			if s.prefer[q] && !slices.Contains(best, q) {
				best = append(best, q)
			}
		}
	}
	if len(best) > 0 && len(best) < len(list) {
		s.add(best[0], best[1:])
		s.bestOf = append(s.bestOf, -id(i)-1)
	}
}

// bestUpdate forbids all but the best that can become of an installed package.
func (s *solver) bestUpdate(n id) {
	r := &s.rules[s.keepRule(n)]
	all := append([]id{r.p}, r.rest...)
	if s.later[n] != nil {
		all = append([]id{n}, s.later[n]...)
	}
	best := s.filter(s.updates.only(n, slices.Clone(all)), recommend)
	if len(best) == 0 {
		return
	}
	feature := s.feature[n-firstID]
	if feature != nil {
		for _, q := range s.filter(s.updates.only(n, slices.Clone(feature)), recommend) {
			if !slices.Contains(best, q) {
				best = append(best, q)
			}
		}
	}
	if !s.req.AllowErasing {
		s.add(best[0], best[1:])
		s.bestOf = append(s.bestOf, n)
		return
	}
	if feature == nil {
		feature = append([]id{r.p}, r.rest...)
	}
	for _, q := range feature {
		if !slices.Contains(best, q) {
			s.add(-q, best)
			s.bestOf = append(s.bestOf, n)
		}
	}
}

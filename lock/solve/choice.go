package solve

import "slices"

// choiceRules adds, for each dependency that installed packages and others
// can meet, that it is one that is installed, or a version of such a one, that
// meets it. These rules are weak: where they cannot hold they are dropped.
func (s *solver) choiceRules() {
	s.choices = int32(len(s.rules))
	if s.p.available > firstID {
		inferior := map[id]bool{}
		for n := s.arch; n < s.archEnd; n++ {
			if r := &s.rules[n]; r.p < 0 && len(r.rest) == 0 {
				inferior[-r.p] = true
			}
		}
		var last []id
		for n := int32(1); n < s.keeps; n++ {
			if list := s.choiceOver(&s.rules[n], inferior); list != nil && !slices.Equal(list, last) {
				last = list
				s.choiceOf = append(s.choiceOf, n)
				s.add(list[0], list[1:])
			}
		}
	}
	s.choicesEnd = int32(len(s.rules))
}

// choiceOver returns the literals of the choice rule of a rule; nil where it
// has none.
func (s *solver) choiceOver(r *rule, inferior map[id]bool) []id {
	if r.p >= 0 || len(r.rest) == 0 || len(r.rest) == 1 && r.rest[0] < 0 {
		return nil
	}
	from, to, other := s.installedChoices(r, inferior)
	if !other || len(from) == 0 {
		return nil
	}
	meets := func(q id) bool { return q == r.p || slices.Contains(r.rest, q) }
	if !s.ofInstalled(r) {
		n := 0
		for i := range from {
			if s.updates.wanted(from[i]) && !s.updateMeets(from[i], meets) {
				continue
			}
			from[n], to[n] = from[i], to[i]
			n++
		}
		from, to = from[:n], to[:n]
	}
	if !slices.ContainsFunc(from, func(n id) bool { return !s.allMeet(n, meets) }) {
		return nil
	}
	list := []id{r.p}
	for _, l := range r.rest {
		if l < 0 {
			list = append(list, l)
		}
	}
	return append(list, to...)
}

// installedChoices returns the packages of a rule that are installed or may
// come in the place of one that is, which is in from, and whether there are
// others.
func (s *solver) installedChoices(r *rule, inferior map[id]bool) (from, to []id, other bool) {
	p := s.p
	for _, l := range positives(r) {
		switch n := s.installedFor(l); {
		case l == system:
		case p.isInstalled(l):
			from, to = append(from, l), append(to, l)
		case n == 0:
			other = true
		case !inferior[l] && s.mayBecome(n, l):
			from, to = append(from, n), append(to, l)
		}
	}
	return from, to, other
}

// ofInstalled reports whether a rule is that of an installed package that is
// not to be updated.
func (s *solver) ofInstalled(r *rule) bool {
	found := false
	r.literals(func(l id) bool {
		found = l < 0 && s.p.isInstalled(-l) && !s.updates.wanted(-l)
		return !found
	})
	return found
}

// installedFor returns an installed package that q replaces, or 0.
func (s *solver) installedFor(q id) id {
	p := s.p
	if q == system {
		return 0
	}
	for _, n := range p.byName[p.pkgs[q].name] {
		if p.isInstalled(n) && p.sameColor(q, n) {
			return n
		}
	}
	for _, d := range p.pkgs[q].obsoletes {
		for _, n := range p.obsoleted(d) {
			if p.isInstalled(n) {
				return n
			}
		}
	}
	return 0
}

// mayBecome reports whether q may take the place of an installed package.
func (s *solver) mayBecome(n, q id) bool {
	k, x := &s.p.pkgs[n], &s.p.pkgs[q]
	if !s.updates.downgrade && k.name == x.name && k.EVR.Compare(x.EVR) > 0 {
		return false
	}
	return k.Arch == x.Arch || k.arch == noarchScore || x.arch == noarchScore
}

// allMeet reports whether an installed package and all that may take its
// place meet a dependency.
func (s *solver) allMeet(n id, meets func(id) bool) bool {
	all := true
	s.rules[s.keepRule(n)].literals(func(l id) bool {
		all = meets(l)
		return all
	})
	return all
}

// updateMeets reports whether the best that an installed package can be
// updated to meets a dependency.
func (s *solver) updateMeets(n id, meets func(id) bool) bool {
	r := &s.rules[s.keepRule(n)]
	list := append([]id{r.p}, r.rest...)
	if len(list) > 1 && slices.ContainsFunc(list, func(q id) bool { return !meets(q) }) {
		list = s.filter(list, choose)
	}
	return slices.ContainsFunc(list, meets)
}

// dropChoice drops a choice rule, and those that would rule out the same
// packages.
func (s *solver) dropChoice(n int32) {
	out := map[id]bool{}
	s.rules[s.choiceOf[n-s.choices]].literals(func(l id) bool {
		if l > 0 {
			out[l] = true
		}
		return true
	})
	s.rules[n].literals(func(l id) bool {
		delete(out, l)
		return true
	})
	s.rules[n].off = true
	for c := s.choices; c < s.choicesEnd; c++ {
		s.rules[s.choiceOf[c-s.choices]].literals(func(l id) bool {
			s.rules[c].off = s.rules[c].off || l > 0 && out[l]
			return !s.rules[c].off
		})
	}
}

// dropNeedless drops the choice rules that a package got around: it came in
// for another reason, so that the choice was none. It reports whether there
// were any.
func (s *solver) dropNeedless() bool {
	dropped := false
	for n := s.choices; n < s.choicesEnd; n++ {
		if s.rules[n].off {
			continue
		}
		around := false
		s.rules[s.choiceOf[n-s.choices]].literals(func(l id) bool {
			if l > 0 && s.level[l] > 0 {
				r := &s.rules[n]
				around = l != r.p && !slices.Contains(r.rest, l)
			}
			return !around
		})
		if around {
			s.dropChoice(n)
			dropped = true
		}
	}
	return dropped
}

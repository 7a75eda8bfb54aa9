package solve

import "slices"

// keepRules adds, for each installed package, that it stays or that one of
// those comes that may take its place.
func (s *solver) keepRules() {
	p := s.p
	s.keeps = int32(len(s.rules))
	s.feature = make([][]id, p.available-firstID)
	s.later = map[id][]id{}
	for n := firstID; n < p.available; n++ {
		if s.excluded[n] {
			s.add(n, nil) // what is excluded is not touched
			continue
		}
		feature, list := s.updatesOf(n, true), s.updatesOf(n, false)
		list = s.withoutBeside(n, list)
		if !slices.Equal(feature, list) {
			s.feature[n-firstID] = append([]id{n}, feature...)
		}
		s.add(n, list)
	}
}

// withoutBeside leaves out what is installed beside a package instead of in
// its place, which it remembers where an update is wanted.
func (s *solver) withoutBeside(n id, list []id) []id {
	p := s.p
	k := &p.pkgs[n]
	rest := slices.DeleteFunc(slices.Clone(list), func(q id) bool {
		x := &p.pkgs[q]
		return x.installOnly && !p.obsoletesPackage(q, n) && (x.name != k.name || x.evr != k.evr || x.Arch != k.Arch)
	})
	if len(rest) < len(list) && s.updates.wanted(n) {
		s.later[n] = list
	}
	return rest
}

// keepRule is the rule that keeps an installed package.
func (s *solver) keepRule(n id) int32 { return s.keeps + n - firstID }

// jobs that replace an installed package in any case speak louder than the
// rule that keeps it.
func (s *solver) silenceKeepRules() {
	p := s.p
	s.noUpdate = make([]bool, p.available-firstID)
	for _, j := range s.jobs {
		if j.rich != 0 || len(j.list) == 0 || slices.ContainsFunc(j.list, p.isInstalled) {
			continue
		}
		gone := p.replaced(j.list[0])
		for _, q := range j.list[1:] {
			if len(gone) == 0 {
				break
			}
			also := p.replaced(q)
			gone = slices.DeleteFunc(gone, func(n id) bool { return !slices.Contains(also, n) })
		}
		for _, n := range gone {
			s.noUpdate[n-firstID] = true
			s.rules[s.keepRule(n)].off = true
			for i, of := range s.bestOf {
				if of == n {
					s.rules[s.best+int32(i)].off = true
				}
			}
		}
	}
}

// resolveInstalled updates the installed packages that are to be updated, and
// decides to keep the others, or to take what may come in their place.
func (s *solver) resolveInstalled(level int32) int32 {
	start := level
	count := s.p.available - firstID
	first := 1
	if len(s.updates.targets) > 0 {
		first = 0
	}
	for pass := first; pass < 2 && count > 0; {
		passLevel := level
		i, done := s.keepFrom, id(0)
		for done < count {
			now, was, trouble := s.resolveOne(level, firstID+i, pass)
			if level = now; !trouble {
				i, done = (i+1)%count, done+1
				continue
			}
			if level < passLevel {
				break
			}
			if level < was {
				done = 0
			}
		}
		if done == count {
			s.keepFrom = 0
			pass++
			continue
		}
		s.keepFrom, pass = i, first
		if level < start {
			return level
		}
	}
	return level
}

// resolveOne decides about one installed package. It returns the level; where
// that did not get higher there was trouble, and was is what it had been.
func (s *solver) resolveOne(level int32, n id, pass int) (now, was int32, trouble bool) {
	special := s.later[n]
	if s.level[n] > 0 && special == nil || pass == 0 && !s.updates.wanted(n) {
		return level, level, false
	}
	if list := s.updateCandidates(n, special); len(list) > 0 {
		was = level
		if level = s.pick(level, list, s.keepRule(n)); level <= was {
			return level, was, true
		}
	}
	if s.level[n] != 0 {
		return level, level, false
	}
	was = level
	level = s.try(level, n, s.keepRule(n))
	return level, was, level <= was
}

// updateCandidates returns what may come in the place of an installed package
// that is to be updated or cannot stay; none where that is decided.
func (s *solver) updateCandidates(n id, special []id) []id {
	if s.noUpdate[n-firstID] || s.level[n] >= 0 && !s.updates.wanted(n) {
		return nil
	}
	if special != nil {
		return s.besideCandidates(n, special)
	}
	r := &s.rules[s.keepRule(n)]
	all := append([]id{r.p}, r.rest...)
	if r.off && s.feature[n-firstID] != nil {
		all = s.feature[n-firstID]
	}
	var list []id
	for _, q := range all {
		switch {
		case s.level[q] > 0:
			return nil
		case s.level[q] == 0:
			list = append(list, q)
		}
	}
	return s.updates.only(n, list)
}

// besideCandidates is updateCandidates for a package beside which others are
// installed: the best of them, unless it is decided or the installed one.
func (s *solver) besideCandidates(n id, special []id) []id {
	var list []id
	if s.level[n] >= 0 {
		list = append(list, n)
	}
	for _, q := range special {
		if s.level[q] >= 0 {
			list = append(list, q)
		}
	}
	for _, o := range slices.Clone(list) {
		if !s.p.isInstalled(o) {
			continue
		}
		for _, q := range special {
			if s.level[q] < 0 && !s.p.isInstalled(q) && s.p.identical(q, o) {
				list = append(list, q)
			}
		}
	}
	list = s.updates.only(n, list)
	if len(list) == 0 {
		return nil
	}
	list = s.filter(list, choose)
	if list[0] == n || s.level[list[0]] != 0 {
		return nil
	}
	return list[:1]
}

// removeRest removes the installed packages of which nothing else was decided.
func (s *solver) removeRest(level int32) (int32, bool) {
	for n := firstID; n < s.p.available; n++ {
		if s.level[n] != 0 {
			continue
		}
		was := level
		if level = s.try(level, -n, 0); level < was {
			return level, true
		}
	}
	return level, false
}

package solve

import "slices"

// addBranch remembers a choice between several packages, of which the first
// is about to be taken.
func (s *solver) addBranch(level int32, list []id) {
	if len(list) < 2 {
		return
	}
	b := branch{pkgs: slices.Clone(list), level: level}
	b.pkgs[0] = -b.pkgs[0]
	s.branches = append(s.branches, b)
}

// pick chooses one of the candidates of a rule.
func (s *solver) pick(level int32, list []id, n int32) int32 {
	list = s.filter(list, choose)
	s.addBranch(level, list)
	return s.try(level, list[0], n)
}

// pickEarly is pick as long as nothing is decided about installed packages: as
// if they stayed, what they recommend or suggest comes first.
func (s *solver) pickEarly(level int32, list []id, n int32) int32 {
	list = s.filter(list, choose)
	if len(list) > 1 && s.p.available > firstID {
		s.orderAsIfKept(list)
	}
	s.addBranch(level, list)
	return s.try(level, list[0], n)
}

func (s *solver) orderAsIfKept(list []id) {
	p := s.p
	decided := len(s.decided)
	var kept []id
	for n := firstID; n < p.available; n++ {
		if s.level[n] == 0 && !s.noUpdate[n-firstID] {
			s.level[n] = 1
			kept = append(kept, n)
		}
	}
	if len(kept) == 0 {
		return
	}
	s.decided = append(s.decided, kept...)
	s.updateWeak()
	toBack(list, func(q id) bool { return !p.isInstalled(q) && !s.weak.suggested[q] && !s.enhancing(q) })
	toBack(list, func(q id) bool { return !p.isInstalled(q) && !s.weak.recommended[q] && !s.supplementing(q) })
	for _, n := range kept {
		s.level[n] = 0
	}
	s.decided = s.decided[:decided]
	s.weak.reverted(decided)
	if s.prefer != nil {
		toBack(list, func(q id) bool { return !s.prefer[q] })
	}
}

// onlyInstalled leaves only installed packages, if there are any and none of
// them is to be updated.
func (s *solver) onlyInstalled(list []id) []id {
	p := s.p
	if len(list) < 2 || slices.ContainsFunc(list, func(q id) bool { return p.isInstalled(q) && s.updates.wanted(q) }) {
		return list
	}
	return keep(list, p.isInstalled)
}

// candidates returns the undecided packages of a rule that is not yet met, or
// none where it is met or does not apply.
func (s *solver) candidates(r *rule, list []id) []id {
	list = list[:0]
	met := false
	r.literals(func(l id) bool {
		switch v := s.level[max(l, -l)]; {
		case l < 0 && v <= 0, l > 0 && v > 0:
			met = true
			return false
		case l > 0 && v == 0:
			list = append(list, l)
		}
		return true
	})
	if met {
		return nil
	}
	return list
}

// resolveJobs decides the rules of the request, in their order.
func (s *solver) resolveJobs(level int32) int32 {
	start := level
	var buf []id
	for n := s.jobRules; n < s.jobEnd; n++ {
		if s.rules[n].off {
			continue
		}
		if buf = s.candidates(&s.rules[n], buf); len(buf) == 0 {
			continue
		}
		buf = s.onlyInstalled(buf)
		was := level
		switch level = s.pickEarly(level, buf, n); {
		case level > was:
		case level < start:
			return level
		case level == was:
			n-- // something else must be tried
		default:
			n = s.jobRules - 1
		}
	}
	return level
}

// resolveDeps decides all other rules. Those with one candidate left by the
// policy come first; a real choice waits until there is nothing else to do.
func (s *solver) resolveDeps(level int32) int32 {
	start := level
	var buf []id
	postponed := int32(0)
	for i, n := int32(1), int32(1); ; i, n = i+1, n+1 {
		if n >= int32(len(s.rules)) {
			if postponed <= 0 {
				return level
			}
			i, n, postponed = postponed, 1, -1
		}
		if i == int32(len(s.rules)) {
			i = 1
		}
		r := &s.rules[i]
		if r.off || r.w2 == 0 || r.p < 0 && s.level[-r.p] <= 0 || r.p < 0 && len(r.rest) < 2 {
			continue
		}
		if buf = s.candidates(r, buf[:0]); len(buf) < 2 {
			continue
		}
		list := buf
		if postponed >= 0 {
			if list = s.filter(list, chooseRough); len(list) > 1 {
				if postponed == 0 {
					postponed = i
				}
				continue
			}
		}
		if level = s.pick(level, list, i); level < start {
			return level
		}
		n = 0
	}
}

// minimize looks for a choice that could have been one of the packages that
// came in anyway, or one that is recommended, and takes it. It returns the
// level reached, and whether there was one.
func (s *solver) minimize(level int32) (int32, bool) {
	s.updateWeak()
	best, bestAt := -1, -1
	for b := len(s.branches) - 1; b >= 0; b-- {
		if i := s.betterChoice(&s.branches[b]); i >= 0 {
			best, bestAt = b, i
		}
	}
	if best < 0 {
		return level, false
	}
	b := s.branches[best]
	q := b.pkgs[bestAt]
	b.pkgs[bestAt] = -q
	s.revert(b.level) // which drops the branch
	s.branches = append(s.branches, b)
	why := s.why[:cap(s.why)][len(s.why)] // that of the choice which is taken back
	return s.try(b.level, q, -why), true
}

// betterChoice returns the index of an untried package of a branch that came
// in later anyway; else of one that is recommended, where the present choice
// is not; else -1.
func (s *solver) betterChoice(b *branch) int {
	wanted := func(q id) bool { return s.weak.recommended[q] || s.supplementing(q) }
	first := -1
	for i, q := range b.pkgs {
		switch {
		case q <= 0:
		case s.level[q] > b.level:
			return i
		case first < 0 && wanted(q):
			first = i
		}
	}
	if first < 0 {
		return -1
	}
	for _, t := range b.pkgs {
		q := -t
		if q <= 0 || s.level[q] != b.level+1 || s.prefer != nil && s.prefer[q] {
			continue
		}
		if !wanted(q) {
			return first
		}
	}
	return -1
}

// run decides everything. It reports whether there is a solution.
func (s *solver) run(weak bool) bool {
	level, base := int32(0), int32(0)
	for {
		if level <= 0 {
			if level < 0 {
				return false
			}
			level = s.assertions()
			if broken := s.spread(level); broken != 0 {
				level = s.giveUp(broken)
				continue
			}
			base = level + 1
		}
		if level < base {
			was := level
			if level = s.resolveJobs(level); level < was {
				continue
			}
			base = level + 1
			was = level
			if level = s.resolveInstalled(level); level < was {
				continue
			}
			base = level
		}
		was := level
		if level = s.resolveDeps(level); level < was {
			continue
		}
		if len(s.problems) > 0 {
			return false
		}
		var again bool
		if level, again = s.resolveRest(level, weak); !again {
			return true
		}
	}
}

// resolveRest adds what is recommended and drops what is needless. It reports
// whether it decided anything.
func (s *solver) resolveRest(level int32, weak bool) (int32, bool) {
	if weak {
		var again bool
		if level, again = s.resolveWeak(level); again {
			return level, true
		}
	}
	level, again := s.removeRest(level)
	if again {
		return level, true
	}
	if s.dropNeedless() {
		s.reset()
		return 0, true
	}
	return s.minimize(level)
}

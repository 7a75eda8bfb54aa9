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
		buf = s.candidates(&s.rules[n], buf)
		if len(buf) == 0 {
			continue
		}
		was := level
		switch level = s.pick(level, buf, n); {
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
		if r.w2 == 0 || r.p < 0 && s.level[-r.p] <= 0 || r.p < 0 && len(r.rest) < 2 {
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
	level := s.assertions()
	if level < 0 {
		return false
	}
	if broken := s.spread(level); broken != 0 {
		s.unsolvable(broken)
		return false
	}
	jobsDone := level + 1
	for level > 0 {
		if level < jobsDone {
			was := level
			if level = s.resolveJobs(level); level < was {
				continue
			}
			jobsDone = level
		}
		was := level
		if level = s.resolveDeps(level); level < was {
			continue
		}
		if weak {
			var again bool
			if level, again = s.resolveWeak(level); again {
				continue
			}
		}
		var again bool
		if level, again = s.minimize(level); !again {
			return true
		}
	}
	return false
}

// assertions decides, at level 1, what stands in rules of one literal. It
// returns -1 where two of them contradict each other.
func (s *solver) assertions() int32 {
	s.decide(system, 1, 0)
	by := map[id]int32{}
	for _, n := range s.asserts {
		l := s.rules[n].p
		switch s.holds(l) {
		case 0:
			s.decide(l, 1, n)
			by[l] = n
		case -1:
			if why, ok := by[-l]; ok {
				s.conflict = []int32{n, why}
			} else {
				s.conflict = []int32{n}
			}
			return -1
		}
	}
	return 1
}

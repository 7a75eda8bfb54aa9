package solve

import "slices"

// assertions decides, at level 1, what stands in rules of one literal. Those
// of the request or of installed packages that contradict others are a problem
// and dropped; weak ones are dropped silently.
func (s *solver) assertions() int32 {
	s.decide(system, 1, 0)
	for !s.assertAll() {
		for len(s.decided) > 1 {
			l := s.decided[len(s.decided)-1]
			s.level[max(l, -l)] = 0
			s.decided, s.why = s.decided[:len(s.decided)-1], s.why[:len(s.why)-1]
		}
		s.updateLearnt()
	}
	return 1
}

// assertAll returns false where it dropped a rule and has to begin anew.
func (s *solver) assertAll() bool {
	for _, weak := range []bool{false, true} {
		for _, n := range s.asserts {
			if s.rules[n].off || s.isWeak(n) != weak {
				continue
			}
			l := s.rules[n].p
			switch s.holds(l) {
			case 0:
				s.decide(l, 1, n)
			case -1:
				if s.rules[n].off = weak || n >= s.learnt; s.rules[n].off {
					if weak {
						return false
					}
					continue
				}
				s.contradiction(n, l)
				return false
			}
		}
	}
	return true
}

func (s *solver) isWeak(n int32) bool { return n >= s.choices && n < s.choicesEnd }

// contradiction deals with an assertion that contradicts a decision.
func (s *solver) contradiction(n int32, l id) {
	why := int32(0)
	for i, d := range s.decided {
		if d == -l {
			why = s.why[i]
		}
	}
	set := []int32{n}
	proof := []int32{n}
	if why >= s.keeps {
		set = nil
		for _, o := range s.asserts {
			if r := &s.rules[o]; o >= s.keeps && o < s.learnt && !r.off && !s.isWeak(o) && (r.p == l || r.p == -l) {
				set = append(set, o)
			}
		}
	}
	if why > 0 {
		proof = append(proof, why)
	}
	if s.req.AllowErasing && s.erase(set) {
		return
	}
	s.problems = append(s.problems, proof)
	s.silence(set)
}

// giveUp deals with a conflict at level 1. It drops a weak rule behind it, or
// lets an installed package go if that is allowed, or else records the problem
// and drops all rules of the request behind it, to look for others. It returns
// 0, the level to begin anew from, or -1 where there is nothing to drop.
func (s *solver) giveUp(broken int32) int32 {
	proof := s.proof(broken)
	weakest := int32(0)
	for _, n := range proof {
		if s.isWeak(n) {
			weakest = max(weakest, n)
		}
	}
	var set []int32
	for _, n := range proof {
		if n >= s.keeps {
			set = append(set, n)
		}
	}
	switch {
	case weakest > 0:
		s.dropChoice(weakest)
	case s.req.AllowErasing && s.erase(set):
	default:
		s.problems = append(s.problems, proof)
		if len(set) == 0 {
			return -1
		}
		s.silence(set)
	}
	s.reset()
	return 0
}

// proof returns the rules behind a conflict at level 1, from the conflict
// towards the request, learnt ones replaced by those that they were learnt
// from.
func (s *solver) proof(broken int32) []int32 {
	seen := map[int32]bool{}
	var rules []int32
	var take func(n int32)
	take = func(n int32) {
		switch {
		case seen[n]:
			return
		case n < s.learnt:
			rules = append(rules, n)
		}
		seen[n] = true
		if n >= s.learnt {
			for _, o := range s.learntWhy[n-s.learnt] {
				take(o)
			}
		}
	}
	involved := map[id]bool{}
	involve := func(n int32) {
		take(n)
		s.rules[n].literals(func(l id) bool {
			involved[max(l, -l)] = true
			return true
		})
	}
	involve(broken)
	for i := len(s.decided) - 1; i >= 0; i-- {
		l := s.decided[i]
		if involved[max(l, -l)] && s.why[i] > 0 {
			involve(s.why[i])
		}
	}
	return rules
}

// erase lets one installed package go that is kept by one of some rules, if
// there is one.
func (s *solver) erase(set []int32) bool {
	last, lastSame := int32(0), int32(0)
	for _, n := range set {
		if n < s.keeps || n >= s.jobRules {
			continue
		}
		q := firstID + n - s.keeps
		if s.excluded[q] || slices.ContainsFunc(set, func(o int32) bool { return o >= s.best && o < s.bestEnd && s.bestOf[o-s.best] == q }) {
			continue
		}
		switch r := &s.rules[n]; {
		case s.feature[q-firstID] != nil:
			last = max(last, n)
		case len(r.rest) == 0:
			s.rules[n].off = true // nothing can take its place
			return true
		default:
			lastSame = max(lastSame, n)
		}
	}
	if last == 0 {
		last = lastSame
	}
	if last == 0 {
		return false
	}
	s.rules[last].off = true
	return true
}

// silence drops rules of the request and of installed packages: all of a job
// or of a name's architectures with one of them.
func (s *solver) silence(set []int32) {
	for _, n := range set {
		switch {
		case n >= s.jobRules && n < s.jobEnd:
			s.silenceJob(s.jobOf[n-s.jobRules])
		case n >= s.best && n < s.bestUp:
			s.silenceJob(int(-s.bestOf[n-s.best]) - 1)
		case n >= s.arch && n < s.archEnd:
			name := s.p.pkgs[-s.rules[n].p].name
			for o := s.arch; o < s.archEnd; o++ {
				s.rules[o].off = s.rules[o].off || s.p.pkgs[-s.rules[o].p].name == name
			}
		default:
			s.rules[n].off = true
		}
	}
}

func (s *solver) silenceJob(job int) {
	for i, of := range s.jobOf {
		if of == job {
			s.rules[s.jobRules+int32(i)].off = true
		}
	}
	for i, of := range s.bestOf {
		if of == -id(job)-1 {
			s.rules[s.best+int32(i)].off = true
		}
	}
}

// reset takes back every decision, after some rules were dropped.
func (s *solver) reset() {
	for _, l := range s.decided {
		s.level[max(l, -l)] = 0
	}
	s.decided, s.why, s.branches, s.propagate = s.decided[:0], s.why[:0], nil, 0
	s.weak.stale = true
	s.updateLearnt()
}

// updateLearnt drops the learnt rules that follow from dropped ones.
func (s *solver) updateLearnt() {
	for n := s.learnt; n < int32(len(s.rules)); n++ {
		s.rules[n].off = s.rules[n].off || slices.ContainsFunc(s.learntWhy[n-s.learnt], func(o int32) bool { return s.rules[o].off })
	}
}

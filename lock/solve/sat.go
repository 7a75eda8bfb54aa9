package solve

// rule is a clause: p, or one of rest, must hold. Without rest and w2 it is
// an assertion. w1 and w2 are the two watched literals, n1 and n2 the next
// rules that watch them.
type rule struct {
	p      id
	w1, w2 id
	n1, n2 int32
	rest   []id
}

// literals calls visit with each literal of the rule until it returns false.
func (r *rule) literals(visit func(id) bool) {
	if !visit(r.p) {
		return
	}
	for _, l := range r.rest {
		if !visit(l) {
			return
		}
	}
}

// branch is a choice that was made between several packages, kept for the
// minimisation. Packages that were tried are negative.
type branch struct {
	pkgs  []id
	level int32
}

// solver is the state of answering one request: a satisfiability solver that
// learns from conflicts, with dnf's policy for its decisions.
type solver struct {
	p        *Pool
	req      *Request
	excluded []bool // by id
	prefer   []bool // by id; nil where nothing is preferred
	members  []id   // the packages that may come in, ascending
	member   []bool // by id

	rules     []rule // from 1
	jobRules  int32  // start of the rules of the request …
	jobEnd    int32
	jobOf     []int // by rule from jobRules to jobEnd: which job
	learnt    int32 // start of the learnt rules
	learntWhy [][]int32
	asserts   []int32 // rules that are assertions
	watches   []int32 // by literal + offset: first rule that watches it
	offset    int32
	jobs      []job

	level     []int32 // by id: the level at which it was decided; negative: not to be installed
	decided   []id    // literals in the order of their decision
	why       []int32 // the rule that forced it, or -rule for a free choice
	propagate int     // how many of decided have been propagated
	branches  []branch

	weak weakState

	conflict []int32 // the rules that cannot be met together, once that is found
}

// holds returns 1 where a literal is true, -1 where it is false, 0 where it
// is open.
func (s *solver) holds(l id) int {
	v := s.level[max(l, -l)]
	switch {
	case v == 0:
		return 0
	case (v > 0) == (l > 0):
		return 1
	}
	return -1
}

func (s *solver) decide(l id, level, why int32) {
	if l > 0 {
		s.level[l] = level
	} else {
		s.level[-l] = -level
	}
	s.decided = append(s.decided, l)
	s.why = append(s.why, why)
}

// add appends a rule. Its watches are made by watch.
func (s *solver) add(p id, rest []id) int32 {
	n := int32(len(s.rules))
	r := rule{p: p, w1: p, rest: rest}
	if len(rest) > 0 {
		r.w2 = rest[0]
	} else {
		s.asserts = append(s.asserts, n)
	}
	s.rules = append(s.rules, r)
	return n
}

// watch enters a rule into the lists of its two watched literals.
func (s *solver) watch(n int32) {
	r := &s.rules[n]
	if r.w2 == 0 {
		return
	}
	r.n1 = s.watches[r.w1+s.offset]
	s.watches[r.w1+s.offset] = n
	r.n2 = s.watches[r.w2+s.offset]
	s.watches[r.w2+s.offset] = n
}

// spread propagates all decisions. It returns the rule that they break, or 0.
func (s *solver) spread(level int32) int32 {
	for s.propagate < len(s.decided) {
		now := -s.decided[s.propagate] // just became false
		s.propagate++
		at := &s.watches[now+s.offset]
		for *at != 0 {
			n := *at
			r := &s.rules[n]
			other, next := r.w1, &r.n2
			if now == r.w1 {
				other, next = r.w2, &r.n1
			}
			if s.holds(other) > 0 {
				at = next
				continue
			}
			if l := s.replacement(r, other); l != 0 {
				*at = *next
				if now == r.w1 {
					r.w1 = l
				} else {
					r.w2 = l
				}
				*next = s.watches[l+s.offset]
				s.watches[l+s.offset] = n
				continue
			}
			if s.holds(other) < 0 {
				return n
			}
			s.decide(other, level, n)
			at = next
		}
	}
	return 0
}

// replacement finds another literal to watch than other, one that is not
// false.
func (s *solver) replacement(r *rule, other id) id {
	if len(r.rest) < 2 {
		return 0
	}
	if r.p != other && s.holds(r.p) >= 0 {
		return r.p
	}
	for _, l := range r.rest {
		if l != other && s.holds(l) >= 0 {
			return l
		}
	}
	return 0
}

// revert takes back every decision above a level.
func (s *solver) revert(level int32) {
	n := len(s.decided)
	for n > 0 {
		q := s.decided[n-1]
		q = max(q, -q)
		if v := s.level[q]; v <= level && v >= -level {
			break
		}
		s.level[q] = 0
		n--
	}
	s.decided, s.why = s.decided[:n], s.why[:n]
	s.propagate = min(s.propagate, n)
	b := len(s.branches)
	for b > 0 && s.branches[b-1].level >= level {
		b--
	}
	s.branches = s.branches[:b]
	s.weak.reverted(n)
}

// analyze learns a rule from a broken one, goes back to the level where the
// new rule decides something, and returns that level and the rule.
func (s *solver) analyze(level, broken int32) (int32, int32) {
	seen := map[id]bool{}
	var rest []id
	var used []int32
	var p id
	back := int32(1)
	open, low := 0, 0 // literals still to resolve at this level, and at level 1
	idx := len(s.decided)
	c := broken
	for {
		used = append(used, c)
		s.rules[c].literals(func(l id) bool {
			q := max(l, -l)
			if s.holds(l) > 0 || seen[q] {
				return true
			}
			seen[q] = true
			switch at := max(s.level[q], -s.level[q]); {
			case at == 1:
				low++
			case at == level:
				open++
			default:
				rest = append(rest, l)
				back = max(back, at)
			}
			return true
		})
		done := false
		for {
			if open == 0 && p != 0 && low == 0 {
				done = true
				break
			}
			idx--
			q := max(s.decided[idx], -s.decided[idx])
			if !seen[q] {
				continue
			}
			at := max(s.level[q], -s.level[q])
			if at != level && at != 1 {
				continue
			}
			delete(seen, q)
			if at == 1 {
				low--
			} else if open--; open == 0 {
				p = -s.decided[idx]
				continue // level 1 remains, for the record only
			}
			if s.why[idx] > 0 {
				c = s.why[idx]
				break
			}
		}
		if done {
			break
		}
	}
	s.revert(back)
	n := s.add(p, rest)
	s.learntWhy = append(s.learntWhy, used)
	if r := &s.rules[n]; len(rest) > 0 {
		highest := int32(0)
		for _, l := range rest {
			if at := max(s.level[max(l, -l)], -s.level[max(l, -l)]); at > highest {
				highest, r.w2 = at, l
			}
		}
		s.watch(n)
	}
	return back, n
}

// try decides a literal at a new level (0: nothing new) and propagates,
// learning from conflicts. It returns the level that was reached, or -1 where
// there is no solution.
func (s *solver) try(level int32, l id, why int32) int32 {
	if l != 0 {
		level++
		s.decide(l, level, -why)
	}
	for {
		broken := s.spread(level)
		if broken == 0 {
			return level
		}
		if level == 1 {
			s.unsolvable(broken)
			return -1
		}
		var n int32
		level, n = s.analyze(level, broken)
		s.decide(s.rules[n].p, level, n)
	}
}

// unsolvable records the rules that led to a conflict at level 1.
func (s *solver) unsolvable(broken ...int32) {
	involved := map[id]bool{}
	take := func(n int32) {
		s.conflict = append(s.conflict, n)
		s.rules[n].literals(func(l id) bool {
			involved[max(l, -l)] = true
			return true
		})
	}
	for _, n := range broken {
		take(n)
	}
	for idx := len(s.decided) - 1; idx >= 0; idx-- {
		q := max(s.decided[idx], -s.decided[idx])
		if involved[q] && s.why[idx] > 0 {
			take(s.why[idx])
		}
	}
}

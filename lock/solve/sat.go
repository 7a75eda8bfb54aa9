package solve

// rule is a clause: p, or one of rest, must hold. Without rest and w2 it is
// an assertion. w1 and w2 are the two watched literals, n1 and n2 the next
// rules that watch them.
type rule struct {
	p      id
	w1, w2 id
	n1, n2 int32
	rest   []id
	off    bool // does not count any more
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
	modules  *moduleState
	excluded []bool      // by id: it is hidden by a module, or …
	named    map[id]bool // … excluded by its repository or by the request
	prefer   []bool      // by id; nil where nothing is preferred
	members  []id        // the packages that may come in, ascending
	member   []bool      // by id
	followed []bool      // by depID: its providers are members

	rules                 []rule  // from 1: those of packages …
	keeps                 int32   // one for each installed package …
	jobRules, jobEnd      int32   // of the request …
	arch, archEnd         int32   // of architectures …
	best, bestUp, bestEnd int32   // of best, for jobs, then for updates …
	heirs, heirsEnd       int32   // of Obsoletes that several packages have …
	choices, choicesEnd   int32   // weak ones, for what is installed …
	learnt                int32   // and learnt ones
	jobOf                 []int   // by rule from jobRules to jobEnd: which job
	bestOf                []id    // by rule from best to bestEnd: -job-1, or the installed package
	heirOf                []depID // by rule from heirs to heirsEnd: the Obsoletes
	choiceOf              []int32 // by rule from choices to choicesEnd: the rule of a package
	learntWhy             [][]int32
	asserts               []int32 // rules that are assertions
	watches               []int32 // by literal + offset: first rule that watches it
	offset                int32
	jobs                  []job

	level     []int32 // by id: the level at which it was decided; negative: not to be installed
	decided   []id    // literals in the order of their decision
	why       []int32 // the rule that forced it, or -rule for a free choice
	propagate int     // how many of decided have been propagated
	branches  []branch

	weak    weakState
	notWeak []bool // by id: what no recommendation may bring

	updates     updates
	upgradeSpec map[id]string // by what an update was asked for
	feature     [][]id        // by installed package: what may come in its place in any way, where that is more
	later       map[id][]id   // by installed package: updates that are installed beside it
	keepFrom    id            // the installed package to begin with: the one that gave trouble the last time
	noUpdate    []bool        // by installed package: it is replaced in any case

	full     bool            // there were too many rules
	done     <-chan struct{} // closed when nobody waits for the answer any more
	problems [][]int32       // the rules that cannot be met together, if there are any
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

// maxRules bounds the rules of one request, and so its memory to some hundred
// megabytes. All packages of Fedora together make about a million.
const maxRules = 1 << 23

// add appends a rule. Its watches are made by watch. Beyond maxRules it only
// notes that there were too many.
func (s *solver) add(p id, rest []id) int32 {
	n := int32(len(s.rules))
	if n >= maxRules {
		s.full = true
		return n - 1
	}
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
			if r.off || s.holds(other) > 0 {
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

// analysis is the state of learning from a broken rule.
type analysis struct {
	seen      map[id]bool // literals that are noted and not yet resolved
	open, low int         // how many of them at the present level, and at level 1
	rest      []id        // literals of the new rule, of levels between these
	back      int32       // the highest level among rest
	used      []int32     // the rules that the new one follows from
}

// note takes in the false literals of a rule.
func (a *analysis) note(s *solver, n, level int32) {
	a.used = append(a.used, n)
	s.rules[n].literals(func(l id) bool {
		q := max(l, -l)
		if s.holds(l) > 0 || a.seen[q] {
			return true
		}
		a.seen[q] = true
		switch at := s.decidedAt(q); at {
		case 1:
			a.low++
		case level:
			a.open++
		default:
			a.rest = append(a.rest, l)
			a.back = max(a.back, at)
		}
		return true
	})
}

// decidedAt returns the level at which a package was decided.
func (s *solver) decidedAt(q id) int32 { return max(s.level[q], -s.level[q]) }

// analyze learns a rule from a broken one, goes back to the level where the
// new rule decides something, and returns that level and the rule. What was
// decided at level 1 is resolved too, for the record only.
func (s *solver) analyze(level, broken int32) (int32, int32) {
	a := &analysis{seen: map[id]bool{}, back: 1}
	a.note(s, broken, level)
	var p id
	for idx := len(s.decided) - 1; p == 0 || a.low > 0; idx-- {
		q := max(s.decided[idx], -s.decided[idx])
		at := s.decidedAt(q)
		if !a.seen[q] || at != level && at != 1 {
			continue
		}
		delete(a.seen, q)
		if at == 1 {
			a.low--
		} else if a.open--; a.open == 0 {
			p = -s.decided[idx]
			continue
		}
		if s.why[idx] > 0 {
			a.note(s, s.why[idx], level)
		}
	}
	s.revert(a.back)
	n := s.add(p, a.rest)
	s.learntWhy = append(s.learntWhy, a.used)
	if r := &s.rules[n]; len(a.rest) > 0 {
		highest := int32(0)
		for _, l := range a.rest {
			if at := s.decidedAt(max(l, -l)); at > highest {
				highest, r.w2 = at, l
			}
		}
		s.watch(n)
	}
	return a.back, n
}

// try decides a literal at a new level (0: nothing new) and propagates,
// learning from conflicts. It returns the level that was reached, or -1 where
// there is no solution, or 0 where all begins anew without some rules.
func (s *solver) try(level int32, l id, why int32) int32 {
	select {
	case <-s.done:
		return -1
	default:
	}
	if s.full {
		return -1
	}
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
			return s.giveUp(broken)
		}
		var n int32
		level, n = s.analyze(level, broken)
		s.decide(s.rules[n].p, level, n)
	}
}

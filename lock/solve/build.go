package solve

import (
	"slices"
	"strings"
)

// newSolver prepares a request: what is excluded and preferred, the jobs of
// its specs, the packages that may come in, of which more are given, and the
// rules.
func (p *Pool) newSolver(req *Request, more []id) (*solver, error) {
	s, err := p.collect(req, more)
	if err != nil {
		return nil, err
	}
	n := len(p.pkgs)
	s.rules = append(s.rules, rule{}) // they count from 1
	s.pkgRules()
	s.keepRules()
	s.jobRules = int32(len(s.rules))
	s.addJobs()
	s.jobEnd = int32(len(s.rules))
	s.archRules()
	s.bestRules()
	s.heirRules()
	s.choiceRules()
	s.learnt = int32(len(s.rules))
	s.offset = int32(n)
	s.watches = zeroed(s.watches, 2*n+1)
	for i := len(s.rules) - 1; i > 0; i-- {
		s.watch(int32(i))
	}
	s.silenceKeepRules()
	if s.full {
		return nil, errTooLarge
	}
	return s, nil
}

// collect finds the jobs and the packages that may come in. Where that needed
// the filelists for the first time, what was found without them may be
// incomplete, and is found again.
func (p *Pool) collect(req *Request, more []id) (*solver, error) {
	for {
		had := p.paths.loaded
		modules, err := p.requestModules(req)
		if err != nil {
			return nil, err
		}
		s := p.blankSolver()
		s.req, s.modules = req, modules
		s.exclude()
		s.preferences()
		s.excludeFromWeak()
		s.upgradeSpec = map[id]string{}
		s.updates.downgrade = len(req.Specs)+len(req.Reinstall) > 0
		for _, kind := range []struct {
			specs []string
			jobs  func(string) ([]job, error)
		}{{groupsFirst(req.Specs), s.jobsOf}, {req.Reinstall, s.reinstallJobs}, {req.Upgrade, s.addUpgrade}} {
			for _, spec := range kind.specs {
				jobs, err := kind.jobs(spec)
				if err != nil {
					return nil, err
				}
				s.jobs = append(s.jobs, jobs...)
			}
		}
		if err := s.findMembers(more); err != nil {
			return nil, err
		}
		if p.paths.loaded == had {
			return s, nil
		}
	}
}

// groupsFirst puts groups and modules before packages, as dnf does.
func groupsFirst(specs []string) []string {
	list := slices.Clone(specs)
	slices.SortStableFunc(list, func(a, b string) int {
		switch group := strings.HasPrefix(a, "@"); {
		case group == strings.HasPrefix(b, "@"):
			return 0
		case group:
			return -1
		}
		return 1
	})
	return list
}

// blankSolver returns a solver without a request, in the memory of the last one.
func (p *Pool) blankSolver() *solver {
	n := len(p.pkgs)
	var old solver
	if p.spare != nil {
		old = *p.spare
		p.spare = nil
	}
	return &solver{
		p: p, members: old.members[:0], member: zeroed(old.member, n), level: zeroed(old.level, n),
		rules: old.rules[:0], jobOf: old.jobOf[:0], asserts: old.asserts[:0], watches: old.watches[:0],
		decided: old.decided[:0], why: old.why[:0], followed: old.followed,
		weak: weakState{recommended: zeroed(old.weak.recommended, n), suggested: zeroed(old.weak.suggested, n)},
	}
}

// zeroed returns n zeros, in the memory of b where that is enough.
func zeroed[T any](b []T, n int) []T {
	if cap(b) < n {
		return make([]T, n)
	}
	b = b[:n]
	clear(b)
	return b
}

// preferences marks the packages that the request prefers.
func (s *solver) preferences() {
	if len(s.req.Prefer) == 0 {
		return
	}
	wanted := make(map[string]bool, len(s.req.Prefer))
	for _, n := range s.req.Prefer {
		wanted[n] = true
	}
	s.prefer = make([]bool, len(s.p.pkgs))
	for i := int(firstID); i < len(s.p.pkgs); i++ {
		s.prefer[i] = wanted[s.p.pkgs[i].Package.String()]
	}
}

// findMembers collects the packages that may come in: those of the jobs, all
// that they may need or wish for, and what may supplement those.
func (s *solver) findMembers(more []id) error {
	p := s.p
	s.followed = zeroed(s.followed, len(p.deps))
	var todo []id
	push := func(list []id) {
		for _, q := range list {
			if q >= firstID && !s.member[q] {
				s.member[q] = true
				todo = append(todo, q)
			}
		}
	}
	for n := firstID; n < p.available; n++ {
		push([]id{n})
		push(s.updatesOf(n, true))
	}
	for _, j := range s.jobs {
		push(j.list)
	}
	push(more)
	for {
		for len(todo) > 0 {
			q := todo[len(todo)-1]
			todo = todo[:len(todo)-1]
			s.members = append(s.members, q)
			had := p.paths.loaded
			r, err := p.rulesOf(q)
			if err != nil || p.paths.loaded != had {
				return err
			}
			for _, d := range r.follow {
				if !s.followed[d] {
					s.followed[d] = true
					push(p.providers(d))
				}
			}
			push(r.wanted)
			push(r.likewise)
		}
		for _, q := range p.weak {
			k := &p.pkgs[q]
			if loaded, err := p.pathsOf(k.supplements, k.enhances); err != nil || loaded {
				return err
			}
			if !s.member[q] && !s.excluded[q] &&
				(slices.ContainsFunc(k.supplements, s.possible) || slices.ContainsFunc(k.enhances, s.possible)) {
				push([]id{q})
			}
		}
		if len(todo) == 0 {
			break
		}
	}
	slices.Sort(s.members)
	return nil
}

// pkgRules adds what each member entails in libsolv's order, which decides
// between equally good choices: as lists of literals, ascending.
func (s *solver) pkgRules() {
	var clauses [][]id
	above := map[id][]id{} // by the higher of two packages in conflict: the lower one, which says so
	forgotten := s.forgotten()
	for _, q := range s.members {
		for _, o := range forgotten {
			if _, in := slices.BinarySearch(s.p.pkgs[q].rules.conflicts, o); in || s.p.pkgs[q].name == s.p.pkgs[o].name && s.p.alternates(q, o) {
				clauses = append(clauses, []id{-max(q, o), -min(q, o)})
			}
		}
		r := s.p.pkgs[q].rules
		if s.out(q) && s.p.available == firstID {
			continue
		}
		clauses = append(clauses, r.clauses...)
		at, _ := slices.BinarySearch(r.conflicts, q)
		for _, o := range r.conflicts[at:] {
			if s.member[o] {
				above[o] = append(above[o], q)
			}
		}
	}
	slices.SortFunc(clauses, slices.Compare)
	clauses = slices.CompactFunc(clauses, slices.Equal)
	for i := len(s.members) - 1; i >= 0; i-- {
		q := s.members[i]
		n := 0
		for ; n < len(clauses) && clauses[n][0] < -q; n++ {
			s.add(clauses[n][0], clauses[n][1:]) // begins with a package that cannot come in
		}
		clauses, n = clauses[n:], 0
		for n < len(clauses) && clauses[n][0] == -q {
			n++
		}
		s.rulesFrom(q, above[q], clauses[:n])
		clauses = clauses[n:]
	}
	for _, c := range clauses {
		s.add(c[0], c[1:])
	}
}

// barred reports whether a package may not come in. What is installed already
// may stay in any case.
func (s *solver) barred(q id) bool { return s.excluded[q] && !s.p.isInstalled(q) }

// out reports whether a package can never come in.
func (s *solver) out(q id) bool { return s.p.pkgs[q].rules.broken || s.barred(q) }

// rulesFrom adds the rules that begin with a package: conflicts with those
// before it, and its requirements, with which clauses are merged.
func (s *solver) rulesFrom(q id, others []id, clauses [][]id) {
	r := s.p.pkgs[q].rules
	if s.out(q) {
		if s.add(-q, nil); s.p.available == firstID {
			return
		} // choices over what it requires count even so
	}
	at, _ := slices.BinarySearch(r.conflicts, q)
	less := append(others, r.conflicts[:at]...)
	for _, o := range s.p.byName[s.p.pkgs[q].name] {
		if o < q && s.p.alternates(q, o) {
			less = append(less, o)
		}
	}
	slices.Sort(less)
	less = slices.Compact(less)
	mixed := 0
	for i := len(less) - 1; i >= 0; i-- {
		o := less[i]
		if !s.member[o] {
			continue
		}
		for ; mixed < len(clauses) && clauses[mixed][1] < -o; mixed++ {
			s.add(-q, clauses[mixed][1:])
		}
		s.add(-q, []id{-o})
	}
	for _, list := range r.requires {
		for ; mixed < len(clauses) && slices.Compare(clauses[mixed][1:], list) < 0; mixed++ {
			s.add(-q, clauses[mixed][1:])
		}
		s.add(-q, list)
	}
	for ; mixed < len(clauses); mixed++ {
		s.add(-q, clauses[mixed][1:])
	}
}

// addJobs adds a rule for each job, or several for a rich one.
func (s *solver) addJobs() {
	for i, j := range s.jobs {
		if j.rich == 0 {
			if len(j.list) == 0 {
				s.addJob(i, -system, nil)
			} else {
				s.addJob(i, j.list[0], j.list[1:])
			}
			continue
		}
		blocks, v := s.p.normalize(j.rich, false)
		if v == never || v == tooLarge {
			s.addJob(i, -system, nil)
		}
		for _, b := range blocks {
			s.addJob(i, b[0], b[1:])
		}
	}
}

func (s *solver) addJob(i int, p id, rest []id) {
	s.add(p, rest)
	s.jobOf = append(s.jobOf, i)
}

package solve

import "slices"

// newSolver prepares a request: what is excluded and preferred, the jobs of
// its specs, the packages that may come in, and the rules.
func (p *Pool) newSolver(req *Request) (*solver, error) {
	s, err := p.collect(req)
	if err != nil {
		return nil, err
	}
	n := len(p.pkgs)
	s.rules = append(s.rules, rule{}) // they count from 1
	s.pkgRules()
	s.jobRules = int32(len(s.rules))
	s.addJobs()
	s.jobEnd = int32(len(s.rules))
	s.archRules()
	if req.Best {
		s.bestRules()
	}
	s.learnt = int32(len(s.rules))
	s.offset = int32(n)
	s.watches = zeroed(s.watches, 2*n+1)
	for i := len(s.rules) - 1; i > 0; i-- {
		s.watch(int32(i))
	}
	return s, nil
}

// collect finds the jobs and the packages that may come in. Where that needed
// the filelists for the first time, what was found without them may be
// incomplete, and is found again.
func (p *Pool) collect(req *Request) (*solver, error) {
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
		for _, spec := range req.Specs {
			jobs, err := s.jobsOf(spec)
			if err != nil {
				return nil, err
			}
			s.jobs = append(s.jobs, jobs...)
		}
		if err := s.findMembers(); err != nil {
			return nil, err
		}
		if p.paths.loaded == had {
			return s, nil
		}
	}
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
func (s *solver) findMembers() error {
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
	for _, j := range s.jobs {
		push(j.list)
	}
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
	for _, q := range s.members {
		r := s.p.pkgs[q].rules
		if r.broken || s.excluded[q] {
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

// rulesFrom adds the rules that begin with a package: conflicts with those
// before it, and its requirements, with which clauses are merged.
func (s *solver) rulesFrom(q id, others []id, clauses [][]id) {
	r := s.p.pkgs[q].rules
	if r.broken || s.excluded[q] {
		s.add(-q, nil)
		return
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

// archRules forbids packages of a worse architecture than the best that their
// name has, unless the better one of the same version comes with them. A spec
// that such a package is a candidate of lifts this for its name.
func (s *solver) archRules() {
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
}

func (s *solver) archRulesOf(list []id, asked map[id]bool) {
	best := uint8(0)
	for _, q := range list {
		if a := s.p.pkgs[q].arch; s.member[q] && a > noarchScore && (best == 0 || a < best) {
			best = a
		}
	}
	inferior := func(q id) bool {
		a := s.p.pkgs[q].arch
		return s.member[q] && a != noarchScore && a != best
	}
	if slices.ContainsFunc(list, func(q id) bool { return inferior(q) && asked[q] }) {
		return
	}
	for _, q := range list {
		if !inferior(q) {
			continue
		}
		k := &s.p.pkgs[q]
		var partners []id
		for _, o := range list {
			x := &s.p.pkgs[o]
			if x.evr == k.evr && x.Arch != k.Arch && (x.arch == noarchScore || x.arch == best) && (s.member[o] || !s.p.alternates(q, o)) {
				partners = append(partners, o)
			}
		}
		s.add(-q, partners)
	}
}

// bestRules forbids all but the best candidates of each job.
func (s *solver) bestRules() {
	for _, j := range s.jobs {
		if j.rich != 0 {
			continue
		}
		list := slices.Clone(j.list)
		list = slices.DeleteFunc(list, func(q id) bool { return s.excluded[q] })
		best := s.filter(slices.Clone(list), recommend)
		if s.prefer != nil {
			for _, q := range list {
				if s.prefer[q] && !slices.Contains(best, q) {
					best = append(best, q)
				}
			}
		}
		if len(best) > 0 && len(best) < len(j.list) {
			s.add(best[0], best[1:])
		}
	}
}

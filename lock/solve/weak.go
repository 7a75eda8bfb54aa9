package solve

import "slices"

// weakState is what the chosen packages recommend and suggest, kept up to
// date with the decisions.
type weakState struct {
	recommended []bool // by id
	suggested   []bool
	seen        int // how many decisions are accounted for
	stale       bool
	rich        []richWish
}

// richWish is a rich dependency that a chosen package recommends or suggests.
type richWish struct {
	dep       depID
	suggested bool
}

// reverted notes that only n decisions are left.
func (w *weakState) reverted(n int) {
	if w.seen > n {
		w.stale = true
	}
}

// updateWeak accounts for the decisions since the last call.
func (s *solver) updateWeak() {
	w := &s.weak
	if w.stale {
		clear(w.recommended)
		clear(w.suggested)
		w.rich, w.seen, w.stale = nil, 0, false
	}
	if w.seen == len(s.decided) {
		return
	}
	for ; w.seen < len(s.decided); w.seen++ {
		q := s.decided[w.seen]
		if q < firstID {
			continue
		}
		k := &s.p.pkgs[q]
		s.wish(k.recommends, w.recommended, false)
		s.wish(k.suggests, w.suggested, true)
	}
	for _, r := range w.rich {
		set := w.recommended
		if r.suggested {
			set = w.suggested
		}
		s.richWanted(r.dep, func(q id) { set[q] = true })
	}
}

func (s *solver) wish(deps []depID, set []bool, suggested bool) {
	for _, d := range deps {
		if s.p.isRich(d) {
			s.weak.rich = append(s.weak.rich, richWish{d, suggested})
			continue
		}
		for _, q := range s.p.providers(d) {
			set[q] = true
		}
	}
}

// richWanted calls visit with the packages that a rich dependency asks for,
// given what is chosen: those of the blocks of which all negated packages are
// chosen.
func (s *solver) richWanted(d depID, visit func(id)) {
	blocks, v := s.p.normalize(d, false)
	if v != depends {
		return
	}
	for _, b := range blocks {
		open := slices.ContainsFunc(b, func(l id) bool { return l < 0 && s.level[-l] <= 0 })
		if open {
			continue
		}
		for _, l := range b {
			if l > 0 {
				visit(l)
			}
		}
	}
}

// fulfilled reports whether a dependency holds for what is chosen.
func (s *solver) fulfilled(n depID) bool {
	d := s.p.deps[n]
	switch d.op {
	case opAnd:
		return s.fulfilled(d.left) && s.fulfilled(d.right)
	case opOr:
		return s.fulfilled(d.left) || s.fulfilled(d.right)
	case opIf:
		if e := s.p.deps[d.right]; e.op == opElse {
			if s.fulfilled(e.left) {
				return s.fulfilled(d.left)
			}
			return s.fulfilled(e.right)
		}
		return s.fulfilled(d.left) || !s.fulfilled(d.right)
	case opUnless:
		if e := s.p.deps[d.right]; e.op == opElse {
			if !s.fulfilled(e.left) {
				return s.fulfilled(d.left)
			}
			return s.fulfilled(e.right)
		}
		return s.fulfilled(d.left) && !s.fulfilled(d.right)
	}
	return slices.ContainsFunc(s.p.providers(n), func(q id) bool { return s.level[q] > 0 })
}

func (s *solver) supplementing(q id) bool {
	return slices.ContainsFunc(s.p.pkgs[q].supplements, s.fulfilled)
}

// how says whether a dependency holds, and why.
type how uint8

const (
	unmet   how = iota
	met         // it holds, but no chosen package is the cause, as "(a if b)" holds without b
	brought     // it holds because of a package that is chosen and was not installed before
)

// holding is fulfilled with the cause, as libsolv tells it.
func (s *solver) holding(n depID) how {
	d := s.p.deps[n]
	switch d.op {
	case opAnd:
		l, r := s.holding(d.left), s.holding(d.right)
		if l == unmet || r == unmet {
			return unmet
		}
		return max(l, r)
	case opOr:
		return max(s.holding(d.left), s.holding(d.right))
	case opIf, opUnless:
		return s.holdingIf(d)
	}
	best := unmet
	for _, q := range s.p.providers(n) {
		switch {
		case s.level[q] <= 0:
		case q >= s.p.available:
			return brought
		default:
			best = met
		}
	}
	return best
}

func (s *solver) holdingIf(d dep) how {
	e := s.p.deps[d.right]
	if e.op != opElse {
		l, absent := s.holding(d.left), s.holding(d.right) == unmet
		switch {
		case d.op == opUnless && !absent:
			return unmet
		case d.op == opIf && absent:
			return max(l, met)
		}
		return l
	}
	then, other := d.left, e.right
	if d.op == opUnless {
		then, other = e.right, d.left
	}
	c := s.holding(e.left)
	if c == unmet {
		return s.holding(other)
	}
	if r := s.holding(then); r == unmet || c != brought {
		return r
	}
	return brought
}

func (s *solver) enhancing(q id) bool {
	return slices.ContainsFunc(s.p.pkgs[q].enhances, s.fulfilled)
}

// possible reports whether a dependency might hold with the members.
func (s *solver) possible(n depID) bool {
	d := s.p.deps[n]
	switch d.op {
	case opIf, opUnless:
		return true
	case opAnd:
		return s.possible(d.left) && s.possible(d.right)
	case opOr:
		return s.possible(d.left) || s.possible(d.right)
	}
	return slices.ContainsFunc(s.p.providers(n), func(q id) bool { return s.member[q] })
}

// open returns the packages that would meet a recommendation of a chosen
// package, undecided so far; none where it is met already.
func (s *solver) open(d depID) []id {
	var list []id
	if s.p.isRich(d) {
		blocks, v := s.p.normalize(d, false)
		if v != depends {
			return nil
		}
		for _, b := range blocks {
			list = append(list, s.openBlock(b)...)
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	for _, q := range s.p.providers(d) {
		switch {
		case s.level[q] > 0:
			return nil
		case s.level[q] == 0:
			list = append(list, q)
		}
	}
	return list
}

func (s *solver) openBlock(b []id) []id {
	var list []id
	for _, l := range b {
		switch {
		case l < 0 && s.level[-l] <= 0, l > 0 && s.level[l] > 0:
			return nil
		case l > 0 && s.level[l] == 0:
			list = append(list, l)
		}
	}
	return list
}

// resolveWeak installs what is recommended or supplements. It returns the
// level reached, and whether it decided anything.
func (s *solver) resolveWeak(level int32) (int32, bool) {
	all, supplements := s.weakCandidates()
	if len(all) == 0 {
		return level, false
	}
	if len(all) == 1 {
		return s.try(level, all[0], 0), true
	}
	best := make(map[id]bool, len(all))
	for _, q := range s.filter(all, recommend) {
		best[q] = true
	}
	supplements = slices.DeleteFunc(supplements, func(q id) bool { return !best[q] })
	if len(supplements) > 1 {
		s.order(supplements, recommend)
	}
	before := len(s.decided)
	for _, q := range supplements {
		if s.level[q] != 0 {
			continue
		}
		was := level
		if level = s.try(level, q, 0); level <= was {
			return level, true
		}
	}
	if len(s.decided) < before {
		return level, true
	}
	for i := 0; i < before; i++ {
		q := s.decided[i]
		if q < s.p.available {
			continue
		}
		for _, d := range s.p.pkgs[q].recommends {
			list := slices.DeleteFunc(s.open(d), func(q id) bool { return !best[q] })
			if len(list) == 0 {
				continue
			}
			list = s.filter(list, choose)
			s.addBranch(level, list)
			was := level
			if level = s.try(level, list[0], 0); level <= was || len(s.decided) < before {
				return level, true
			}
		}
	}
	return level, true
}

// weakCandidates returns all packages that the chosen ones recommend or that
// supplement them, and the latter on their own. What installed packages
// recommend does not count.
func (s *solver) weakCandidates() (all, supplements []id) {
	seen := map[id]bool{}
	unwanted := func(q id) bool { return s.notWeak != nil && s.notWeak[q] }
	chosen := slices.DeleteFunc(slices.Clone(s.decided), func(q id) bool { return q < s.p.available })
	slices.Sort(chosen)
	for _, n := range chosen {
		for _, d := range s.p.pkgs[n].recommends {
			for _, q := range s.open(d) {
				if !seen[q] && !unwanted(q) {
					seen[q] = true
					all = append(all, q)
				}
			}
		}
	}
	for _, q := range s.p.weak {
		k := &s.p.pkgs[q]
		if s.level[q] == 0 && !s.excluded[q] && !unwanted(q) && s.supplementing(q) &&
			slices.ContainsFunc(k.supplements, func(d depID) bool { return s.holding(d) == brought }) && !s.otherVersionChosen(q) {
			supplements = append(supplements, q)
		}
	}
	if s.p.available > firstID && len(all)+len(supplements) > 0 {
		gone := s.obsoletedByKept()
		all = slices.DeleteFunc(all, func(q id) bool { return gone[q] })
		supplements = slices.DeleteFunc(supplements, func(q id) bool { return gone[q] })
	}
	for _, q := range supplements {
		if !seen[q] {
			all = append(all, q)
		}
	}
	return all, supplements
}

// obsoletedByKept returns what the installed packages that stay obsolete.
func (s *solver) obsoletedByKept() map[id]bool {
	gone := map[id]bool{}
	for n := firstID; n < s.p.available; n++ {
		if s.level[n] <= 0 {
			continue
		}
		for _, d := range s.p.pkgs[n].obsoletes {
			for _, q := range s.p.obsoleted(d) {
				gone[q] = true
			}
		}
	}
	return gone
}

// otherVersionChosen reports whether a package of the same name is chosen, in
// another architecture or, for install-only ones, in any.
func (s *solver) otherVersionChosen(q id) bool {
	k := &s.p.pkgs[q]
	return slices.ContainsFunc(s.p.byName[k.name], func(o id) bool {
		return s.level[o] > 0 && (k.installOnly || s.p.pkgs[o].Arch != k.Arch)
	})
}

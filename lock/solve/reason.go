package solve

import (
	"cmp"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// solution returns the chosen packages with their reasons.
func (s *solver) solution() *Solution {
	var chosen []id
	for _, q := range s.decided {
		if q >= s.p.available {
			chosen = append(chosen, q)
		}
	}
	slices.SortFunc(chosen, func(a, b id) int {
		x, y := &s.p.pkgs[a], &s.p.pkgs[b]
		return cmp.Or(strings.Compare(x.Name, y.Name), x.EVR.Compare(y.EVR), strings.Compare(x.Arch, y.Arch),
			strings.Compare(s.p.repos[x.repo].ID, s.p.repos[y.repo].ID), cmp.Compare(a, b))
	})
	reasons := s.reasons(chosen)
	out := &Solution{Packages: make([]Choice, len(chosen))}
	for i, q := range chosen {
		k := &s.p.pkgs[q]
		out.Packages[i] = Choice{Repo: s.p.repos[k.repo].ID, Package: k.Package, Reason: reasons[q]}
		if b, ok := s.modules.of[q]; ok {
			out.Packages[i].Module = s.p.modules.builds[b].ID()
		}
	}
	out.Erased = s.erased()
	return out
}

// erased returns the installed packages that are gone for good.
func (s *solver) erased() []*rpmmd.Package {
	var list []*rpmmd.Package
	for n := firstID; n < s.p.available; n++ {
		k := &s.p.pkgs[n]
		stays := func(q id) bool { return s.level[q] > 0 && s.p.sameColor(n, q) && !s.p.isInstalled(q) && !k.installOnly }
		if s.level[n] < 0 && !slices.ContainsFunc(s.p.byName[k.name], stays) {
			list = append(list, k.Package)
		}
	}
	return list
}

// reasons finds for each chosen package the shortest way from a spec: first
// over requirements alone, then over recommendations, then over supplements,
// then from installed packages that are replaced, and from what these bring
// over requirements again.
func (s *solver) reasons(chosen []id) map[id]Reason {
	reasons := make(map[id]Reason, len(chosen))
	var todo []id
	explain := func(q id, r Reason) {
		if _, known := reasons[q]; !known && s.level[q] > 0 && !s.p.isInstalled(q) {
			reasons[q] = r
			todo = append(todo, q)
		}
	}
	s.explainRequest(chosen, explain)
	known := func(o id) bool { _, known := reasons[o]; return known || s.p.isInstalled(o) && s.level[o] > 0 }
	for len(reasons) < len(chosen) {
		for len(todo) > 0 {
			q := todo[0]
			todo = todo[1:]
			s.explainBy(q, Requires, s.p.pkgs[q].requires, known, explain)
			s.explainConflicts(q, known, explain)
		}
		before := len(reasons)
		for _, next := range []func(id){
			func(q id) {
				if known(q) {
					s.explainBy(q, Recommends, s.p.pkgs[q].recommends, known, explain)
				}
			},
			func(q id) { s.explainSupplement(q, reasons, explain) },
			func(q id) { s.explainUpdate(q, explain) },
			func(q id) { s.explainKept(q, known, explain) },
			func(q id) { s.explainPartner(q, known, explain) },
			func(q id) { s.explainAny(q, reasons, explain) },
			func(q id) { s.explainDecision(q, known, explain) },
		} {
			for _, q := range chosen {
				next(q)
			}
			if len(reasons) > before {
				break
			}
		}
		if len(reasons) == before {
			break
		}
	}
	return reasons
}

// explainRequest explains what specs asked for.
func (s *solver) explainRequest(chosen []id, explain func(id, Reason)) {
	for _, j := range s.jobs {
		for _, q := range j.list {
			explain(q, Reason{Kind: Requested, Spec: j.spec})
		}
	}
	for _, q := range chosen {
		if spec, ok := s.upgradeSpec[q]; ok {
			explain(q, Reason{Kind: Requested, Spec: spec})
		}
	}
}

// explainBy explains what dependencies of a package brought: those that nothing
// known meets.
func (s *solver) explainBy(q id, kind Kind, deps []depID, known func(id) bool, explain func(id, Reason)) {
	for _, d := range deps {
		if !s.p.isRich(d) && slices.ContainsFunc(s.p.providers(d), known) {
			continue // there already
		}
		for _, list := range s.wantedBy(q, d) {
			if slices.ContainsFunc(list, known) {
				continue
			}
			for _, o := range list {
				explain(o, Reason{Kind: kind, By: s.p.pkgs[q].Package, Dep: s.p.text(d)})
			}
		}
	}
}

// explainConflicts explains what holds off a conflict such as "(a if b)",
// which is there without b.
func (s *solver) explainConflicts(q id, known func(id) bool, explain func(id, Reason)) {
	for _, d := range s.p.pkgs[q].conflicts {
		if !s.p.isRich(d) {
			continue
		}
		blocks, _ := invert(s.p.normalize(d, true))
		for _, list := range s.wantedOf(q, blocks) {
			if slices.ContainsFunc(list, known) {
				continue
			}
			for _, o := range list {
				explain(o, Reason{Kind: Conflicts, By: s.p.pkgs[q].Package, Dep: s.p.text(d)})
			}
		}
	}
}

// wantedBy returns the chosen packages that meet a dependency of a chosen
// package q, for each part of a rich one; none where q meets it itself.
func (s *solver) wantedBy(q id, d depID) [][]id {
	if !s.p.isRich(d) {
		return s.wantedOf(q, [][]id{s.p.providers(d)})
	}
	blocks, _ := s.p.normalize(d, false)
	return s.wantedOf(q, blocks)
}

func (s *solver) wantedOf(q id, blocks [][]id) [][]id {
	var lists [][]id
	for _, b := range blocks {
		if slices.Contains(b, q) || slices.ContainsFunc(b, func(l id) bool { return l < 0 && s.level[-l] <= 0 }) {
			continue
		}
		lists = append(lists, slices.DeleteFunc(slices.Clone(b), func(o id) bool { return o < firstID || s.level[o] <= 0 }))
	}
	return lists
}

// explainSupplement explains a package by its Supplements, if they hold.
func (s *solver) explainSupplement(q id, reasons map[id]Reason, explain func(id, Reason)) {
	if _, known := reasons[q]; known {
		return
	}
	for _, d := range s.p.pkgs[q].supplements {
		if !s.fulfilled(d) {
			continue
		}
		if by := s.p.mentioned(d, func(o id) bool { _, known := reasons[o]; return known }); by != 0 {
			explain(q, Reason{Kind: Supplements, By: s.p.pkgs[by].Package, Dep: s.p.text(d)})
			return
		}
	}
}

// mentioned returns the first package that is one of some and meets a part of
// a dependency, or 0.
func (p *Pool) mentioned(d depID, is func(id) bool) id {
	found := id(0)
	p.mentions(d, func(part depID) {
		for _, o := range p.providers(part) {
			if found == 0 && o >= firstID && is(o) {
				found = o
			}
		}
	})
	return found
}

// mentions calls visit with each simple dependency inside of a rich one.
func (p *Pool) mentions(n depID, visit func(depID)) {
	switch d := p.deps[n]; d.op {
	case opAnd, opOr, opIf, opUnless, opElse:
		p.mentions(d.left, visit)
		p.mentions(d.right, visit)
	default:
		visit(n)
	}
}

// explainUpdate explains a package by an installed one in whose place it is.
func (s *solver) explainUpdate(q id, explain func(id, Reason)) {
	same := slices.DeleteFunc(slices.Clone(s.p.byName[s.p.pkgs[q].name]), func(n id) bool { return !s.p.isInstalled(n) })
	for _, n := range append(s.p.replaced(q), same...) {
		if s.level[n] < 0 {
			explain(q, Reason{Kind: Updates, By: s.p.pkgs[n].Package})
			return
		}
	}
}

// explainPartner explains a package by one of another architecture, which may
// only come together with it.
func (s *solver) explainPartner(q id, known func(id) bool, explain func(id, Reason)) {
	k := &s.p.pkgs[q]
	for _, o := range s.p.byName[k.name] {
		if x := &s.p.pkgs[o]; o != q && x.evr == k.evr && known(o) {
			explain(q, Reason{Kind: Requires, By: x.Package, Dep: k.Name + "." + k.Arch + " = " + k.EVR.String()})
		}
	}
}

// explainKept explains a package by an installed one that needs it in the place
// of another that went.
func (s *solver) explainKept(q id, known func(id) bool, explain func(id, Reason)) {
	if known(q) {
		return
	}
	for n := firstID; n < s.p.available; n++ {
		if s.level[n] <= 0 {
			continue
		}
		for _, d := range s.p.pkgs[n].requires {
			if slices.Contains(slices.Concat(s.wantedBy(n, d)...), q) {
				explain(q, Reason{Kind: Requires, By: s.p.pkgs[n].Package, Dep: s.p.text(d)})
				return
			}
		}
	}
}

// explainDecision explains a package by the rule that decided it: one that
// forbids all other ways.
func (s *solver) explainDecision(q id, known func(id) bool, explain func(id, Reason)) {
	at := slices.Index(s.decided, q)
	if known(q) || at < 0 {
		return
	}
	if s.why[at] == 0 {
		s.explainWish(q, known, explain)
	}
	todo := []int32{max(s.why[at], -s.why[at])}
	seen := map[int32]bool{0: true}
	for len(todo) > 0 {
		n := todo[0]
		todo = todo[1:]
		switch {
		case seen[n]:
		case n >= s.learnt:
			todo = append(todo, s.learntWhy[n-s.learnt]...)
		case n < s.keeps:
			s.explainRule(q, &s.rules[n], known, explain)
		}
		seen[n] = true
	}
}

// explainWish explains a package that was recommended, or supplemented others,
// when it was chosen, but does not any more.
func (s *solver) explainWish(q id, known func(id) bool, explain func(id, Reason)) {
	for _, d := range s.p.pkgs[q].supplements {
		if by := s.p.mentioned(d, known); by != 0 {
			explain(q, Reason{Kind: Supplements, By: s.p.pkgs[by].Package, Dep: s.p.text(d)})
		}
	}
	for _, o := range s.decided {
		if o < s.p.available || !known(o) {
			continue
		}
		for _, d := range s.p.pkgs[o].recommends {
			if s.p.mentioned(d, func(m id) bool { return m == q }) != 0 {
				explain(q, Reason{Kind: Recommends, By: s.p.pkgs[o].Package, Dep: s.p.text(d)})
			}
		}
	}
}

// explainRule explains a package by a rule of a known one.
func (s *solver) explainRule(q id, r *rule, known func(id) bool, explain func(id, Reason)) {
	all := append([]id{r.p}, r.rest...)
	slices.Sort(all)
	x := &explainer{solver: s}
	for _, l := range all {
		if l >= 0 || !known(-l) || !slices.Contains(all, q) {
			continue
		}
		k := &s.p.pkgs[-l]
		for _, d := range x.madeBy(-l, all, k.requires, s.p.addRequire) {
			explain(q, Reason{Kind: Requires, By: k.Package, Dep: s.p.text(d)})
		}
		for _, d := range x.madeBy(-l, all, k.conflicts, s.p.addConflict) {
			explain(q, Reason{Kind: Conflicts, By: k.Package, Dep: s.p.text(d)})
		}
	}
}

// explainAny explains a package by a dependency that others meet too.
func (s *solver) explainAny(q id, reasons map[id]Reason, explain func(id, Reason)) {
	if _, known := reasons[q]; !known {
		return
	}
	k := &s.p.pkgs[q]
	for _, w := range []struct {
		kind Kind
		deps []depID
	}{{Requires, k.requires}, {Recommends, k.recommends}} {
		for _, d := range w.deps {
			for _, o := range slices.Concat(s.wantedBy(q, d)...) {
				explain(o, Reason{Kind: w.kind, By: k.Package, Dep: s.p.text(d)})
			}
		}
	}
}

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
	known := func(o id) bool { _, known := reasons[o]; return known || s.p.isInstalled(o) && s.level[o] > 0 }
	brings := func(q id, kind Kind, deps []depID) {
		for _, d := range deps {
			if !s.p.isRich(d) && slices.ContainsFunc(s.p.providers(d), known) {
				continue // there already
			}
			list := s.wantedBy(q, d)
			if slices.ContainsFunc(list, known) {
				continue
			}
			for _, o := range list {
				explain(o, Reason{Kind: kind, By: s.p.pkgs[q].Package, Dep: s.p.text(d)})
			}
		}
	}
	for len(reasons) < len(chosen) {
		for len(todo) > 0 {
			q := todo[0]
			todo = todo[1:]
			brings(q, Requires, s.p.pkgs[q].requires)
		}
		before := len(reasons)
		for _, next := range []func(id){
			func(q id) {
				if _, known := reasons[q]; known {
					brings(q, Recommends, s.p.pkgs[q].recommends)
				}
			},
			func(q id) { s.explainSupplement(q, reasons, explain) },
			func(q id) { s.explainUpdate(q, explain) },
			func(q id) { s.explainAny(q, reasons, explain) },
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

// wantedBy returns the chosen packages that meet a dependency of a chosen
// package q; none where q meets it itself.
func (s *solver) wantedBy(q id, d depID) []id {
	var list []id
	if s.p.isRich(d) {
		s.richWanted(d, func(o id) { list = append(list, o) })
	} else {
		list = s.p.providers(d)
	}
	if slices.Contains(list, q) {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(list), func(o id) bool { return o < firstID || s.level[o] <= 0 })
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
		var by *pkg
		s.p.positive(d, false, func(d depID) {
			for _, o := range s.p.providers(d) {
				if _, known := reasons[o]; known && by == nil {
					by = &s.p.pkgs[o]
				}
			}
		})
		if by != nil {
			explain(q, Reason{Kind: Supplements, By: by.Package, Dep: s.p.text(d)})
			return
		}
	}
}

// explainUpdate explains a package by an installed one in whose place it is.
func (s *solver) explainUpdate(q id, explain func(id, Reason)) {
	for _, n := range s.p.replaced(q) {
		if s.level[n] < 0 {
			explain(q, Reason{Kind: Updates, By: s.p.pkgs[n].Package})
			return
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
			for _, o := range s.wantedBy(q, d) {
				explain(o, Reason{Kind: w.kind, By: k.Package, Dep: s.p.text(d)})
			}
		}
	}
}

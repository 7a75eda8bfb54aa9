package solve

import (
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// providers is what was worked out for a dependency.
type providers struct {
	known bool
	list  []id // ascending
}

// providers returns the packages that meet a dependency, ascending. For rich
// dependencies it is those that may, which is what libsolv uses inside of
// "with". The result must not be changed.
func (p *Pool) providers(n depID) []id {
	if p.found[n].known {
		return p.found[n].list
	}
	list := p.findProviders(p.deps[n])
	p.found[n] = providers{true, list}
	return list
}

func (p *Pool) findProviders(d dep) []id {
	switch d.op {
	case opName:
		return p.nameProviders(d)
	case opWith, opWithout:
		right := p.providers(d.right)
		var list []id
		for _, q := range p.providers(d.left) {
			if _, in := slices.BinarySearch(right, q); in == (d.op == opWith) {
				list = append(list, q)
			}
		}
		return list
	case opAnd, opOr:
		return union(p.providers(d.left), p.providers(d.right))
	case opIf, opUnless:
		if right := p.deps[d.right]; right.op == opElse {
			return union(p.providers(d.left), p.providers(right.right))
		}
		return p.providers(d.left)
	}
	return nil
}

// union merges two ascending lists.
func union(a, b []id) []id {
	switch {
	case len(a) == 0:
		return b
	case len(b) == 0:
		return a
	}
	list := slices.Concat(a, b)
	slices.Sort(list)
	return slices.Compact(list)
}

// nameProviders finds the packages that provide a name in a matching version.
func (p *Pool) nameProviders(d dep) []id {
	var list []id
	for _, v := range p.provides(d.name) {
		if n := len(list); n > 0 && list[n-1] == v.by {
			continue
		}
		if v.flags == 0 || d.flags == 0 || p.overlaps(v.flags, v.evr, d.flags, d.evr) {
			list = append(list, v.by)
		}
	}
	if files := p.byPath[d.name]; len(files) > 0 {
		list = union(list, files)
	}
	if len(list) == 0 && d.flags != 0 && strings.HasPrefix(p.nameText[d.name], "rpmlib(") {
		return []id{system}
	}
	return list
}

// overlaps reports whether a version can satisfy both ranges: what is
// provided, and what is asked for. Where one side has no release, it stands
// for any release.
func (p *Pool) overlaps(pf rpmmd.Flags, pe int32, rf rpmmd.Flags, re int32) bool {
	if pf&rf&(rpmmd.Less|rpmmd.Greater) != 0 {
		return true
	}
	if pe == re {
		return pf&rf&rpmmd.Equal != 0
	}
	have, want := p.evrText[pe], p.evrText[re]
	if have.Epoch == want.Epoch && (have.Release == "") != (want.Release == "") && rpmmd.CompareVersions(have.Version, want.Version) == 0 {
		if have.Release == "" {
			return pf&rpmmd.Equal != 0
		}
		return rf&rpmmd.Equal != 0
	}
	switch c := have.Compare(want); {
	case c < 0:
		return rf&rpmmd.Less != 0 || pf&rpmmd.Greater != 0
	case c > 0:
		return rf&rpmmd.Greater != 0 || pf&rpmmd.Less != 0
	}
	return pf&rf&rpmmd.Equal != 0
}

// matchesName reports whether package q itself, not a provide of it, has the
// name and version of a dependency: what obsoletes ask for.
func (p *Pool) matchesName(q id, n depID) bool {
	d, k := p.deps[n], &p.pkgs[q]
	switch d.op {
	case opName:
		return d.name == k.name && (d.flags == 0 || p.overlaps(rpmmd.Equal, k.evr, d.flags, d.evr))
	case opOr:
		return p.matchesName(q, d.left) || p.matchesName(q, d.right)
	case opAnd, opWith:
		return p.matchesName(q, d.left) && p.matchesName(q, d.right)
	case opWithout:
		return p.matchesName(q, d.left) && !p.matchesName(q, d.right)
	}
	return false
}

// obsoleted returns the packages that an Obsoletes matches.
func (p *Pool) obsoleted(n depID) []id {
	list := p.providers(n)
	return slices.DeleteFunc(slices.Clone(list), func(q id) bool { return q == system || !p.matchesName(q, n) })
}

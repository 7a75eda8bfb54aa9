package solve

import (
	"cmp"
	"math"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// mode says how far filter goes.
type mode uint8

const (
	choose      mode = iota // all steps, and the order of what is left
	chooseRough             // all steps that leave packages out
	recommend               // not those that look at recommendations
)

// filter leaves out the packages of list that are worse than others in it, by
// dnf's policy, and puts the best of the rest first. list is changed.
func (s *solver) filter(list []id, m mode) []id {
	if len(list) < 2 {
		return list
	}
	list = s.onlyPreferred(list, m)
	if len(list) > 1 {
		list = s.bestPriority(list)
	}
	if len(list) > 1 {
		list = s.bestArch(list)
	}
	if len(list) > 1 {
		list = s.bestVersion(list)
	}
	if len(list) > 1 && m != recommend {
		list = s.onlyRecommended(list)
		if len(list) > 1 && m == choose {
			s.order(list, m)
		}
	}
	return list
}

// keep filters list in place; where nothing would be left, it stays whole.
func keep(list []id, ok func(id) bool) []id {
	n := 0
	for i, q := range list {
		if ok(q) {
			list[i] = list[n]
			list[n] = q
			n++
		}
	}
	if n == 0 {
		return list
	}
	return list[:n]
}

// onlyPreferred leaves out what is not preferred where something is: in a
// choice, among all; otherwise among the packages of the same name.
func (s *solver) onlyPreferred(list []id, m mode) []id {
	if s.prefer == nil {
		return list
	}
	if m != recommend {
		return keep(list, func(q id) bool { return s.prefer[q] })
	}
	have := map[int32]bool{}
	for _, q := range list {
		if s.prefer[q] {
			have[s.p.pkgs[q].name] = true
		}
	}
	return keep(list, func(q id) bool { return s.prefer[q] || !have[s.p.pkgs[q].name] })
}

func (s *solver) bestPriority(list []id) []id {
	best := math.MaxInt
	for _, q := range list {
		if !s.p.isInstalled(q) {
			best = min(best, s.p.priority(q))
		}
	}
	return keep(list, func(q id) bool { return s.p.isInstalled(q) || s.p.priority(q) == best })
}

func (p *Pool) priority(q id) int { return p.repos[p.pkgs[q].repo].Priority }

func (s *solver) bestArch(list []id) []id {
	best := uint8(0)
	for _, q := range list {
		if a := s.p.pkgs[q].arch; a > noarchScore && (best == 0 || a < best) {
			best = a
		}
	}
	if best == 0 {
		return list
	}
	return keep(list, func(q id) bool { a := s.p.pkgs[q].arch; return a == best || a == noarchScore })
}

// bestVersion leaves the newest of each name, ordered by name, and then no
// package that another one obsoletes.
func (s *solver) bestVersion(list []id) []id {
	slices.SortFunc(list, s.p.byNameArchRepo)
	n := 0
	for _, q := range list[1:] {
		switch last, k := &s.p.pkgs[list[n]], &s.p.pkgs[q]; {
		case last.name != k.name:
			n++
			list[n] = q
		case last.evr != k.evr && last.EVR.Compare(k.EVR) < 0:
			list[n] = q
		}
	}
	return s.p.pruneObsoleted(list[:n+1])
}

// byNameArchRepo orders packages by name, better architecture, installed ones
// first, cheaper repository and id.
func (p *Pool) byNameArchRepo(a, b id) int {
	x, y := &p.pkgs[a], &p.pkgs[b]
	if x.name != y.name {
		return strings.Compare(x.Name, y.Name)
	}
	if x.arch != y.arch && x.arch > noarchScore && y.arch > noarchScore {
		return cmp.Compare(x.arch, y.arch)
	}
	if i := p.isInstalled(a); i != p.isInstalled(b) {
		if i {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(p.repos[x.repo].Cost, p.repos[y.repo].Cost), cmp.Compare(a, b))
}

// pruneObsoleted leaves out packages that another one in the list obsoletes,
// directly or not, unless they obsolete that one too.
func (p *Pool) pruneObsoleted(list []id) []id {
	if len(list) < 2 {
		return list
	}
	at := map[id]int{}
	for i, q := range list {
		at[q] = i
	}
	edges := map[int][]int{}
	for i, q := range list {
		for _, d := range p.pkgs[q].obsoletes {
			for _, o := range p.obsoleted(d) {
				if j, in := at[o]; in && p.pkgs[o].name != p.pkgs[q].name {
					edges[i] = append(edges[i], j)
				}
			}
		}
	}
	if len(edges) == 0 {
		return list
	}
	reach := map[int]map[int]bool{}
	for i := range edges {
		reach[i] = reachable(edges, i)
	}
	return slices.DeleteFunc(list, func(q id) bool {
		j := at[q]
		for i := range reach {
			if i != j && reach[i][j] && !reach[j][i] {
				return true
			}
		}
		return false
	})
}

// reachable returns the nodes that edges lead to from a node.
func reachable(edges map[int][]int, from int) map[int]bool {
	seen := map[int]bool{}
	for todo := []int{from}; len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, j := range edges[n] {
			if !seen[j] {
				seen[j] = true
				todo = append(todo, j)
			}
		}
	}
	return seen
}

// onlyRecommended leaves only what the chosen packages recommend, or what
// supplements them, where there is any; and what is installed.
func (s *solver) onlyRecommended(list []id) []id {
	fresh := 0
	for _, q := range list {
		if !s.p.isInstalled(q) {
			fresh++
		}
	}
	if fresh < 2 {
		return list
	}
	s.updateWeak()
	wanted := func(q id) bool { return !s.p.isInstalled(q) && (s.weak.recommended[q] || s.supplementing(q)) }
	if fresh < len(list) && !slices.ContainsFunc(list, wanted) {
		return list
	}
	return keep(list, func(q id) bool { return s.p.isInstalled(q) || wanted(q) })
}

// order puts the best first: up-to-date packages, then those with the newest
// of a common provide, then those that take the place of an installed one,
// then the suggested and enhancing ones, the later criterion being the
// stronger.
func (s *solver) order(list []id, m mode) {
	toBack(list, s.p.outdated)
	s.p.newestProvideFirst(list)
	if m == choose {
		toBack(list, func(q id) bool { return !s.p.hasInstalledName(q) })
	}
	s.updateWeak()
	toBack(list, func(q id) bool { return !s.p.isInstalled(q) && !s.weak.suggested[q] && !s.enhancing(q) })
	if s.prefer != nil {
		toBack(list, func(q id) bool { return !s.prefer[q] })
	}
}

// hasInstalledName reports whether a package of that name is installed.
func (p *Pool) hasInstalledName(q id) bool {
	list := p.byName[p.pkgs[q].name]
	return len(list) > 0 && p.isInstalled(list[0])
}

// toBack moves what is bad to the back, otherwise keeping the order.
func toBack(list []id, bad func(id) bool) {
	var back []id
	n := 0
	for _, q := range list {
		if bad(q) {
			back = append(back, q)
		} else {
			list[n] = q
			n++
		}
	}
	copy(list[n:], back)
}

// outdated reports whether a package of the same name and architecture is in
// a repository of higher priority, or newer in one of the same priority.
func (p *Pool) outdated(q id) bool {
	k := &p.pkgs[q]
	if p.isInstalled(q) {
		return false
	}
	for _, o := range p.byName[k.name] {
		if x := &p.pkgs[o]; o != q && x.Arch == k.Arch {
			switch a, b := p.priority(o), p.priority(q); {
			case a < b, a == b && x.EVR.Compare(k.EVR) > 0:
				return true
			}
		}
	}
	return false
}

// provided is a versioned provide of one entry of a list.
type provided struct {
	entry int
	name  int32
	evr   rpmmd.EVR
	below bool // provides what is less than evr
}

// versioned returns those provides of a package of which versions compare, its
// own name and version the last.
func (p *Pool) versioned(q id) []provided {
	if p.versions == nil {
		p.versions = make([][]provided, len(p.pkgs))
	}
	if p.versions[q] != nil {
		return p.versions[q]
	}
	k := &p.pkgs[q]
	var list []provided
	for _, d := range append(k.Package.Provides[:len(k.Package.Provides):len(k.Package.Provides)],
		rpmmd.Dep{Name: k.Name, Flags: rpmmd.Equal, EVR: k.EVR}) {
		switch {
		case d.Flags == rpmmd.Equal && !isHash(d.EVR), d.Flags == rpmmd.Less, d.Flags == rpmmd.Less|rpmmd.Equal:
			list = append(list, provided{0, p.names[d.Name], d.EVR, d.Flags == rpmmd.Less})
		}
	}
	p.versions[q] = list
	return list
}

// commonProvides returns the versioned provides of a list's entries of which
// more than one entry has the name.
func (p *Pool) commonProvides(list []id) []provided {
	first := map[int32]int{} // the first entry that has a name, or -1 where there are more
	for i, q := range list {
		for _, v := range p.versioned(q) {
			if at, ok := first[v.name]; !ok {
				first[v.name] = i
			} else if at != i {
				first[v.name] = -1
			}
		}
	}
	var all []provided
	for i, q := range list {
		for _, v := range p.versioned(q) {
			if first[v.name] == -1 {
				v.entry = i
				all = append(all, v)
			}
		}
	}
	return all
}

// newestProvideFirst puts those packages behind that provide a lower version
// of something that another one provides too.
func (p *Pool) newestProvideFirst(list []id) {
	all := p.commonProvides(list)
	if len(all) == 0 {
		return
	}
	slices.SortStableFunc(all, func(a, b provided) int {
		return cmp.Or(cmp.Compare(a.name, b.name), newerFirst(a, b))
	})
	all = slices.Compact(all)
	badness := make([]int, len(list))
	bad := 0
	for i, v := range all {
		switch {
		case i == 0 || all[i-1].name != v.name:
			bad = 0
		case all[i-1].entry != v.entry && newerFirst(all[i-1], v) == -1:
			bad++
		}
		badness[v.entry] += bad
	}
	for i, q := range list {
		if p.isInstalled(q) {
			badness[i] = 0
		}
	}
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(badness[a], badness[b]) })
	was := slices.Clone(list)
	for i, o := range order {
		list[i] = was[o]
	}
}

// newerFirst orders two provides of one name. Equal versions of which one has
// no release count as equal, but not as worse by one step.
func newerFirst(a, b provided) int {
	if a.evr.Epoch == b.evr.Epoch && (a.evr.Release == "") != (b.evr.Release == "") &&
		rpmmd.CompareVersions(a.evr.Version, b.evr.Version) == 0 {
		if b.evr.Release == "" {
			return -2
		}
		return 2
	}
	if c := b.evr.Compare(a.evr); c != 0 || a.below == b.below {
		return c
	}
	if a.below {
		return 1
	}
	return -1
}

// isHash reports whether a version is a hash instead of a number to compare.
func isHash(e rpmmd.EVR) bool {
	s := e.String()
	return len(s) >= 4 && strings.Trim(s, "0123456789abcdef") == ""
}

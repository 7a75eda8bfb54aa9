package solve

import (
	"cmp"
	"slices"
	"strings"
)

// orderLists puts the Recommends and Obsoletes of each package into the order
// in which dnf takes them. libsolv keeps a repository in a file of its own, in
// which dependencies are numbered: names before all others, each kind by how
// often the repository uses them, equal ones by name or by where they occur
// first. Lists are sorted by that number.
func (p *Pool) orderLists() {
	for r := range p.repos {
		var u *usage
		for i := int(firstID); i < len(p.pkgs); i++ {
			k := &p.pkgs[i]
			if int(k.repo) != r || p.isInstalled(id(i)) || len(k.recommends) < 2 && len(k.obsoletes) < 2 {
				continue
			}
			if u == nil {
				u = p.usageOf(int32(r))
			}
			slices.SortStableFunc(k.recommends, u.compare)
			slices.SortStableFunc(k.obsoletes, u.compare)
		}
	}
}

// usage is how often a repository uses strings and dependencies, as far as it
// matters for the order of these lists.
type usage struct {
	p     *Pool
	names []int32 // by name
	deps  []int32 // by depID, except names in any version
}

func (u *usage) compare(a, b depID) int {
	x, y := u.p.deps[a], u.p.deps[b]
	plainX, plainY := x.isPlain(), y.isPlain()
	switch {
	case plainX && plainY:
		return cmp.Or(cmp.Compare(u.names[y.name], u.names[x.name]), strings.Compare(u.p.nameText[x.name], u.p.nameText[y.name]))
	case plainX:
		return -1
	case plainY:
		return 1
	}
	return cmp.Or(cmp.Compare(u.deps[b], u.deps[a]), cmp.Compare(a, b))
}

// isPlain reports whether a dependency is on a name in any version.
func (d dep) isPlain() bool { return d.op == opName && d.flags == 0 }

func (p *Pool) usageOf(r int32) *usage {
	u := &usage{p, make([]int32, len(p.nameText)), make([]int32, len(p.deps))}
	wanted := make([]bool, len(p.nameText)) // names in the lists
	for i := int(firstID); i < len(p.pkgs); i++ {
		k := &p.pkgs[i]
		if k.repo != r {
			continue
		}
		u.names[k.name]++
		for _, list := range [][]depID{k.requires, k.conflicts, k.obsoletes, k.recommends, k.suggests, k.supplements, k.enhances} {
			for _, d := range list {
				u.count(d)
			}
		}
		for _, list := range [][]depID{k.recommends, k.obsoletes} {
			for _, d := range list {
				if x := p.deps[d]; x.op == opName {
					wanted[x.name] = true
				}
			}
		}
	}
	for name, is := range wanted {
		if is {
			u.countProvides(r, int32(name))
		}
	}
	for d := len(p.deps) - 1; d > 0; d-- {
		u.countOperands(depID(d))
	}
	u.countSources(r)
	u.countFolders(r)
	return u
}

func (u *usage) count(d depID) {
	if x := u.p.deps[d]; x.isPlain() {
		u.names[x.name]++
	} else {
		u.deps[d]++
	}
}

// countProvides counts the provides of a name.
func (u *usage) countProvides(r, name int32) {
	p := u.p
	other := map[dep]bool{} // those that no package asks for
	var last provide
	for _, v := range p.provides(name) {
		if p.pkgs[v.by].repo != r || v == last {
			continue
		}
		last = v
		if v.flags == 0 {
			u.names[name]++
			continue
		}
		d := dep{op: opName, flags: v.flags, name: name, evr: v.evr}
		if n, ok := p.depIDs[d]; ok {
			u.deps[n]++
		} else {
			other[d] = true
		}
	}
	u.names[name] += int32(len(other))
}

// countOperands counts what a dependency that is used is made of. An operand
// is always in use more often than what it is in, so that it comes before it.
func (u *usage) countOperands(n depID) {
	if u.deps[n] == 0 {
		return
	}
	d := u.p.deps[n]
	if d.op == opName {
		u.names[d.name]++
		return
	}
	for _, o := range []depID{d.left, d.right} {
		if x := u.p.deps[o]; x.isPlain() {
			u.names[x.name]++
		} else {
			u.deps[o] = max(u.deps[o], u.deps[n]+1)
		}
	}
}

// countSources counts the names of source packages that are not those of the
// package itself.
func (u *usage) countSources(r int32) {
	for i := range u.p.repos[r].Packages {
		k := &u.p.repos[r].Packages[i]
		base, _, ok := cutLast(k.SourceRPM, "-")
		name, _, ok2 := cutLast(base, "-")
		if !ok || !ok2 || name == k.Name {
			continue
		}
		if n, known := u.p.names[name]; known {
			u.names[n]++
		}
	}
}

// countFolders counts the last parts of the folders of files in primary.xml.
func (u *usage) countFolders(r int32) {
	seen := map[string]bool{}
	before := ""
	for i := range u.p.repos[r].Packages {
		for _, path := range u.p.repos[r].Packages[i].Files {
			folder, _, ok := cutLast(path, "/")
			for ok && folder != before && folder != "" && !seen[folder] {
				before = folder
				seen[folder] = true
				var part string
				if folder, part, ok = cutLast(folder, "/"); ok {
					if n, known := u.p.names[part]; known {
						u.names[n]++
					}
				}
			}
		}
	}
}

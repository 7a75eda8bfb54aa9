package solve

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// id is a package of a pool, from firstID upwards; as a literal of a rule, a
// negative id says that the package is not installed. system is always
// installed: it provides what rpm itself brings.
type id = int32

const (
	system  id = 1
	firstID id = 2
)

// pkg is a package in the pool, its strings and dependencies interned.
type pkg struct {
	*rpmmd.Package
	name, evr   int32
	repo        int32
	arch        uint8 // rank, see archScores
	width       uint8
	installOnly bool
	requires    []depID
	conflicts   []depID
	obsoletes   []depID
	recommends  []depID
	suggests    []depID
	supplements []depID
	enhances    []depID
	rules       *pkgRules // made when first needed
}

// provide is one entry of the index of provides.
type provide struct {
	by    id
	flags rpmmd.Flags
	evr   int32
}

// Pool is the packages that a question is asked of, indexed. It remembers
// what it worked out, so asking again is quicker; it is not safe for
// concurrent use.
type Pool struct {
	repos     []Repo
	scores    map[string]uint8
	pkgs      []pkg // by id: first those that are installed
	available id    // the first package that is not installed
	names     map[string]int32
	nameText  []string
	evrs      map[rpmmd.EVR]int32
	evrText   []rpmmd.EVR // by number; 0 is the empty one

	deps       []dep
	depIDs     map[dep]depID
	found      []providers // by depID
	byName     [][]id      // packages of a name, ascending
	provBy     []int32     // by name: start in provide
	provide    []provide
	byPath     map[int32][]id // by name of a path: the packages that have it
	paths      pathState
	left       []id // packages that their repositories leave out
	weak       []id // packages with Supplements or Enhances
	modules    modularity
	foreign    map[string]string // names that other machines have packages of, with an architecture
	obsoleters map[int32][]id    // by name; made when first needed
	versions   [][]provided      // by id: see versioned; made when first needed
	spare      *solver           // the last one, for its memory

	literals, steps int // what normalize has done so far
	stored          int // the literals in the rules of packages
}

// NewPool indexes repositories. Packages for other machines and source
// packages are left out. It fails where two repositories have one ID.
func NewPool(repos []Repo, opts Options) (*Pool, error) {
	p := &Pool{
		repos:   slices.Clone(repos),
		scores:  archScores(opts.Arch),
		modules: modularity{arch: opts.Arch},
		names:   map[string]int32{},
		evrs:    map[rpmmd.EVR]int32{},
		depIDs:  map[dep]depID{},
		foreign: map[string]string{},
	}
	seen := map[string]bool{}
	for i := range p.repos {
		r := &p.repos[i]
		if seen[r.ID] {
			return nil, fmt.Errorf("repository %q is there twice", r.ID)
		}
		seen[r.ID] = true
		if r.Priority == 0 {
			r.Priority = 99
		}
		if r.Cost == 0 {
			r.Cost = 1000
		}
	}
	// dnf's order, which decides between packages that are equal otherwise.
	slices.SortStableFunc(p.repos, func(a, b Repo) int {
		return cmp.Or(cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.Cost, b.Cost))
	})
	p.addInstalled(opts.Installed)
	p.evrNumber(rpmmd.EVR{})
	p.depNumber(dep{op: opNever}) // so that no real one is 0
	p.addPackages()
	p.addDeps()
	p.indexProvides()
	p.orderLists()
	p.indexPaths()
	installOnly := opts.InstallOnly
	if installOnly == nil {
		installOnly = []string{"kernel", "kernel-PAE", "installonlypkg(kernel)",
			"installonlypkg(kernel-module)", "installonlypkg(vm)", "multiversion(kernel)"}
	}
	for _, name := range installOnly {
		for _, q := range p.providers(p.simpleDep(name, 0, rpmmd.EVR{})) {
			p.pkgs[q].installOnly = true
		}
	}
	p.leaveOut()
	if err := p.indexModules(); err != nil {
		return nil, err
	}
	return p, nil
}

// named is a package with the name of its file.
type named struct {
	*rpmmd.Package
	file string
}

// byFile is createrepo's order.
func byFile(a, b named) int {
	if c := strings.Compare(a.file, b.file); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Location, b.Location),
		strings.Compare(a.String(), b.String()), strings.Compare(a.Checksum.Hex, b.Checksum.Hex))
}

// addPackages fills pkgs: the installed ones, then the others in an order
// that does not depend on that of the metadata, but is that of createrepo: by
// repository and file name.
func (p *Pool) addPackages() {
	p.pkgs = make([]pkg, firstID)
	for r := range p.repos {
		here := len(p.pkgs) < int(p.available)
		var list []named
		for i := range p.repos[r].Packages {
			k := &p.repos[r].Packages[i]
			if p.scores[k.Arch] == 0 && !here {
				if a := p.foreign[k.Name]; a == "" || k.Arch < a {
					p.foreign[k.Name] = k.Arch
				}
				continue
			}
			list = append(list, named{k, path.Base(k.Location)})
		}
		if here { // the order of the rpmdb's index
			slices.SortStableFunc(list, func(a, b named) int { return strings.Compare(a.Name, b.Name) })
		} else {
			slices.SortFunc(list, byFile)
		}
		p.pkgs = slices.Grow(p.pkgs, len(list))
		for _, k := range list {
			p.pkgs = append(p.pkgs, pkg{Package: k.Package, repo: int32(r), arch: p.scores[k.Arch], width: archWidth(k.Arch)})
		}
	}
	for i := int(firstID); i < len(p.pkgs); i++ {
		k := &p.pkgs[i]
		k.name, k.evr = p.nameNumber(k.Name), p.evrNumber(k.EVR)
		p.byName[k.name] = append(p.byName[k.name], id(i))
	}
}

func (p *Pool) nameNumber(s string) int32 {
	if n, ok := p.names[s]; ok {
		return n
	}
	n := int32(len(p.nameText))
	p.names[s] = n
	p.nameText = append(p.nameText, s)
	p.byName = append(p.byName, nil)
	return n
}

func (p *Pool) evrNumber(e rpmmd.EVR) int32 {
	if n, ok := p.evrs[e]; ok {
		return n
	}
	n := int32(len(p.evrText))
	p.evrs[e] = n
	p.evrText = append(p.evrText, e)
	return n
}

// addDeps interns the dependencies of all packages.
func (p *Pool) addDeps() {
	var block []depID
	for i := int(firstID); i < len(p.pkgs); i++ {
		k := &p.pkgs[i]
		for _, l := range []struct {
			from  []rpmmd.Dep
			to    *[]depID
			parse func(rpmmd.Dep) (depID, bool)
		}{
			{k.Package.Requires, &k.requires, p.parseDep}, {k.Package.Conflicts, &k.conflicts, p.parseConflict},
			{k.Package.Obsoletes, &k.obsoletes, p.parseDep}, {k.Package.Recommends, &k.recommends, p.parseDep},
			{k.Package.Suggests, &k.suggests, p.parseDep}, {k.Package.Supplements, &k.supplements, p.parseSupplement},
			{k.Package.Enhances, &k.enhances, p.parseDep},
		} {
			if len(l.from) == 0 {
				continue
			}
			if cap(block)-len(block) < len(l.from) {
				block = make([]depID, 0, max(8192, len(l.from)))
			}
			start := len(block)
			for _, d := range l.from {
				if n, ok := l.parse(d); ok {
					block = append(block, n)
				}
			}
			*l.to = block[start:len(block):len(block)]
		}
		if len(k.supplements)+len(k.enhances) > 0 {
			p.weak = append(p.weak, id(i))
		}
	}
}

// indexProvides fills provBy and provide. Every package provides its own name
// and version, as rpm-md readers have it.
func (p *Pool) indexProvides() {
	total := 0
	for i := int(firstID); i < len(p.pkgs); i++ {
		total += len(p.pkgs[i].Package.Provides) + 1
	}
	type entry struct {
		name int32
		provide
	}
	all := make([]entry, 0, total)
	for i := int(firstID); i < len(p.pkgs); i++ {
		k := &p.pkgs[i]
		for _, d := range k.Package.Provides {
			v := provide{by: id(i), flags: d.Flags}
			if d.Flags != 0 {
				v.evr = p.evrNumber(d.EVR)
			}
			all = append(all, entry{p.nameNumber(d.Name), v})
		}
		all = append(all, entry{k.name, provide{id(i), rpmmd.Equal, k.evr}})
	}
	at := make([]int32, len(p.nameText)+1)
	for _, e := range all {
		at[e.name+1]++
	}
	for i := 1; i < len(at); i++ {
		at[i] += at[i-1]
	}
	p.provBy = slices.Clone(at)
	p.provide = make([]provide, total)
	for _, e := range all {
		p.provide[at[e.name]] = e.provide
		at[e.name]++
	}
}

// provides returns the entries of a name, ordered by package.
func (p *Pool) provides(name int32) []provide {
	if int(name)+1 >= len(p.provBy) {
		return nil
	}
	return p.provide[p.provBy[name]:p.provBy[name+1]]
}

// label returns "name-[epoch:]version-release.arch@repository".
func (p *Pool) label(q id) string {
	k := &p.pkgs[q]
	return k.Package.String() + "@" + p.repos[k.repo].ID
}

package solve

import (
	"slices"
)

// pkgRules is what installing a package entails, whatever is asked. It is
// worked out once a pool.
type pkgRules struct {
	broken    bool    // a dependency that nothing meets
	requires  [][]id  // one of each list must be installed; distinct, ordered
	clauses   [][]id  // one literal of each must hold; the package's own negation is among them
	conflicts []id    // none of these may be installed; ascending
	follow    []depID // simple dependencies whose providers may come in
	wanted    []id    // packages of rich dependencies that may come in
	likewise  []id    // packages of the same name and EVR for a better architecture
}

// rulesOf returns the rules of a package.
func (p *Pool) rulesOf(n id) (*pkgRules, error) {
	k := &p.pkgs[n]
	if k.rules != nil {
		return k.rules, nil
	}
	if _, err := p.pathsOf(k.requires, k.conflicts, k.recommends, k.suggests); err != nil {
		return nil, err
	}
	r := &pkgRules{}
	for _, d := range k.requires {
		p.addRequire(r, n, d)
	}
	for _, d := range k.conflicts {
		p.addConflict(r, n, d)
	}
	slices.SortFunc(r.requires, slices.Compare)
	r.requires = slices.CompactFunc(r.requires, slices.Equal)
	for _, d := range k.obsoletes {
		for _, q := range p.obsoleted(d) {
			if q != n && !p.bothInstalled(n, q) {
				r.conflicts = append(r.conflicts, q)
			}
		}
	}
	slices.Sort(r.conflicts)
	r.conflicts = slices.Compact(r.conflicts)
	for _, list := range [][]depID{k.recommends, k.suggests} {
		for _, d := range list {
			p.positive(d, false, func(d depID) { r.follow = append(r.follow, d) })
		}
	}
	if k.arch > noarchScore {
		for _, q := range p.byName[k.name] {
			if o := &p.pkgs[q]; o.evr == k.evr && o.arch > noarchScore && o.arch < k.arch {
				r.likewise = append(r.likewise, q)
			}
		}
	}
	p.stored += len(r.conflicts) + len(r.wanted)
	for _, list := range r.clauses {
		p.stored += len(list)
	}
	if p.stored > 4*maxRules {
		return nil, errTooLarge
	}
	k.rules = r
	return r, nil
}

func (p *Pool) addRequire(r *pkgRules, n id, d depID) {
	if !p.isRich(d) {
		list := p.providers(d)
		switch {
		case len(list) > 0 && list[0] == system:
		case p.isInstalled(n) && !p.holdsNow(list):
		case len(list) == 0:
			r.broken = true
		default:
			if _, self := slices.BinarySearch(list, n); !self {
				r.requires = append(r.requires, list)
				r.follow = append(r.follow, d)
			}
		}
		return
	}
	blocks, v := p.normalize(d, false)
	p.addBlocks(r, n, blocks, v)
}

// addBlocks adds the normal form of a rich dependency.
func (p *Pool) addBlocks(r *pkgRules, n id, blocks [][]id, v verdict) {
	switch v {
	case never, tooLarge:
		r.broken = r.broken || !p.isInstalled(n)
	case depends:
		for _, b := range blocks {
			p.addClause(r, n, b)
		}
	}
}

// addClause adds "n is not installed, or one literal of b holds".
func (p *Pool) addClause(r *pkgRules, n id, b []id) {
	clause, trivial := mix(b, []id{-n})
	switch {
	case trivial, p.isInstalled(n) && !p.holdsNow(b):
	case clause[0] == -n && len(clause) > 1 && clause[1] > 0:
		r.requires = append(r.requires, clause[1:])
		r.wanted = append(r.wanted, clause[1:]...)
	case len(clause) == 1:
		r.broken = true
	default:
		r.clauses = append(r.clauses, clause)
		for _, l := range clause {
			if l > 0 {
				r.wanted = append(r.wanted, l)
			}
		}
	}
}

func (p *Pool) addConflict(r *pkgRules, n id, d depID) {
	if !p.isRich(d) {
		for _, q := range p.providers(d) {
			if q != n && q != system && !p.bothInstalled(n, q) { // a conflict with oneself is ignored
				r.conflicts = append(r.conflicts, q)
			}
		}
		return
	}
	blocks, v := invert(p.normalize(d, true))
	blocks = slices.DeleteFunc(blocks, func(b []id) bool { return len(b) == 1 && b[0] == -n })
	p.addBlocks(r, n, blocks, v) // a conflict with "a unless b" can ask for b
}

// alternates reports whether two packages of one name exclude each other:
// those of disjoint width do not, nor do two versions of an install-only package.
func (p *Pool) alternates(a, b id) bool {
	x, y := &p.pkgs[a], &p.pkgs[b]
	if !p.sameColor(a, b) || p.bothInstalled(a, b) {
		return false
	}
	return !x.installOnly || !y.installOnly || x.evr == y.evr && x.Arch == y.Arch
}

package solve

import "slices"

// forgotten returns the packages that are not members, but that a rich
// recommendation of a member can ask for.
func (s *solver) forgotten() []id {
	var list []id
	for _, q := range s.members {
		for _, d := range s.p.pkgs[q].recommends {
			if !s.p.isRich(d) {
				continue
			}
			blocks, _ := s.p.normalize(d, false)
			for _, l := range slices.Concat(blocks...) {
				if l > 0 && !s.member[l] && !slices.Contains(list, l) {
					list = append(list, l)
				}
			}
		}
	}
	return list
}

// strays returns the chosen packages that must not be there. libsolv does not
// see that a recommendation "(a if b else c)" can ask for b, and if nothing
// else does, it installs b without looking at what b needs. That is done here
// too where nothing is missing, and otherwise once more with b in view.
func (s *solver) strays() ([]id, error) {
	var bad []id
	loaded := s.p.paths.loaded
	for _, q := range slices.Clone(s.decided) {
		if q < s.p.available || s.member[q] {
			continue
		}
		ok, err := s.holdsUp(q)
		if err != nil {
			return nil, err
		}
		if !ok || s.p.paths.loaded != loaded {
			bad = append(bad, q)
		}
	}
	return bad, nil
}

// holdsUp reports whether everything that a chosen package needs is chosen,
// and nothing that it excludes.
func (s *solver) holdsUp(q id) (bool, error) {
	r, err := s.p.rulesOf(q)
	if err != nil {
		return false, err
	}
	if s.barred(q) || r.broken {
		return false, nil
	}
	chosen := func(o id) bool { return s.level[o] > 0 }
	holds := func(l id) bool { return l > 0 && chosen(l) || l < 0 && !chosen(-l) }
	for _, lists := range [][][]id{r.requires, r.clauses} {
		for _, list := range lists {
			if !slices.ContainsFunc(list, holds) {
				return false, nil
			}
		}
	}
	excludes := func(o id) bool { return o != q && chosen(o) && s.p.alternates(q, o) }
	if slices.ContainsFunc(r.conflicts, chosen) || slices.ContainsFunc(s.p.byName[s.p.pkgs[q].name], excludes) {
		return false, nil
	}
	for _, o := range s.decided {
		if o < firstID || o == q {
			continue
		}
		against, err := s.p.rulesOf(o)
		if err != nil {
			return false, err
		}
		if slices.Contains(against.conflicts, q) {
			return false, nil
		}
	}
	return true, nil
}

package solve

import (
	"fmt"
	"slices"
	"strings"
)

// Problem says why a request cannot be met.
type Problem struct {
	// Lines are the facts that contradict each other, the request first.
	Lines []string
}

// Error joins the lines.
func (e *Problem) Error() string {
	return "no solution: " + strings.Join(e.Lines, "; ")
}

// problem explains the rules that cannot be met together.
func (s *solver) problem() *Problem {
	var used []int32
	seen := map[int32]bool{}
	var expand func(n int32)
	expand = func(n int32) {
		if seen[n] {
			return
		}
		seen[n] = true
		if n < s.learnt {
			used = append(used, n)
			return
		}
		for _, m := range s.learntWhy[n-s.learnt] {
			expand(m)
		}
	}
	for _, n := range s.conflict {
		expand(n)
	}
	slices.SortFunc(used, func(a, b int32) int {
		aj, bj := a >= s.jobRules, b >= s.jobRules
		switch {
		case aj != bj && aj:
			return -1
		case aj != bj:
			return 1
		}
		return int(a - b)
	})
	e := &Problem{}
	for _, n := range used {
		for _, line := range s.describe(n) {
			if !slices.Contains(e.Lines, line) {
				e.Lines = append(e.Lines, line)
			}
		}
	}
	return e
}

// describe says what a rule means.
func (s *solver) describe(n int32) []string {
	r := &s.rules[n]
	switch {
	case n >= s.jobRules && n < s.jobEnd:
		spec := s.jobs[s.jobOf[n-s.jobRules]].spec
		if r.p == -system {
			return []string{s.noMatch(spec)}
		}
		return []string{fmt.Sprintf("%q is asked for", spec)}
	case n >= s.jobEnd && r.p < 0:
		return []string{fmt.Sprintf("%s has an inferior architecture", s.p.label(-r.p))}
	case n >= s.jobEnd:
		return []string{"the best candidate cannot be installed: " + s.labels(append([]id{r.p}, r.rest...))}
	}
	if r.p < 0 && len(r.rest) == 0 {
		return s.describeBroken(-r.p)
	}
	return []string{s.describeRule(r)}
}

func (s *solver) labels(list []id) string {
	var names []string
	for _, q := range list {
		if len(names) == 8 {
			names = append(names, fmt.Sprintf("and %d more", len(list)-8))
			break
		}
		names = append(names, s.p.label(q))
	}
	return strings.Join(names, ", ")
}

// describeBroken says why a package can never be installed.
func (s *solver) describeBroken(q id) []string {
	if s.p.pkgs[q].hidden {
		return []string{fmt.Sprintf("%s is hidden by a module", s.p.label(q))}
	}
	if s.excluded[q] {
		return []string{fmt.Sprintf("%s is excluded", s.p.label(q))}
	}
	var lines []string
	for _, d := range s.p.pkgs[q].requires {
		var alone pkgRules
		s.p.addRequire(&alone, q, d)
		if alone.broken {
			lines = append(lines, fmt.Sprintf("nothing provides %q, which %s requires", s.p.text(d), s.p.label(q)))
		}
	}
	for _, d := range s.p.pkgs[q].conflicts {
		var alone pkgRules
		s.p.addConflict(&alone, q, d)
		if alone.broken {
			lines = append(lines, fmt.Sprintf("%s conflicts with %q, which always holds", s.p.label(q), s.p.text(d)))
		}
	}
	return lines
}

// describeRule says which dependency made a rule of a package.
func (s *solver) describeRule(r *rule) string {
	all := append([]id{r.p}, r.rest...)
	for _, l := range all {
		if l >= 0 {
			continue
		}
		k := &s.p.pkgs[-l]
		for _, d := range k.requires {
			var alone pkgRules
			s.p.addRequire(&alone, -l, d)
			if madeBy(&alone, -l, all) {
				return fmt.Sprintf("%s requires %q, which %s", s.p.label(-l), s.p.text(d), s.providedBy(all))
			}
		}
		for _, d := range k.conflicts {
			var alone pkgRules
			s.p.addConflict(&alone, -l, d)
			if madeBy(&alone, -l, all) {
				return fmt.Sprintf("%s conflicts with %q, which %s has", s.p.label(-l), s.p.text(d), s.others(all, l))
			}
		}
		for _, d := range k.obsoletes {
			for _, o := range s.p.obsoleted(d) {
				if slices.Contains(all, -o) && len(all) == 2 {
					return fmt.Sprintf("%s obsoletes %q, which is %s", s.p.label(-l), s.p.text(d), s.p.label(o))
				}
			}
		}
	}
	return fmt.Sprintf("%s and %s cannot both be installed", s.p.label(-all[0]), s.others(all, all[0]))
}

// madeBy reports whether a dependency of q makes the rule of these literals.
func madeBy(r *pkgRules, q id, all []id) bool {
	want := slices.Clone(all)
	slices.Sort(want)
	for _, list := range r.requires {
		if slices.Equal(append([]id{-q}, list...), want) {
			return true
		}
	}
	for _, c := range r.clauses {
		if slices.Equal(c, want) {
			return true
		}
	}
	for _, o := range r.conflicts {
		if len(all) == 2 && slices.Contains(all, -o) && slices.Contains(all, -q) {
			return true
		}
	}
	return false
}

func (s *solver) providedBy(all []id) string {
	var list []id
	for _, l := range all {
		if l > 0 {
			list = append(list, l)
		}
	}
	return "only " + s.labels(list) + " provides"
}

func (s *solver) others(all []id, but id) string {
	var list []id
	for _, l := range all {
		if l != but {
			list = append(list, max(l, -l))
		}
	}
	return s.labels(list)
}

package solve

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Problem says why a request cannot be met.
type Problem struct {
	// Lines are a tree, indented by two spaces a level: a spec, the packages
	// that could answer it, and why each of them falls.
	Lines []string
}

// Error joins the lines into one.
func (e *Problem) Error() string {
	lines := make([]string, len(e.Lines))
	for i, l := range e.Lines {
		lines[i] = strings.TrimSpace(l)
	}
	return "no solution: " + strings.Join(lines, "; ")
}

// explainer writes the tree.
type explainer struct {
	*solver
	of    map[id][]int32 // the rules that speak against a package
	told  map[id]bool
	used  map[int32]bool // rules that are in the tree
	lines []string
}

// problem explains the rules that cannot be met together.
func (s *solver) problem() *Problem {
	rules := s.proof()
	x := &explainer{solver: s, of: map[id][]int32{}, told: map[id]bool{}, used: map[int32]bool{}}
	for _, n := range rules {
		s.rules[n].literals(func(l id) bool {
			if l < 0 {
				x.of[-l] = append(x.of[-l], n)
			}
			return true
		})
	}
	for _, n := range rules {
		if n >= s.jobRules {
			x.job(n)
		}
	}
	for _, n := range rules {
		if !x.used[n] && n < s.jobRules {
			x.packages([]id{-s.rules[n].p}, 0)
		}
	}
	return &Problem{Lines: x.lines}
}

// proof returns the rules behind the conflict, learnt ones replaced by those
// that they were learnt from, in the order of the rules.
func (s *solver) proof() []int32 {
	seen := map[int32]bool{}
	var rules []int32
	for todo := slices.Clone(s.conflict); len(todo) > 0; {
		n := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		switch {
		case seen[n]:
		case n >= s.learnt:
			todo = append(todo, s.learntWhy[n-s.learnt]...)
		default:
			rules = append(rules, n)
		}
		seen[n] = true
	}
	slices.Sort(rules)
	return rules
}

func (x *explainer) line(depth int, format string, args ...any) {
	l := strings.Repeat("  ", depth) + fmt.Sprintf(format, args...)
	if !slices.Contains(x.lines, l) {
		x.lines = append(x.lines, l)
	}
}

// job writes what was asked for by a rule of the request, of best or of the
// architectures.
func (x *explainer) job(n int32) {
	r := &x.rules[n]
	x.used[n] = true
	switch {
	case n >= x.jobEnd && r.p < 0:
		x.line(0, "%s has an inferior architecture", x.p.label(-r.p))
		return
	case n >= x.jobEnd:
		x.line(0, "only the best candidate may be installed")
	case r.p == -system:
		x.line(0, "%s", x.noMatch(x.jobs[x.jobOf[n-x.jobRules]].spec))
		return
	default:
		x.line(0, "%q is asked for", x.jobs[x.jobOf[n-x.jobRules]].spec)
	}
	x.packages(positives(r), 1)
}

// positives returns the packages of which a rule wants one.
func positives(r *rule) []id {
	var list []id
	r.literals(func(l id) bool {
		if l > 0 {
			list = append(list, l)
		}
		return true
	})
	return list
}

// fall is why a package cannot be installed: a text, and the packages that
// would have been needed.
type fall struct {
	pkgs []id // the packages that fall in the same way
	text []string
	next []id
}

// packages writes why each package of a list falls, those together that fall
// in the same way.
func (x *explainer) packages(list []id, depth int) {
	var falls []*fall
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b id) int {
		return cmp.Or(strings.Compare(x.p.pkgs[a].Name, x.p.pkgs[b].Name), x.p.pkgs[b].EVR.Compare(x.p.pkgs[a].EVR))
	})
	for _, q := range list {
		f := x.fallOf(q)
		same := slices.IndexFunc(falls, func(o *fall) bool {
			return x.p.pkgs[o.pkgs[0]].name == x.p.pkgs[q].name && slices.Equal(o.text, f.text) && x.sameNames(o.next, f.next)
		})
		if same < 0 {
			falls = append(falls, f)
			continue
		}
		falls[same].pkgs = append(falls[same].pkgs, q)
		falls[same].next = append(falls[same].next, f.next...)
	}
	for _, f := range falls {
		who := x.p.label(f.pkgs[0])
		if more := len(f.pkgs) - 1; more > 0 {
			who += fmt.Sprintf(" (and %d other versions)", more)
		}
		if x.told[f.pkgs[0]] && len(f.next) > 0 {
			x.line(depth, "%s %s, see above", who, strings.Join(f.text, ", "))
			continue
		}
		for _, q := range f.pkgs {
			x.told[q] = true
		}
		x.line(depth, "%s %s", who, strings.Join(f.text, ", "))
		slices.Sort(f.next)
		x.packages(slices.Compact(f.next), depth+1)
	}
}

func (x *explainer) sameNames(a, b []id) bool {
	names := func(list []id) []string {
		var out []string
		for _, q := range list {
			out = append(out, x.p.pkgs[q].Name)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(names(a), names(b))
}

// maxReasons bounds how many dependencies one line names.
const maxReasons = 4

// fallOf finds why a package cannot be installed.
func (x *explainer) fallOf(q id) *fall {
	f := &fall{pkgs: []id{q}}
	for _, n := range x.of[q] {
		x.used[n] = true
		r := &x.rules[n]
		if n >= x.jobRules {
			f.text = append(f.text, "has an inferior architecture")
			continue
		}
		if len(r.rest) == 0 {
			return &fall{pkgs: f.pkgs, text: x.broken(q)}
		}
		f.text = append(f.text, x.against(q, r))
		f.next = append(f.next, positives(r)...)
	}
	if len(f.text) == 0 {
		f.text = []string{"cannot be installed"}
	}
	slices.Sort(f.text)
	f.text = slices.Compact(f.text)
	if more := len(f.text) - maxReasons; more > 0 {
		f.text = append(f.text[:maxReasons], fmt.Sprintf("and %d more reasons", more))
	}
	return f
}

// broken says why a package can never be installed.
func (x *explainer) broken(q id) []string {
	switch {
	case x.modules.hidden[q]:
		return []string{"is hidden by a module"}
	case x.excluded[q]:
		return []string{"is excluded"}
	}
	var missing []string
	for _, d := range x.p.pkgs[q].requires {
		var alone pkgRules
		if x.p.addRequire(&alone, q, d); alone.broken {
			missing = append(missing, fmt.Sprintf("%q", x.p.text(d)))
		}
	}
	if len(missing) > 0 {
		return []string{"requires what nothing provides: " + strings.Join(missing, ", ")}
	}
	for _, d := range x.p.pkgs[q].conflicts {
		var alone pkgRules
		if x.p.addConflict(&alone, q, d); alone.broken {
			return []string{fmt.Sprintf("conflicts with %q, which always holds", x.p.text(d))}
		}
	}
	return []string{"cannot be installed"}
}

// against says which dependency a rule stands for, seen from package q.
func (x *explainer) against(q id, r *rule) string {
	all := append([]id{r.p}, r.rest...)
	slices.Sort(all)
	if d, ok := x.madeBy(q, all, x.p.pkgs[q].requires, x.p.addRequire); ok {
		return fmt.Sprintf("requires %q", x.p.text(d))
	}
	if d, ok := x.madeBy(q, all, x.p.pkgs[q].conflicts, x.p.addConflict); ok {
		return fmt.Sprintf("conflicts with %q", x.p.text(d)) + x.others(all, q)
	}
	for _, l := range all {
		if o := -l; o > 0 && o != q {
			if d, ok := x.madeBy(o, all, x.p.pkgs[o].conflicts, x.p.addConflict); ok {
				return fmt.Sprintf("is what %s conflicts with (%q)", x.p.label(o), x.p.text(d))
			}
			for _, pair := range [][2]id{{q, o}, {o, q}} {
				for _, d := range x.p.pkgs[pair[0]].obsoletes {
					if x.p.matchesName(pair[1], d) && pair[0] == q {
						return fmt.Sprintf("obsoletes %s", x.p.label(o))
					} else if x.p.matchesName(pair[1], d) {
						return fmt.Sprintf("is obsoleted by %s", x.p.label(o))
					}
				}
			}
		}
	}
	return "cannot be installed" + x.others(all, q)
}

// madeBy finds the dependency of a list that makes a rule of package q.
func (x *explainer) madeBy(q id, all []id, deps []depID, add func(*pkgRules, id, depID)) (depID, bool) {
	for _, d := range deps {
		var alone pkgRules
		add(&alone, q, d)
		for _, list := range alone.requires {
			if slices.Equal(append([]id{-q}, list...), all) {
				return d, true
			}
		}
		for _, c := range alone.clauses {
			if slices.Equal(c, all) {
				return d, true
			}
		}
		for _, o := range alone.conflicts {
			if len(all) == 2 && slices.Contains(all, -o) {
				return d, true
			}
		}
	}
	return 0, false
}

// others names the packages that a rule excludes beside q.
func (x *explainer) others(all []id, q id) string {
	var names []string
	for _, l := range all {
		if l < 0 && l != -q {
			names = append(names, x.p.label(-l))
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " together with " + strings.Join(names, ", ")
}

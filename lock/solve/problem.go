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

// explainer writes the tree of one problem.
type explainer struct {
	*solver
	of    map[id][]int32 // the rules that speak against a package
	told  map[id]bool
	used  map[int32]bool // rules that are in the tree
	lines []string
}

// problem explains the rules that cannot be met together: those of each
// problem on their own, each rule at least once.
func (s *solver) problem() *Problem {
	var lines []string
	for _, proof := range s.problems {
		x := &explainer{solver: s, of: map[id][]int32{}, told: map[id]bool{}, used: map[int32]bool{}, lines: lines}
		rules := slices.Sorted(slices.Values(proof))
		for _, n := range rules {
			s.rules[n].literals(func(l id) bool {
				if l < 0 {
					x.of[-l] = append(x.of[-l], n)
				}
				return true
			})
		}
		for _, n := range rules {
			if n >= s.keeps {
				x.request(n)
			}
		}
		for _, n := range rules {
			if !x.used[n] && n < s.keeps {
				x.packages([]id{-s.rules[n].p}, 0)
			}
		}
		lines = x.lines
	}
	return &Problem{Lines: lines}
}

func (x *explainer) line(depth int, format string, args ...any) {
	l := strings.Repeat("  ", depth) + fmt.Sprintf(format, args...)
	if !slices.Contains(x.lines, l) {
		x.lines = append(x.lines, l)
	}
}

// request writes a rule that is not of packages alone, and what is behind it.
func (x *explainer) request(n int32) {
	r := &x.rules[n]
	if r.p < 0 && r.p != -system && x.used[n] {
		return // said of the package
	}
	x.used[n] = true
	switch {
	case n < x.jobRules:
		x.line(0, "%s is installed", x.p.label(firstID+n-x.keeps))
	case n < x.jobEnd:
		j := x.jobs[x.jobOf[n-x.jobRules]]
		switch {
		case r.p == -system && j.why != "":
			x.line(0, "%s", j.why)
		case r.p == -system:
			x.line(0, "%s", x.noMatch(j.spec))
		default:
			x.line(0, "%q is asked for", j.spec)
		}
	case r.p < 0:
		x.packages([]id{-r.p}, 0)
		return
	case n < x.bestUp:
		x.line(0, "only the best candidate may be installed")
	default:
		x.line(0, "only the best update of %s may be installed", x.p.label(x.bestOf[n-x.best]))
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
		x.fallen(f, depth)
	}
}

// fallen writes why some packages fall, and what is behind that.
func (x *explainer) fallen(f *fall, depth int) {
	var names []string
	for _, q := range f.pkgs {
		names = append(names, x.p.label(q))
	}
	who := strings.Join(names, ", ")
	known := !slices.ContainsFunc(f.pkgs, func(q id) bool { return !x.told[q] })
	if known && len(f.next) > 0 {
		x.line(depth, "%s %s, see above", who, strings.Join(f.text, ", "))
		return
	}
	for _, q := range f.pkgs {
		x.told[q] = true
	}
	x.line(depth, "%s %s", who, strings.Join(f.text, ", "))
	slices.Sort(f.next)
	x.packages(slices.Compact(f.next), depth+1)
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

// fallOf finds why a package cannot be installed.
func (x *explainer) fallOf(q id) *fall {
	f := &fall{pkgs: []id{q}}
	for _, n := range x.of[q] {
		r := &x.rules[n]
		x.used[n] = true
		switch {
		case n >= x.arch && n < x.archEnd:
			f.text = append(f.text, "has an inferior architecture")
		case n >= x.heirs && n < x.heirsEnd:
			f.text = append(f.text, fmt.Sprintf("obsoletes %q, as others do that must come with it", x.p.text(x.heirOf[n-x.heirs])))
		case n >= x.bestUp && n < x.bestEnd:
			f.text = append(f.text, "is not the best update of "+x.p.label(x.bestOf[n-x.best]))
		case len(r.rest) == 0:
			f.text = append(f.text, x.broken(q)...)
		default:
			f.text = append(f.text, x.against(q, r)...)
		}
		f.next = append(f.next, positives(r)...)
	}
	if len(f.text) == 0 {
		f.text = []string{"cannot be installed"}
	}
	slices.Sort(f.text)
	f.text = slices.Compact(f.text)
	return f
}

// broken says why a package can never be installed.
func (x *explainer) broken(q id) []string {
	var out []string
	switch {
	case x.named[q]:
		out = []string{"is filtered out by exclude filtering"}
	case x.excluded[q]:
		out = []string{"is filtered out by modular filtering"}
	}
	var missing []string
	for _, d := range x.p.pkgs[q].requires {
		var alone pkgRules
		if x.p.addRequire(&alone, q, d); alone.broken {
			missing = append(missing, fmt.Sprintf("%q", x.p.text(d)))
		}
	}
	if len(missing) > 0 {
		out = append(out, "requires what nothing provides: "+strings.Join(missing, ", "))
	}
	for _, d := range x.p.pkgs[q].conflicts {
		var alone pkgRules
		if x.p.addConflict(&alone, q, d); alone.broken {
			out = append(out, fmt.Sprintf("conflicts with %q, which always holds", x.p.text(d)))
		}
	}
	if len(out) == 0 {
		out = []string{"cannot be installed"}
	}
	return out
}

// against says which dependencies a rule stands for, seen from package q.
func (x *explainer) against(q id, r *rule) []string {
	all := append([]id{r.p}, r.rest...)
	slices.Sort(all)
	var out []string
	for _, d := range x.madeBy(q, all, x.p.pkgs[q].requires, x.p.addRequire) {
		out = append(out, fmt.Sprintf("requires %q", x.p.text(d)))
	}
	for _, d := range x.madeBy(q, all, x.p.pkgs[q].conflicts, x.p.addConflict) {
		out = append(out, fmt.Sprintf("conflicts with %q", x.p.text(d))+x.others(all, q))
	}
	for _, l := range all {
		if o := -l; o > 0 && o != q {
			out = append(out, x.between(q, o, all)...)
		}
	}
	if len(out) == 0 {
		out = []string{"cannot be installed" + x.others(all, q)}
	}
	return out
}

// between says what package o of a rule has against q.
func (x *explainer) between(q, o id, all []id) []string {
	var out []string
	for _, d := range x.madeBy(o, all, x.p.pkgs[o].requires, x.p.addRequire) {
		out = append(out, fmt.Sprintf("stands against what %s requires (%q)", x.p.label(o), x.p.text(d)))
	}
	for _, d := range x.madeBy(o, all, x.p.pkgs[o].conflicts, x.p.addConflict) {
		out = append(out, fmt.Sprintf("is what %s conflicts with (%q)", x.p.label(o), x.p.text(d)))
	}
	if len(all) > 2 {
		return out
	}
	for _, d := range x.p.pkgs[q].obsoletes {
		if x.p.matchesName(o, d) {
			out = append(out, fmt.Sprintf("obsoletes %q, which is %s", x.p.text(d), x.p.label(o)))
		}
	}
	for _, d := range x.p.pkgs[o].obsoletes {
		if x.p.matchesName(q, d) {
			out = append(out, fmt.Sprintf("is obsoleted by %s (%q)", x.p.label(o), x.p.text(d)))
		}
	}
	return out
}

// madeBy finds the dependencies of a list that make a rule of package q.
func (x *explainer) madeBy(q id, all []id, deps []depID, add func(*pkgRules, id, depID)) []depID {
	var found []depID
	for _, d := range deps {
		var alone pkgRules
		add(&alone, q, d)
		mine := slices.ContainsFunc(alone.requires, func(list []id) bool { return slices.Equal(append([]id{-q}, list...), all) }) ||
			slices.ContainsFunc(alone.clauses, func(c []id) bool { return slices.Equal(c, all) }) ||
			slices.ContainsFunc(alone.conflicts, func(o id) bool { return len(all) == 2 && slices.Contains(all, -o) })
		if mine && !slices.Contains(found, d) {
			found = append(found, d)
		}
	}
	return found
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

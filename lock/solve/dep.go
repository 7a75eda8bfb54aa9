package solve

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"caisson/lock/rpmmd"
)

// depID is a dependency, simple or rich, interned.
type depID = int32

type op uint8

const (
	opName    op = iota // name, flags and evr
	opAnd               // left and right …
	opOr                //
	opIf                // left if right; right may be opElse
	opUnless            // left unless right; right may be opElse
	opElse              // only as the right of opIf and opUnless; elsewhere it is never met
	opWith              // one package that is both
	opWithout           // one package that is left and not right
	opNever             // what no package ever meets
)

var opWords = map[string]op{"and": opAnd, "or": opOr, "if": opIf, "unless": opUnless, "else": opElse, "with": opWith, "without": opWithout}

// dep is a node of a dependency.
type dep struct {
	op          op
	flags       rpmmd.Flags // opName
	name, evr   int32       // opName
	left, right depID       // the other operators
}

func (p *Pool) depNumber(d dep) depID {
	if n, ok := p.depIDs[d]; ok {
		return n
	}
	n := depID(len(p.deps))
	p.depIDs[d] = n
	p.deps = append(p.deps, d)
	p.found = append(p.found, providers{})
	return n
}

func (p *Pool) simpleDep(name string, flags rpmmd.Flags, evr rpmmd.EVR) depID {
	d := dep{op: opName, flags: flags, name: p.nameNumber(name)}
	if flags != 0 {
		d.evr = p.evrNumber(evr)
	}
	return p.depNumber(d)
}

// parseDep interns a dependency of the metadata. ok is false for a rich
// dependency that cannot be parsed, which is left out as libsolv leaves it out.
func (p *Pool) parseDep(d rpmmd.Dep) (n depID, ok bool) {
	if d.Flags == 0 && strings.HasPrefix(d.Name, "(") {
		n, err := p.parseRich(d.Name)
		return n, err == nil
	}
	return p.simpleDep(d.Name, d.Flags, d.EVR), true
}

// parseSupplement is parseDep for Supplements, in which notations still hold
// that came before rich dependencies: packageand(a:b), which is (a and b), and
// what depends on the machine and never holds here: languages, hardware and
// file systems.
func (p *Pool) parseSupplement(d rpmmd.Dep) (depID, bool) {
	if d.Flags == 0 {
		for _, prefix := range []string{"modalias(", "system:modalias(", "filesystem("} {
			if strings.HasPrefix(d.Name, prefix) {
				return p.depNumber(dep{op: opNever}), true
			}
		}
		if args, ok := strings.CutPrefix(d.Name, "packageand("); ok && len(args) > 1 {
			return p.parsePackageAnd(args[:len(args)-1]), true
		}
	}
	return p.parseDep(d)
}

func (p *Pool) parsePackageAnd(args string) depID {
	n := depID(-1)
	for part := range strings.SplitSeq(args, ":") {
		if part == "" {
			continue
		}
		o := p.simpleDep(part, 0, rpmmd.EVR{})
		if n >= 0 {
			o = p.depNumber(dep{op: opAnd, left: n, right: o})
		}
		n = o
	}
	return max(n, 0)
}

// parseConflict is parseDep for Conflicts: otherproviders(a) is a, as a
// package never conflicts with itself.
func (p *Pool) parseConflict(d rpmmd.Dep) (depID, bool) {
	if args, ok := strings.CutPrefix(d.Name, "otherproviders("); ok && d.Flags == 0 && strings.HasSuffix(args, ")") {
		d.Name = strings.TrimSuffix(args, ")")
	}
	return p.parseDep(d)
}

// maxRichDepth bounds how deep parentheses nest in a rich dependency, and
// maxRichLength its bytes, which bounds the operators in one chain.
const (
	maxRichDepth  = 100
	maxRichLength = 64 << 10
)

// parseRich interns a rich dependency, such as "(a or b >= 2)". Its grammar
// is libsolv's: one operator a parenthesis, repeated; after if and unless there
// may be an else. It is wider than rpm's: an else alone is never met, and
// versions are whatever stands there.
func (p *Pool) parseRich(s string) (depID, error) {
	if len(s) > maxRichLength {
		return 0, fmt.Errorf("rich dependency %.40q… is longer than %d bytes", s, maxRichLength)
	}
	r := &richParser{p: p, s: s}
	n, err := r.parens(0)
	if err == nil && r.s != "" {
		err = fmt.Errorf("%q follows the closing parenthesis", r.s)
	}
	if err != nil {
		return 0, fmt.Errorf("rich dependency %q: %w", s, err)
	}
	return n, nil
}

type richParser struct {
	p *Pool
	s string // what is still to be read
}

// parens reads "(" … ")".
func (r *richParser) parens(depth int) (depID, error) {
	if !strings.HasPrefix(r.s, "(") {
		return 0, fmt.Errorf("want ( at %q", r.s)
	}
	if depth == maxRichDepth {
		return 0, fmt.Errorf("nested deeper than %d", maxRichDepth)
	}
	r.s = r.s[1:]
	return r.chain(opName, depth)
}

// chain reads the rest of a parenthesis: an operand, then an operator and the
// rest. chained is the operator before this operand, opName at the start.
func (r *richParser) chain(chained op, depth int) (depID, error) {
	left, err := r.operand(depth)
	if err != nil {
		return 0, err
	}
	r.s = strings.TrimLeft(r.s, " ")
	if rest, ok := strings.CutPrefix(r.s, ")"); ok {
		r.s = rest
		return left, nil
	}
	word, rest, _ := strings.Cut(r.s, " ")
	o, ok := opWords[word]
	switch {
	case !ok:
		return 0, fmt.Errorf("%q is not an operator", word)
	case o != chained && chained != opName && (o != opElse || chained != opIf && chained != opUnless):
		return 0, fmt.Errorf("operator %q cannot follow here", word)
	}
	r.s = rest
	right, err := r.chain(o, depth)
	if err != nil {
		return 0, err
	}
	return r.p.depNumber(dep{op: o, left: left, right: right}), nil
}

// operand reads a parenthesis, or a name with an optional version.
func (r *richParser) operand(depth int) (depID, error) {
	r.s = strings.TrimLeft(r.s, " ")
	if strings.HasPrefix(r.s, "(") {
		return r.parens(depth + 1)
	}
	name := r.word()
	if name == "" {
		return 0, fmt.Errorf("want a name at %q", name+r.s)
	}
	r.s = strings.TrimLeft(r.s, " ")
	flags := r.flags()
	if flags == 0 {
		return r.p.simpleDep(name, 0, rpmmd.EVR{}), nil
	}
	r.s = strings.TrimLeft(r.s, " ")
	version := r.word()
	if version == "" {
		return 0, fmt.Errorf("want a version at %q", r.s)
	}
	return r.p.simpleDep(name, flags, looseEVR(version)), nil
}

// looseEVR reads any text as "[epoch:]version[-release]", as libsolv does: what
// is not digits before a colon is part of the version.
func looseEVR(s string) (e rpmmd.EVR) {
	if epoch, rest, ok := strings.Cut(s, ":"); ok && epoch != "" && strings.Trim(epoch, "0123456789") == "" {
		n, err := strconv.ParseUint(epoch, 10, 31)
		if err != nil {
			n = math.MaxInt32
		}
		e.Epoch, s = int(n), rest
	}
	if version, release, ok := cutLast(s, "-"); ok {
		e.Release, s = release, version
	}
	e.Version = s
	return e
}

// word cuts off a name or version. Parentheses that open inside of it belong
// to it.
func (r *richParser) word() string {
	depth, i := 0, 0
loop:
	for ; i < len(r.s); i++ {
		switch r.s[i] {
		case ' ', ',':
			break loop
		case '(':
			depth++
		case ')':
			if depth == 0 {
				break loop
			}
			depth--
		}
	}
	w := r.s[:i]
	r.s = r.s[i:]
	return w
}

func (r *richParser) flags() (f rpmmd.Flags) {
	for r.s != "" {
		switch r.s[0] {
		case '<':
			f |= rpmmd.Less
		case '=':
			f |= rpmmd.Equal
		case '>':
			f |= rpmmd.Greater
		default:
			return f
		}
		r.s = r.s[1:]
	}
	return f
}

// text returns a dependency as rpm writes it.
func (p *Pool) text(n depID) string {
	d := p.deps[n]
	switch d.op {
	case opName:
		return rpmmd.Dep{Name: p.nameText[d.name], Flags: d.flags, EVR: p.evrText[d.evr]}.String()
	case opNever:
		return "nothing"
	}
	return "(" + p.chainText(n) + ")"
}

// chainText is text without the outer parentheses. As libsolv writes it, an
// operand with the same operator has none either, conditions excepted.
func (p *Pool) chainText(n depID) string {
	d := p.deps[n]
	for word, o := range opWords {
		if o != d.op {
			continue
		}
		operand := func(n depID) string {
			if p.deps[n].op == o && o != opIf && o != opUnless && o != opElse {
				return p.chainText(n)
			}
			return p.text(n)
		}
		if p.deps[d.right].op == opElse {
			return operand(d.left) + " " + word + " " + p.chainText(d.right)
		}
		return operand(d.left) + " " + word + " " + operand(d.right)
	}
	return p.text(n)
}

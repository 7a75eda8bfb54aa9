package solve

import "slices"

// maxLiterals bounds the literals that are written to bring one rich dependency
// into a normal form, and maxSteps the operands that are looked at: both can
// grow exponentially. Real ones stay below a few hundred.
const (
	maxLiterals = 1 << 16
	maxSteps    = 1 << 12
)

// verdict is what is left of a rich dependency once it is normalised.
type verdict uint8

const (
	never    verdict = iota // nothing can meet it
	always                  // it holds in any case
	depends                 // it is the blocks that come with it
	tooLarge                // its normal form is; then it counts as not met
)

// normalize brings a dependency into conjunctive normal form, or with dnf
// into disjunctive: blocks of literals, each sorted.
func (p *Pool) normalize(n depID, dnf bool) ([][]id, verdict) {
	p.literals, p.steps = 0, 0
	return p.normalForm(n, dnf)
}

func (p *Pool) normalForm(n depID, dnf bool) ([][]id, verdict) {
	if p.steps++; p.steps > maxSteps {
		return nil, tooLarge
	}
	d := p.deps[n]
	switch d.op {
	case opAnd:
		return p.join(p.half(d.left, dnf, false), p.half(d.right, dnf, false), dnf, dnf)
	case opOr:
		return p.join(p.half(d.left, dnf, false), p.half(d.right, dnf, false), dnf, !dnf)
	case opIf:
		right := p.deps[d.right]
		if right.op != opElse { // a or not b
			return p.join(p.half(d.left, dnf, false), p.half(d.right, dnf, true), dnf, !dnf)
		}
		// (a or not b) and (c or b)
		return p.join(
			joined(p.join(p.half(d.left, dnf, false), p.half(right.left, dnf, true), dnf, !dnf)),
			joined(p.join(p.half(right.left, dnf, false), p.half(right.right, dnf, false), dnf, !dnf)), dnf, dnf)
	case opUnless:
		right := p.deps[d.right]
		if right.op != opElse { // a and not b
			return p.join(p.half(d.left, dnf, false), p.half(d.right, dnf, true), dnf, dnf)
		}
		// (a and not b) or (c and b)
		return p.join(
			joined(p.join(p.half(d.left, dnf, false), p.half(right.left, dnf, true), dnf, dnf)),
			joined(p.join(p.half(right.left, dnf, false), p.half(right.right, dnf, false), dnf, dnf)), dnf, !dnf)
	}
	list := p.providers(n)
	p.literals += len(list)
	switch {
	case p.literals > maxLiterals:
		return nil, tooLarge
	case len(list) == 0:
		return nil, never
	case list[0] == system:
		return nil, always
	case !dnf:
		return [][]id{list}, depends
	}
	blocks := make([][]id, len(list))
	for i := range list {
		blocks[i] = list[i : i+1 : i+1]
	}
	return blocks, depends
}

// operand is a normalised operand.
type operand struct {
	blocks [][]id
	v      verdict
}

func joined(blocks [][]id, v verdict) operand { return operand{blocks, v} }

// half normalises an operand, negated where not is set: the other normal form
// with every literal inverted.
func (p *Pool) half(n depID, dnf, not bool) operand {
	blocks, v := p.normalForm(n, dnf != not)
	if not {
		blocks, v = invert(blocks, v)
	}
	return operand{blocks, v}
}

// invert negates a normal form, which makes it the other one.
func invert(blocks [][]id, v verdict) ([][]id, verdict) {
	switch v {
	case never:
		return nil, always
	case always:
		return nil, never
	case tooLarge:
		return nil, tooLarge
	}
	out := make([][]id, len(blocks))
	for i, b := range blocks {
		out[i] = make([]id, len(b))
		for j, l := range b {
			out[i][len(b)-1-j] = -l
		}
	}
	return out, depends
}

// join combines two operands. product says that blocks multiply (or in
// conjunctive, and in disjunctive form); otherwise they are put side by side.
func (p *Pool) join(a, b operand, dnf, product bool) ([][]id, verdict) {
	// An operand absorbs, or is neutral: and has never and always, or the
	// opposite. product == dnf means and.
	absorbs, neutral := never, always
	if product != dnf {
		absorbs, neutral = always, never
	}
	switch {
	case a.v == tooLarge || b.v == tooLarge:
		return nil, tooLarge
	case a.v == absorbs || b.v == absorbs:
		return nil, absorbs
	case a.v == neutral:
		return b.blocks, b.v
	case b.v == neutral:
		return a.blocks, a.v
	case !product:
		return slices.Concat(a.blocks, b.blocks), depends
	}
	var out [][]id
	for _, x := range a.blocks {
		for _, y := range b.blocks {
			block, trivial := mix(x, y)
			if trivial {
				p.literals++
				continue
			}
			if p.literals += len(block); p.literals > maxLiterals {
				return nil, tooLarge
			}
			out = append(out, block)
		}
	}
	if len(out) == 0 {
		if dnf {
			return nil, never
		}
		return nil, always
	}
	return out, depends
}

// mix unites two sorted blocks. trivial: a literal is in it with its opposite.
func mix(x, y []id) (block []id, trivial bool) {
	block = slices.Concat(x, y)
	slices.Sort(block)
	block = slices.Compact(block)
	for i, j := 0, len(block)-1; i < j; {
		switch sum := block[i] + block[j]; {
		case sum == 0:
			return nil, true
		case sum < 0:
			i++
		default:
			j--
		}
	}
	return block, false
}

// isRich reports whether a dependency needs normalising: "or", "with" and
// "without" of simple ones are just lists of packages.
func (p *Pool) isRich(n depID) bool {
	d := p.deps[n]
	switch d.op {
	case opAnd, opIf, opUnless:
		return true
	case opOr:
		return p.isRich(d.left) || p.isRich(d.right)
	}
	return false
}

// positive calls visit with each simple dependency inside of a rich one that
// can ask for a package. As libsolv has it, what follows "if" in an if with
// else does not count.
func (p *Pool) positive(n depID, not bool, visit func(depID)) {
	d := p.deps[n]
	switch d.op {
	case opAnd, opOr:
		p.positive(d.left, not, visit)
		p.positive(d.right, not, visit)
	case opIf, opUnless:
		p.positive(d.left, not, visit)
		if right := p.deps[d.right]; right.op == opElse {
			p.positive(right.right, not, visit)
			p.positive(right.left, !not, visit)
			return
		}
		p.positive(d.right, !not, visit)
	default:
		if !not {
			visit(n)
		}
	}
}

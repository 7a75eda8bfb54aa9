package license

import "strings"

// maxDepth is how many brackets may be open at once, and maxText how long a
// text may be, in bytes; what is beyond is one name.
const (
	maxDepth = 64
	maxText  = 64 << 10
)

// parse reads a text whose words are one blank apart.
func parse(text string) *node {
	if len(text) > maxText {
		return unknown(text)
	}
	p := &parser{tokens: split(text)}
	n, ok := p.list(0)
	if !ok || p.at < len(p.tokens) {
		return unknown(text)
	}
	known := false
	n.walk(func(n *node) {
		known = known || n.op == single && (n.ref == nil || n.ref.Known)
	})
	if !known {
		return unknown(text)
	}
	return n
}

// split makes tokens of a text: brackets, commas, and words.
func split(text string) []string {
	var tokens []string
	for word := range strings.FieldsSeq(text) {
		for word != "" {
			i := strings.IndexAny(word, "(),")
			switch i {
			case -1:
				tokens, word = append(tokens, word), ""
			case 0:
				tokens, word = append(tokens, word[:1]), word[1:]
			default:
				tokens, word = append(tokens, word[:i]), word[i:]
			}
		}
	}
	return tokens
}

type parser struct {
	tokens []string
	at     int
}

// peek is the token at a distance, "" behind the last one.
func (p *parser) peek(distance int) string {
	if p.at+distance < len(p.tokens) {
		return p.tokens[p.at+distance]
	}
	return ""
}

// operatorOf is the operator that a word is.
func operatorOf(word string) operator {
	switch strings.ToLower(word) {
	case "and":
		return and
	case "or":
		return or
	}
	return single
}

// list is what commas before operators join, from the left.
func (p *parser) list(depth int) (*node, bool) {
	n, ok := p.alternatives(depth)
	for ok && p.peek(0) == "," && operatorOf(p.peek(1)) != single {
		op := operatorOf(p.peek(1))
		p.at += 2
		var next *node
		next, ok = p.alternatives(depth)
		n = &node{op: op, kids: []*node{n, next}}
	}
	return n, ok
}

func (p *parser) alternatives(depth int) (*node, bool) {
	return p.joined(or, func() (*node, bool) {
		return p.joined(and, func() (*node, bool) { return p.operand(depth) })
	})
}

// joined are operands with one operator between them.
func (p *parser) joined(op operator, operand func() (*node, bool)) (*node, bool) {
	n, ok := operand()
	if !ok || operatorOf(p.peek(0)) != op {
		return n, ok
	}
	kids := []*node{n}
	for operatorOf(p.peek(0)) == op {
		p.at++
		n, ok := operand()
		if !ok {
			return nil, false
		}
		kids = append(kids, n)
	}
	return &node{op: op, kids: kids}, true
}

// operand is a name, or an expression in brackets.
func (p *parser) operand(depth int) (*node, bool) {
	if p.peek(0) != "(" {
		return p.name()
	}
	if depth == maxDepth {
		return nil, false
	}
	p.at++
	n, ok := p.list(depth + 1)
	if !ok || p.peek(0) != ")" {
		return nil, false
	}
	p.at++
	return n, true
}

// name is the words up to an operator or a bracket, as one licence or, where
// each part between commas is known, as several.
func (p *parser) name() (*node, bool) {
	if n := p.phrase(); n != nil {
		return n, true
	}
	var parts []string
	var words []string
	for p.at < len(p.tokens) {
		word := p.tokens[p.at]
		if word == "(" || word == ")" || operatorOf(word) != single || word == "," && operatorOf(p.peek(1)) != single {
			break
		}
		p.at++
		if word == "," {
			parts, words = append(parts, strings.Join(words, " ")), nil
			continue
		}
		words = append(words, word)
	}
	parts = append(parts, strings.Join(words, " "))
	whole := strings.Join(parts, ", ")
	if strings.Trim(whole, ", ") == "" {
		return nil, false
	}
	if n := lookup(whole); n != nil {
		return n, true
	}
	var kids []*node
	for _, part := range parts {
		n := lookup(part)
		if n == nil {
			return unknown(whole), true
		}
		kids = append(kids, n)
	}
	return &node{op: and, kids: kids}, true
}

// phrase is a name that has an operator in it; nil where there is none.
func (p *parser) phrase() *node {
	for _, ph := range phrases {
		n := len(ph.words)
		if p.at+n > len(p.tokens) {
			continue
		}
		if !strings.EqualFold(strings.Join(p.tokens[p.at:p.at+n], " "), strings.Join(ph.words, " ")) {
			continue
		}
		switch next := p.peek(n); {
		case next == "", next == ")", next == ",", operatorOf(next) != single:
			p.at += n
			return ph.node()
		}
	}
	return nil
}

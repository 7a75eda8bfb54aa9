package lock

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxIgnore is the largest .gitignore read, in bytes.
const maxIgnore = 1 << 20

// ignoreFile is the rules of one .gitignore, in their order, and the folder
// that they are about.
type ignoreFile struct {
	depth int // of that folder: how many elements its path has
	rules []ignoreRule
}

// ignoreRule is one line of a .gitignore (gitignore(5)).
type ignoreRule struct {
	negated  bool
	dirOnly  bool
	anchored bool // about the path from the folder of the file, not about the name alone
	parts    []globPart
}

// globPart matches one element of a path; doubled, it is a "**" between
// slashes and matches any number of them.
type globPart struct {
	doubled bool
	tokens  []globToken
}

// globToken matches one byte, or as a star any number.
type globToken struct {
	star bool
	set  [256]bool
}

// readIgnore reads the .gitignore in dir, a folder at a depth. Like git it
// follows no symbolic link.
func readIgnore(dir string, depth int) (*ignoreFile, error) {
	name := filepath.Join(dir, ".gitignore")
	st, err := os.Lstat(name)
	if os.IsNotExist(err) || err == nil && !st.Mode().IsRegular() {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if st.Size() > maxIgnore {
		return nil, &fs.PathError{Op: "read", Path: name, Err: fs.ErrInvalid}
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	f := &ignoreFile{depth: depth}
	for line := range bytes.Lines(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf"))) {
		text := strings.TrimSuffix(strings.TrimSuffix(string(line), "\n"), "\r")
		if r, ok := parseIgnore(text); ok {
			f.rules = append(f.rules, r)
		}
	}
	return f, nil
}

// parseIgnore reads one line; false where it has no rule that can match.
func parseIgnore(s string) (r ignoreRule, ok bool) {
	s = trimSpaces(s)
	if s == "" || s[0] == '#' {
		return r, false
	}
	s, r.negated = strings.CutPrefix(s, "!")
	s, r.dirOnly = strings.CutSuffix(s, "/")
	r.anchored = strings.Contains(s, "/")
	s = strings.TrimPrefix(s, "/")
	if s == "" {
		return r, false
	}
	for part := range strings.SplitSeq(s, "/") {
		if part == "**" && r.anchored {
			r.parts = append(r.parts, globPart{doubled: true})
			continue
		}
		tokens, ok := parseGlob(part)
		if !ok {
			return r, false
		}
		r.parts = append(r.parts, globPart{tokens: tokens})
	}
	return r, true
}

// trimSpaces cuts the spaces at the end that no backslash protects.
func trimSpaces(s string) string {
	end := 0
	for i := 0; i < len(s); i++ {
		if s[i] == ' ' {
			continue
		}
		if s[i] == '\\' {
			i++
		}
		end = min(i+1, len(s))
	}
	return s[:end]
}

// parseGlob reads the pattern of one element; false where it can match
// nothing, because a bracket or an escape has no end.
func parseGlob(s string) ([]globToken, bool) {
	var out []globToken
	for i := 0; i < len(s); i++ {
		var t globToken
		switch s[i] {
		case '*':
			if n := len(out); n > 0 && out[n-1].star {
				continue
			}
			t.star = true
		case '?':
			t.set = negate([256]bool{})
		case '[':
			set, n, ok := parseBracket(s[i+1:])
			if !ok {
				return nil, false
			}
			t.set, i = set, i+n
		case '\\':
			if i++; i == len(s) {
				return nil, false
			}
			t.set[s[i]] = true
		default:
			t.set[s[i]] = true
		}
		out = append(out, t)
	}
	return out, true
}

func negate(set [256]bool) [256]bool {
	for i := range set {
		set[i] = !set[i]
	}
	return set
}

// bracket reads a bracket expression.
type bracket struct {
	s    string
	i    int
	set  [256]bool
	last int // what a range may begin with; -1: nothing
}

// parseBracket reads a bracket expression after its "[", and says how long
// it is.
func parseBracket(s string) (set [256]bool, n int, ok bool) {
	b := bracket{s: s, last: -1}
	negated := s != "" && (s[0] == '!' || s[0] == '^')
	if negated {
		b.i++
	}
	for first := true; ; first = false {
		if b.i == len(s) {
			return set, 0, false
		}
		if s[b.i] == ']' && !first {
			break
		}
		if !b.member() {
			return set, 0, false
		}
	}
	if negated {
		b.set = negate(b.set)
	}
	return b.set, b.i + 1, true
}

// member reads a character, a range or a class.
func (b *bracket) member() bool {
	rest := b.s[b.i:]
	switch {
	case strings.HasPrefix(rest, "[:"):
		end := strings.Index(rest[2:], "]")
		if end < 0 {
			return false
		}
		if name, is := strings.CutSuffix(rest[2:2+end], ":"); is {
			b.i, b.last = b.i+2+end+1, -1
			return addClass(&b.set, name)
		}
	case rest[0] == '-' && b.last >= 0 && len(rest) > 1 && rest[1] != ']':
		b.i++
		c, ok := b.char()
		for ; ok && b.last <= c; b.last++ {
			b.set[b.last] = true
		}
		b.last = -1
		return ok
	}
	c, ok := b.char()
	b.set[c], b.last = ok, c
	return ok
}

// char reads one character, which a backslash may protect.
func (b *bracket) char() (c int, ok bool) {
	if b.s[b.i] == '\\' {
		b.i++
	}
	if b.i == len(b.s) {
		return 0, false
	}
	b.i++
	return int(b.s[b.i-1]), true
}

// addClass adds a POSIX character class in the C locale.
func addClass(set *[256]bool, name string) bool {
	const (
		digit, upper, lower = "0123456789", "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
		punct               = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
	)
	var chars string
	switch name {
	case "alnum":
		chars = digit + upper + lower
	case "alpha":
		chars = upper + lower
	case "blank":
		chars = " \t"
	case "digit":
		chars = digit
	case "graph":
		chars = digit + upper + lower + punct
	case "lower":
		chars = lower
	case "print":
		chars = digit + upper + lower + punct + " "
	case "punct":
		chars = punct
	case "space":
		chars = " \t\n\v\f\r"
	case "upper":
		chars = upper
	case "xdigit":
		chars = digit + "ABCDEFabcdef"
	case "cntrl":
		for c := range 32 {
			set[c] = true
		}
		chars = "\x7f"
	default:
		return false
	}
	for i := range len(chars) {
		set[chars[i]] = true
	}
	return true
}

// ignored tells whether the rules leave out a path: the last rule that
// matches decides, and a deeper file's rules come after.
func ignored(files []*ignoreFile, elems []string, isDir bool) bool {
	for _, f := range slices.Backward(files) {
		for _, r := range slices.Backward(f.rules) {
			if (isDir || !r.dirOnly) && r.match(elems[f.depth:]) {
				return !r.negated
			}
		}
	}
	return false
}

func (r *ignoreRule) match(elems []string) bool {
	if !r.anchored {
		return r.parts[0].match(elems[len(elems)-1])
	}
	// The last "**" may take one element more whenever what follows fails.
	p, e := 0, 0
	retryP, retryE := -1, 0
	for e < len(elems) {
		switch {
		case p < len(r.parts) && r.parts[p].doubled:
			if p == len(r.parts)-1 {
				return true // "x/**" is all inside of x, and there is an element left
			}
			retryP, retryE = p+1, e
			p++
		case p < len(r.parts) && r.parts[p].match(elems[e]):
			p++
			e++
		case retryP >= 0:
			retryE++
			p, e = retryP, retryE
		default:
			return false
		}
	}
	return p == len(r.parts)
}

// match tells whether the pattern matches one element of a path.
func (g *globPart) match(s string) bool {
	t, i := 0, 0
	retryT, retryI := -1, 0
	for i < len(s) {
		switch {
		case t < len(g.tokens) && g.tokens[t].star:
			retryT, retryI = t+1, i
			t++
		case t < len(g.tokens) && g.tokens[t].set[s[i]]:
			t++
			i++
		case retryT >= 0:
			retryI++
			t, i = retryT, retryI
		default:
			return false
		}
	}
	for t < len(g.tokens) && g.tokens[t].star {
		t++
	}
	return t == len(g.tokens)
}

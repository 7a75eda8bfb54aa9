// Package selinux tells the SELinux label of a path, as setfiles(8) and a
// policy's file_contexts(5) say it.
//
// Limits first. Patterns are PCRE, of which Go's regular expressions know all but
// backreferences and looking around: a policy that has these is an error that
// names the line. The binary form (file_contexts.bin) is not read: it holds
// nothing that the text does not.
//
// A line of file_contexts is a pattern of whole paths, perhaps a type of file,
// and a context or <<none>>. Of all lines that match, one without
// metacharacters wins over one with them, and a later one over an earlier one.
// file_contexts.homedirs and file_contexts.local are read behind it.
// file_contexts.subs and .subs_dist hold pairs of paths: what lies below the
// first is looked up as if it lay below the second.
package selinux

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"regexp"
	"slices"
	"strings"
)

// Attribute is the extended attribute that holds a label, with a zero byte at
// its end.
const Attribute = "security.selinux"

// none stands for no label.
const none = "<<none>>"

// Bounds of a policy.
const (
	maxSpecs = 1 << 17
	maxLine  = 1 << 16
)

// File types, as st_mode has them.
const (
	typeMask = 0o170000
	typeDir  = 0o040000
)

var fileTypes = map[string]uint32{
	"--": 0o100000, "-d": typeDir, "-c": 0o020000, "-b": 0o060000, "-p": 0o010000, "-l": 0o120000, "-s": 0o140000,
}

// spec is one line.
type spec struct {
	prefix  string         // with which the paths begin
	re      *regexp.Regexp // nil where prefix is all
	typ     uint32         // 0 for every type
	context string
}

func (s *spec) matches(path string, typ uint32) bool {
	switch {
	case s.typ != 0 && s.typ != typ:
		return false
	case s.re == nil:
		return s.prefix == path
	}
	return strings.HasPrefix(path, s.prefix) && s.re.MatchString(path)
}

// substitution is a line of file_contexts.subs.
type substitution struct{ from, to string }

// Contexts are a policy's.
type Contexts struct {
	exact map[string][]*spec // by path, the last line first
	// patterns are those by the first folder of their paths, and those whose paths
	// may lie in any, under "": the last line first. order is a pattern's place in
	// both.
	patterns map[string][]*spec
	order    map[*spec]int
	subs     [2][]substitution // of the machine's administrator, of the policy
}

// Read reads the files of a policy's contexts/files folder, by read, whose error
// for one that is not there is fs.ErrNotExist. Only file_contexts has to be.
func Read(read func(name string) ([]byte, error)) (*Contexts, error) {
	c := &Contexts{exact: map[string][]*spec{}, patterns: map[string][]*spec{}, order: map[*spec]int{}}
	var all []*spec
	for _, name := range []string{"file_contexts", "file_contexts.homedirs", "file_contexts.local"} {
		b, err := read(name)
		if errors.Is(err, fs.ErrNotExist) && name != "file_contexts" {
			continue
		}
		if err != nil {
			return nil, err
		}
		specs, err := parse(name, b)
		if err != nil {
			return nil, err
		}
		if all = append(all, specs...); len(all) > maxSpecs {
			return nil, fmt.Errorf("%s: more than %d lines", name, maxSpecs)
		}
	}
	slices.Reverse(all)
	for i, s := range all {
		if s.re == nil {
			c.exact[s.prefix] = append(c.exact[s.prefix], s)
			continue
		}
		c.order[s] = i
		top := firstFolder(s.prefix)
		c.patterns[top] = append(c.patterns[top], s)
	}
	for i, name := range []string{"file_contexts.subs", "file_contexts.subs_dist"} {
		b, err := read(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		if c.subs[i], err = parseSubs(name, b); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// firstFolder is "/usr" of "/usr/…"; "" where nothing is behind it yet, so that
// the name may go on.
func firstFolder(p string) string {
	if !strings.HasPrefix(p, "/") {
		return ""
	}
	if i := strings.IndexByte(p[1:], '/'); i >= 0 {
		return p[:i+1]
	}
	return ""
}

// lines calls f with the words of each line that has some.
func lines(name string, b []byte, f func(words []string) error) error {
	sc := bufio.NewScanner(bytes.NewReader(b))
	sc.Buffer(nil, maxLine)
	n := 0
	for sc.Scan() {
		n++
		words := strings.Fields(sc.Text())
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if err := f(words); err != nil {
			return fmt.Errorf("%s:%d: %w", name, n, err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("%s:%d: %w", name, n+1, err)
	}
	return nil
}

func parse(name string, b []byte) (specs []*spec, err error) {
	err = lines(name, b, func(words []string) error {
		s := &spec{context: words[len(words)-1]}
		switch len(words) {
		case 2:
		case 3:
			typ, ok := fileTypes[words[1]]
			if !ok {
				return fmt.Errorf("%q is not a type of file", words[1])
			}
			s.typ = typ
		default:
			return fmt.Errorf("%d words; want a pattern, perhaps a type of file, and a context", len(words))
		}
		if strings.ContainsRune(s.context, 0) {
			return fmt.Errorf("%q is not a context", s.context)
		}
		specs = append(specs, s)
		var exact bool
		if s.prefix, exact = literal(words[0]); exact {
			return nil
		}
		// As the library compiles them: whole paths, and a dot is any byte.
		begins, err := regexp.Compile("(?s)" + words[0])
		if err != nil {
			return err
		}
		s.prefix, _ = begins.LiteralPrefix()
		s.re, err = regexp.Compile("^(?s:" + words[0] + ")$")
		return err
	})
	return specs, err
}

// literal is what a pattern without metacharacters stands for. As the library
// sees it, [a] is one all the same.
func literal(pattern string) (path string, ok bool) {
	var out []byte
	for i := 0; i < len(pattern); i++ {
		if strings.IndexByte(".^$?*+|[({", pattern[i]) >= 0 {
			return "", false
		}
		if pattern[i] == '\\' {
			if i++; i == len(pattern) {
				return "", false // which the compiler refuses
			}
		}
		out = append(out, pattern[i])
	}
	return string(out), true
}

func parseSubs(name string, b []byte) (subs []substitution, err error) {
	err = lines(name, b, func(words []string) error {
		if len(words) != 2 || !strings.HasPrefix(words[0], "/") || !strings.HasPrefix(words[1], "/") {
			return errors.New("want two absolute paths")
		}
		subs = append(subs, substitution{words[0], words[1]})
		return nil
	})
	return subs, err
}

// substitute is path as one list of substitutions has it.
func substitute(subs []substitution, path string) string {
	for _, s := range subs {
		rest, ok := strings.CutPrefix(path, s.from)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		if s.to == "/" && rest != "" {
			return rest
		}
		return s.to + rest
	}
	return path
}

// Label is the context of an absolute path of a file with that mode; false
// where it has none.
func (c *Contexts) Label(path string, mode uint32) (context string, ok bool) {
	for _, subs := range c.subs {
		path = substitute(subs, path)
	}
	typ := mode & typeMask
	for _, s := range c.exact[path] {
		if s.matches(path, typ) {
			return s.context, s.context != none
		}
	}
	var best *spec
	for _, list := range [][]*spec{c.patterns[firstFolder(path)], c.patterns[""]} {
		for _, s := range list {
			if best != nil && c.order[s] > c.order[best] {
				break
			}
			if s.matches(path, typ) {
				best = s
				break
			}
		}
		if firstFolder(path) == "" {
			break // both are one list
		}
	}
	if best == nil || best.context == none {
		return "", false
	}
	return best.context, true
}

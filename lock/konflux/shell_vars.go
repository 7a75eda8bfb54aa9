package konflux

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

func (s *shell) set(name, value string) {
	v := variable{value: expand.Variable{Set: true, Kind: expand.String, Str: value}}
	if len(value) > maxValue {
		v = variable{why: "it is longer than is followed"}
	}
	s.vars[name] = v
}

// assign sets a variable.
func (s *shell) assign(a *syntax.Assign) {
	name := a.Name.Value
	old := s.vars[name]
	var v variable
	switch {
	case a.Array != nil:
		var words []*syntax.Word
		for _, e := range a.Array.Elems {
			if e.Index != nil {
				v.why = "it is an array with keys"
			}
			words = append(words, e.Value)
		}
		list, ok := s.fields(words)
		if !ok && v.why == "" {
			v.why = s.why
		}
		v.value = expand.Variable{Set: true, Kind: expand.Indexed, List: list}
	case a.Index != nil:
		v.why = "it is an array with keys"
	default:
		text, ok := "", true
		if a.Value != nil {
			text, ok = s.literal(a.Value)
		}
		if !ok {
			v.why = s.why
		}
		v.value = expand.Variable{Set: true, Kind: expand.String, Str: text}
	}
	if a.Append && old.value.Set {
		v = joined(old, v)
	}
	if v.why == "" && len(v.value.Str)+len(v.value.List) > maxValue {
		v.why = "it is longer than is followed"
	}
	s.vars[name] = v
}

// joined is what += makes.
func joined(old, v variable) variable {
	if old.why != "" {
		return old
	}
	switch {
	case old.value.Kind == expand.Indexed && v.value.Kind == expand.Indexed:
		v.value.List = slices.Concat(old.value.List, v.value.List)
	case old.value.Kind == expand.String && v.value.Kind == expand.String:
		v.value.Str = old.value.Str + v.value.Str
	default:
		v.why = "it is a text and an array"
	}
	return v
}

// Get and Each make the variables those of an expansion.
func (s *shell) Get(name string) expand.Variable {
	if user, ok := strings.CutPrefix(name, "HOME "); ok {
		return expand.Variable{Set: true, Kind: expand.String, Str: "~" + user}
	}
	switch {
	case name == "@" || name == "*":
		return expand.Variable{Set: true, Kind: expand.Indexed, List: s.args}
	case name == "#":
		return expand.Variable{Set: true, Kind: expand.String, Str: fmt.Sprint(len(s.args))}
	case len(name) == 1 && name[0] >= '1' && name[0] <= '9':
		if i := int(name[0] - '1'); i < len(s.args) {
			return expand.Variable{Set: true, Kind: expand.String, Str: s.args[i]}
		}
		return expand.Variable{}
	case name == "HOSTTYPE":
		return expand.Variable{Set: true, Kind: expand.String, Str: s.w.arch}
	case name == "IFS":
		return expand.Variable{} // as it is unless it is set: other words are an error of the line
	}
	v := s.vars[name]
	if v.why != "" {
		if strings.HasPrefix(v.why, "variable ") { // it comes from there
			s.blame("%s", v.why)
		}
		s.blame("variable %s: %s", name, v.why)
		return expand.Variable{}
	}
	return v.value
}

func (s *shell) Each(f func(string, expand.Variable) bool) {
	for _, name := range slices.Sorted(maps.Keys(s.vars)) {
		if v := s.vars[name]; v.why == "" && !f(name, v.value) {
			return
		}
	}
}

// blame notes why the word at hand cannot be told.
func (s *shell) blame(format string, args ...any) {
	if s.why == "" {
		s.why = fmt.Sprintf(format, args...)
	}
}

// expanding calls f with a configuration, and tells whether all was known.
func (s *shell) expanding(f func(*expand.Config) error) bool {
	s.why = ""
	err := f(&expand.Config{Env: s, CmdSubst: s.substitute, NoUnset: true})
	var unset expand.UnsetParameterError
	switch {
	case errors.As(err, &unset):
		s.blame("variable %s has no value", unset.Node.Param.Value)
	case err != nil:
		s.blame("%s", err)
	}
	return s.why == ""
}

// fields expands words as a command's.
func (s *shell) fields(words []*syntax.Word) ([]string, bool) {
	for _, w := range words {
		if !boundedBraces(w) {
			s.why = "braces that make too many words"
			return nil, false
		}
	}
	var out []string
	ok := s.expanding(func(cfg *expand.Config) (err error) {
		out, err = expand.Fields(cfg, words...)
		return err
	})
	return out, ok
}

// literal expands a word as one text.
func (s *shell) literal(w *syntax.Word) (string, bool) {
	var out string
	ok := s.expanding(func(cfg *expand.Config) (err error) {
		out, err = expand.Literal(cfg, w)
		return err
	})
	return out, ok
}

// document expands the text of a heredoc.
func (s *shell) document(w *syntax.Word) (string, bool) {
	var out string
	ok := s.expanding(func(cfg *expand.Config) (err error) {
		out, err = expand.Document(cfg, w)
		return err
	})
	return out, ok
}

// boundedBraces tells whether {a,b} in a word make a moderate number of
// words.
func boundedBraces(w *syntax.Word) bool {
	c := *w
	c.Parts = slices.Clone(w.Parts)
	if !syntax.SplitBraces(&c) {
		return true
	}
	var count func(parts []syntax.WordPart) int
	count = func(parts []syntax.WordPart) int {
		n := 1
		for _, p := range parts {
			b, ok := p.(*syntax.BraceExp)
			if !ok {
				continue
			}
			if b.Sequence {
				return maxBraces + 1
			}
			sum := 0
			for _, e := range b.Elems {
				sum = min(sum+count(e.Parts), maxBraces+1)
			}
			n = min(n*max(sum, 1), maxBraces+1)
		}
		return n
	}
	return count(c.Parts) <= maxBraces
}

// substitute is what a command in $( ) writes.
func (s *shell) substitute(w io.Writer, c *syntax.CmdSubst) error {
	child := s.child()
	child.out, child.in, child.why = &output{}, nil, ""
	child.stmts(c.Stmts)
	if child.err != nil {
		s.err = child.err
	}
	if child.out.why != "" {
		return errors.New(child.out.why)
	}
	_, err := w.Write(child.out.b.Bytes())
	return err
}

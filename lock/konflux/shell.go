package konflux

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"
)

// Limits of what a shell does.
const (
	maxStatements = 50_000
	maxNested     = 20
	maxValue      = 1 << 20 // bytes of a variable or of what a command writes
	maxBraces     = 4096    // words of one with braces
)

// outcome is how a command ends, as far as it can be told.
type outcome int

const (
	succeeds outcome = iota
	fails
	// depends: on what is in the image.
	depends
	// runs: some program, of which nothing is known. What comes after && is
	// run all the same, for else the build would fail.
	runs
)

func (o outcome) not() outcome {
	switch o {
	case succeeds:
		return fails
	case fails:
		return succeeds
	}
	return depends
}

// output is what commands write or read; why is not empty where that cannot
// be told.
type output struct {
	b   bytes.Buffer
	why string
}

func (o *output) unknown(why string) {
	if o != nil && o.why == "" {
		o.why = why
	}
}

// variable is a shell variable; why is not empty where its value cannot be
// told.
type variable struct {
	value expand.Variable
	why   string
}

// shell follows a script without running a program: what it asks the package
// manager for, on one arch. Of conditions that depend on the image, all
// branches count.
type shell struct {
	w     *stageWalk
	file  string
	line  int // of the whole script, where its own lines do not count; else 0
	vars  map[string]variable
	funcs map[string]*syntax.Stmt
	args  []string // $1 …
	in    *output
	out   *output // nil: nobody reads it
	depth int
	// sure is false in a branch that may not be taken; ended says that exit
	// or return was reached.
	sure, ended bool
	why         string // why the word at hand cannot be told
	err         error
}

func newShell(w *stageWalk, file string, line int) *shell {
	s := &shell{w: w, file: file, line: line, vars: map[string]variable{}, funcs: map[string]*syntax.Stmt{}, sure: true}
	for name, a := range w.vars {
		if a.set {
			s.vars[name] = variable{value: expand.Variable{Set: true, Kind: expand.String, Str: a.value}}
		}
	}
	return s
}

// child is a shell that changes nothing of its parent's, as a subshell is.
func (s *shell) child() *shell {
	c := *s
	c.vars, c.depth = maps.Clone(s.vars), s.depth+1
	return &c
}

// fail notes an error at a place; the first stays.
func (s *shell) fail(pos syntax.Pos, format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("%s: %w", s.at(pos), fmt.Errorf(format, args...))
	}
}

func (s *shell) at(pos syntax.Pos) string {
	line := s.line
	if line == 0 {
		line = int(pos.Line())
	}
	if line == 0 {
		return s.file
	}
	return fmt.Sprintf("%s:%d", s.file, line)
}

// script runs a text.
func (s *shell) script(text string) {
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		if mentionsManager(text) {
			s.fail(syntax.Pos{}, "no shell script: %w", err)
		}
		return
	}
	s.stmts(f.Stmts)
}

// mentionsManager tells whether a text has the name of the package manager as
// a word.
func mentionsManager(text string) bool {
	return slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" \t\n;&|()'\"`$", r) }), isManager)
}

func (s *shell) stmts(list []*syntax.Stmt) outcome {
	last := succeeds
	for _, st := range list {
		if s.ended || s.err != nil {
			break
		}
		last = s.stmt(st)
	}
	return last
}

func (s *shell) stmt(st *syntax.Stmt) outcome {
	if s.w.budget--; s.w.budget < 0 || s.depth > maxNested {
		s.fail(st.Pos(), "a script that is too long or too deeply nested to be followed")
		return runs
	}
	in, out := s.in, s.out
	defer func() { s.in, s.out = in, out }()
	for _, r := range st.Redirs {
		s.redirect(r)
	}
	o := s.command(st.Cmd)
	if st.Cmd == nil && len(st.Redirs) > 0 && out != nil && s.in != nil { // $(<file)
		s.copyIn()
	}
	if st.Negated {
		o = o.not()
	}
	return o
}

// copyIn writes what is read.
func (s *shell) copyIn() {
	if s.out == nil {
		return
	}
	if s.in == nil {
		s.out.unknown("what a command reads")
		return
	}
	s.out.unknown(s.in.why)
	s.write(s.in.b.String())
}

func (s *shell) write(text string) {
	if s.out == nil {
		return
	}
	if s.out.b.Len()+len(text) > maxValue {
		s.out.unknown("more output than is followed")
		return
	}
	s.out.b.WriteString(text)
}

func (s *shell) redirect(r *syntax.Redirect) {
	switch r.Op {
	case syntax.RdrIn:
		in := &output{}
		name, ok := s.literal(r.Word)
		if !ok {
			in.unknown(s.why)
		} else if b, found := s.w.file(name); found {
			in.b.Write(b)
		} else {
			in.unknown(fmt.Sprintf("the file %s, which is not in the build's folder", name))
		}
		s.in = in
	case syntax.Hdoc, syntax.DashHdoc, syntax.WordHdoc:
		in, text, ok := &output{}, "", true
		if r.Op == syntax.WordHdoc {
			text, ok = s.literal(r.Word)
		} else if r.Hdoc != nil {
			text, ok = s.document(r.Hdoc)
		}
		if !ok {
			in.unknown(s.why)
		}
		in.b.WriteString(text)
		s.in = in
	case syntax.RdrOut, syntax.AppOut, syntax.RdrAll, syntax.AppAll:
		if r.N == nil || r.N.Value == "1" {
			s.out = nil
		}
	}
}

func (s *shell) command(cmd syntax.Command) outcome {
	switch c := cmd.(type) {
	case *syntax.CallExpr:
		return s.callExpr(c)
	case *syntax.Block:
		return s.stmts(c.Stmts)
	case *syntax.Subshell:
		child := s.child()
		o := child.stmts(c.Stmts)
		s.err = child.err
		return o
	case *syntax.BinaryCmd:
		return s.binary(c)
	case *syntax.IfClause:
		return s.ifClause(c)
	case *syntax.CaseClause:
		return s.caseClause(c)
	case *syntax.ForClause:
		return s.forClause(c)
	case *syntax.WhileClause:
		s.stmts(c.Cond)
		s.either(func(b *shell) { b.stmts(c.Do) }, func(*shell) {})
		return runs
	case *syntax.FuncDecl:
		s.funcs[c.Name.Value] = c.Body
		return succeeds
	case *syntax.DeclClause:
		for _, a := range c.Args {
			if !a.Naked && a.Name != nil {
				s.assign(a)
			}
		}
		return succeeds
	case *syntax.TestClause:
		return s.test(c.X)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			return s.stmt(c.Stmt)
		}
	}
	return depends
}

func (s *shell) binary(c *syntax.BinaryCmd) outcome {
	if c.Op == syntax.Pipe || c.Op == syntax.PipeAll {
		left := s.child()
		left.out = &output{}
		left.stmt(c.X)
		right := s.child()
		right.in, right.err = left.out, left.err
		o := right.stmt(c.Y)
		s.err = right.err
		return o
	}
	left := s.stmt(c.X)
	if s.ended || s.err != nil {
		return left
	}
	if c.Op == syntax.AndStmt {
		switch left {
		case fails:
			return fails
		case succeeds, runs:
			return s.stmt(c.Y)
		}
	} else if left == succeeds {
		return succeeds
	} else if left == fails {
		return s.stmt(c.Y)
	}
	s.either(func(b *shell) { b.stmt(c.Y) }, func(*shell) {})
	return depends
}

func (s *shell) ifClause(c *syntax.IfClause) outcome {
	if len(c.Cond) == 0 { // else
		return s.stmts(c.Then)
	}
	cond := s.stmts(c.Cond)
	if s.ended || s.err != nil {
		return cond
	}
	other := func(b *shell) outcome {
		if c.Else != nil {
			return b.ifClause(c.Else)
		}
		return succeeds
	}
	switch cond {
	case succeeds:
		return s.stmts(c.Then)
	case fails:
		return other(s)
	}
	s.either(func(b *shell) { b.stmts(c.Then) }, func(b *shell) { other(b) })
	return depends
}

// either runs branches of which one will be taken. A variable that they leave
// with different values has none that can be told, and so with output.
func (s *shell) either(branches ...func(*shell)) {
	var ends []*shell
	for _, run := range branches {
		b := s.child()
		b.sure = false
		if s.out != nil {
			b.out = &output{}
		}
		run(b)
		if s.err = b.err; s.err != nil {
			return
		}
		ends = append(ends, b)
	}
	const why = "it depends on what is in the image"
	first := ends[0]
	for _, b := range ends[1:] {
		for name := range b.vars {
			if _, ok := first.vars[name]; !ok {
				first.vars[name] = variable{}
			}
		}
		for name, v := range first.vars {
			if o := b.vars[name]; v.why == "" && (o.why != "" || !sameValue(o.value, v.value)) {
				first.vars[name] = variable{why: why}
			}
		}
		if s.out != nil && (b.out.why != "" || !bytes.Equal(b.out.b.Bytes(), first.out.b.Bytes())) {
			first.out.unknown(why)
		}
	}
	s.vars = first.vars
	if s.out != nil {
		s.out.unknown(first.out.why)
		s.write(first.out.b.String())
	}
}

func sameValue(a, b expand.Variable) bool {
	return a.Set == b.Set && a.Str == b.Str && slices.Equal(a.List, b.List) && maps.Equal(a.Map, b.Map)
}

func (s *shell) caseClause(c *syntax.CaseClause) outcome {
	word, known := s.literal(c.Word)
	var branches []func(*shell)
	for _, item := range c.Items {
		match := depends
		if known {
			match = fails
			for _, p := range item.Patterns {
				match = anyOf(match, s.matches(p, word))
			}
		}
		if match == succeeds && len(branches) == 0 {
			return s.stmts(item.Stmts)
		}
		if match != fails {
			branches = append(branches, func(b *shell) { b.stmts(item.Stmts) })
		}
	}
	if len(branches) > 0 {
		s.either(append(branches, func(*shell) {})...)
		return depends
	}
	return succeeds
}

func (s *shell) forClause(c *syntax.ForClause) outcome {
	loop, ok := c.Loop.(*syntax.WordIter)
	if !ok {
		s.either(func(b *shell) { b.stmts(c.Do) }, func(*shell) {})
		return runs
	}
	items, known := s.fields(loop.Items)
	if !loop.InPos.IsValid() {
		items, known = s.args, true
	}
	if !known {
		s.vars[loop.Name.Value] = variable{why: s.why}
		s.either(func(b *shell) { b.stmts(c.Do) }, func(*shell) {})
		return runs
	}
	for _, item := range items {
		s.set(loop.Name.Value, item)
		if s.stmts(c.Do); s.ended || s.err != nil {
			break
		}
	}
	return runs
}

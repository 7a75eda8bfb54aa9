package konflux

import (
	"regexp"
	"slices"
	"strconv"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"
)

// anyOf is a || b, both is a && b, of what is known of them.
func anyOf(a, b outcome) outcome {
	switch {
	case a == succeeds || b == succeeds:
		return succeeds
	case a == fails && b == fails:
		return fails
	}
	return depends
}

func both(a, b outcome) outcome { return anyOf(a.not(), b.not()).not() }

func truth(b bool) outcome {
	if b {
		return succeeds
	}
	return fails
}

// matches tells whether a text matches a pattern of the shell.
func (s *shell) matches(w *syntax.Word, text string) outcome {
	var pat string
	ok := s.expanding(func(cfg *expand.Config) (err error) {
		pat, err = expand.Pattern(cfg, w)
		return err
	})
	if !ok {
		return depends
	}
	expr, err := pattern.Regexp(pat, pattern.EntireString)
	if err != nil {
		return depends
	}
	re, err := regexp.Compile(expr)
	if err != nil {
		return depends
	}
	return truth(re.MatchString(text))
}

// test is [[ … ]].
func (s *shell) test(x syntax.TestExpr) outcome {
	switch x := x.(type) {
	case *syntax.ParenTest:
		return s.test(x.X)
	case *syntax.Word:
		text, ok := s.literal(x)
		if !ok {
			return depends
		}
		return truth(text != "")
	case *syntax.UnaryTest:
		if x.Op == syntax.TsNot {
			return s.test(x.X).not()
		}
		w, ok := x.X.(*syntax.Word)
		if !ok {
			return depends
		}
		text, ok := s.literal(w)
		switch {
		case ok && x.Op == syntax.TsEmpStr:
			return truth(text == "")
		case ok && x.Op == syntax.TsNempStr:
			return truth(text != "")
		}
		return depends
	case *syntax.BinaryTest:
		return s.binaryTest(x)
	}
	return depends
}

func (s *shell) binaryTest(x *syntax.BinaryTest) outcome {
	switch x.Op {
	case syntax.AndTest:
		return both(s.test(x.X), s.test(x.Y))
	case syntax.OrTest:
		return anyOf(s.test(x.X), s.test(x.Y))
	}
	l, lok := x.X.(*syntax.Word)
	r, rok := x.Y.(*syntax.Word)
	if !lok || !rok {
		return depends
	}
	left, known := s.literal(l)
	if !known {
		return depends
	}
	switch x.Op {
	case syntax.TsMatch, syntax.TsMatchShort:
		return s.matches(r, left)
	case syntax.TsNoMatch:
		return s.matches(r, left).not()
	}
	right, known := s.literal(r)
	if !known {
		return depends
	}
	if x.Op == syntax.TsReMatch {
		re, err := regexp.Compile(right)
		if err != nil {
			return depends
		}
		return truth(re.MatchString(left))
	}
	return compareTest(left, x.Op.String(), right)
}

// compareTest is a comparison of [ and of [[.
func compareTest(a, op, b string) outcome {
	switch op {
	case "=", "==":
		return truth(a == b)
	case "!=":
		return truth(a != b)
	}
	x, err1 := strconv.Atoi(a)
	y, err2 := strconv.Atoi(b)
	if err1 != nil || err2 != nil {
		return depends
	}
	switch op {
	case "-eq":
		return truth(x == y)
	case "-ne":
		return truth(x != y)
	case "-lt":
		return truth(x < y)
	case "-le":
		return truth(x <= y)
	case "-gt":
		return truth(x > y)
	case "-ge":
		return truth(x >= y)
	}
	return depends
}

// testArgs is [ … ] or test ….
func (s *shell) testArgs(args []string) outcome {
	if args[0] == "[" {
		if args[len(args)-1] != "]" {
			return depends
		}
		args = args[:len(args)-1]
	}
	return testWords(args[1:])
}

func testWords(w []string) outcome {
	switch {
	case len(w) == 0:
		return fails
	case len(w) == 1:
		return truth(w[0] != "")
	case len(w) == 3 && slices.Contains([]string{"=", "==", "!=", "-eq", "-ne", "-lt", "-le", "-gt", "-ge"}, w[1]):
		return compareTest(w[0], w[1], w[2])
	case w[0] == "!":
		return testWords(w[1:]).not()
	case len(w) == 2 && w[0] == "-n":
		return truth(w[1] != "")
	case len(w) == 2 && w[0] == "-z":
		return truth(w[1] == "")
	}
	for _, op := range []string{"-o", "-a"} {
		if i := slices.Index(w, op); i > 0 && i < len(w)-1 {
			if op == "-o" {
				return anyOf(testWords(w[:i]), testWords(w[i+1:]))
			}
			return both(testWords(w[:i]), testWords(w[i+1:]))
		}
	}
	return depends
}

package konflux

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"
)

// yamlKind is what YAML 1.1 takes a plain scalar for.
type yamlKind int

const (
	typeText yamlKind = iota
	typeNull
	typeOther // a number, a truth value, a date …
)

// Plain scalars that are no texts in YAML 1.1, as PyYAML resolves them
// (https://yaml.org/type/).
var (
	nullRE  = regexp.MustCompile(`^(?:~|null|Null|NULL|)$`)
	otherRE = regexp.MustCompile(`^(?:` + strings.Join([]string{
		`yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF|<<|=`,
		`[-+]?(?:0b[0-1_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*(?::[0-5]?[0-9])+)`,
		`[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?`,
		`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`,
		`[0-9]{4}-[0-9]{2}-[0-9]{2}`,
		`[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt]|[ \t]+)[0-9]{1,2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9]{1,2}(?::[0-9]{2})?))?`,
	}, "|") + `)$`)
)

func yamlType(s string) yamlKind {
	switch {
	case nullRE.MatchString(s):
		return typeNull
	case otherRE.MatchString(s):
		return typeOther
	}
	return typeText
}

// yamlWriter writes scalars as PyYAML's dump does with its defaults: plain
// where it can be, else in single quotes, else in double quotes; ASCII; lines
// that are longer than 80 characters are folded at spaces.
type yamlWriter struct {
	b      bytes.Buffer
	column int
	fresh  bool // the line has nothing but indentation yet
}

const foldWidth = 80

func (w *yamlWriter) raw(s string) {
	w.b.WriteString(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		w.column = utf8.RuneCountInString(s[i+1:])
		w.fresh = true
		return
	}
	w.column += utf8.RuneCountInString(s)
	if strings.Trim(s, " ") != "" {
		w.fresh = false
	}
}

// newline goes to the given column of a new line, unless the line that has
// been begun is empty still.
func (w *yamlWriter) newline(indent int) {
	if !w.fresh || w.column > indent {
		w.raw("\n")
	}
	if w.column < indent {
		w.raw(strings.Repeat(" ", indent-w.column))
	}
	w.fresh = false
}

func isBreak(r rune) bool { return r == '\n' || r == '\x85' || r == '\u2028' || r == '\u2029' }

// scalarShape is what can be told about a text as a scalar in a block.
type scalarShape struct {
	plain, single bool // whether it may be written so
}

// indicates tells whether a character means something to YAML where it is.
func indicates(rs []rune, i int) bool {
	blank := func(i int) bool {
		return i < 0 || i >= len(rs) || strings.ContainsRune("\x00 \t\r\n\u0085\u2028\u2029", rs[i])
	}
	r := rs[i]
	if i == 0 {
		return strings.ContainsRune("#,[]{}&*!|>'\"%@`", r) || strings.ContainsRune("?:-", r) && blank(1)
	}
	return r == ':' && blank(i+1) || r == '#' && blank(i-1)
}

// shape follows what PyYAML's emitter looks at: indicators, spaces at the
// ends and beside line breaks, and characters that need an escape.
func shape(text string) scalarShape {
	rs := []rune(text)
	out := scalarShape{plain: yamlType(text) == typeText, single: true}
	if strings.HasPrefix(text, "---") || strings.HasPrefix(text, "...") {
		out.plain = false
	}
	spaceBefore, breakBefore := false, false
	for i, r := range rs {
		if indicates(rs, i) {
			out.plain = false
		}
		if r != '\n' && (r < ' ' || r > '~') {
			out.plain, out.single = false, false
		}
		switch {
		case r == ' ':
			if i == 0 || i == len(rs)-1 {
				out.plain = false
			}
			if breakBefore {
				out.plain, out.single = false, false
			}
			spaceBefore, breakBefore = true, false
		case isBreak(r):
			out.plain = false
			if spaceBefore {
				out.single = false
			}
			spaceBefore, breakBefore = false, true
		default:
			spaceBefore, breakBefore = false, false
		}
	}
	return out
}

// scalar writes a text; lines after the first begin at the column indent.
func (w *yamlWriter) scalar(text string, indent int) {
	switch s := shape(text); {
	case s.plain:
		w.words(text, indent, false)
	case s.single:
		w.raw("'")
		w.words(text, indent, true)
		w.raw("'")
	default:
		w.double(text, indent)
	}
}

// words writes a plain or single-quoted text. A single space beyond the
// width becomes a line break, and a line break is written twice.
func (w *yamlWriter) words(text string, indent int, single bool) {
	rs := []rune(text)
	run := func(i int, in func(rune) bool) int {
		for i < len(rs) && in(rs[i]) {
			i++
		}
		return i
	}
	for i := 0; i < len(rs); {
		start := i
		switch {
		case rs[i] == ' ':
			i = run(i, func(r rune) bool { return r == ' ' })
			if i == start+1 && w.column > foldWidth && (!single || start != 0 && i != len(rs)) {
				w.newline(indent)
			} else {
				w.raw(string(rs[start:i]))
			}
		case isBreak(rs[i]):
			i = run(i, isBreak)
			w.raw("\n" + string(rs[start:i]))
			w.newline(indent)
		default:
			i = run(i, func(r rune) bool { return r != ' ' && !isBreak(r) })
			word := string(rs[start:i])
			if single {
				word = strings.ReplaceAll(word, "'", "''")
			}
			w.raw(word)
		}
	}
}

// escapes are the short escapes of a double-quoted scalar.
var escapes = map[rune]string{
	0: "0", 7: "a", 8: "b", '\t': "t", '\n': "n", '\v': "v", '\f': "f", '\r': "r", 0x1b: "e", '"': `"`, '\\': `\`,
	0x85: "N", 0xa0: "_", 0x2028: "L", 0x2029: "P",
}

func escape(r rune) string {
	if e, ok := escapes[r]; ok {
		return `\` + e
	}
	switch {
	case r <= 0xff:
		return fmt.Sprintf(`\x%02X`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}

// double writes a double-quoted text. It is folded beyond the width at a
// space or after an escape, with a backslash before the line break.
func (w *yamlWriter) double(text string, indent int) {
	w.raw(`"`)
	rs := []rune(text)
	start := 0 // what is not written yet
	for i := 0; i <= len(rs); i++ {
		if i == len(rs) || rs[i] == '"' || rs[i] == '\\' || rs[i] < ' ' || rs[i] > '~' {
			w.raw(string(rs[start:i]))
			start = i
			if i < len(rs) {
				w.raw(escape(rs[i]))
				start = i + 1
			}
		}
		space := i < len(rs) && rs[i] == ' '
		if i > 0 && i < len(rs)-1 && (space || start >= i) && w.column+i-start > foldWidth {
			if start < i {
				w.raw(string(rs[start:i]))
				start = i
			}
			w.raw(`\`)
			w.newline(indent)
			if rs[start] == ' ' {
				w.raw(`\`)
			}
		}
	}
	w.raw(`"`)
}

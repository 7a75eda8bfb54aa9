package live

import (
	"strings"
	"unicode"

	"golang.org/x/text/width"
)

// Width is how many columns a text takes. Sequences that only set colours
// (SGR, "\x1b[…m") take none, nor do combining characters; wide ones of East
// Asia take two.
func Width(s string) int {
	n := 0
	for s != "" {
		_, w, rest := next(s)
		n, s = n+w, rest
	}
	return n
}

// Cut is the beginning of a text that takes at most so many columns. Where
// something is left out, colours are reset.
func Cut(s string, columns int) string {
	n, coloured := 0, false
	for rest := s; rest != ""; {
		part, w, after := next(rest)
		coloured = coloured || part[0] == '\x1b'
		if n += w; n > columns {
			s = s[:len(s)-len(rest)]
			if coloured {
				s += "\x1b[0m"
			}
			return s
		}
		rest = after
	}
	return s
}

// next is the first character of a text, or a sequence that sets colours, and
// how many columns it takes.
func next(s string) (part string, columns int, rest string) {
	if strings.HasPrefix(s, "\x1b[") {
		if i := strings.IndexByte(s, 'm'); i > 0 && strings.Trim(s[2:i], "0123456789;") == "" {
			return s[:i+1], 0, s[i+1:]
		}
	}
	for i, r := range s {
		if i > 0 {
			return s[:i], columns, s[i:]
		}
		columns = runeWidth(r)
	}
	return s, columns, ""
}

func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}

// Plain is a text from elsewhere, such as a file's name, as it can be shown:
// what would move the cursor, set a colour or turn the direction of writing
// is a question mark.
func Plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || unicode.In(r, unicode.Cf, unicode.Zl, unicode.Zp) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, s)
}

// Bar is a bar of so many columns, 3 or more, of which a fraction is done.
func Bar(columns int, fraction float64) (done, left string) {
	inner := max(1, columns-2)
	n := min(inner, max(0, int(fraction*float64(inner))))
	return "[" + strings.Repeat("=", n), strings.Repeat(" ", inner-n) + "]"
}

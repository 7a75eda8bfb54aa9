// Package vttest is a small terminal for tests: what a program writes becomes
// rows of characters, as a person would see them.
//
// It knows what package live and a shell's programs here use: CR, LF, the
// cursor up (CUU), erasing of rows and of what is below (EL 0, ED 0), and
// colours (SGR), which it takes note of and does not keep. It wraps as VT100
// does: at the character after the last column. Made narrower or wider, it
// breaks its lines anew. Anything else is a failure: see Unknown.
package vttest

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Terminal is a terminal of some size. Rows that pass off its top are kept.
type Terminal struct {
	columns, height int
	rows            []row
	x, y            int // of the cursor; y counts from the first row ever
	wrapping        bool
	pending         string // a sequence or character that has not ended

	// Wrapped counts the times a line was broken because it was too long.
	Wrapped int
	// Colours counts the sequences that set one.
	Colours int
	// Unknown are sequences that it does not know.
	Unknown []string
}

type row struct {
	text []rune
	more bool // the next row goes on with it
}

// New makes an empty terminal.
func New(columns, height int) *Terminal {
	return &Terminal{columns: columns, height: height, rows: make([]row, 1)}
}

// Size is the size it has now.
func (t *Terminal) Size() (columns, rows int) { return t.columns, t.height }

// Write shows what a program writes.
func (t *Terminal) Write(p []byte) (int, error) {
	s := t.pending + string(p)
	t.pending = ""
	for s != "" {
		if s[0] == '\x1b' {
			n := strings.IndexFunc(s[1:], func(r rune) bool { return r >= 0x40 && r != '[' })
			if n < 0 {
				break
			}
			t.sequence(s[:n+2])
			s = s[n+2:]
			continue
		}
		if !utf8.FullRuneInString(s) {
			break
		}
		r, n := utf8.DecodeRuneInString(s)
		t.character(r)
		s = s[n:]
	}
	t.pending = s
	return len(p), nil
}

func (t *Terminal) sequence(s string) {
	body, ok := strings.CutPrefix(s[:len(s)-1], "\x1b[")
	n, err := strconv.Atoi(body)
	switch last := s[len(s)-1]; {
	case ok && last == 'm':
		t.Colours++
	case ok && last == 'A' && err == nil:
		t.y, t.wrapping = max(t.y-n, t.top(), 0), false
	case ok && last == 'K' && body == "":
		t.erase()
	case ok && last == 'J' && body == "":
		t.erase()
		t.rows = t.rows[:t.y+1]
	default:
		t.Unknown = append(t.Unknown, s)
	}
}

// top is the first row that can be reached.
func (t *Terminal) top() int { return max(0, len(t.rows)-t.height) }

// erase erases from the cursor to the end of its row.
func (t *Terminal) erase() {
	r := &t.rows[t.y]
	r.text, r.more = r.text[:min(len(r.text), t.x)], false
}

func (t *Terminal) character(c rune) {
	switch c {
	case '\r':
		t.x, t.wrapping = 0, false
		return
	case '\n':
		t.down()
		t.x = 0 // the terminal's driver makes \r\n of it (ONLCR)
		return
	}
	if t.wrapping {
		t.rows[t.y].more = true
		t.Wrapped++
		t.down()
		t.x = 0
	}
	r := &t.rows[t.y]
	for len(r.text) <= t.x {
		r.text = append(r.text, ' ')
	}
	r.text[t.x] = c
	if t.x++; t.x == t.columns {
		t.x, t.wrapping = t.x-1, true
	}
}

func (t *Terminal) down() {
	t.wrapping = false
	if t.y++; t.y == len(t.rows) {
		t.rows = append(t.rows, row{})
	}
}

// Resize makes the terminal another size and breaks its lines anew.
func (t *Terminal) Resize(columns, height int) {
	var lines [][]rune
	at := 0 // the cursor's line
	for i, from := 0, 0; i < len(t.rows); i++ {
		if i > 0 && t.rows[i-1].more {
			lines[len(lines)-1] = append(lines[len(lines)-1], t.rows[i].text...)
		} else {
			lines, from = append(lines, t.rows[i].text), i
		}
		if i == t.y {
			at = len(lines) - 1
			t.x += (t.y - from) * t.columns
		}
	}
	t.columns, t.height, t.wrapping = columns, height, false
	t.rows = nil
	for i, l := range lines {
		if i == at {
			t.y = len(t.rows) + t.x/columns
			t.x %= columns
		}
		for len(l) > columns {
			t.rows = append(t.rows, row{l[:columns:columns], true})
			l = l[columns:]
		}
		t.rows = append(t.rows, row{l, false})
	}
}

// Lines are all rows, those that have passed off the top included, without
// empty ones at the end.
func (t *Terminal) Lines() []string {
	var out []string
	for _, r := range t.rows {
		out = append(out, strings.TrimRight(string(r.text), " "))
	}
	for len(out) > 0 && out[len(out)-1] == "" {
		out = out[:len(out)-1]
	}
	return out
}

// Cursor is where the cursor is; row 0 is the first row ever.
func (t *Terminal) Cursor() (column, row int) { return t.x, t.y }

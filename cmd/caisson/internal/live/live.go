// Package live keeps a few lines at the bottom of a terminal up to date while
// others pass above them.
//
// A frame is one write: up over the last frame, every line again with the rest
// of its row erased, and what is left of the old frame erased. After it the
// cursor is at the start of the row below. The cursor is not hidden, no mode of
// the terminal is changed and no other screen is used: however the program ends,
// there is nothing to restore, and a prompt or a panic has a row of its own.
//
// # Limits
//
// The terminal understands the cursor movements and erasures of ECMA-48 (all but
// TERM=dumb do). What somebody else writes to it displaces the frame. A terminal
// that is made narrower breaks the lines that it shows anew, as VTE, kitty, tmux
// and others do; of one that cuts them instead, rows above the frame can be
// erased, once, where it is made narrower than MaxWidth.
package live

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// MaxWidth is how many columns a frame takes at most, however wide the terminal
// is: a longer line is not easier to read.
const MaxWidth = 100

// Screen is the bottom of a terminal. Its methods must not be called at the
// same time.
type Screen struct {
	w       io.Writer
	size    func() (columns, rows int)
	shown   []string
	columns int // when it was shown
}

// New makes a Screen; size is asked before each frame.
func New(w io.Writer, size func() (columns, rows int)) *Screen {
	return &Screen{w: w, size: size}
}

// Width is how many columns a line may take now.
func (s *Screen) Width() int {
	columns, _ := s.size()
	return min(MaxWidth, max(1, columns-1))
}

// Draw writes whole lines above the frame, as they are, and replaces the frame.
// Its lines are cut to Width; of more than there are rows, the first are left
// out. It writes nothing where nothing changes.
func (s *Screen) Draw(above string, lines []string) error {
	next := s.fit(lines)
	columns, _ := s.size()
	if above == "" && slices.Equal(next, s.shown) && columns == s.columns {
		return nil
	}
	var b strings.Builder
	s.rewind(&b)
	if above != "" && len(s.shown) > 0 {
		b.WriteString("\x1b[J")
	}
	b.WriteString(above)
	for _, l := range next {
		b.WriteString(l + "\x1b[K\n")
	}
	if len(s.shown) > 0 {
		b.WriteString("\x1b[J")
	}
	s.shown, s.columns = next, columns
	_, err := io.WriteString(s.w, b.String())
	return err
}

// fit is lines as they fit the terminal.
func (s *Screen) fit(lines []string) []string {
	_, rows := s.size()
	lines = lines[max(0, len(lines)-max(1, rows-1)):]
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = Cut(l, s.Width())
	}
	return out
}

// rewind goes to the first row of the frame, of which a line may take several
// rows since the terminal has become narrower.
func (s *Screen) rewind(b *strings.Builder) {
	columns, rows := s.size()
	up := 0
	for _, l := range s.shown {
		up += max(1, (Width(l)+columns-1)/max(1, columns))
	}
	if up = min(up, rows-1); up > 0 {
		fmt.Fprintf(b, "\r\x1b[%dA", up)
	}
}

package live

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caisson/cmd/caisson/internal/vttest"
)

// writes counts the writes that reach a terminal.
type writes struct {
	*vttest.Terminal
	n int
}

func (w *writes) Write(p []byte) (int, error) {
	w.n++
	return w.Terminal.Write(p)
}

func screen(columns, rows int) (*Screen, *writes) {
	w := &writes{Terminal: vttest.New(columns, rows)}
	return New(w, w.Size), w
}

func want(t *testing.T, w *writes, lines ...string) {
	t.Helper()
	if got := w.Lines(); !slices.Equal(got, lines) {
		t.Errorf("the terminal shows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(lines, "\n"))
	}
	if w.Wrapped > 0 || len(w.Unknown) > 0 {
		t.Errorf("%d lines wrapped, sequences that are not known: %q", w.Wrapped, w.Unknown)
	}
	if x, y := w.Cursor(); x != 0 || y < len(lines) {
		t.Errorf("the cursor is at column %d of row %d", x, y)
	}
}

func draw(t *testing.T, s *Screen, above string, lines ...string) {
	t.Helper()
	if err := s.Draw(above, lines); err != nil {
		t.Fatal(err)
	}
}

// Frames replace each other, lines above them stay, and each step is one write.
func TestDraw(t *testing.T) {
	s, w := screen(40, 10)
	draw(t, s, "", "one", "two")
	want(t, w, "one", "two")
	draw(t, s, "", "ONE longer", "2", "three")
	want(t, w, "ONE longer", "2", "three")
	n := w.n
	draw(t, s, "", "ONE longer", "2", "three")
	if w.n != n {
		t.Error("the same frame was written again")
	}
	draw(t, s, "a warning\nof two lines\n", "only")
	want(t, w, "a warning", "of two lines", "only")
	draw(t, s, "a short one\n", "only", "and more")
	want(t, w, "a warning", "of two lines", "a short one", "only", "and more")
	if w.n != n+2 {
		t.Errorf("%d writes for 2 changes", w.n-n)
	}
	draw(t, s, "")
	want(t, w, "a warning", "of two lines", "a short one")
	draw(t, s, "the end\n")
	want(t, w, "a warning", "of two lines", "a short one", "the end")
}

// A frame of long lines is cut, of many lines shows the last; what passes above
// it is kept whole, whether or not it scrolls.
func TestFits(t *testing.T) {
	for _, columns := range []int{2, 10, 40, 80, 200} {
		s, w := screen(columns, 5)
		var above []string
		for i := range 12 {
			line := fmt.Sprint(i)
			above = append(above, line)
			draw(t, s, line+"\n", strings.Repeat("first ", 50), strings.Repeat("x", i*20), strings.Repeat("界", 120), "c", "d", "e")
			lines := w.Lines()
			if got := lines[:len(lines)-4]; !slices.Equal(got, above) {
				t.Fatalf("%d columns: above the frame is %q, want %q", columns, got, above)
			}
			if n := Width(lines[len(lines)-4]); n > min(columns-1, MaxWidth) {
				t.Errorf("%d columns: a line of %d", columns, n)
			}
		}
		if w.Wrapped > 0 {
			t.Errorf("%d columns: %d lines wrapped", columns, w.Wrapped)
		}
	}
}

// The frame follows the terminal's size, and leaves nothing of itself behind.
func TestResize(t *testing.T) {
	s, w := screen(120, 24)
	frame := []string{strings.Repeat("a", 200), strings.Repeat("b", 90), "short"}
	draw(t, s, "before\n", frame...)
	for _, columns := range []int{60, 40, 13, 100, 41, 200} {
		w.Resize(columns, 24)
		draw(t, s, "", frame...)
		n := min(MaxWidth, columns-1)
		want(t, w, "before", Cut(frame[0], n), Cut(frame[1], n), "short")
	}
	w.Resize(80, 3)
	draw(t, s, "", frame...)
	lines := w.Lines()
	if got := lines[len(lines)-2:]; !slices.Equal(got, []string{strings.Repeat("b", 79), "short"}) {
		t.Errorf("of three rows: %q", got)
	}
}

func TestDrawFails(t *testing.T) {
	s := New(failing{}, func() (int, int) { return 80, 24 })
	if err := s.Draw("x\n", nil); !errors.Is(err, errGone) {
		t.Errorf("got %v", err)
	}
}

var errGone = errors.New("gone")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errGone }

func TestText(t *testing.T) {
	const red, reset = "\x1b[31m", "\x1b[0m"
	for _, tt := range []struct {
		in    string
		width int
		cut   string // to 4 columns
	}{
		{"", 0, ""},
		{"abcd", 4, "abcd"},
		{"abcde", 5, "abcd"},
		{red + "ab" + reset + "cd", 4, red + "ab" + reset + "cd"},
		{red + "abcdef" + reset, 6, red + "abcd" + reset},
		{"e\u0301e\u0301e\u0301", 3, "e\u0301e\u0301e\u0301"},
		{"界界界", 6, "界界"},
		{"a界界", 5, "a界"},
		{"\x1b[2Jabcd", 8, "\x1b[2J"}, // no colour: Plain takes such out
	} {
		if got := Width(tt.in); got != tt.width {
			t.Errorf("width of %q: got %d, want %d", tt.in, got, tt.width)
		}
		if got := Cut(tt.in, 4); got != tt.cut && got != tt.cut+reset {
			t.Errorf("%q cut: got %q, want %q", tt.in, got, tt.cut)
		}
	}
	if got, want := Plain("a\x1b[2Jb\r\nc\u202edé\xff"), "a?[2Jb??c?dé?"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, tt := range []struct {
		fraction float64
		want     string
	}{{-1, "[     ]"}, {0, "[     ]"}, {0.5, "[==   ]"}, {0.999, "[==== ]"}, {1, "[=====]"}, {7, "[=====]"}} {
		if done, left := Bar(7, tt.fraction); done+left != tt.want {
			t.Errorf("%v: got %q, want %q", tt.fraction, done+left, tt.want)
		}
	}
}

func FuzzText(f *testing.F) {
	for _, s := range []string{"kernel-core-6.1", "\x1b[31mx", "\x1b[2J", "界", "e\u0301", "\xff\x00\n"} {
		f.Add(s, 5)
	}
	f.Fuzz(func(t *testing.T, s string, n int) {
		p := Plain(s)
		if c := Cut(p, n); Width(c) > max(n, 0) || !strings.HasPrefix(p, c) {
			t.Errorf("%q cut to %d: %q", p, n, c)
		}
		if i := strings.IndexFunc(p, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
			t.Errorf("%q has a control character", p)
		}
		Width(s)
	})
}

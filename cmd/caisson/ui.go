package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/term"

	"caisson/cmd/caisson/internal/live"
)

// ui is the only code that talks to a person. Results go to out, all else to
// err: on a terminal with lines at its bottom that show what goes on and how
// far it is, plain lines elsewhere.
type ui struct {
	out, err   io.Writer
	quiet      bool
	terminal   bool // it can be written over
	colour     bool
	colourFlag string  // --color
	started    bool    // a command's own work has begun
	course     *course // run's stages; nil where a command is on its own

	mu     sync.Mutex
	screen *live.Screen // nil without a terminal
	work   work         // what can say how far it is; nil for nothing
	said   time.Time    // when the last line was written
	ticks  bool         // the display is kept up to date
	over   chan struct{}

	broken error // the result could not be written
}

// work is something that goes on for a while and can say how far it is.
type work interface {
	// frame is the lines for a terminal.
	frame(now time.Time, l look) []string
	// plain is the same in a line; empty where there is nothing to say.
	plain(now time.Time) string
}

// look is how lines have to be for a terminal.
type look struct {
	width  int // in columns
	colour bool
}

// Times of the display.
const (
	frameInterval = 100 * time.Millisecond // between two frames
	clockAfter    = 2 * time.Second        // without a word before the clock shows
	plainInterval = 5 * time.Second        // between lines of progress where there is no terminal
)

func newUI(out, err *os.File) *ui {
	fd := int(err.Fd()) //nolint:gosec // a descriptor is a small number
	u := &ui{out: out, err: err, said: time.Now(), over: make(chan struct{})}
	if kind := os.Getenv("TERM"); term.IsTerminal(fd) && kind != "" && kind != "dumb" {
		u.useTerminal(func() (columns, rows int) {
			if w, h, e := term.GetSize(fd); e == nil && w > 0 && h > 0 {
				return w, h
			}
			return 80, 24
		})
		u.colour = os.Getenv("NO_COLOR") == ""
	}
	return u
}

// useTerminal says that err is a terminal, and of which size it is now.
func (u *ui) useTerminal(size func() (columns, rows int)) {
	u.terminal, u.screen = true, live.New(u.err, size)
}

// setColour is the flag --color.
func (u *ui) setColour() error {
	switch u.colourFlag {
	case "auto":
	case "always":
		u.colour = true
	case "never":
		u.colour = false
	default:
		return usageError{fmt.Errorf("--color %q: want auto, always or never", u.colourFlag)}
	}
	return nil
}

// stage says what begins, or what came of it.
func (u *ui) stage(format string, args ...any) {
	u.line("  " + fmt.Sprintf(format, args...))
	u.mu.Lock()
	defer u.mu.Unlock()
	u.startTicking()
}

// begin shows how far some work is until end is called. update calls a function
// with the work, while it is not looked at.
func (u *ui) begin(w work) (update func(f func()), end func()) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.work = w
	u.startTicking()
	update = func(f func()) {
		u.mu.Lock()
		defer u.mu.Unlock()
		f()
	}
	return update, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.work == w {
			u.work = nil
		}
		u.said = time.Now()
		u.draw("", u.said)
	}
}

// startTicking is called with mu held.
func (u *ui) startTicking() {
	if !u.quiet && !u.ticks {
		u.ticks = true
		go u.tick()
	}
}

func (u *ui) tick() {
	t := time.NewTicker(frameInterval)
	defer t.Stop()
	for {
		select {
		case <-u.over:
			return
		case now := <-t.C:
			u.mu.Lock()
			u.refresh(now)
			u.mu.Unlock()
		}
	}
}

// refresh shows how far things are. The caller holds mu.
func (u *ui) refresh(now time.Time) {
	select {
	case <-u.over:
		return
	default:
	}
	if u.terminal {
		u.draw("", now)
		return
	}
	if u.work == nil {
		return
	}
	if s := u.work.plain(now); s != "" && now.Sub(u.said) >= plainInterval {
		u.said = now
		fmt.Fprintln(u.err, "  "+s)
	}
}

// draw writes lines above what is shown, and shows what is to be shown now. The
// caller holds mu.
func (u *ui) draw(above string, now time.Time) {
	if u.screen == nil {
		if above != "" {
			fmt.Fprint(u.err, above)
		}
		return
	}
	// Whoever has closed the terminal needs no display.
	_ = u.screen.Draw(above, u.frame(now))
}

// frame is what is shown at the bottom of the terminal.
func (u *ui) frame(now time.Time) []string {
	l := look{u.screen.Width(), u.colour}
	var lines []string
	switch d := now.Sub(u.said); {
	case u.quiet || !u.ticks:
	case u.work != nil:
		lines = u.work.frame(now, l)
	case d >= clockAfter:
		lines = []string{"    " + d.Round(time.Second).String()}
	}
	if u.course != nil && len(lines) > 0 {
		lines = append([]string{u.course.line(now, l)}, lines...)
	}
	return lines
}

// clear takes away what is shown. The caller holds mu.
func (u *ui) clear() {
	if u.screen != nil {
		_ = u.screen.Draw("", nil) // as in draw
	}
}

// head says which of the five stages begins.
func (u *ui) head(name string) { u.line(paint(bold, name, u.colour)) }

func (u *ui) line(s string) {
	if u.quiet {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.said = time.Now()
	u.draw(s+"\n", u.said)
}

// done ends whatever is on the terminal.
func (u *ui) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	close(u.over)
	u.clear()
}

// Colours (ECMA-48 section 8.3.117).
const (
	bold  = "1"
	red   = "31"
	green = "32"
	faint = "2"
)

// paint sets a text in a colour, where there are any.
func paint(code, s string, colour bool) string {
	if !colour || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

// fail prints an error and what to do about it.
func (u *ui) fail(text, hint string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	prefix := paint(red, "caisson:", u.colour) + " "
	for i, l := range strings.Split(text, "\n") {
		switch {
		case i == 0:
			fmt.Fprintln(u.err, prefix+l)
		case strings.TrimSpace(l) != "":
			fmt.Fprintln(u.err, "  "+l)
		}
	}
	if hint != "" {
		fmt.Fprintln(u.err, "hint: "+hint)
	}
}

// next says which command comes after this one, as a shell takes it.
func (u *ui) next(args ...string) {
	if u.course != nil {
		return
	}
	u.line("next: caisson " + quote(args))
}

// quote writes arguments as a shell reads them.
func quote(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = a
		if a == "" || strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./=:,+@%") != "" {
			out[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(out, " ")
}

// print writes a line of the result.
func (u *ui) print(format string, args ...any) {
	err := u.result(func(w io.Writer) error {
		_, err := fmt.Fprintf(w, format+"\n", args...)
		return err
	})
	if err != nil && u.broken == nil {
		u.broken = err
	}
}

// result has f write the result, or a part of it.
func (u *ui) result(f func(w io.Writer) error) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	return f(u.out)
}

// json writes a result for machines.
func (u *ui) json(v any) error {
	return u.result(func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetEscapeHTML(false)
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	})
}

// event writes a line for a machine.
func (u *ui) event(v any) {
	err := u.result(func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
	if err != nil && u.broken == nil {
		u.broken = err
	}
}

// size is a number of bytes for people.
func size(n int64) string {
	switch {
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	case n >= 1<<10:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%d B", n)
}

// count is a number of things, in the singular where it is one.
func count(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}

// took is how long something took and how much memory the program has had at
// most, for people.
func took(since time.Time) string {
	s := fmt.Sprintf("%.1f s", time.Since(since).Seconds())
	var use syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &use) == nil {
		s += ", " + size(use.Maxrss<<10) + " of memory"
	}
	return s
}

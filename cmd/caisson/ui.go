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
)

// ui is the only code that talks to a person. Results go to out, all else to
// err: on a terminal with a last line that is written over while work goes
// on, plain lines elsewhere.
type ui struct {
	out, err io.Writer
	quiet    bool
	terminal bool
	colour   bool
	started  bool       // a command's own work has begun
	chained  bool       // by run: what comes next needs no telling
	columns  func() int // how wide the terminal is now

	mu    sync.Mutex
	live  bool      // a line to be written over stands on the terminal
	said  time.Time // when the last line was written
	ended bool
	clock sync.Once
	rate  meter
	shown transfer

	broken error // the result could not be written
}

// Times of the live line.
const (
	clockAfter    = 2 * time.Second  // without a word before the clock shows, or without an end before a name does
	plainInterval = 10 * time.Second // between lines of progress where there is no terminal
)

func newUI(out, err *os.File) *ui {
	fd := int(err.Fd()) //nolint:gosec // a descriptor is a small number
	u := &ui{out: out, err: err, terminal: term.IsTerminal(fd), said: time.Now()}
	u.colour = u.terminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	u.columns = func() int {
		if w, _, e := term.GetSize(fd); e == nil && w > 0 {
			return w
		}
		return 80
	}
	return u
}

// stage says what begins, or what came of it.
func (u *ui) stage(format string, args ...any) {
	u.line("  " + fmt.Sprintf(format, args...))
	u.startClock()
}

func (u *ui) startClock() {
	if u.terminal && !u.quiet {
		u.clock.Do(func() { go u.tick() })
	}
}

// tick shows how long a stage is taking that says nothing.
func (u *ui) tick() {
	for now := range time.Tick(time.Second) {
		u.mu.Lock()
		if u.ended {
			u.mu.Unlock()
			return
		}
		u.silent(now)
		u.mu.Unlock()
	}
}

// silent is a tick: of a transfer from which nothing comes it says what is
// waited for. The caller holds mu.
func (u *ui) silent(now time.Time) {
	d := now.Sub(u.said)
	switch {
	case d < clockAfter:
	case u.shown.text != "":
		u.overwrite(u.shown.line(now))
	default:
		u.overwrite(fmt.Sprintf("    %s", d.Round(time.Second)))
	}
}

// head says which of the five stages begins.
func (u *ui) head(name string) {
	if u.colour {
		name = "\x1b[1m" + name + "\x1b[0m"
	}
	u.line(name)
}

func (u *ui) line(s string) {
	if u.quiet {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	u.said = time.Now()
	fmt.Fprintln(u.err, s)
}

// clear takes the live line off the terminal. The caller holds mu.
func (u *ui) clear() {
	u.shown.text = ""
	if u.live {
		fmt.Fprint(u.err, "\r\x1b[K")
		u.live = false
	}
}

// overwrite writes the live line, cut to the terminal's width. The caller
// holds mu.
func (u *ui) overwrite(s string) {
	if r := []rune(s); len(r) >= u.columns() {
		s = string(r[:u.columns()-1])
	}
	fmt.Fprint(u.err, "\r\x1b[K"+s)
	u.live = true
}

// done ends whatever is on the terminal.
func (u *ui) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	u.clear()
}

// fail prints an error and what to do about it.
func (u *ui) fail(text, hint string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	prefix := "caisson: "
	if u.colour {
		prefix = "\x1b[31mcaisson:\x1b[0m "
	}
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
	if u.chained {
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

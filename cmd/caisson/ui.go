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
// err: on a terminal one line that is written over while work goes on, plain
// lines elsewhere.
type ui struct {
	out, err io.Writer
	quiet    bool
	terminal bool
	colour   bool
	started  bool // a command's own work has begun
	chained  bool // by run: what comes next needs no telling
	width    int

	mu    sync.Mutex
	live  bool // a progress line stands on the terminal
	began time.Time
}

func newUI(out, err *os.File) *ui {
	u := &ui{out: out, err: err, width: 80, began: time.Now()}
	u.terminal = term.IsTerminal(int(err.Fd())) //nolint:gosec // a descriptor is a small number
	_, no := os.LookupEnv("NO_COLOR")
	u.colour = u.terminal && !no && os.Getenv("TERM") != "dumb"
	if w, _, e := term.GetSize(int(err.Fd())); e == nil && w > 20 { //nolint:gosec // a descriptor is a small number
		u.width = w
	}
	return u
}

// stage says what begins.
func (u *ui) stage(format string, args ...any) {
	u.line("  " + fmt.Sprintf(format, args...))
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
	fmt.Fprintln(u.err, s)
}

// clear takes the progress line off the terminal. The caller holds mu.
func (u *ui) clear() {
	if u.live {
		fmt.Fprint(u.err, "\r\x1b[K")
		u.live = false
	}
}

// progress shows how far a transfer is: on a terminal only.
func (u *ui) progress(done, total int, bytes, totalBytes int64, since time.Time, active string) {
	if u.quiet || !u.terminal {
		return
	}
	secs := time.Since(since).Seconds()
	rate := float64(bytes) / max(secs, 0.1)
	text := fmt.Sprintf("  %d of %d, %s", done, total, size(bytes))
	if totalBytes > 0 {
		text += " of " + size(totalBytes)
	}
	text += fmt.Sprintf(", %s/s", size(int64(rate)))
	if left := totalBytes - bytes; left > 0 && rate > 0 {
		text += fmt.Sprintf(", %s left", (time.Duration(float64(left)/rate) * time.Second).Round(time.Second))
	}
	if active != "" {
		text += "  " + active
	}
	if len(text) >= u.width {
		text = text[:u.width-1]
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	fmt.Fprint(u.err, "\r\x1b[K"+text)
	u.live = true
}

// done ends whatever is on the terminal.
func (u *ui) done() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
}

// fail prints an error and what to do about it.
func (u *ui) fail(err error, hint string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.clear()
	prefix := "caisson: "
	if u.colour {
		prefix = "\x1b[31mcaisson:\x1b[0m "
	}
	for i, l := range strings.Split(strings.TrimRight(err.Error(), "\n"), "\n") {
		if i == 0 {
			fmt.Fprintln(u.err, prefix+l)
		} else {
			fmt.Fprintln(u.err, "  "+l)
		}
	}
	if hint != "" {
		fmt.Fprintln(u.err, "hint: "+hint)
	}
}

// next says which command comes after this one.
func (u *ui) next(format string, args ...any) {
	if u.chained {
		return
	}
	u.line("next: " + fmt.Sprintf(format, args...))
}

// print writes a line of the result.
func (u *ui) print(format string, args ...any) {
	fmt.Fprintf(u.out, format+"\n", args...)
}

// json writes a result for machines.
func (u *ui) json(v any) error {
	enc := json.NewEncoder(u.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
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

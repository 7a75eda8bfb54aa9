package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"caisson/cmd/caisson/internal/vttest"
)

// tty is a program whose standard error is on a terminal.
type tty struct {
	t    *testing.T
	cmd  *exec.Cmd
	ctrl *os.File // the other end of the terminal
	done chan struct{}

	mu   sync.Mutex
	term *vttest.Terminal
	raw  strings.Builder
}

// onTerminal starts a program on a terminal of a size.
func onTerminal(t *testing.T, columns, rows int, c *exec.Cmd) *tty {
	t.Helper()
	ctrl, theirs, err := openPTY()
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { ctrl.Close() })
	return startOn(t, columns, rows, c, ctrl, theirs)
}

// startOn is onTerminal with a terminal that has been made.
func startOn(t *testing.T, columns, rows int, c *exec.Cmd, ctrl, theirs *os.File) *tty {
	t.Helper()
	y := &tty{t: t, cmd: c, ctrl: ctrl, done: make(chan struct{}), term: vttest.New(columns, rows)}
	must(t, y.resize(columns, rows))
	c.Stderr = theirs
	must(t, c.Start())
	theirs.Close()
	go y.read()
	return y
}

func (y *tty) read() {
	defer close(y.done)
	buf := make([]byte, 4096)
	for {
		n, err := y.ctrl.Read(buf)
		y.mu.Lock()
		y.term.Write(buf[:n])
		y.raw.Write(buf[:n])
		y.mu.Unlock()
		if err != nil { // EIO: the program has ended
			return
		}
	}
}

// resize makes the terminal another size.
func (y *tty) resize(columns, rows int) error {
	y.mu.Lock()
	defer y.mu.Unlock()
	y.term.Resize(columns, rows)
	return control(y.ctrl, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: uint16(rows), Col: uint16(columns)})
	})
}

// lines is what the terminal shows.
func (y *tty) lines() []string {
	y.mu.Lock()
	defer y.mu.Unlock()
	return y.term.Lines()
}

// shows waits until the terminal shows a text.
func (y *tty) shows(text string) {
	y.t.Helper()
	for range 200 {
		if strings.Contains(strings.Join(y.lines(), "\n"), text) {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	y.t.Fatalf("it never shows %q, but\n%s", text, strings.Join(y.lines(), "\n"))
}

// end ends the program by a signal and returns what is on the terminal then.
func (y *tty) end(s os.Signal) []string {
	y.t.Helper()
	must(y.t, y.cmd.Process.Signal(s))
	y.cmd.Wait()
	<-y.done
	if x, _ := y.term.Cursor(); x != 0 {
		y.t.Errorf("the cursor is left in column %d", x)
	}
	if len(y.term.Unknown) > 0 {
		y.t.Errorf("sequences that are not known: %q", y.term.Unknown)
	}
	return y.term.Lines()
}

// A prefetch that waits for a server shows a bar and what it waits for, at
// every width, follows the terminal's size, and takes all of it away when it is
// interrupted.
func TestTerminal(t *testing.T) {
	for _, columns := range []int{200, 80, 40} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			t.Parallel()
			dir, _ := stallingProject(t)
			y := onTerminal(t, columns, 24, program(t, dir, "prefetch", "--lock", "given.lock", "--store", "store"))
			y.shows("file  [")
			y.shows(" 0/3")
			y.shows("waiting for file")
			y.shows("from 127.0.0.1:")
			y.shows("nothing for ")
			if y.term.Wrapped > 0 {
				t.Errorf("%d lines wrapped", y.term.Wrapped)
			}
			must(t, y.resize(columns/2+15, 24))
			time.Sleep(300 * time.Millisecond)
			if n := strings.Count(strings.Join(y.lines(), "\n"), "total ["); n != 1 {
				t.Errorf("%d bars of the total after the terminal has become narrower:\n%s", n, strings.Join(y.lines(), "\n"))
			}
			must(t, y.resize(120, 30))
			left := strings.Join(y.end(os.Interrupt), "\n")
			if want := "caisson: interrupted\nhint: what was fetched is kept: run it again to go on"; left != want {
				t.Errorf("in the end there is\n%s\nwant\n%s", left, want)
			}
			if code := y.cmd.ProcessState.ExitCode(); code != exitInterrupted {
				t.Errorf("exit code %d, want %d", code, exitInterrupted)
			}
		})
	}
}

// However a program is ended, the terminal is as it was: what has been written
// asks for no mode, and the cursor is at the start of a row. What Go's runtime
// prints of a program that panics, as here of one that is made to quit, begins a
// row too.
func TestTerminalKilled(t *testing.T) {
	for _, s := range []syscall.Signal{syscall.SIGKILL, syscall.SIGQUIT} {
		dir, _ := stallingProject(t)
		y := onTerminal(t, 80, 24, program(t, dir, "prefetch", "--lock", "given.lock", "--store", "store"))
		y.shows("total [")
		lines := y.end(s)
		if strings.Contains(y.raw.String(), "\x1b[?") {
			t.Errorf("it changes a mode of the terminal: %q", y.raw.String())
		}
		if s == syscall.SIGQUIT && !slices.Contains(lines, "SIGQUIT: quit") {
			t.Errorf("the runtime's words: %q", lines)
		}
	}
}

// At most ten frames a second.
func TestTerminalRate(t *testing.T) {
	dir, _ := stallingProject(t)
	y := onTerminal(t, 80, 24, program(t, dir, "prefetch", "--lock", "given.lock", "--store", "store"))
	began := time.Now()
	y.shows("nothing for ")
	most := int(time.Since(began)/frameInterval) + 2
	y.end(os.Interrupt)
	if n := strings.Count(y.raw.String(), "total "); n > most || n < 2 {
		t.Errorf("%d frames, at most %d are wanted", n, most)
	}
}

// Colours are there unless somebody does not want them; without a terminal that
// can be written over there are plain lines.
func TestTerminalColours(t *testing.T) {
	for _, tt := range []struct {
		name            string
		env, flags      []string
		coloured, plain bool
	}{
		{name: "as it is", coloured: true},
		{name: "NO_COLOR", env: []string{"NO_COLOR=1"}},
		{name: "never", flags: []string{"--color=never"}},
		{name: "always", env: []string{"NO_COLOR=1"}, flags: []string{"--color", "always"}, coloured: true},
		{name: "dumb", env: []string{"TERM=dumb"}, plain: true},
		{name: "quiet", flags: []string{"--quiet"}, coloured: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir, reached := stallingProject(t)
			c := program(t, dir, append([]string{"prefetch", "--lock", "given.lock", "--store", "store"}, tt.flags...)...)
			c.Env = append(c.Env, tt.env...)
			y := onTerminal(t, 80, 24, c)
			switch {
			case tt.plain:
				y.shows("2.9 MiB to fetch: file 2.9 MiB")
			case tt.name == "quiet":
				<-reached
				time.Sleep(500 * time.Millisecond)
			default:
				y.shows("total [")
			}
			left := y.end(os.Interrupt)
			if (y.term.Colours > 0) != tt.coloured {
				t.Errorf("%d colours in %q", y.term.Colours, y.raw.String())
			}
			if tt.plain && strings.Contains(y.raw.String(), "\x1b") {
				t.Errorf("sequences for TERM=dumb: %q", y.raw.String())
			}
			if tt.name == "quiet" && len(left) != 2 {
				t.Errorf("quiet, and it said %q", left)
			}
		})
	}
	c := program(t, t.TempDir(), "prefetch", "--color=sometimes")
	if out, err := c.CombinedOutput(); c.ProcessState.ExitCode() != exitUsage || !strings.Contains(string(out), `--color "sometimes": want auto, always or never`) {
		t.Errorf("%v: %s", err, out)
	}
}

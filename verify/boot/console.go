package boot

import (
	"bytes"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"

	"caisson/build/vm/qemu"
)

const (
	maxText  = 1 << 20 // of the console that is kept
	maxLine  = 1 << 16
	tailText = 2000 // of the console in an error
)

// console is what a machine writes to its serial line. It looks for the
// lines that are waited for.
type console struct {
	out io.Writer
	all chan struct{} // closed when all has appeared
	// fault is closed when Linux has said that it cannot go on as it should.
	fault chan struct{}

	mu   sync.Mutex
	want []*regexp.Regexp // not yet seen
	line []byte           // the last, unfinished line
	kept []byte
	// faulted tells that fault is closed.
	faulted bool
}

func newConsole(out io.Writer, want []*regexp.Regexp) *console {
	c := &console{out: out, all: make(chan struct{}), fault: make(chan struct{}), want: append([]*regexp.Regexp(nil), want...)}
	if len(c.want) == 0 {
		close(c.all)
	}
	return c
}

// Write takes what the machine wrote. It never fails: a machine does not
// stop because nobody listens.
func (c *console) Write(p []byte) (int, error) {
	if c.out != nil {
		_, _ = c.out.Write(p)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, p...)
	if len(c.kept) > 2*maxText {
		c.kept = append([]byte(nil), c.kept[len(c.kept)-maxText:]...)
	}
	for rest := p; len(rest) > 0; {
		part, after, complete := bytes.Cut(rest, []byte("\n"))
		c.line = append(c.line, part...)
		c.look()
		if complete || len(c.line) > maxLine {
			c.line = c.line[:0]
		}
		rest = after
	}
	return len(p), nil
}

// look drops the patterns that the line matches from those that are wanted,
// and looks for a fault.
func (c *console) look() {
	if len(c.want) == 0 {
		return
	}
	line := plain(c.line)
	if !c.faulted && bytes.Contains(line, []byte(qemu.Fault)) {
		c.faulted = true
		close(c.fault)
	}
	left := c.want[:0]
	for _, re := range c.want {
		if !re.Match(line) {
			left = append(left, re)
		}
	}
	if c.want = left; len(left) == 0 {
		close(c.all)
	}
}

// plain is a line without carriage returns and escape sequences (ECMA-48,
// control sequences).
func plain(line []byte) []byte {
	out := make([]byte, 0, len(line))
	for i := 0; i < len(line); i++ {
		switch {
		case line[i] == '\r':
		case line[i] == 0x1b && i+1 < len(line) && line[i+1] == '[':
			for i += 2; i < len(line) && (line[i] < 0x40 || line[i] > 0x7e); i++ {
			}
		case line[i] == 0x1b:
			i++
		default:
			out = append(out, line[i])
		}
	}
	return out
}

// missing names what has not appeared.
func (c *console) missing() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var all []string
	for _, re := range c.want {
		all = append(all, fmt.Sprintf("%q", re))
	}
	return strings.Join(all, " and ")
}

// text is the end of what was written.
func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.kept[max(0, len(c.kept)-maxText):])
}

// tail is the last lines for an error; "" if nothing was written.
func (c *console) tail() string {
	text := c.text()
	text = strings.TrimSpace(string(plainText(text[max(0, len(text)-tailText):])))
	if text == "" {
		return ", which stayed empty"
	}
	return "; its last lines:\n" + text
}

func plainText(text string) []byte {
	var out []byte
	for line := range strings.Lines(text) {
		out = append(out, plain([]byte(line))...)
	}
	return out
}

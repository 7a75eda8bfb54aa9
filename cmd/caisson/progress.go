package main

import (
	"fmt"
	"strings"
	"time"

	"caisson/prefetch"
)

// transfer is the live line of one.
type transfer struct {
	text   string    // empty where there is none
	done   int       // inputs
	ended  time.Time // when the last of them was
	active []string  // longest first
}

// line is the text and, where no input has ended for a while, which one is
// waited for.
func (t *transfer) line(now time.Time) string {
	d := now.Sub(t.ended)
	if len(t.active) == 0 || d < clockAfter {
		return t.text
	}
	s := fmt.Sprintf("%s, waiting for %s", t.text, t.active[0])
	if more := len(t.active) - 1; more > 0 {
		s += fmt.Sprintf(" and %d more", more)
	}
	return s + fmt.Sprintf(" (%s)", d.Round(time.Second))
}

// transferring is progress for what brings inputs into a store.
func (u *ui) transferring(e prefetch.Event) {
	if e.Repaired != "" {
		u.stage("%s was damaged in the store and has been replaced", e.Repaired)
	}
	u.progress(e)
}

// progress shows how far a transfer is: on a terminal in the live line, by
// kind of input where that is known, and elsewhere by a line now and then.
func (u *ui) progress(e prefetch.Event) {
	if u.quiet {
		return
	}
	u.startClock()
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	rate := u.rate.add(now, e.Bytes)
	if !u.terminal && now.Sub(u.said) < plainInterval {
		return
	}
	s := fmt.Sprintf("%d of %d", e.Done, e.Total)
	if kinds := byKind(e.ByKind); u.terminal && kinds != "" {
		s = kinds
	}
	s = "  " + s + ", " + size(e.Bytes)
	if e.TotalBytes > 0 {
		s += " of " + size(e.TotalBytes)
	}
	if rate > 0 {
		s += fmt.Sprintf(", %s/s", size(int64(rate)))
		if left := e.TotalBytes - e.Bytes; left > 0 {
			s += fmt.Sprintf(", %s left", time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second))
		}
	}
	u.said = now
	if !u.terminal {
		fmt.Fprintln(u.err, s)
		return
	}
	t := &u.shown
	if t.ended.IsZero() || t.text == "" || t.done != e.Done {
		t.ended = now
	}
	t.text, t.done, t.active = s, e.Done, e.Active
	u.overwrite(t.line(now))
}

// byKind is how far the kinds of input are that are still to do.
func byKind(kinds []prefetch.KindEvent) string {
	var out []string
	for _, k := range kinds {
		if k.Done < k.Total {
			out = append(out, fmt.Sprintf("%s %d/%d", k.Kind, k.Done, k.Total))
		}
	}
	return strings.Join(out, "  ")
}

// meter is the rate of a transfer, over its last seconds.
type meter struct {
	at    [32]time.Time
	bytes [32]int64
	n     int
}

// meterStep is the least time between two of a meter's samples.
const meterStep = 250 * time.Millisecond

// add takes note of how many bytes there are, and returns bytes a second.
func (m *meter) add(now time.Time, bytes int64) float64 {
	last := (m.n + len(m.at) - 1) % len(m.at)
	if m.n > 0 && bytes < m.bytes[last] {
		m.n = 0 // something has to come again, or another transfer has begun
	}
	if m.n == 0 || now.Sub(m.at[last]) >= meterStep {
		m.at[m.n%len(m.at)], m.bytes[m.n%len(m.at)] = now, bytes
		m.n++
	}
	first := max(0, m.n-len(m.at)) % len(m.at)
	if d := now.Sub(m.at[first]).Seconds(); d >= meterStep.Seconds() {
		return float64(bytes-m.bytes[first]) / d
	}
	return 0
}

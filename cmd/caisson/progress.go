package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"caisson/cmd/caisson/internal/live"
	"caisson/prefetch"
)

// slowAfter is how long a file may take before it is shown by name, and how
// long nothing may come of it before that is said.
const slowAfter = 3 * time.Second

// maxSlow is how many files are shown by name.
const maxSlow = 3

// wideEnough is how many columns a line of a bar has to have for all that it can
// say to be in one.
const wideEnough = 95

// transfer is the display of what brings files into a store, or out of it.
type transfer struct {
	verb  string // what is done with the bytes: fetch, send, read
	event prefetch.Event
	rate  meter
	begun bool
	moved time.Time // when the event last changed
}

// transfer begins to show a transfer, by what it does with the bytes. tell is told
// of it, end takes it away.
func (u *ui) transfer(verb string) (tell prefetch.Progress, end func()) {
	t := &transfer{verb: verb, moved: time.Now()}
	update, end := u.begin(t)
	return func(e prefetch.Event) {
		var begins string
		update(func() { begins = t.update(e, time.Now()) })
		if begins != "" && !u.terminal {
			u.stage("%s", begins)
		}
		if e.Repaired != "" {
			u.stage("%s was damaged in the store and has been replaced", live.Plain(e.Repaired))
		}
	}, end
}

// update takes note of an event. It returns what there is to do, once.
func (t *transfer) update(e prefetch.Event, now time.Time) (begins string) {
	if e.Done != t.event.Done || e.Bytes != t.event.Bytes {
		t.moved = now
	}
	t.event = e
	if t.begun || e.TotalBytes == 0 {
		return ""
	}
	t.begun = true
	var kinds []string
	for _, k := range e.ByKind {
		if k.TotalBytes > 0 {
			kinds = append(kinds, k.Kind+" "+size(k.TotalBytes))
		}
	}
	begins = size(e.TotalBytes) + " to " + t.verb
	if len(kinds) > 0 {
		begins += ": " + strings.Join(kinds, ", ")
	}
	return begins
}

// frame is a bar for each kind of input, one for all, and what takes long.
func (t *transfer) frame(now time.Time, l look) []string {
	e := t.event
	if e.Total == 0 {
		return nil
	}
	rate := t.speed(now)
	rows := []prefetch.KindEvent{}
	for _, k := range e.ByKind {
		if k.TotalBytes > 0 || k.Done < k.Total {
			rows = append(rows, k)
		}
	}
	rows = append(rows, prefetch.KindEvent{Kind: "total", Done: e.Done, Total: e.Total, Bytes: e.Bytes, TotalBytes: e.TotalBytes})
	b := barsOf(rows, l)
	var lines []string
	for i, k := range rows {
		s := b.line(k, l)
		if i == len(rows)-1 && rate != "" {
			if l.width < wideEnough {
				lines = append(lines, s)
				s = "  " + strings.Repeat(" ", b.name+1) + rate
			} else {
				s += ", " + rate
			}
		}
		lines = append(lines, s)
	}
	return append(lines, t.slow(now, l)...)
}

// speed is the rate and the time left, as far as they are known.
func (t *transfer) speed(now time.Time) string {
	rate := t.rate.add(now, t.event.Bytes)
	if rate < 1 {
		return ""
	}
	s := size(int64(rate)) + "/s"
	if left := t.event.TotalBytes - t.event.Bytes; left > 0 {
		d := time.Duration(float64(left) / rate * float64(time.Second))
		if d < 100*time.Hour {
			s += ", " + d.Round(time.Second).String() + " left"
		}
	}
	return s
}

// bars are the columns of the lines with bars.
type bars struct{ name, bar, count, bytes int }

// barsOf gives to the bars what the rest leaves.
func barsOf(rows []prefetch.KindEvent, l look) bars {
	var b bars
	for _, k := range rows {
		b.name = max(b.name, live.Width(live.Plain(k.Kind)))
		b.count = max(b.count, len(counted(k)))
		b.bytes = max(b.bytes, len(weighed(k, l)))
	}
	rest := l.width - 2 - b.name - 1 - 1 - b.count - 2 - b.bytes
	if l.width >= wideEnough {
		rest -= len(", 1000.0 MiB/s, 10m10s left")
	}
	b.bar = min(40, max(5, rest))
	return b
}

func counted(k prefetch.KindEvent) string { return fmt.Sprintf("%d/%d", k.Done, k.Total) }

// weighed is how many bytes have come, and of how many where there is room.
func weighed(k prefetch.KindEvent, l look) string {
	if k.TotalBytes == 0 || l.width < 60 {
		return size(k.Bytes)
	}
	return size(k.Bytes) + " of " + size(k.TotalBytes)
}

func (b bars) line(k prefetch.KindEvent, l look) string {
	done, left := live.Bar(b.bar, fraction(k))
	name := live.Plain(k.Kind)
	return fmt.Sprintf("  %s%s %s%s %*s  %s", name, strings.Repeat(" ", b.name-live.Width(name)),
		paint(green, done, l.colour), left, b.count, counted(k), weighed(k, l))
}

// fraction is how far a kind of input is, by bytes where their number is known.
// It is 1 when all is done and not before.
func fraction(k prefetch.KindEvent) float64 {
	switch {
	case k.Done >= k.Total:
		return 1
	case k.TotalBytes > 0:
		return min(0.99, float64(k.Bytes)/float64(k.TotalBytes))
	}
	return float64(k.Done) / float64(k.Total)
}

// slow says which files have been waited for for long, longest first.
func (t *transfer) slow(now time.Time, l look) []string {
	var lines []string
	waiting := t.waiting(now)
	for i, a := range waiting {
		if i == maxSlow {
			lines = append(lines, fmt.Sprintf("  and for %d more", len(waiting)-i))
			break
		}
		lines = append(lines, folded("  waiting for ", live.Plain(a.Name), said(a, now), l.width)...)
	}
	return lines
}

// folded is a line, or several where it is too long: the name by itself,
// shortened, and what is said of it, broken at its commas.
func folded(what, name string, said []string, columns int) []string {
	all := what + name + strings.Join(said, "")
	if live.Width(all) <= columns {
		return []string{all}
	}
	lines := []string{what + shorten(name, columns-len(what))}
	const indent = "   "
	line := ""
	for _, s := range said {
		if line != "" && live.Width(indent+line+s)+1 > columns {
			lines = append(lines, indent+line+",")
			line = ""
		}
		if line == "" {
			s = shorten(" "+strings.TrimPrefix(strings.TrimPrefix(s, ","), " "), columns-len(indent))
		}
		line += s
	}
	return append(lines, indent+line)
}

// waiting is what has been waited for for long: of servers, or, where nothing at
// all moves, whatever is at work.
func (t *transfer) waiting(now time.Time) []prefetch.Active {
	still := now.Sub(t.moved) >= slowAfter
	var out []prefetch.Active
	for _, a := range t.event.Active {
		if now.Sub(a.Since) >= slowAfter && (a.Try > 0 || still) {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b prefetch.Active) int {
		return cmp.Or(cmp.Compare(min(b.Try, 1), min(a.Try, 1)), a.Moved.Compare(b.Moved))
	})
	return out
}

// said is from where a file is waited for and for how long, in parts of a
// sentence.
func said(a prefetch.Active, now time.Time) []string {
	var s []string
	if a.Host != "" {
		s = append(s, " from "+live.Plain(a.Host))
	}
	if a.Try > 1 {
		s = append(s, fmt.Sprintf(", try %d", a.Try))
	}
	s = append(s, ", "+now.Sub(a.Since).Round(time.Second).String())
	quiet := now.Sub(a.Moved)
	switch {
	case a.Size > 0 && a.Bytes >= a.Size:
		return append(s, ", being checked")
	case a.Size > 0 && a.Bytes > 0:
		s = append(s, fmt.Sprintf(", %d%%", 100*a.Bytes/a.Size))
	}
	if quiet >= slowAfter && a.Bytes > 0 {
		s = append(s, ", nothing for "+quiet.Round(time.Second).String())
	}
	return s
}

// shorten takes out of the middle of a text what is too much.
func shorten(s string, columns int) string {
	if live.Width(s) <= columns {
		return s
	}
	half := columns * 2 / 3
	end := []rune(s)
	for len(end) > 0 && live.Width(string(end)) > columns-1-half {
		end = end[1:]
	}
	return live.Cut(s, half) + "…" + string(end)
}

// plain is the frame in a line.
func (t *transfer) plain(now time.Time) string {
	e := t.event
	rate := t.speed(now)
	if e.Total == 0 {
		return ""
	}
	s := fmt.Sprintf("%d of %d, %s", e.Done, e.Total, size(e.Bytes))
	if e.TotalBytes > 0 {
		s += " of " + size(e.TotalBytes)
	}
	if rate != "" {
		s += ", " + rate
	}
	if w := t.waiting(now); len(w) > 0 {
		s += "; waiting for " + live.Plain(w[0].Name) + strings.Join(said(w[0], now), "")
		if more := len(w) - 1; more > 0 {
			s += fmt.Sprintf(", and for %d more", more)
		}
	}
	return s
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

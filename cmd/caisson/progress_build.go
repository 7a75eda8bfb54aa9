package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"caisson/build"
	"caisson/cmd/caisson/internal/live"
)

// building is the display of a build, and what it has seen of its steps.
type building struct {
	steps []*buildStep // as planned
}

// buildStep is a step by the last that was told of it.
type buildStep struct {
	build.Event
	begun, ended time.Time // zero before
}

// building begins to show a build. tell is told of it, end takes it away.
func (u *ui) building() (b *building, tell func(build.Event), end func()) {
	b = &building{}
	update, end := u.begin(b)
	return b, func(e build.Event) {
		var ended string
		update(func() { ended = b.update(e, time.Now()) })
		if ended != "" && !u.terminal {
			u.stage("%s", ended)
		}
	}, end
}

// update takes note of an event. It returns what there is to say of a step that
// has ended.
func (b *building) update(e build.Event, now time.Time) (ended string) {
	s := b.step(e.Step)
	s.Event = e
	switch e.State {
	case build.Begun:
		s.begun = now
	case build.Ended:
		s.ended = now
		text := e.Step + ": "
		if e.Reused {
			text += "taken from an earlier build, "
		}
		if n := amount(e.Done, e.Total, e.Unit); n != "" {
			text += n + ", "
		}
		return text + seconds(s.took())
	}
	return ""
}

func (b *building) step(name string) *buildStep {
	for _, s := range b.steps {
		if s.Step == name {
			return s
		}
	}
	s := &buildStep{}
	b.steps = append(b.steps, s)
	return s
}

func (s *buildStep) took() time.Duration { return s.ended.Sub(s.begun) }

// amount is how much a step that has ended has done, and of how much where that is
// not all; empty where it cannot say.
func amount(done, total int64, unit string) string {
	switch {
	case total == 0:
		return ""
	case unit == "bytes": // the total is an estimate
		return size(total)
	case done < total:
		return fmt.Sprintf("%d of %d %s", done, total, unit)
	}
	return count(int(total), strings.TrimSuffix(unit, "s"))
}

// seconds is a time for people.
func seconds(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// counts is how many steps there are, how many have ended, and those at work.
func (b *building) counts() (done int, atWork []*buildStep) {
	for _, s := range b.steps {
		switch {
		case !s.ended.IsZero():
			done++
		case !s.begun.IsZero():
			atWork = append(atWork, s)
		}
	}
	return done, atWork
}

// frame is a bar of the steps, and a line for each that is at work.
func (b *building) frame(now time.Time, l look) []string {
	done, atWork := b.counts()
	if len(b.steps) == 0 {
		return nil
	}
	filled, left := live.Bar(min(40, max(5, l.width-25)), float64(done)/float64(len(b.steps)))
	lines := []string{fmt.Sprintf("  build %s%s %d of %s", paint(green, filled, l.colour), left, done, count(len(b.steps), "step"))}
	name := 0
	for _, s := range atWork {
		name = max(name, live.Width(s.Step))
	}
	rest := len("      10m10s  100 of 100 packages")
	if l.width < wideStep {
		rest = len("      10m10s  100/100")
	}
	name = min(name, max(10, l.width-rest))
	for _, s := range atWork {
		n := shorten(live.Plain(s.Step), name)
		line := fmt.Sprintf("    %s%s  %4s", n, strings.Repeat(" ", name-live.Width(n)), now.Sub(s.begun).Round(time.Second))
		if s.Total > 0 {
			line += "  " + s.far(l.width < wideStep)
		}
		if s.At != "" {
			line += "  " + paint(faint, live.Plain(s.At), l.colour)
		}
		lines = append(lines, line)
	}
	return lines
}

// wideStep is how many columns a line of a step has to have for its unit to be
// in it.
const wideStep = 60

// far is how far a step is that can tell.
func (s *buildStep) far(short bool) string {
	switch {
	case s.Unit == "bytes":
		return fmt.Sprintf("%d%%", 100*s.Done/s.Total)
	case short:
		return fmt.Sprintf("%d/%d", s.Done, s.Total)
	}
	return fmt.Sprintf("%d of %d %s", s.Done, s.Total, s.Unit)
}

// plain is the frame in a line.
func (b *building) plain(now time.Time) string {
	done, atWork := b.counts()
	if len(atWork) == 0 {
		return ""
	}
	var at []string
	for _, s := range atWork {
		text := live.Plain(s.Step) + " (" + now.Sub(s.begun).Round(time.Second).String()
		if s.Total > 0 {
			text += ", " + s.far(false)
		}
		at = append(at, text+")")
	}
	return fmt.Sprintf("%d of %s; at work: %s", done, count(len(b.steps), "step"), strings.Join(at, ", "))
}

// eventLines reads the events that another `caisson build --events` writes, a line
// each, and keeps what is none.
type eventLines struct {
	tell func(build.Event)
	part []byte
	said bytes.Buffer
}

// maxEvent is the longest line that is taken for an event, in bytes.
const maxEvent = 64 << 10

// Write takes what the program writes.
func (w *eventLines) Write(b []byte) (int, error) {
	w.part = append(w.part, b...)
	for {
		line, rest, whole := bytes.Cut(w.part, []byte("\n"))
		if !whole && len(w.part) < maxEvent {
			return len(b), nil
		}
		var e build.Event
		if json.Unmarshal(line, &e) == nil && e.Step != "" {
			w.tell(e)
		} else {
			w.said.Write(append(line, '\n'))
		}
		w.part = rest
	}
}

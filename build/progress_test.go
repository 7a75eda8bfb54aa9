package build

import (
	"fmt"
	"strings"
	"testing"

	"caisson/lock"
)

// steps is what a build has told of its steps.
type steps struct {
	order []string
	last  map[string]Event
	begun bool
}

// add wants each step to be planned before all others begin, and then to begin,
// to move forwards and to end.
func (s *steps) add(t *testing.T, e Event) {
	t.Helper()
	if s.last == nil {
		s.last = map[string]Event{}
	}
	was, known := s.last[e.Step]
	ok := known
	switch e.State {
	case Planned:
		s.order = append(s.order, e.Step)
		ok = !known && !s.begun
	case Begun:
		s.begun = true
		ok = ok && was.State == Planned
	case Moved:
		ok = ok && (was.State == Begun || was.State == Moved) && e.Done >= was.Done && e.Done <= e.Total && e.Unit != ""
	case Ended:
		ok = ok && (was.State == Begun || was.State == Moved) && e.Done >= was.Done
	}
	if !ok {
		t.Errorf("after %+v came %+v", was, e)
	}
	s.last[e.Step] = e
}

// whole wants all that was planned to have been done, to its end.
func (s *steps) whole(t *testing.T, inputs int) {
	t.Helper()
	for _, name := range s.order {
		e := s.last[name]
		if e.State != Ended || e.Done != e.Total && name != stepFileSystem {
			t.Errorf("in the end: %+v", e)
		}
	}
	for name, unit := range map[string]string{
		stepTools: "packages", installStep(lock.SetRoot): "packages", installStep(lock.SetInitrd): "packages",
		stepCheck: "files", stepFileSystem: "bytes", stepVerity: "bytes", stepOutputs: "bytes",
	} {
		if e := s.last[name]; e.Unit != unit || e.Total == 0 {
			t.Errorf("%s: how far it is is not told in %s: %+v", name, unit, e)
		}
	}
	if e := s.last[stepFileSystem]; e.Done < e.Total/2 {
		t.Errorf("the root file system: %+v", e)
	}
}

// The names of packages are found in what rpm prints, however it comes, and
// counted once.
func TestRPMLines(t *testing.T) {
	var told []Event
	b := &builder{Options: Options{Events: func(e Event) { told = append(told, e) }}}
	inputs := []*lock.Input{{Name: "bash-5.2-1.x86_64"}, {Name: "lib-2:1.0-1.noarch"}}
	const printed = "Preparing packages...\nlib-1.0-1.noarch\na scriptlet says bash-5.2-1.x86_64\nlib-1.0-1.noarch\n\nbash-5.2-1.x86_64\n"
	for _, n := range []int{1, 7, len(printed)} {
		told = nil
		p := b.begin("install root")
		w := b.rpmLines(inputs, p)
		fmt.Fprint(w, strings.Repeat("x", 3*maxName), "\n")
		for rest := printed; rest != ""; {
			part := rest[:min(n, len(rest))]
			rest = rest[len(part):]
			if k, err := w.Write([]byte(part)); k != len(part) || err != nil {
				t.Fatal(k, err)
			}
		}
		p.end()
		var got []string
		for _, e := range told {
			got = append(got, fmt.Sprintf("%s %d/%d %s", e.State, e.Done, e.Total, e.At))
		}
		if want := "begun 0/0 ,moved 1/2 lib-1.0-1.noarch,moved 2/2 bash-5.2-1.x86_64,ended 2/2 "; strings.Join(got, ",") != want {
			t.Errorf("%d bytes at a time: got %q, want %q", n, got, want)
		}
	}
}

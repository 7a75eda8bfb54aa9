package solve

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// TestCancelled asks for what takes ages: more pigeons than holes.
func TestCancelled(t *testing.T) {
	const pigeons = 14
	var lines, specs []string
	for i := range pigeons {
		name := fmt.Sprintf("pigeon%d", i)
		specs = append(specs, name)
		var holes []string
		for h := range pigeons - 1 {
			in := fmt.Sprintf("%s-in%d", name, h)
			holes = append(holes, in)
			line := fmt.Sprintf("%s-1-1.noarch Provides: hole%d | Conflicts: hole%d", in, h, h)
			lines = append(lines, line)
		}
		lines = append(lines, fmt.Sprintf("%s-1-1.noarch Requires: (%s)", name, strings.Join(holes, " or ")))
	}
	p := textPool(t, strings.Join(lines, "\n"))
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := p.SolveContext(ctx, Request{Specs: specs})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want that time is up", err)
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("gave up after %v only", d)
	}
	if _, err := p.Solve(Request{Specs: specs[:pigeons/2]}); err != nil {
		t.Errorf("half of them: %v", err)
	}
}

// TestHugeNormalForm asks for dependencies of which the normal form is
// exponential: they count as not met, at once.
func TestHugeNormalForm(t *testing.T) {
	nested := "a"
	for range 60 {
		nested = "(a if " + nested + " else b)"
	}
	var pairs, lines []string
	for i := range 40 {
		pairs = append(pairs, fmt.Sprintf("(a%d and b%d)", i, i))
		lines = append(lines, fmt.Sprintf("a%d-1-1.noarch", i), fmt.Sprintf("b%d-1-1.noarch", i))
	}
	wide := "(" + strings.Join(pairs, " or ") + ")"
	p := textPool(t, "a-1-1.noarch\nb-1-1.noarch\nnested-1-1.noarch Requires: "+nested+"\nwide-1-1.noarch Requires: "+wide+"\n"+strings.Join(lines, "\n"))
	start := time.Now()
	for _, name := range []string{"nested", "wide"} {
		var problem *Problem
		if _, err := p.Solve(Request{Specs: []string{name}}); !errors.As(err, &problem) {
			t.Errorf("%s: got %v, want a problem", name, err)
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

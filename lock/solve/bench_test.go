package solve

import (
	"errors"
	"slices"
	"testing"
)

// BenchmarkEachC9S asks for every package name of CentOS Stream 9 by itself.
func BenchmarkEachC9S(b *testing.B) {
	repos := c9sPool(b, true).repos
	b.ReportAllocs()
	for b.Loop() {
		p, err := NewPool(repos, Options{Arch: "x86_64"})
		if err != nil {
			b.Fatal(err)
		}
		solved := 0
		names := p.visibleNames()
		for _, name := range names {
			_, err := p.Solve(Request{Specs: []string{name}, WeakDeps: true, KeepObsoleted: true})
			var problem *Problem
			if err != nil && !errors.As(err, &problem) {
				b.Fatal(err)
			}
			if err == nil {
				solved++
			}
		}
		b.ReportMetric(float64(len(names)), "requests")
		b.ReportMetric(float64(solved), "solved")
	}
}

// visibleNames returns the names of all packages that no module hides.
func (p *Pool) visibleNames() []string {
	seen := map[string]bool{}
	var names []string
	for i := int(firstID); i < len(p.pkgs); i++ {
		if k := &p.pkgs[i]; !p.modules.state.hidden[i] && !seen[k.Name] {
			seen[k.Name] = true
			names = append(names, k.Name)
		}
	}
	slices.Sort(names)
	return names
}

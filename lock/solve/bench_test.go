package solve

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"caisson/lock/rpmmd"
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

// grown is a repository of n packages with the dependencies of CentOS Stream
// 9: copies of its packages, each copy's names with a number, cut off at n.
func grown(all []rpmmd.Package, n int) []rpmmd.Package {
	own := map[string]bool{}
	for i := range all {
		own[all[i].Name] = true
		for _, d := range all[i].Provides {
			own[d.Name] = true
		}
	}
	var out []rpmmd.Package
	for c := 0; len(out) < n; c++ {
		rename := func(list []rpmmd.Dep) []rpmmd.Dep {
			list = slices.Clone(list)
			for i := range list {
				if own[list[i].Name] && c > 0 {
					list[i].Name = fmt.Sprintf("%s.%d", list[i].Name, c)
				}
			}
			return list
		}
		for i := 0; i < len(all) && len(out) < n; i++ {
			k := all[i]
			k.Provides, k.Requires, k.Recommends, k.Obsoletes, k.Conflicts = rename(k.Provides), rename(k.Requires), rename(k.Recommends), rename(k.Obsoletes), rename(k.Conflicts)
			k.Supplements = nil // rich ones would tie the copies together
			if c > 0 {
				k.Name, k.Location = fmt.Sprintf("%s.%d", k.Name, c), fmt.Sprintf("%d/%s", c, k.Location)
			}
			out = append(out, k)
		}
	}
	return out
}

// BenchmarkGrowth indexes 5, 20 and 60 thousand packages and asks for a large
// request, and reports the time of the last step in units of the time for the
// same number of packages in the one before.
func BenchmarkGrowth(b *testing.B) {
	repos := c9sPool(b, false).repos
	all := slices.Concat(repos[0].Packages, repos[1].Packages)
	perPackage := 0.0
	for _, n := range []int{5_000, 20_000, 60_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			repo := Repo{ID: "r", Packages: grown(all, n)}
			start := time.Now()
			for b.Loop() {
				p, err := NewPool([]Repo{repo}, Options{Arch: "x86_64"})
				if err != nil {
					b.Fatal(err)
				}
				if _, err := p.Solve(Request{Specs: []string{"bash", "systemd", "openssl"}, WeakDeps: true}); err != nil {
					b.Fatal(err)
				}
			}
			now := time.Since(start).Seconds() / float64(b.N*n)
			if perPackage > 0 {
				b.ReportMetric(now/perPackage, "growth")
			}
			perPackage = now
		})
	}
}

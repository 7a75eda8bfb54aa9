package solve

import (
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

const moduleText = `
release-9-1.noarch Provides: system-release, base-module(platform:el9)
perl-5-1.x86_64
perl-6-1.x86_64
perl-old-5-1.x86_64 Provides: perl-lib
perl-lib-6-1.x86_64
tool-1-1.noarch Requires: perl
db-1-1.x86_64
db-2-1.x86_64 Requires: perl >= 6
other-1-1.x86_64
`

const moduleYAML = `
document: modulemd
version: 2
data:
  {name: perl, stream: "5", version: 1, context: c, arch: x86_64, dependencies: [{requires: {platform: [el9]}}],
   profiles: {common: {rpms: [perl]}, all: {rpms: [perl, tool]}}, artifacts: {rpms: ["perl-0:5-1.x86_64", "perl-0:5-1.src"]}}
---
document: modulemd
version: 2
data:
  {name: perl, stream: "6", version: 2, context: c, arch: x86_64, dependencies: [{requires: {platform: [el9]}}],
   profiles: {common: {rpms: [perl, perl-lib]}}, artifacts: {rpms: ["perl-0:6-1.x86_64", "perl-lib-0:6-1.x86_64"]}}
---
document: modulemd
version: 2
data: {name: db, stream: "2", version: 7, context: c, arch: x86_64, dependencies: [{requires: {perl: ["6"]}}],
  profiles: {server: {rpms: [db]}}, artifacts: {rpms: ["db-0:2-1.x86_64"]}}
---
document: modulemd
version: 2
data: {name: far, stream: "1", version: 1, context: c, arch: x86_64, dependencies: [{requires: {platform: [el8]}}],
  profiles: {common: {rpms: [other]}}, artifacts: {rpms: ["other-0:1-1.x86_64"]}}
---
document: modulemd-defaults
version: 1
data: {module: perl, stream: "5", profiles: {"5": [common], "6": [common]}}
---
document: modulemd-defaults
version: 1
data: {module: far, stream: "1"}
`

func modulePool(t *testing.T, hotfixes bool) *Pool {
	t.Helper()
	r := textRepo(t, "r", moduleText, nil)
	r.ModuleHotfixes = hotfixes
	var err error
	if r.Modules, err = rpmmd.ParseModules(strings.NewReader(moduleYAML)); err != nil {
		t.Fatal(err)
	}
	p, err := NewPool([]Repo{r}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestModules(t *testing.T) {
	p := modulePool(t, false)
	for _, c := range []struct {
		specs string
		req   Request
		want  string
	}{
		{"tool", Request{}, "perl-5-1.x86_64 tool-1-1.noarch"},
		{"perl", Request{EnableModules: []string{"perl:6"}}, "perl-6-1.x86_64"},
		{"perl", Request{EnableModules: []string{"perl"}}, "perl-5-1.x86_64"},
		{"perl", Request{DisableModules: []string{"perl"}}, `every package that matches "perl" is filtered out by modular filtering`},
		{"db", Request{}, "db-1-1.x86_64"},
		{"@db:2/server", Request{}, "db-2-1.x86_64 perl-6-1.x86_64"},
		{"@perl", Request{}, "perl-5-1.x86_64"},
		{"@perl:6 tool", Request{}, "perl-6-1.x86_64 perl-lib-6-1.x86_64 tool-1-1.noarch"},
		{"@perl/all", Request{}, "perl-5-1.x86_64 tool-1-1.noarch"},
		{"@perl:5:1:c:x86_64/a*", Request{}, "perl-5-1.x86_64 tool-1-1.noarch"},
		// What provides the name of an active stream's package is hidden too.
		{"perl-old", Request{}, "perl-old-5-1.x86_64"},
		{"perl-old", Request{EnableModules: []string{"perl:6"}}, `every package that matches "perl-old" is filtered out by modular filtering`},
		{"@perl:5 @perl:6", Request{}, "two streams of module perl are asked for: 5 and 6"},
		{"@perl:6/none", Request{}, `"@perl:6/none": module perl:6 has no profile "none", only: common`},
		{"@db", Request{}, `"@db": module db:2 has no default profile; name one of: server`},
		{"@nosuch", Request{}, `nothing matches "@nosuch"`},
		{"tool", Request{EnableModules: []string{"nosuch:1"}}, `no module matches "nosuch:1"`},
		{"tool", Request{EnableModules: []string{"perl:5"}, DisableModules: []string{"perl"}}, "module perl is to be enabled and disabled"},
		// A default stream that cannot be active is left out, an enabled one is a problem.
		{"other", Request{}, `every package that matches "other" is filtered out by modular filtering`},
		{"@far:1/common", Request{}, "module streams that are asked for cannot be active together"},
	} {
		c.req.Specs = strings.Fields(c.specs)
		got := ask(t, p, c.req)
		if strings.HasPrefix(c.want, "module streams") {
			got, _, _ = strings.Cut(got, ": ")
		}
		if got != c.want {
			t.Errorf("%s %v: got %s, want %s", c.specs, c.req.EnableModules, got, c.want)
		}
	}
	if got, want := ask(t, modulePool(t, true), Request{Specs: []string{"db"}, Best: true}), "db-2-1.x86_64 perl-6-1.x86_64"; got != want {
		t.Errorf("with hotfixes: got %s, want %s", got, want)
	}
}

func TestModuleOfChoice(t *testing.T) {
	s, err := modulePool(t, false).Solve(Request{Specs: []string{"@db:2/server", "tool"}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range s.Packages {
		got = append(got, c.Package.Name+" "+c.Module)
	}
	if got, want := strings.Join(got, ", "), "db db:2:7:c, perl perl:6:2:c, tool "; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestAmbiguousModule(t *testing.T) {
	r := textRepo(t, "r", moduleText, nil)
	var err error
	if r.Modules, err = rpmmd.ParseModules(strings.NewReader(strings.Split(moduleYAML, "document: modulemd-defaults")[0])); err != nil {
		t.Fatal(err)
	}
	p, err := NewPool([]Repo{r}, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	want := `"@perl" leaves open which stream of module perl, and none is enabled or the default: 5, 6`
	if got := ask(t, p, Request{Specs: []string{"@perl"}}); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, want := ask(t, p, Request{Specs: []string{"@perl/common"}, EnableModules: []string{"perl:5"}}), "perl-5-1.x86_64"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

package main

import (
	"os/exec"
	"strings"
	"testing"

	"caisson/cmd/debrepo/rpmwrite"
)

func TestParseVersion(t *testing.T) {
	for _, c := range []struct{ debian, evr string }{
		{"1:2.36-9+deb12u1", "1:2.36-9+deb12u1"},
		{"12.4+deb12u15", "12.4+deb12u15-0"},
		{"0:1.0-1", "1.0-1"},
		{"12-20211113-2~", "12^20211113-2~"},
		{"1:2:3-1", "1:2_3-1"},
		{"252.39-1~deb12u2", "252.39-1~deb12u2"},
	} {
		v, err := parseVersion(c.debian)
		if err != nil || v.evr() != c.evr {
			t.Errorf("%q: got %q, %v, want %q", c.debian, v.evr(), err, c.evr)
		}
	}
	for _, bad := range []string{"", "x:1", "1:", "-1", "1-", "99999999999:1"} {
		if v, err := parseVersion(bad); err == nil {
			t.Errorf("%q: got %q, want an error", bad, v.evr())
		}
	}
}

// TestOrder compares versions of real packages as dpkg and as rpm do it.
func TestOrder(t *testing.T) {
	need(t, "dpkg", "rpm")
	versions := strings.Fields(`2.36 2.36-0 2.36-9 2.36-9+deb12u1 2.36-9+deb12u14 2.36-9~ 1:1.0-1 12-20211113-2~ 12.2.0-14+deb12u1 12.2.0-14
		1.96.0+dfsg1-1~deb12u2 1.96.0+dfsg1-1 0.6.1~rc1-1 0.6.1-1 5.2.15-2+b2 5.2.15-2+b13 5.2.15-2`)
	for _, a := range versions {
		for _, b := range versions {
			va, err := parseVersion(a)
			if err != nil {
				t.Fatal(err)
			}
			vb, err := parseVersion(b)
			if err != nil {
				t.Fatal(err)
			}
			less := exec.Command("dpkg", "--compare-versions", a, "lt", b).Run() == nil
			got := strings.TrimSpace(run(t, "rpm", "--eval", "%{lua: print(rpm.vercmp('"+va.evr()+"', '"+vb.evr()+"'))}"))
			if (got == "-1") != less {
				t.Errorf("%s before %s: dpkg says %v, rpm.vercmp(%s, %s) = %s", a, b, less, va.evr(), vb.evr(), got)
			}
		}
	}
}

func TestAnyOf(t *testing.T) {
	const ge = rpmwrite.Greater | rpmwrite.Equal
	for _, c := range []struct {
		debian string
		want   rpmwrite.Dep
	}{
		{"libc6", rpmwrite.Dep{Name: "libc6"}},
		{"libc6 (>= 2.36)", rpmwrite.Dep{Name: "libc6", Sense: ge, EVR: "2.36"}},
		{"libc6 (= 2.36)", rpmwrite.Dep{Name: "libc6", Sense: rpmwrite.Equal, EVR: "2.36-0"}},
		{"libc6 (>> 2.36)", rpmwrite.Dep{Name: "libc6", Sense: rpmwrite.Greater, EVR: "2.36-0"}},
		{"libc6 (<< 1:2.36~)", rpmwrite.Dep{Name: "libc6", Sense: rpmwrite.Less, EVR: "1:2.36~"}},
		{"python3:any (>= 3.5~)", rpmwrite.Dep{Name: "python3", Sense: ge, EVR: "3.5~"}},
		{"gcc | clang(>=1:14-1) | c-compiler", rpmwrite.Dep{Name: "(gcc or clang >= 1:14-1 or c-compiler)"}},
	} {
		groups, err := parseRelations(c.debian)
		if err != nil || len(groups) != 1 {
			t.Errorf("%q: got %v, %v", c.debian, groups, err)
			continue
		}
		got, err := anyOf(groups[0])
		if err != nil || got != c.want {
			t.Errorf("%q: got %+v, %v, want %+v", c.debian, got, err, c.want)
		}
	}
	for _, bad := range []string{"a (>= 1", "a (1)", "a (=)", "a b", "a (>= 1) x", "| a", "a (<> 1)"} {
		if groups, err := parseRelations(bad); err == nil {
			if _, err = anyOf(groups[0]); err == nil {
				t.Errorf("%q: got %v, want an error", bad, groups)
			}
		}
	}
}

func TestDependencies(t *testing.T) {
	c, err := parseControl(`Package: mta
Provides: mail-transport-agent, mta-api (= 2)
Pre-Depends: libc6 (>= 2.3)
Depends: debconf (>= 0.5) | debconf-2.0, adduser,
 bash | sh
Breaks: old-mta (<< 2.0-1)
Conflicts: mail-transport-agent, other (= 1)
Replaces: old-mta (<< 2.0-1), mail-transport-agent, elsewhere
Suggests: x | y
`)
	if err != nil {
		t.Fatal(err)
	}
	p := &rpmwrite.Package{Name: "mta", Epoch: 1, Version: "2", Release: "1"}
	if err := dependencies(p, c); err != nil {
		t.Fatal(err)
	}
	check := func(what string, deps []rpmwrite.Dep, want string) {
		t.Helper()
		var got []string
		for _, d := range deps {
			got = append(got, strings.TrimSpace(d.Name+" "+d.EVR))
		}
		if strings.Join(got, ", ") != want {
			t.Errorf("%s: got %q, want %q", what, strings.Join(got, ", "), want)
		}
	}
	check("provides", p.Provides, "mta 1:2-1, mail-transport-agent, mta-api 2-0")
	check("requires", p.Requires, "libc6 2.3, (bash or sh)")
	if p.Requires[0].Sense&rpmwrite.Pre == 0 || p.Requires[1].Sense != 0 {
		t.Errorf("requires: got senses %#x and %#x", p.Requires[0].Sense, p.Requires[1].Sense)
	}
	check("conflicts", p.Conflicts, "mail-transport-agent, other 1-0, old-mta 2.0-1")
	check("obsoletes", p.Obsoletes, "old-mta 2.0-1, mail-transport-agent")
	check("suggests", p.Suggests, "(x or y)")
}

func FuzzRelations(f *testing.F) {
	f.Add("libc6 (>= 2.36), gcc | clang (<< 1:14-1), python3:any")
	f.Add("libstd-rust-web-dev (= 1.96.0+dfsg1-1~deb12u2), libtsan2 (<< 12-20211113-2~)")
	f.Fuzz(func(t *testing.T, s string) {
		groups, err := parseRelations(s)
		if err != nil {
			return
		}
		for _, g := range groups {
			if d, err := anyOf(g); err == nil && d.Name == "" {
				t.Errorf("%q: a dependency without a name", s)
			}
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add("Package: a\nDescription: b\n c\n .\n d\n\nPackage: e\n")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := parseControl(s)
		if err != nil {
			return
		}
		describe(c["Description"])
		licences(s)
		alternatives(s)
	})
}

package solve

import (
	"io"
	"slices"
	"strings"
	"testing"

	"caisson/lock/rpmmd"
)

func emptyPool(t testing.TB) *Pool {
	t.Helper()
	p, err := NewPool(nil, Options{Arch: "x86_64"})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var richDeps = []string{
	"(a or b)", "(a and b and c)", "(a if b)", "(a if b else c)", "(a unless b)", "(a unless b else c)",
	"(a >= 1 with a < 2)", "(a without b)", "((a and b) or (c if d))", "(perl(A::B) >= 1:2-3 or c)", "(a or b or c or d)",
	"(a if (b or c) else (d and e))",
}

func TestParseRich(t *testing.T) {
	p := emptyPool(t)
	for _, s := range richDeps {
		n, err := p.parseRich(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
		} else if got := p.text(n); got != s {
			t.Errorf("%s is printed as %s", s, got)
		}
	}
	if n, err := p.parseRich("( a <= 0:1   or  b )"); err != nil || p.text(n) != "(a <= 1 or b)" {
		t.Errorf("spaces: got %q, %v", p.text(n), err)
	}
	for _, bad := range []string{
		"", "a", "(", "()", "(a", "(a or", "(a or )", "(a xor b)", "(a or b and c)", "(a) b", "(a or b) c",
		"(a >= or b)", "(a >= )", strings.Repeat("(", 200), "(" + strings.Repeat("a or ", 1<<15) + "a)",
	} {
		if n, err := p.parseRich(bad); err == nil {
			t.Errorf("%.40q is read as %q, want an error", bad, p.text(n))
		}
	}
}

// holds evaluates a dependency for a set of packages, from its definition.
func (p *Pool) holds(n depID, chosen map[string]bool) bool {
	d := p.deps[n]
	l := func() bool { return p.holds(d.left, chosen) }
	r := func() bool { return p.holds(d.right, chosen) }
	switch d.op {
	case opAnd:
		return l() && r()
	case opOr:
		return l() || r()
	case opIf, opUnless:
		if e := p.deps[d.right]; e.op == opElse {
			if p.holds(e.left, chosen) == (d.op == opIf) {
				return l()
			}
			return p.holds(e.right, chosen)
		}
		if d.op == opIf {
			return l() || !r()
		}
		return l() && !r()
	}
	return chosen[p.nameText[d.name]]
}

// TestNormalize compares normal forms with the definition, for all sets of
// packages.
func TestNormalize(t *testing.T) {
	p := textPool(t, "a-1-1.noarch\nb-1-1.noarch\nc-1-1.noarch\nd-1-1.noarch\n")
	names := []string{"a", "b", "c", "d"}
	for _, s := range append(richDeps,
		"((a if b) and (c unless d))", "((a or nosuch) and (b or c))", "(nosuch if a)", "(a if nosuch)", "(nosuch unless a)",
		"(a unless nosuch else b)", "((a and b) if (c or d) else (b and c))", "(a or (b and (c or (d and a))))") {
		if strings.Contains(s, "with") || strings.Contains(s, " e") && !strings.Contains(s, "else") || strings.ContainsAny(s, ":>") || strings.Contains(s, "and e") {
			continue // about versions, or packages that are not there
		}
		n, err := p.parseRich(s)
		if err != nil {
			t.Fatal(err)
		}
		for set := range 16 {
			chosen, ids := map[string]bool{}, map[id]bool{}
			for i, name := range names {
				if set>>i&1 == 1 {
					chosen[name] = true
					ids[p.byName[p.names[name]][0]] = true
				}
			}
			want := p.holds(n, chosen)
			for _, dnf := range []bool{false, true} {
				blocks, v := p.normalize(n, dnf)
				if got := evaluate(blocks, v, dnf, ids); got != want {
					t.Errorf("%s, dnf %v, with %v: %v is %v, want %v", s, dnf, chosen, blocks, got, want)
				}
			}
		}
	}
}

// evaluate evaluates a normal form.
func evaluate(blocks [][]id, v verdict, dnf bool, chosen map[id]bool) bool {
	if v != depends {
		return v == always
	}
	for _, b := range blocks {
		all, any := true, false
		for _, l := range b {
			if chosen[max(l, -l)] == (l > 0) {
				any = true
			} else {
				all = false
			}
		}
		if dnf && all {
			return true
		}
		if !dnf && !any {
			return false
		}
	}
	return !dnf
}

// TestHugeRich has a dependency whose normal form is exponential.
func TestHugeRich(t *testing.T) {
	var parts []string
	text := "user-1-1.noarch Requires: ("
	for _, c := range "abcdefghijklmnopqrst" {
		parts = append(parts, "("+string(c)+"1 and "+string(c)+"2)")
		text = string(c) + "1-1-1.noarch\n" + string(c) + "2-1-1.noarch\n" + text
	}
	p := textPool(t, text+strings.Join(parts, " or ")+")\n")
	if got := ask(t, p, Request{Specs: []string{"user"}}); !strings.Contains(got, "requires what nothing provides") {
		t.Errorf("got %s", got)
	}
}

func TestMatchGlob(t *testing.T) {
	for _, c := range []struct {
		glob, s string
		want    bool
	}{
		{"*", "", true}, {"*", "a/b", true}, {"a*c", "abbc", true}, {"a*c", "abbd", false}, {"?", "a", true}, {"?", "", false}, {"?", "ab", false},
		{"[a-c]x", "bx", true}, {"[!a-c]x", "bx", false}, {"[^a]", "b", true}, {"[]]", "]", true}, {"[a", "[a", true}, {`\*`, "*", true}, {`\*`, "a", false},
		{"", "", true}, {"", "a", false}, {"a**b", "ab", true}, {"*a*b*", "xaxbx", true}, {"*.so.?", "lib.so.6", true}, {"[a-]", "-", true},
	} {
		if got := matchGlob(c.glob, c.s); got != c.want {
			t.Errorf("matchGlob(%q, %q) = %v, want %v", c.glob, c.s, got, c.want)
		}
	}
	if matchGlob(strings.Repeat("*a", 50), strings.Repeat("a", 5000)+"b") { // must not take exponential time
		t.Error("a glob matches what ends otherwise")
	}
}

func FuzzRich(f *testing.F) {
	for _, s := range richDeps {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p := emptyPool(t)
		n, err := p.parseRich(s)
		if err != nil {
			return
		}
		words := slices.Clone(p.nameText)
		for _, d := range p.deps {
			if e := p.evrText[d.evr]; d.flags != 0 && e.Version == "" {
				return
			} else if d.flags != 0 {
				words = append(words, e.String())
			}
		}
		for _, w := range words {
			if strings.Count(w, "(") != strings.Count(w, ")") {
				return // such a word is read only where it was
			}
		}
		text := p.text(n)
		if p.deps[n].op == opName {
			text = "(" + text + ")"
		}
		again, err := p.parseRich(text)
		if err != nil || p.text(again) != p.text(n) {
			t.Errorf("%q is printed as %q, and that read as %q: %v", s, text, p.text(again), err)
		}
	})
}

func FuzzSpec(f *testing.F) {
	for _, s := range []string{"lib", "lib-2", "lib-2-1.x86_64", "l*b", "/usr/*", "sh", "sh >= 1", "@core", "1:lib", "[", "lib.[xi]*", "(a or lib)"} {
		f.Add(s)
	}
	pkgs, err := rpmmd.ParsePrimary(strings.NewReader(primaryXML(f, library)))
	if err != nil {
		f.Fatal(err)
	}
	paths := filelistsXML(f, library)
	p, err := NewPool([]Repo{{ID: "r", Packages: pkgs, Filelists: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(paths)), nil
	}}}, Options{Arch: "x86_64"})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if len(s) > 100 {
			return
		}
		if _, err := p.Solve(Request{Specs: []string{s}, Exclude: []string{s + "-1"}, Prefer: []string{s}}); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}

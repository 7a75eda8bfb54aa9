package solve

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// odd are dependencies that no specification allows, or that look as if.
var odd = []string{
	"(", ")", "()", "(a", "a)", "((a)", "(a))", "(a)x", "(a or", "(a or)", "(or a)", "(a or b", "(a foo b)", "(a b)",
	"(a and b or c)", "(a or b or c)", "(a if b if c)", "(a if b else c else d)", "(a else b)", "(a unless b if c)",
	"(a if (b or c) else d)", "(a without b without c)", "(a with b without c)", "(a  or   b)", "( a or b )", "(a or b)(c)",
	"(a =)", "(a = )", "(a = 1)", "(a=1)", "(a == 1)", "(a => 1)", "(a >< 1)", "(a <> 1 or b)", "(a = 1 = 2)", "(a = x:1)", "(a = 1:)",
	"(a = :1)", "(a = 1-2-3)", "(a = -1)", "(a = 1-)", "(a = 1:2:3)", "(a(b) or c)", "(a(b or c)", "(a() and b)", "(a.x86_64 or c)", "(a, b)",
	"rpmlib()", "rpmlib(", "packageand(", "packageand()", "packageand(a:b)", "packageand(a:b:c)", "packageand(a", "locale(", "locale()", "locale(a:de)",
	"a:b", "a-1-1", "a*", "a?", "/", "//", "/usr//bin/a", "/usr/bin/", "*/a", "module()", "ä", "%{name}", "config(a)", "solvable:x", "otherproviders(a)",
}

// TestOddDependencies compares with dnf's library which packages with odd
// dependencies can be installed.
func TestOddDependencies(t *testing.T) {
	dnf := newOracle(t)
	w := &world{}
	lines := []string{"a-1-1.x86_64 Files: /usr/bin/a", "b-1-1.x86_64", "a-1:1-1.x86_64", "d-1-1.noarch Provides: a(b), a()"}
	for i, d := range odd {
		for _, rel := range []string{"Requires", "Conflicts", "Recommends", "Supplements", "Obsoletes"} {
			if strings.ContainsAny(d, ",") || rel == "Obsoletes" && !strings.HasPrefix(d, "(") {
				continue
			}
			name := fmt.Sprintf("%s%d", strings.ToLower(rel[:3]), i)
			lines = append(lines, fmt.Sprintf("%s-1-1.x86_64 %s: %s", name, rel, d))
			w.Requests = append(w.Requests, worldRequest{Specs: []string{name, "b"}, Weak: true})
		}
	}
	text := strings.Join(lines, "\n")
	dir := t.TempDir()
	w.Repos = []worldRepo{{ID: "odd", Path: filepath.Join(dir, "odd"), Priority: 99, Cost: 1000, text: text}}
	writeRepo(t, w.Repos[0].Path, text, "")
	p := w.pool(t)
	for i, answer := range dnf.ask(t, w) {
		w.compare(t, p, w.Requests[i], answer, fmt.Sprintf("%q", lines[4+i]))
	}
}

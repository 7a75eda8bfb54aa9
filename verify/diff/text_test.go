package diff

import (
	"math/rand"
	"slices"
	"strings"
	"testing"

	"caisson/verify/measure"
)

func TestCompareLines(t *testing.T) {
	r := rand.New(rand.NewSource(1))
	for range 2000 {
		a, b := randomLines(r), randomLines(r)
		var gotA, gotB []string
		changes := 0
		for _, e := range compareLines(a, b) {
			if e.op != '+' {
				gotA = append(gotA, e.line)
			}
			if e.op != '-' {
				gotB = append(gotB, e.line)
			}
			if e.op != ' ' {
				changes++
			}
		}
		if !slices.Equal(gotA, a) || !slices.Equal(gotB, b) {
			t.Fatalf("%q to %q: the edits are of %q and %q", a, b, gotA, gotB)
		}
		if want := len(a) + len(b) - 2*common(a, b); changes != want {
			t.Fatalf("%q to %q: %d edits, the fewest are %d", a, b, changes, want)
		}
	}
}

func randomLines(r *rand.Rand) []string {
	var out []string
	for range r.Intn(12) {
		out = append(out, string(rune('a'+r.Intn(4)))+"\n")
	}
	return out
}

// common is the length of the longest common subsequence.
func common(a, b []string) int {
	best := make([]int, len(b)+1)
	for _, x := range a {
		previous := 0
		for j, y := range b {
			above := best[j+1]
			if x == y {
				best[j+1] = previous + 1
			} else {
				best[j+1] = max(best[j+1], best[j])
			}
			previous = above
		}
	}
	return best[len(b)]
}

func TestUnified(t *testing.T) {
	lines := func(s string) []string { return splitLines([]byte(s)) }
	for _, c := range []struct{ name, a, b, want string }{
		{"equal", "a\nb\n", "a\nb\n", ""},
		{"change", "a\nb\nc\n", "a\nB\nc\n", "@@ -1,3 +1,3 @@\n a\n-b\n+B\n c\n"},
		{"from nothing", "", "a\n", "@@ -0,0 +1 @@\n+a\n"},
		{"no line break", "a", "a\n", "@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"},
		{"two places", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", "x\n2\n3\n4\n5\n6\n7\n8\n9\ny\n",
			"@@ -1,4 +1,4 @@\n-1\n+x\n 2\n 3\n 4\n@@ -7,4 +7,4 @@\n 7\n 8\n 9\n-10\n+y\n"},
		{"hostile", "a\x1b[2J\n", "a\u202eb\n", "@@ -1 +1 @@\n-a\\x1b[2J\n+a\\u202eb\n"},
	} {
		if got := unified(lines(c.a), lines(c.b), 1); got != c.want {
			t.Errorf("%s: got %q, want %q", c.name, got, c.want)
		}
	}
	if got, want := unified(lines(strings.Repeat("a\n", 3000)), lines("b\n"), 1), "\\ and 2970 more lines\n+b\n"; !strings.HasSuffix(got, want) {
		t.Errorf("got %q, want it to end in %q", got, want)
	}
	long := unified(lines(strings.Repeat("a\n", 3000)), lines(strings.Repeat("b\n", 3000)), 1)
	if n := strings.Count(long, "\n"); n > maxLines+5 {
		t.Errorf("a long difference has %d lines", n)
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain ä\t\n":    "plain ä\t\n",
		"\x1b[31mred":    `\x1b[31mred`,
		"a\u202eb\u200b": `a\u202eb\u200b`,
		"\xff\xfe":       `\xff\xfe`,
		"\ufffd":         "\ufffd",
		"\r":             `\r`,
		`\x1b`:           `\x1b`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// TestHostileText has nodes from elsewhere, which Disks did not make.
func TestHostileText(t *testing.T) {
	u := "-a\x1b]0;title\x07\n"
	got := text(t, []*Node{{Source1: "a\nb\x1b[2J", Source2: missing, Comments: []string{"c\nd"}, UnifiedDiff: &u}})
	if want := "- a\\nb\\x1b[2J\n    c\\nd\n    | -a\\x1b]0;title\\a\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAffected(t *testing.T) {
	result := func(root string, pcrs map[string]string) *measure.Result {
		return &measure.Result{RootHash: root, PCRs: map[string]map[string]string{measure.Bank: pcrs}}
	}
	a := result("aa", map[string]string{"4": "1", "9": "2", "11": "3"})
	for _, c := range []struct {
		b    *measure.Result
		want []string
	}{
		{a, nil},
		{nil, nil},
		{result("bb", map[string]string{"4": "x", "9": "2", "11": "y"}), []string{"root hash", "PCR 4", "PCR 11"}},
		{result("aa", nil), []string{"PCR 4", "PCR 9", "PCR 11"}},
	} {
		if got := Affected(a, c.b); !slices.Equal(got, c.want) {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestSpans(t *testing.T) {
	s := normalise([]span{{10, 20}, {0, 5}, {15, 25}, {30, 30}, {25, 26}})
	if want := (spans{{0, 5}, {10, 26}}); !slices.Equal(s, want) {
		t.Fatalf("got %v, want %v", s, want)
	}
	if got, want := s.minus(spans{{2, 12}, {20, 22}}), (spans{{0, 2}, {12, 20}, {22, 26}}); !slices.Equal(got, want) {
		t.Errorf("minus: got %v, want %v", got, want)
	}
	if got, want := s.and(spans{{2, 12}, {20, 22}}), (spans{{2, 5}, {10, 12}, {20, 22}}); !slices.Equal(got, want) {
		t.Errorf("and: got %v, want %v", got, want)
	}
	if got, want := s.within(span{4, 12}), (spans{{0, 1}, {6, 8}}); !slices.Equal(got, want) {
		t.Errorf("within: got %v, want %v", got, want)
	}
	if s.touches(span{5, 10}) || !s.touches(span{5, 11}) || s.touches(span{26, 30}) {
		t.Error("touches is wrong")
	}
	var c collector
	for i := range int64(4 * maxSpans) {
		c.add(span{3 * i, 3*i + 1})
	}
	if len(c.list) > maxSpans || c.list[0].off != 0 || c.list[len(c.list)-1].end != 3*(4*maxSpans-1)+1 {
		t.Errorf("%d spans from %v to %v", len(c.list), c.list[0], c.list[len(c.list)-1])
	}
}

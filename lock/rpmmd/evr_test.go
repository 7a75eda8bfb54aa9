package rpmmd

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// ascending are groups of equal versions, in ascending order.
var ascending = []string{
	"~", "", "^", "a~", "a", "a.", "A.a", "ab", "abc", "z", "0", "0.0", "1~rc1", "1~rc2", "1", "1^", "1^git1", "1^git2",
	"1a", "1.0", "1.0a", "1.0.1", "1.1", "1.9", "1.10", "1.11", "2", "9", "10", "20230101", "18446744073709551616000",
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0", "1.00", 0}, {"1.0", "1_0", 0}, {"1.05", "1.5", 0}, {"1.0", "1", 1}, {"1.a", "1.1", -1}, {"a", "1", -1},
		{"1.0~rc1", "1.0", -1}, {"1.0~rc1", "1.0~rc2", -1}, {"1.0^a", "1.0", 1}, {"1.0^a", "1.0.1", -1}, {"1.0^a", "1.0^b", -1},
		{"1.0~rc1^a", "1.0~rc1", 1}, {"1.0^a~rc1", "1.0^a", -1}, {"~", "", -1}, {"^", "", 1}, {"~~", "~", -1}, {"", "", 0},
		{"000", "0", 0}, {"2.0.1a", "2.0.1", 1}, {"5.5p1", "5.5p10", -1}, {"10xyz", "10.1xyz", -1}, {"xyz10", "xyz10.1", -1},
		{"xyz.4", "8", -1}, {"1.", "1", 0}, {"1.é", "1", 0}, {"abc", "abcd", -1}, {"1000000000000000000000", "999999999999999999999", 1},
	} {
		if got := CompareVersions(c.a, c.b); got != c.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", c.a, c.b, got, c.want)
		}
		if got := CompareVersions(c.b, c.a); got != -c.want {
			t.Errorf("CompareVersions(%q, %q) = %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

// TestCompareVersionsRPM asks rpm itself about all pairs of some versions.
func TestCompareVersionsRPM(t *testing.T) {
	if _, err := exec.LookPath("rpm"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("no rpm")
	}
	var lua strings.Builder
	var pairs [][2]string
	for _, a := range ascending {
		for _, b := range ascending {
			if a == "" || b == "" { // rpm.vercmp takes no empty version
				continue
			}
			pairs = append(pairs, [2]string{a, b})
			lua.WriteString("print(rpm.vercmp('" + a + "','" + b + "')..' ')")
		}
	}
	out, err := exec.Command("rpm", "--eval", "%{lua:"+lua.String()+"}").Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Fields(string(out))
	if len(answers) != len(pairs) {
		t.Fatalf("rpm gave %d answers, want %d", len(answers), len(pairs))
	}
	for i, p := range pairs {
		want := map[string]int{"-1": -1, "0": 0, "1": 1}[answers[i]]
		if got := CompareVersions(p[0], p[1]); got != want {
			t.Errorf("CompareVersions(%q, %q) = %d, rpm says %d", p[0], p[1], got, want)
		}
	}
}

func TestEVR(t *testing.T) {
	for _, c := range []struct {
		in   string
		want EVR
		text string
	}{
		{"1", EVR{0, "1", ""}, "1"},
		{"1-2", EVR{0, "1", "2"}, "1-2"},
		{"0:1-2", EVR{0, "1", "2"}, "1-2"},
		{":1-2", EVR{0, "1", "2"}, "1-2"},
		{"3:1~rc1-2.el9", EVR{3, "1~rc1", "2.el9"}, "3:1~rc1-2.el9"},
		{"1-2-3", EVR{0, "1-2", "3"}, "1-2-3"},
	} {
		got, err := ParseEVR(c.in)
		if err != nil || got != c.want || got.String() != c.text {
			t.Errorf("ParseEVR(%q) = %+v, %v (%q), want %+v (%q)", c.in, got, err, got, c.want, c.text)
		}
	}
	for _, bad := range []string{"", "x:1", "-1:1", "99999999999:1", "1:", "-1", "::", "1:2:3"} {
		if got, err := ParseEVR(bad); err == nil {
			t.Errorf("ParseEVR(%q) = %+v, want an error", bad, got)
		}
	}
	for _, c := range []struct {
		a, b string
		want int
	}{{"1-1", "1-2", -1}, {"1:1-1", "2-1", 1}, {"1", "1-1", -1}, {"1-1", "1-1", 0}, {"1.0-1", "1.00-1", 0}, {"0:2-1", "2-1", 0}} {
		a, _ := ParseEVR(c.a)
		b, _ := ParseEVR(c.b)
		if got := a.Compare(b); got != c.want || b.Compare(a) != -c.want {
			t.Errorf("%s compared with %s is %d, want %d", a, b, got, c.want)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	for i, a := range ascending {
		f.Add(a, ascending[len(ascending)-1-i])
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		c, d := CompareVersions(a, b), CompareVersions(b, a)
		if c != -d || c < -1 || c > 1 {
			t.Errorf("%q and %q compare as %d and %d", a, b, c, d)
		}
		if CompareVersions(a, a) != 0 {
			t.Errorf("%q is not equal to itself", a)
		}
		if e, err := ParseEVR(a); err == nil {
			if again, err := ParseEVR(e.String()); err != nil || again.Compare(e) != 0 {
				t.Errorf("%q is read as %+v, that as %+v: %v", a, e, again, err)
			}
		}
	})
}

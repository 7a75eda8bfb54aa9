package verify

import (
	"strings"
	"testing"

	"caisson/lock/digest"
)

func TestRebuilders(t *testing.T) {
	image, l := digest.Of([]byte("image")), digest.Of([]byte("lock"))
	op := func(signer string, verdict Verdict, change ...func(*Opinion)) Opinion {
		o := Opinion{File: signer + ".json", Signer: "hint " + signer, Key: signer, Role: roleVerifier, Image: image, Lock: l, Verdict: verdict, Rebuilt: true}
		for _, c := range change {
			c(&o)
		}
		return o
	}
	for _, tt := range []struct {
		name     string
		want     int
		opinions []Opinion
		status   Status
		verdict  Verdict
		detail   string
	}{
		{"two", 2, []Opinion{op("a", Identical), op("b", Identical)}, Passed, Identical, "2 of 2 wanted signers say that their rebuild is identical: a, b"},
		{"one twice", 2, []Opinion{op("a", Identical), op("a", Identical)}, NotChecked, NotVerified, "1 of 2"},
		{"one key under two names", 2, []Opinion{op("a", Identical), op("b", Identical, func(o *Opinion) { o.Signer = "hint a" })}, NotChecked, NotVerified, "1 of 2"},
		{"nobody", 1, nil, NotChecked, NotVerified, "0 of 1"},
		{"somebody disagrees", 2, []Opinion{op("a", Identical), op("b", Identical), op("c", Different)}, Refused, NotVerified, "c, who is trusted, says that the image is different"},
		{"one says both", 1, []Opinion{op("b", Identical), op("a", Different), op("a", Identical)}, Refused, NotVerified, "a, who is trusted"},
		{"not verified is no opinion", 1, []Opinion{op("a", Identical), op("b", NotVerified)}, Passed, Identical, "not counted: b.json (b says not verified)"},
		{"equivalent does not count", 1, []Opinion{op("a", Equivalent)}, NotChecked, NotVerified, "a says equivalent"},
		{"another image", 1, []Opinion{op("a", Identical, func(o *Opinion) { o.Image = l })}, NotChecked, NotVerified, "another image"},
		{"another lock", 1, []Opinion{op("a", Identical, func(o *Opinion) { o.Lock = image })}, NotChecked, NotVerified, "another lock"},
		{"different of another image", 1, []Opinion{op("a", Identical), op("b", Different, func(o *Opinion) { o.Image = l })}, Passed, Identical, "b speaks of another image"},
		{"a builder", 1, []Opinion{op("a", Identical, func(o *Opinion) { o.Role = "builder" })}, NotChecked, NotVerified, "a signed as builder"},
		{"hearsay", 1, []Opinion{op("a", Identical, func(o *Opinion) { o.Rebuilt = false })}, NotChecked, NotVerified, "a did not rebuild"},
		{"a bad signature", 1, []Opinion{{File: "x.json", Problem: "bad: altered"}, op("a", Identical)}, Passed, Identical, "not counted: x.json (bad: altered)"},
		{"nobody's signature", 1, []Opinion{op("a", Identical, func(o *Opinion) { o.Signer = "" })}, NotChecked, NotVerified, "not signed by a trusted key"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &verification{
				Options: Options{Rebuilders: &Rebuilders{Want: tt.want, Opinions: tt.opinions}},
				report:  &Report{Image: Artifact{SHA256: image}, Lock: l},
			}
			v.askRebuilders()
			v.decide()
			if c := v.report.Checks[0]; c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("got %+v, want %s with %q", c, tt.status, tt.detail)
			}
			if v.report.Verdict != tt.verdict {
				t.Errorf("verdict %s (%s), want %s", v.report.Verdict, v.report.Reason, tt.verdict)
			}
			if v.report.Refused() != (tt.status == Refused) {
				t.Errorf("refused: %v", v.report.Refused())
			}
		})
	}
}

// TestDecide has the graver status win, whatever the order.
func TestDecide(t *testing.T) {
	failed, refused, unknown, passed := Check{"disk", Failed, "x"}, Check{"policy: boot", Refused, "x"}, Check{"boot", NotChecked, "x"}, Check{"rebuild", Passed, "x"}
	for _, tt := range []struct {
		checks  []Check
		verdict Verdict
		reason  string
	}{
		{[]Check{passed}, Identical, "the rebuild is the same"},
		{[]Check{unknown, refused, failed}, Different, "disk: x"},
		{[]Check{failed, refused, unknown}, Different, "disk: x"},
		{[]Check{unknown, refused}, NotVerified, "refused by policy: boot: x"},
		{[]Check{refused, unknown}, NotVerified, "refused by policy: boot: x"},
		{[]Check{passed, unknown}, NotVerified, "boot could not be checked: x"},
	} {
		v := &verification{report: &Report{Checks: tt.checks}, Options: Options{Rebuild: noBuild}}
		v.decide()
		if v.report.Verdict != tt.verdict || !strings.HasPrefix(v.report.Reason, tt.reason) {
			t.Errorf("%v: got %s (%s), want %s (%s)", tt.checks, v.report.Verdict, v.report.Reason, tt.verdict, tt.reason)
		}
	}
}

package verify

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify/boot"
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
			passOthers(v)
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
	failed, refused, unknown := Check{"disk", Failed, "x"}, Check{"policy: boot", Refused, "x"}, Check{"boot", NotChecked, "x"}
	var sound []Check
	for _, name := range (&verification{Options: Options{Rebuild: noBuild}}).restsOn() {
		sound = append(sound, Check{name, Passed, "x"})
	}
	with := func(c Check) []Check { return append(slices.Clone(sound), c) }
	for _, tt := range []struct {
		checks  []Check
		verdict Verdict
		reason  string
	}{
		{sound, Identical, "the rebuild is the same"},
		{with(Check{"outputs", NotAsked, "x"}), Identical, "the rebuild is the same"},
		{with(Check{"outputs", "", "x"}), NotVerified, "outputs could not be checked"},
		{with(Check{"outputs", "well", "x"}), NotVerified, "outputs could not be checked"},
		{nil, NotVerified, "root hash was not checked"},
		{[]Check{unknown, refused, failed}, Different, "disk: x"},
		{[]Check{failed, refused, unknown}, Different, "disk: x"},
		{[]Check{unknown, refused}, NotVerified, "refused by policy: boot: x"},
		{[]Check{refused, unknown}, NotVerified, "refused by policy: boot: x"},
		{with(unknown), NotVerified, "boot could not be checked: x"},
	} {
		v := &verification{report: &Report{Checks: tt.checks}, Options: Options{Rebuild: noBuild}}
		v.decide()
		if v.report.Verdict != tt.verdict || !strings.HasPrefix(v.report.Reason, tt.reason) {
			t.Errorf("%v: got %s (%s), want %s (%s)", tt.checks, v.report.Verdict, v.report.Reason, tt.verdict, tt.reason)
		}
	}
}

// passOthers has what else a verdict rests on pass.
func passOthers(v *verification) {
	for _, name := range v.restsOn() {
		if !slices.ContainsFunc(v.report.Checks, func(c Check) bool { return c.Name == name }) {
			v.check(name, Passed, "")
		}
	}
}

// TestRestsOn takes away, one by one, what a good verdict rests on.
func TestRestsOn(t *testing.T) {
	for _, o := range []Options{
		{Rebuild: noBuild}, {Rebuild: noBuild, Boot: &boot.Options{}}, {Rebuild: noBuild, Rebuilders: &Rebuilders{Want: 1}}, {Rebuilders: &Rebuilders{Want: 1}},
	} {
		v := &verification{Options: o}
		names := v.restsOn()
		for i, missing := range names {
			for _, status := range []Status{"", NotAsked, NotChecked} {
				v.report = &Report{}
				for _, name := range names {
					if name != missing {
						v.check(name, Passed, "x")
					} else if status != "" {
						v.check(name, status, "x")
					}
				}
				if v.decide(); v.report.Verdict != NotVerified || !strings.HasPrefix(v.report.Reason, missing) {
					t.Errorf("%d of %v is %q: got %s (%s)", i, names, status, v.report.Verdict, v.report.Reason)
				}
			}
		}
	}
}

// TestNoEvidence wants a rebuild that left no evidence not to count.
func TestNoEvidence(t *testing.T) {
	v := rebuiltInto(t, "")
	passOthers(v)
	if v.decide(); v.report.Verdict != NotVerified || v.report.Reason != "evidence of the rebuild could not be checked: the rebuild left no evidence.json" {
		t.Errorf("got %s (%s)", v.report.Verdict, v.report.Reason)
	}
}

// A rebuild in which a step did not run has shown nothing of that step.
func TestRebuildReused(t *testing.T) {
	v := rebuiltInto(t, `{"version": 1, "reused": ["step 1: run"]}`)
	want := Check{Name: "rebuild", Status: Failed, Detail: "step 1: run did not run again"}
	if !slices.Contains(v.report.Checks, want) {
		t.Errorf("got %+v, want %+v", v.report.Checks, want)
	}
	if v.decide(); v.report.Verdict == Identical || v.report.Verdict == Equivalent {
		t.Errorf("got %s", v.report.Verdict)
	}
}

// rebuiltInto has compared an image with a rebuild that left the same bytes and
// that evidence, none where it is empty.
func rebuiltInto(t *testing.T, evidence string) *verification {
	t.Helper()
	dir := t.TempDir()
	if evidence != "" {
		if err := os.WriteFile(filepath.Join(dir, evidenceFile), []byte(evidence), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	image := filepath.Join(dir, "x.raw")
	if err := os.WriteFile(image, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDisk(image)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	v := &verification{
		Options: Options{Lock: &lock.Lock{Name: "x", Arches: []string{"x86_64"}}, Arch: "x86_64", Image: image, Rebuild: noBuild},
		disk:    d, report: &Report{}, rebuildDir: dir,
	}
	if v.report.Image, err = v.artifact(image, d, nil); err != nil {
		t.Fatal(err)
	}
	if err := v.rebuilt(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	return v
}

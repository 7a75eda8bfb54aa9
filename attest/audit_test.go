package attest_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/attest"
	"caisson/attest/internal/fixture"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock/digest"
	"caisson/verify"
)

// verdictOf signs a report as a verifier and returns the bundles by name.
func verdictOf(t *testing.T, r *verify.Report, s sign.Signer) map[string][]byte {
	t.Helper()
	dir := t.TempDir()
	signed, err := attest.SignVerdict(t.Context(), dir, r, digest.Digest{}, s, fixture.Speaker().Tool)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, s := range signed {
		b, err := os.ReadFile(filepath.Join(dir, s.Bundle))
		if err != nil {
			t.Fatal(err)
		}
		out[s.Name] = b
	}
	return out
}

func reportOf(change ...func(*verify.Report)) *verify.Report {
	r := fixture.Report(fixture.Sum("lock"), fixture.Sum("disk"))
	for _, c := range change {
		c(r)
	}
	return r
}

func different(r *verify.Report) {
	r.Verdict, r.Checks[1].Status = verify.Different, verify.Failed
}

func notVerified(r *verify.Report) {
	r.Verdict, r.Checks[0].Status, r.Rebuilt = verify.NotVerified, verify.NotChecked, nil
}

// TestSignVerdict signs each verdict and reads it back as an opinion.
func TestSignVerdict(t *testing.T) {
	key := attest.Key{Name: "a.pub", PEM: signer(t).PublicPEM()}
	for want, change := range map[verify.Verdict]func(*verify.Report){
		verify.Identical: func(*verify.Report) {}, verify.Different: different, verify.NotVerified: notVerified,
		verify.Equivalent: func(r *verify.Report) { r.Verdict = verify.Equivalent },
	} {
		for name, b := range verdictOf(t, reportOf(change), signer(t)) {
			o := attest.Opinion(name, b, []attest.Key{key})
			if o.Problem != "" || o.Verdict != want || o.Key != "a.pub" || o.Signer != signer(t).Hint() || o.Role != "verifier" ||
				o.Image != fixture.Sum("disk") || o.Lock != fixture.Sum("lock") || o.Rebuilt != (want == verify.Identical) && want != verify.Equivalent || o.Time == "" {
				t.Errorf("%s of %s: got %+v", name, want, o)
			}
		}
	}
	_, err := attest.SignVerdict(t.Context(), t.TempDir(), reportOf(func(r *verify.Report) { r.Rebuilt = nil }), digest.Digest{}, signer(t), fixture.Speaker().Tool)
	if err == nil || !strings.Contains(err.Error(), "no rebuild") {
		t.Errorf("a verdict without a rebuild: %v", err)
	}
	_, err = attest.SignVerdict(t.Context(), t.TempDir(), reportOf(func(r *verify.Report) { r.Checks[0].Status = verify.Refused }), digest.Digest{}, signer(t), fixture.Speaker().Tool)
	if err == nil {
		t.Error("a verdict that does not follow from its checks was signed")
	}
}

// TestHearsay does not take for a rebuild what rests on others' words.
func TestHearsay(t *testing.T) {
	n := newLine(t)
	n.editReport(func(r *verify.Report) {
		r.Rebuilt, r.Checks[0].Status, r.Checks[1].Status = nil, verify.NotAsked, verify.NotAsked
	})
	n.Role = slsa.Verifier
	n.attest()
	for _, name := range []string{"vsa", "test-result"} {
		o := attest.Opinion(name, n.read("statements/"+name+".sigstore.json"), []attest.Key{{Name: "a", PEM: n.Signer.PublicPEM()}})
		if o.Problem != "" || o.Rebuilt {
			t.Errorf("%s: got %+v, want an opinion without a rebuild", name, o)
		}
	}
}

func TestOpinionProblems(t *testing.T) {
	n := newLine(t)
	n.attest()
	vsa := n.read("statements/vsa.sigstore.json")
	keys := []attest.Key{{Name: "a", PEM: n.Signer.PublicPEM()}}
	altered, err := os.ReadFile(spoilt(t, vsa))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		bundle []byte
		keys   []attest.Key
		want   string
	}{
		{"nobody trusted", vsa, nil, "not trusted"},
		{"somebody else", vsa, []attest.Key{{Name: "b", PEM: newSigner(t).PublicPEM()}}, "not trusted"},
		{"altered", altered, keys, "bad: "},
		{"no bundle", []byte("{}"), keys, "bad: "},
		{"no verdict", n.read("statements/sbom.sigstore.json"), keys, "it is no verdict, but https://spdx.dev/Document"},
	} {
		if o := attest.Opinion("f", tt.bundle, tt.keys); !strings.Contains(o.Problem, tt.want) || o.Signer != "" || o.Verdict != "" {
			t.Errorf("%s: got %+v, want the problem %q", tt.name, o, tt.want)
		}
	}
	if o := attest.Opinion("f", vsa, keys); o.Problem != "" || o.Role != "builder" {
		t.Errorf("attest's own: got %+v, want the role builder", o)
	}
}

// TestAudit looks at every statement of a folder.
func TestAudit(t *testing.T) {
	n := newLine(t)
	n.attest()
	keys := []attest.Key{{Name: "other", PEM: newSigner(t).PublicPEM()}, {Name: "mine", PEM: n.Signer.PublicPEM()}}
	for _, name := range []string{"sbom", "provenance", "reference-values", "test-result", "vsa"} {
		b := n.read("statements/" + name + ".sigstore.json")
		a := attest.Audit(b, keys)
		if a.Signature != attest.Good || a.Key != "mine" || a.Claim == nil || a.Claim.Subject[0].Name != "demo.qcow2" {
			t.Errorf("%s: got %+v", name, a)
		}
		if name != "sbom" && a.Claim.Lock != digest.Of(n.LockBytes) {
			t.Errorf("%s: names the lock %s", name, a.Claim.Lock)
		}
		if a := attest.Audit(b, keys[:1]); a.Signature != attest.UnknownKey || a.Claim == nil {
			t.Errorf("%s without its key: got %+v", name, a)
		}
		bad, err := os.ReadFile(spoilt(t, b))
		if err != nil {
			t.Fatal(err)
		}
		if a := attest.Audit(bad, keys); a.Signature != attest.Bad {
			t.Errorf("%s altered: got %+v", name, a)
		}
	}
	for name, payload := range map[string]string{
		"a key twice":        `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x","digest":{"sha256":"00","sha256":"11"}}],"predicateType":"x","predicate":{}}`,
		"in another case":    `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x"}],"predicateType":"x","PredicateType":"y","predicate":{}}`,
		"nothing it is of":   `{"_type":"https://in-toto.io/Statement/v1","subject":[],"predicateType":"x","predicate":{}}`,
		"a verdict too good": `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"x"}],"predicateType":"` + slsa.TypeVSA + `","predicate":{"policy":{"uri":"` + slsa.Policy + `"},"verificationResult":"FAILED","verifiedLevels":["` + slsa.LevelIdentical + `"]}}`,
	} {
		b, err := n.Signer.Bundle(t.Context(), []byte(payload))
		if err != nil {
			t.Fatal(err)
		}
		if a := attest.Audit(b, keys); a.Signature != attest.Bad {
			t.Errorf("%s: got %+v, want it to be bad", name, a)
		}
	}
}

// TestVerifierStays has attest leave a verifier's own verdict, as long as it is
// of the report that is there.
func TestVerifierStays(t *testing.T) {
	n := newLine(t)
	var r verify.Report
	n.editReport(func(x *verify.Report) { r = *x })
	b, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	n.write("report.json", b)
	own := newSigner(t)
	if _, err := attest.SignVerdict(t.Context(), n.Dir, &r, digest.Digest{}, own, n.Tool); err != nil {
		t.Fatal(err)
	}
	before := n.read("statements/vsa.sigstore.json")
	sum := n.attest()
	if len(sum.Signed) != 4 || len(sum.LeftOut) != 2 || !bytes.Equal(before, n.read("statements/vsa.sigstore.json")) {
		t.Errorf("got %+v, want the verifier's statements left", sum)
	}
	c, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM())
	if err != nil || len(c.Signed) != 4 || len(c.Others) != 2 {
		t.Errorf("got %+v, %v, want two statements of others", c, err)
	}
	if _, err := attest.VerifyDir(t.Context(), n.Dir, own.PublicPEM()); err == nil {
		t.Error("the builder's statements pass by the verifier's key")
	}
	n.editReport(func(x *verify.Report) { x.Reason = "another run" })
	if sum := n.attest(); len(sum.Signed) != 6 {
		t.Errorf("got %+v, want the stale verdict replaced", sum)
	}
	if names := n.statements(); !slices.Contains(names, "vsa.json") {
		t.Errorf("got %v", names)
	}
}

func TestBuilder(t *testing.T) {
	n := newLine(t)
	n.attest()
	provenance, image, l := n.read("statements/provenance.sigstore.json"), n.output("demo.qcow2").SHA256, digest.Of(n.LockBytes)
	keys := []attest.Key{{Name: "b.pub", PEM: n.Signer.PublicPEM()}}
	if by, err := attest.Builder(provenance, keys, image, l); err != nil || by != "b.pub" {
		t.Errorf("got %q, %v", by, err)
	}
	for want, err := range map[string]error{
		"unknown key":   second(attest.Builder(provenance, nil, image, l)),
		"another image": second(attest.Builder(provenance, keys, l, l)),
		"another lock":  second(attest.Builder(provenance, keys, image, image)),
		"no provenance": second(attest.Builder(n.read("statements/vsa.sigstore.json"), keys, image, l)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func second(_ string, err error) error { return err }

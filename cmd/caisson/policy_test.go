package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
)

// party is somebody with a key.
type party struct {
	sign.Signer
	pub string // file of the public key
}

func newParty(t *testing.T, dir, name string) party {
	t.Helper()
	private, public, err := sign.GenerateKey(func() ([]byte, error) { return nil, nil })
	must(t, err)
	s, err := sign.LoadSigner(private, nil)
	must(t, err)
	p := party{s, filepath.Join(dir, name+".pub")}
	must(t, os.WriteFile(p.pub, public, 0o644))
	return p
}

// says signs a verdict into a folder and returns it.
func (p party) says(t *testing.T, r verify.Report, v verify.Verdict) string {
	t.Helper()
	r.Verdict = v
	if v == verify.Different {
		r.Checks = []verify.Check{{Name: "rebuild", Status: verify.Passed}, {Name: "disk", Status: verify.Failed}}
	}
	dir := t.TempDir()
	_, err := attest.SignVerdict(t.Context(), dir, &r, digest.Digest{}, p.Signer, slsa.Tool{Version: "v1", Digest: digest.Of([]byte("caisson"))})
	must(t, err)
	return dir
}

func verdict() verify.Report {
	a := verify.Artifact{Name: "demo.qcow2", SHA256: digest.Of([]byte("image")), Disk: digest.Of([]byte("disk"))}
	return verify.Report{
		Name: "demo", Lock: digest.Of([]byte("lock")), Image: a, Rebuilt: &a, Finished: "2026-11-21T12:00:00Z",
		Checks: []verify.Check{{Name: "rebuild", Status: verify.Passed}, {Name: "disk", Status: verify.Passed}},
	}
}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	code, _ := classify(err)
	return code
}

func TestCheckTable(t *testing.T) {
	dir := t.TempDir()
	a, b := newParty(t, dir, "a"), newParty(t, dir, "b")
	good, bad := a.says(t, verdict(), verify.Identical), b.says(t, verdict(), verify.Different)
	var out bytes.Buffer
	u := &ui{out: &out, quiet: true}
	if code := exitCode(runCheck(t.Context(), u, &attestOptions{keys: []string{a.pub, b.pub}}, []string{good, bad})); code != exitOK {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
	for _, want := range []string{"good", a.pub, "verifier", "identical", "different", "2026-11-21T12:00:00Z", "demo.qcow2 " + digest.Of([]byte("image")).String(), slsa.TypeVSA} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, out.String())
		}
	}
	out.Reset()
	if code := exitCode(runCheck(t.Context(), u, &attestOptions{keys: []string{a.pub}, json: true}, []string{good, bad})); code != exitNotVerified {
		t.Errorf("an unknown key: exit code %d\n%s", code, out.String())
	}
	var rows []audited
	must(t, json.Unmarshal(out.Bytes(), &rows))
	if len(rows) != 4 || rows[0].Signature != attest.Good || rows[3].Signature != attest.UnknownKey || rows[3].Claim.Verdict != verify.Different {
		t.Errorf("got %+v", rows)
	}
	file := filepath.Join(good, "statements", "vsa.sigstore.json")
	text, err := os.ReadFile(file)
	must(t, err)
	i := bytes.Index(text, []byte(`"payload"`)) + 60
	text[i] ^= 1
	must(t, os.WriteFile(file, text, 0o644))
	out.Reset()
	if code := exitCode(runCheck(t.Context(), u, &attestOptions{keys: []string{a.pub}}, []string{good, bad})); code != exitRefused {
		t.Errorf("an altered bundle: exit code %d\n%s", code, out.String())
	}
}

// TestRest reads what others signed, and what a policy says of them.
func TestRest(t *testing.T) {
	dir := t.TempDir()
	a, b, own := newParty(t, dir, "a"), newParty(t, dir, "b"), newParty(t, dir, "own")
	sa, sb, so := a.says(t, verdict(), verify.Identical), b.says(t, verdict(), verify.Different), own.says(t, verdict(), verify.Identical)
	policyFile := filepath.Join(dir, "p.yaml")
	must(t, os.WriteFile(policyFile, []byte("version: 1\nrequire: {rebuilders: 1}\nverifiers: [a.pub]\n"), 0o644))
	for _, tt := range []struct {
		name     string
		o        trusts
		want     int // signers
		opinions []string
		code     int
	}{
		{"two", trusts{rebuilders: 2, trust: []string{a.pub, b.pub}, statements: []string{sa, sb}}, 2, []string{"identical", "identical", "different", "different"}, exitOK},
		{"one is not trusted", trusts{rebuilders: 1, trust: []string{a.pub}, statements: []string{sa, sb}}, 1, []string{"identical", "identical", "", ""}, exitOK},
		{"one's own", trusts{rebuilders: 1, trust: []string{own.pub}, statements: []string{so}, key: "own.key", signer: own.Signer}, 1, []string{"", ""}, exitOK},
		{"the policy's", trusts{policy: policyFile, statements: []string{sa, sb}}, 1, []string{"identical", "identical", "", ""}, exitOK},
		{"more than the policy's", trusts{policy: policyFile, rebuilders: 2, statements: []string{sa}}, 2, []string{"identical", "identical"}, exitOK},
		{"somebody the policy does not name", trusts{policy: policyFile, trust: []string{b.pub}, statements: []string{sa}}, 0, nil, exitUsage},
		{"nothing", trusts{}, 0, nil, exitOK},
		{"nobody at all", trusts{noRebuild: true}, 0, nil, exitUsage},
		{"nobody to believe", trusts{rebuilders: 1, statements: []string{sa}}, 0, nil, exitUsage},
		{"no key", trusts{rebuilders: 1, trust: []string{policyFile}, statements: []string{sa}}, 0, nil, exitError},
		{"no policy", trusts{policy: dir + "/none"}, 0, nil, exitError},
	} {
		var opts verify.Options
		err := (&verifyOptions{trusts: tt.o}).rest(&ui{quiet: true}, &lock.Lock{}, "x", &opts)
		if exitCode(err) != tt.code {
			t.Errorf("%s: %v, want exit code %d", tt.name, err, tt.code)
			continue
		}
		if (opts.Rebuilders != nil) != (tt.want > 0) {
			t.Errorf("%s: got %+v", tt.name, opts.Rebuilders)
			continue
		}
		if tt.want == 0 {
			continue
		}
		var got []string
		for _, o := range opts.Rebuilders.Opinions {
			got = append(got, string(o.Verdict))
		}
		if opts.Rebuilders.Want != tt.want || strings.Join(got, ",") != strings.Join(tt.opinions, ",") {
			t.Errorf("%s: %d of %q, want %d of %q", tt.name, opts.Rebuilders.Want, got, tt.want, tt.opinions)
		}
	}
}

// TestExceptionsSigned counts exceptions only where a key signed them that the
// policy names.
func TestExceptionsSigned(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) { must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644)) }
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	must(t, err)
	write("s.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})))
	newParty(t, dir, "other")
	const text = "version: 1\nexceptions:\n  - {function: secure-boot-signature, match: esp:/EFI/BOOT/BOOTX64.EFI, who: jane, why: signed here, until: 2026-11-30}\n"
	write("e.yaml", text)
	sum := sha256.Sum256([]byte(text))
	raw, err := ecdsa.SignASN1(rand.Reader, key, sum[:])
	must(t, err)
	write("e.sig", base64.StdEncoding.EncodeToString(raw))
	open := func(by string) *gate {
		t.Helper()
		write("p.yaml", "version: 1\nexceptions: {file: e.yaml, signature: e.sig, keys: ["+by+"]}\n")
		g, err := openGate(filepath.Join(dir, "p.yaml"))
		must(t, err)
		return g
	}
	day := time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC)
	g := open("other.pub, s.pub")
	if g.unsigned != nil || len(g.functions(day)) != 1 || len(g.functions(day.Add(time.Minute))) != 0 {
		t.Errorf("got %v, %+v", g.unsigned, g.exceptions)
	}
	if g := open("other.pub"); !errors.Is(g.unsigned, sign.ErrSignature) || len(g.functions(day)) != 0 {
		t.Errorf("by another key: got %v, %+v", g.unsigned, g.exceptions)
	}
	write("e.yaml", text+"  - {rule: advisories, match: '**', who: eve, why: all, until: 2999-01-01}\n")
	if g := open("s.pub"); !errors.Is(g.unsigned, sign.ErrSignature) || len(g.exceptions) != 0 {
		t.Errorf("altered: got %v, %+v", g.unsigned, g.exceptions)
	}
	must(t, os.Remove(filepath.Join(dir, "e.sig")))
	if g := open("s.pub"); g.unsigned == nil || !strings.Contains(g.unsigned.Error(), "is not signed") {
		t.Errorf("without a signature: got %v", g.unsigned)
	}
}

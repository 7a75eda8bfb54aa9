package attest_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/attest"
	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock/digest"
)

// change edits a bundle's JSON.
func change(t *testing.T, bundle []byte, f func(m, envelope, material map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	must(t, json.Unmarshal(bundle, &m))
	f(m, m["dsseEnvelope"].(map[string]any), m["verificationMaterial"].(map[string]any))
	b, err := json.Marshal(m)
	must(t, err)
	return b
}

// repayload gives a bundle another statement, without signing it again.
func repayload(t *testing.T, bundle []byte, old, with string) []byte {
	t.Helper()
	return change(t, bundle, func(_, e, _ map[string]any) {
		b, err := base64.StdEncoding.DecodeString(e["payload"].(string))
		must(t, err)
		if !bytes.Contains(b, []byte(old)) {
			t.Fatalf("the statement has no %s: %s", old, b)
		}
		e["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(b, []byte(old), []byte(with), 1))
	})
}

// TestHostileBundles spoils a signed provenance in every way: neither Audit,
// Builder nor VerifyDir takes it for one, nor does the real cosign.
func TestHostileBundles(t *testing.T) {
	c := newCosign(t)
	n := newLine(t)
	sum := n.attest()
	key := filepath.Join(c.dir, "cosign.pub")
	must(t, os.WriteFile(key, n.Signer.PublicPEM(), 0o644))
	const file = "statements/provenance.sigstore.json"
	good := n.read(file)
	keys := []attest.Key{{Name: "builder", PEM: n.Signer.PublicPEM()}}
	if _, err := attest.Builder(good, keys, sum.Image.SHA256, sum.Lock); err != nil {
		t.Fatal(err)
	}
	signed := func(s sign.Signer, statement []byte) []byte {
		b, err := s.Bundle(t.Context(), statement)
		must(t, err)
		return b
	}
	statement := n.read("statements/provenance.json")
	edited := func(old, with string) []byte {
		if !bytes.Contains(statement, []byte(old)) {
			t.Fatalf("the statement has no %s", old)
		}
		return bytes.Replace(statement, []byte(old), []byte(with), 1)
	}
	image := sum.Image.SHA256.Hex()
	for _, tt := range []struct {
		name   string
		bundle []byte
		// says is in what Audit finds wrong, or else in what Builder does.
		says string
		// cosign is whether it cannot see it: what is signed by the right key, and
		// means nothing.
		cosign bool
	}{
		{"wrong key", signed(newSigner(t), statement), "no key or identity was given", false},
		{"hint of another key", change(t, good, func(_, _, m map[string]any) {
			hint, err := sign.Hint(newSigner(t).PublicPEM())
			must(t, err)
			m["publicKey"].(map[string]any)["hint"] = hint
		}), "", true},
		{"no signature", change(t, good, func(_, e, _ map[string]any) { e["signatures"] = []any{} }), "0 signatures", false},
		{"an empty signature", change(t, good, func(_, e, _ map[string]any) { e["signatures"] = []any{map[string]any{"sig": ""}} }), "", false},
		{"two signatures", change(t, good, func(_, e, _ map[string]any) {
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)...)
		}), "2 signatures", false},
		{"another digest", repayload(t, good, image, strings.Repeat("0", 64)), "altered", false},
		{"another lock", repayload(t, good, sum.Lock.String(), digest.Of(nil).String()), "altered", false},
		{"another predicate type", repayload(t, good, slsa.TypeProvenance, slsa.TypeVSA), "altered", false},
		{"another payload type", change(t, good, func(_, e, _ map[string]any) { e["payloadType"] = "application/json" }), "application/json", false},
		{"another media type", change(t, good, func(m, _, _ map[string]any) { m["mediaType"] = "application/vnd.dev.sigstore.bundle.v9+json" }), "damaged", false},
		{"a certificate in place of the key", change(t, good, func(_, _, m map[string]any) {
			delete(m, "publicKey")
			m["certificate"] = map[string]any{"rawBytes": "MIIB"}
		}), "", false},
		{"an unknown field", change(t, good, func(m, _, _ map[string]any) { m["x"] = 1 }), "damaged", false},
		{"cut", good[:len(good)/2], "damaged", false},
		{"no JSON", []byte("\x00\x01"), "damaged", false},
		{"a key twice in the bundle", bytes.Replace(good, []byte(`"dsseEnvelope"`), []byte(`"dsseEnvelope":{"payload":"e30=","payloadType":"application/vnd.in-toto+json","signatures":[{"sig":"AA=="}]},"dsseEnvelope"`), 1), "damaged", false},

		// What the right key has signed, and is no provenance of this image.
		{"a key twice in the statement", signed(n.Signer, edited(`"predicateType":`, `"predicateType":"https://example.com/x","predicateType":`)), "twice", true},
		{"a key twice, in capitals", signed(n.Signer, edited(`"buildType":`, `"BUILDTYPE":"x","buildType":`)), "twice", true},
		{"a key twice, deep", signed(n.Signer, edited(`"arch":`, `"arch":"vax","arch":`)), "twice", true},
		{"another statement type", signed(n.Signer, edited(slsa.StatementType, "https://in-toto.io/Statement/v9")), "statement of type", true},
		{"no subject", signed(n.Signer, []byte(`{"_type":"`+slsa.StatementType+`","subject":[],"predicateType":"`+slsa.TypeProvenance+`","predicate":{}}`)), "without a subject", false},
		{"subjects of two images", signed(n.Signer, edited(`"subject":[{`, `"subject":[{"name":"other.qcow2","digest":{"sha256":"`+digest.Of(nil).Hex()+`"}},{`)), "3 subjects", true},
		{"a second subject that is no manifest", signed(n.Signer, edited(`"mediaType":"`+"application/vnd.oci.image.manifest.v1+json"+`"`, `"mediaType":"text/plain"`)), "second subject", true},
		{"about another image", signed(n.Signer, edited(image, strings.Repeat("0", 64))), "about another image", false},
		{"another build type", signed(n.Signer, edited(slsa.BuildType, "https://example.com/build")), "names another lock", true},
		{"an unknown external parameter", signed(n.Signer, edited(`"externalParameters":{`, `"externalParameters":{"network":"on",`)), "network", true},
		{"a verifier's role", signed(n.Signer, edited(slsa.Builder.ID(), slsa.Verifier.ID())), "no provenance of a builder", true},
		{"nested without end", signed(n.Signer, edited(`"epoch":`, `"x":`+strings.Repeat("[", 5000)+strings.Repeat("]", 5000)+`,"epoch":`)), "nested", true},
		{"more after the statement", signed(n.Signer, append(bytes.Clone(statement), "{}"...)), "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := attest.Audit(tt.bundle, keys)
			_, err := attest.Builder(tt.bundle, keys, sum.Image.SHA256, sum.Lock)
			switch {
			case tt.name == "hint of another key":
				// The key signed it: the hint is a hint.
				if a.Signature != attest.Good || err != nil {
					t.Errorf("got %+v, %v", a, err)
				}
				return
			case err == nil:
				t.Errorf("Builder takes it: %+v", a)
			case !strings.Contains(a.Problem+" "+err.Error(), tt.says):
				t.Errorf("got %q, %v; want %q", a.Problem, err, tt.says)
			}
			n.write(file, tt.bundle)
			if _, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err == nil {
				t.Error("VerifyDir takes it")
			}
			bundle := filepath.Join(t.TempDir(), "b.json")
			must(t, os.WriteFile(bundle, tt.bundle, 0o644))
			if out, err := c.verify(key, bundle, slsa.TypeProvenance, n.path("demo.qcow2")); err == nil && !tt.cosign {
				t.Errorf("cosign takes it: %s", out)
			}
		})
	}
	// A gigabyte is not looked at.
	if a := attest.Audit(make([]byte, attest.MaxBundle+1), keys); a.Signature != attest.Bad || !strings.Contains(a.Problem, "want at most") {
		t.Errorf("a gigabyte: %+v", a)
	}
}

// TestParts has bundles that are good, each, and of two images: together they
// are no folder.
func TestParts(t *testing.T) {
	n, other := newLine(t), newLine(t)
	n.attest()
	other.write("demo.qcow2", []byte("QFI\xfb another"))
	other.describe()
	other.attest()
	for _, name := range []string{"sbom", "provenance", "reference-values", "signature", "vsa"} {
		own := map[string][]byte{}
		for _, file := range []string{"statements/" + name + ".json", "statements/" + name + ".sigstore.json"} {
			own[file] = n.read(file)
			n.write(file, other.read(file))
		}
		if _, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s of another image: %v", name, err)
		}
		if _, err := attest.ReadPackage(t.Context(), n.Dir, nil); err == nil {
			t.Errorf("%s of another image would be pushed", name)
		}
		for file, b := range own {
			n.write(file, b)
		}
	}
	if _, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err != nil {
		t.Error(err)
	}
}

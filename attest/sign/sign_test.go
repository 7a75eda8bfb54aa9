package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigstore/cosign/v2/pkg/cosign"

	"caisson/lock/digest"
)

var artifact = digest.Of([]byte("an image"))

const statement = `{"_type":"https://in-toto.io/Statement/v1","subject":[{"name":"a.qcow2","digest":{"sha256":"` +
	`16c0a7d6b40d0f3c34ac1a17f3a1a6d8a4e7e1d8ae9ad4b2f2e6ea3f9d6c0d11"}},{"name":"b.qcow2","digest":{"sha256":"DIGEST"}}],` +
	`"predicateType":"https://example.com/p/v1","predicate":{}}`

func payload() []byte {
	return []byte(strings.Replace(statement, "DIGEST", artifact.Hex(), 1))
}

func password(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

func newSigner(t testing.TB) Signer {
	t.Helper()
	private, public, err := GenerateKey(password("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	s, err := LoadSigner(private, []byte("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.PublicPEM(), public) {
		t.Fatalf("public key: got\n%s, want\n%s", s.PublicPEM(), public)
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	s := newSigner(t)
	b, err := s.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(b, s.PublicPEM(), artifact)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, payload()) {
		t.Errorf("got %s, want %s", got, payload())
	}
	if hint, err := Hint(s.PublicPEM()); err != nil || hint != s.Hint() {
		t.Errorf("Hint: got %q, %v, want %q", hint, err, s.Hint())
	}
}

// TestKeys signs with every kind of key that cosign imports.
func TestKeys(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, key := range map[string]any{"ed25519": ed, "rsa": rsaKey, "p384": p384} {
		t.Run(name, func(t *testing.T) {
			der, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "key.pem")
			if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
				t.Fatal(err)
			}
			kb, err := cosign.ImportKeyPair(file, func(bool) ([]byte, error) { return nil, nil })
			if err != nil {
				t.Fatal(err)
			}
			s, err := LoadSigner(kb.PrivateBytes, nil)
			if err != nil {
				t.Fatal(err)
			}
			b, err := s.Bundle(t.Context(), payload())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Verify(b, s.PublicPEM(), artifact); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestUnusableKeys(t *testing.T) {
	private, public, err := GenerateKey(password("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		key  []byte
		pass string
	}{
		"wrong password": {private, "open barley"},
		"no password":    {private, ""},
		"public key":     {public, "open sesame"},
		"cut":            {private[:len(private)/2], "open sesame"},
		"empty":          {nil, ""},
	} {
		if _, err := LoadSigner(tt.key, []byte(tt.pass)); !errors.Is(err, ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", name, err)
		}
	}
	if _, err := (Signer{}).Bundle(t.Context(), payload()); !errors.Is(err, ErrKey) {
		t.Errorf("zero Signer: got %v, want ErrKey", err)
	}
	refused := errors.New("no password given")
	if _, _, err := GenerateKey(func() ([]byte, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("GenerateKey: got %v, want the password's error", err)
	}
	for name, key := range map[string][]byte{"private key": private, "cut": public[:40], "empty": nil} {
		if _, err := Verify([]byte("{}"), key, artifact); !errors.Is(err, ErrKey) {
			t.Errorf("Verify with %s: got %v, want ErrKey", name, err)
		}
	}
}

func TestRefused(t *testing.T) {
	s := newSigner(t)
	good, err := s.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	other := newSigner(t)
	for _, tt := range []struct {
		name   string
		bundle []byte
		key    []byte
		about  digest.Digest
		want   error
		says   string
	}{
		{"another key", good, other.PublicPEM(), artifact, ErrSignature, other.Hint()},
		{"another artifact", good, s.PublicPEM(), digest.Of(nil), ErrArtifact, artifact.Hex()},
		{"hint of another key", edit(t, good, func(b map[string]any) {
			b["verificationMaterial"].(map[string]any)["publicKey"].(map[string]any)["hint"] = other.Hint()
		}), other.PublicPEM(), artifact, ErrSignature, "altered"},
		{"payload replaced", edit(t, good, func(b map[string]any) {
			b["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString(
				bytes.Replace(payload(), []byte("a.qcow2"), []byte("c.qcow2"), 1))
		}), s.PublicPEM(), artifact, ErrSignature, "altered"},
		{"payload type", edit(t, good, func(b map[string]any) {
			b["dsseEnvelope"].(map[string]any)["payloadType"] = "text/plain"
		}), s.PublicPEM(), artifact, ErrDamaged, "text/plain"},
		{"no signature", edit(t, good, func(b map[string]any) {
			b["dsseEnvelope"].(map[string]any)["signatures"] = []any{}
		}), s.PublicPEM(), artifact, ErrDamaged, "0 signatures"},
		{"two signatures", edit(t, good, func(b map[string]any) {
			e := b["dsseEnvelope"].(map[string]any)
			e["signatures"] = append(e["signatures"].([]any), e["signatures"].([]any)...)
		}), s.PublicPEM(), artifact, ErrDamaged, "2 signatures"},
		{"certificate", edit(t, good, func(b map[string]any) {
			b["verificationMaterial"] = map[string]any{"certificate": map[string]any{"rawBytes": "MIIB"}}
		}), s.PublicPEM(), artifact, ErrSignature, "certificate"},
		{"signed blob", edit(t, good, func(b map[string]any) {
			delete(b, "dsseEnvelope")
			b["messageSignature"] = map[string]any{"messageDigest": map[string]any{"algorithm": "SHA2_256", "digest": "AAAA"}, "signature": "AAAA"}
		}), s.PublicPEM(), artifact, ErrDamaged, "blob"},
		{"unknown field", edit(t, good, func(b map[string]any) { b["x"] = 1 }), s.PublicPEM(), artifact, ErrDamaged, ""},
		{"cut", good[:len(good)/2], s.PublicPEM(), artifact, ErrDamaged, ""},
		{"empty", nil, s.PublicPEM(), artifact, ErrDamaged, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Verify(tt.bundle, tt.key, tt.about)
			if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %v naming %q", err, tt.want, tt.says)
			}
			if got != nil {
				t.Errorf("a refused bundle gave the statement %s", got)
			}
		})
	}
	if _, err := Verify(good, s.PublicPEM(), digest.Digest{}); err == nil {
		t.Error("verified for no artifact at all")
	}
}

// TestEveryByte flips a bit in each byte of a bundle: it is refused, or what
// it gives is what was signed.
func TestEveryByte(t *testing.T) {
	s := newSigner(t)
	good, err := s.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if got, err := Verify(bad, s.PublicPEM(), artifact); err == nil && !bytes.Equal(got, payload()) {
			t.Fatalf("byte %d (%q): another statement was accepted: %s", i, good[i], got)
		}
	}
}

func edit(t *testing.T, b []byte, f func(map[string]any)) []byte {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(b, &m); err != nil {
		t.Fatal(err)
	}
	f(m)
	out, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func FuzzVerify(f *testing.F) {
	s := newSigner(f)
	good, err := s.Bundle(f.Context(), payload())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/3])
	f.Add([]byte(`{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := Verify(b, s.PublicPEM(), artifact); err == nil && !bytes.Equal(got, payload()) {
			t.Fatalf("another statement was accepted: %s", got)
		}
	})
}

package sign

import (
	"bytes"
	"encoding/base64"
	"errors"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestVerifyBlob(t *testing.T) {
	s := newSigner(t)
	blob := []byte("version: 1\n")
	raw, err := s.key.SignMessage(bytes.NewReader(blob))
	if err != nil {
		t.Fatal(err)
	}
	sig := []byte(base64.StdEncoding.EncodeToString(raw) + "\n")
	other := newSigner(t)
	for _, tt := range []struct {
		name           string
		blob, sig, pub []byte
		want           error
	}{
		{"good", blob, sig, s.PublicPEM(), nil},
		{"older bundle", blob, []byte(`{"base64Signature":"` + base64.StdEncoding.EncodeToString(raw) + `"}`), s.PublicPEM(), nil},
		{"another blob", []byte("version: 2\n"), sig, s.PublicPEM(), ErrSignature},
		{"another key", blob, sig, other.PublicPEM(), ErrSignature},
		{"no key", blob, sig, []byte("x"), ErrKey},
		{"no base64", blob, []byte("!"), s.PublicPEM(), ErrDamaged},
		{"nothing", blob, nil, s.PublicPEM(), ErrSignature},
		{"another JSON", blob, []byte(`{"x":1}`), s.PublicPEM(), ErrDamaged},
	} {
		if err := VerifyBlob(tt.blob, tt.sig, tt.pub); !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
	statement, err := s.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	if err := VerifyBlob(payload(), statement, s.PublicPEM()); !errors.Is(err, ErrDamaged) {
		t.Errorf("a statement's bundle: got %v, want %v", err, ErrDamaged)
	}
}

// TestCosignBlob verifies what the real cosign signed, in each of its forms.
func TestCosignBlob(t *testing.T) {
	path, err := exec.LookPath("cosign")
	if err != nil {
		path = filepath.Join(build.Default.GOPATH, "bin", "cosign")
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal("cosign is not installed: go install github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5")
			}
			t.Skip("cosign is not installed")
		}
	}
	dir := t.TempDir()
	private, public, err := GenerateKey(password("secret"))
	if err != nil {
		t.Fatal(err)
	}
	blob := []byte("version: 1\n")
	for name, b := range map[string][]byte{"k.key": private, "blob": blob} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, args := range map[string][]string{
		"the signature alone": {"--output-signature", "out"},
		"a bundle":            {"--new-bundle-format", "--bundle", "out"},
		"an older bundle":     {"--bundle", "out"},
	} {
		cmd := exec.Command(path, append(append([]string{"sign-blob", "--yes", "--key", "k.key", "--tlog-upload=false"}, args...), "blob")...)
		cmd.Dir, cmd.Env = dir, []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH"), "COSIGN_PASSWORD=secret"}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: cosign: %v\n%s", name, err, out)
		}
		sig, err := os.ReadFile(filepath.Join(dir, "out"))
		if err != nil {
			t.Fatal(err)
		}
		if err := VerifyBlob(blob, sig, public); err != nil {
			t.Errorf("%s: %v\n%s", name, err, sig)
		}
		if err := VerifyBlob([]byte("version: 2\n"), sig, public); !errors.Is(err, ErrSignature) {
			t.Errorf("%s, of another file: got %v", name, err)
		}
		if err := os.Remove(filepath.Join(dir, "out")); err != nil {
			t.Fatal(err)
		}
	}
}

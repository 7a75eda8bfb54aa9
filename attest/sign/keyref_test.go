package sign

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// signs has a signer sign a statement, and verifies that.
func signs(t *testing.T, s Signer) {
	t.Helper()
	b, err := s.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	got, err := Verify(b, s.PublicPEM(), artifact)
	if err != nil || !bytes.Equal(got, payload()) {
		t.Errorf("got %s, %v", got, err)
	}
}

// TestOpenFiles opens keys in a file and in the environment.
func TestOpenFiles(t *testing.T) {
	private, public, err := GenerateKey(password("open sesame"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "cosign.key")
	if err := os.WriteFile(file, private, 0o600); err != nil {
		t.Fatal(err)
	}
	env := func(name string) string {
		return map[string]string{"COSIGN_PASSWORD": "open sesame", "KEY": string(private)}[name]
	}
	for _, ref := range []string{file, "env://KEY"} {
		s, err := Open(t.Context(), ref, env)
		if err != nil || !bytes.Equal(s.PublicPEM(), public) {
			t.Fatalf("%s: %v", ref, err)
		}
		signs(t, s)
	}
	for ref, want := range map[string]error{"env://NONE": ErrKey, file + "x": os.ErrNotExist, "nobody://x": ErrKey, "pkcs11:token=x": ErrKey, "hashivault://": ErrKey} {
		if _, err := Open(t.Context(), ref, env); !errors.Is(err, want) {
			t.Errorf("%s: %v", ref, err)
		}
	}
	if _, err := Open(t.Context(), "nobody://x", env); !strings.Contains(err.Error(), "sigstore-kms-nobody") {
		t.Errorf("no plugin: %v", err)
	}
}

// vault is a part of Vault's transit engine (API documentation, "Transit
// secrets engine"): a key that can be read and signs.
type vault struct {
	key    *ecdsa.PrivateKey // nil before it was made
	denied bool
	signed int
}

func (v *vault) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("X-Vault-Token") != "s.secret" || v.denied {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprint(w, `{"errors":["permission denied"]}`)
		return
	}
	answer := func(data any) { json.NewEncoder(w).Encode(map[string]any{"data": data}) }
	switch {
	case r.URL.Path == "/v1/transit/keys/podvm" && r.Method != http.MethodGet:
		v.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		w.WriteHeader(http.StatusNoContent)
	case r.URL.Path == "/v1/transit/keys/podvm" && v.key != nil:
		der, _ := x509.MarshalPKIXPublicKey(v.key.Public())
		answer(map[string]any{"latest_version": 1, "keys": map[string]any{"1": map[string]any{"name": "P-256",
			"public_key": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}}})
	case r.URL.Path == "/v1/transit/sign/podvm/sha2-256" && v.key != nil:
		var in struct {
			Input     []byte `json:"input"`
			Prehashed bool   `json:"prehashed"`
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || !in.Prehashed {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		v.signed++
		sig, _ := ecdsa.SignASN1(rand.Reader, v.key, in.Input)
		answer(map[string]any{"signature": "vault:v1:" + base64.StdEncoding.EncodeToString(sig)})
	default:
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"errors":[]}`)
	}
}

// TestVault makes a key at a service, and signs by it.
func TestVault(t *testing.T) {
	v := new(vault)
	srv := httptest.NewServer(v)
	defer srv.Close()
	for name, value := range map[string]string{"VAULT_ADDR": srv.URL, "VAULT_TOKEN": "s.secret", "TRANSIT_SECRET_ENGINE_PATH": "", "VAULT_MAX_RETRIES": "0"} {
		t.Setenv(name, value)
	}
	if _, err := Open(t.Context(), "hashivault://podvm", os.Getenv); !errors.Is(err, ErrKey) {
		t.Errorf("before it was made: %v", err)
	}
	public, err := CreateKey(t.Context(), "hashivault://podvm")
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), "hashivault://podvm", os.Getenv)
	if err != nil || !bytes.Equal(s.PublicPEM(), public) {
		t.Fatalf("got %s, %v, want %s", s.PublicPEM(), err, public)
	}
	signs(t, s)
	if v.signed != 1 {
		t.Errorf("the service signed %d times", v.signed)
	}
	v.denied = true
	if _, err := s.Bundle(t.Context(), payload()); err == nil || !strings.Contains(err.Error(), "permission denied") || strings.Contains(err.Error(), "s.secret") {
		t.Errorf("not allowed: %v", err)
	}
}

// TestPlugin signs by a program on PATH: sigstore's cliplugin protocol.
func TestPlugin(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	script := `#!/bin/sh
cd ` + dir + `
case "$2" in
*'"denied"'*) echo '{"errorMessage":"no such key"}' ;;
*'"methodName":"publicKey"'*) printf '{"publicKey":{"publicKeyPEM":"%s"}}' "$(base64 -w0 key.pub)" ;;
*'"methodName":"signMessage"'*) printf '{"signMessage":{"signature":"%s"}}' "$(openssl dgst -sha256 -sign key.pem | base64 -w0)" ;;
*) echo '{"errorMessage":"what?"}' ;;
esac
`
	if err := os.WriteFile(filepath.Join(dir, "sigstore-kms-hsm"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem"}, {"ec", "-in", "key.pem", "-pubout", "-out", "key.pub"}} {
		c := exec.Command(openssl, args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	s, err := Open(t.Context(), "hsm://slot/1", os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	signs(t, s)
	if _, err := Open(t.Context(), "hsm://denied", os.Getenv); !errors.Is(err, ErrKey) || !strings.Contains(err.Error(), "no such key") {
		t.Errorf("what the plugin refuses: %v", err)
	}
}

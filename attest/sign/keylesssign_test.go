package sign

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
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
	"time"

	"github.com/go-openapi/runtime"
	"github.com/sigstore/rekor/pkg/generated/models"
	"github.com/sigstore/rekor/pkg/types"
	"github.com/sigstore/sigstore-go/pkg/tlog"
	"github.com/sigstore/sigstore/pkg/cryptoutils"

	"caisson/lock/digest"
	"caisson/prefetch"
)

const (
	me       = "me@example.org"
	myIssuer = "https://issuer.example"
)

// token is an identity token that nobody signed: what the authority of the
// tests believes.
func token(expires time.Time) string {
	part := func(v any) string {
		b, _ := json.Marshal(v)
		return base64.RawURLEncoding.EncodeToString(b)
	}
	return part(map[string]string{"alg": "none"}) + "." + part(map[string]any{"sub": "1", "email": me, "email_verified": true, "iss": myIssuer, "aud": "sigstore", "exp": expires.Unix()}) + ".c2VjcmV0"
}

// services are a Fulcio and a Rekor of an instance, as far as signing needs
// them.
type services struct {
	*instance
	certificates, entries int
	refuse                bool
	old                   bool // certificates that have expired
}

func (s *services) serve(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v2/signingCert", s.fulcio)
	mux.HandleFunc("POST /api/v1/log/entries", s.rekor)
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	return srv.URL
}

func (s *services) fulcio(w http.ResponseWriter, r *http.Request) {
	var in struct {
		PublicKeyRequest struct {
			PublicKey         struct{ Content string }
			ProofOfPossession []byte
		}
	}
	must[any](s.t)(nil, json.NewDecoder(r.Body).Decode(&in))
	if s.refuse || !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(w, `{"code":16, "message":"There was an error processing the identity token"}`)
		return
	}
	public := must[any](s.t)(cryptoutils.UnmarshalPEMToPublicKey([]byte(in.PublicKeyRequest.PublicKey.Content))).(*ecdsa.PublicKey)
	proof := sha256.Sum256([]byte(me))
	if !ecdsa.VerifyASN1(public, proof[:], in.PublicKeyRequest.ProofOfPossession) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	s.certificates++
	cert := s.certificateFor(public, me, myIssuer, true)
	chain := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}))
	json.NewEncoder(w).Encode(map[string]any{"signedCertificateEmbeddedSct": map[string]any{"chain": map[string]any{"certificates": []string{chain}}}})
}

func (s *services) rekor(w http.ResponseWriter, r *http.Request) {
	proposed := must[models.ProposedEntry](s.t)(models.UnmarshalProposedEntry(r.Body, runtime.JSONConsumer()))
	entry := must[types.EntryImpl](s.t)(types.CreateVersionedEntry(proposed))
	body := must[[]byte](s.t)(types.CanonicalizeEntry(context.Background(), entry))
	s.entries++
	at := time.Now()
	if s.old {
		at = at.Add(time.Hour)
	}
	id := must[string](s.t)(s.virtual.RekorLogID())
	proof := must[*models.InclusionProof](s.t)(s.virtual.GetInclusionProof(body))
	index := *proof.LogIndex
	set := must[[]byte](s.t)(s.virtual.RekorSignPayload(tlog.RekorPayload{Body: base64.StdEncoding.EncodeToString(body), IntegratedTime: at.Unix(), LogIndex: index, LogID: id}))
	uuid := sha256.Sum256(append([]byte{0}, body...))
	name := hex.EncodeToString(uuid[:])
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("ETag", name)
	w.Header().Set("Location", "/api/v1/log/entries/"+name)
	w.WriteHeader(http.StatusCreated)
	json.NewEncoder(w).Encode(map[string]any{name: map[string]any{
		"body": base64.StdEncoding.EncodeToString(body), "integratedTime": at.Unix(), "logID": id, "logIndex": index,
		"verification": map[string]any{"inclusionProof": proof, "signedEntryTimestamp": set},
	}})
}

// keylessOptions are those to sign with these services.
func (s *services) options(t *testing.T) KeylessOptions {
	at := s.serve(t)
	return KeylessOptions{Token: token(time.Now().Add(time.Minute)) + "\n", Fulcio: at + "/", Rekor: at, TrustedRoot: s.root, Config: prefetch.Config{Version: "test"}}
}

func (i *instance) trust() Trust {
	return Trust{Identity: Identity{me, myIssuer}, Root: must[[]byte](i.t)(os.ReadFile(i.root))}
}

// TestKeyless signs two statements as an identity, and verifies them offline:
// with Caisson, and with the real cosign.
func TestKeyless(t *testing.T) {
	s := &services{instance: newInstance(t)}
	signer, err := OpenKeyless(t.Context(), s.options(t))
	if err != nil {
		t.Fatal(err)
	}
	if signer.Hint() != "me@example.org (https://issuer.example)" || signer.PublicPEM() != nil {
		t.Errorf("got %q, %s", signer.Hint(), signer.PublicPEM())
	}
	var b []byte
	for range 2 {
		if b, err = signer.Bundle(t.Context(), payload()); err != nil {
			t.Fatal(err)
		}
		got, err := s.trust().Verify(b, artifact)
		if err != nil || !bytes.Equal(got, payload()) {
			t.Errorf("got %s, %v", got, err)
		}
	}
	if s.certificates != 1 || s.entries != 2 {
		t.Errorf("%d certificates, %d entries", s.certificates, s.entries)
	}
	if got, hint, err := ReadStatement(b); err != nil || hint != signer.Hint() || !bytes.Equal(got, payload()) {
		t.Errorf("got %s of %q, %v", got, hint, err)
	}
	if _, err := Verify(b, newSigner(t).PublicPEM(), artifact); !errors.Is(err, ErrSignature) {
		t.Errorf("by a key: %v", err)
	}
	cosignKeyless(t, s.root, b)

	other := newInstance(t)
	for name, tt := range map[string]struct {
		trust  Trust
		bundle []byte
		about  digest.Digest
		want   error
	}{
		"another identity":    {Trust{Identity: Identity{me + ".evil", myIssuer}, Root: s.trust().Root}, b, artifact, ErrSignature},
		"another issuer":      {Trust{Identity: Identity{me, myIssuer + ".evil"}, Root: s.trust().Root}, b, artifact, ErrSignature},
		"another root":        {other.trust(), b, artifact, ErrSignature},
		"another artifact":    {s.trust(), b, digest.Of(nil), ErrArtifact},
		"no artifact":         {s.trust(), b, digest.Digest{}, nil},
		"no identity":         {Trust{Root: s.trust().Root}, b, artifact, ErrKey},
		"a root that is none": {Trust{Identity: Identity{me, myIssuer}, Root: []byte("{")}, b, artifact, ErrKey},
		"another payload": {s.trust(), edit(t, b, func(m map[string]any) {
			m["dsseEnvelope"].(map[string]any)["payload"] = base64.StdEncoding.EncodeToString(bytes.Replace(payload(), []byte("a.qcow2"), []byte("c.qcow2"), 1))
		}), artifact, ErrSignature},
		"no entry in the log": {s.trust(), edit(t, b, func(m map[string]any) {
			m["verificationMaterial"].(map[string]any)["tlogEntries"] = []any{}
		}), artifact, ErrSignature},
		"the time of another": {s.trust(), edit(t, b, func(m map[string]any) {
			m["verificationMaterial"].(map[string]any)["tlogEntries"].([]any)[0].(map[string]any)["integratedTime"] = "1700000000"
		}), artifact, ErrSignature},
		"cut": {s.trust(), b[:len(b)/2], artifact, ErrDamaged},
	} {
		got, err := tt.trust.Verify(tt.bundle, tt.about)
		if err == nil || got != nil || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %s, %v", name, got, err)
		}
	}
	byKey, err := newSigner(t).Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.trust().Verify(byKey, artifact); !errors.Is(err, ErrSignature) {
		t.Errorf("a bundle by a key: %v", err)
	}
}

// A certificate that had expired when the log took the signature does not
// count; what is signed so is not handed out, where the root is known.
func TestKeylessExpired(t *testing.T) {
	s := &services{instance: newInstance(t), old: true}
	o := s.options(t)
	signer, err := OpenKeyless(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := signer.Bundle(t.Context(), payload()); err == nil {
		t.Errorf("got %s", b)
	}
	o.TrustedRoot = ""
	if signer, err = OpenKeyless(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	b, err := signer.Bundle(t.Context(), payload())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.trust().Verify(b, artifact); !errors.Is(err, ErrSignature) {
		t.Errorf("got %v", err)
	}
}

func TestKeylessRefused(t *testing.T) {
	s := &services{instance: newInstance(t), refuse: true}
	good := s.options(t)
	for name, tt := range map[string]struct {
		change func(*KeylessOptions)
		want   string
	}{
		"refused":        {func(*KeylessOptions) {}, "401"},
		"no token":       {func(o *KeylessOptions) { o.Token = "x" }, "no JSON web token"},
		"expired token":  {func(o *KeylessOptions) { o.Token = token(time.Unix(1_700_000_000, 0)) }, "expired at 2023-11-14"},
		"no TLS":         {func(o *KeylessOptions) { o.Fulcio = "http://fulcio.example" }, "without TLS"},
		"no address":     {func(o *KeylessOptions) { o.Rekor = "rekor" }, "is none"},
		"unreachable":    {func(o *KeylessOptions) { o.Fulcio = "http://127.0.0.1:1" }, "connection refused"},
		"no such root":   {func(o *KeylessOptions) { o.TrustedRoot += "x" }, "trusted root"},
		"no certificate": {func(o *KeylessOptions) { o.Fulcio += "/x" }, "404"},
	} {
		o := good
		tt.change(&o)
		_, err := OpenKeyless(t.Context(), o)
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "c2VjcmV0") {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// cosignKeyless has the real cosign verify a bundle, with no network.
func cosignKeyless(t *testing.T, trustedRoot string, b []byte) {
	t.Helper()
	path, err := exec.LookPath("cosign")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Logf("cosign was not asked: %v", err)
		return
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "b.json")
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(identity, sum string) ([]byte, error) {
		c := exec.Command(path, "verify-blob-attestation", "--bundle", file, "--new-bundle-format", "--trusted-root", trustedRoot, "--certificate-identity", identity,
			"--certificate-oidc-issuer", myIssuer, "--type", "https://example.com/p/v1", "--digest", sum, "--digestAlg", "sha256")
		c.Env = []string{"HOME=" + dir, "PATH=" + os.Getenv("PATH")}
		return c.CombinedOutput()
	}
	if out, err := run(me, artifact.Hex()); err != nil {
		t.Errorf("cosign: %v: %s", err, out)
	}
	if out, err := run("you@example.org", artifact.Hex()); err == nil {
		t.Errorf("cosign, another identity: %s", out)
	}
	if out, err := run(me, digest.Of(nil).Hex()); err == nil {
		t.Errorf("cosign, another artifact: %s", out)
	}
}

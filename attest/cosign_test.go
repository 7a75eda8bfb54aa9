package attest_test

import (
	"bytes"
	"go/build"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/attest"
	"caisson/attest/slsa"
)

// cosignCLI is the real cosign, run where there is no network.
type cosignCLI struct {
	path    string
	unshare bool
	dir     string
}

func newCosign(t *testing.T) *cosignCLI {
	t.Helper()
	path, err := exec.LookPath("cosign")
	if err != nil {
		path = filepath.Join(build.Default.GOPATH, "bin", "cosign")
		if _, err := os.Stat(path); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal("cosign is not installed: go install github.com/sigstore/cosign/v2/cmd/cosign@v2.6.5")
			}
			t.Skip("cosign is not installed: its verdict on our bundles was not asked for")
		}
	}
	c := &cosignCLI{path: path, dir: t.TempDir(), unshare: exec.Command("unshare", "-rn", "true").Run() == nil}
	if !c.unshare {
		t.Log("unshare -rn does not work here: cosign runs with the machine's network")
	}
	// What `cosign trusted-root create` writes: nobody is trusted but --key.
	root := []byte(`{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	if err := os.WriteFile(filepath.Join(c.dir, "empty-tr.json"), root, 0o644); err != nil {
		t.Fatal(err)
	}
	return c
}

// verify runs cosign verify-blob-attestation; blob is a file, or --digest and
// the digest.
func (c *cosignCLI) verify(key, bundle, predicateType string, blob ...string) (string, error) {
	args := append([]string{"verify-blob-attestation", "--key", key, "--bundle", bundle, "--type", predicateType,
		"--insecure-ignore-tlog", "--new-bundle-format", "--trusted-root", filepath.Join(c.dir, "empty-tr.json")}, blob...)
	cmd := exec.Command(c.path, args...)
	if c.unshare {
		cmd = exec.Command("unshare", append([]string{"-rn", c.path}, args...)...)
	}
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCosign lets the real cosign verify every bundle, offline, and refuse
// every spoilt one.
func TestCosign(t *testing.T) {
	c := newCosign(t)
	n := newLine(t)
	sum := n.attest()
	key, wrongKey := filepath.Join(c.dir, "cosign.pub"), filepath.Join(c.dir, "other.pub")
	for name, pem := range map[string][]byte{key: n.Signer.PublicPEM(), wrongKey: newSigner(t).PublicPEM()} {
		if err := os.WriteFile(name, pem, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	blob := n.path("demo.qcow2")
	for _, s := range sum.Signed {
		t.Run(s.Name, func(t *testing.T) {
			bundle := n.path(s.Bundle)
			// cosign's own names for the two types that it knows.
			types := []string{s.PredicateType}
			if short := map[string]string{slsa.TypeSBOM: "spdxjson", slsa.TypeProvenance: "slsaprovenance1"}[s.PredicateType]; short != "" {
				types = append(types, short)
			}
			for _, predicateType := range types {
				if out, err := c.verify(key, bundle, predicateType, blob); err != nil || !strings.Contains(out, "Verified OK") {
					t.Errorf("--type %s: got %v: %s", predicateType, err, out)
				}
			}
			if out, err := c.verify(key, bundle, s.PredicateType, "--digest", sum.Image.SHA256.Hex(), "--digestAlg", "sha256"); err != nil {
				t.Errorf("--digest: got %v: %s", err, out)
			}
			if out, err := c.verify(wrongKey, bundle, s.PredicateType, blob); err == nil {
				t.Errorf("another key was accepted: %s", out)
			}
			if out, err := c.verify(key, bundle, "https://example.com/other/v1", blob); err == nil {
				t.Errorf("another type was accepted: %s", out)
			}
			if out, err := c.verify(key, bundle, s.PredicateType, n.path("image.json")); err == nil {
				t.Errorf("another blob was accepted: %s", out)
			}
			if out, err := c.verify(key, spoilt(t, n.read(s.Bundle)), s.PredicateType, blob); err == nil {
				t.Errorf("a bundle with a flipped byte was accepted: %s", out)
			}
		})
	}
}

// spoilt flips a bit in the middle of the payload of a bundle.
func spoilt(t *testing.T, bundle []byte) string {
	t.Helper()
	marker := []byte(`"payload":`)
	start := bytes.Index(bundle, marker)
	if start < 0 {
		t.Fatalf("no payload in %s", bundle)
	}
	end := start + len(marker) + bytes.IndexByte(bundle[start+len(marker):], ',')
	bad := bytes.Clone(bundle)
	if i := (start + end) / 2; bad[i] == 'A' {
		bad[i] = 'B'
	} else {
		bad[i] = 'A'
	}
	name := filepath.Join(t.TempDir(), "spoilt.sigstore.json")
	if err := os.WriteFile(name, bad, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestCosignKey signs with a key that cosign itself made.
func TestCosignKey(t *testing.T) {
	c := newCosign(t)
	cmd := exec.Command(c.path, "generate-key-pair")
	cmd.Dir = c.dir
	cmd.Env = []string{"HOME=" + c.dir, "COSIGN_PASSWORD=secret"}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	private, err := os.ReadFile(filepath.Join(c.dir, "cosign.key"))
	if err != nil {
		t.Fatal(err)
	}
	n := newLine(t)
	n.Signer = loadSigner(t, private)
	sum := n.attest()
	for _, s := range sum.Signed {
		if out, err := c.verify(filepath.Join(c.dir, "cosign.pub"), n.path(s.Bundle), s.PredicateType, n.path("demo.qcow2")); err != nil {
			t.Errorf("%s: %v: %s", s.Name, err, out)
		}
	}
	public, err := os.ReadFile(filepath.Join(c.dir, "cosign.pub"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := attest.VerifyDir(t.Context(), n.Dir, public); err != nil {
		t.Error(err)
	}
}

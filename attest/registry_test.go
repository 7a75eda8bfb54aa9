package attest_test

import (
	"bytes"
	"io"
	"log"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"caisson/attest"
	"caisson/attest/oci"
	"caisson/attest/slsa"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
	"caisson/prefetch"
)

// registries are one that knows of referrers, and Debian's, which does not.
func registries(t *testing.T) map[string]string {
	t.Helper()
	srv := httptest.NewServer(registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0))))
	t.Cleanup(srv.Close)
	all := map[string]string{"referrers": strings.TrimPrefix(srv.URL, "http://")}
	all["docker-registry"], _ = tooltest.Registry(t)
	return all
}

func quick() oci.Options {
	return oci.Options{Config: prefetch.Config{Version: "test", Backoff: time.Millisecond, IdleTimeout: 5 * time.Second}}
}

// image has cosign verify something of an image in a registry.
func (c *cosignCLI) image(what, key, ref string, more ...string) (string, error) {
	args := append([]string{what, "--key", key, "--insecure-ignore-tlog", "--new-bundle-format", "--trusted-root", filepath.Join(c.dir, "empty-tr.json"), "--allow-http-registry"}, more...)
	cmd := exec.Command(c.path, append(args, ref)...)
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH")}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestCosignRegistry pushes an image with its statements, and has the real
// cosign verify each of them there, and refuse what another key signed, what is
// of another type, and what belongs to another image.
func TestCosignRegistry(t *testing.T) {
	c := newCosign(t)
	n := newLine(t)
	n.Publication.Labels = map[string]string{"version": "1"}
	sum := n.attest()
	p, err := attest.ReadPackage(t.Context(), n.Dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if p.Image.Digest != sum.Manifest || len(p.Statements) != 6 || len(p.Attached) != 7 || p.SBOM != sum.SBOM.SHA256 {
		t.Errorf("got %s, %v, want %s", p.Image.Digest, p.Statements, sum.Manifest)
	}
	key, wrongKey := filepath.Join(c.dir, "cosign.pub"), filepath.Join(c.dir, "other.pub")
	for name, pem := range map[string][]byte{key: n.Signer.PublicPEM(), wrongKey: newSigner(t).PublicPEM()} {
		if err := os.WriteFile(name, pem, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, host := range registries(t) {
		t.Run(name, func(t *testing.T) {
			ref := host + "/team/podvm:1"
			if _, err := oci.Push(t.Context(), ref, p.Image, p.Attached, quick()); err != nil {
				t.Fatal(err)
			}
			if out, err := c.image("verify", key, ref); err != nil {
				t.Errorf("cosign verify: %v: %s", err, out)
			}
			if out, err := c.image("verify", wrongKey, ref); err == nil {
				t.Errorf("cosign verify by another key: %s", out)
			}
			for _, s := range sum.Signed {
				if s.Name == "signature" {
					continue
				}
				if out, err := c.image("verify-attestation", key, ref, "--type", s.PredicateType); err != nil {
					t.Errorf("%s: %v: %s", s.Name, err, out)
				}
			}
			if out, err := c.image("verify-attestation", wrongKey, ref, "--type", slsa.TypeProvenance); err == nil {
				t.Errorf("by another key: %s", out)
			}
			if out, err := c.image("verify-attestation", key, ref, "--type", "https://example.com/other"); err == nil {
				t.Errorf("of another type: %s", out)
			}

			// The statements at another image.
			other := newLine(t)
			other.write("demo.qcow2", []byte("QFI\xfb another"))
			other.describe()
			other.attest()
			foreign, err := attest.ReadPackage(t.Context(), other.Dir, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := oci.Push(t.Context(), host+"/team/podvm:2", foreign.Image, p.Attached, quick()); err != nil {
				t.Fatal(err)
			}
			if out, err := c.image("verify", key, host+"/team/podvm:2"); err == nil {
				t.Errorf("a signature of another image: %s", out)
			}
			d, attached, err := oci.Fetch(t.Context(), host+"/team/podvm:2", quick().Config, 1<<20)
			if err != nil || d != foreign.Image.Digest || len(attached) != 6 {
				t.Fatalf("got %s with %d, %v", d, len(attached), err)
			}
			for _, a := range attached {
				got := attest.Audit(a.Content, []attest.Key{{Name: "k", PEM: n.Signer.PublicPEM()}})
				if got.Signature != attest.Good || got.About(sum.Manifest).Signature != attest.Good || got.About(d).Signature != attest.Bad {
					t.Errorf("got %+v", got)
				}
			}
		})
	}
}

// TestReadPackage refuses folders of which the parts do not belong together.
func TestReadPackage(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil  func(n *line)
		labels map[string]string
		want   string
	}{
		"other labels":            {func(*line) {}, map[string]string{"a": "1"}, "attest again, with the labels"},
		"another disk":            {func(n *line) { n.write("demo.qcow2", []byte("x")) }, nil, "demo.qcow2 changes"},
		"other measurements":      {func(n *line) { n.write("measurements.json", []byte(`{"measurements":{"sha256":{"pcr03":"00"}}}`)) }, nil, "the statements are about the OCI image"},
		"another disk, described": {func(n *line) { n.write("demo.qcow2", []byte("x")); n.describe() }, nil, "the statements are about the OCI image"},
		"statements about another": {func(n *line) {
			n.write("demo.qcow2", []byte("x"))
			n.describe()
			must(n.t, os.Remove(n.path("oci.json")))
		}, nil, "is about sha256:"},
		"other labels, unsaid": {func(n *line) { must(n.t, os.Remove(n.path("oci.json"))) }, map[string]string{"a": "1"}, "were other labels given"},
		"a damaged bundle":     {func(n *line) { n.write("statements/vsa.sigstore.json", []byte("{")) }, nil, "damaged bundle"},
		"a description that leads out": {func(n *line) {
			n.write("image.json", bytes.ReplaceAll(n.read("image.json"), []byte(`"demo.qcow2"`), []byte(`"../demo.qcow2"`)))
		}, nil, "which is not in it"},
	} {
		t.Run(name, func(t *testing.T) {
			n := newLine(t)
			n.attest()
			if _, err := attest.ReadPackage(t.Context(), n.Dir, nil); err != nil {
				t.Fatal(err)
			}
			tt.spoil(n)
			if p, err := attest.ReadPackage(t.Context(), n.Dir, tt.labels); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %+v, %v, want %q", p, err, tt.want)
			}
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestPublication names the SBOM after the image as Conforma wants it, and has
// a verifier's own verdict be about the image that is pushed.
func TestPublication(t *testing.T) {
	n := newLine(t)
	n.Publication = attest.Publication{Reference: "quay.example/team/podvm:1.0", Labels: map[string]string{"a": "b"}}
	sum := n.attest()
	if want := `"name":"quay.example/team/podvm:1.0@` + sum.Manifest.String() + `"`; !bytes.Contains(n.read("sbom.spdx.json"), []byte(want)) {
		t.Errorf("the document has no %s", want)
	}
	for _, s := range sum.Signed {
		st, err := slsa.Parse(n.read(s.Statement), s.PredicateType)
		if err != nil {
			t.Fatal(err)
		}
		about, err := slsa.ImageOf(st.Subject)
		if err != nil || about.Manifest != sum.Manifest || about.Repository != "quay.example/team/podvm" {
			t.Errorf("%s: got %+v, %v", s.Name, about, err)
		}
	}
	if _, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err != nil {
		t.Error(err)
	}
	n.write("oci.json", bytes.Replace(n.read("oci.json"), []byte(`"b"`), []byte(`"c"`), 1))
	if _, err := attest.VerifyDir(t.Context(), n.Dir, n.Signer.PublicPEM()); err == nil || !strings.Contains(err.Error(), "from the folder follows") {
		t.Errorf("other labels than were signed: %v", err)
	}
	for _, ref := range []string{"podvm", "quay.example/team/podvm@" + digest.Of(nil).String(), "quay.example/UP"} {
		n.Publication.Reference = ref
		if _, err := attest.Attest(t.Context(), n.Options); err == nil {
			t.Errorf("%s: no error", ref)
		}
	}
}

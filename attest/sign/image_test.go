package sign

import (
	"context"
	"encoding/json"
	"errors"
	"go/build"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// cosignCLI is the real cosign, with two key pairs.
type cosignCLI struct {
	t    *testing.T
	path string
	dir  string
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
			t.Skip("cosign is not installed: no image was signed")
		}
	}
	c := &cosignCLI{t: t, path: path, dir: t.TempDir()}
	for _, key := range []string{"own", "other"} {
		c.run("generate-key-pair", "--output-key-prefix", key)
	}
	c.write("spdx.json", `{"spdxVersion":"SPDX-2.3"}`)
	c.write("custom.json", `{"a":1}`)
	c.write("root.json", `{"mediaType":"application/vnd.dev.sigstore.trustedroot+json;version=0.1"}`)
	return c
}

func (c *cosignCLI) write(name, text string) {
	if err := os.WriteFile(filepath.Join(c.dir, name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *cosignCLI) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(c.dir, name))
	if err != nil {
		c.t.Fatal(err)
	}
	return b
}

func (c *cosignCLI) run(args ...string) {
	c.t.Helper()
	cmd := exec.Command(c.path, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"HOME=" + c.dir, "PATH=" + os.Getenv("PATH"), "COSIGN_PASSWORD=", "COSIGN_EXPERIMENTAL=1"}
	if out, err := cmd.CombinedOutput(); err != nil {
		c.t.Fatalf("cosign %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// sign and attest are cosign's with a key and no log.
func (c *cosignCLI) sign(key, ref string, more ...string) {
	c.run(append([]string{"sign", "-y", "--key", key + ".key", "--tlog-upload=false", ref}, more...)...)
}

func (c *cosignCLI) attest(key, ref string, more ...string) {
	c.run(append([]string{"attest", "-y", "--key", key + ".key", "--tlog-upload=false", ref}, more...)...)
}

// serveRegistry is an OCI registry in this process.
func serveRegistry(t *testing.T, wrap func(http.Handler) http.Handler) string {
	h := registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
	if wrap != nil {
		h = wrap(h)
	}
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// push puts a random image there, or an index of two, and returns its
// reference by digest.
func push(t *testing.T, repo string, index bool) string {
	t.Helper()
	image, err := random.Image(100, 2)
	if err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(repo + ":1")
	if err != nil {
		t.Fatal(err)
	}
	var sum v1.Hash
	if index {
		var idx v1.ImageIndex
		if idx, err = random.Index(100, 1, 2); err == nil {
			if err = remote.WriteIndex(ref, idx); err == nil {
				sum, err = idx.Digest()
			}
		}
	} else if err = remote.Write(ref, image); err == nil {
		sum, err = image.Digest()
	}
	if err != nil {
		t.Fatal(err)
	}
	return repo + "@" + sum.String()
}

func quick() ImageOptions {
	return ImageOptions{Config: prefetch.Config{Version: "test", Backoff: time.Millisecond}}
}

const spdxType = "https://spdx.dev/Document"

// TestVerifyImage has cosign sign images in each of its ways.
func TestVerifyImage(t *testing.T) {
	c := newCosign(t)
	host := serveRegistry(t, nil)
	bundle := []string{"--new-bundle-format", "--trusted-root", "root.json"}
	for _, tt := range []struct {
		name   string
		make   func(ref string)
		attest string // what is asked for
		want   string // in the error; empty for none
	}{
		{"signed", func(ref string) { c.sign("own", ref) }, "", ""},
		{"signed twice", func(ref string) { c.sign("other", ref); c.sign("own", ref) }, "", ""},
		{"signed among the referrers", func(ref string) { c.sign("own", ref, "--registry-referrers-mode=oci-1-1") }, "", ""},
		{"signed in a bundle", func(ref string) { c.sign("own", ref, bundle...) }, "", ""},
		{"attested", func(ref string) { c.attest("own", ref, "--type", "spdxjson", "--predicate", "spdx.json") }, spdxType, ""},
		{"attested in a bundle", func(ref string) {
			c.attest("own", ref, append(bundle, "--type", "spdxjson", "--predicate", "spdx.json")...)
		}, spdxType, ""},
		{"one of two attestations", func(ref string) {
			c.attest("own", ref, "--type", "https://example.com/p", "--predicate", "custom.json")
			c.attest("own", ref, "--type", "spdxjson", "--predicate", "spdx.json")
		}, spdxType, ""},

		{"unsigned", func(string) {}, "", "no signature by the key sha256:"},
		{"not attested", func(string) {}, spdxType, "no attestation of type " + spdxType},
		{"other key", func(ref string) { c.sign("other", ref) }, "", "1 found there"},
		{"other key in a bundle", func(ref string) { c.sign("other", ref, bundle...) }, "", "1 found there"},
		{"attested by another key", func(ref string) { c.attest("other", ref, "--type", "spdxjson", "--predicate", "spdx.json") }, spdxType, "1 found there"},
		{"another attestation", func(ref string) {
			c.attest("own", ref, "--type", "https://example.com/p", "--predicate", "custom.json")
		}, spdxType, "well signed are those of type https://example.com/p"},
		{"another attestation in a bundle", func(ref string) {
			c.attest("own", ref, append(bundle, "--type", "https://example.com/p", "--predicate", "custom.json")...)
		}, spdxType, "well signed are those of type https://example.com/p"},
		{"attested and not signed", func(ref string) {
			c.attest("own", ref, append(bundle, "--type", "spdxjson", "--predicate", "spdx.json")...)
		}, "", "well signed are those of type " + spdxType},
		{"signed and not attested", func(ref string) { c.sign("own", ref, bundle...) }, spdxType, "0 found there|well signed are"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ref := push(t, host+"/team/"+strings.ReplaceAll(tt.name, " ", "-"), strings.Contains(tt.name, "signed"))
			tt.make(ref)
			got, err := VerifyImage(t.Context(), lock.ImageVerify{Ref: ref, Key: c.read("own.pub"), Attestation: tt.attest}, quick())
			if tt.want == "" {
				want := lock.Verified{Key: got.Key, What: tt.attest}
				if tt.attest == "" {
					want.What = "image"
				}
				if err != nil || got != want || !strings.HasPrefix(got.Key, "sha256:") {
					t.Errorf("got %+v, %v", got, err)
				}
				return
			}
			ok := false
			for w := range strings.SplitSeq(tt.want, "|") {
				ok = ok || err != nil && strings.Contains(err.Error(), w)
			}
			if !errors.Is(err, ErrSignature) || !ok || got != (lock.Verified{}) {
				t.Errorf("got %+v, %v; want ErrSignature and %q", got, err, tt.want)
			}
		})
	}
}

// copySignature puts what is under one image's tag under that of another.
func copySignature(t *testing.T, from, to, ending string) {
	t.Helper()
	tag := func(ref string) name.Tag {
		d, err := name.NewDigest(ref)
		if err != nil {
			t.Fatal(err)
		}
		return d.Context().Tag(strings.Replace(d.DigestStr(), ":", "-", 1) + ending)
	}
	image, err := remote.Image(tag(from))
	if err == nil {
		err = remote.Write(tag(to), image)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestVerifyImageTampered moves good signatures to other images, and alters
// what they say.
func TestVerifyImageTampered(t *testing.T) {
	c := newCosign(t)
	host := serveRegistry(t, nil)
	good, bad := push(t, host+"/team/a", false), push(t, host+"/team/a", false)
	c.sign("own", good)
	c.attest("own", good, "--type", "spdxjson", "--predicate", "spdx.json")
	copySignature(t, good, bad, ".sig")
	copySignature(t, good, bad, ".att")
	key := c.read("own.pub")
	for _, attestation := range []string{"", spdxType} {
		if _, err := VerifyImage(t.Context(), lock.ImageVerify{Ref: good, Key: key, Attestation: attestation}, quick()); err != nil {
			t.Fatal(err)
		}
		_, err := VerifyImage(t.Context(), lock.ImageVerify{Ref: bad, Key: key, Attestation: attestation}, quick())
		if !errors.Is(err, ErrSignature) {
			t.Errorf("moved from another image (%q): %v", attestation, err)
		}
	}

	// A bundle of another image, as a referrer of this one.
	c.sign("own", good, "--new-bundle-format", "--trusted-root", "root.json")
	d, err := name.NewDigest(good)
	if err != nil {
		t.Fatal(err)
	}
	list, err := remote.Referrers(d)
	if err != nil {
		t.Fatal(err)
	}
	index, err := list.IndexManifest()
	if err != nil || len(index.Manifests) != 1 {
		t.Fatalf("%+v, %v", index, err)
	}
	b, err := remote.Image(d.Context().Digest(index.Manifests[0].Digest.String()))
	if err != nil {
		t.Fatal(err)
	}
	other, err := name.NewDigest(bad)
	if err != nil {
		t.Fatal(err)
	}
	subject, err := remote.Head(other)
	if err != nil {
		t.Fatal(err)
	}
	moved := mutate.Subject(b, *subject).(v1.Image)
	sum, err := moved.Digest()
	if err == nil {
		err = remote.Write(d.Context().Digest(sum.String()), moved)
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = VerifyImage(t.Context(), lock.ImageVerify{Ref: bad, Key: key}, quick())
	if !errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), "2 found there") {
		t.Errorf("a bundle of another image: %v", err)
	}
}

// What cannot be read is not called unsigned.
func TestVerifyImageUnreadable(t *testing.T) {
	c := newCosign(t)
	key := c.read("own.pub")
	sum := "@" + digest.Of(nil).String()
	down := false
	host := serveRegistry(t, func(h http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if down && r.URL.Path != "/v2/" {
				w.WriteHeader(http.StatusForbidden)
				json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"code": "DENIED", "message": "not\x1byours"}}})
				return
			}
			h.ServeHTTP(w, r)
		})
	})
	ref := push(t, host+"/team/a", false)
	down = true
	for _, tt := range []struct {
		v    lock.ImageVerify
		want string
	}{
		{lock.ImageVerify{Ref: ref, Key: key}, "403 Forbidden: DENIED: notyours"},
		{lock.ImageVerify{Ref: "127.0.0.1:1/team/a" + sum, Key: key}, "connection refused"},
		{lock.ImageVerify{Ref: host + "/team/a:1", Key: key}, "digest"},
		{lock.ImageVerify{Ref: ref}, "neither a key nor an identity"},
		{lock.ImageVerify{Ref: ref, Key: []byte("no key")}, "unusable key"},
	} {
		_, err := VerifyImage(t.Context(), tt.v, quick())
		if err == nil || errors.Is(err, ErrSignature) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: got %v, want %q", tt.v, err, tt.want)
		}
	}
}

// TestLockVerified locks an image that cosign has signed and given an SBOM,
// with the real parts of lock and prefetch.
func TestLockVerified(t *testing.T) {
	c := newCosign(t)
	host := serveRegistry(t, nil)
	const primary = `<metadata xmlns="http://linux.duke.edu/metadata/common" packages="0"></metadata>`
	if err := os.Mkdir(filepath.Join(c.dir, "repodata"), 0o700); err != nil {
		t.Fatal(err)
	}
	c.write("repodata/primary.xml", primary)
	c.write("repodata/repomd.xml", `<repomd xmlns="http://linux.duke.edu/metadata/repo"><data type="primary"><checksum type="sha256">`+digest.Of([]byte(primary)).Hex()+
		`</checksum><location href="repodata/primary.xml"/></data></repomd>`)
	resolve := func(image string) (*lock.Lock, error) {
		text := "version: 1\nname: a\nrpm: {repos: [{id: base, baseurl: 'file://" + c.dir + "', gpgcheck: false}]}\ninputs: {oci: [{name: pause, " + image + "}]}\n"
		m, err := lock.ParseManifest("caisson.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		store, err := cas.Open(filepath.Join(t.TempDir(), "store"))
		if err != nil {
			t.Fatal(err)
		}
		client, err := prefetch.NewClient(quick().Config)
		if err != nil {
			t.Fatal(err)
		}
		return lock.Resolve(t.Context(), lock.Options{
			Dir: c.dir, Manifest: m, Digest: digest.Of([]byte(text)), Fetch: prefetch.NewFetcher(store, client, quick().Config).Fetch,
			VerifyImage: func(ctx context.Context, v lock.ImageVerify) (lock.Verified, error) {
				return VerifyImage(ctx, v, quick())
			},
		})
	}
	ref := push(t, host+"/team/pause", false)
	c.sign("own", ref)
	c.run("attach", "sbom", "--sbom", "spdx.json", "--type", "spdx", "--input-format", "json", ref)
	l, err := resolve("ref: '" + host + "/team/pause:1', verify: {key: own.pub}, sbom: import")
	if err != nil {
		t.Fatal(err)
	}
	m, sbom := l.Find(lock.KindOCI, "pause/manifest"), l.Find(lock.KindOCI, "pause/sbom")
	if m == nil || !strings.HasSuffix(ref, m.SHA256.String()) || m.Verified == nil || m.Verified.What != "image" {
		t.Errorf("got %+v", m)
	}
	if sbom == nil || sbom.SHA256 != digest.Of(c.read("spdx.json")) || sbom.OCI.MediaType != "text/spdx+json" {
		t.Errorf("got %+v", sbom)
	}
	if _, err := resolve("ref: '" + ref + "', verify: {key: other.pub}"); !errors.Is(err, ErrSignature) {
		t.Errorf("other key: %v", err)
	}
	for _, more := range [][]string{nil, {"--new-bundle-format", "--trusted-root", "root.json"}} {
		ref := push(t, host+"/team/attested"+strings.Repeat("-bundle", len(more)/2), false)
		c.attest("own", ref, append(more, "--type", "spdxjson", "--predicate", "spdx.json")...)
		l, err := resolve("ref: '" + ref + "', verify: {key: own.pub, attestation: '" + spdxType + "'}, sbom: import")
		if err != nil {
			t.Error(err)
			continue
		}
		if in := l.Find(lock.KindOCI, "pause/sbom"); in == nil || in.Size == 0 {
			t.Errorf("got %+v", in)
		}
	}
}

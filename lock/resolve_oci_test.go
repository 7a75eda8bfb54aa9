package lock

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/lock/digest"
)

// images is a registry with one repository, registry.example/team/pause.
type images struct {
	w *world
	n int
}

const imagesAt = "oci://registry.example/team/pause/"

// put serves text at an address of the repository.
func (g *images) put(at, text string) digest.Digest {
	g.w.t.Helper()
	g.n++
	name := filepath.Join(g.w.t.TempDir(), fmt.Sprint(g.n))
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		g.w.t.Fatal(err)
	}
	g.w.files[imagesAt+at] = name
	return digest.Of([]byte(text))
}

// manifest serves a manifest by its digest, and under tags, and returns a
// descriptor without its closing brace.
func (g *images) manifest(text string, tags ...string) string {
	d := digest.Of([]byte(text))
	for _, id := range append(tags, d.String()) {
		g.put("manifests/"+id, text)
	}
	return descriptor(typeOCIManifest, d, len(text))
}

func descriptor(typ string, d digest.Digest, size int) string {
	return fmt.Sprintf(`{"mediaType":%q,"digest":%q,"size":%d`, typ, d, size)
}

// layer is the digest of a layer, which nobody fetches.
func layer(name string) digest.Digest { return digest.Of([]byte(name)) }

// imageText is the manifest of an image of two layers, one of its own.
func imageText(config, own string) string {
	return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s},"layers":[%s},%s}]}`, typeOCIManifest,
		config, descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer("common"), 1000), descriptor("application/vnd.oci.image.layer.v1.tar+gzip", layer(own), 2000))
}

// config serves a configuration.
func (g *images) config(text string) string {
	d := g.put("blobs/"+digest.Of([]byte(text)).String(), text)
	return descriptor(typeOCIConfig, d, len(text))
}

// index serves an index of two arches and an attestation, as buildx makes it.
func (g *images) index(tags ...string) digest.Digest {
	amd := g.manifest(imageText(g.config(`{"architecture":"amd64","os":"linux"}`), "amd64"))
	arm := g.manifest(imageText(g.config(`{"architecture":"arm64","os":"linux"}`), "arm64"))
	text := fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"manifests":[`+
		`%s,"annotations":{"vnd.docker.reference.type":"attestation-manifest"},"platform":{"architecture":"amd64","os":"linux"}},`+
		`%s,"platform":{"architecture":"amd64","os":"linux"}},%s,"platform":{"architecture":"arm64","os":"linux","variant":"v8"}},`+
		`%s,"platform":{"architecture":"unknown","os":"unknown"}}]}`, typeOCIIndex,
		descriptor(typeOCIManifest, layer("attestation"), 9), amd, arm, descriptor(typeOCIManifest, layer("attestation"), 9))
	g.manifest(text, tags...)
	return digest.Of([]byte(text))
}

const ociHead = "version: 1\nname: a\nrpm: {repos: [{id: base, baseurl: REPOS/base, gpgkey: [KEY]}]}\n"

// twoArches is a manifest with one image.
func twoArches(image string) string {
	return strings.Replace(ociHead, "rpm:", "arches: [x86_64, aarch64]\nrpm:", 1) + "inputs: {oci: [{name: pause, " + image + "}]}\n"
}

func oneArch(image string) string { return ociHead + "inputs: {oci: [{name: pause, " + image + "}]}\n" }

func newImages(t *testing.T) *images {
	w := newWorld(t)
	w.repo("base", "")
	return &images{w: w}
}

// parts lists an image's inputs: name, role, size and arches.
func parts(l *Lock) string {
	var out []string
	for _, in := range l.Inputs {
		if in.Kind != KindOCI {
			continue
		}
		var arches []string
		for _, u := range in.For {
			arches = append(arches, u.Arch)
		}
		out = append(out, strings.TrimSpace(in.Name+" "+in.OCI.Role+" "+strings.Join(arches, ",")))
	}
	return strings.Join(out, "\n")
}

func TestResolveImageIndex(t *testing.T) {
	g := newImages(t)
	sum := g.index("3.9")
	l := g.w.lock(twoArches("ref: 'registry.example/team/pause:3.9'"))
	want := `pause/aarch64/config config aarch64
pause/aarch64/layer-0 layer aarch64
pause/aarch64/layer-1 layer aarch64
pause/aarch64/manifest manifest aarch64
pause/index index
pause/x86_64/config config x86_64
pause/x86_64/layer-0 layer x86_64
pause/x86_64/layer-1 layer x86_64
pause/x86_64/manifest manifest x86_64`
	if got := parts(l); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	top := l.Find(KindOCI, "pause/index")
	if top.SHA256 != sum || top.URL != imagesAt+"manifests/"+sum.String() || top.OCI.Ref != "registry.example/team/pause:3.9" || top.OCI.MediaType != typeOCIIndex {
		t.Errorf("%+v %+v", top, top.OCI)
	}
	if want := "pkg:oci/pause@sha256:" + sum.Hex() + "?repository_url=registry.example%2Fteam%2Fpause&tag=3.9"; strings.ReplaceAll(top.PURL, "sha256%3A", "sha256:") != want {
		t.Errorf("got %s, want %s", top.PURL, want)
	}
	if m := l.Find(KindOCI, "pause/aarch64/manifest"); !strings.Contains(m.PURL, "arch=arm64") {
		t.Error(m.PURL)
	}
	own := l.Find(KindOCI, "pause/aarch64/layer-1")
	if own.SHA256 != layer("arm64") || own.Size != 2000 || own.URL != imagesAt+"blobs/"+layer("arm64").String() || own.PURL != "" {
		t.Errorf("%+v", own)
	}
	if got := why(l, KindOCI, "pause/x86_64/config"); got != "x86_64 oci:pause inputs.oci pause" {
		t.Error(got)
	}
	for _, at := range g.w.asked {
		if strings.Contains(at, layer("common").Hex()) || strings.Contains(at, layer("attestation").Hex()) {
			t.Errorf("fetched %s", at)
		}
	}
}

// What was locked stays while the tag moves, until it is to be updated.
func TestResolveImageOld(t *testing.T) {
	g := newImages(t)
	first := g.index("3.9")
	manifest := oneArch("ref: 'registry.example/team/pause:3.9'")
	old := g.w.lock(manifest)
	g.manifest(imageText(g.config(`{"architecture":"amd64"}`), "new"), "3.9")
	g.w.opts.Old = old
	g.w.asked = nil
	if l := g.w.lock(manifest); string(format(t, l)) != string(format(t, old)) {
		t.Errorf("it has changed:\n%s", parts(l))
	}
	if slices.ContainsFunc(g.w.asked, func(s string) bool { return strings.HasPrefix(s, "oci:") }) {
		t.Errorf("fetched %q", g.w.asked)
	}

	// Another arch needs the registry, and not the tag.
	l := g.w.lock(twoArches("ref: 'registry.example/team/pause:3.9'"))
	if top := l.Find(KindOCI, "pause/index"); top == nil || top.SHA256 != first {
		t.Errorf("got\n%s", parts(l))
	}
	if slices.Contains(g.w.asked, imagesAt+"manifests/3.9") {
		t.Error("the tag was asked")
	}

	g.w.opts.Update = []string{"pause"}
	if got, want := parts(g.w.lock(manifest)), "pause/config config x86_64\npause/layer-0 layer x86_64\npause/layer-1 layer x86_64\npause/manifest manifest x86_64"; got != want {
		t.Errorf("updated: got\n%s\nwant\n%s", got, want)
	}
	g.w.opts.Update = []string{"paus"}
	g.w.fails(manifest, `updating "paus": the lock has no package, git repository, image or file of that name`)
	g.w.opts.Update = nil
	other := oneArch("ref: 'registry.example/team/pause@" + first.String() + "'")
	if l := g.w.lock(other); l.Find(KindOCI, "pause/index").SHA256 != first {
		t.Error("another reference")
	}
}

func TestResolveImageErrors(t *testing.T) {
	const ref = "ref: 'registry.example/team/pause:1'"
	for name, tt := range map[string]struct {
		put      func(g *images)
		manifest string
		want     string
	}{
		"nothing": {func(*images) {}, oneArch(ref), "inputs.oci: pause: " + imagesAt + "manifests/1: file does not exist"},
		"no such arch": {func(g *images) { g.index("1") }, strings.Replace(oneArch(ref), "rpm:", "arches: [s390x]\nrpm:", 1),
			"inputs.oci: pause: registry.example/team/pause:1: it has no image for s390x (linux/s390x); it has linux/amd64, linux/arm64/v8"},
		"no arch at all": {func(g *images) { g.manifest(`{"schemaVersion":2,"manifests":[]}`, "1") }, oneArch(ref), "no image for x86_64 (linux/amd64), and no other"},
		"no platform": {func(g *images) {
			g.manifest(`{"schemaVersion":2,"manifests":[`+descriptor(typeOCIManifest, layer("x"), 1)+`}]}`, "1")
		}, oneArch(ref), "it has one without a platform"},
		"an index in an index": {func(g *images) {
			g.manifest(`{"schemaVersion":2,"manifests":[`+descriptor(typeOCIIndex, layer("x"), 1)+`,"platform":{"os":"linux","architecture":"amd64"}}]}`, "1")
		}, oneArch(ref), `its entry for x86_64 is of type "application/vnd.oci.image.index.v1+json", want a manifest`},
		"single of other arch": {func(g *images) { g.manifest(imageText(g.config(`{"architecture":"arm64"}`), "x"), "1") }, oneArch(ref),
			"inputs.oci: pause: registry.example/team/pause:1: it has no image for x86_64 (linux/amd64); it is a single image for arm64"},
		"sha512": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), layer("x").String(), "sha512:"+strings.Repeat("a", 128), 1), "1")
		}, oneArch(ref), `layer 1: digest "sha512:` + strings.Repeat("a", 128) + `": want "sha256:" and 64 lower-case hex digits; Caisson pins by SHA-256 only`},
		"foreign": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), "layer.v1", "layer.nondistributable.v1", 1), "1")
		}, oneArch(ref), "layer 0: " + layer("common").String() + ` is of type "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip": foreign layers are refused`},
		"urls": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), `"size":2000`, `"size":2000,"urls":["https://elsewhere.example/"]`, 1), "1")
		}, oneArch(ref), `is to be fetched from "https://elsewhere.example/": foreign layers are refused`},
		"size": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), `"size":2000`, `"size":-1`, 1), "1")
		}, oneArch(ref), "has a size of -1 bytes"},
		"schema 1": {func(g *images) { g.manifest(`{"schemaVersion":1,"fsLayers":[]}`, "1") }, oneArch(ref), "a manifest of schemaVersion 1, want 2"},
		"both": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), `"layers"`, `"manifests":[],"layers"`, 1), "1")
		}, oneArch(ref), "with parts of an index and of an image"},
		"both as an index": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), typeOCIManifest, typeOCIIndex, 1), "1")
		}, oneArch(ref), "with parts of an index and of an image"},
		"no config":  {func(g *images) { g.manifest(`{"schemaVersion":2}`, "1") }, oneArch(ref), "a manifest without a config"},
		"other type": {func(g *images) { g.manifest(`{"schemaVersion":2,"mediaType":"text/html"}`, "1") }, oneArch(ref), `a manifest of mediaType "text/html", want one of`},
		"no JSON":    {func(g *images) { g.manifest(`<html>`, "1") }, oneArch(ref), "reading a manifest: invalid character"},
		"large": {func(g *images) { g.manifest(`{"schemaVersion":2,"x":"`+strings.Repeat("x", maxOCIManifest)+`"}`, "1") }, oneArch(ref),
			"more than the 4194304 bytes that it may have"},
		"large config": {func(g *images) {
			g.manifest(imageText(descriptor(typeOCIConfig, layer("config"), maxOCIManifest+1), "x"), "1")
		}, oneArch(ref), "4194305 bytes, want at most 4194304"},
		"config's size": {func(g *images) {
			g.manifest(strings.Replace(imageText(g.config(`{}`), "x"), `"size":2}`, `"size":3}`, 1), "1")
		}, oneArch(ref), "got 2 bytes, want 3"},
		"config": {func(g *images) { g.manifest(imageText(g.config(`[]`), "x"), "1") }, oneArch(ref), "reading its configuration: json"},

		"no SBOM": {func(g *images) { g.manifest(imageText(g.config(`{}`), "x"), "1") }, oneArch(ref + ", sbom: import"), "no SBOM in SPDX or CycloneDX is attached to it; looked in registry.example/team/pause at the referrers of sha256:"},
		"no one to verify": {func(g *images) { g.manifest(imageText(g.config(`{}`), "x"), "1") }, oneArch(ref + ", verify: {identity: a, issuer: b}"),
			"it is to be verified, and nothing here can"},
		"no key file": {func(g *images) { g.index("1") }, oneArch(ref + ", verify: {key: none}"), "inputs.oci: pause: reading the key none: open "},
		"no key":      {func(g *images) { g.index("1") }, oneArch(ref + ", verify: {key: KEY}"), "inputs.oci: pause: KEY: not a public key: want PEM that begins with -----BEGIN PUBLIC KEY-----"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newImages(t)
			tt.put(g)
			if _, err := g.w.resolve(tt.manifest); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// An artifact serves all arches, whatever its config is.
func TestResolveArtifact(t *testing.T) {
	g := newImages(t)
	m := g.manifest(strings.Replace(imageText(g.config(`{}`), "data"), typeOCIConfig, typeEmpty, 1), "1")
	l := g.w.lock(twoArches("ref: 'registry.example/team/pause:1'"))
	if got, want := parts(l), "pause/config config\npause/layer-0 layer\npause/layer-1 layer\npause/manifest manifest"; got != want {
		t.Errorf("got\n%s\nwant\n%s (%s)", got, want, m)
	}
}

// publicKey makes a key pair's public half, PEM.
func publicKey(t *testing.T) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// An image is verified before it is locked, and again when it is to be by
// somebody else.
func TestResolveImageVerify(t *testing.T) {
	g := newImages(t)
	sum := g.index("1")
	_, text := publicKey(t)
	writeFiles(t, g.w.dir, map[string]string{"keys/a.pub": text})
	fingerprint, err := publicKeyFingerprint([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var asked []ImageVerify
	refuse := error(nil)
	g.w.opts.VerifyImage = func(_ context.Context, v ImageVerify) (Verified, error) {
		asked = append(asked, v)
		out := Verified{Identity: v.Identity, Issuer: v.Issuer, What: "image"}
		if v.Attestation != "" {
			out.What = v.Attestation
		}
		if len(v.Key) > 0 {
			out.Key = fingerprint
		}
		return out, refuse
	}
	const ref = "ref: 'registry.example/team/pause:1'"
	byKey := oneArch(ref + ", verify: {key: ./keys/a.pub}")
	l := g.w.lock(byKey)
	want := ImageVerify{Ref: "registry.example/team/pause@" + sum.String(), Key: []byte(text)}
	if len(asked) != 2 || asked[0].Ref != want.Ref || string(asked[0].Key) != text || asked[0].Identity != "" {
		t.Errorf("got %+v, want %+v", asked, want)
	}
	if v := l.Find(KindOCI, "pause/index").Verified; v == nil || *v != (Verified{Key: fingerprint, What: "image"}) {
		t.Errorf("%+v", v)
	}
	if len(l.Sources) != 1 || l.Sources[0].Name != "keys/a.pub" {
		t.Errorf("sources: %+v", l.Sources)
	}

	g.w.opts.Old, asked = l, nil
	g.w.lock(byKey)
	if len(asked) != 0 {
		t.Error("what was verified is verified again")
	}
	by := oneArch(ref + ", verify: {identity: me, issuer: 'https://issuer.example', attestation: 'https://slsa.dev/provenance/v1'}")
	if v := g.w.lock(by).Find(KindOCI, "pause/index").Verified; v == nil || *v != (Verified{Identity: "me", Issuer: "https://issuer.example", What: "https://slsa.dev/provenance/v1"}) {
		t.Errorf("%+v", v)
	}
	if len(asked) != 2 || asked[0].Attestation == "" {
		t.Errorf("%+v", asked)
	}
	if v := g.w.lock(oneArch(ref)).Find(KindOCI, "pause/index").Verified; v != nil {
		t.Errorf("not asked for: %+v", v)
	}
	_, other := publicKey(t)
	writeFiles(t, g.w.dir, map[string]string{"keys/a.pub": other})
	refuse = errors.New("not signed")
	g.w.fails(byKey, "inputs.oci: pause: verifying registry.example/team/pause:1@"+sum.String()+": not signed")
}

// TestImportSBOM finds an SBOM wherever the tools put it.
func TestImportSBOM(t *testing.T) {
	const spdx, cyclonedx, bundle = "text/spdx+json", "application/vnd.cyclonedx+json", typeBundlePrefix + ".v0.3+json"
	artifact := func(subject digest.Digest, typ string, more string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"artifactType":%q,"config":%s},"layers":[%s}],"subject":%s}%s}`, typeOCIManifest, typ,
			descriptor(typeEmpty, digest.Of([]byte("{}")), 2), descriptor(typ, layer("sbom "+typ), 50), descriptor(typeOCIManifest, subject, 1), more)
	}
	list := func(entries ...string) string {
		return `{"schemaVersion":2,"mediaType":"` + typeOCIIndex + `","manifests":[` + strings.Join(entries, ",") + `]}`
	}
	typed := func(d, typ string) string { return fmt.Sprintf(`%s,"artifactType":%q}`, d, typ) }
	tagged := func(layers ...string) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":%q,"config":%s},"layers":[%s]}`, typeOCIManifest, descriptor(typeOCIConfig, layer("c"), 3), strings.Join(layers, ","))
	}
	predicate := `,"annotations":{"` + bundlePredicate + `":"https://spdx.dev/Document"}`
	for name, tt := range map[string]struct {
		put  func(g *images, subject digest.Digest)
		want digest.Digest
	}{
		"referrers": {func(g *images, s digest.Digest) {
			g.put("referrers/"+s.String(), list(typed(g.manifest(artifact(s, cyclonedx, "")), cyclonedx), typed(g.manifest(artifact(s, spdx, "")), spdx), typed(descriptor("x/y", layer("sig"), 1), "x/y")))
		}, layer("sbom " + spdx)},
		"referrers' tag": {func(g *images, s digest.Digest) {
			g.put("manifests/sha256-"+s.Hex(), list(typed(g.manifest(artifact(s, cyclonedx, "")), cyclonedx)))
		}, layer("sbom " + cyclonedx)},
		"referrers without types": {func(g *images, s digest.Digest) {
			g.put("referrers/"+s.String(), list(typed(g.manifest(artifact(s, spdx, "")), typeEmpty)))
		}, layer("sbom " + spdx)},
		"bundle": {func(g *images, s digest.Digest) {
			g.put("referrers/"+s.String(), list(typed(g.manifest(artifact(s, bundle, "")), bundle), typed(g.manifest(artifact(s, bundle, predicate)), bundle)))
		}, layer("sbom " + bundle)},
		"attached": {func(g *images, s digest.Digest) {
			g.put("manifests/sha256-"+s.Hex()+".sbom", tagged(descriptor("text/spdx", layer("one"), 1)+"}", descriptor("text/spdx", layer("two"), 1)+"}", descriptor(cyclonedx, layer("three"), 1)+"}"))
		}, layer("two")},
		"attested": {func(g *images, s digest.Digest) {
			g.put("manifests/sha256-"+s.Hex()+".att", tagged(descriptor(typeDSSE, layer("p"), 1)+`,"annotations":{"predicateType":"https://slsa.dev/provenance/v1"}}`,
				descriptor(typeDSSE, layer("s"), 1)+`,"annotations":{"predicateType":"https://cyclonedx.org/bom"}}`))
		}, layer("s")},
	} {
		t.Run(name, func(t *testing.T) {
			g := newImages(t)
			sum := g.index("1")
			tt.put(g, sum)
			manifest := twoArches("ref: 'registry.example/team/pause:1', sbom: import")
			l := g.w.lock(manifest)
			in := l.Find(KindOCI, "pause/sbom")
			if in == nil || in.SHA256 != tt.want || in.OCI.Role != "sbom" || in.URL != imagesAt+"blobs/"+tt.want.String() {
				t.Fatalf("got %+v, want %s", in, tt.want)
			}
			g.w.opts.Old, g.w.asked = l, nil
			g.w.lock(manifest)
			if slices.ContainsFunc(g.w.asked, func(s string) bool { return strings.HasPrefix(s, "oci:") }) {
				t.Errorf("fetched %q", g.w.asked)
			}
			if l := g.w.lock(twoArches("ref: 'registry.example/team/pause:1'")); l.Find(KindOCI, "pause/sbom") != nil {
				t.Error("the SBOM stays though nobody asks for it")
			}
		})
	}

	t.Run("one an arch", func(t *testing.T) {
		g := newImages(t)
		g.index("1")
		bare := g.w.lock(twoArches("ref: 'registry.example/team/pause:1'"))
		for _, arch := range []string{"x86_64", "aarch64"} {
			sum := bare.Find(KindOCI, "pause/"+arch+"/manifest").SHA256
			g.put("manifests/sha256-"+sum.Hex()+".sbom", tagged(descriptor("text/spdx", layer(arch), 1)+"}"))
		}
		l := g.w.lock(twoArches("ref: 'registry.example/team/pause:1', sbom: import"))
		if in := l.Find(KindOCI, "pause/aarch64/sbom"); in == nil || in.SHA256 != layer("aarch64") || in.For[0].Arch != "aarch64" {
			t.Errorf("%+v", in)
		}
	})
	t.Run("about another image", func(t *testing.T) {
		g := newImages(t)
		sum := g.index("1")
		g.put("referrers/"+sum.String(), list(typed(g.manifest(artifact(layer("other"), spdx, "")), spdx)))
		if _, err := g.w.resolve(oneArch("ref: 'registry.example/team/pause:1', sbom: import")); err == nil || !strings.Contains(err.Error(), "it is not about "+sum.String()) {
			t.Error(err)
		}
	})
}

func TestParseImageRef(t *testing.T) {
	sum := strings.Repeat("ab", 32)
	for _, s := range []string{
		"quay.io/org/pause:3.9", "quay.io/org/pause@sha256:" + sum, "quay.io/org/pause:3.9@sha256:" + sum, "localhost/a/b:1", "127.0.0.1:5000/a:1",
		"[::1]:5000/a-b/c__d:v1", "registry.example:443/a.b/c:x",
	} {
		r, err := parseImageRef(s)
		if err != nil {
			t.Errorf("%s: %v", s, err)
			continue
		}
		if _, err := ParseOCIAddress(r.at(OCIManifests, "sha256:"+sum)); err != nil {
			t.Error(err)
		}
	}
	for s, want := range map[string]string{
		"":                            "names no registry",
		"pause:3.9":                   "names no registry",
		"org/pause:3.9":               "names no registry",
		"quay.io/org/pause":           "neither a tag nor a digest",
		"quay.io/org/../pause:1":      "not the name of a repository",
		"quay.io/Org/pause:1":         "not the name of a repository",
		"quay.io//pause:1":            "not the name of a repository",
		"quay.io/a:":                  "is not a tag",
		"quay.io/a:-x":                "is not a tag",
		"quay.io/a@sha512:" + sum:     "Caisson pins by SHA-256 only",
		"quay.io/a@sha256:" + sum[1:]: "Caisson pins by SHA-256 only",
		"quay.io:99999/a:1":           "is not a port",
		"user@quay.io/a:1":            "Caisson pins by SHA-256 only",
		"quay..io/a:1":                "not the name of a registry",
		"[::1/a:1":                    "not an IP address",
		"https://quay.io/a:1":         "is not a port",
		"quay.io/" + strings.Repeat("a", 256) + ":1": "not the name of a repository",
	} {
		if _, err := parseImageRef(s); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", s, err, want)
		}
	}
	for _, s := range []string{
		"https://a.example/b/manifests/1", "oci://a.example/manifests/1", "oci://a.example/b/manifests/", "oci://a.example/b/blobs/1",
		"oci://a.example/b/c/sha256:" + sum, "oci://a.example/b/blobs/sha256:" + sum + "?x", "oci://a.example/../b/blobs/sha256:" + sum,
		"oci://a.example/b/referrers/tag", "oci://a@b.example/b/blobs/sha256:" + sum,
	} {
		if a, err := ParseOCIAddress(s); err == nil {
			t.Errorf("%q was read as %+v", s, a)
		}
	}
}

func FuzzOCIManifest(f *testing.F) {
	config := descriptor(typeOCIConfig, layer("c"), 2)
	f.Add([]byte(imageText(config, "a")))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[` + config + `,"platform":{"os":"linux","architecture":"amd64"}}]}`))
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + typeDockerIndex + `","manifests":[{"platform":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := parseOCIManifest(b)
		if err != nil {
			return
		}
		if m.index != (m.Config == nil) || m.index && m.Layers != nil || !slices.Contains(manifestTypes(), m.MediaType) {
			t.Errorf("accepted %s", b)
		}
		if d, err := m.forArch("x86_64"); err == nil && d.Platform.Architecture != "amd64" {
			t.Errorf("%s for amd64", d.Platform)
		}
		for i := range m.Layers {
			if p, err := m.Layers[i].part(); err == nil && (p.digest.IsZero() && !strings.Contains(m.Layers[i].Digest, strings.Repeat("0", 64)) || p.size < 0) {
				t.Errorf("accepted %+v", p)
			}
		}
		configArch(b)
	})
}

func FuzzImageRef(f *testing.F) {
	sum := strings.Repeat("ab", 32)
	for _, s := range []string{"quay.io/org/pause:3.9", "localhost/a@sha256:" + sum, "[::1]:5000/a:b@sha256:" + sum, "oci://a.example/b/blobs/sha256:" + sum} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := ParseOCIAddress(s); err == nil && a.String() != s {
			t.Errorf("%q is %q", s, a)
		}
		r, err := parseImageRef(s)
		if err != nil {
			return
		}
		if a, err := ParseOCIAddress(r.at(OCIBlobs, "sha256:"+sum)); err != nil || a.Host != r.host || a.Repository != r.repo {
			t.Errorf("%q gives the address %+v, %v", s, a, err)
		}
	})
}

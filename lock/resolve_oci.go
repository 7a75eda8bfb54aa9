package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/package-url/packageurl-go"

	"caisson/lock/digest"
)

// ImageVerify is an image, and by whom it has to be signed.
type ImageVerify struct {
	Ref string // HOST/REPOSITORY@sha256:HEX
	// Key is a public key, PEM; or Identity and Issuer are those of a
	// certificate of sigstore's.
	Key              []byte
	Identity, Issuer string
	// Attestation is the predicate type of an attestation that has to be
	// signed so, instead of the image itself.
	Attestation string
}

// images pins the OCI images: what their references are now, or were when
// they were locked, and of each arch's image all parts. Layers are named by
// digest and size and not fetched.
func (r *resolver) images(ctx context.Context) error {
	for _, o := range r.m.Inputs.OCI {
		ref, err := parseImageRef(o.Ref)
		if err == nil {
			l := imageLoader{r: r, m: o, ref: ref}
			err = l.pin(ctx)
		}
		if err != nil {
			return fmt.Errorf("inputs.oci: %s: %w", o.Name, err)
		}
	}
	return nil
}

// imageLoader pins one image.
type imageLoader struct {
	r      *resolver
	m      ManifestOCI
	ref    imageRef
	key    []byte    // of m.Verify
	want   *Verified // what m.Verify asks for
	inputs []Input
}

func (l *imageLoader) pin(ctx context.Context) error {
	if err := l.readVerify(); err != nil {
		return err
	}
	var top digest.Digest
	old := l.old()
	if len(old) > 0 && l.keeps(old) {
		l.inputs = old
	} else {
		if len(old) > 0 {
			top = old[topPart(old)].SHA256
		}
		if !l.ref.digest.IsZero() {
			top = l.ref.digest
		}
		if err := l.load(ctx, top); err != nil {
			return err
		}
	}
	for _, in := range l.inputs {
		if err := l.r.add(in); err != nil {
			return err
		}
	}
	return nil
}

// readVerify reads the key of m.Verify, and makes a source of it.
func (l *imageLoader) readVerify() error {
	v := l.m.Verify
	if v == nil {
		return nil
	}
	l.want = &Verified{Identity: v.Identity, Issuer: v.Issuer, What: "image"}
	if v.Attestation != "" {
		l.want.What = v.Attestation
	}
	if v.Key == "" {
		return nil
	}
	var err error
	if l.key, err = l.r.readTrustedKey(v.Key); err != nil {
		return err
	}
	if l.want.Key, err = publicKeyFingerprint(l.key); err != nil {
		return fmt.Errorf("%s: %w", v.Key, err)
	}
	return nil
}

// old are the image's parts in the lock there was, with the uses that they
// have now; nil where they are to be chosen anew.
func (l *imageLoader) old() []Input {
	if slices.Contains(l.r.Update, l.m.Name) {
		return nil
	}
	var out []Input
	for _, in := range l.r.chosen {
		if in.Kind != KindOCI || !strings.HasPrefix(in.Name, l.m.Name+"/") {
			continue
		}
		if in.OCI == nil || in.OCI.Ref != l.m.Ref {
			return nil
		}
		out = append(out, *in)
	}
	slices.SortFunc(out, compareInputs)
	if topPart(out) < 0 {
		return nil
	}
	return out
}

// topPart is the place of what the reference names: the index, or the only
// manifest.
func topPart(parts []Input) int {
	i := slices.IndexFunc(parts, func(in Input) bool { return in.OCI.Role == RoleIndex })
	if i < 0 {
		i = slices.IndexFunc(parts, func(in Input) bool { return in.OCI.Role == RoleManifest })
	}
	return i
}

// keeps tells whether the parts there were are what the manifest asks for
// now: for the same arches, with an SBOM or without, verified by the same.
func (l *imageLoader) keeps(old []Input) bool {
	if l.ref.digest != (digest.Digest{}) && l.ref.digest != old[topPart(old)].SHA256 {
		return false
	}
	got := old[topPart(old)].Verified
	if (got == nil) != (l.want == nil) || got != nil && *got != *l.want {
		return false
	}
	var arches []string
	sbom := false
	for _, in := range old {
		switch in.OCI.Role {
		case RoleManifest:
			for _, u := range in.For {
				arches = append(arches, u.Arch)
			}
		case RoleSBOM:
			sbom = true
		}
	}
	slices.Sort(arches)
	all := slices.Equal(arches, l.r.lock.Arches) || slices.Equal(arches, []string{""})
	return all && sbom == (l.m.SBOM != "")
}

// Roles of the parts of an image, as OCI.Role has them.
const (
	RoleIndex    = "index"
	RoleManifest = "manifest"
	RoleConfig   = "config"
	RoleLayer    = "layer"
	RoleSBOM     = "sbom"
)

// load asks the registry. top is what to take; where it is zero, what the tag
// names now.
func (l *imageLoader) load(ctx context.Context, top digest.Digest) error {
	l.r.say("reading the image %s", l.m.Name)
	id := l.ref.tag
	if !top.IsZero() {
		id = top.String()
	}
	b, blob, err := l.fetch(ctx, OCIManifests, id, top, 0, manifestTypes())
	if err != nil {
		return err
	}
	top = blob.SHA256
	m, err := parseOCIManifest(b)
	if err != nil {
		return fmt.Errorf("%s: %w", l.m.Ref, err)
	}
	verified, err := l.verify(ctx, top)
	if err != nil {
		return err
	}
	part := ociPart{mediaType: m.MediaType, digest: top, size: blob.Size}
	if !m.index {
		arches, err := l.singleArches(ctx, m)
		if err != nil {
			return fmt.Errorf("%s: %w", l.m.Ref, err)
		}
		return l.addImage(ctx, "", arches, part, m, verified)
	}
	l.add("index", RoleIndex, []string{""}, part, verified)
	return l.loadIndex(ctx, part, m)
}

// loadIndex pins the image of each arch.
func (l *imageLoader) loadIndex(ctx context.Context, top ociPart, index *ociManifest) error {
	var manifests []ociPart
	for _, arch := range l.r.lock.Arches {
		d, err := index.forArch(arch)
		if err != nil {
			return fmt.Errorf("%s: %w", l.m.Ref, err)
		}
		part, err := d.part()
		if err != nil {
			return fmt.Errorf("%s: manifest for %s: %w", l.m.Ref, arch, err)
		}
		b, blob, err := l.fetch(ctx, OCIManifests, part.digest.String(), part.digest, part.size, []string{part.mediaType})
		if err != nil {
			return err
		}
		m, err := parseOCIManifest(b)
		if err == nil && m.index {
			err = errors.New("an index in an index")
		}
		if err != nil {
			return fmt.Errorf("%s: manifest for %s: %w", l.m.Ref, arch, err)
		}
		part.size = blob.Size
		if err := l.addParts(arch+"/", []string{arch}, part, m, nil); err != nil {
			return fmt.Errorf("%s: image for %s: %w", l.m.Ref, arch, err)
		}
		manifests = append(manifests, part)
	}
	if l.m.SBOM == "" {
		return nil
	}
	return l.importIndexSBOM(ctx, top, manifests)
}

// addImage pins an image that is in no index.
func (l *imageLoader) addImage(ctx context.Context, prefix string, arches []string, part ociPart, m *ociManifest, verified *Verified) error {
	if err := l.addParts(prefix, arches, part, m, verified); err != nil {
		return fmt.Errorf("%s: %w", l.m.Ref, err)
	}
	if l.m.SBOM == "" {
		return nil
	}
	return l.importSBOM(ctx, part.digest)
}

// addParts adds a manifest and what it names.
func (l *imageLoader) addParts(prefix string, arches []string, part ociPart, m *ociManifest, verified *Verified) error {
	l.add(prefix+"manifest", RoleManifest, arches, part, verified)
	config, err := m.Config.part()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	l.add(prefix+"config", RoleConfig, arches, config, nil)
	for i := range m.Layers {
		layer, err := m.Layers[i].part()
		if err != nil {
			return fmt.Errorf("layer %d: %w", i, err)
		}
		l.add(prefix+"layer-"+strconv.Itoa(i), RoleLayer, arches, layer, nil)
	}
	return nil
}

// singleArches are the arches of the lock that an image in no index serves:
// the one that its configuration names, or, of an artifact, all ("").
func (l *imageLoader) singleArches(ctx context.Context, m *ociManifest) ([]string, error) {
	if t := m.Config.MediaType; t != typeOCIConfig && t != typeDockerConfig {
		return []string{""}, nil
	}
	part, err := m.Config.part()
	if err != nil {
		return nil, fmt.Errorf("config: %w", err)
	}
	b, _, err := l.fetch(ctx, OCIBlobs, part.digest.String(), part.digest, part.size, nil)
	if err != nil {
		return nil, err
	}
	arch, err := configArch(b)
	if err != nil {
		return nil, err
	}
	if arch == "" {
		return []string{""}, nil
	}
	for _, a := range l.r.lock.Arches {
		if goArch[a] != arch {
			return nil, fmt.Errorf("it has no image for %s (linux/%s); it is a single image for %s", a, goArch[a], arch)
		}
	}
	return l.r.lock.Arches, nil
}

// add adds one part.
func (l *imageLoader) add(name, role string, arches []string, p ociPart, verified *Verified) {
	kind := OCIBlobs
	in := Input{
		Kind: KindOCI, Name: l.m.Name + "/" + name, Size: p.size, SHA256: p.digest, Verified: verified,
		OCI: &OCI{Ref: l.m.Ref, Role: role, MediaType: p.mediaType},
	}
	for _, a := range arches {
		in.For = append(in.For, Use{Arch: a, Set: "oci:" + l.m.Name, By: "inputs.oci " + l.m.Name})
	}
	if role == RoleIndex || role == RoleManifest {
		kind = OCIManifests
		in.PURL = l.purl(p.digest, arches)
	}
	in.URL = l.ref.at(kind, p.digest.String())
	l.inputs = append(l.inputs, in)
}

// purl is an image's package URL (purl-spec, type oci).
func (l *imageLoader) purl(d digest.Digest, arches []string) string {
	q := map[string]string{"repository_url": l.ref.host + "/" + l.ref.repo}
	if l.ref.tag != "" {
		q["tag"] = l.ref.tag
	}
	if len(arches) == 1 && arches[0] != "" {
		q["arch"] = goArch[arches[0]]
	}
	return packageurl.NewPackageURL(packageurl.TypeOCI, "", path.Base(l.ref.repo), d.String(), packageurl.QualifiersFromMap(q), "").ToString()
}

// verify has the image's signature, or attestation, checked.
func (l *imageLoader) verify(ctx context.Context, top digest.Digest) (*Verified, error) {
	if l.want == nil {
		return nil, nil
	}
	if l.r.VerifyImage == nil {
		return nil, errors.New("it is to be verified, and nothing here can")
	}
	l.r.say("checking who signed the image %s", l.m.Name)
	v, err := l.r.VerifyImage(ctx, ImageVerify{
		Ref: l.ref.host + "/" + l.ref.repo + "@" + top.String(),
		Key: l.key, Identity: l.want.Identity, Issuer: l.want.Issuer, Attestation: l.m.Verify.Attestation,
	})
	if err != nil {
		return nil, fmt.Errorf("verifying %s@%s: %w", l.m.Ref, top, err)
	}
	return &v, nil
}

// fetch gets a manifest, or another part of at most maxOCIManifest bytes.
// Where it is named by a digest, that and its size are checked.
func (l *imageLoader) fetch(ctx context.Context, kind, id string, sum digest.Digest, size int64, types []string) ([]byte, Blob, error) {
	at := l.ref.at(kind, id)
	if size > maxOCIManifest {
		return nil, Blob{}, fmt.Errorf("%s: %d bytes, want at most %d", at, size, maxOCIManifest)
	}
	blob, err := l.r.Fetch(ctx, Want{Kind: KindOCI, URL: at, SHA256: sum, Size: size, MediaTypes: types, Max: maxOCIManifest})
	if err != nil {
		return nil, Blob{}, err
	}
	b, err := readFileMax(blob.Path, maxOCIManifest)
	if err == nil && size > 0 && int64(len(b)) != size {
		err = fmt.Errorf("got %d bytes, want %d", len(b), size)
	}
	if err != nil {
		return nil, Blob{}, fmt.Errorf("%s: %w", at, err)
	}
	return b, blob, nil
}

// readFileMax reads a file of at most so many bytes.
func readFileMax(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("more than the %d bytes that it may have", limit)
	}
	return b, err
}

// readTrustedKey reads a public key beside the manifest, and makes it one of
// the lock's sources, so that a check notices another one.
func (r *resolver) readTrustedKey(rel string) ([]byte, error) {
	rel = path.Clean(rel)
	b, err := readFileMax(filepath.Join(r.Dir, filepath.FromSlash(rel)), maxKey)
	if err != nil {
		return nil, fmt.Errorf("reading the key %s: %w", rel, err)
	}
	r.lock.Sources = append(r.lock.Sources, Source{Name: rel, SHA256: digest.Of(b)})
	slices.SortFunc(r.lock.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	r.lock.Sources = slices.Compact(r.lock.Sources)
	return b, nil
}

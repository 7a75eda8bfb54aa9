package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// Media types and annotations of what cosign attaches to an image.
const (
	typeDSSE            = "application/vnd.dsse.envelope.v1+json"
	typeBundlePrefix    = "application/vnd.dev.sigstore.bundle"
	bundlePredicate     = "dev.sigstore.bundle.predicateType"
	attachmentPredicate = "predicateType"
	ociCreated          = "org.opencontainers.image.created"
	typeCosignSBOM      = "application/vnd.dev.cosign.artifact.sbom.v1+json"
	typeEmpty           = "application/vnd.oci.empty.v1+json"
)

// maxReferrers is how many things that refer to an image are looked into.
const maxReferrers = 100

// sbomRank tells whether an artifact type, a media type or a predicate type is
// that of an SBOM, and which is preferred: 1 is SPDX, 2 CycloneDX, 0 neither.
func sbomRank(typ string) int {
	typ = strings.ToLower(typ)
	switch {
	case strings.Contains(typ, "spdx"):
		return 1
	case strings.Contains(typ, "cyclonedx"):
		return 2
	}
	return 0
}

// importSBOM pins the SBOM of an image that is in no index.
func (l *imageLoader) importSBOM(ctx context.Context, subject digest.Digest) error {
	part, err := l.findSBOM(ctx, subject)
	if err != nil {
		return err
	}
	if part == nil {
		return l.noSBOM(subject)
	}
	l.add(RoleSBOM, RoleSBOM, []string{""}, *part, nil)
	return nil
}

// importIndexSBOM pins the SBOM of an index or, where it has none, that of
// each arch's image.
func (l *imageLoader) importIndexSBOM(ctx context.Context, index ociPart, manifests []ociPart) error {
	part, err := l.findSBOM(ctx, index.digest)
	if err != nil {
		return err
	}
	if part != nil {
		l.add(RoleSBOM, RoleSBOM, []string{""}, *part, nil)
		return nil
	}
	for i, arch := range l.r.lock.Arches {
		part, err := l.findSBOM(ctx, manifests[i].digest)
		if err != nil {
			return err
		}
		if part == nil {
			return l.noSBOM(index.digest, manifests[i].digest)
		}
		l.add(arch+"/"+RoleSBOM, RoleSBOM, []string{arch}, *part, nil)
	}
	return nil
}

func (l *imageLoader) noSBOM(subjects ...digest.Digest) error {
	var at []string
	for _, s := range subjects {
		at = append(at, fmt.Sprintf("the referrers of %s, the tags %[2]s, %[2]s.sbom and %[2]s.att", s, attachmentTag(s)))
	}
	return fmt.Errorf("no SBOM in SPDX or CycloneDX is attached to it; looked in %s/%s at %s", l.ref.host, l.ref.repo, strings.Join(at, "; at "))
}

// attachmentTag is the tag under which what refers to an image is kept where
// the registry has no list of referrers (distribution-spec 1.1, "Referrers tag
// schema"); cosign's tags are the same with an ending.
func attachmentTag(subject digest.Digest) string { return "sha256-" + subject.Hex() }

// findSBOM looks for the SBOM of a manifest or an index: among its referrers
// (artifacts first, then attestations in sigstore bundles), under cosign's tag
// for SBOMs, and under that for attestations, whose signature is not checked.
// nil where there is none.
func (l *imageLoader) findSBOM(ctx context.Context, subject digest.Digest) (*ociPart, error) {
	for _, find := range []func(context.Context, digest.Digest) (*ociPart, error){l.referredSBOM, l.attachedSBOM, l.attestedSBOM} {
		part, err := find(ctx, subject)
		if part != nil || err != nil {
			return part, err
		}
	}
	return nil, nil
}

// manifestAt is a manifest or index under a tag or of referrers; nil where
// there is none.
func (l *imageLoader) manifestAt(ctx context.Context, kind, id string, types []string) (*ociManifest, error) {
	b, _, err := l.fetch(ctx, kind, id, digest.Digest{}, 0, types)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	m, err := parseOCIManifest(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.ref.at(kind, id), err)
	}
	return m, nil
}

// referredSBOM is the newest SBOM among the referrers.
func (l *imageLoader) referredSBOM(ctx context.Context, subject digest.Digest) (*ociPart, error) {
	list, err := l.manifestAt(ctx, OCIReferrers, subject.String(), []string{typeOCIIndex})
	if list == nil && err == nil {
		list, err = l.manifestAt(ctx, OCIManifests, attachmentTag(subject), []string{typeOCIIndex})
	}
	if list == nil || err != nil {
		return nil, err
	}
	type found struct {
		*ociDescriptor
		rank int
	}
	var all []found
	if n := len(list.Manifests); n > maxReferrers {
		return nil, fmt.Errorf("%d things refer to %s, want at most %d", n, subject, maxReferrers)
	}
	for i := range list.Manifests {
		d := &list.Manifests[i]
		if err := l.describe(ctx, d); err != nil {
			return nil, err
		}
		rank := sbomRank(d.ArtifactType)
		if strings.HasPrefix(d.ArtifactType, typeBundlePrefix) {
			if rank = sbomRank(d.Annotations[bundlePredicate]); rank > 0 {
				rank += 2 // after all artifacts
			}
		}
		if rank > 0 {
			all = append(all, found{d, rank})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	first := slices.MinFunc(all, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(b.Annotations[ociCreated], a.Annotations[ociCreated]), cmp.Compare(a.Digest, b.Digest))
	})
	return l.onlyLayer(ctx, first.ociDescriptor, subject)
}

// describe completes what a list of referrers says of one, where it does not
// say what that is: many registries copy the type of the config, and no
// annotations.
func (l *imageLoader) describe(ctx context.Context, d *ociDescriptor) error {
	switch {
	case d.ArtifactType == "", d.ArtifactType == typeEmpty, d.ArtifactType == typeCosignSBOM:
	case strings.HasPrefix(d.ArtifactType, typeBundlePrefix) && d.Annotations[bundlePredicate] == "":
	default:
		return nil
	}
	m, err := l.referrer(ctx, d)
	if err != nil || len(m.Layers) != 1 {
		return err // one of several layers is none of those that are looked for
	}
	d.ArtifactType, d.Annotations = m.Layers[0].MediaType, m.Annotations
	return nil
}

// referrer reads a manifest out of a list of referrers.
func (l *imageLoader) referrer(ctx context.Context, d *ociDescriptor) (*ociManifest, error) {
	at, err := d.part()
	if err != nil {
		return nil, fmt.Errorf("a referrer: %w", err)
	}
	b, _, err := l.fetch(ctx, OCIManifests, at.digest.String(), at.digest, at.size, []string{typeOCIManifest})
	if err != nil {
		return nil, err
	}
	m, err := parseOCIManifest(b)
	if err != nil {
		return nil, fmt.Errorf("the referrer %s: %w", at.digest, err)
	}
	return m, nil
}

// onlyLayer is the one layer of an artifact that refers to an image.
func (l *imageLoader) onlyLayer(ctx context.Context, d *ociDescriptor, subject digest.Digest) (*ociPart, error) {
	fail := func(err error) (*ociPart, error) {
		return nil, fmt.Errorf("SBOM %s of type %q: %w", d.Digest, d.ArtifactType, err)
	}
	m, err := l.referrer(ctx, d)
	switch {
	case err != nil:
		return nil, err
	case m.Subject == nil || m.Subject.Digest != subject.String():
		return fail(fmt.Errorf("it is not about %s", subject))
	case len(m.Layers) != 1:
		return fail(fmt.Errorf("it has %d layers, want 1", len(m.Layers)))
	}
	part, err := m.Layers[0].part()
	if err != nil {
		return fail(err)
	}
	return &part, nil
}

// attachedSBOM is what `cosign attach sbom` left.
func (l *imageLoader) attachedSBOM(ctx context.Context, subject digest.Digest) (*ociPart, error) {
	return l.taggedSBOM(ctx, attachmentTag(subject)+".sbom", func(d *ociDescriptor) int { return sbomRank(d.MediaType) })
}

// attestedSBOM is what `cosign attest` left: an SBOM in an envelope.
func (l *imageLoader) attestedSBOM(ctx context.Context, subject digest.Digest) (*ociPart, error) {
	return l.taggedSBOM(ctx, attachmentTag(subject)+".att", func(d *ociDescriptor) int {
		if d.MediaType != typeDSSE {
			return 0
		}
		return sbomRank(d.Annotations[attachmentPredicate])
	})
}

// taggedSBOM is, of the layers under a tag, the last one of the best rank:
// cosign appends.
func (l *imageLoader) taggedSBOM(ctx context.Context, tag string, rank func(*ociDescriptor) int) (*ociPart, error) {
	m, err := l.manifestAt(ctx, OCIManifests, tag, []string{typeOCIManifest, typeDockerManifest})
	if m == nil || err != nil {
		return nil, err
	}
	best, at := 0, -1
	for i := range m.Layers {
		if k := rank(&m.Layers[i]); k > 0 && (best == 0 || k <= best) {
			best, at = k, i
		}
	}
	if at < 0 {
		return nil, nil
	}
	part, err := m.Layers[at].part()
	if err != nil {
		return nil, fmt.Errorf("%s: layer %d: %w", l.ref.at(OCIManifests, tag), at, err)
	}
	return &part, nil
}

package lock

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"caisson/lock/digest"
)

// maxOCIManifest is the largest manifest, index or configuration read, in
// bytes: registries need not take more (distribution-spec 1.1, "Pushing
// manifests").
const maxOCIManifest = 4 << 20

// Media types of image-spec 1.1 and of Docker's image manifest version 2,
// schema 2, which came before it.
const (
	typeOCIIndex       = "application/vnd.oci.image.index.v1+json"
	typeOCIManifest    = "application/vnd.oci.image.manifest.v1+json"
	typeOCIConfig      = "application/vnd.oci.image.config.v1+json"
	typeDockerIndex    = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDockerManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeDockerConfig   = "application/vnd.docker.container.image.v1+json"
)

func manifestTypes() []string {
	return []string{typeOCIIndex, typeDockerIndex, typeOCIManifest, typeDockerManifest}
}

// ociDescriptor is a content descriptor (image-spec, descriptor.md) with the
// platform that it has in an index.
type ociDescriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       string            `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType"`
	URLs         []string          `json:"urls"`
	Annotations  map[string]string `json:"annotations"`
	Platform     *ociPlatform      `json:"platform"`
}

// ociPlatform is in an index (image-index.md), and in a configuration.
type ociPlatform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Variant      string `json:"variant"`
}

func (p *ociPlatform) String() string {
	s := p.OS + "/" + p.Architecture
	if p.Variant != "" {
		s += "/" + p.Variant
	}
	return s
}

// ociManifest is an image manifest or an index (manifest.md, image-index.md).
type ociManifest struct {
	SchemaVersion int             `json:"schemaVersion"`
	MediaType     string          `json:"mediaType"`
	ArtifactType  string          `json:"artifactType"`
	Config        *ociDescriptor  `json:"config"`
	Layers        []ociDescriptor `json:"layers"`
	Manifests     []ociDescriptor `json:"manifests"`
	Subject       *ociDescriptor  `json:"subject"`
	// Annotations are those of the whole.
	Annotations map[string]string `json:"annotations"`
	index       bool
}

// parseOCIManifest reads a manifest or an index. What could be taken for
// both is refused, and so is Docker's schema 1, whose digest is not that of
// its bytes.
func parseOCIManifest(b []byte) (*ociManifest, error) {
	if len(b) > maxOCIManifest {
		return nil, fmt.Errorf("reading a manifest: %d bytes, want at most %d", len(b), maxOCIManifest)
	}
	var m ociManifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("reading a manifest: %w", err)
	}
	if m.SchemaVersion != 2 {
		return nil, fmt.Errorf("a manifest of schemaVersion %d, want 2", m.SchemaVersion)
	}
	isIndex, isImage := m.Manifests != nil, m.Config != nil || m.Layers != nil
	switch m.MediaType {
	case typeOCIIndex, typeDockerIndex:
		m.index = true
	case typeOCIManifest, typeDockerManifest:
	case "": // image-spec 1.0 allows that
		m.index = isIndex
		if m.MediaType = typeOCIManifest; isIndex {
			m.MediaType = typeOCIIndex
		}
	default:
		return nil, fmt.Errorf("a manifest of mediaType %q, want one of %s", m.MediaType, strings.Join(manifestTypes(), ", "))
	}
	switch {
	case m.index && isImage, !m.index && isIndex:
		return nil, fmt.Errorf("a manifest of mediaType %q with parts of an index and of an image", m.MediaType)
	case !m.index && m.Config == nil:
		return nil, errors.New("a manifest without a config")
	}
	return &m, nil
}

// part is a descriptor whose digest has been read.
type ociPart struct {
	mediaType string
	digest    digest.Digest
	size      int64
}

func (d *ociDescriptor) part() (ociPart, error) {
	sum, err := parseOCIDigest(d.Digest)
	switch {
	case err != nil:
		return ociPart{}, err
	case d.Size < 0:
		return ociPart{}, fmt.Errorf("%s has a size of %d bytes", sum, d.Size)
	case len(d.URLs) > 0:
		return ociPart{}, fmt.Errorf("%s is to be fetched from %q: foreign layers are refused, as the registry does not have them", sum, d.URLs[0])
	case strings.Contains(d.MediaType, ".foreign.") || strings.Contains(d.MediaType, ".nondistributable."):
		return ociPart{}, fmt.Errorf("%s is of type %q: foreign layers are refused, as the registry does not have them", sum, d.MediaType)
	}
	return ociPart{mediaType: d.MediaType, digest: sum, size: d.Size}, nil
}

// notAnImage tells that an entry of an index is about another one: buildx
// puts attestations there.
func (d *ociDescriptor) notAnImage() bool {
	if d.Annotations["vnd.docker.reference.type"] == "attestation-manifest" {
		return true
	}
	return d.Platform != nil && d.Platform.OS == "unknown" && d.Platform.Architecture == "unknown"
}

// forArch is the entry of an index for an RPM architecture on Linux, of the
// architecture's plain variant.
func (m *ociManifest) forArch(arch string) (*ociDescriptor, error) {
	want := ociPlatform{OS: "linux", Architecture: goArch[arch]}
	var have []string
	for i := range m.Manifests {
		d := &m.Manifests[i]
		switch {
		case d.notAnImage():
			continue
		case d.Platform == nil:
			have = append(have, "one without a platform")
			continue
		}
		p := *d.Platform
		if plain := p.Architecture == "arm64" && p.Variant == "v8" || p.Architecture == "amd64" && p.Variant == "v1"; plain {
			p.Variant = ""
		}
		if p == want {
			if slices.Contains([]string{typeOCIManifest, typeDockerManifest}, d.MediaType) {
				return d, nil
			}
			return nil, fmt.Errorf("its entry for %s is of type %q, want a manifest", arch, d.MediaType)
		}
		have = append(have, d.Platform.String())
	}
	if len(have) == 0 {
		return nil, fmt.Errorf("it has no image for %s (%s), and no other", arch, &want)
	}
	slices.Sort(have)
	return nil, fmt.Errorf("it has no image for %s (%s); it has %s", arch, &want, strings.Join(slices.Compact(have), ", "))
}

// configArch is the architecture that an image's configuration names, as Go
// calls it; empty where it names none.
func configArch(b []byte) (string, error) {
	var p ociPlatform
	if err := json.Unmarshal(b, &p); err != nil {
		return "", fmt.Errorf("reading its configuration: %w", err)
	}
	return p.Architecture, nil
}

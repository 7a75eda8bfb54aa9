package share

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"caisson/lock"
	"caisson/lock/digest"
)

// Media types and annotations; see the package comment.
const (
	ArtifactType = "application/vnd.caisson.store.v1"
	lockType     = "application/vnd.caisson.lock.v1+json"
	inputType    = "application/vnd.caisson.input.v1"
	leftOutType  = "application/vnd.caisson.left-out.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
)

// Limits on what a registry may send.
const (
	maxManifest  = 8 << 20 // bytes; registries themselves refuse more than 4 MiB
	maxManifests = 256     // in an index
)

// descriptor is a content descriptor (image-spec, descriptor.md).
type descriptor struct {
	MediaType    string        `json:"mediaType"`
	Digest       digest.Digest `json:"digest"`
	Size         int64         `json:"size"`
	ArtifactType string        `json:"artifactType,omitempty"`
	Annotations  *annotations  `json:"annotations,omitempty"`
}

// annotations are those that are used; a struct, for its order is fixed.
type annotations struct {
	Kind  string `json:"dev.caisson.kind"`
	Login string `json:"dev.caisson.login,omitempty"`
	Title string `json:"org.opencontainers.image.title"`
}

// manifest is an image manifest or an index (image-spec, manifest.md and
// image-index.md).
type manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	ArtifactType  string       `json:"artifactType"`
	Config        *descriptor  `json:"config,omitempty"`
	Layers        []descriptor `json:"layers,omitempty"`
	Manifests     []descriptor `json:"manifests,omitempty"`
}

// written is a manifest as it goes to a registry.
type written struct {
	mediaType string
	bytes     []byte
	digest    digest.Digest
}

func write(m manifest) (written, error) {
	b, err := json.Marshal(m)
	if err != nil {
		return written{}, fmt.Errorf("writing the manifest: %w", err)
	}
	return written{m.MediaType, b, digest.Of(b)}, nil
}

// describe makes a layer's descriptor. login is by what the input was logged in
// for where it is restricted.
func describe(in *lock.Input, size int64, login string) descriptor {
	return descriptor{MediaType: inputType, Digest: in.SHA256, Size: size, Annotations: &annotations{Kind: in.Kind, Login: login, Title: in.Name}}
}

// listOf makes the list of what is left out.
func listOf(left []Left) ([]byte, error) {
	var all []digest.Digest
	for _, in := range left {
		all = append(all, in.SHA256)
	}
	return json.Marshal(all)
}

// readList reads such a list.
func readList(b []byte) ([]digest.Digest, error) {
	var all []digest.Digest
	if err := json.Unmarshal(b, &all); err != nil {
		return nil, fmt.Errorf("it is not a list of digests: %w", err)
	}
	return all, nil
}

// manifests makes one manifest of layers, or, where that would exceed limit
// bytes, several and their index, which is the last. More than an index may
// have is an error, as is a layer that exceeds the limit alone.
func manifests(config descriptor, layers []descriptor, limit int) ([]written, error) {
	empty, err := write(manifest{2, manifestType, ArtifactType, &config, []descriptor{}, nil})
	if err != nil {
		return nil, err
	}
	var out []written
	index := manifest{SchemaVersion: 2, MediaType: indexType, ArtifactType: ArtifactType}
	flush := func(part []descriptor) error {
		w, err := write(manifest{2, manifestType, ArtifactType, &config, part, nil})
		if err != nil {
			return err
		}
		if len(w.bytes) > limit {
			return fmt.Errorf("a manifest of %d layers has %d bytes, want at most %d", len(part), len(w.bytes), limit)
		}
		out = append(out, w)
		index.Manifests = append(index.Manifests, descriptor{MediaType: manifestType, Digest: w.digest, Size: int64(len(w.bytes)), ArtifactType: ArtifactType})
		return nil
	}
	overhead := len(empty.bytes) + len(`,"layers":[]`)
	begin, size := 0, overhead
	for i, l := range layers {
		b, err := json.Marshal(l)
		if err != nil {
			return nil, fmt.Errorf("writing the manifest: %w", err)
		}
		if n := len(b) + len(","); size+n > limit && i > begin {
			if err := flush(layers[begin:i]); err != nil {
				return nil, err
			}
			begin, size = i, overhead
		}
		size += len(b) + len(",")
	}
	if err := flush(layers[begin:]); err != nil {
		return nil, err
	}
	if len(out) == 1 {
		return out, nil
	}
	if len(out) > maxManifests {
		return nil, fmt.Errorf("%d inputs need %d manifests, want at most %d", len(layers), len(out), maxManifests)
	}
	w, err := write(index)
	if err != nil {
		return nil, err
	}
	return append(out, w), nil
}

// read reads a manifest or an index as a registry sent it.
func read(b []byte) (manifest, error) {
	var m manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("it is not a manifest: %w", err)
	}
	switch {
	case m.ArtifactType != ArtifactType:
		return m, fmt.Errorf("it is not a store: got artifactType %q, want %q", m.ArtifactType, ArtifactType)
	case m.SchemaVersion != 2:
		return m, fmt.Errorf("got schemaVersion %d, want 2", m.SchemaVersion)
	case m.MediaType == indexType && (m.Config != nil || len(m.Layers) > 0), m.MediaType == manifestType && len(m.Manifests) > 0:
		return m, errors.New("it is a manifest and an index at the same time")
	case m.MediaType != indexType && m.MediaType != manifestType:
		return m, fmt.Errorf("got mediaType %q, want %q or %q", m.MediaType, manifestType, indexType)
	case len(m.Manifests) > maxManifests:
		return m, fmt.Errorf("an index of %d manifests, want at most %d", len(m.Manifests), maxManifests)
	}
	for _, list := range [][]descriptor{m.Layers, m.Manifests} {
		for _, d := range list {
			if d.Digest.IsZero() || d.Size < 0 || d.Size == math.MaxInt64 {
				return m, fmt.Errorf("a descriptor of %s with %d bytes", d.Digest, d.Size)
			}
		}
	}
	return m, nil
}

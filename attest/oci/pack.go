// Package oci packs a disk image into an OCI container image, and puts that
// image with its statements into a registry or into a folder.
//
// # Format
//
// An image manifest (image-spec 1.1) as coco-podvm-scripts make it with
// buildah, so that the consumers of PodVM images find what they look for:
//
//	config       architecture, os, the labels given, "created" from the lock's epoch,
//	             and a Cmd, for `podman create` wants one
//	layers       one for each file, tar, not compressed:
//	             image/podvm.qcow2 (or .raw, .vhd) and image/measurements.json
//	annotations  io.github.confidential-containers.measurements.algorithm and .pcrNN,
//	             as measurements.json has them; dev.caisson.lock, the digest of the
//	             lock; org.opencontainers.image.created
//
// An image that is a container image already, in an OCI archive, is pushed as it
// is (see FromArchive).
//
// Nothing in it depends on the registry, the machine or the time: the same
// disk, measurements, lock and labels have the same digest, which is known
// before anything is pushed, so that statements can be about it. Layers are
// not compressed for that reason: the bytes of a compressor change with its
// version.
//
// What belongs to the image refers to it (OCI 1.1 "subject"): each bundle in
// the form in which cosign attaches it, artifactType
// application/vnd.dev.sigstore.bundle.v0.3+json, and the bare SPDX document,
// artifactType application/spdx+json. There is no time in these either. Where a
// registry does not know of referrers, they are listed in an index under the
// tag sha256-HEX, as the distribution-spec's fallback has it.
//
// # Promise
//
// A tag is written last: when it names the image, the registry has said of
// every blob that it is there in its full size, and has given back the bytes of
// the manifest and the list of what refers to it. What is there is not sent
// again. An upload that was cut goes on where the registry says, or else from
// its beginning. Memory does not grow with the disk.
//
// # Limits
//
// Statements of earlier pushes stay. One image, one architecture: no index is
// written. Two who push statements of one image to a registry without
// referrers at the same moment are told if one has lost the other's.
package oci

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"time"

	"caisson/lock/digest"
)

// Media types.
const (
	ManifestType = "application/vnd.oci.image.manifest.v1+json"
	indexType    = "application/vnd.oci.image.index.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar"
	emptyType    = "application/vnd.oci.empty.v1+json"
	// BundleType and SPDXType are the artifact types of what is attached.
	BundleType = "application/vnd.dev.sigstore.bundle.v0.3+json"
	SPDXType   = "application/spdx+json"
)

// measurementKey begins the annotations that have the measurements.
const measurementKey = "io.github.confidential-containers.measurements."

// Contents are what an image is made of.
type Contents struct {
	// Disk is the path of the disk's file, and Name what it is called in the
	// image: podvm.qcow2.
	Disk, Name string
	// Measurements is measurements.json.
	Measurements []byte
	// Arch is the architecture as RPM calls it.
	Arch string
	// Epoch is the time of everything, in seconds.
	Epoch  int64
	Lock   digest.Digest
	Labels map[string]string
}

// Image is a packed image.
type Image struct {
	// Digest is that of the manifest, by which the image is known.
	Digest   digest.Digest
	Manifest []byte
	// Disk is the digest of the disk's file, and DiskSize its size in bytes.
	Disk     digest.Digest
	DiskSize int64
	blobs    []blob // the config first, then the layers
}

// descriptor is a content descriptor (image-spec, descriptor.md).
type descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       digest.Digest     `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
}

// manifest is an image manifest (image-spec, manifest.md).
type manifest struct {
	SchemaVersion int               `json:"schemaVersion"`
	MediaType     string            `json:"mediaType"`
	ArtifactType  string            `json:"artifactType,omitempty"`
	Config        descriptor        `json:"config"`
	Layers        []descriptor      `json:"layers"`
	Subject       *descriptor       `json:"subject,omitempty"`
	Annotations   map[string]string `json:"annotations,omitempty"`
}

// config is an image's configuration (image-spec, config.md).
type config struct {
	Created      string `json:"created"`
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
	Config       struct {
		Cmd    []string          `json:"Cmd"`
		Labels map[string]string `json:"Labels,omitempty"`
	} `json:"config"`
	RootFS struct {
		Type    string          `json:"type"`
		DiffIDs []digest.Digest `json:"diff_ids"`
	} `json:"rootfs"`
	History []history `json:"history"`
}

type history struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// Pack makes the image: it reads the disk once, and keeps nothing of it.
func Pack(ctx context.Context, c Contents) (*Image, error) {
	arch, err := architecture(c.Arch)
	if err != nil {
		return nil, err
	}
	notes, err := annotations(c)
	if err != nil {
		return nil, err
	}
	disk, sum, err := packDisk(ctx, c)
	if err != nil {
		return nil, fmt.Errorf("packing %s: %w", c.Disk, err)
	}
	measured, err := packBytes(c, "measurements.json", c.Measurements)
	if err != nil {
		return nil, err
	}
	layers := []blob{disk, measured}
	created := time.Unix(c.Epoch, 0).UTC().Format(time.RFC3339)
	conf := config{Created: created, Architecture: arch, OS: "linux"}
	conf.Config.Cmd, conf.Config.Labels = []string{"/image/" + c.Name}, c.Labels
	conf.RootFS.Type = "layers"
	m := manifest{SchemaVersion: 2, MediaType: ManifestType, Annotations: notes}
	for i, l := range layers {
		conf.RootFS.DiffIDs = append(conf.RootFS.DiffIDs, l.Digest)
		conf.History = append(conf.History, history{created, "caisson: image/" + []string{c.Name, "measurements.json"}[i]})
		m.Layers = append(m.Layers, l.descriptor)
	}
	text, err := json.Marshal(conf)
	if err != nil {
		return nil, fmt.Errorf("packing the image: %w", err)
	}
	first := inMemory(configType, text)
	m.Config = first.descriptor
	im := &Image{Disk: sum, DiskSize: disk.file.size, blobs: append([]blob{first}, layers...)}
	if im.Manifest, err = json.Marshal(m); err != nil {
		return nil, fmt.Errorf("packing the image: %w", err)
	}
	im.Digest = digest.Of(im.Manifest)
	return im, nil
}

// architecture is the one of image-spec for one of RPM.
func architecture(arch string) (string, error) {
	known := map[string]string{"x86_64": "amd64", "aarch64": "arm64", "s390x": "s390x", "ppc64le": "ppc64le", "riscv64": "riscv64"}
	if a, ok := known[arch]; ok {
		return a, nil
	}
	return "", fmt.Errorf("the architecture %q has no name in OCI images", arch)
}

// annotations are the manifest's. Of several banks the first in order of their
// names counts, as coco-podvm-scripts have it.
func annotations(c Contents) (map[string]string, error) {
	var m struct {
		Measurements map[string]map[string]string `json:"measurements"`
	}
	if err := json.Unmarshal(c.Measurements, &m); err != nil {
		return nil, fmt.Errorf("reading measurements.json: %w", err)
	}
	banks := slices.Sorted(maps.Keys(m.Measurements))
	if len(banks) == 0 {
		return nil, errors.New("reading measurements.json: it has no measurements")
	}
	notes := map[string]string{
		"org.opencontainers.image.created": time.Unix(c.Epoch, 0).UTC().Format(time.RFC3339),
		"dev.caisson.lock":                 c.Lock.String(),
		measurementKey + "algorithm":       banks[0],
	}
	for pcr, value := range m.Measurements[banks[0]] {
		notes[measurementKey+pcr] = value
	}
	return notes, nil
}

// packDisk makes the disk's layer, and sums the disk itself.
func packDisk(ctx context.Context, c Contents) (blob, digest.Digest, error) {
	in, err := os.Open(c.Disk)
	if err != nil {
		return blob{}, digest.Digest{}, err
	}
	defer in.Close()
	st, err := in.Stat()
	if err != nil {
		return blob{}, digest.Digest{}, err
	}
	if !st.Mode().IsRegular() {
		return blob{}, digest.Digest{}, errors.New("it is no regular file")
	}
	f := &tarFile{path: c.Disk, size: st.Size()}
	if f.head, err = tarHead(c, c.Name, f.size); err != nil {
		return blob{}, digest.Digest{}, err
	}
	f.setTail()
	layer, plain := sha256.New(), sha256.New()
	layer.Write(f.head)
	n, err := io.Copy(io.MultiWriter(layer, plain), reader{ctx, io.LimitReader(in, f.size)})
	if err != nil {
		return blob{}, digest.Digest{}, err
	}
	if n != f.size {
		return blob{}, digest.Digest{}, fmt.Errorf("got %d bytes, want %d", n, f.size)
	}
	layer.Write(make([]byte, f.tail))
	b := blob{descriptor: descriptor{MediaType: layerType, Digest: digest.Digest(layer.Sum(nil)), Size: f.total()}, file: f}
	return b, digest.Digest(plain.Sum(nil)), nil
}

// packBytes makes a layer of a small file.
func packBytes(c Contents, name string, content []byte) (blob, error) {
	f := &tarFile{size: int64(len(content))}
	var err error
	if f.head, err = tarHead(c, name, f.size); err != nil {
		return blob{}, err
	}
	f.setTail()
	return inMemory(layerType, slices.Concat(f.head, content, make([]byte, f.tail))), nil
}

// tarHead is what is before a file's content in its layer: the entries of
// the folder and of the file.
func tarHead(c Contents, name string, size int64) ([]byte, error) {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	at := time.Unix(c.Epoch, 0).UTC()
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "image/", Mode: 0o755, ModTime: at}); err != nil {
		return nil, fmt.Errorf("packing the image: %w", err)
	}
	if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "image/" + name, Mode: 0o644, Size: size, ModTime: at}); err != nil {
		return nil, fmt.Errorf("packing %s: %w", name, err)
	}
	return b.Bytes(), nil // what the writer would add is setTail's
}

// reader ends when its context does.
type reader struct {
	ctx context.Context // for one call
	r   io.Reader
}

func (r reader) Read(b []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(b)
}

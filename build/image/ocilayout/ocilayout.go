// Package ocilayout writes and reads a container image in one file: an OCI image
// layout (image-spec 1.1, image-layout.md) in a tar archive that is not
// compressed, which `skopeo copy oci-archive:FILE` and `podman load` take.
//
// What Write makes has one image of one layer:
//
//	blobs/                folders, for programs that want them
//	blobs/sha256/
//	blobs/sha256/HEX      the layer: a tar archive compressed with gzip
//	blobs/sha256/HEX      the configuration
//	blobs/sha256/HEX      the manifest
//	index.json            names the manifest, with the tag "latest"
//	oci-layout            {"imageLayoutVersion":"1.0.0"}
//
// owned by 0:0 and dated 1970. The times that the configuration has are the
// one it is given. Nothing else of the machine, the time or the order in which
// settings are given is in it. The bytes of the layer are those of the
// compressor that this module names in go.mod, not of Go's own, which change
// with the toolchain; a test has their digest.
//
// The layer's header is written last, when its size and digest are known, so
// nothing is kept in memory or twice on the disk.
//
// A reader of registries' libraries would do for folders; they read no archive
// in place, and their writers take Go's own gzip. Both are used by the tests.
//
// # Limits
//
// Read are archives of one image with layers that are not compressed or
// compressed with gzip, at most 128 of them; JSON of at most 4 MiB a blob;
// archives of at most 1024 files.
package ocilayout

import (
	"archive/tar"
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/klauspost/compress/gzip"
)

// Media types (image-spec, media-types.md).
const (
	IndexType     = "application/vnd.oci.image.index.v1+json"
	ManifestType  = "application/vnd.oci.image.manifest.v1+json"
	ConfigType    = "application/vnd.oci.image.config.v1+json"
	LayerType     = "application/vnd.oci.image.layer.v1.tar"
	LayerGzipType = LayerType + "+gzip"
)

// Names in an archive.
const (
	blobs      = "blobs/sha256/"
	indexName  = "index.json"
	layoutName = "oci-layout"
	layoutText = `{"imageLayoutVersion":"1.0.0"}`
)

// refName is the annotation of an index that has a tag, and tag the one that is
// written.
const (
	refName = "org.opencontainers.image.ref.name"
	tag     = "latest"
)

// level is that of gzip.
const level = 6

// Descriptor says of a blob what it is (image-spec, descriptor.md).
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"` // "sha256:" and hex
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
}

// Manifest is an image's (image-spec, manifest.md).
type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

// index is index.json (image-spec, image-index.md).
type index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

// Config is an image's configuration (image-spec, config.md).
type Config struct {
	Created      string    `json:"created"`
	Architecture string    `json:"architecture"`
	OS           string    `json:"os"`
	Config       Container `json:"config"`
	RootFS       RootFS    `json:"rootfs"`
	History      []History `json:"history"`
}

// Container is how a container is started.
type Container struct {
	User       string            `json:"User,omitempty"`
	Env        []string          `json:"Env,omitempty"`
	Entrypoint []string          `json:"Entrypoint,omitempty"`
	Cmd        []string          `json:"Cmd,omitempty"`
	WorkingDir string            `json:"WorkingDir,omitempty"`
	Labels     map[string]string `json:"Labels,omitempty"`
}

// RootFS names the layers as they are without compression.
type RootFS struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

// History says how a layer came to be.
type History struct {
	Created   string `json:"created"`
	CreatedBy string `json:"created_by"`
}

// Options are what an image is made of, beside its layer.
type Options struct {
	// Arch is the architecture as Go calls it, and image-spec with it.
	Arch string
	// Created is the time that the configuration has, in seconds since 1970.
	Created int64
	// By is what made the layer, for the history.
	By string
	// Env are the container's variables.
	Env map[string]string
	// Container is the rest; its Env counts for nothing.
	Container Container
}

// Written is what Write has written.
type Written struct {
	Manifest Descriptor
	Size     int64 // of the archive, in bytes
}

// Write writes an image whose one layer is the tar archive that layer writes.
func Write(w io.WriterAt, o Options, layer func(w io.Writer) error) (*Written, error) {
	a := &archive{w: w}
	for _, dir := range []string{"blobs/", blobs} {
		if err := a.header(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755}); err != nil {
			return nil, err
		}
	}
	packed, diffID, err := a.layer(layer)
	if err != nil {
		return nil, fmt.Errorf("writing the layer: %w", err)
	}
	created := time.Unix(o.Created, 0).UTC().Format(time.RFC3339)
	c := Config{Created: created, Architecture: o.Arch, OS: "linux", Config: o.Container, RootFS: RootFS{"layers", []string{diffID}}, History: []History{{created, o.By}}}
	c.Config.Env = nil
	for _, k := range slices.Sorted(maps.Keys(o.Env)) {
		c.Config.Env = append(c.Config.Env, k+"="+o.Env[k])
	}
	config, err := a.json(ConfigType, c)
	if err != nil {
		return nil, err
	}
	m, err := a.json(ManifestType, Manifest{2, ManifestType, config, []Descriptor{packed}})
	if err != nil {
		return nil, err
	}
	named := m
	named.Annotations = map[string]string{refName: tag}
	text, err := marshal(index{2, IndexType, []Descriptor{named}})
	if err != nil {
		return nil, err
	}
	if err := a.file(indexName, text); err != nil {
		return nil, err
	}
	if err := a.file(layoutName, []byte(layoutText)); err != nil {
		return nil, err
	}
	if err := a.write(make([]byte, 2*blockSize)); err != nil { // the end (POSIX.1, pax)
		return nil, err
	}
	return &Written{Manifest: m, Size: a.at}, nil
}

// blockSize is that of tar.
const blockSize = 512

// archive is a tar archive that is being written.
type archive struct {
	w  io.WriterAt
	at int64
}

func (a *archive) write(b []byte) error {
	n, err := a.w.WriteAt(b, a.at)
	a.at += int64(n)
	return err
}

// headerBlock is the header of an entry in one block.
func headerBlock(h *tar.Header) ([]byte, error) {
	h.ModTime, h.Format = time.Unix(0, 0), tar.FormatUSTAR
	if h.Size >= 1<<33 { // eleven octal digits
		h.Format = tar.FormatGNU
	}
	var b bytes.Buffer
	if err := tar.NewWriter(&b).WriteHeader(h); err != nil {
		return nil, err
	}
	if b.Len() != blockSize {
		return nil, fmt.Errorf("the header of %s takes %d bytes, want %d", h.Name, b.Len(), blockSize)
	}
	return b.Bytes(), nil
}

func (a *archive) header(h *tar.Header) error {
	b, err := headerBlock(h)
	if err != nil {
		return err
	}
	return a.write(b)
}

func (a *archive) file(name string, content []byte) error {
	if err := a.header(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: int64(len(content))}); err != nil {
		return err
	}
	if err := a.write(content); err != nil {
		return err
	}
	return a.pad(int64(len(content)))
}

// pad fills the last block of so many bytes.
func (a *archive) pad(n int64) error {
	return a.write(make([]byte, (blockSize-n%blockSize)%blockSize))
}

// json writes a blob.
func (a *archive) json(mediaType string, v any) (Descriptor, error) {
	text, err := marshal(v)
	if err != nil {
		return Descriptor{}, err
	}
	sum := sha256.Sum256(text)
	name := hex.EncodeToString(sum[:])
	return Descriptor{MediaType: mediaType, Digest: "sha256:" + name, Size: int64(len(text))}, a.file(blobs+name, text)
}

// marshal writes JSON without escapes for HTML, which others would not write.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// bufferSize is what is written to a file, and compressed, at a time.
const bufferSize = 1 << 20

// layer writes the layer behind the place of its header, then the header.
func (a *archive) layer(layer func(w io.Writer) error) (packed Descriptor, diffID string, err error) {
	head := a.at
	a.at += blockSize
	plain, sum := sha256.New(), sha256.New()
	to := io.NewOffsetWriter(a.w, a.at)
	file := bufio.NewWriterSize(io.MultiWriter(to, sum), bufferSize)
	gz, err := gzip.NewWriterLevel(file, level)
	if err != nil {
		return packed, "", err
	}
	in := bufio.NewWriterSize(io.MultiWriter(gz, plain), bufferSize)
	for _, f := range []func() error{func() error { return layer(in) }, in.Flush, gz.Close, file.Flush} {
		if err := f(); err != nil {
			return packed, "", err
		}
	}
	size, err := to.Seek(0, io.SeekCurrent)
	if err != nil {
		return packed, "", err
	}
	name := hex.EncodeToString(sum.Sum(nil))
	b, err := headerBlock(&tar.Header{Typeflag: tar.TypeReg, Name: blobs + name, Mode: 0o644, Size: size})
	if err != nil {
		return packed, "", err
	}
	if _, err := a.w.WriteAt(b, head); err != nil {
		return packed, "", err
	}
	a.at += size
	packed = Descriptor{MediaType: LayerGzipType, Digest: "sha256:" + name, Size: size}
	return packed, "sha256:" + hex.EncodeToString(plain.Sum(nil)), a.pad(size)
}

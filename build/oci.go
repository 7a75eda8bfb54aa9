package build

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// ociLayout is the file that marks an image layout (image-spec 1.1,
// image-layout.md), with what is in it.
const (
	ociLayout     = "oci-layout"
	ociLayoutText = `{"imageLayoutVersion":"1.0.0"}`
	ociBlobs      = "blobs/sha256/"
)

// ociArchive is an image as one tar file.
type ociArchive struct {
	path   string // outside the sandbox
	sum    digest.Digest
	inputs []string
}

// isImagePart tells whether an input is a part of an image for a machine that
// a step can read: its manifest, its configuration or a layer.
func isImagePart(in *lock.Input, arch string) bool {
	if in.Kind != lock.KindOCI || in.OCI.Role == lock.RoleIndex || in.OCI.Role == lock.RoleSBOM {
		return false
	}
	return slices.ContainsFunc(in.For, func(u lock.Use) bool { return u.Arch == "" || u.Arch == arch })
}

// ociImage is an image of the lock for this machine.
type ociImage struct {
	name  string
	parts []*lock.Input
}

// images are the lock's images for this machine, by name.
func (b *builder) images() []ociImage {
	var out []ociImage
	for i := range b.Lock.Inputs { // sorted by name
		in := &b.Lock.Inputs[i]
		if !isImagePart(in, b.Arch) {
			continue
		}
		name, _, _ := strings.Cut(in.Name, "/")
		if n := len(out); n == 0 || out[n-1].name != name {
			out = append(out, ociImage{name: name})
		}
		last := &out[len(out)-1]
		last.parts = append(last.parts, in)
	}
	return out
}

// putImages puts the images into a step's folder, each as NAME, an image
// layout whose blobs are links into the store, and as NAME.tar, an archive of
// that layout. Both have the image for this machine alone, whose manifest is
// the only one that their index names. It returns what steps read of them.
func (b *builder) putImages(in string) ([]*lock.Input, error) {
	var inputs []*lock.Input
	for i, image := range b.images() {
		index, err := image.index()
		if err != nil {
			return nil, err
		}
		if err := b.layOut(image, index, filepath.Join(in, image.name)); err != nil {
			return nil, fmt.Errorf("%s %s: %w", lock.KindOCI, image.name, err)
		}
		if i == len(b.archives) { // the first run step's: later ones get the same
			a, err := b.archive(image, index)
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", lock.KindOCI, image.name, err)
			}
			b.archives = append(b.archives, a)
		}
		if err := os.Link(b.archives[i].path, filepath.Join(in, image.name+".tar")); err != nil {
			return nil, err
		}
		inputs = append(inputs, image.parts...)
	}
	return inputs, nil
}

// index is the layout's index.json: it names the manifest, by its tag where
// the image was asked for by one.
func (i *ociImage) index() ([]byte, error) {
	type descriptor struct {
		MediaType   string            `json:"mediaType"`
		Digest      digest.Digest     `json:"digest"`
		Size        int64             `json:"size"`
		Annotations map[string]string `json:"annotations,omitempty"`
	}
	at := slices.IndexFunc(i.parts, func(in *lock.Input) bool { return in.OCI.Role == lock.RoleManifest })
	if at < 0 {
		return nil, fmt.Errorf("%s %s: the lock has no manifest of it for this machine", lock.KindOCI, i.name)
	}
	m := i.parts[at]
	d := descriptor{MediaType: m.OCI.MediaType, Digest: m.SHA256, Size: m.Size}
	ref, _, _ := strings.Cut(m.OCI.Ref, "@")
	if _, tag, ok := strings.Cut(ref[strings.LastIndexByte(ref, '/')+1:], ":"); ok {
		d.Annotations = map[string]string{"org.opencontainers.image.ref.name": tag}
	}
	return json.Marshal(struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{2, "application/vnd.oci.image.index.v1+json", []descriptor{d}})
}

// blobs are the image's parts, each file once, sorted by digest.
func (i *ociImage) blobs() []*lock.Input {
	out := slices.Clone(i.parts)
	slices.SortFunc(out, func(a, b *lock.Input) int { return strings.Compare(a.SHA256.Hex(), b.SHA256.Hex()) })
	return slices.CompactFunc(out, func(a, b *lock.Input) bool { return a.SHA256 == b.SHA256 })
}

// layOut writes the image as a folder.
func (b *builder) layOut(image ociImage, index []byte, dir string) error {
	for _, d := range []string{dir, filepath.Join(dir, "blobs"), filepath.Join(dir, ociBlobs)} {
		if err := makeDir(d); err != nil {
			return err
		}
	}
	for _, in := range image.blobs() {
		if err := os.Symlink(inSandbox(in), filepath.Join(dir, ociBlobs, in.SHA256.Hex())); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"index.json": string(index), ociLayout: ociLayoutText} {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			return err
		}
		if err := os.Chmod(at, 0o644); err != nil { // whatever the umask
			return err
		}
	}
	return nil
}

// archive writes the image as a tar file in the working folder.
func (b *builder) archive(image ociImage, index []byte) (ociArchive, error) {
	a := ociArchive{path: filepath.Join(b.work, "image-"+image.name+".tar"), inputs: refs(image.parts)}
	f, err := os.OpenFile(a.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return a, err
	}
	h := sha256.New()
	err = b.writeArchive(io.MultiWriter(f, h), image, index)
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Chmod(a.path, 0o644) // whatever the umask
	}
	a.sum = digest.Digest(h.Sum(nil))
	return a, err
}

// writeArchive writes an OCI archive: an image layout in a tar file, whose
// entries are sorted, owned by 0:0 and dated 1970.
func (b *builder) writeArchive(w io.Writer, image ociImage, index []byte) error {
	tw := tar.NewWriter(w)
	for _, dir := range []string{"blobs/", ociBlobs} {
		if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir, Mode: 0o755, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}); err != nil {
			return err
		}
	}
	add := func(name string, size int64, r io.Reader) error {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		_, err := io.Copy(tw, r)
		return err
	}
	for _, in := range image.blobs() {
		r, err := b.open(in)
		if err != nil {
			return err
		}
		size, _ := b.Store.Size(in.SHA256) // it has just been opened
		err = add(ociBlobs+in.SHA256.Hex(), size, r)
		if e := r.Close(); err == nil {
			err = e
		}
		if err != nil {
			return fmt.Errorf("%s: %w", ref(in), err)
		}
	}
	if err := add("index.json", int64(len(index)), strings.NewReader(string(index))); err != nil {
		return err
	}
	if err := add(ociLayout, int64(len(ociLayoutText)), strings.NewReader(ociLayoutText)); err != nil {
		return err
	}
	return tw.Close()
}

package ocilayout

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// Limits of what is read.
const (
	maxFiles  = 1024
	maxLayers = 128
	maxJSON   = 4 << 20
)

// ErrNoLayout says that a file is no OCI archive.
var ErrNoLayout = errors.New("it is no OCI archive: it has no oci-layout")

// Image is the image of an archive, opened.
type Image struct {
	// Digest is the manifest's, by which the image is known; Tag the one that
	// the index gives it, or "".
	Digest, Tag string
	// Text is the manifest as it is written.
	Text     []byte
	Manifest Manifest
	Config   Config

	r     io.ReaderAt
	files map[string]extent
}

// extent is where a file's content is.
type extent struct{ at, size int64 }

// Open reads what there is in an archive of size bytes, without its layers.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	im := &Image{r: r}
	var err error
	if im.files, err = list(io.NewSectionReader(r, 0, size)); err != nil {
		return nil, err
	}
	if _, ok := im.files[layoutName]; !ok {
		return nil, ErrNoLayout
	}
	var layout struct {
		Version string `json:"imageLayoutVersion"`
	}
	if _, err := im.json(layoutName, &layout); err != nil {
		return nil, err
	}
	if layout.Version != "1.0.0" {
		return nil, fmt.Errorf("%s: a layout of version %q; want 1.0.0", layoutName, layout.Version)
	}
	var ix index
	if _, err := im.json(indexName, &ix); err != nil {
		return nil, err
	}
	if len(ix.Manifests) != 1 {
		return nil, fmt.Errorf("%s names %d images; want one", indexName, len(ix.Manifests))
	}
	m := ix.Manifests[0]
	if m.MediaType != ManifestType {
		return nil, fmt.Errorf("%s names a %q; want %s", indexName, m.MediaType, ManifestType)
	}
	im.Digest, im.Tag = m.Digest, m.Annotations[refName]
	if im.Text, err = im.blob(m, &im.Manifest); err != nil {
		return nil, fmt.Errorf("the manifest: %w", err)
	}
	if _, err := im.blob(im.Manifest.Config, &im.Config); err != nil {
		return nil, fmt.Errorf("the configuration: %w", err)
	}
	switch n := len(im.Manifest.Layers); {
	case n > maxLayers:
		return nil, fmt.Errorf("the image has %d layers, more than %d", n, maxLayers)
	case n != len(im.Config.RootFS.DiffIDs):
		return nil, fmt.Errorf("the manifest has %d layers and the configuration %d", n, len(im.Config.RootFS.DiffIDs))
	}
	for i, l := range im.Manifest.Layers {
		if _, err := im.find(l); err != nil {
			return nil, fmt.Errorf("layer %d: %w", i+1, err)
		}
	}
	return im, nil
}

// list finds the files of an archive. Two of one name, and what is neither file
// nor folder, are errors.
func list(r *io.SectionReader) (map[string]extent, error) {
	files := map[string]extent{}
	tr := tar.NewReader(r)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return files, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading the archive: %w", err)
		}
		if n == maxFiles {
			return nil, fmt.Errorf("it has more than %d files", maxFiles)
		}
		name := path.Clean(h.Name)
		if h.Typeflag == tar.TypeDir {
			continue
		}
		if h.Typeflag != tar.TypeReg {
			return nil, fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		if _, ok := files[name]; ok {
			return nil, fmt.Errorf("%q is there twice", name)
		}
		at, err := r.Seek(0, io.SeekCurrent) // the reader has read the header and no more
		if err != nil {
			return nil, err
		}
		if h.Size > r.Size()-at {
			return nil, fmt.Errorf("%q: %w", name, io.ErrUnexpectedEOF)
		}
		files[name] = extent{at, h.Size}
	}
}

// json reads a small file.
func (im *Image) json(name string, v any) ([]byte, error) {
	e, ok := im.files[name]
	if !ok {
		return nil, fmt.Errorf("%s is missing", name)
	}
	if e.size > maxJSON {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", name, e.size, maxJSON)
	}
	b, err := io.ReadAll(io.NewSectionReader(im.r, e.at, e.size))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// find is where the blob is that a descriptor names.
func (im *Image) find(d Descriptor) (string, error) {
	sum, ok := strings.CutPrefix(d.Digest, "sha256:")
	if b, err := hex.DecodeString(sum); !ok || err != nil || len(b) != sha256.Size || sum != strings.ToLower(sum) {
		return "", fmt.Errorf("%q is no SHA-256 digest", d.Digest)
	}
	name := blobs + sum
	e, ok := im.files[name]
	switch {
	case !ok:
		return "", fmt.Errorf("%s is missing", name)
	case e.size != d.Size:
		return "", fmt.Errorf("%s has %d bytes, want %d", name, e.size, d.Size)
	}
	return name, nil
}

// blob reads a blob of JSON, and checks its digest.
func (im *Image) blob(d Descriptor, v any) ([]byte, error) {
	name, err := im.find(d)
	if err != nil {
		return nil, err
	}
	b, err := im.json(name, v)
	if err != nil {
		return nil, err
	}
	if sum := sha256.Sum256(b); "sha256:"+hex.EncodeToString(sum[:]) != d.Digest {
		return nil, fmt.Errorf("%s holds other bytes: sha256:%x", name, sum)
	}
	return b, nil
}

// Blob is the content of a blob as it lies in the archive, for those who know
// how many bytes it has.
func (im *Image) Blob(d Descriptor) (*io.SectionReader, error) {
	name, err := im.find(d)
	if err != nil {
		return nil, err
	}
	e := im.files[name]
	return io.NewSectionReader(im.r, e.at, e.size), nil
}

// Layer is the tar archive of a layer, from 0.
func (im *Image) Layer(i int) (io.Reader, error) {
	d := im.Manifest.Layers[i]
	r, err := im.Blob(d)
	if err != nil {
		return nil, err
	}
	return unpacked(d, r)
}

func unpacked(d Descriptor, r io.Reader) (io.Reader, error) {
	switch d.MediaType {
	case LayerType:
		return r, nil
	case LayerGzipType:
		return gzip.NewReader(r)
	}
	return nil, fmt.Errorf("a layer of the type %q is not read here: want %s or %s", d.MediaType, LayerGzipType, LayerType)
}

// Check reads the whole image and compares every blob with its name and with
// what the manifest says of it, and every layer without its compression with
// the configuration. A file that nothing names is an error.
func (im *Image) Check() error {
	named := map[string]bool{layoutName: true, indexName: true}
	name, err := im.find(Descriptor{Digest: im.Digest, Size: int64(len(im.Text))})
	if err != nil {
		return err
	}
	named[name] = true // its digest, and the configuration's, were compared when it was opened
	if name, err = im.find(im.Manifest.Config); err != nil {
		return err
	}
	named[name] = true
	for i, d := range im.Manifest.Layers {
		if name, err = im.find(d); err != nil {
			return err
		}
		named[name] = true
		if err := im.checkLayer(d, im.Config.RootFS.DiffIDs[i]); err != nil {
			return fmt.Errorf("layer %d: %s: %w", i+1, name, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(im.files)) {
		if !named[name] {
			return fmt.Errorf("%s is in the archive, and nothing names it", name)
		}
	}
	return nil
}

// checkLayer compares a layer's digests.
func (im *Image) checkLayer(d Descriptor, diffID string) error {
	r, err := im.Blob(d)
	if err != nil {
		return err
	}
	packed, plain := sha256.New(), sha256.New()
	tee := io.TeeReader(r, packed)
	_, readErr := func() (int64, error) {
		in, err := unpacked(d, tee)
		if err != nil {
			return 0, err
		}
		return io.Copy(plain, in)
	}()
	if _, err := io.Copy(io.Discard, tee); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(packed.Sum(nil)); got != d.Digest {
		return fmt.Errorf("it holds other bytes: %s", got)
	}
	if readErr != nil {
		return readErr
	}
	if got := "sha256:" + hex.EncodeToString(plain.Sum(nil)); got != diffID {
		return fmt.Errorf("without its compression it is %s, and the configuration has %s", got, diffID)
	}
	return nil
}

// Is tells whether a file of size bytes is a tar archive with the mark of an
// image layout among its files.
func Is(r io.ReaderAt, size int64) bool {
	tr := tar.NewReader(io.NewSectionReader(r, 0, size))
	for range maxFiles {
		h, err := tr.Next()
		if err != nil {
			return false
		}
		switch name := path.Clean(h.Name); {
		case name == layoutName:
			return h.Typeflag == tar.TypeReg
		case name != indexName && name != "blobs" && !strings.HasPrefix(name, "blobs/"):
			return false // some other archive, which may be long
		}
	}
	return false
}

// IsTar tells whether a file is a tar archive, by what POSIX.1 and GNU have at
// byte 257 of a header.
func IsTar(r io.ReaderAt) bool {
	b := make([]byte, 5)
	_, err := r.ReadAt(b, 257)
	return err == nil && bytes.Equal(b, []byte("ustar"))
}

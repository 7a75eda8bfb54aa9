package oci

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"caisson/lock/digest"
)

// refName is the annotation by which an image in a layout is chosen
// (image-spec, annotations.md).
const refName = "org.opencontainers.image.ref.name"

// layoutVersion is the content of oci-layout (image-spec, image-layout.md).
const layoutVersion = `{"imageLayoutVersion":"1.0.0"}`

// WriteLayout puts an image and what is attached to it into a folder that is an
// OCI image layout, or becomes one, under a name. What else is there stays.
// index.json is written last.
func WriteLayout(ctx context.Context, dir, name string, im *Image, attached []Attachment) error {
	refs, blobs, err := referrers(im, attached)
	if err != nil {
		return err
	}
	all, err := readLayout(dir)
	if err != nil {
		return fmt.Errorf("writing the image layout: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		return fmt.Errorf("writing the image layout: %w", err)
	}
	files := append(slices.Clone(im.blobs), blobs...)
	files = append(files, inMemory(ManifestType, im.Manifest))
	for _, r := range refs {
		files = append(files, inMemory(ManifestType, r.manifest))
	}
	for i := range files {
		if err := writeBlob(ctx, dir, &files[i]); err != nil {
			return fmt.Errorf("writing the image layout: %w", err)
		}
	}
	ours := []descriptor{{MediaType: ManifestType, Digest: im.Digest, Size: int64(len(im.Manifest)), Annotations: map[string]string{refName: name}}}
	for _, r := range refs {
		ours = append(ours, r.descriptor)
	}
	all = slices.DeleteFunc(all, func(d descriptor) bool {
		return d.Annotations[refName] == name || slices.ContainsFunc(refs, func(r referrer) bool { return r.Digest == d.Digest })
	})
	text, err := json.Marshal(index{SchemaVersion: 2, MediaType: indexType, Manifests: append(all, ours...)})
	if err != nil {
		return fmt.Errorf("writing the image layout: %w", err)
	}
	for _, f := range []struct {
		name string
		b    []byte
	}{{"oci-layout", []byte(layoutVersion)}, {"index.json", text}} {
		b := inMemory("", f.b)
		if err := replace(ctx, filepath.Join(dir, f.name), &b); err != nil {
			return fmt.Errorf("writing the image layout: %w", err)
		}
	}
	return nil
}

// readLayout is what a folder's index lists. A folder that has something else
// in it is an error.
func readLayout(dir string) ([]descriptor, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "index.json"))
	if errors.Is(err, fs.ErrNotExist) {
		if slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() != "blobs" && e.Name() != "oci-layout" }) {
			return nil, fmt.Errorf("%s: it is not empty, and no image layout", dir)
		}
		return nil, nil // one that was not finished
	}
	if err != nil {
		return nil, err
	}
	var i index
	if err := json.Unmarshal(b, &i); err != nil || i.SchemaVersion != 2 {
		return nil, fmt.Errorf("%s: it is no index of an image layout", filepath.Join(dir, "index.json"))
	}
	return i.Manifests, nil
}

// writeBlob writes a blob unless it is there.
func writeBlob(ctx context.Context, dir string, b *blob) error {
	name := filepath.Join(dir, "blobs", "sha256", b.Digest.Hex())
	if in, err := os.Open(name); err == nil {
		got, _, err := digest.Reader(reader{ctx, in})
		in.Close()
		if err == nil && got == b.Digest {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	return replace(ctx, name, b)
}

// replace writes a file under a temporary name, and gives it its own once its
// bytes are those of the blob.
func replace(ctx context.Context, name string, b *blob) (err error) {
	in, err := b.open(0)
	if err != nil {
		return err
	}
	defer in.Close()
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	got, _, err := digest.Reader(io.TeeReader(reader{ctx, in}, f))
	if err != nil {
		return err
	}
	if got != b.Digest {
		return fmt.Errorf("%s has changed meanwhile: got %s, want %s", name, got, b.Digest)
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

package oci

import (
	"context"
	"fmt"
	"io"
	"os"

	"caisson/build/image/ocilayout"
	"caisson/lock/digest"
)

// FromArchive is the image in an OCI archive, a file: pushed, it is what it is,
// with its own manifest. im has been read from the file, and what it says has
// been checked. Image.Disk is the digest of the file.
func FromArchive(ctx context.Context, file string, im *ocilayout.Image) (*Image, error) {
	in, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	out := &Image{Manifest: im.Text}
	if out.Disk, out.DiskSize, err = digest.Reader(reader{ctx, in}); err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	if out.Digest, err = digest.Parse(im.Digest); err != nil {
		return nil, fmt.Errorf("%s: its manifest: %w", file, err)
	}
	for _, d := range append([]ocilayout.Descriptor{im.Manifest.Config}, im.Manifest.Layers...) {
		content, err := im.Blob(d)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		_, at, _ := content.Outer()
		b := blob{descriptor: descriptor{MediaType: d.MediaType, Size: d.Size}, part: &filePart{path: file, size: out.DiskSize, at: at, n: d.Size}}
		if b.Digest, err = digest.Parse(d.Digest); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out.blobs = append(out.blobs, b)
	}
	return out, nil
}

// filePart is a part of a file that has size bytes.
type filePart struct {
	path        string
	size, at, n int64
}

func (p *filePart) open(offset int64) (io.ReadCloser, error) {
	f, err := openSame(p.path, p.size)
	if err != nil {
		return nil, err
	}
	offset = min(max(offset, 0), p.n)
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(f, p.at+offset, p.n-offset), f}, nil
}

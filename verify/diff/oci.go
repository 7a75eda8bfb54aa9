package diff

import (
	"fmt"
	"io"

	"caisson/build/image/ocilayout"
)

// oci compares container images: configuration, manifest, and layer by layer the
// files, whatever digests the blobs are called by.
func (d *differ) oci(n *Node, at spot, a, b *io.SectionReader) bool {
	x, errX := ocilayout.Open(a, a.Size())
	y, errY := ocilayout.Open(b, b.Size())
	if errX != nil || errY != nil {
		d.failed(n, errX, errY)
		return d.tar(n, at, a, b)
	}
	shown := len(n.Details)
	manifest := func(im *ocilayout.Image) ocilayout.Descriptor {
		return ocilayout.Descriptor{Digest: im.Digest, Size: int64(len(im.Text))}
	}
	for _, p := range []struct {
		name string
		x, y ocilayout.Descriptor
	}{{"configuration", x.Manifest.Config, y.Manifest.Config}, {"manifest", manifest(x), manifest(y)}} {
		d.blob(n, at.below(p.name), x, y, p.x, p.y)
	}
	for i := range max(len(x.Manifest.Layers), len(y.Manifest.Layers)) {
		d.layer(n, at, i, x, y)
	}
	return len(n.Details) > shown
}

// blob compares two blobs.
func (d *differ) blob(n *Node, at spot, x, y *ocilayout.Image, of, other ocilayout.Descriptor) {
	if of.Digest == other.Digest {
		return
	}
	c := d.child(n, at.path)
	a, errA := x.Blob(of)
	b, errB := y.Blob(other)
	if c == nil || errA != nil || errB != nil {
		if c != nil {
			d.failed(c, errA, errB)
		}
		return
	}
	d.contents(c, at, a, b)
}

// layer compares the layers of a number, from 0.
func (d *differ) layer(n *Node, at spot, i int, x, y *ocilayout.Image) {
	name := fmt.Sprintf("layer %d", i+1)
	if inX, inY := i < len(x.Manifest.Layers), i < len(y.Manifest.Layers); !inX || !inY {
		d.only(n, at.below(name).path, inX)
		return
	}
	if x.Manifest.Layers[i].Digest == y.Manifest.Layers[i].Digest && same(d, x, y, i) {
		return
	}
	if c := d.child(n, at.below(name).path); c != nil {
		d.members(c, at.below(name), "root", walkLayer(x, i), walkLayer(y, i))
	}
}

// same tells whether layers of one name have the same bytes: those of a damaged
// image may not.
func same(d *differ, x, y *ocilayout.Image, i int) bool {
	a, errA := x.Blob(x.Manifest.Layers[i])
	b, errB := y.Blob(y.Manifest.Layers[i])
	if errA != nil || errB != nil {
		return false
	}
	changed, err := compare(d.ctx, a, b, min(a.Size(), b.Size()))
	return err == nil && len(changed) == 0 && a.Size() == b.Size()
}

func walkLayer(im *ocilayout.Image, i int) walk {
	return func(fn func(m member, content io.Reader) error) error {
		r, err := im.Layer(i)
		if err != nil {
			return err
		}
		return eachTar(r, fn)
	}
}

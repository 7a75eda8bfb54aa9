package lock

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"caisson/lock/digest"
	"caisson/lock/rpmdb"
	"caisson/lock/rpmmd"
)

// imageSource begins the name of a lock's source that is an image.
const imageSource = "image:"

// baseImage finds the manifest of an image for an arch. A reference without
// a tag is to the latest, as in a Containerfile. What a tag names is asked
// once.
func (r *resolver) baseImage(ctx context.Context, image, arch string) (*imageLoader, *ociManifest, error) {
	name := image
	if !strings.Contains(name, "@") && strings.LastIndexByte(name, ':') <= strings.LastIndexByte(name, '/') {
		name += ":latest"
	}
	ref, err := parseImageRef(name)
	if err != nil {
		return nil, nil, err
	}
	l := &imageLoader{r: r, m: ManifestOCI{Name: image, Ref: name}, ref: ref}
	top := ref.digest
	if known, ok := r.tops[image]; ok {
		top = known
	}
	id := ref.tag
	if !top.IsZero() {
		id = top.String()
	}
	b, blob, err := l.fetch(ctx, OCIManifests, id, top, 0, manifestTypes())
	if err != nil {
		return nil, nil, err
	}
	if r.tops == nil {
		r.tops = map[string]digest.Digest{}
	}
	r.tops[image] = blob.SHA256
	m, err := parseOCIManifest(b)
	if err != nil || !m.index {
		return l, m, err
	}
	d, err := m.forArch(arch)
	if err != nil {
		return nil, nil, err
	}
	part, err := d.part()
	if err != nil {
		return nil, nil, err
	}
	if b, _, err = l.fetch(ctx, OCIManifests, part.digest.String(), part.digest, part.size, []string{part.mediaType}); err != nil {
		return nil, nil, err
	}
	if m, err = parseOCIManifest(b); err == nil && m.index {
		err = fmt.Errorf("an index in an index")
	}
	return l, m, err
}

// imageConfig reads an image's configuration into v.
func (l *imageLoader) imageConfig(ctx context.Context, m *ociManifest, v any) error {
	part, err := m.Config.part()
	if err != nil {
		return fmt.Errorf("config: %w", err)
	}
	b, _, err := l.fetch(ctx, OCIBlobs, part.digest.String(), part.digest, part.size, nil)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("config: %w", err)
	}
	return nil
}

// imageLabels are the labels of an image, of that for the lock's first arch.
func (r *resolver) imageLabels(ctx context.Context, image string) (map[string]string, digest.Digest, error) {
	r.say("reading the labels of %s", image)
	l, m, err := r.baseImage(ctx, image, r.lock.Arches[0])
	if err != nil {
		return nil, digest.Digest{}, err
	}
	var config struct {
		Config struct {
			Labels map[string]string `json:"Labels"`
		} `json:"config"`
	}
	if err := l.imageConfig(ctx, m, &config); err != nil {
		return nil, digest.Digest{}, err
	}
	return config.Config.Labels, r.tops[image], nil
}

// imagePackages are the packages that are installed in an image. Layers are
// fetched from the top, and only as far as they are needed.
func (r *resolver) imagePackages(ctx context.Context, image, arch string) ([]rpmmd.Package, error) {
	r.say("reading what is installed in %s (%s)", image, arch)
	l, m, err := r.baseImage(ctx, image, arch)
	if err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	var config ociPlatform
	if err := l.imageConfig(ctx, m, &config); err != nil {
		return nil, fmt.Errorf("image %s: %w", image, err)
	}
	if config.Architecture != "" && config.Architecture != goArch[arch] {
		return nil, fmt.Errorf("image %s: it has no image for %s (linux/%s); it is a single image for %s", image, arch, goArch[arch], &config)
	}
	var layers []rpmdb.Layer
	for i := range m.Layers {
		part, err := m.Layers[i].part()
		if err != nil {
			return nil, fmt.Errorf("image %s: layer %d: %w", image, i, err)
		}
		layers = append(layers, rpmdb.Layer{Name: part.digest.String(), Open: func() (io.ReadCloser, error) {
			blob, err := r.Fetch(ctx, Want{Kind: KindOCI, URL: l.ref.at(OCIBlobs, part.digest.String()), SHA256: part.digest, Size: part.size})
			if err != nil {
				return nil, err
			}
			return os.Open(blob.Path)
		}})
	}
	installed, err := rpmdb.FromLayers(ctx, layers)
	if err != nil {
		return nil, fmt.Errorf("image %s (%s): %w", image, arch, err)
	}
	return installed, nil
}

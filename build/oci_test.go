package build

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/random"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// addImage puts a random image into the store, and its parts into the lock,
// with an index and an SBOM, which no build reads.
func (d *distro) addImage(t *testing.T, name, prefix string, arch string) v1.Image {
	t.Helper()
	image, err := random.Image(2000, 2)
	if err != nil {
		t.Fatal(err)
	}
	add := func(part, role, typ string, b []byte) {
		sum, size, err := d.store.Put(bytes.NewReader(b), digest.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindOCI, Name: name + "/" + part, SHA256: sum, Size: size,
			OCI: &lock.OCI{Ref: "quay.io/org/" + name + ":3.9", Role: role, MediaType: typ}, For: []lock.Use{{Arch: arch, Set: "oci:" + name, By: "inputs.oci " + name}}})
	}
	read := func(b []byte, err error) []byte {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	add(prefix+"manifest", lock.RoleManifest, "application/vnd.docker.distribution.manifest.v2+json", read(image.RawManifest()))
	add(prefix+"config", lock.RoleConfig, "application/vnd.docker.container.image.v1+json", read(image.RawConfigFile()))
	layers, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		add(prefix+"layer-"+string(rune('0'+i)), lock.RoleLayer, "application/vnd.docker.image.rootfs.diff.tar.gzip", read(io.ReadAll(r)))
	}
	slices.SortFunc(d.lock.Inputs, func(a, b lock.Input) int { return strings.Compare(a.Kind+"\x00"+a.Name, b.Kind+"\x00"+b.Name) })
	return image
}

// bare is a distribution without packages.
func bare(t *testing.T) *distro {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return &distro{lock: *testLock(), store: s}
}

func (d *distro) builder(t *testing.T) *builder {
	t.Helper()
	b, err := testBuilder(t.TempDir(), &d.lock)
	if err != nil {
		t.Fatal(err)
	}
	b.Store = d.store
	return b
}

// untar unpacks an archive that we wrote.
func untar(t *testing.T, b []byte, dir string) {
	t.Helper()
	last := ""
	for r := tar.NewReader(bytes.NewReader(b)); ; {
		h, err := r.Next()
		if err == io.EOF {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.Name <= last || h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("after %s: %+v", last, h)
		}
		last = h.Name
		if h.Typeflag == tar.TypeDir {
			err = os.Mkdir(filepath.Join(dir, h.Name), 0o755)
		} else {
			var content []byte
			if content, err = io.ReadAll(r); err == nil {
				err = os.WriteFile(filepath.Join(dir, h.Name), content, 0o600)
			}
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// readAll reads an image of a layout to the end: the reader checks digests.
func readAll(t *testing.T, index v1.ImageIndex, sum v1.Hash) {
	t.Helper()
	image, err := index.Image(sum)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := image.ConfigFile(); err != nil {
		t.Error(err)
	}
	layers, err := image.Layers()
	if err != nil || len(layers) != 2 {
		t.Fatalf("%d layers, %v", len(layers), err)
	}
	for _, l := range layers {
		want, err := l.Digest()
		if err != nil {
			t.Fatal(err)
		}
		r, err := l.Compressed()
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err := digest.Reader(r); err != nil || got.String() != want.String() {
			t.Errorf("got %s, %v; want %s", got, err, want)
		}
	}
}

// The archive is a layout that go-containerregistry finds valid, and always
// the same; the folder has the same files.
func TestImageLayout(t *testing.T) {
	d := bare(t)
	want := d.addImage(t, "pause", "x86_64/", "x86_64")
	d.addImage(t, "pause", "aarch64/", "aarch64")
	d.addImage(t, "other", "", "")
	var archives [][]byte
	for range 2 {
		b := d.builder(t)
		in := t.TempDir()
		inputs, err := b.putImages(in)
		if err != nil {
			t.Fatal(err)
		}
		if len(inputs) != 8 {
			t.Errorf("%d inputs", len(inputs))
		}
		archive, err := os.ReadFile(filepath.Join(in, "pause.tar"))
		if err != nil {
			t.Fatal(err)
		}
		archives = append(archives, archive)
		dir := t.TempDir()
		untar(t, archive, dir)
		for _, name := range names(t, filepath.Join(dir, ociBlobs)) {
			target, err := os.Readlink(filepath.Join(in, "pause", ociBlobs, name))
			if err != nil || !strings.HasPrefix(target, givenMount+"/") {
				t.Errorf("%s: %s, %v", name, target, err)
			}
		}
		for _, name := range []string{"index.json", ociLayout} {
			x, err := os.ReadFile(filepath.Join(in, "pause", name))
			if err != nil {
				t.Fatal(err)
			}
			if y, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(x, y) {
				t.Errorf("%s: %s and %s, %v", name, x, y, err)
			}
		}
		index, err := layout.ImageIndexFromPath(dir)
		if err != nil {
			t.Fatal(err)
		}
		m, err := index.IndexManifest()
		if err != nil {
			t.Fatal(err)
		}
		sum, err := want.Digest()
		if err != nil {
			t.Fatal(err)
		}
		readAll(t, index, sum)
		if len(m.Manifests) != 1 || m.Manifests[0].Digest != sum || m.Manifests[0].Annotations["org.opencontainers.image.ref.name"] != "3.9" {
			t.Errorf("%+v", m.Manifests)
		}
	}
	if !bytes.Equal(archives[0], archives[1]) {
		t.Error("two archives of one image differ")
	}
}

func TestImageLayoutErrors(t *testing.T) {
	d := bare(t)
	d.addImage(t, "pause", "", "")
	gone := d.with(func(d *distro) { d.lock.Inputs[0].SHA256 = digest.Of([]byte("gone")) })
	if _, err := gone.builder(t).putImages(t.TempDir()); !errors.As(err, new(*cas.MissingError)) || !strings.Contains(err.Error(), "oci pause") {
		t.Errorf("got %v", err)
	}
	none := d.with(func(d *distro) {
		d.lock.Inputs = slices.DeleteFunc(d.lock.Inputs, func(in lock.Input) bool { return in.OCI.Role == lock.RoleManifest })
	})
	if _, err := none.builder(t).putImages(t.TempDir()); err == nil || !strings.Contains(err.Error(), "oci pause: the lock has no manifest of it") {
		t.Errorf("got %v", err)
	}
}

// TestImageSteps builds an image whose step puts another one's archive and
// one of its blobs into place, and makes something of it.
func TestImageSteps(t *testing.T) {
	d := newDistro(t)
	image := d.addImage(t, "pause", "x86_64/", "x86_64")
	d.addImage(t, "pause", "aarch64/", "aarch64")
	config, err := image.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	d.lock.Steps = []lock.Step{
		{Run: `install -D -m 0644 $IN/pause.tar $OUT/usr/share/pause.tar`},
		{Run: `install -D -m 0644 $IN/pause/blobs/sha256/` + config.Hex + ` $OUT/usr/share/config; cat $IN/pause/index.json $IN/pause/oci-layout > $OUT/usr/share/made`},
	}
	out := t.TempDir()
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	files := readFiles(t, out)
	parts := []string{"oci/pause/x86_64/config", "oci/pause/x86_64/layer-0", "oci/pause/x86_64/layer-1", "oci/pause/x86_64/manifest"}
	for path, want := range map[string]struct {
		account Account
		inputs  []string
	}{
		"root:/usr/share/pause.tar": {Placed, parts},
		"root:/usr/share/config":    {Placed, parts[:1]},
		"root:/usr/share/made":      {Compiled, parts},
	} {
		if f := files[path]; f.Account != want.account || !slices.Equal(f.Inputs, want.inputs) {
			t.Errorf("%s: got %s of %q, want %s of %q", path, f.Account, f.Inputs, want.account, want.inputs)
		}
	}
	e := readEvidence(t, out)
	if slices.Contains(e.Unused, parts[0]) {
		t.Errorf("unused: %q", e.Unused)
	}
	if strings.Contains(fmt.Sprintf("%+v", e), "oci/pause/aarch64") {
		t.Error("the evidence names another machine's image")
	}
}

package ocilayout

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"caisson/lock/tooltest"
)

// memory is a file in memory.
type memory struct{ b []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if n := int(off) + len(p); n > len(m.b) {
		m.b = append(m.b, make([]byte, n-len(m.b))...)
	}
	return copy(m.b[off:], p), nil
}

// fixture is a layer of two files, which a writer gives away in pieces of n
// bytes.
func fixture(n int) func(w io.Writer) error {
	return func(w io.Writer) error {
		var b bytes.Buffer
		tw := tar.NewWriter(&b)
		for _, f := range []struct {
			name string
			size int
		}{{"a", 100}, {"b", 3 << 20}} {
			if err := tw.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: 0o644, Size: int64(f.size)}); err != nil {
				return err
			}
			for i := range f.size {
				if _, err := tw.Write([]byte{byte(i * i >> (i % 13))}); err != nil {
					return err
				}
			}
		}
		if err := tw.Close(); err != nil {
			return err
		}
		for p := b.Bytes(); len(p) > 0; {
			k := min(n, len(p))
			if _, err := w.Write(p[:k]); err != nil {
				return err
			}
			p = p[k:]
		}
		return nil
	}
}

func options() Options {
	return Options{
		Arch: "amd64", Created: 1700000000, By: "test", Env: map[string]string{"B": "2", "A": "1"},
		Container: Container{Entrypoint: []string{"/a"}, Cmd: []string{"<&>"}, User: "1:2", WorkingDir: "/w", Labels: map[string]string{"b": "c", "a": "d"}},
	}
}

func written(t *testing.T, n int) (*memory, *Written) {
	t.Helper()
	var m memory
	w, err := Write(&m, options(), fixture(n))
	if err != nil {
		t.Fatal(err)
	}
	if w.Size != int64(len(m.b)) {
		t.Fatalf("got %d bytes, want %d", len(m.b), w.Size)
	}
	return &m, w
}

// TestGolden compares a small image with what it was: a change is one of
// lock.Revision.
func TestGolden(t *testing.T) {
	m, w := written(t, 1<<20)
	const want = "d61c364125b10458c5f1015ccfc81ab7639d6e4f44d320b79e9a773aaabc2f41 sha256:f5f3edb0b4bc28ff80e5de5e97f5249374e1e9cafc99bdfcf569d176224e9470"
	if got := fmt.Sprintf("%x %s", sha256.Sum256(m.b), w.Manifest.Digest); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for _, n := range []int{1, 511, 1 << 19, 1<<20 + 1, 1 << 30} {
		if again, _ := written(t, n); !bytes.Equal(again.b, m.b) {
			t.Errorf("written in pieces of %d bytes, it has other bytes", n)
		}
	}
}

// TestTools has the image read by skopeo and by a library of registries.
func TestTools(t *testing.T) {
	m, w := written(t, 1<<20)
	dir := t.TempDir()
	name := filepath.Join(dir, "image.tar")
	if err := os.WriteFile(name, m.b, 0o644); err != nil {
		t.Fatal(err)
	}
	skopeo := tooltest.Find(t, "skopeo")
	out, err := exec.Command(skopeo, "--insecure-policy", "copy", "--quiet", "oci-archive:"+name+":latest", "oci:"+filepath.Join(dir, "copy")+":x").CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo: %v\n%s", err, out)
	}
	if out, err := exec.Command(skopeo, "inspect", "--format", "{{.Digest}} {{.Architecture}} {{.Env}}", "oci:"+filepath.Join(dir, "copy")+":x").CombinedOutput(); err != nil || string(out) != w.Manifest.Digest+" amd64 [A=1 B=2]\n" {
		t.Errorf("skopeo: %v\n%s", err, out)
	}
	if out, err := exec.Command(tooltest.Find(t, "tar"), "-xf", name, "-C", dir).CombinedOutput(); err != nil {
		t.Fatalf("tar: %v\n%s", err, out)
	}
	ix, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(ix); err != nil {
		t.Error(err)
	}
}

// TestRead reads what was written, and finds what was changed.
func TestRead(t *testing.T) {
	m, w := written(t, 1<<20)
	im, err := Open(bytes.NewReader(m.b), w.Size)
	if err != nil {
		t.Fatal(err)
	}
	if err := im.Check(); err != nil || im.Digest != w.Manifest.Digest || im.Tag != "latest" || !Is(bytes.NewReader(m.b), w.Size) || !IsTar(bytes.NewReader(m.b)) {
		t.Errorf("got %+v, %v", im, err)
	}
	layer, err := im.Layer(0)
	if err != nil {
		t.Fatal(err)
	}
	var want bytes.Buffer
	if err := fixture(1 << 20)(&want); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(iotest.HalfReader(layer)); err != nil || !bytes.Equal(got, want.Bytes()) {
		t.Errorf("the layer has %d bytes, %v; want %d", len(got), err, want.Len())
	}
	in := func(d Descriptor) int64 { return im.files["blobs/sha256/"+strings.TrimPrefix(d.Digest, "sha256:")].at }
	for _, tt := range []struct {
		name string
		at   int64
		want string
	}{
		{"in the layer", in(im.Manifest.Layers[0]) + 5000, "layer 1: blobs/sha256/"},
		{"at the end of the layer", in(im.Manifest.Layers[0]) + im.Manifest.Layers[0].Size - 1, "it holds other bytes"},
		{"in the configuration", in(im.Manifest.Config) + 30, "the configuration: "},
		{"in the manifest", in(w.Manifest) + 200, "the manifest: "},
		{"in the manifest's digest", im.files["index.json"].at + 170, ""},
		{"in the layout", im.files["oci-layout"].at + 25, "oci-layout: "},
		{"in a name", in(im.Manifest.Config) - 500, ""},
	} {
		t.Run("a bit "+tt.name, func(t *testing.T) {
			b := bytes.Clone(m.b)
			b[tt.at] ^= 0x01
			im, err := Open(bytes.NewReader(b), w.Size)
			if err == nil {
				err = im.Check()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

// archiveOf is a tar archive of some files.
func archiveOf(files ...string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for i := 0; i+1 < len(files); i += 2 {
		_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: files[i], Mode: 0o644, Size: int64(len(files[i+1]))})
		_, _ = w.Write([]byte(files[i+1]))
	}
	_ = w.Close()
	return b.Bytes()
}

// blobOf is the name and the content of a blob, and its descriptor.
func blobOf(mediaType, content string) (name, descriptor string) {
	sum := sha256.Sum256([]byte(content))
	return fmt.Sprintf("blobs/sha256/%x", sum), fmt.Sprintf(`{"mediaType":%q,"digest":"sha256:%x","size":%d}`, mediaType, sum, len(content))
}

// TestRefuses has archives that are no image.
func TestRefuses(t *testing.T) {
	config := `{"rootfs":{"type":"layers","diff_ids":["sha256:0"]}}`
	cname, cdesc := blobOf(ConfigType, config)
	lname, ldesc := blobOf(LayerType, "layer")
	zname, zdesc := blobOf(LayerType+"+zstd", "layer")
	image := func(layers string) (name, text, ix string) {
		text = `{"schemaVersion":2,"mediaType":"` + ManifestType + `","config":` + cdesc + `,"layers":[` + layers + `]}`
		name, desc := blobOf(ManifestType, text)
		return name, text, `{"schemaVersion":2,"manifests":[` + desc + `]}`
	}
	mname, mtext, ix := image(ldesc)
	zm, zt, zix := image(zdesc)
	nm, nt, nix := image("")
	const mark = `{"imageLayoutVersion":"1.0.0"}`
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"nothing", nil, "it is no OCI archive"},
		{"an older layout", []string{"oci-layout", `{"imageLayoutVersion":"0.9"}`}, `a layout of version "0.9"`},
		{"no index", []string{"oci-layout", mark}, "index.json is missing"},
		{"an index that is no JSON", []string{"oci-layout", mark, "index.json", "{"}, "index.json: unexpected end"},
		{"two images", []string{"oci-layout", mark, "index.json", `{"manifests":[{},{}]}`}, "index.json names 2 images; want one"},
		{"an index in an index", []string{"oci-layout", mark, "index.json", `{"manifests":[{"mediaType":"` + IndexType + `"}]}`}, "want " + ManifestType},
		{"a digest of another kind", []string{"oci-layout", mark, "index.json", `{"manifests":[{"mediaType":"` + ManifestType + `","digest":"md5:00"}]}`}, `"md5:00" is no SHA-256 digest`},
		{"a manifest that is missing", []string{"oci-layout", mark, "index.json", ix}, "the manifest: " + mname + " is missing"},
		{"a config that is missing", []string{"oci-layout", mark, "index.json", ix, mname, mtext}, "the configuration: " + cname + " is missing"},
		{"a layer that is missing", []string{"oci-layout", mark, "index.json", ix, mname, mtext, cname, config}, "layer 1: " + lname + " is missing"},
		{"a layer of another size", []string{"oci-layout", mark, "index.json", ix, mname, mtext, cname, config, lname, "x"}, "has 1 bytes, want 5"},
		{"a layer that is not in the config", []string{"oci-layout", mark, "index.json", nix, nm, nt, cname, config}, "the manifest has 0 layers and the configuration 1"},
		{"a layer that is another", []string{"oci-layout", mark, "index.json", ix, mname, mtext, cname, config, lname, "layer"}, "the configuration has sha256:0"},
		{"a compression that is not read", []string{"oci-layout", mark, "index.json", zix, zm, zt, cname, config, zname, "layer"}, "is not read here"},
		{"a file twice", []string{"oci-layout", mark, "oci-layout", mark}, `"oci-layout" is there twice`},
		{"a large index", []string{"oci-layout", mark, "index.json", strings.Repeat(" ", maxJSON+1)}, "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := archiveOf(tt.files...)
			im, err := Open(bytes.NewReader(b), int64(len(b)))
			if err == nil {
				err = im.Check()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
	if b := archiveOf("etc/passwd", "x"); Is(bytes.NewReader(b), int64(len(b))) {
		t.Error("a root is taken for an image")
	}
	failed := errors.New("failed")
	if _, err := Write(&memory{}, options(), func(io.Writer) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("got %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	var m memory
	if _, err := Write(&m, options(), func(w io.Writer) error { _, err := w.Write(archiveOf("a", "b")); return err }); err != nil {
		f.Fatal(err)
	}
	f.Add(m.b)
	f.Add(archiveOf("oci-layout", `{"imageLayoutVersion":"1.0.0"}`, "index.json", `{"manifests":[{}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if im, err := Open(bytes.NewReader(b), int64(len(b))); err == nil {
			_ = im.Check()
		}
	})
}

package main

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

// maxOwnImage is what the layers and the configuration of Caisson's own image may
// have, in bytes.
const maxOwnImage = 120 << 20

// ownOut is where `make image` and `make release` have put what they made.
func ownOut(t *testing.T) string {
	t.Helper()
	if os.Getenv("CAISSON_E2E") == "" {
		t.Skip("Caisson is made by itself in `make e2e`")
	}
	out, err := filepath.Abs("../../out")
	must(t, err)
	return out
}

// ownImage is Caisson's own container image.
func ownImage(out string) (v1.Image, error) {
	p, err := layout.FromPath(filepath.Join(out, "image/layout"))
	if err != nil {
		return nil, fmt.Errorf("%w; `make image` makes it", err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	for _, d := range m.Manifests {
		if d.Annotations["org.opencontainers.image.ref.name"] == "latest" {
			return index.Image(d.Digest)
		}
	}
	return nil, errors.New("the layout has no image called latest")
}

// unpackOwnImage makes the root of a container of Caisson's own image.
func unpackOwnImage(out, root string) error {
	img, err := ownImage(out)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	files := mutate.Extract(img)
	defer files.Close()
	c := exec.Command("tar", "--extract", "--numeric-owner", "--same-permissions", "--directory", root)
	c.Stdin = files
	if text, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("unpacking the image: %w\n%s", err, text)
	}
	return nil
}

// TestE2EOwnImage looks at Caisson's own container image: that it is valid and small,
// that its statements are about it, and that what Tasks and builds need is there.
func TestE2EOwnImage(t *testing.T) {
	out := ownOut(t)
	img, err := ownImage(out)
	must(t, err)
	must(t, validate.Image(img))
	m, err := img.Manifest()
	must(t, err)
	size := m.Config.Size
	for _, l := range m.Layers {
		size += l.Size
	}
	t.Logf("the image has %.1f MiB", float64(size)/(1<<20))
	if size > maxOwnImage {
		t.Errorf("%d bytes, want at most %d", size, maxOwnImage)
	}
	config, err := img.ConfigFile()
	must(t, err)
	if user := config.Config.User; user != "65532:65532" {
		t.Errorf("it runs as %q", user)
	}
	checkOwn(t, out, "image")
	d, err := img.Digest()
	must(t, err)
	text, err := os.ReadFile(filepath.Join(out, "image/statements/provenance.json"))
	must(t, err)
	if !strings.Contains(string(text), d.Hex) {
		t.Errorf("the provenance is not about the manifest %s", d)
	}

	root := filepath.Join(t.TempDir(), "root")
	must(t, unpackOwnImage(out, root))
	for _, d := range []string{"proc", "dev", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	script := `set -eu; caisson version --modules=false; caisson tekton --help >/dev/null
		qemu-system-x86_64 --version; test -s /etc/ssl/certs/ca-certificates.crt; test -w /tmp`
	c := exec.Command("unshare", "--map-root-user", "--net", "--pid", "--fork", "--mount-proc="+root+"/proc", "chroot", root, "/bin/sh", "-c", script)
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	said, err := c.CombinedOutput()
	if err != nil || !strings.Contains(string(said), "QEMU emulator") {
		t.Errorf("in the image: %v\n%s", err, said)
	}
	same(t, filepath.Join(root, "usr/bin/caisson"), "amd64")
}

// TestE2ERelease looks at the programs that are released.
func TestE2ERelease(t *testing.T) {
	out := ownOut(t)
	sums := exec.Command("sha256sum", "--check", "--quiet", "SHA256SUMS")
	sums.Dir = filepath.Join(out, "release")
	if text, err := sums.CombinedOutput(); err != nil {
		t.Errorf("sha256sum: %v\n%s", err, text)
	}
	folders, err := filepath.Glob(filepath.Join(out, "release/linux-*"))
	must(t, err)
	if len(folders) == 0 {
		t.Fatal("there is none: `make release` makes them")
	}
	for _, dir := range folders {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			checkOwn(t, out, filepath.Join("release", filepath.Base(dir)))
			arch := strings.TrimPrefix(filepath.Base(dir), "linux-")
			program := filepath.Join(t.TempDir(), "caisson")
			unpackProgram(t, filepath.Join(dir, "caisson-linux-"+arch+".tar"), program)
			f, err := elf.Open(program)
			must(t, err)
			defer f.Close()
			want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
			libraries, err := f.ImportedLibraries()
			if err != nil || f.Machine != want || len(libraries) > 0 || f.Section(".interp") != nil {
				t.Errorf("for %s, with %v, %v; want a static program for %s", f.Machine, libraries, err, want)
			}
			same(t, program, arch)
		})
	}
}

// checkOwn checks who says what about something of Caisson's own, and that a rebuild
// was the same.
func checkOwn(t *testing.T, out, dir string) {
	t.Helper()
	c := exec.Command("../../bin/caisson", "attest", "--check", filepath.Join(out, dir, "statements"), "--key", filepath.Join(out, "own/cosign.pub"))
	text, err := c.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", dir, err, text)
	}
	vsa, err := os.ReadFile(filepath.Join(out, dir, "statements/vsa.json"))
	if err != nil || !bytes.Contains(vsa, []byte("CAISSON_REBUILD_IDENTICAL")) {
		t.Errorf("%s: the rebuild was not identical, %v: %s", dir, err, vsa)
	}
}

// unpackProgram takes the program out of a release, beside which there has to be the
// licence.
func unpackProgram(t *testing.T, archive, to string) {
	t.Helper()
	f, err := os.Open(archive)
	must(t, err)
	defer f.Close()
	licence, found := false, false
	for r := tar.NewReader(f); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		must(t, err)
		switch strings.TrimPrefix(h.Name, "./") {
		case "LICENSE":
			licence = true
		case "caisson":
			found = true
			w, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY, 0o755)
			must(t, err)
			_, err = io.Copy(w, r)
			must(t, errors.Join(err, w.Close()))
		}
	}
	if !licence || !found {
		t.Fatalf("%s: has the licence: %v, the program: %v", archive, licence, found)
	}
}

// same wants a program to be what the go command makes of this checkout, as README
// says, by itself: with neither the lock nor the sandbox. For other machines than this
// one CAISSON_OWN=all does: nothing of it is in the go command's cache.
func same(t *testing.T, program, arch string) {
	t.Helper()
	if arch != "amd64" && os.Getenv("CAISSON_OWN") != "all" {
		return
	}
	again := filepath.Join(t.TempDir(), "again")
	c := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -X main.version=0.1.0", "-o", again, "./cmd/caisson")
	c.Dir = "../.."
	c.Env = append(os.Environ(), "CGO_ENABLED=0", "GOTOOLCHAIN=go1.26.8", "GOARCH="+arch)
	if text, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, text)
	}
	want, err := os.ReadFile(again)
	must(t, err)
	got, err := os.ReadFile(program)
	must(t, err)
	if !bytes.Equal(got, want) {
		t.Errorf("go build makes %d bytes that are others than these %d", len(want), len(got))
	}
}

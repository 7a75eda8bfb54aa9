package verify

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/image/ocilayout"
	"caisson/build/imagefile"
	"caisson/lock"
	"caisson/lock/digest"
)

// testRoot is a root of one file in a tar archive, with what follows its end.
func testRoot(content, behind string) []byte {
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	_ = w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "etc/motd", Mode: 0o644, Size: int64(len(content))})
	_, _ = io.WriteString(w, content)
	_ = w.Close()
	b.WriteString(behind)
	return b.Bytes()
}

// writeArchive writes a root, or a container image of it, and returns the file's
// name.
func writeArchive(t *testing.T, dir, name string, root []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if strings.HasSuffix(name, ".oci.tar") {
		_, err = ocilayout.Write(f, ocilayout.Options{Arch: "amd64"}, func(w io.Writer) error { _, err := w.Write(root); return err })
	} else {
		_, err = f.Write(root)
	}
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// TestContents reads archives, sound and not.
func TestContents(t *testing.T) {
	for _, tt := range []struct {
		name, file, behind string
		change             func(b []byte) []byte
		claimed            *build.Image // image.json
		status             Status
		detail             string
	}{
		{name: "a root", file: "x.tar", status: Passed, detail: "1 files and folders can be read"},
		{name: "a root that is cut", file: "x.tar", change: func(b []byte) []byte { return b[:700] }, status: Failed, detail: "reading the root behind 1 entries: unexpected EOF"},
		{name: "a root with something behind it", file: "x.tar", behind: "secret", status: Failed, detail: "there is something behind the end"},
		{name: "an image", file: "x.oci.tar", status: Passed, detail: "every blob is what it and the configuration say; 1 files and folders can be read"},
		{name: "an image with something behind its root", file: "x.oci.tar", behind: "secret", status: Failed, detail: "layer 1: there is something behind the end"},
		{name: "another manifest in image.json", file: "x.oci.tar", claimed: &build.Image{Manifest: new(digest.Digest)}, status: Failed, detail: "image.json names another manifest than the archive"},
		{name: "no manifest in image.json", file: "x.oci.tar", claimed: &build.Image{RootHash: "ab"}, status: Failed, detail: "image.json names another manifest than the archive"},
		{name: "a flipped bit in the layer", file: "x.oci.tar", change: func(b []byte) []byte { b[1600] ^= 1; return b }, status: Failed, detail: "layer 1: blobs/sha256/"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			name := writeArchive(t, dir, tt.file, testRoot("hello", tt.behind))
			if tt.change != nil {
				b, err := os.ReadFile(name)
				if err == nil {
					err = os.WriteFile(name, tt.change(b), 0o644)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if tt.claimed != nil {
				if err := writeJSON(filepath.Join(dir, imageFile), tt.claimed); err != nil {
					t.Fatal(err)
				}
			}
			d, err := OpenImage(name)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			v := &verification{Options: Options{Image: name, Lock: &lock.Lock{}}, report: &Report{}, disk: d}
			v.readContents()
			if c := v.report.Checks; len(c) != 1 || c[0].Name != checkContents || c[0].Status != tt.status || !strings.Contains(c[0].Detail, tt.detail) {
				t.Errorf("got %+v, want %s, %q", c, tt.status, tt.detail)
			}
			if !v.report.IsArchive() || v.compared() != checkArchive || !slices.Equal(v.restsOn(), []string{checkContents, "rebuilders"}) {
				t.Errorf("it rests on %q", v.restsOn())
			}
		})
	}
}

// TestArchiveIsNoDisk has archives where disks are wanted.
func TestArchiveIsNoDisk(t *testing.T) {
	name := writeArchive(t, t.TempDir(), "x.oci.tar", testRoot("a", ""))
	for what, err := range map[string]error{
		"open":    func() error { _, err := OpenDisk(name); return err }(),
		"predict": func() error { _, err := Predict(name); return err }(),
	} {
		if !errors.Is(err, imagefile.ErrArchive) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	broken := writeArchive(t, t.TempDir(), "y.oci.tar", testRoot("a", ""))
	b, err := os.ReadFile(broken)
	if err == nil {
		err = os.WriteFile(broken, bytes.Replace(b, []byte(`"imageLayoutVersion":"1.0.0"`), []byte(`"imageLayoutVersion":"9.0.0"`), 1), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := OpenImage(broken); err == nil || !strings.Contains(err.Error(), "a layout of version") {
		t.Errorf("got %v", err)
	}
}

// TestDescribeArchive compares what a build says with the archive.
func TestDescribeArchive(t *testing.T) {
	dir := t.TempDir()
	name := writeArchive(t, dir, "x.oci.tar", testRoot("a", ""))
	d, err := OpenImage(name)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	m, err := d.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	im := build.Image{Name: "x", Manifest: &m, Files: []build.Output{{Name: "x.oci.tar"}}}
	if got, err := Describe(dir, &im); err != nil || *got.Manifest != m {
		t.Errorf("got %+v, %v", got, err)
	}
	b, err := os.ReadFile(filepath.Join(dir, imageFile))
	if err != nil {
		t.Fatal(err)
	}
	for _, not := range []string{"pcrs", "rootHash", "kernel", "cmdline", "partitions", "events"} {
		if strings.Contains(string(b), `"`+not+`"`) {
			t.Errorf("image.json has %q: %s", not, b)
		}
	}
	im.Manifest = nil
	if _, err := Describe(dir, &im); err == nil || !strings.Contains(err.Error(), "the manifest in it is sha256:") {
		t.Errorf("got %v", err)
	}
}

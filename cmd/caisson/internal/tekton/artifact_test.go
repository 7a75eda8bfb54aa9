package tekton_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"caisson/cmd/caisson/internal/tekton"
)

// folder is one with a file of each sort that is packed.
func folder(t *testing.T, at time.Time) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"a/run": 0o755, "a/text": 0o644, "z": 0o600} {
		full := filepath.Join(dir, name)
		for _, err := range []error{os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(name), mode), os.Chmod(full, mode), os.Chtimes(full, at, at)} {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Symlink("../z", filepath.Join(dir, "a/link")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func packed(t *testing.T, dir string) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := tekton.Pack(&b, dir); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// TestPack: the same bytes for the same content, which the real tar reads, and
// which come back.
func TestPack(t *testing.T) {
	b := packed(t, folder(t, time.Unix(1, 0)))
	if !bytes.Equal(b, packed(t, folder(t, time.Unix(2_000_000_000, 0)))) {
		t.Error("the bytes depend on the time")
	}
	out := t.TempDir()
	if err := tekton.Unpack(out, iotest.HalfReader(bytes.NewReader(b))); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b, packed(t, out)) {
		t.Error("it is not what was packed")
	}
	cmd := exec.Command("tar", "-tzf", "-")
	cmd.Stdin = bytes.NewReader(b)
	if got, err := cmd.CombinedOutput(); err != nil || string(got) != "a/\na/link\na/run\na/text\nz\n" {
		t.Errorf("tar: %v\n%s", err, got)
	}
	if err := tekton.Unpack(out, bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), "file exists") {
		t.Errorf("a second time: got %v", err)
	}
	if err := tekton.Unpack(t.TempDir(), iotest.TimeoutReader(bytes.NewReader(b))); err == nil {
		t.Error("a reader's error is lost")
	}
}

// TestUnpackTar unpacks what create-oci.sh makes: GNU tar, with its owner's ids
// and links of both kinds.
func TestUnpackTar(t *testing.T) {
	dir := folder(t, time.Unix(1, 0))
	if err := os.Link(filepath.Join(dir, "z"), filepath.Join(dir, "z2")); err != nil {
		t.Fatal(err)
	}
	b, err := exec.Command("tar", "--create", "--use-compress-program=gzip -n", "--file", "-", "--directory="+dir, ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := tekton.Unpack(out, bytes.NewReader(b)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(packed(t, dir), packed(t, out)) {
		t.Error("it is not what was packed")
	}
}

// archive is a tar by gzip of some headers.
func archive(t testing.TB, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	zw := gzip.NewWriter(&b)
	tw := tar.NewWriter(zw)
	for _, h := range headers {
		if err := tw.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := tw.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{tw, zw} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func TestUnpackBad(t *testing.T) {
	whole := archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 9})
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"above", archive(t, tar.Header{Name: "../f", Typeflag: tar.TypeReg, Mode: 0o644}), "outside"},
		{"absolute", archive(t, tar.Header{Name: "/etc/f", Typeflag: tar.TypeReg, Mode: 0o644}), "outside"},
		{"through a link", archive(t, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}, tar.Header{Name: "l/f", Typeflag: tar.TypeReg, Mode: 0o644}), "escapes"},
		{"a link above", archive(t, tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "../secret"}), "escapes"},
		{"twice", archive(t, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644}, tar.Header{Name: "f", Typeflag: tar.TypeReg, Mode: 0o644}), "file exists"},
		{"a device", archive(t, tar.Header{Name: "d", Typeflag: tar.TypeChar}), "neither"},
		{"no gzip", []byte("text, and no archive"), "gzip"},
		{"cut", whole[:len(whole)-12], "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			top := t.TempDir()
			if err := os.WriteFile(filepath.Join(top, "secret"), nil, 0o600); err != nil {
				t.Fatal(err)
			}
			err := tekton.Unpack(filepath.Join(top, "out"), bytes.NewReader(c.b))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
			if _, err := os.Lstat(filepath.Join(top, "f")); err == nil {
				t.Error("it was written outside")
			}
		})
	}
}

func TestParseArtifact(t *testing.T) {
	const hex = "@sha256:1111111111111111111111111111111111111111111111111111111111111111"
	for s, want := range map[string]string{
		"oci:quay.io/x/y:1" + hex + "=d":           "quay.io/x/y" + hex + " d",
		"oci:127.0.0.1:5000/team/x" + hex + "=a b": "127.0.0.1:5000/team/x" + hex + " a b",
		"oci:quay.io/x/y" + hex + "=/tmp=d":        "want REGISTRY/REPO",
		"oci:quay.io/x/y:1=d":                      "a tag can be moved",
		"quay.io/x/y" + hex + "=d":                 "want oci:REPO",
		"oci:quay.io/x/y" + hex:                    "=FOLDER",
		"oci:quay.io/$(id)" + hex + "=d":           "want REGISTRY/REPO",
		"=d":                                       "there is no artifact",
	} {
		blob, dir, err := tekton.ParseArtifact(s)
		got := blob.Repository.Name() + "@" + blob.DigestStr() + " " + dir
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %q, want %q", s, got, want)
		}
	}
}

func FuzzUnpack(f *testing.F) {
	f.Add(archive(f, tar.Header{Name: "a/f", Typeflag: tar.TypeReg, Mode: 0o644, Size: 9}, tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: ".."}))
	f.Add(archive(f, tar.Header{Name: "l/../../f", Typeflag: tar.TypeLink, Linkname: "x"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		top := t.TempDir()
		_ = tekton.Unpack(filepath.Join(top, "out"), io.LimitReader(bytes.NewReader(b), 1<<16))
		if entries, err := os.ReadDir(top); err != nil || len(entries) > 1 {
			t.Errorf("outside: %v, %v", entries, err)
		}
	})
}

package prefetch

import (
	"archive/zip"
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/mod/sumdb/dirhash"
)

// zipOf makes a zip of so many files, some of them stored, compressed at a
// level.
func zipOf(t testing.TB, level, files int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	w.RegisterCompressor(zip.Deflate, func(out io.Writer) (io.WriteCloser, error) { return flate.NewWriter(out, level) })
	for n := range files {
		h := &zip.FileHeader{Name: fmt.Sprintf("m@v1/%d", n), Method: zip.Deflate}
		if n%3 == 0 {
			h.Method = zip.Store
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n * n * 10 {
			fmt.Fprintf(f, "%d %x ", i, i*i*i)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// inMind is a content that is in no file.
type inMind struct{ *bytes.Reader }

func (inMind) Name() string { return "" }

// golangHash is the h1 of the same zip by Go's own code.
func golangHash(t testing.TB, content []byte) (string, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "zip")
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dirhash.HashZip(name, dirhash.Hash1)
}

func TestHashZip(t *testing.T) {
	for _, level := range []int{flate.HuffmanOnly, flate.NoCompression, flate.BestSpeed, flate.BestCompression} {
		content := zipOf(t, level, 20)
		want, err := golangHash(t, content)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := hashZip(inMind{bytes.NewReader(content)}); err != nil || got != want {
			t.Errorf("level %d: got %s, %v, want %s", level, got, err, want)
		}
	}
}

// TestHashZipDamaged flips bytes: the hash is another one or there is none.
func TestHashZipDamaged(t *testing.T) {
	content := zipOf(t, flate.BestSpeed, 12)
	want, err := hashZip(inMind{bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	first := bytes.IndexByte(content, 'm') // the first file's name
	for at := first; at < len(content); at += len(content) / 100 {
		bad := bytes.Clone(content)
		bad[at] ^= 0x40
		got, err := hashZip(inMind{bytes.NewReader(bad)})
		other, e := golangHash(t, bad)
		if err == nil && (e != nil || got != other) {
			t.Errorf("byte %d: got %s, want %s, %v", at, got, other, e)
		}
		if err == nil && got == want && e != nil {
			t.Errorf("byte %d: nothing was noticed, and go says %v", at, e)
		}
	}
}

// FuzzHashZip has whatever is hashed hashed by Go's own code as well.
func FuzzHashZip(f *testing.F) {
	f.Add(zipOf(f, flate.BestSpeed, 3))
	f.Add(zipOf(f, flate.HuffmanOnly, 5))
	f.Add([]byte(makeZip(f, "example.org/m@v1.0.0", map[string]string{"go.mod": "module example.org/m\n"})))
	f.Fuzz(func(t *testing.T, content []byte) {
		got, err := hashZip(inMind{bytes.NewReader(content)})
		if err != nil {
			return
		}
		if want, err := golangHash(t, content); err != nil || got != want {
			t.Errorf("got %s, want %s, %v", got, want, err)
		}
	})
}

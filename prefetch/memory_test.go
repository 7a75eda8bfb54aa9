package prefetch

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/rpmpack"
	"golang.org/x/mod/sumdb/dirhash"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// maxMemory is the most that a prefetch may ever have needed, in KiB, and
// maxGrowth how much more it may need for inputs many times as large.
const (
	maxMemory = 150 << 10
	maxGrowth = 24 << 10
)

// lockPrefix is before the path of a lock, as JSON, in what a child is to do.
const lockPrefix = "lock="

// fillLock is a child's work: it fills a store with a lock's inputs and prints
// the most memory that it has needed, in KiB.
func fillLock(dir, url, path string) int {
	l := new(lock.Lock)
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, l)
	}
	var s *cas.Store
	if err == nil {
		s, err = cas.Open(dir)
	}
	if err == nil {
		_, err = Fill(context.Background(), l, s, Options{Config: Config{Version: "test", GoProxy: url + "/go"}})
	}
	if err == nil {
		b, err = os.ReadFile("/proc/self/status")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	_, peak, _ := strings.Cut(string(b), "VmHWM:")
	fmt.Println(strings.Fields(peak)[0])
	return 0
}

// vast is a server of files that are made as they are sent, and the lock that
// has them. The first error ends what is added.
type vast struct {
	url   string
	files map[string]func(w io.Writer) error
	sizes map[string]int64
	lock  lock.Lock
}

func newVast(t testing.TB) *vast {
	v := &vast{files: make(map[string]func(io.Writer) error), sizes: make(map[string]int64)}
	v.url = serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/v2/") || strings.HasSuffix(r.URL.Path, "config.json") {
			fmt.Fprintf(w, `{"dl": %q}`, v.url+"/dl")
			return
		}
		send := v.files[r.URL.Path]
		if send == nil {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(v.sizes[r.URL.Path], 10))
		_ = send(w) // the client sees that there is less
	}))
	return v
}

// count is a Writer of nowhere.
type count int64

func (c *count) Write(p []byte) (int, error) {
	*c += count(len(p))
	return len(p), nil
}

// add has the server send a file, and locks it.
func (v *vast) add(t testing.TB, in lock.Input, path string, send func(w io.Writer) error) *lock.Input {
	t.Helper()
	h, n := sha256.New(), new(count)
	if err := send(io.MultiWriter(h, n)); err != nil {
		t.Fatal(err)
	}
	in.SHA256, in.Size = digest.Digest(h.Sum(nil)), int64(*n)
	if in.Kind == lock.KindOCI {
		path += in.SHA256.String()
		in.URL += in.SHA256.String()
	}
	v.files[path], v.sizes[path] = send, in.Size
	v.lock.Inputs = append(v.lock.Inputs, in)
	return &v.lock.Inputs[len(v.lock.Inputs)-1]
}

// noise is so many bytes that nothing compresses, other ones for each seed.
func noise(seed byte, n int64) func(w io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.Copy(w, io.LimitReader(rand.NewChaCha8([32]byte{seed}), n))
		return err
	}
}

// zipOfModule is a module's zip, with n bytes that are stored and half as many
// that compress to next to nothing.
func zipOfModule(id string, seed byte, n int64) func(w io.Writer) error {
	return func(w io.Writer) error {
		z := zip.NewWriter(w)
		stored, err := z.CreateHeader(&zip.FileHeader{Name: id + "/stored", Method: zip.Store})
		if err == nil {
			err = noise(seed, n)(stored)
		}
		if err != nil {
			return err
		}
		small, err := z.Create(id + "/zeros")
		for chunk, left := make([]byte, 1<<16), n/2; err == nil && left > 0; left -= int64(len(chunk)) {
			_, err = small.Write(chunk[:min(left, int64(len(chunk)))])
		}
		if err != nil {
			return err
		}
		return z.Close()
	}
}

// crateOf is a crate with a file of n bytes.
func crateOf(id string, seed byte, n int64) func(w io.Writer) error {
	return func(w io.Writer) error {
		z, err := gzip.NewWriterLevel(w, gzip.NoCompression)
		if err != nil {
			return err
		}
		t := tar.NewWriter(z)
		if err = t.WriteHeader(&tar.Header{Name: id + "/file", Mode: 0o644, Size: n}); err == nil {
			err = noise(seed, n)(t)
		}
		return errors.Join(err, t.Close(), z.Close())
	}
}

// addModule locks a module's zip by the hash that Go's own code has for it.
func (v *vast) addModule(t testing.TB, module string, seed byte, n int64) {
	id := module + "@v1.0.0"
	send := zipOfModule(id, seed, n)
	in := v.add(t, lock.Input{Kind: lock.KindGo, Name: id + ".zip", URL: module + "/@v/v1.0.0.zip", Go: &lock.Go{Module: module, Version: "v1.0.0"}},
		"/go/"+module+"/@v/v1.0.0.zip", send)
	name := filepath.Join(t.TempDir(), "zip")
	f, err := os.Create(name)
	if err == nil {
		err = send(f)
	}
	if err == nil {
		err = f.Close()
	}
	if err == nil {
		in.Go.H1, err = dirhash.HashZip(name, dirhash.Hash1)
	}
	if err == nil {
		err = os.Remove(name)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// addPackage locks a signed package whose payload has n bytes.
func (v *vast) addPackage(t testing.TB, s *signer, n int64) {
	r, err := rpmpack.NewRPM(rpmpack.RPMMetaData{Name: "vast", Version: "1", Release: "1", Arch: "noarch", BuildTime: when, Compressor: "gzip:0"})
	if err != nil {
		t.Fatal(err)
	}
	var body, file bytes.Buffer
	if err := noise(200, n)(&body); err != nil {
		t.Fatal(err)
	}
	r.AddFile(rpmpack.RPMFile{Name: "/usr/share/vast", Body: body.Bytes(), Mode: 0o644, Owner: "root", Group: "root"})
	r.SetPGPSigner(s.sign)
	if err := r.Write(&file); err != nil {
		t.Fatal(err)
	}
	v.add(t, lock.Input{Kind: lock.KindRPM, Name: "vast-1-1.noarch", URL: "vast.rpm", Repo: "base",
		RPM: &lock.RPM{Name: "vast", Version: "1", Release: "1", Arch: "noarch", Signed: true}}, "/rpm/vast.rpm",
		func(w io.Writer) error { _, err := w.Write(file.Bytes()); return err })
}

// vastWorld is a file of eight units, six of two, and two module zips, two
// crates, a package and two image layers of two: of every kind that is fetched
// as a file.
func vastWorld(t testing.TB, unit int64) *vast {
	v, s := newVast(t), newSigner(t)
	v.lock.Repos = []lock.Repo{{ID: "base", Arch: "x86_64", BaseURL: v.url + "/rpm/", GPGCheck: true, Keys: []string{s.fingerprint}}}
	v.add(t, lock.Input{Kind: lock.KindKey, Name: "KEY", URL: v.url + "/KEY", Fingerprint: s.fingerprint}, "/KEY",
		func(w io.Writer) error { _, err := io.WriteString(w, s.public); return err })
	v.add(t, lock.Input{Kind: lock.KindFile, Name: "large", URL: v.url + "/large"}, "/large", noise(100, 8*unit))
	for n := range byte(6) {
		name := fmt.Sprint("file", n)
		v.add(t, lock.Input{Kind: lock.KindFile, Name: name, URL: v.url + "/" + name}, "/"+name, noise(n, 2*unit))
	}
	host := strings.TrimPrefix(v.url, "http://")
	for n := range byte(2) {
		v.addModule(t, fmt.Sprint("example.org/m", n), 10+n, 2*unit)
		crate := fmt.Sprint("crate", n)
		v.add(t, lock.Input{Kind: lock.KindCrate, Name: crate + "-1.0.0.crate", URL: crate + "/1.0.0", Registry: "sparse+" + v.url + "/crates/"},
			"/dl/"+crate+"/1.0.0/download", crateOf(crate+"-1.0.0", 20+n, 2*unit))
		v.add(t, lock.Input{Kind: lock.KindOCI, Name: fmt.Sprint("image/layer", n), URL: "oci://" + host + "/team/image/blobs/", OCI: new(lock.OCI)},
			"/v2/team/image/blobs/", noise(30+n, 2*unit))
	}
	v.addPackage(t, s, 2*unit)
	return v
}

// peak is how much memory a process needs to fill a store with all of it, in
// KiB.
func (v *vast) peak(t testing.TB) int {
	t.Helper()
	dir := t.TempDir()
	b, err := json.Marshal(v.lock)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "lock"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := child(filepath.Join(dir, "store") + " " + v.url + " " + lockPrefix + filepath.Join(dir, "lock"))
	var said bytes.Buffer
	c.Stderr = &said
	out, err := c.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &said)
	}
	peak, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "store")); err != nil {
		t.Fatal(err)
	}
	return peak
}

// TestMemory fills a store with inputs of every kind at the same time, and
// then with ones that are 16 times as large: the memory that it needs is
// bounded, and is no function of their sizes. BenchmarkMemory does it with
// gigabytes.
func TestMemory(t *testing.T) {
	small := vastWorld(t, 512<<10).peak(t)
	large := vastWorld(t, 8<<20).peak(t)
	t.Logf("%d KiB, and %d KiB for 16 times as much", small, large)
	if large > maxMemory {
		t.Errorf("got %d KiB, want at most %d", large, maxMemory)
	}
	if large-small > maxGrowth {
		t.Errorf("it grows by %d KiB, want at most %d", large-small, maxGrowth)
	}
}

// The most memory that a process has needed which fetches a file of 3 GiB; and
// everything at the same time in files of 320 MiB and more.
func BenchmarkMemory(b *testing.B) {
	measure := func(b *testing.B, v *vast) {
		for b.Loop() {
			b.ReportMetric(float64(v.peak(b))/1024, "MiB")
		}
	}
	b.Run("file", func(b *testing.B) {
		v := newVast(b)
		v.add(b, lock.Input{Kind: lock.KindFile, Name: "large", URL: v.url + "/large"}, "/large", noise(100, 3<<30))
		measure(b, v)
	})
	b.Run("all", func(b *testing.B) { measure(b, vastWorld(b, 160<<20)) })
}

package lockfiles

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

var update = flag.Bool("update", false, "write small's lock and digests")

func TestMain(m *testing.M) {
	sandbox.Init()
	os.Exit(m.Run())
}

// TestSmall locks and builds a definition whose packages are made here, the same
// on every machine. Its lock is written down, and so are the digests of all that
// is built: where they are met, this machine makes of the lock what every other
// does. A change of a digest is a change of lock.Revision, unless it is one of
// what a file says besides the image.
func TestSmall(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("the programs of small are x86-64's, and a build runs them")
	}
	store, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "small") // where there is no git, which a lock names the commit of
	if err := os.CopyFS(filepath.Join(dir, "rootfs"), os.DirFS("small/rootfs")); err != nil {
		t.Fatal(err)
	}
	l := lockSmall(t, store, dir)
	text, err := lock.Format(l)
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "small/caisson.lock", string(text))
	tree := func(in *lock.Input) (io.ReadCloser, error) {
		var b bytes.Buffer
		err := lock.Pack(&b, filepath.Join(dir, in.URL))
		return io.NopCloser(&b), err
	}
	if _, err := prefetch.Fill(t.Context(), l, store, prefetch.Options{Tree: tree}); err != nil {
		t.Fatal(err)
	}
	sums := fmt.Sprintf("%s caisson.lock\n", digest.Of(text))
	for _, variant := range []string{"", "appended"} {
		out := t.TempDir()
		im, err := build.Build(t.Context(), build.Options{Lock: l, Store: store, Variant: variant, Arch: "x86_64", Out: out})
		if err != nil {
			log, _ := os.ReadFile(filepath.Join(out, "build.log"))
			t.Fatalf("%v\n%s", err, log)
		}
		sums += fmt.Sprintf("%s root hash %s\n", im.RootHash, im.Name)
		for _, f := range im.Files {
			if f.Name == "evidence.json" || f.Name == "build.log" { // they tell of this machine
				continue
			}
			sums += fmt.Sprintf("%s %s\n", f.SHA256, f.Name)
		}
	}
	golden(t, "small/golden.txt", sums)
}

// golden compares a text with a file.
func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(name, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	old, now := strings.Split(string(want), "\n"), strings.Split(got, "\n")
	for i := range max(len(old), len(now)) {
		if i >= len(old) || i >= len(now) || old[i] != now[i] {
			t.Errorf("%s, line %d: got %q, want %q", name, i+1, at(now, i), at(old, i))
		}
	}
}

// at is a line; "" behind the last.
func at(lines []string, i int) string {
	if i < len(lines) {
		return lines[i]
	}
	return ""
}

// lockSmall locks the definition; what is fetched is in the store then.
func lockSmall(t *testing.T, store *cas.Store, dir string) *lock.Lock {
	t.Helper()
	b, err := os.ReadFile("small/caisson.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m, err := lock.ParseManifest("caisson.yaml", b)
	if err != nil {
		t.Fatal(err)
	}
	world := smallWorld(t)
	for name, b := range world { // the packages too, which locking does not fetch
		if strings.HasSuffix(name, ".rpm") {
			if _, _, err := store.Put(bytes.NewReader(b), digest.Digest{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	fetch := func(_ context.Context, w lock.Want) (lock.Blob, error) {
		b, ok := world[w.URL]
		if !ok {
			return lock.Blob{}, fmt.Errorf("%s: %w", w.URL, fs.ErrNotExist)
		}
		d, n, err := store.Put(bytes.NewReader(b), w.SHA256)
		return lock.Blob{Path: store.Path(d), SHA256: d, Size: n}, err
	}
	l, err := lock.Resolve(t.Context(), lock.Options{
		Dir: dir, Manifest: m, Digest: digest.Of(b), Fetch: fetch,
		Fingerprints: func([]byte) ([]string, error) { return nil, errors.New("there are no keys") },
	})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

package prefetch

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

// makeISO makes an image of files.
func makeISO(t testing.TB, at map[string]string) string {
	t.Helper()
	if _, err := exec.LookPath("xorriso"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	write(t, filepath.Join(dir, "src"), at)
	out := filepath.Join(dir, "out.iso")
	if said, err := exec.Command("xorriso", "-as", "mkisofs", "-quiet", "-R", "-J", "-o", out, filepath.Join(dir, "src")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, said)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// isoWorld has its packages in an image.
func isoWorld(t testing.TB) *world {
	w := newWorld(t)
	at := make(map[string]string)
	for path, content := range w.srv.at {
		if name, ok := strings.CutPrefix(path, "/rpm/"); ok {
			at["BaseOS/"+name] = content
			delete(w.srv.at, path)
		}
	}
	r := &w.lock.Repos[0]
	r.ISO, r.BaseURL = "an.iso", "iso:an.iso/BaseOS/"
	replace(w, w.find(t, "an.iso"), makeISO(t, at))
	w.cfg.MaxSize = 8 << 20
	return w
}

func TestFillFromISO(t *testing.T) {
	w, s := isoWorld(t), newStore(t)
	iso := w.find(t, "an.iso")
	stats, err := fill(t, w, s)
	if err != nil || stats.Fetched != len(w.lock.Inputs)-2 || stats.Requests != int64(len(w.lock.Inputs)-2-3+1) {
		t.Fatalf("got %+v, %v", stats, err)
	}
	if err := VerifyAll(context.Background(), w.lock, s, ""); err != nil {
		t.Error(err)
	}
	if _, ok := Signer(w.lock, s, w.find(t, "hello-2:1.0-3.noarch")); !ok {
		t.Error("a package of the image has no proof")
	}
	if stats, err = fill(t, w, s); err != nil || stats.Fetched != 0 || stats.Requests != 0 {
		t.Errorf("again: got %+v, %v", stats, err)
	}
	// A package is missing, then the image.
	os.Remove(s.Path(w.find(t, "hello-2:1.0-3.noarch").SHA256))
	if stats, err = fill(t, w, s); err != nil || stats.Fetched != 1 || stats.Requests != 0 {
		t.Errorf("a package: got %+v, %v", stats, err)
	}
	os.Remove(s.Path(iso.SHA256))
	if stats, err = fill(t, w, s); err != nil || stats.Fetched != 1 || stats.Requests != 1 {
		t.Errorf("the image: got %+v, %v", stats, err)
	}
	sound(t, s)
}

func TestFillFromISORefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		lie  func(t *testing.T, w *world)
		err  string
	}{
		{"no such file in it", func(t *testing.T, w *world) { w.find(t, "hello-2:1.0-3.noarch").URL = "Packages/none.rpm" },
			`rpm hello-2:1.0-3.noarch: opening "BaseOS/Packages/none.rpm" of an ISO image: file does not exist`},
		{"another package in it", func(t *testing.T, w *world) { w.find(t, "hello-2:1.0-3.noarch").URL = "repodata/repomd.xml" }, "BaseOS/repodata/repomd.xml in the ISO image: got 9 bytes"},
		{"other bytes in it", func(t *testing.T, w *world) {
			in := w.find(t, "hello-2:1.0-3.noarch")
			in.SHA256 = digest.Of([]byte("another"))
		}, "BaseOS/Packages/hello.rpm in the ISO image: got sha256:"},
		{"no such image", func(_ *testing.T, w *world) { w.lock.Repos[0].ISO = "none.iso" }, `is in the ISO image "none.iso", which is no file of the lock`},
		{"no image", func(t *testing.T, w *world) { replace(w, w.find(t, "an.iso"), strings.Repeat("no image", 9000)) }, "reading an ISO image"},
		{"not there", func(_ *testing.T, w *world) { delete(w.srv.at, "/files/iso") }, "file an.iso: fetching"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w, s := isoWorld(t), newStore(t)
			c.lie(t, w)
			_, err := fill(t, w, s)
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %s", err, c.err)
			}
			if c.name == "not there" && (strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "3 more inputs were not tried")) {
				t.Errorf("what lies in the image: got %v", err)
			}
			sound(t, s)
		})
	}
}

// Resolve reads a repository's metadata out of an image whose digest it knows.
func TestFetchFromISO(t *testing.T) {
	f := fetcher(t, quick())
	defer f.Close()
	image := makeISO(t, map[string]string{"BaseOS/repodata/repomd.xml": "metadata", "large": strings.Repeat("x", 2<<20)})
	d, _, err := f.store.Put(strings.NewReader(image), digest.Of([]byte(image)))
	if err != nil {
		t.Fatal(err)
	}
	w := lock.Want{Kind: lock.KindRepodata, URL: "BaseOS/repodata/repomd.xml", ISO: d}
	for range 2 {
		if b, err := f.Fetch(context.Background(), w); err != nil || b.SHA256 != digest.Of([]byte("metadata")) {
			t.Errorf("got %+v, %v", b, err)
		}
	}
	w.URL = "BaseOS/none"
	if _, err := f.Fetch(context.Background(), w); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, m := range []int64{0, 100} {
		if _, err := f.Fetch(context.Background(), lock.Want{Kind: lock.KindRepodata, URL: "large", ISO: d, Max: m}); !isA[*SizeError](err) {
			t.Errorf("got %v", err)
		}
	}
	// An image that has been damaged is not believed.
	path := f.store.Path(d)
	other := strings.Replace(image, "metadata", "METADATA", 1)
	os.Remove(path)
	os.WriteFile(path, []byte(other), 0o644)
	again := NewFetcher(f.store, newClient(t, quick()), quick())
	defer again.Close()
	os.RemoveAll(filepath.Join(f.store.Dir(), "index"))
	w.URL = "BaseOS/repodata/repomd.xml"
	if b, err := again.Fetch(context.Background(), w); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("got %+v, %v", b, err)
	}
}

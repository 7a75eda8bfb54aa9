package prefetch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// others puts so many other files into a store.
func others(b *testing.B, s *cas.Store, n int) {
	b.Helper()
	for i := range n {
		h := digest.Of(fmt.Append(nil, "other", i)).Hex()
		path := filepath.Join(s.Dir(), "sha256", h[:2], h)
		os.MkdirAll(filepath.Dir(path), 0o777)
		if err := os.WriteFile(path, nil, 0o444); err != nil {
			b.Fatal(err)
		}
	}
}

// fullStore is a world of 2,000 packages that the store has, signatures proved.
func fullStore(b *testing.B) (*world, *cas.Store) {
	b.Helper()
	w, s := newWorld(b), newStore(b)
	rpm := w.find(b, "hello-2:1.0-3.noarch")
	note, err := Signature{Fingerprint: w.key.fingerprint, KeyID: w.key.fingerprint[24:], UserID: "Test <test@example.org>", Algorithm: "EdDSA", Hash: "SHA256", Time: when}.note()
	if err != nil {
		b.Fatal(err)
	}
	for n := range 2000 {
		in := *rpm
		in.Name = fmt.Sprintf("p%d-1-1.noarch", n)
		content := fmt.Sprint("package ", n)
		in.SHA256, in.Size = digest.Of([]byte(content)), int64(len(content))
		d, _, err := s.Put(strings.NewReader(content), in.SHA256)
		if err == nil {
			err = s.RememberNote(rpmProof(&in, w.key.fingerprint, w.find(b, "KEY").SHA256), d, note)
		}
		if err != nil {
			b.Fatal(err)
		}
		w.lock.Inputs = append(w.lock.Inputs, in)
	}
	if _, err := fill(b, w, s); err != nil {
		b.Fatal(err)
	}
	return w, s
}

// again is a run over a full store by a new process: nothing is asked for and
// nothing is fetched.
func (w *world) again(b *testing.B, s *cas.Store) func(string) error {
	return func(string) error {
		o, err := cas.Open(s.Dir())
		if err != nil {
			return err
		}
		stats, err := fill(b, w, o)
		if err == nil && (stats.Present != len(w.lock.Inputs) || stats.Requests != 0) {
			err = fmt.Errorf("it was not full: %+v", stats)
		}
		return err
	}
}

// A run over a full store of 2,000 packages reads none of them, and takes no
// longer where the store has 100,000 files: "of-small" is the large store's
// speed as a ratio.
func BenchmarkFillFull(b *testing.B) {
	w, small := fullStore(b)
	v, large := fullStore(b)
	others(b, large, 98_000)
	took := contest(b, b.TempDir(), w.again(b, small), v.again(b, large))
	b.ReportMetric(float64(took[0])/1e6, "ms-2000-inputs")
	b.ReportMetric(took[0].over(took[1]), "of-small")
}

// newInputs is a lock of 2,000 small files that no store has yet.
func newInputs(url string, round int) *lock.Lock {
	l := new(lock.Lock)
	for n := range 2000 {
		path := fmt.Sprintf("/%d/%d", round, n)
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: path, URL: url + path, SHA256: digest.Of([]byte(path)), Size: int64(len(path))})
	}
	return l
}

// 2,000 small files come into a store of 2,000 files and into one of 100,000,
// and both are listed as store gc does; ratios of speed, that of listing for
// each file.
func BenchmarkGrowth(b *testing.B) {
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.Path) }))
	stores, files := []*cas.Store{newStore(b), newStore(b)}, []int{2000, 100_000}
	for i, s := range stores {
		others(b, s, files[i])
	}
	var filled, listed [2]best
	for round := 0; b.Loop(); round++ {
		for i, s := range stores {
			l := newInputs(url, round)
			begin := time.Now()
			stats, err := Fill(b.Context(), l, s, Options{})
			filled[i].add(time.Since(begin))
			if err != nil || stats.Fetched != len(l.Inputs) {
				b.Fatalf("%+v, %v", stats, err)
			}
			begin = time.Now()
			found, err := s.GC(b.Context(), cas.GCOptions{Keep: func(digest.Digest) bool { return false }, DryRun: true})
			if err != nil {
				b.Fatal(err)
			}
			listed[i].add(time.Since(begin) / time.Duration(found.InUse.Files+found.Removed.Files))
		}
	}
	b.ReportMetric(filled[0].over(filled[1]), "fill-of-small")
	b.ReportMetric(listed[0].over(listed[1]), "gc-of-small")
	b.ReportMetric(float64(listed[1])*100_000/1e6, "ms-gc-100000")
}

// hashInMemory hashes so many bytes on all cores, and reads nothing for it.
func hashInMemory(size int64) {
	var all sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			h, buf := sha256.New(), make([]byte, 64<<10)
			for range size / int64(runtime.GOMAXPROCS(0)*len(buf)) {
				h.Write(buf)
			}
		})
	}
	all.Wait()
}

// Reading 2,000 files of 256 KiB again, as prefetch --verify does, beside
// sha256sum on as many cores, and beside SHA-256 alone; as ratios of speed.
func BenchmarkVerify(b *testing.B) {
	const n, size = 2000, 256 << 10
	s, l := newStore(b), new(lock.Lock)
	for i := range n {
		d, _, err := s.Put(strings.NewReader(strings.Repeat(fmt.Sprintf("%16d", i), size/16)), digest.Digest{})
		if err != nil {
			b.Fatal(err)
		}
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: fmt.Sprint(i), URL: "http://127.0.0.1:1/", SHA256: d, Size: size})
	}
	took := contest(b, b.TempDir(),
		func(string) error {
			stats, err := Fill(context.Background(), l, s, Options{Verify: true})
			if err == nil && (stats.Present != n || stats.Requests != 0) {
				err = fmt.Errorf("not sound: %+v", stats)
			}
			return err
		},
		func(string) error { return VerifyAll(context.Background(), l, s, "") },
		shell(fmt.Sprintf("find %s/sha256 -type f -print0 | xargs -0 -n 100 -P %d sha256sum >/dev/null", s.Dir(), runtime.GOMAXPROCS(0))),
		func(string) error { hashInMemory(n * size); return nil })
	b.ReportMetric(n*size/1e6/time.Duration(took[0]).Seconds(), "MB/s-verify")
	b.ReportMetric(took[2].over(took[0]), "of-sha256sum")
	b.ReportMetric(took[3].over(took[0]), "of-sha256")
	b.ReportMetric(took[3].over(took[1]), "VerifyAll-of-sha256")
}

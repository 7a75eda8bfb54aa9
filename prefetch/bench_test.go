package prefetch

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// best is the shortest of several times: on a busy machine the one that says
// most of the work itself.
type best time.Duration

func (b *best) add(d time.Duration) {
	if *b == 0 || best(d) < *b {
		*b = best(d)
	}
}

// fullStore is a world of 2,000 packages that the store has, each of so many
// bytes, and so many other files.
func fullStore(b *testing.B, size, others int) (*world, *cas.Store) {
	w, s := newWorld(b), newStore(b)
	rpm := w.find(b, "hello-2:1.0-3.noarch")
	note, err := Signature{Fingerprint: w.key.fingerprint, KeyID: w.key.fingerprint[24:], UserID: "Test <test@example.org>", Algorithm: "EdDSA", Hash: "SHA256", Time: when}.note()
	if err != nil {
		b.Fatal(err)
	}
	for n := range 2000 {
		in := *rpm
		in.Name = fmt.Sprintf("p%d-1-1.noarch", n)
		content := strings.Repeat(fmt.Sprintf("%16d", n), (size+15)/16)
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
	for n := range others {
		h := digest.Of(fmt.Append(nil, "other", n)).Hex()
		path := filepath.Join(s.Dir(), "sha256", h[:2], h)
		os.MkdirAll(filepath.Dir(path), 0o777)
		if err := os.WriteFile(path, nil, 0o444); err != nil {
			b.Fatal(err)
		}
	}
	if _, err := fill(b, w, s); err != nil {
		b.Fatal(err)
	}
	return w, s
}

// A run over a full store of 2,000 packages reads none of them, and takes no
// longer where the store has 100,000 other files.
func BenchmarkFillFull(b *testing.B) {
	for _, others := range []int{0, 100_000} {
		b.Run(fmt.Sprintf("others=%d", others), func(b *testing.B) {
			w, s := fullStore(b, 16, others)
			for b.Loop() {
				o, err := cas.Open(s.Dir()) // as a new process
				if err != nil {
					b.Fatal(err)
				}
				stats, err := fill(b, w, o)
				if err != nil || stats.Present != len(w.lock.Inputs) || stats.Requests != 0 {
					b.Fatalf("%+v, %v", stats, err)
				}
			}
		})
	}
}

// Reading 2,000 files of 100 KiB again, beside sha256sum on as many cores.
func BenchmarkVerifyAll(b *testing.B) {
	const size = 100 << 10
	w, s := fullStore(b, size, 0)
	var ours, peer best
	b.SetBytes(2000 * size)
	for b.Loop() {
		begin := time.Now()
		if err := VerifyAll(context.Background(), w.lock, s, ""); err != nil {
			b.Fatal(err)
		}
		ours.add(time.Since(begin))
		begin = time.Now()
		script := fmt.Sprintf("find %s/sha256 -type f -print0 | xargs -0 -n 100 -P %d sha256sum >/dev/null", s.Dir(), runtime.GOMAXPROCS(0))
		if out, err := exec.Command("sh", "-c", script).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		peer.add(time.Since(begin))
	}
	b.ReportMetric(float64(peer)/float64(ours), "of-sha256sum")
}

// largeSize is the size of the large file in bytes.
const largeSize = 256 << 20

var largeChunk = strings.Repeat("0123456789abcdef", 1<<16)

func serveLarge(b *testing.B) string {
	return serve(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(largeSize))
		w.Header().Set("ETag", `"1"`)
		for range largeSize / len(largeChunk) {
			if _, err := io.WriteString(w, largeChunk); err != nil {
				return
			}
		}
	}))
}

func largeLock(url string) *lock.Lock {
	h := sha256.New()
	for range largeSize / len(largeChunk) {
		io.WriteString(h, largeChunk)
	}
	return &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindFile, Name: "large", URL: url, SHA256: digest.Digest(h.Sum(nil)), Size: largeSize}}}
}

// A file of 256 MiB from a local server, beside curl, and beside curl that
// does what a store has to: hash and sync. The figures are ratios of speed.
func BenchmarkLarge(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip(err)
	}
	url := serveLarge(b)
	l := largeLock(url)
	var took [3]best
	b.SetBytes(largeSize)
	for b.Loop() {
		dir := b.TempDir()
		for i, do := range []func() error{
			func() error {
				s, err := cas.Open(filepath.Join(dir, "store"))
				if err == nil {
					_, err = Fill(context.Background(), l, s, Options{})
				}
				return err
			},
			func() error { return exec.Command("curl", "-sf", "-o", dir+"/a", url).Run() },
			func() error {
				return exec.Command("sh", "-c", "curl -sf -o "+dir+"/b "+url+" && sha256sum "+dir+"/b && sync "+dir+"/b").Run()
			},
		} {
			begin := time.Now()
			if err := do(); err != nil {
				b.Fatal(err)
			}
			took[i].add(time.Since(begin))
		}
		os.RemoveAll(dir)
	}
	b.ReportMetric(float64(took[1])/float64(took[0]), "of-curl")
	b.ReportMetric(float64(took[2])/float64(took[0]), "of-curl+sha256sum+sync")
}

// 512 files of 256 KiB from a local server, beside curl with as many
// connections.
func BenchmarkMany(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip(err)
	}
	const n, size = 512, 256 << 10
	body := func(i int) string { return strings.Repeat(fmt.Sprintf("%16d", i), size/16) }
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var i int
		fmt.Sscanf(r.URL.Path, "/%d", &i)
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.WriteString(w, body(i))
	}))
	l := new(lock.Lock)
	for i := range n {
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: fmt.Sprint(i), URL: fmt.Sprintf("%s/%d", url, i), SHA256: digest.Of([]byte(body(i))), Size: size})
	}
	var ours, peer best
	b.SetBytes(n * size)
	for b.Loop() {
		dir := b.TempDir()
		begin := time.Now()
		s, err := cas.Open(filepath.Join(dir, "store"))
		if err == nil {
			_, err = Fill(context.Background(), l, s, Options{})
		}
		if err != nil {
			b.Fatal(err)
		}
		ours.add(time.Since(begin))
		begin = time.Now()
		if out, err := exec.Command("curl", "-sf", "--parallel", "--parallel-max", "16", "--create-dirs", "-o", dir+"/c/#1", fmt.Sprintf("%s/[0-%d]", url, n-1)).CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		peer.add(time.Since(begin))
		os.RemoveAll(dir)
	}
	b.ReportMetric(float64(peer)/float64(ours), "of-curl")
}

// The most memory that a process needs which fetches a file of 256 MiB.
func BenchmarkMemory(b *testing.B) {
	url := serveLarge(b)
	for b.Loop() {
		c := exec.Command(os.Args[0])
		c.Env = append(os.Environ(), childEnv+"="+filepath.Join(b.TempDir(), "store")+" "+url+" large")
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v: %s", err, out)
		}
		if u, ok := c.ProcessState.SysUsage().(*syscall.Rusage); ok {
			b.ReportMetric(float64(u.Maxrss)/1024, "MiB")
		}
	}
}

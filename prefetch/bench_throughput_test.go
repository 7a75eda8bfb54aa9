package prefetch

import (
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// needCurl skips the benchmark where its peer is absent.
func needCurl(b *testing.B) {
	if _, err := exec.LookPath("curl"); err != nil {
		b.Skip(err)
	}
}

// besideCurl measures Fill beside curl, and beside curl and what else a store
// has to do; as ratios of speed. On disk a store waits until the bytes are
// there, and curl does not; in memory nobody waits, and the rest can be
// compared.
func besideCurl(b *testing.B, l *lock.Lock, size int64, curl, proved string) {
	measure := func(b *testing.B, where string) {
		took := contest(b, where, fillNew(l, Config{}), shell(curl), shell(curl+"; "+proved))
		b.ReportMetric(float64(size)/1e6/time.Duration(took[0]).Seconds(), "MB/s-fill")
		b.ReportMetric(took[1].over(took[0]), "of-curl")
		b.ReportMetric(took[2].over(took[0]), "of-curl+sha256sum+sync")
	}
	b.Run("disk", func(b *testing.B) { measure(b, b.TempDir()) })
	b.Run("memory", func(b *testing.B) { measure(b, inMemory(b)) })
}

// A file of 256 MiB from a local server.
func BenchmarkLarge(b *testing.B) {
	needCurl(b)
	const size = 256 << 20
	chunk := strings.Repeat("0123456789abcdef", 1<<16)
	send := func(w io.Writer) {
		for range size / len(chunk) {
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		w.Header().Set("ETag", `"1"`)
		send(w)
	}))
	h := sha256.New()
	send(h)
	l := &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindFile, Name: "large", URL: url, SHA256: digest.Digest(h.Sum(nil)), Size: size}}}
	besideCurl(b, l, size, `curl -sf -o "$0/a" `+url, `sha256sum "$0/a"; sync "$0/a"`)
}

// 512 files of 256 KiB from a local server, by as many connections at the same
// time as Fill has.
func BenchmarkMany(b *testing.B) {
	needCurl(b)
	const n, size = 512, 256 << 10
	files := make(map[string]string)
	l := new(lock.Lock)
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		io.WriteString(w, files[r.URL.Path])
	}))
	for i := range n {
		path, content := fmt.Sprintf("/%d", i), strings.Repeat(fmt.Sprintf("%16d", i), size/16)
		files[path] = content
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: path, URL: url + path, SHA256: digest.Of([]byte(content)), Size: size})
	}
	curl := fmt.Sprintf(`curl -sf --parallel --parallel-max 16 --create-dirs -o "$0/c/#1" "%s/[0-%d]"`, url, n-1)
	besideCurl(b, l, n*size, curl, `sha256sum "$0"/c/* >"$0/sums"; sync "$0"/c/*`)
}

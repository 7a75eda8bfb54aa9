package prefetch

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// A run over a full store of 2,000 packages reads none of them.
func BenchmarkFillFull(b *testing.B) {
	w, s := newWorld(b), newStore(b)
	rpm := w.find(b, "hello-2:1.0-3.noarch")
	for n := range 2000 {
		in := *rpm
		in.Name = fmt.Sprintf("p%d-1-1.noarch", n)
		in.SHA256 = digest.Of([]byte(in.Name))
		in.Size = int64(len(in.Name))
		d, _, err := s.Put(strings.NewReader(in.Name), in.SHA256)
		if err == nil {
			err = s.Remember(rpmProof(&in, w.key.fingerprint, w.find(b, "KEY").SHA256), d)
		}
		if err != nil {
			b.Fatal(err)
		}
		w.lock.Inputs = append(w.lock.Inputs, in)
	}
	if _, err := fill(b, w, s); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		stats, err := fill(b, w, s)
		if err != nil || stats.Present != len(w.lock.Inputs) || stats.Requests != 0 {
			b.Fatalf("%+v, %v", stats, err)
		}
	}
}

// A file of 256 MiB from a local server into the store, and by curl to a file.
func BenchmarkLarge(b *testing.B) {
	const size = 256 << 20
	chunk := strings.Repeat("0123456789abcdef", 1<<16)
	url := serve(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(size))
		for range size / len(chunk) {
			if _, err := w.Write([]byte(chunk)); err != nil {
				return
			}
		}
	}))
	want, _, err := digest.Reader(strings.NewReader(strings.Repeat(chunk, size/len(chunk))))
	if err != nil {
		b.Fatal(err)
	}
	l := &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindFile, Name: "large", URL: url + "/x", SHA256: want, Size: size}}}
	b.Run("caisson", func(b *testing.B) {
		b.SetBytes(size)
		b.ReportAllocs()
		for b.Loop() {
			s, err := cas.Open(b.TempDir())
			if err == nil {
				_, err = Fill(context.Background(), l, s, Options{})
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("curl", func(b *testing.B) {
		if _, err := exec.LookPath("curl"); err != nil {
			b.Skip(err)
		}
		b.SetBytes(size)
		for b.Loop() {
			out := b.TempDir() + "/x"
			if msg, err := exec.Command("sh", "-c", "curl -sf -o "+out+" "+url+"/x && sha256sum "+out+" && sync "+out).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, msg)
			}
		}
	})
}

package prefetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"caisson/prefetch/cas"
)

// quick is a Config whose retries and limits suit tests.
func quick() Config {
	return Config{Version: "test", Backoff: time.Millisecond, IdleTimeout: 2 * time.Second, ConnectTimeout: 5 * time.Second, MaxSize: 1 << 20}
}

func newStore(t testing.TB) *cas.Store {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func newClient(t testing.TB, cfg Config) *Client {
	t.Helper()
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdle)
	return c
}

// get fetches one address and returns the bytes.
func get(t testing.TB, c *Client, req Request) (string, error) {
	t.Helper()
	return getBy(t, newStore(t), c, req)
}

// getBy is get by way of a store.
func getBy(t testing.TB, s *cas.Store, c *Client, req Request) (string, error) {
	t.Helper()
	to, err := s.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Discard()
	var seen int64
	told := req.Progress
	req.Progress = func(n int64) {
		if seen += n; told != nil {
			told(n)
		}
	}
	if err := c.Get(context.Background(), req, to); err != nil {
		return "", err
	}
	if seen != to.Size() {
		t.Errorf("progress says %d bytes, there are %d", seen, to.Size())
	}
	b, err := io.ReadAll(io.NewSectionReader(to, 0, to.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return string(b), nil
}

func TestStatus(t *testing.T) {
	for _, c := range []struct {
		name     string
		status   int
		times    int // that it answers so
		requests int
		ok       bool
	}{
		{"unavailable once", 503, 1, 2, true},
		{"three errors", 500, 3, 4, true},
		{"too many requests", 429, 1, 2, true},
		{"errors for ever", 502, 1000, 5, false},
		{"not found", 404, 1000, 1, false},
		{"forbidden", 403, 1000, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &faulty{content: hello, fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n < c.times {
					http.Error(w, "because\x1b[31m of it\nand more", c.status)
				}
				return n < c.times
			}}
			got, err := get(t, newClient(t, quick()), Request{URL: serve(t, f) + "/a"})
			if c.ok != (err == nil) || c.ok && got != hello {
				t.Fatalf("got %q, %v", got, err)
			}
			if int(f.n.Load()) != c.requests {
				t.Errorf("got %d requests, want %d", f.n.Load(), c.requests)
			}
			var fe *FetchError
			if !c.ok && (!errors.As(err, &fe) || fe.Status != c.status || !strings.Contains(err.Error(), "because[31m of it") || strings.Contains(err.Error(), "more")) {
				t.Errorf("got %v", err)
			}
			if gone := errors.Is(err, fs.ErrNotExist); gone != (c.status == 404) {
				t.Errorf("is not there: %v", gone)
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	f := &faulty{content: hello, fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(503)
		}
		return n == 0
	}}
	start := time.Now()
	if _, err := get(t, newClient(t, quick()), Request{URL: serve(t, f)}); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(start); d < time.Second {
		t.Errorf("waited %s, want a second", d)
	}
}

func TestSizes(t *testing.T) {
	var sent atomic.Int64
	endless := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for b := bytes.Repeat([]byte("x"), 1000); ; {
			n, err := w.Write(b)
			if sent.Add(int64(n)); err != nil || sent.Load() > 1<<30 {
				return
			}
		}
	}))
	for _, size := range []int64{0, 5000} {
		sent.Store(0)
		_, err := get(t, newClient(t, quick()), Request{URL: endless, Size: size})
		var se *SizeError
		if !errors.As(err, &se) || !se.More {
			t.Errorf("size %d: got %v", size, err)
		}
		if sent.Load() > 64<<20 {
			t.Errorf("size %d: read on for %d bytes", size, sent.Load())
		}
	}
}

func TestCancel(t *testing.T) {
	begun := make(chan bool, 1)
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "a")
		http.NewResponseController(w).Flush()
		begun <- true
		<-r.Context().Done()
	}))
	ctx, cancel := context.WithCancel(context.Background())
	to, err := newStore(t).Create()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Discard()
	go func() { <-begun; cancel() }()
	cfg := quick()
	cfg.IdleTimeout = time.Minute
	if err := newClient(t, cfg).Get(ctx, Request{URL: url}, to); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// A server that hangs up again and again is put up with as long as it brings
// something each time.
func TestManyDrops(t *testing.T) {
	content := strings.Repeat("0123456789abcdef", 12<<16)
	f := &faulty{content: content, etag: `"1"`}
	const part = worthARetry + 1000
	f.fault = func(n int, w http.ResponseWriter, r *http.Request) bool {
		from := n * part
		if len(content)-from <= part {
			return false
		}
		status := 200
		if n > 0 {
			status = 206
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(content)-1, len(content)))
		}
		drop(w, status, len(content)-from, content[from:from+part])
		return true
	}
	cfg := quick()
	cfg.MaxSize = int64(len(content))
	cfg.Retries = 1
	got, err := get(t, newClient(t, cfg), Request{URL: serve(t, f)})
	if err != nil || got != content {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

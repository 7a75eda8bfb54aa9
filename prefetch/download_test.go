package prefetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caisson/lock/digest"
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
	to, err := newStore(t).Create()
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

// faulty serves content and does something wrong first: what the nth request
// (from 0) meets is up to fault, which is true when it has answered.
type faulty struct {
	content string
	etag    string
	fault   func(n int, w http.ResponseWriter, r *http.Request) bool

	n      atomic.Int64
	mu     sync.Mutex
	ranges []string // the Range headers
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	n := int(f.n.Add(1)) - 1
	f.mu.Lock()
	f.ranges = append(f.ranges, r.Header.Get("Range"))
	f.mu.Unlock()
	if f.etag != "" {
		w.Header().Set("ETag", f.etag)
	}
	if f.fault != nil && f.fault(n, w, r) {
		return
	}
	http.ServeContent(w, r, "", time.Time{}, strings.NewReader(f.content))
}

func serve(t testing.TB, h http.Handler) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// drop sends a head that promises n bytes, then part of them, then hangs up.
func drop(w http.ResponseWriter, status, n int, part string) {
	w.Header().Set("Content-Length", fmt.Sprint(n))
	w.WriteHeader(status)
	io.WriteString(w, part)
	http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

const hello = "hello, this is the content of the file\n"

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

// A body that ends early, at any place, is resumed where the server or the
// digest can tell that the file is the same, and begun again where neither can.
func TestDrops(t *testing.T) {
	for _, c := range []struct {
		etag    string
		sum     digest.Digest
		resumes bool
	}{
		{`"v1"`, digest.Of([]byte(hello)), true}, {"", digest.Of([]byte(hello)), true}, {`W/"weak"`, digest.Of([]byte(hello)), true},
		{`"v1"`, digest.Digest{}, true}, {"", digest.Digest{}, false}, {`W/"weak"`, digest.Digest{}, false},
	} {
		for at := 0; at <= len(hello); at += 3 {
			f := &faulty{content: hello, etag: c.etag}
			f.fault = func(n int, w http.ResponseWriter, _ *http.Request) bool {
				if n == 0 {
					drop(w, 200, len(hello)+1, hello[:at]) // one byte too many is promised
				}
				return false
			}
			got, err := get(t, newClient(t, quick()), Request{URL: serve(t, f), Digest: c.sum})
			if err != nil || got != hello {
				t.Errorf("%s dropped at %d: got %q, %v", c.etag, at, got, err)
			}
			want, n := "", 2
			if c.resumes && at > 0 {
				want = fmt.Sprintf("bytes=%d-", at)
			}
			if want != "" && at == len(hello) { // nothing is left to ask for: 416, then from the start
				n = 3
			}
			if len(f.ranges) != n || f.ranges[1] != want {
				t.Errorf("%s dropped at %d: got ranges %q, want %q", c.etag, at, f.ranges, want)
			}
		}
	}
}

// The file changes between the two halves: the halves do not mix.
func TestChangedWhileResuming(t *testing.T) {
	other := strings.ToUpper(hello)
	honest := &faulty{content: other, etag: `"v2"`, fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			w.Header().Set("ETag", `"v1"`)
			drop(w, 200, len(hello), hello[:10])
		}
		return false
	}}
	got, err := get(t, newClient(t, quick()), Request{URL: serve(t, honest)})
	if err != nil || got != other {
		t.Errorf("got %q, %v", got, err)
	}
	lying := &faulty{content: other, etag: `"v1"`, fault: honest.fault}
	got, err = get(t, newClient(t, quick()), Request{URL: serve(t, lying), Digest: digest.Of([]byte(other))})
	if err != nil || got != other {
		t.Errorf("the tag stays: got %q, %v", got, err)
	}
	odd := &faulty{content: hello, etag: `"v1"`, fault: func(n int, w http.ResponseWriter, r *http.Request) bool {
		if n == 0 {
			drop(w, 200, len(hello), hello[:10])
		}
		if r.Header.Get("Range") != "" {
			w.Header().Set("Content-Range", fmt.Sprintf("bytes 5-%d/%d", len(hello)-1, len(hello)))
			w.WriteHeader(206)
			io.WriteString(w, hello[5:])
			return true
		}
		return false
	}}
	if got, err = get(t, newClient(t, quick()), Request{URL: serve(t, odd)}); err != nil || got != hello {
		t.Errorf("another range: got %q, %v", got, err)
	}
}

func TestWrongBytes(t *testing.T) {
	f := &faulty{content: hello}
	url := serve(t, f)
	want := digest.Of([]byte("yesterday's"))
	_, err := get(t, newClient(t, quick()), Request{URL: url, Digest: want})
	var m *cas.MismatchError
	if !errors.As(err, &m) || m.Want != want || m.Got != digest.Of([]byte(hello)) {
		t.Errorf("got %v", err)
	}
	if f.n.Load() != 1 {
		t.Errorf("%d requests", f.n.Load())
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
	f := &faulty{content: hello}
	for _, size := range []int64{int64(len(hello)) - 1, int64(len(hello)) + 1} {
		_, err := get(t, newClient(t, quick()), Request{URL: serve(t, f), Size: size})
		var se *SizeError
		if !errors.As(err, &se) || se.Got != int64(len(hello)) || se.Want != size {
			t.Errorf("got %v", err)
		}
	}
	// Without a length, an early end shows only by the size.
	short := &faulty{content: hello, fault: func(n int, w http.ResponseWriter, _ *http.Request) bool {
		if n == 0 {
			io.WriteString(w, hello[:7])
			http.NewResponseController(w).Flush()
			io.WriteString(w, hello[7:9])
		}
		return n == 0
	}}
	if got, err := get(t, newClient(t, quick()), Request{URL: serve(t, short), Size: int64(len(hello))}); err != nil || got != hello {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestIdle(t *testing.T) {
	quit := make(chan bool)
	defer close(quit)
	f := &faulty{content: hello, etag: `"1"`, fault: func(n int, w http.ResponseWriter, r *http.Request) bool {
		switch n {
		case 0: // says nothing
		case 1: // stops in the middle
			w.Header().Set("Content-Length", fmt.Sprint(len(hello)))
			io.WriteString(w, hello[:5])
			http.NewResponseController(w).Flush()
		default:
			return false
		}
		select {
		case <-quit:
		case <-r.Context().Done():
		}
		return true
	}}
	cfg := quick()
	cfg.IdleTimeout = 100 * time.Millisecond
	got, err := get(t, newClient(t, cfg), Request{URL: serve(t, f)})
	if err != nil || got != hello {
		t.Errorf("got %q, %v", got, err)
	}
	// Slow is not idle: the whole takes longer than the limit.
	slow := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for _, c := range "slow but sure" {
			io.WriteString(w, string(c))
			http.NewResponseController(w).Flush()
			time.Sleep(20 * time.Millisecond)
		}
	}))
	if got, err := get(t, newClient(t, cfg), Request{URL: slow}); err != nil || got != "slow but sure" {
		t.Errorf("got %q, %v", got, err)
	}
	cfg.Retries = -1
	f.n.Store(0)
	if _, err := get(t, newClient(t, cfg), Request{URL: serve(t, f)}); err == nil || !strings.Contains(err.Error(), "the server sends nothing for 100ms") {
		t.Errorf("got %v", err)
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

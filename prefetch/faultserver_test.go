package prefetch

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// The servers of this package's tests, and what has to hold after whatever
// they did. A faulty one goes wrong within HTTP, a wire one in any byte.

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

// slowly sends a part of the body and then nothing until the client is gone.
func slowly(w http.ResponseWriter, r *http.Request, part string) {
	w.Header().Set("Content-Length", fmt.Sprint(len(anISO)))
	io.WriteString(w, part)
	http.NewResponseController(w).Flush()
	<-r.Context().Done()
}

// files serves a map of paths, and counts.
type files struct {
	faulty
	at map[string]string
}

func newFiles(at map[string]string) *files {
	f := &files{at: at}
	f.fault = func(_ int, w http.ResponseWriter, r *http.Request) bool {
		content, ok := f.at[r.URL.Path]
		if status := 0; ok && len(content) == 3 {
			if _, err := fmt.Sscan(content, &status); err == nil {
				w.WriteHeader(status)
				return true
			}
		}
		if !ok {
			http.NotFound(w, r)
			return true
		}
		http.ServeContent(w, r, "", when, strings.NewReader(content))
		return true
	}
	return f
}

// down is an address where nobody is.
func down(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	return "http://" + l.Addr().String()
}

// sound checks that every file of a store is what its name says, and that
// nothing is left over.
func sound(t testing.TB, s *cas.Store) {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.Dir(), "sha256", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range paths {
		d, err := digest.ParseHex(filepath.Base(p))
		if err == nil {
			err = s.Verify(d)
		}
		if err != nil {
			t.Error(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(s.Dir(), "tmp", "*")); len(left) > 0 {
		t.Errorf("left over: %s", left)
	}
}

// wire is a server that sends the bytes that it is told to and then closes the
// connection: fault is given the nth request (from 0), and is true when it has
// answered. Otherwise the answer is the file.
type wire struct {
	content string
	etag    string // with its quotes
	fault   func(n int, r *http.Request, c net.Conn) bool

	mu    sync.Mutex
	asked []string // the Range headers
}

// start listens, and returns the server's address.
func (w *wire) start(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	t.Cleanup(func() { l.Close(); all.Wait() })
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.serve(c) })
		}
	})
	return "http://" + l.Addr().String()
}

func (w *wire) serve(c net.Conn) {
	defer c.Close()
	r, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil {
		return
	}
	w.mu.Lock()
	n := len(w.asked)
	w.asked = append(w.asked, r.Header.Get("Range"))
	w.mu.Unlock()
	if w.fault == nil || !w.fault(n, r, c) {
		io.WriteString(c, w.answer(r))
	}
}

// answer is the whole file, or the rest of it where that is asked for.
func (w *wire) answer(r *http.Request) string {
	from := 0
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from); err != nil || r.Header.Get("If-Range") != "" && r.Header.Get("If-Range") != w.etag {
		return reply("200 OK", w.content, "ETag: "+w.etag)
	}
	if from >= len(w.content) {
		return reply("416 Range Not Satisfiable", "", fmt.Sprintf("Content-Range: bytes */%d", len(w.content)))
	}
	return reply("206 Partial Content", w.content[from:], "ETag: "+w.etag, fmt.Sprintf("Content-Range: bytes %d-%d/%d", from, len(w.content)-1, len(w.content)))
}

// requests forgets and returns the Range header of every request so far.
func (w *wire) requests() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

// head is the head of an answer.
func head(status string, fields ...string) string {
	return "HTTP/1.1 " + status + "\r\n" + strings.Join(append(fields, "", ""), "\r\n")
}

// reply is an answer with its length.
func reply(status, body string, fields ...string) string {
	return head(status, append(fields, fmt.Sprintf("Content-Length: %d", len(body)))...) + body
}

// chunked is a body in chunks of so many bytes.
func chunked(body string, size int) string {
	var b strings.Builder
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

// clean checks what has to hold after every fault: what has a final name is
// what that says, and once nobody is at it, gc leaves nothing unfinished.
func clean(t testing.TB, s *cas.Store) {
	t.Helper()
	sound(t, s)
	if _, err := s.GC(context.Background(), cas.GCOptions{Keep: func(digest.Digest) bool { return false }}); err != nil {
		t.Error(err)
	}
	for _, name := range []string{"tmp", "partial"} {
		left, err := os.ReadDir(filepath.Join(s.Dir(), name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		for _, e := range left {
			t.Errorf("gc leaves %s/%s", name, e.Name())
		}
	}
}

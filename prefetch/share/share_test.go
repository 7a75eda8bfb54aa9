package share

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// server is a registry that counts, and does something wrong where fault says
// that it has answered.
type server struct {
	inner http.Handler
	fault func(w http.ResponseWriter, r *http.Request) bool

	mu    sync.Mutex
	count map[string]int // requests by method and, of GET, what was asked for
}

func newServer(t testing.TB) (*server, string) {
	t.Helper()
	s := &server{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))), count: make(map[string]int)}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	return s, strings.TrimPrefix(srv.URL, "http://")
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.count[r.Method]++
	if i := strings.Index(r.URL.Path, "/blobs/"); i > 0 && r.Method == http.MethodGet {
		s.count[r.URL.Path[i+len("/blobs/"):]]++
	}
	fault := s.fault
	s.mu.Unlock()
	if fault == nil || !fault(w, r) {
		s.inner.ServeHTTP(w, r)
	}
}

func (s *server) set(fault func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fault, s.count = fault, make(map[string]int)
}

func (s *server) counted(what string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count[what]
}

type noLogins struct{}

func (noLogins) Resolve(authn.Resource) (authn.Authenticator, error) { return authn.Anonymous, nil }

func options() Options {
	return Options{Keychain: noLogins{}, Config: prefetch.Config{Version: "test", Backoff: time.Millisecond, IdleTimeout: 2 * time.Second, Retries: 3}}
}

func newStore(t testing.TB) *cas.Store {
	t.Helper()
	s, err := cas.Open(filepath.Join(t.TempDir(), "store"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// big is large enough to be gone on with.
var big = strings.Repeat("0123456789abcde\n", 3<<16)

// world is a lock and a store that has what it needs.
func world(t testing.TB) (*lock.Lock, []byte, *cas.Store) {
	t.Helper()
	s := newStore(t)
	gomod := "module example.org/m\n"
	sum := sha256.Sum256([]byte(gomod))
	sum = sha256.Sum256(fmt.Appendf(nil, "%x  go.mod\n", sum))
	l := &lock.Lock{Name: "test", Inputs: []lock.Input{
		{Kind: lock.KindFile, Name: "big", URL: "https://example.org/big"},
		{Kind: lock.KindFile, Name: "empty", URL: "https://example.org/empty"},
		{Kind: lock.KindFile, Name: "one", URL: "https://example.org/one"},
		{Kind: lock.KindFile, Name: "one again", URL: "https://example.org/one"},
		{Kind: lock.KindGo, Name: "example.org/m@v1.0.0.mod", URL: "example.org/m/@v/v1.0.0.mod",
			Go: &lock.Go{Module: "example.org/m", Version: "v1.0.0", H1: "h1:" + base64.StdEncoding.EncodeToString(sum[:])}},
		{Kind: lock.KindTree, Name: "src", URL: "src"},
	}}
	for i, content := range []string{big, "", "one", "one", gomod, "a packed tree"} {
		d, n, err := s.Put(strings.NewReader(content), digest.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		l.Inputs[i].SHA256, l.Inputs[i].Size = d, n
	}
	text, err := lock.Format(l)
	if err != nil {
		t.Fatal(err)
	}
	return l, text, s
}

func push(t testing.TB, ref string, l *lock.Lock, text []byte, s *cas.Store, o Options) Pushed {
	t.Helper()
	p, err := Push(context.Background(), ref, l, text, s, o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// same checks that a store has a lock's inputs, and nothing in between.
func same(t testing.TB, l *lock.Lock, s *cas.Store) {
	t.Helper()
	var files []prefetch.Stored
	for _, in := range l.Inputs {
		files = append(files, prefetch.Stored{Digest: in.SHA256, Size: in.Size, Name: in.Name})
	}
	if bad, err := prefetch.Verify(context.Background(), s, files, nil); err != nil || len(bad) > 0 {
		t.Error(bad, err)
	}
	for _, dir := range []string{"tmp", "partial"} {
		if left, _ := filepath.Glob(filepath.Join(s.Dir(), dir, "*")); len(left) > 0 {
			t.Errorf("left over: %s", left)
		}
	}
}

func TestPushAndPull(t *testing.T) {
	for _, limit := range []int{0, 1200} { // one manifest, and several
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			srv, host := newServer(t)
			l, text, s := world(t)
			o := options()
			o.MaxManifest = limit
			var last prefetch.Event
			o.Progress = func(e prefetch.Event) { last = e }
			p := push(t, host+"/team/store", l, text, s, o)
			if p.Files != 6 || p.Sent != 6 || !strings.HasSuffix(p.Ref, ":lock-"+digest.Of(text).Hex()) || (p.Manifests > 1) != (limit > 0) {
				t.Errorf("got %+v", p)
			}
			if last.Done != last.Total || last.Bytes != last.TotalBytes || last.Bytes != p.Bytes {
				t.Errorf("progress ends at %+v", last)
			}

			srv.set(nil)
			again := push(t, host+"/team/store", l, text, s, o)
			if again.Digest != p.Digest || again.Sent != 0 || srv.counted("PATCH")+srv.counted("PUT") != 0 {
				t.Errorf("again: got %+v, %v", again, srv.count)
			}
			tagged := push(t, host+"/team/store:latest", l, text, s, o)
			if tagged.Digest != p.Digest || tagged.Sent != 0 || srv.counted("PATCH") != 0 {
				t.Errorf("another tag: got %+v, %v", tagged, srv.count)
			}

			for _, ref := range []string{"/team/store", "/team/store:latest", "/team/store@" + p.Digest.String()} {
				to := newStore(t)
				got, err := Pull(context.Background(), host+ref, l, text, to, o)
				if err != nil || got.Fetched != 6 || got.Present != 0 {
					t.Fatalf("%s: %+v, %v", ref, got, err)
				}
				same(t, l, to)
				srv.set(nil)
				got, err = Pull(context.Background(), host+ref, l, text, to, o)
				if err != nil || got.Present != 6 || srv.counted("GET") != 0 {
					t.Errorf("%s: again: %+v, %v, %v", ref, got, err, srv.count)
				}
			}
		})
	}
}

// The manifest's digest is fixed: it does not depend on store, registry or time.
func TestGoldenDigest(t *testing.T) {
	_, host := newServer(t)
	l, text, s := world(t)
	const want = "sha256:55182f3e8ee830ba5644b1e538c117c5a8a3dc100d3a8d22630bd672fa55075b"
	if p := push(t, host+"/aa", l, text, s, options()); p.Digest.String() != want {
		t.Errorf("got %s, want %s", p.Digest, want)
	}
}

func TestMount(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	push(t, host+"/aa", l, text, s, options())
	// The in-process registry has one pool of files for all repositories; it
	// is made to know of them by mounting only.
	mounted := 0
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.Method == http.MethodHead && strings.Contains(r.URL.Path, "/blobs/"):
			http.NotFound(w, r)
			return true
		case r.Method == http.MethodPost && r.URL.Query().Get("from") == "aa":
			mounted++
			w.WriteHeader(http.StatusCreated)
			return true
		}
		return false
	})
	o := options()
	o.From = host + "/aa"
	if p := push(t, host+"/bb", l, text, s, o); p.Sent != 0 || mounted != p.Files {
		t.Errorf("got %+v, %d mounted", p, mounted)
	}
	o.From = "registry.example.org/aa"
	if _, err := Push(context.Background(), host+"/bb", l, text, s, o); err == nil {
		t.Error("mounted from another registry")
	}
}

func TestPushFaults(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	ctx := context.Background()

	os.Chmod(s.Path(l.Inputs[0].SHA256), 0o644)
	os.WriteFile(s.Path(l.Inputs[0].SHA256), bytes.ToUpper([]byte(big)), 0o644)
	_, err := Push(ctx, host+"/aa", l, text, s, options())
	var damaged *cas.DamagedError
	if !errors.As(err, &damaged) || damaged.Name != "file big" {
		t.Errorf("a damaged file: %v", err)
	}
	os.Remove(s.Path(l.Inputs[0].SHA256))
	srv.set(nil)
	_, err = Push(ctx, host+"/aa", l, text, s, options())
	var missing *cas.MissingError
	if !errors.As(err, &missing) || missing.Name != "file big" || srv.counted("POST") != 0 {
		t.Errorf("a missing file: %v", err)
	}
	s.Put(strings.NewReader(big), digest.Digest{})

	failures := 0
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		srv.mu.Lock()
		defer srv.mu.Unlock()
		if r.Method == http.MethodPatch && failures < 2 {
			failures++
			panic(http.ErrAbortHandler)
		}
		return false
	})
	if p, err := Push(ctx, host+"/aa", l, text, s, options()); err != nil || failures != 2 {
		t.Errorf("a connection that drops: %+v, %v", p, err)
	}

	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"errors":[{"code":"UNAUTHORIZED","message":"log\u001b[31m in"}]}`)
		return true
	})
	_, err = Push(ctx, host+"/aa", l, text, s, options())
	var e *prefetch.RegistryError
	if !errors.As(err, &e) || e.Status != http.StatusUnauthorized || strings.Contains(err.Error(), "\x1b") {
		t.Errorf("no login: %v", err)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := Push(cancelled, host+"/aa", l, text, s, options()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	for _, ref := range []string{"", "aa", "aa/bb", host, host + "/A", "../x", "http://" + host + "/aa", host + "/aa@sha256:12"} {
		if _, err := Push(ctx, ref, l, text, s, options()); err == nil {
			t.Errorf("%q was taken for a repository", ref)
		}
	}
}

func isBlob(r *http.Request, d digest.Digest) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/blobs/"+d.String())
}

func TestPullFaults(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	push(t, host+"/aa", l, text, s, options())
	first := l.Inputs[0].SHA256
	once := func(do func(w http.ResponseWriter, r *http.Request)) func(w http.ResponseWriter, r *http.Request) bool {
		var n sync.Once
		return func(w http.ResponseWriter, r *http.Request) bool {
			hit := false
			if isBlob(r, first) {
				n.Do(func() { hit = true })
			}
			if hit {
				do(w, r)
			}
			return hit
		}
	}
	always := func(d digest.Digest, status int, body string) func(w http.ResponseWriter, r *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if !isBlob(r, d) {
				return false
			}
			w.WriteHeader(status)
			io.WriteString(w, body)
			return true
		}
	}
	for _, c := range []struct {
		name  string
		fault func(w http.ResponseWriter, r *http.Request) bool
		want  string // in the error; empty for none
	}{
		{"drops in the middle", once(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(len(big)))
			io.WriteString(w, big[:2<<20])
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}), ""},
		{"busy once", once(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }), ""},
		{"wrong bytes", always(first, 200, strings.ToUpper(big)), "want " + first.String()},
		{"too many bytes", always(first, 200, big+"!"), "file big"},
		{"a file is gone", always(first, 404, ""), "404"},
		{"a page instead", always(first, 200, "<html>"), "file big"},
		{"forbidden", always(first, 403, ""), "403"},
	} {
		t.Run(c.name, func(t *testing.T) {
			srv.set(c.fault)
			to := newStore(t)
			_, err := Pull(context.Background(), host+"/aa", l, text, to, options())
			if c.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				same(t, l, to)
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.want) || to.Has(first) {
				t.Errorf("got %v", err)
			}
			if missing := prefetch.Missing(l, to); len(missing) != 1 {
				t.Errorf("%d are missing", len(missing))
			}
			srv.set(nil)
			if _, err := Pull(context.Background(), host+"/aa", l, text, to, options()); err != nil || srv.counted("GET") > 4 {
				t.Errorf("the next run: %v, %v", err, srv.count)
			}
			same(t, l, to)
		})
	}
}

// A registry that has other inputs than the lock needs, and one that has a
// file that is not what it is to be proved to be.
func TestPullOtherLock(t *testing.T) {
	_, host := newServer(t)
	l, text, s := world(t)
	push(t, host+"/aa:x", l, text, s, options())
	more := *l
	more.Inputs = append(more.Inputs[:len(more.Inputs):len(more.Inputs)],
		lock.Input{Kind: lock.KindFile, Name: "zz", URL: "https://example.org/zz", SHA256: digest.Of([]byte("zz")), Size: 2})
	to := newStore(t)
	_, err := Pull(context.Background(), host+"/aa:x", &more, nil, to, options())
	var missing *cas.MissingError
	if !errors.As(err, &missing) || missing.Digest != digest.Of([]byte("zz")) || !strings.Contains(err.Error(), "file zz") {
		t.Errorf("got %v", err)
	}
	same(t, l, to)

	wrong := *l
	wrong.Inputs = append([]lock.Input(nil), l.Inputs...)
	wrong.Inputs[4].Go = &lock.Go{Module: "example.org/m", Version: "v1.0.0", H1: "h1:AAAA"}
	to = newStore(t)
	var h *prefetch.HashError
	if _, err := Pull(context.Background(), host+"/aa:x", &wrong, nil, to, options()); !errors.As(err, &h) || to.Has(l.Inputs[4].SHA256) {
		t.Errorf("got %v", err)
	}
	if _, err := Pull(context.Background(), host+"/aa:absent", l, text, newStore(t), options()); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("got %v", err)
	}
}

// What is present but damaged is fetched again, the rest of the store is not read.
func TestPullMends(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	push(t, host+"/aa", l, text, s, options())
	to := newStore(t)
	if _, err := Pull(context.Background(), host+"/aa", l, text, to, options()); err != nil {
		t.Fatal(err)
	}
	os.Remove(to.Path(l.Inputs[0].SHA256))
	os.Chmod(to.Path(l.Inputs[2].SHA256), 0o644)
	os.WriteFile(to.Path(l.Inputs[2].SHA256), []byte("longer than one"), 0o644)
	srv.set(nil)
	got, err := Pull(context.Background(), host+"/aa", l, text, to, options())
	if err != nil || got.Fetched != 3 || got.Repaired != 2 || srv.counted(l.Inputs[1].SHA256.String()) != 0 {
		t.Errorf("got %+v, %v", got, err)
	}
	same(t, l, to)
}

// A login is asked for, and is for the registry alone.
func TestLogin(t *testing.T) {
	srv, host := newServer(t)
	l, text, s := world(t)
	var elsewhere http.Header
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = r.Header
		io.WriteString(w, big)
	}))
	defer other.Close()
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		if _, password, _ := r.BasicAuth(); password != "secret" {
			w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		if isBlob(r, l.Inputs[0].SHA256) {
			http.Redirect(w, r, other.URL+"/elsewhere", http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	dir := t.TempDir()
	auth := base64.StdEncoding.EncodeToString([]byte("me:secret"))
	if err := os.WriteFile(filepath.Join(dir, "config.json"), fmt.Appendf(nil, `{"auths":{%q:{"auth":%q}}}`, host, auth), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("DOCKER_CONFIG", dir)
	o := options()
	o.Keychain = nil
	push(t, host+"/aa", l, text, s, o)
	to := newStore(t)
	if _, err := Pull(context.Background(), host+"/aa", l, text, to, o); err != nil {
		t.Fatal(err)
	}
	same(t, l, to)
	if elsewhere == nil || elsewhere.Get("Authorization") != "" {
		t.Errorf("elsewhere was sent %v", elsewhere)
	}
	_, err := Pull(context.Background(), host+"/aa", l, text, newStore(t), options())
	var e *prefetch.RegistryError
	if !errors.As(err, &e) || e.Status != http.StatusUnauthorized || strings.Contains(err.Error(), "secret") {
		t.Errorf("without login: %v", err)
	}
}

func TestGuard(t *testing.T) {
	reached := http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct {
		registry, to string
		ok           bool
	}{
		{"localhost:5000", "http://localhost:5000/", true},
		{"127.0.0.1:5000", "http://127.0.0.1:5000/", true},
		{"[::1]:5000", "http://[::1]:5000/", true},
		{"registry.example.org", "https://registry.example.org/", true},
		{"registry.example.org", "http://registry.example.org/", false},
		{"10.0.0.1", "http://10.0.0.1/", false},
		{"box.local", "http://box.local/", false},
		{"registry.example.org", "https://localhost/", false},
		{"registry.example.org", "http://127.0.0.1:8080/", false},
		{"registry.example.org", "https://169.254.169.254/", false},
		{"localhost:5000", "http://169.254.169.254/", false},
		{"localhost:5000", "http://example.org/", false},
	} {
		repo, err := name.NewRepository(c.registry + "/a/b")
		if err != nil {
			t.Fatal(err)
		}
		u, _ := url.Parse(c.to)
		g := prefetch.GuardRegistry(roundTripper(func(r *http.Request) (*http.Response, error) {
			w := httptest.NewRecorder()
			reached(w, r)
			return w.Result(), nil
		}), repo)
		resp, err := g.RoundTrip(&http.Request{URL: u})
		if (err == nil) != c.ok {
			t.Errorf("%s to %s: %v", c.registry, c.to, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

package share

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// dockerRegistry is Debian's registry on this machine.
type dockerRegistry struct {
	program, config, host string
	running               *exec.Cmd
}

func newDockerRegistry(t *testing.T) *dockerRegistry {
	t.Helper()
	d := &dockerRegistry{program: tooltest.Find(t, "docker-registry")}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.host = l.Addr().String()
	l.Close()
	d.config = filepath.Join(dir, "config.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), d.host)
	if err := os.WriteFile(d.config, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	d.start(t)
	return d
}

func (d *dockerRegistry) start(t *testing.T) {
	t.Helper()
	c := exec.Command(d.program, "serve", d.config)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	d.running = c
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + d.host + "/v2/"); err == nil {
			resp.Body.Close()
			return
		}
	}
	t.Fatal("the registry does not start")
}

// collect runs the registry's own garbage collection, for which it rests.
func (d *dockerRegistry) collect(t *testing.T) {
	t.Helper()
	d.running.Process.Kill()
	d.running.Wait()
	if out, err := exec.Command(d.program, "garbage-collect", d.config).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d.start(t)
}

// Debian's docker-registry takes what is pushed, keeps it over its own garbage
// collection, and gives it back.
func TestDockerRegistry(t *testing.T) {
	d := newDockerRegistry(t)
	host := d.host
	lk, lockText, s := world(t)
	for _, limit := range []int{0, 1000} {
		o := options()
		o.MaxManifest = limit
		ref := fmt.Sprintf("%s/team/store:%d", host, limit)
		p := push(t, ref, lk, lockText, s, o)
		if again := push(t, ref, lk, lockText, s, o); again.Digest != p.Digest || again.Sent != 0 {
			t.Errorf("again: %+v", again)
		}
	}
	o := options()
	o.From = host + "/team/store"
	if p := push(t, host+"/team/other", lk, lockText, s, o); p.Sent != 0 {
		t.Errorf("mounted from another repository, %d were sent", p.Sent)
	}
	d.collect(t)
	for _, ref := range []string{"/team/store:0", "/team/store:1000", "/team/other:lock-" + digest.Of(lockText).Hex()} {
		to := newStore(t)
		if _, err := Pull(context.Background(), host+ref, lk, lockText, to, options()); err != nil {
			t.Errorf("%s: %v", ref, err)
			continue
		}
		same(t, lk, to)
	}
}

// counting is a proxy before a registry that counts requests by what they do,
// and sends those on that gate does not answer.
type counting struct {
	mu    sync.Mutex
	count map[string]int
	gate  func(w http.ResponseWriter, r *http.Request) bool
}

func (c *counting) serve(t *testing.T, host string) string {
	t.Helper()
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	to.ModifyResponse = func(r *http.Response) error { // uploads go on where the registry says
		if at, err := r.Location(); err == nil {
			r.Header.Set("Location", at.RequestURI())
		}
		return nil
	}
	to.ErrorLog = log.New(io.Discard, "", 0)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		if c.count == nil {
			c.count = make(map[string]int)
		}
		kind := "other"
		for _, k := range []string{"/blobs/uploads/", "/blobs/", "/manifests/"} {
			if strings.Contains(r.URL.Path, k) {
				kind = strings.Trim(k, "/")
				break
			}
		}
		c.count[r.Method+" "+kind]++
		gate := c.gate
		c.mu.Unlock()
		if gate == nil || !gate(w, r) {
			to.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// take is what has been counted since the last time.
func (c *counting) take(gate func(w http.ResponseWriter, r *http.Request) bool) map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.count
	c.count, c.gate = make(map[string]int), gate
	return out
}

// manyWorld is a lock of n small files, from a first one on.
func manyWorld(t *testing.T, s *cas.Store, first, n int) (*lock.Lock, []byte) {
	t.Helper()
	l := &lock.Lock{Name: fmt.Sprint("from-", first)}
	for i := first; i < first+n; i++ {
		content := fmt.Sprintf("the file %04d\n", i)
		d, size, err := s.Put(strings.NewReader(content), digest.Digest{})
		if err != nil {
			t.Fatal(err)
		}
		l.Inputs = append(l.Inputs, lock.Input{Kind: lock.KindFile, Name: fmt.Sprintf("%04d", i), URL: fmt.Sprint("https://example.org/", i), SHA256: d, Size: size})
	}
	text, err := lock.Format(l)
	if err != nil {
		t.Fatal(err)
	}
	return l, text
}

// TestNothingTwice counts what goes to a registry and comes from there: each
// file once, however many locks need it; nothing the second time; and after a
// pull that was cut, the rest.
func TestNothingTwice(t *testing.T) {
	d := newDockerRegistry(t)
	c := new(counting)
	host := c.serve(t, d.host)
	s := newStore(t)
	one, oneText := manyWorld(t, s, 0, 40)
	two, twoText := manyWorld(t, s, 30, 20) // ten of them are one's
	ref := host + "/team/store"
	ctx := t.Context()

	first := push(t, ref, one, oneText, s, options())
	got := c.take(nil)
	if got["POST blobs/uploads"] != 41 || got["PUT blobs/uploads"] != 41 || got["PATCH blobs/uploads"] != 41 || got["PUT manifests"] != 1 {
		t.Errorf("the first push: %v", got)
	}
	push(t, ref, one, oneText, s, options())
	if got = c.take(nil); got["HEAD manifests"] != 1 || len(got) > 2 {
		t.Errorf("the same again: %v", got)
	}
	push(t, ref, two, twoText, s, options())
	if got = c.take(nil); got["POST blobs/uploads"] != 11 || got["PUT manifests"] != 1 {
		t.Errorf("another lock: %v", got)
	}

	// A pull that is cut, and one that goes on.
	var left atomic.Int64
	left.Store(25)
	c.take(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && left.Add(-1) < 0 {
			panic(http.ErrAbortHandler)
		}
		return false
	})
	o := options()
	o.Config.Retries = -1
	to := newStore(t)
	if _, err := Pull(ctx, ref, one, oneText, to, o); err == nil {
		t.Fatal("a cut pull is no error")
	}
	have := 40 - len(prefetch.Missing(one, to))
	c.take(nil)
	p, err := Pull(ctx, ref, one, oneText, to, options())
	if err != nil || have != 25 || p.Fetched != 40-have {
		t.Errorf("going on: %+v, %v; %d were there", p, err, have)
	}
	if got = c.take(nil); got["GET blobs"] != 40-have || got["GET manifests"] != 1 {
		t.Errorf("going on: %v", got)
	}
	same(t, one, to)

	// Of the other lock only what is missing comes, and of a full store nothing.
	if p, err := Pull(ctx, ref, two, twoText, to, options()); err != nil || p.Fetched != 10 {
		t.Errorf("the other lock: %+v, %v", p, err)
	}
	if got = c.take(nil); got["GET blobs"] != 10 {
		t.Errorf("the other lock: %v", got)
	}
	if p, err := Pull(ctx, ref, two, twoText, to, options()); err != nil || p.Requests != 0 || len(c.take(nil)) != 0 {
		t.Errorf("of a full store: %+v, %v", p, err)
	}

	// One lock's store goes, and what only it needed: the other's files stay.
	status := func(method, path string) int {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, "http://"+d.host+"/v2/team/store/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	if got := status(http.MethodDelete, "manifests/"+first.Digest.String()); got != http.StatusAccepted {
		t.Fatalf("deleting: %d", got)
	}
	d.collect(t)
	for i, want := range map[int]int{0: http.StatusNotFound, 35: http.StatusOK} {
		if got := status(http.MethodHead, "blobs/"+one.Inputs[i].SHA256.String()); got != want {
			t.Errorf("file %d: %d, want %d", i, got, want)
		}
	}
	fresh := newStore(t)
	if _, err := Pull(ctx, ref, two, twoText, fresh, options()); err != nil {
		t.Error(err)
	}
	same(t, two, fresh)
}

// TestTagMoves has a tag name another lock's store after it has been read, and
// before.
func TestTagMoves(t *testing.T) {
	srv, host := newServer(t)
	s := newStore(t)
	one, oneText := manyWorld(t, s, 0, 5)
	two, twoText := manyWorld(t, s, 3, 5)
	ref := host + "/team/store:latest"
	push(t, ref, one, oneText, s, options())
	var moved sync.Once
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") && r.Method == http.MethodGet {
			moved.Do(func() { push(t, ref, two, twoText, s, options()) })
		}
		return false
	})
	to := newStore(t)
	if _, err := Pull(t.Context(), ref, one, oneText, to, options()); err != nil {
		t.Errorf("moved meanwhile: %v", err)
	}
	same(t, one, to)
	srv.set(nil)
	to = newStore(t)
	p, err := Pull(t.Context(), ref, one, oneText, to, options())
	if err == nil || p.Fetched != 2 || len(prefetch.Missing(one, to)) != 3 || !strings.Contains(err.Error(), "does not have it") {
		t.Errorf("moved before: %+v, %v", p, err)
	}
}

// TestSkopeo has skopeo read what was pushed, and copy it to another
// repository, from which it can be pulled.
func TestSkopeo(t *testing.T) {
	skopeo := tooltest.Find(t, "skopeo")
	d := newDockerRegistry(t)
	l, text, s := world(t)
	o := options()
	p := push(t, d.host+"/team/store:one", l, text, s, o)
	run := func(args ...string) string {
		t.Helper()
		c := exec.Command(skopeo, append([]string{"--insecure-policy"}, args...)...)
		c.Env = append(os.Environ(), "HOME="+t.TempDir())
		out, err := c.Output()
		if err != nil {
			var ee *exec.ExitError
			errors.As(err, &ee)
			t.Fatalf("skopeo %q: %v: %s", args, err, ee.Stderr)
		}
		return string(out)
	}
	raw := run("inspect", "--raw", "--tls-verify=false", "docker://"+d.host+"/team/store:one")
	if digest.Of([]byte(raw)) != p.Digest || !strings.Contains(raw, `"org.opencontainers.image.title":"big"`) {
		t.Errorf("skopeo reads %s", raw)
	}
	dir := "dir:" + filepath.Join(t.TempDir(), "copy")
	run("copy", "--src-tls-verify=false", "--preserve-digests", "docker://"+d.host+"/team/store:one", dir)
	run("copy", "--dest-tls-verify=false", "--preserve-digests", dir, "docker://"+d.host+"/elsewhere/store:two")
	to := newStore(t)
	if _, err := Pull(t.Context(), d.host+"/elsewhere/store:two", l, text, to, options()); err != nil {
		t.Fatal(err)
	}
	same(t, l, to)
}

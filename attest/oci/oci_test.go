package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"

	"caisson/lock/digest"
	"caisson/lock/tooltest"
	"caisson/prefetch"
)

// inProcess is a registry that knows of referrers.
func inProcess() http.Handler {
	return registry.New(registry.WithReferrersSupport(true), registry.Logger(log.New(io.Discard, "", 0)))
}

// proxy counts what goes to a registry, by method and what it is about, and
// sends on what gate does not answer.
type proxy struct {
	mu    sync.Mutex
	count map[string]int
	gate  func(w http.ResponseWriter, r *http.Request) bool
	edit  func(r *http.Response)
}

func newProxy(t *testing.T, host string) (*proxy, string) {
	t.Helper()
	p := &proxy{count: make(map[string]int)}
	to := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: host})
	to.ErrorLog = log.New(io.Discard, "", 0)
	to.ModifyResponse = func(r *http.Response) error {
		if at, err := r.Location(); err == nil { // uploads go on where the registry says
			r.Header.Set("Location", at.RequestURI())
		}
		p.mu.Lock()
		edit := p.edit
		p.mu.Unlock()
		if edit != nil {
			edit(r)
		}
		return nil
	}
	return p, p.serve(t, to)
}

func (p *proxy) serve(t *testing.T, next http.Handler) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind := "other"
		for _, k := range []string{"/blobs/uploads/", "/blobs/", "/manifests/", "/referrers/"} {
			if strings.Contains(r.URL.Path, k) {
				kind = strings.Trim(k, "/")
				break
			}
		}
		p.mu.Lock()
		p.count[r.Method+" "+kind]++
		gate := p.gate
		p.mu.Unlock()
		if gate == nil || !gate(w, r) {
			next.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	return strings.TrimPrefix(srv.URL, "http://")
}

// set changes what is wrong with the registry, and returns what was counted.
func (p *proxy) set(gate func(w http.ResponseWriter, r *http.Request) bool, edit func(r *http.Response)) map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.count
	p.count, p.gate, p.edit = make(map[string]int), gate, edit
	return out
}

func quick() Options {
	return Options{Config: prefetch.Config{Version: "test", Backoff: time.Millisecond, IdleTimeout: 2 * time.Second, Retries: 2}}
}

// contents are those of an image of a disk of random bytes.
func contents(t testing.TB, size int64) Contents {
	t.Helper()
	disk := filepath.Join(t.TempDir(), "demo.qcow2")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.NewChaCha8([32]byte{1})
	if _, err := io.CopyN(f, r, size); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return Contents{Disk: disk, Name: "podvm.qcow2", Measurements: []byte(`{"measurements":{"sha256":{"pcr03":"aa","pcr11":"bb"},"sha384":{"pcr03":"cc"}}}`),
		Arch: "x86_64", Epoch: 1_700_000_000, Lock: digest.Of([]byte("lock")), Labels: map[string]string{"b": "2", "a": "1"}}
}

func pack(t testing.TB, c Contents) *Image {
	t.Helper()
	im, err := Pack(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// attachments are two bundles and a document.
func attachments() []Attachment {
	return []Attachment{
		{Type: BundleType, Content: []byte(`{"mediaType":"` + BundleType + `"}`), PredicateType: "https://slsa.dev/provenance/v1"},
		{Type: BundleType, Content: []byte(`{"mediaType":"` + BundleType + `","a":1}`), PredicateType: "https://spdx.dev/Document"},
		{Type: SPDXType, Content: []byte(`{"spdxVersion":"SPDX-2.3"}`)},
	}
}

// TestPack has tar read the layers, and finds the same bytes in each run.
func TestPack(t *testing.T) {
	c := contents(t, 70_000)
	im := pack(t, c)
	t.Setenv("TZ", "Asia/Kolkata")
	t.Setenv("TMPDIR", t.TempDir())
	c.Labels = map[string]string{"a": "1", "b": "2"}
	if again := pack(t, c); again.Digest != im.Digest || !bytes.Equal(again.Manifest, im.Manifest) {
		t.Errorf("another manifest:\n%s\n%s", im.Manifest, again.Manifest)
	}
	c.Labels["b"] = "3"
	if again := pack(t, c); again.Digest == im.Digest {
		t.Error("another label, and the same digest")
	}
	disk, err := os.ReadFile(c.Disk)
	if err != nil {
		t.Fatal(err)
	}
	if im.Disk != digest.Of(disk) || im.DiskSize != int64(len(disk)) {
		t.Errorf("got %s of %d bytes", im.Disk, im.DiskSize)
	}
	for i, want := range []struct {
		name    string
		content []byte
	}{{"image/podvm.qcow2", disk}, {"image/measurements.json", c.Measurements}} {
		b := im.blobs[i+1]
		r, err := b.open(0)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		r.Close()
		if err != nil || int64(len(raw)) != b.Size || digest.Of(raw) != b.Digest {
			t.Fatalf("%s: %d bytes, %v, want %d", want.name, len(raw), err, b.Size)
		}
		tr := tar.NewReader(bytes.NewReader(raw))
		dir, err := tr.Next()
		if err != nil || dir.Name != "image/" {
			t.Errorf("got %+v, %v", dir, err)
		}
		h, err := tr.Next()
		if err != nil || h.Name != want.name || h.Mode != 0o644 || h.ModTime.Unix() != c.Epoch {
			t.Fatalf("got %+v, %v", h, err)
		}
		got, err := io.ReadAll(tr)
		if err != nil || !bytes.Equal(got, want.content) {
			t.Errorf("%s: %v", want.name, err)
		}
		if _, err := tr.Next(); err != io.EOF {
			t.Errorf("%s: more in it: %v", want.name, err)
		}
		for _, offset := range []int64{1, 512, 1000, b.Size - 1500, b.Size - 3, b.Size} {
			r, err := b.open(offset)
			if err != nil {
				t.Fatal(err)
			}
			rest, err := io.ReadAll(r)
			r.Close()
			if err != nil || !bytes.Equal(rest, raw[offset:]) {
				t.Errorf("%s from %d on: %d bytes, %v", want.name, offset, len(rest), err)
			}
		}
	}
	for _, s := range []string{`"io.github.confidential-containers.measurements.algorithm":"sha256"`, `measurements.pcr03":"aa"`, `measurements.pcr11":"bb"`} {
		if !strings.Contains(string(im.Manifest), s) {
			t.Errorf("the manifest has no %s: %s", s, im.Manifest)
		}
	}
}

func TestPackRefuses(t *testing.T) {
	for name, change := range map[string]func(*Contents){
		"no architecture": func(c *Contents) { c.Arch = "vax" },
		"no measurements": func(c *Contents) { c.Measurements = []byte(`{}`) },
		"no JSON":         func(c *Contents) { c.Measurements = nil },
		"no disk":         func(c *Contents) { c.Disk += "x" },
		"a folder":        func(c *Contents) { c.Disk = filepath.Dir(c.Disk) },
	} {
		c := contents(t, 10)
		change(&c)
		if im, err := Pack(t.Context(), c); err == nil {
			t.Errorf("%s: got %+v", name, im)
		}
	}
	c := contents(t, 1000)
	im := pack(t, c)
	if err := os.Truncate(c.Disk, 999); err != nil {
		t.Fatal(err)
	}
	if _, err := im.blobs[1].open(0); err == nil || !strings.Contains(err.Error(), "changed meanwhile") {
		t.Errorf("a disk that was cut: %v", err)
	}
}

// TestPush pushes to a registry that knows of referrers and to one that does
// not, twice, and reads back what is attached.
func TestPush(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	for name, start := range map[string]func(t *testing.T) (*proxy, string){
		"docker-registry": func(t *testing.T) (*proxy, string) { return newProxy(t, docker) },
		"referrers": func(t *testing.T) (*proxy, string) {
			p := &proxy{count: make(map[string]int)}
			return p, p.serve(t, inProcess())
		},
	} {
		t.Run(name, func(t *testing.T) {
			p, host := start(t)
			im := pack(t, contents(t, 300_000))
			ref := host + "/team/podvm:1.2"
			var last prefetch.Event
			o := quick()
			o.Progress = func(e prefetch.Event) { last = e }
			done, err := Push(t.Context(), ref, im, attachments(), o)
			if err != nil {
				t.Fatal(err)
			}
			if done.Digest != im.Digest || done.Sent != 7 || done.Blobs != 7 || len(done.Attachments) != 3 || done.Repository != host+"/team/podvm" {
				t.Errorf("got %+v", done)
			}
			if last.Done != 7 || last.Total != 7 || last.Bytes != last.TotalBytes || last.Bytes != done.Bytes {
				t.Errorf("progress: %+v", last)
			}
			p.set(nil, nil)
			again, err := Push(t.Context(), ref, im, attachments(), quick())
			if err != nil || again.Sent != 0 || again.Digest != done.Digest {
				t.Errorf("again: %+v, %v", again, err)
			}
			if got := p.set(nil, nil); got["POST blobs/uploads"] != 0 || got["PUT manifests"] != 5 {
				t.Errorf("again: %v", got)
			}
			d, all, err := Fetch(t.Context(), ref, quick().Config, 1<<20)
			if err != nil || d != im.Digest || len(all) != 2 {
				t.Fatalf("got %s, %+v, %v", d, all, err)
			}
			for _, a := range all {
				if !bytes.Equal(a.Content, attachments()[0].Content) && !bytes.Equal(a.Content, attachments()[1].Content) {
					t.Errorf("got %s", a.Content)
				}
			}
			if _, _, err := Fetch(t.Context(), host+"/team/podvm@"+im.Digest.String(), quick().Config, 100); !errors.Is(err, ErrLies) {
				t.Errorf("bundles that are too large: %v", err)
			}
			o = quick()
			o.From = host + "/team/podvm"
			if other, err := Push(t.Context(), host+"/team/other@"+im.Digest.String(), im, nil, o); err != nil || name == "docker-registry" && other.Sent != 0 {
				t.Errorf("mounted: %+v, %v", other, err)
			}
		})
	}
}

// sessions is a registry's uploads as the distribution-spec has them: one that
// was cut goes on. Each is cut several times.
type sessions struct {
	t    *testing.T
	host string // of the registry that gets what is whole
	cut  int    // after how many bytes a request is cut

	mu   sync.Mutex
	have []byte
	got  int64 // bytes that came
	cuts int
}

func (s *sessions) gate(w http.ResponseWriter, r *http.Request) bool {
	const session = "/v2/team/podvm/blobs/uploads/1"
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/uploads/"):
		s.have = nil
		w.Header().Set("Location", session)
		w.WriteHeader(http.StatusAccepted)
	case r.URL.Path != session:
		return false
	case r.Method == http.MethodGet:
		w.Header().Set("Range", fmt.Sprintf("0-%d", max(len(s.have)-1, 0)))
		w.Header().Set("Location", session)
		w.WriteHeader(http.StatusNoContent)
	case r.Method == http.MethodPatch:
		if from := r.Header.Get("Content-Range"); from != "" && !strings.HasPrefix(from, fmt.Sprintf("%d-", len(s.have))) {
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
			return true
		}
		b, err := io.ReadAll(io.LimitReader(r.Body, int64(s.cut)))
		s.have, s.got = append(s.have, b...), s.got+int64(len(b))
		if err != nil || len(b) == s.cut {
			s.cuts++
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Location", session)
		w.WriteHeader(http.StatusAccepted)
	default:
		s.whole(w, r)
	}
	return true
}

// whole gives the registry what has come.
func (s *sessions) whole(w http.ResponseWriter, r *http.Request) {
	resp, err := http.Post("http://"+s.host+"/v2/team/podvm/blobs/uploads/", "", nil)
	if err != nil {
		s.t.Error(err)
		return
	}
	resp.Body.Close()
	at := resp.Header.Get("Location") + "&" + r.URL.RawQuery
	req, err := http.NewRequestWithContext(r.Context(), http.MethodPut, at, bytes.NewReader(s.have))
	if err != nil {
		s.t.Error(err)
		return
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	if resp, err = http.DefaultClient.Do(req); err != nil {
		s.t.Error(err)
		return
	}
	resp.Body.Close()
	w.WriteHeader(resp.StatusCode)
}

// TestResume cuts uploads more often than there are tries: they go on where
// they were cut, nothing is sent twice, and what is there is whole.
func TestResume(t *testing.T) {
	docker, data := tooltest.Registry(t)
	p, host := newProxy(t, docker)
	c := contents(t, 8<<20)
	im := pack(t, c)
	im.blobs = im.blobs[1:2] // one at a time
	s := &sessions{t: t, host: docker, cut: 1 << 20}
	p.set(s.gate, nil)
	pu := &pusher{image: im, tell: func(prefetch.Event) {}}
	if err := pu.prepare(nil); err != nil {
		t.Fatal(err)
	}
	r, err := prefetch.ParseRef(host+"/team/podvm", "latest")
	if err != nil {
		t.Fatal(err)
	}
	if pu.client, err = connect(t.Context(), r.Context(), quick().Config, true); err != nil {
		t.Fatal(err)
	}
	layer := im.blobs[0]
	if err := pu.blob(t.Context(), &pu.blobs[0]); err != nil {
		t.Fatal(err)
	}
	if s.got != layer.Size || s.cuts < 5 {
		t.Errorf("%d bytes came, in %d parts, want %d", s.got, s.cuts, layer.Size)
	}
	if pu.event.Bytes != layer.Size {
		t.Errorf("progress: %+v", pu.event)
	}
	whole(t, data, layer.Digest)
}

// whole tells whether Debian's registry has a blob as it should be.
func whole(t *testing.T, data string, d digest.Digest) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(data, "docker/registry/v2/blobs/sha256", d.Hex()[:2], d.Hex(), "data"))
	if err != nil || digest.Of(b) != d {
		t.Errorf("what the registry has: %v, %s, want %s", err, digest.Of(b), d)
	}
}

// TestAgain cuts an upload to a registry that cannot go on: it begins anew.
func TestAgain(t *testing.T) {
	docker, data := tooltest.Registry(t)
	p, host := newProxy(t, docker)
	im := pack(t, contents(t, 4<<20))
	var mu sync.Mutex
	cuts := 0
	p.set(func(_ http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		if r.Method != http.MethodPatch || r.ContentLength < 1<<20 || cuts == 2 {
			return false
		}
		cuts++
		req, err := http.NewRequest(r.Method, "http://"+docker+r.URL.RequestURI(), io.MultiReader(io.LimitReader(r.Body, 1<<20), cutReader{}))
		if err != nil {
			t.Error(err)
		}
		req.Header, req.ContentLength = r.Header.Clone(), r.ContentLength
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
		panic(http.ErrAbortHandler)
	}, nil)
	var last prefetch.Event
	o := quick()
	o.Progress = func(e prefetch.Event) { last = e }
	if _, err := Push(t.Context(), host+"/team/podvm:1", im, nil, o); err != nil {
		t.Fatal(err)
	}
	if cuts != 2 || last.Bytes != last.TotalBytes {
		t.Errorf("cut %d times, progress: %+v", cuts, last)
	}
	whole(t, data, im.blobs[1].Digest)
}

type cutReader struct{}

func (cutReader) Read([]byte) (int, error) { return 0, errors.New("cut") }

// hasTag tells whether the registry has a tag.
func hasTag(t *testing.T, host, tag string) bool {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodHead, "http://"+host+"/v2/team/podvm/manifests/"+tag, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", ManifestType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestRefusing has a registry refuse in each way, at each kind of request: the
// error says what it is, and there is no tag.
func TestRefusing(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	p, host := newProxy(t, docker)
	im := pack(t, contents(t, 100_000))
	answer := func(part string, method string, status int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != method || !strings.Contains(r.URL.Path, part) {
				return false
			}
			io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			io.WriteString(w, `{"errors":[{"code":"DENIED","message":"no\u001b[31m room"}]}`)
			return true
		}
	}
	lie := "sha256:" + strings.Repeat("0", 64)
	for i, tt := range []struct {
		name   string
		gate   func(http.ResponseWriter, *http.Request) bool
		edit   func(*http.Response)
		want   string
		status int
	}{
		{"login refused", answer("/v2/", "GET", 401), nil, "401 Unauthorized", 401},
		{"pushing forbidden", answer("/uploads/", "POST", 403), nil, "403 Forbidden: DENIED: no[31m room", 403},
		{"a login that ran out", answer("/uploads/", "PATCH", 401), nil, "401", 401},
		{"blob too large", answer("/uploads/", "PATCH", 413), nil, "413 Request Entity Too Large", 413},
		{"too many requests", answer("/uploads/", "POST", 429), nil, "429 Too Many Requests", 429},
		{"broken at the end of a blob", answer("/uploads/", "PUT", 500), nil, "500 Internal Server Error", 500},
		{"busy", answer("/manifests/", "PUT", 503), nil, "503", 503},
		{"manifest refused", answer("/manifests/", "PUT", 400), nil, "400 Bad Request", 400},
		{"manifest forbidden", answer("/manifests/", "PUT", 403), nil, "403", 403},
		{"lying about a manifest", nil, func(r *http.Response) {
			if r.Request.Method == "PUT" && strings.Contains(r.Request.URL.Path, "/manifests/") {
				r.Header.Set("Docker-Content-Digest", lie)
			}
		}, "not to be relied on: it calls \"" + lie, 0},
		{"lying about a blob", nil, func(r *http.Response) {
			if r.Request.Method == "PUT" && strings.Contains(r.Request.URL.Path, "/uploads/") {
				r.Header.Set("Docker-Content-Digest", lie)
			}
		}, "not to be relied on", 0},
		{"a blob that is shorter", nil, func(r *http.Response) {
			if r.Request.Method == "HEAD" && r.StatusCode == 200 && strings.Contains(r.Request.URL.Path, "/blobs/") {
				r.Header.Set("Content-Length", "7")
				r.ContentLength = 7
			}
		}, "it has 7 bytes of the blob", 0},
		{"another manifest", nil, func(r *http.Response) {
			if r.Request.Method == "GET" && r.StatusCode == 200 && strings.Contains(r.Request.URL.Path, "/manifests/") {
				r.Body.Close()
				r.Body, r.ContentLength = io.NopCloser(strings.NewReader("{}")), 2
				r.Header.Set("Content-Length", "2")
			}
		}, "not to be relied on: the manifest", 0},
		{"nowhere to send to", nil, func(r *http.Response) { r.Header.Del("Location") }, "does not say where to send", 0},
		{"dropped connections", func(_ http.ResponseWriter, r *http.Request) bool {
			if r.Method == "PATCH" {
				panic(http.ErrAbortHandler)
			}
			return false
		}, nil, "sending sha256:", 0},
		{"an endless answer", func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == "GET" && strings.Contains(r.URL.Path, "/manifests/") {
				for range 80 {
					w.Write(make([]byte, 64<<10))
				}
				return true
			}
			return false
		}, nil, "more than 4194304 bytes", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := contents(t, 100_000) // blobs that are not there yet
			c.Labels["n"] = fmt.Sprint(i)
			c.Measurements = fmt.Appendf(nil, `{"measurements":{"sha256":{"pcr03":"%d"}}}`, i)
			if err := os.Truncate(c.Disk, 90_000+int64(i)); err != nil {
				t.Fatal(err)
			}
			im = pack(t, c)
			p.set(tt.gate, tt.edit)
			tag := fmt.Sprint("t", i)
			_, err := Push(t.Context(), host+"/team/podvm:"+tag, im, attachments(), quick())
			var e *prefetch.RegistryError
			if !errors.As(err, &e) || e.Status != tt.status || !strings.Contains(err.Error(), tt.want) || strings.ContainsAny(err.Error(), "\x1b\n") {
				t.Errorf("got %v (%+v), want %q", err, e, tt.want)
			}
			if hasTag(t, docker, tag) {
				t.Error("the tag is there")
			}
			p.set(nil, nil)
			if _, err := Push(t.Context(), host+"/team/podvm:"+tag, im, attachments(), quick()); err != nil || !hasTag(t, docker, tag) {
				t.Errorf("once it is well: %v", err)
			}
		})
	}
}

// What passes is tried again, after the time that is asked for.
func TestPasses(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	p, host := newProxy(t, docker)
	var mu sync.Mutex
	seen := map[string]int{}
	p.set(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		defer mu.Unlock()
		key := r.Method + r.URL.Path
		if at := strings.Index(key, "/uploads/"); at > 0 {
			key = key[:at]
		}
		if seen[key]++; seen[key] > 1 {
			return false
		}
		io.Copy(io.Discard, r.Body)
		switch r.Method {
		case "PUT":
			w.WriteHeader(http.StatusBadGateway)
		case "POST", "HEAD":
			w.WriteHeader(http.StatusTooManyRequests)
		default:
			panic(http.ErrAbortHandler)
		}
		return true
	}, nil)
	o := quick()
	o.Config.Retries = 6
	im := pack(t, contents(t, 1000))
	if _, err := Push(t.Context(), host+"/team/podvm:1", im, attachments(), o); err != nil {
		t.Fatal(err)
	}
	if _, all, err := Fetch(t.Context(), docker+"/team/podvm:1", quick().Config, 1<<20); err != nil || len(all) != 2 {
		t.Errorf("got %+v, %v", all, err)
	}
}

// An upload in which nothing moves is ended.
func TestIdle(t *testing.T) {
	release := make(chan struct{})
	p := &proxy{count: make(map[string]int)}
	host := p.serve(t, inProcess())
	defer close(release)
	p.set(func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && r.ContentLength > 1<<20 {
			<-release
		}
		return false
	}, nil)
	o := quick()
	o.Config.IdleTimeout, o.Config.Retries = 200*time.Millisecond, -1
	_, err := Push(t.Context(), host+"/team/podvm:1", pack(t, contents(t, 64<<20)), nil, o)
	if err == nil || !strings.Contains(err.Error(), "the registry takes nothing for 200ms") {
		t.Errorf("got %v", err)
	}
}

func TestRefs(t *testing.T) {
	im := pack(t, contents(t, 10))
	for _, tt := range []struct{ ref, want string }{
		{"podvm", "names no registry"},
		{"team/podvm:1", "names no registry"},
		{"UPPER.example/Team:1", "is not REGISTRY"},
		{"quay.io/team/podvm@sha256:" + strings.Repeat("0", 64), "the image has the digest " + im.Digest.String()},
	} {
		_, err := Push(t.Context(), tt.ref, im, nil, quick())
		if !errors.As(err, new(*prefetch.RefError)) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v", tt.ref, err)
		}
	}
}

// TestSite pushes where the site's registries.conf says.
func TestSite(t *testing.T) {
	p := &proxy{count: make(map[string]int)}
	host := p.serve(t, inProcess())
	conf := filepath.Join(t.TempDir(), "registries.conf")
	text := fmt.Sprintf("[[registry]]\nprefix='registry.example/team'\nlocation='%s/moved'\n[[registry.mirror]]\nlocation='127.0.0.1:1/mirror'\n[[registry]]\nlocation='bad.example'\nblocked=true\n", host)
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	o := quick()
	o.Config.Registries = []string{conf}
	im := pack(t, contents(t, 10))
	if _, err := Push(t.Context(), "registry.example/team/podvm:1", im, nil, o); err != nil {
		t.Fatal(err)
	}
	if d, _, err := Fetch(t.Context(), host+"/moved/podvm:1", quick().Config, 1<<20); err != nil || d != im.Digest {
		t.Errorf("got %s, %v", d, err)
	}
	if _, err := Push(t.Context(), "bad.example/team/podvm:1", im, nil, o); err == nil || !strings.Contains(err.Error(), "blocks bad.example") {
		t.Errorf("a blocked registry: %v", err)
	}
}

// TestMemory pushes 512 MiB; memory does not grow with it.
func TestMemory(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	c := contents(t, 10)
	if err := os.Truncate(c.Disk, 512<<20); err != nil {
		t.Fatal(err)
	}
	im := pack(t, c)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Push(t.Context(), docker+"/team/podvm:1", im, nil, quick()); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > 16<<20 {
		t.Errorf("%d MiB were allocated", n>>20)
	}
}

// skopeo runs skopeo and returns what it says.
func skopeo(t *testing.T, args ...string) string {
	t.Helper()
	c := exec.Command(tooltest.Find(t, "skopeo"), append([]string{"--insecure-policy"}, args...)...)
	c.Env = append(os.Environ(), "HOME="+t.TempDir())
	out, err := c.CombinedOutput()
	if err != nil {
		t.Fatalf("skopeo %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// TestLayout has skopeo read the layout and copy it into a registry, where the
// image has the digest that it was said to have; and the other way round.
func TestLayout(t *testing.T) {
	docker, _ := tooltest.Registry(t)
	dir := filepath.Join(t.TempDir(), "layout")
	c := contents(t, 200_000)
	im := pack(t, c)
	for range 2 { // nothing doubles
		if err := WriteLayout(t.Context(), dir, "1.2", im, attachments()); err != nil {
			t.Fatal(err)
		}
	}
	c.Labels["other"] = "x"
	if err := WriteLayout(t.Context(), dir, "other", pack(t, c), nil); err != nil {
		t.Fatal(err)
	}
	all, err := readLayout(dir)
	if err != nil || len(all) != 5 {
		t.Errorf("got %+v, %v", all, err)
	}
	if said := skopeo(t, "inspect", "oci:"+dir+":1.2"); !strings.Contains(said, im.Digest.String()) || !strings.Contains(said, `"Architecture": "amd64"`) || !strings.Contains(said, `"a": "1"`) {
		t.Errorf("got %s", said)
	}
	skopeo(t, "copy", "--dest-tls-verify=false", "--preserve-digests", "oci:"+dir+":1.2", "docker://"+docker+"/team/copied:1")
	if d, _, err := Fetch(t.Context(), docker+"/team/copied:1", quick().Config, 1<<20); err != nil || d != im.Digest {
		t.Errorf("copied: %s, %v, want %s", d, err, im.Digest)
	}
	if _, err := Push(t.Context(), docker+"/team/pushed:1", im, nil, quick()); err != nil {
		t.Fatal(err)
	}
	back := filepath.Join(t.TempDir(), "back")
	skopeo(t, "copy", "--src-tls-verify=false", "docker://"+docker+"/team/pushed:1", "dir:"+back)
	raw, err := os.ReadFile(filepath.Join(back, im.blobs[1].Digest.Hex()))
	if err != nil || digest.Of(raw) != im.blobs[1].Digest {
		t.Errorf("the disk's layer: %v", err)
	}

	for name, spoil := range map[string]func(dir string) error{
		"not empty":  func(dir string) error { return os.WriteFile(filepath.Join(dir, "x"), nil, 0o644) },
		"no index":   func(dir string) error { return os.WriteFile(filepath.Join(dir, "index.json"), []byte("[]"), 0o644) },
		"unreadable": func(dir string) error { return os.Mkdir(filepath.Join(dir, "index.json"), 0o755) },
	} {
		dir := t.TempDir()
		if err := spoil(dir); err != nil {
			t.Fatal(err)
		}
		if err := WriteLayout(t.Context(), dir, "1", im, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	damaged := filepath.Join(dir, "blobs", "sha256", im.blobs[1].Digest.Hex())
	if err := os.WriteFile(damaged, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteLayout(t.Context(), dir, "1.2", im, nil); err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(damaged); errors.Is(err, fs.ErrNotExist) || st.Size() != im.blobs[1].Size {
		t.Errorf("a damaged blob was left: %+v, %v", st, err)
	}
}

// FuzzIndex reads lists of referrers, as registries and layouts have them.
func FuzzIndex(f *testing.F) {
	sum := digest.Of(nil).String()
	f.Add([]byte(`{"schemaVersion":2,"mediaType":"` + indexType + `","manifests":[{"mediaType":"` + ManifestType + `","digest":"` + sum + `","size":2,"artifactType":"` + BundleType + `"}]}`))
	f.Add([]byte(`{"schemaVersion":2,"manifests":[{"digest":"` + sum + `","size":-1}]}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := readIndex(b)
		if err != nil {
			return
		}
		for _, d := range all {
			if d.Digest.IsZero() || d.Size < 0 {
				t.Errorf("got %+v", d)
			}
		}
	})
}

package prefetch

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	ociregistry "github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/random"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// ociServer is a registry in this process, with a gate before it that may
// answer itself.
type ociServer struct {
	host string
	mu   sync.Mutex
	gate func(w http.ResponseWriter, r *http.Request) bool
	seen []string // method and path
}

func newOCIServer(t *testing.T) *ociServer {
	s := &ociServer{}
	h := ociregistry.New(ociregistry.WithReferrersSupport(true), ociregistry.Logger(log.New(io.Discard, "", 0)))
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		gate := s.gate
		s.seen = append(s.seen, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		if gate == nil || !gate(w, r) {
			h.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	s.host = strings.TrimPrefix(srv.URL, "http://")
	return s
}

func (s *ociServer) set(gate func(w http.ResponseWriter, r *http.Request) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gate, s.seen = gate, nil
}

func (s *ociServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.seen)
}

// pushIndex pushes an index of two arches and returns its digest.
func pushIndex(t *testing.T, ref string) digest.Digest {
	t.Helper()
	var idx v1.ImageIndex = empty.Index
	for _, arch := range []string{"amd64", "arm64"} {
		image, err := random.Image(5000, 2)
		if err != nil {
			t.Fatal(err)
		}
		idx = mutate.AppendManifests(idx, mutate.IndexAddendum{Add: image, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}}})
	}
	r, err := name.ParseReference(ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(r, idx); err != nil {
		t.Fatal(err)
	}
	sum, err := idx.Digest()
	if err != nil {
		t.Fatal(err)
	}
	d, err := digest.Parse(sum.String())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// lockImage locks a manifest with one image and an empty repository.
func lockImage(t *testing.T, cfg Config, s *cas.Store, image string) (*lock.Lock, error) {
	t.Helper()
	dir := t.TempDir()
	const primary = `<metadata xmlns="http://linux.duke.edu/metadata/common" packages="0"></metadata>`
	write(t, dir, map[string]string{"repodata/primary.xml": primary, "repodata/repomd.xml": fmt.Sprintf(`<repomd xmlns="http://linux.duke.edu/metadata/repo">`+
		`<data type="primary"><checksum type="sha256">%s</checksum><location href="repodata/primary.xml"/><size>%d</size></data></repomd>`, digest.Of([]byte(primary)).Hex(), len(primary))})
	text := fmt.Sprintf("version: 1\nname: a\narches: [x86_64, aarch64]\nrpm: {repos: [{id: base, baseurl: 'file://%s', gpgcheck: false}]}\ninputs: {oci: [{name: pause, %s}]}\n", dir, image)
	m, err := lock.ParseManifest("caisson.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	f := NewFetcher(s, newClient(t, cfg), cfg)
	return lock.Resolve(context.Background(), lock.Options{Dir: dir, Manifest: m, Digest: digest.Of([]byte(text)), Fetch: f.Fetch})
}

// fill fills a store with a lock's images alone.
func fillImages(t *testing.T, cfg Config, s *cas.Store, l *lock.Lock) (Stats, error) {
	t.Helper()
	only := *l
	only.Inputs = slices.DeleteFunc(slices.Clone(l.Inputs), func(in lock.Input) bool { return in.Kind != lock.KindOCI })
	return Fill(context.Background(), &only, s, Options{Config: cfg})
}

// checkImages wants every part in the store, as it was locked.
func checkImages(t *testing.T, s *cas.Store, l *lock.Lock) {
	t.Helper()
	n := 0
	for _, in := range l.Inputs {
		if in.Kind == lock.KindOCI {
			n++
			if err := s.Verify(in.SHA256); err != nil {
				t.Errorf("%s: %v", in.Name, err)
			}
		}
	}
	if n < 9 {
		t.Errorf("%d parts", n)
	}
}

func TestImages(t *testing.T) {
	srv := newOCIServer(t)
	ref := srv.host + "/team/pause:3.9"
	sum := pushIndex(t, ref)
	cfg, s := quick(), newStore(t)
	l, err := lockImage(t, cfg, s, "ref: '"+ref+"'")
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Find(lock.KindOCI, "pause/index").SHA256; got != sum {
		t.Errorf("got %s, want %s", got, sum)
	}
	for _, r := range srv.requests() {
		if strings.HasPrefix(r, "GET") && strings.Contains(r, "/blobs/") {
			t.Errorf("to lock, %s", r)
		}
	}
	stats, err := fillImages(t, cfg, s, l)
	if err != nil {
		t.Fatal(err)
	}
	checkImages(t, s, l)
	if stats.Fetched != 6 || stats.Present != 3 { // manifests are there since they were locked
		t.Errorf("%+v", stats)
	}
	srv.set(nil)
	if stats, err := fillImages(t, cfg, s, l); err != nil || stats.Present != 9 || len(srv.requests()) != 0 {
		t.Errorf("the second time: %+v, %v, %q", stats, err, srv.requests())
	}
}

// What is not there, and what is not what it should be.
func TestImageErrors(t *testing.T) {
	srv := newOCIServer(t)
	sum := pushIndex(t, srv.host+"/team/pause:1")
	at := "oci://" + srv.host + "/team/pause/"
	cfg := quick()
	cfg.Retries = -1
	wrong := func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/manifests/") {
			io.WriteString(w, `{"schemaVersion":2}`)
			return true
		}
		return false
	}
	status := func(path string, code int) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if strings.HasSuffix(r.URL.Path, path) || path == "*" {
				w.WriteHeader(code)
				io.WriteString(w, `{"errors":[{"code":"X","message":"no\u001b[31m"}]}`)
				return true
			}
			return false
		}
	}
	for _, tt := range []struct {
		name string
		gate func(http.ResponseWriter, *http.Request) bool
		want lock.Want
		err  string
		gone bool
	}{
		{"no such tag", nil, lock.Want{URL: at + "manifests/2"}, "404", true},
		{"no such digest", nil, lock.Want{URL: at + "manifests/" + digest.Of(nil).String()}, "404", true},
		{"no such blob", nil, lock.Want{URL: at + "blobs/" + digest.Of([]byte("x")).String()}, "404", true},
		{"another manifest", wrong, lock.Want{URL: at + "manifests/" + sum.String()}, "got " + digest.Of([]byte(`{"schemaVersion":2}`)).String() + ", want " + sum.String(), false},
		{"two digests", nil, lock.Want{URL: at + "manifests/" + sum.String(), SHA256: digest.Of([]byte("y"))}, "want " + digest.Of([]byte("y")).String(), false},
		{"too large", nil, lock.Want{URL: at + "manifests/1", Max: 100}, "got more than 100 bytes", false},
		{"not an address", nil, lock.Want{URL: "oci://" + srv.host + "/manifests/1"}, "is not oci://", false},
		{"not a name", nil, lock.Want{URL: "oci://registry.example:443/a/manifests/1"}, "repository must be between 2 and 255", false},
		{"no registry", status("*", 404), lock.Want{URL: at + "manifests/1"}, "logging in: the registry answers 404 Not Found", false},
		{"broken registry", status("/v2/", 500), lock.Want{URL: at + "manifests/1"}, "logging in: the registry answers 500 Internal Server Error: X: no[31m", false},
		{"forbidden", status("/manifests/1", 403), lock.Want{URL: at + "manifests/1"}, "403 Forbidden", false},
		{"unreachable", nil, lock.Want{URL: "oci://127.0.0.1:1/team/pause/manifests/1"}, "connection refused", false},
		{"referrers that are not known", status(sum.String(), 406), lock.Want{URL: at + "referrers/" + sum.String()}, "406", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.set(tt.gate)
			f := NewFetcher(newStore(t), newClient(t, cfg), cfg)
			tt.want.Kind = lock.KindOCI
			_, err := f.Fetch(context.Background(), tt.want)
			if err == nil || !strings.Contains(err.Error(), tt.err) || errors.Is(err, fs.ErrNotExist) != tt.gone || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("got %v (gone: %t), want %q (gone: %t)", err, errors.Is(err, fs.ErrNotExist), tt.err, tt.gone)
			}
		})
	}
}

// tokens is a gate that wants a token, which it gives to who has the password.
type tokens struct {
	srv      *ociServer
	password string // of "me"; empty where anybody gets one
	given    int
	scope    string
}

func (k *tokens) gate(w http.ResponseWriter, r *http.Request) bool {
	if r.URL.Path == "/token" {
		if _, p, ok := r.BasicAuth(); k.password != "" && (!ok || p != k.password) {
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		k.given++
		k.scope = r.URL.Query().Get("scope")
		json.NewEncoder(w).Encode(map[string]string{"token": fmt.Sprint("token-", k.given)})
		return true
	}
	if r.Header.Get("Authorization") != fmt.Sprint("Bearer token-", k.given) || k.given == 0 {
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="http://%s/token",service="x"`, k.srv.host))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	return false
}

// keys is a keychain of one login.
type keys struct{ user, password string }

func (k keys) Resolve(authn.Resource) (authn.Authenticator, error) {
	if k.user == "" {
		return authn.Anonymous, nil
	}
	return authn.FromConfig(authn.AuthConfig{Username: k.user, Password: k.password}), nil
}

func TestImageLogins(t *testing.T) {
	srv := newOCIServer(t)
	ref := srv.host + "/team/pause:1"
	pushIndex(t, ref)
	basic := func(w http.ResponseWriter, r *http.Request) bool {
		if u, p, _ := r.BasicAuth(); u == "me" && p == "hunter2" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="x"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	}
	forUser, forAll := &tokens{srv: srv, password: "hunter2"}, &tokens{srv: srv}
	for _, tt := range []struct {
		name  string
		gate  func(http.ResponseWriter, *http.Request) bool
		login keys
		ok    bool
	}{
		{"basic", basic, keys{"me", "hunter2"}, true},
		{"token of a user", forUser.gate, keys{"me", "hunter2"}, true},
		{"token of anybody", forAll.gate, keys{}, true},
		{"basic, wrong", basic, keys{"me", "hunter3"}, false},
		{"basic, none", basic, keys{}, false},
		{"token, wrong", forUser.gate, keys{"me", "hunter3"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv.set(tt.gate)
			cfg, s := quick(), newStore(t)
			cfg.Keychain = tt.login
			l, err := lockImage(t, cfg, s, "ref: '"+ref+"'")
			if err == nil {
				_, err = fillImages(t, cfg, s, l)
			}
			if tt.ok && err != nil {
				t.Fatal(err)
			}
			if tt.ok {
				checkImages(t, s, l)
				return
			}
			var fe *FetchError
			if !errors.As(err, &fe) || fe.Status != http.StatusUnauthorized || strings.Contains(err.Error(), "hunter") {
				t.Errorf("got %v", err)
			}
		})
	}
	if forUser.scope != "repository:team/pause:pull" {
		t.Errorf("got scope %q", forUser.scope)
	}
	if forAll.given > 3 {
		t.Errorf("%d tokens for one repository", forAll.given)
	}
}

// The logins of docker and podman: a file, a helper, a file of podman's.
func TestImageLoginFiles(t *testing.T) {
	srv := newOCIServer(t)
	ref := srv.host + "/team/pause:1"
	pushIndex(t, ref)
	k := &tokens{srv: srv, password: "hunter2"}
	auths := fmt.Sprintf(`{"auths":{%q:{"auth":%q}}}`, srv.host, base64.StdEncoding.EncodeToString([]byte("me:hunter2")))
	for name, set := range map[string]func(t *testing.T, dir string){
		"docker": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"config.json": auths})
			t.Setenv("DOCKER_CONFIG", dir)
		},
		"podman": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"auth.json": auths})
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "auth.json"))
		},
		"podman's own, beside docker's of another registry": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{".config/containers/auth.json": auths, ".docker/config.json": `{"auths":{"other.example":{"auth":"eDp5"}}}`})
			t.Setenv("HOME", dir)
		},
		"podman's of this session": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"containers/auth.json": auths})
			t.Setenv("XDG_RUNTIME_DIR", dir)
		},
		"docker's own": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{".docker/config.json": auths})
			t.Setenv("HOME", dir)
		},
		"for the folder": func(t *testing.T, dir string) {
			wrong := base64.StdEncoding.EncodeToString([]byte("me:wrong"))
			write(t, dir, map[string]string{"auth.json": strings.Replace(strings.Replace(auths, srv.host, srv.host+"/team", 1), `{"auths":{`, fmt.Sprintf(`{"auths":{%q:{"auth":%q},`, srv.host, wrong), 1)})
			t.Setenv("REGISTRY_AUTH_FILE", filepath.Join(dir, "auth.json"))
		},
		"helper of the registry": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"config.json": fmt.Sprintf(`{"credHelpers":{%q:"test"}}`, srv.host), "docker-credential-test": "#!/bin/sh\nread host\necho '{\"Username\":\"me\",\"Secret\":\"hunter2\"}'\n"})
			if err := os.Chmod(filepath.Join(dir, "docker-credential-test"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		},
		"helper": func(t *testing.T, dir string) {
			write(t, dir, map[string]string{"config.json": `{"credsStore":"test"}`, "docker-credential-test": "#!/bin/sh\nread host\necho '{\"Username\":\"me\",\"Secret\":\"hunter2\"}'\n"})
			if err := os.Chmod(filepath.Join(dir, "docker-credential-test"), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("DOCKER_CONFIG", dir)
			t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "HOME"} {
				t.Setenv(v, "")
			}
			set(t, t.TempDir())
			srv.set(k.gate)
			env, err := EnvConfig("test", t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			cfg := quick()
			cfg.Keychain = env.Keychain
			if _, err := lockImage(t, cfg, newStore(t), "ref: '"+ref+"'"); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// A registry that sends blobs elsewhere does not send the login along.
func TestImageRedirect(t *testing.T) {
	srv := newOCIServer(t)
	ref := srv.host + "/team/pause:1"
	pushIndex(t, ref)
	k := &tokens{srv: srv, password: "hunter2"}
	var mu sync.Mutex
	var leaked []string
	elsewhere := 0
	blobs := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		elsewhere++
		for _, h := range []string{"Authorization", "Cookie", "Referer"} {
			if v := r.Header.Get(h); v != "" {
				leaked = append(leaked, h+": "+v)
			}
		}
		resp, err := http.DefaultTransport.RoundTrip(&http.Request{Method: "GET", URL: &url.URL{Scheme: "http", Host: srv.host, Path: r.URL.Path}, Header: http.Header{"X-Internal": {"1"}}})
		if err != nil {
			t.Error(err)
			return
		}
		defer resp.Body.Close()
		io.Copy(w, resp.Body)
	}))
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("X-Internal") != "" {
			return false
		}
		if k.gate(w, r) {
			return true
		}
		if strings.Contains(r.URL.Path, "/blobs/") {
			http.Redirect(w, r, blobs+r.URL.Path, http.StatusTemporaryRedirect)
			return true
		}
		return false
	})
	cfg, s := quick(), newStore(t)
	cfg.Keychain = keys{"me", "hunter2"}
	l, err := lockImage(t, cfg, s, "ref: '"+ref+"'")
	if err == nil {
		_, err = fillImages(t, cfg, s, l)
	}
	if err != nil {
		t.Fatal(err)
	}
	checkImages(t, s, l)
	if elsewhere == 0 || len(leaked) > 0 {
		t.Errorf("%d requests elsewhere, leaked %q", elsewhere, leaked)
	}
}

// A registry that asks to wait is waited for, at the login and at the files;
// one that hangs up is asked again.
func TestImageRateLimit(t *testing.T) {
	srv := newOCIServer(t)
	ref := srv.host + "/team/pause:1"
	pushIndex(t, ref)
	k := &tokens{srv: srv}
	var mu sync.Mutex
	tried := map[string]int{}
	srv.set(func(w http.ResponseWriter, r *http.Request) bool {
		mu.Lock()
		kind := "file"
		switch {
		case r.URL.Path == "/v2/", r.URL.Path == "/token":
			kind = r.URL.Path
		case strings.Contains(r.URL.Path, "/blobs/"):
			kind = "blob"
		}
		tried[kind]++
		n := tried[kind]
		mu.Unlock()
		if n == 1 && kind != "blob" {
			w.Header().Set("Retry-After", "1")
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		}
		if n == 1 {
			io.WriteString(w, "part")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
		mu.Lock()
		defer mu.Unlock()
		return k.gate(w, r)
	})
	cfg, s := quick(), newStore(t)
	began := time.Now()
	l, err := lockImage(t, cfg, s, "ref: '"+ref+"'")
	if err == nil {
		_, err = fillImages(t, cfg, s, l)
	}
	if err != nil {
		t.Fatal(err)
	}
	checkImages(t, s, l)
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("three times a second was asked for, and it took %s", took)
	}
}

// Debian's docker-registry, which knows no referrers: they are under a tag.
func TestImagesDockerRegistry(t *testing.T) {
	host := startDockerRegistry(t)
	ref := host + "/team/pause:3.9"
	sum := pushIndex(t, ref)
	r, err := name.NewDigest(host + "/team/pause@" + sum.String())
	if err != nil {
		t.Fatal(err)
	}
	subject, err := remote.Head(r)
	if err != nil {
		t.Fatal(err)
	}
	image, err := random.Image(100, 1)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := image.Layers()
	if err != nil {
		t.Fatal(err)
	}
	sbom, err := mutate.Append(empty.Image, mutate.Addendum{Layer: doc[0], MediaType: "text/spdx+json"})
	if err != nil {
		t.Fatal(err)
	}
	sbom = mutate.Subject(mutate.ConfigMediaType(mutate.MediaType(sbom, "application/vnd.oci.image.manifest.v1+json"), "text/spdx+json"), *subject).(v1.Image)
	if err := remote.Write(r.Context().Tag("the-sbom"), sbom); err != nil {
		t.Fatal(err)
	}
	cfg, s := quick(), newStore(t)
	l, err := lockImage(t, cfg, s, "ref: '"+ref+"', sbom: import")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fillImages(t, cfg, s, l); err != nil {
		t.Fatal(err)
	}
	checkImages(t, s, l)
	want, err := doc[0].Digest()
	if err != nil {
		t.Fatal(err)
	}
	if in := l.Find(lock.KindOCI, "pause/sbom"); in == nil || in.SHA256.String() != want.String() {
		t.Errorf("got %+v, want %s", in, want)
	}
}

// startDockerRegistry runs Debian's registry.
func startDockerRegistry(t *testing.T) (host string) {
	t.Helper()
	program, err := exec.LookPath("docker-registry")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	dir := t.TempDir()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host = l.Addr().String()
	l.Close()
	write(t, dir, map[string]string{"config.yml": fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(dir, "data"), host)})
	c := exec.Command(program, "serve", filepath.Join(dir, "config.yml"))
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Process.Kill(); c.Wait() })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			return host
		}
	}
	t.Fatal("the registry does not start")
	return ""
}

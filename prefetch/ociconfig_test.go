package prefetch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

// asked are the manifests that servers were asked for, in order.
type asked struct {
	mu  sync.Mutex
	all []string
}

// serve is a registry that has nothing.
func (a *asked) serve(t *testing.T) string {
	var host string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if repo, id, ok := strings.Cut(strings.TrimPrefix(r.URL.Path, "/v2/"), "/manifests/"); ok {
			a.mu.Lock()
			a.all = append(a.all, host+"/"+repo+" "+id)
			a.mu.Unlock()
		}
		if r.URL.Path != "/v2/" {
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	t.Cleanup(srv.Close)
	host = strings.TrimPrefix(srv.URL, "http://")
	return host
}

// TestRegistriesConfIsSkopeos asks the places that skopeo asks, in its order.
func TestRegistriesConfIsSkopeos(t *testing.T) {
	skopeo := tooltest.Find(t, "skopeo")
	var saw asked
	a, b, c := saw.serve(t), saw.serve(t), saw.serve(t)
	conf := fmt.Sprintf(`unqualified-search-registries = ["docker.io"]
[[registry]]
location = "%[1]s"
insecure = true
[[registry]]
prefix = "%[1]s/team"
location = "%[2]s/moved"
insecure = true
[[registry.mirror]]
location = "%[3]s/first"
insecure = true
[[registry.mirror]]
location = "%[3]s/digests"
insecure = true
pull-from-mirror = "digest-only"
[[registry.mirror]]
location = "%[3]s/tags"
insecure = true
pull-from-mirror = "tag-only"
[[registry]]
prefix = "%[1]s/team/pinned"
location = "%[1]s/pinned"
insecure = true
mirror-by-digest-only = true
[[registry.mirror]]
location = "%[2]s/pinned"
insecure = true
[[registry]]
prefix = "*.wild.example"
location = "%[2]s"
insecure = true
[[registry]]
prefix = "named.example/a/image"
location = "%[3]s/renamed"
insecure = true
[[registry]]
prefix = "blocked.example"
location = "blocked.example"
blocked = true
[[registry]]
prefix = "fine.blocked.example"
location = "%[3]s"
insecure = true
`, a, b, c)
	dir := t.TempDir()
	write(t, dir, map[string]string{"registries.conf": conf})
	file := filepath.Join(dir, "registries.conf")
	site, err := readRegistries([]string{file})
	if err != nil {
		t.Fatal(err)
	}
	sum := "sha256:" + strings.Repeat("0", 64)
	for _, image := range []string{
		a + "/plain/x", a + "/team", a + "/team/x", a + "/teams/x", a + "/team/pinned", a + "/team/pinned/deep", a + "/team/pinnedx",
		"x.wild.example/y", "x.y.wild.example/y/z", "named.example/a/image", "blocked.example/x", "fine.blocked.example/x",
	} {
		for _, id := range []string{"latest", sum} {
			ref := image + ":" + id
			if id == sum {
				ref = image + "@" + id
			}
			saw.all = nil
			cmd := exec.Command(skopeo, "--registries-conf", file, "inspect", "--raw", "docker://"+ref)
			cmd.Env = append(os.Environ(), "HOME="+dir, "XDG_RUNTIME_DIR="+dir)
			out, err := cmd.CombinedOutput()
			if err == nil {
				t.Fatalf("%s: skopeo found it", ref)
			}
			host, repo, _ := strings.Cut(image, "/")
			places, err := site.places(lock.OCIAddress{Host: host, Repository: repo, Kind: lock.OCIManifests, ID: id})
			var got []string
			for _, p := range places {
				got = append(got, p.host+"/"+p.repository+" "+id)
			}
			if !slices.Equal(got, saw.all) || (err != nil) != bytes.Contains(out, []byte("is blocked")) {
				t.Errorf("%s: got %q, %v; skopeo asks %q: %s", ref, got, err, saw.all, out)
			}
		}
	}
}

func TestRegistriesConfRefuses(t *testing.T) {
	dir := t.TempDir()
	for n, c := range []struct{ text, want string }{
		{"[[registry]]\nlocation = 'https://a.example'\n", "has a scheme"},
		{"[[registry]]\nprefix = 'a.example'\n", "no location"},
		{"[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\ninsecure = true\n", "mirror has no location"},
		{"[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation = 'http://b.example'\n", "has a scheme"},
		{"[[registry]]\nlocation = 'a.example'\nmirror-by-digest-only = true\n[[registry.mirror]]\nlocation = 'b.example'\npull-from-mirror = 'all'\n", "has both"},
		{"[[registry]]\nlocation = 'a.example'\n[[registry.mirror]]\nlocation = 'b.example'\npull-from-mirror = 'never'\n", `"never"`},
		{"[[registry]]\nprefix = '*.a.example/x'\n", "wildcard"},
		{"[registries.insecure]\nregistries = ['a.example']\n", "version 1"},
		{"[[registry]\n", "line 2"},
		{strings.Repeat("#\n", maxRegistriesConf), "at most"},
	} {
		file := fmt.Sprint(n)
		write(t, dir, map[string]string{file: c.text})
		if _, err := readRegistries([]string{filepath.Join(dir, file)}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want %q", c.text[:min(len(c.text), 80)], err, c.want)
		}
	}
	if _, err := readRegistries([]string{filepath.Join(dir, "absent")}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is named and absent: %v", err)
	}
	write(t, dir, map[string]string{"digest": "[[registry]]\nprefix = 'a.example/x@sha256:00'\nlocation = 'b.example/x'\n[[registry]]\nprefix='c.example/x'\nlocation='d.example'\n"})
	site, err := readRegistries([]string{filepath.Join(dir, "digest")})
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []lock.OCIAddress{
		{Host: "a.example", Repository: "x", Kind: lock.OCIManifests, ID: "sha256:00"}, {Host: "c.example", Repository: "x", Kind: lock.OCIManifests, ID: "latest"},
	} {
		if _, err := site.places(a); err == nil || !strings.Contains(err.Error(), "registries.conf") {
			t.Errorf("%s: %v", a, err)
		}
	}
}

// The files are found as podman finds them; those with a later name count
// more.
func TestRegistriesFromEnv(t *testing.T) {
	home := t.TempDir()
	write(t, home, map[string]string{
		".config/containers/registries.conf":          "[[registry]]\nlocation = 'a.example'\n[[registry]]\nlocation = 'b.example'\n",
		".config/containers/registries.conf.d/2.conf": "[[registry]]\nprefix = 'a.example'\nlocation = 'two.example'\n",
		".config/containers/registries.conf.d/1.conf": "[[registry]]\nprefix = 'a.example'\nlocation = 'one.example'\n",
		".config/containers/registries.conf.d/README": "no conf\n",
		"own.conf": "[[registry]]\nprefix = 'b.example'\nlocation = 'own.example'\n",
	})
	for own, want := range map[string][2]string{"": {"two.example/x", "b.example/x"}, filepath.Join(home, "own.conf"): {"two.example/x", "own.example/x"}} {
		t.Setenv("CONTAINERS_REGISTRIES_CONF", own)
		files, err := registriesFromEnv(home)
		if err != nil {
			t.Fatal(err)
		}
		site, err := readRegistries(files)
		if err != nil {
			t.Fatal(err)
		}
		for i, host := range []string{"a.example", "b.example"} {
			p, err := site.places(lock.OCIAddress{Host: host, Repository: "x", Kind: lock.OCIManifests, ID: "latest"})
			if err != nil || len(p) != 1 || p[0].host+"/"+p[0].repository != want[i] {
				t.Errorf("%q: %s: got %+v, %v, want %s", own, host, p, err, want[i])
			}
		}
	}
}

// TestImageMirrors has an image of a registry that cannot be reached come from
// the mirrors that the site names: one that does not have it, one that has
// other bytes, and one that has all; and from none where that is forbidden.
func TestImageMirrors(t *testing.T) {
	srv := newOCIServer(t)
	pushIndex(t, srv.host+"/mirror/team/pause:1")
	liar := newOCIServer(t)
	liar.set(func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "/blobs/") || strings.Contains(r.URL.Path, "/manifests/sha256:") {
			io.WriteString(w, "other bytes")
			return true
		}
		return false
	})
	dir := t.TempDir()
	file := filepath.Join(dir, "registries.conf")
	mirrors := func(more string) {
		t.Helper()
		write(t, dir, map[string]string{"registries.conf": fmt.Sprintf("[[registry]]\nprefix = 'origin.invalid/team'\nlocation = 'origin.invalid/team'\n%s[[registry.mirror]]\nlocation = '%s/empty'\n[[registry.mirror]]\nlocation = '%s/liar'\n[[registry.mirror]]\nlocation = '%s/mirror/team'\n",
			more, srv.host, liar.host, srv.host)})
	}
	cfg, s := quick(), newStore(t)
	cfg.Registries, cfg.Retries = []string{file}, -1
	mirrors("")
	l, err := lockImage(t, cfg, s, "ref: 'origin.invalid/team/pause:1'")
	if err != nil {
		t.Fatal(err)
	}
	if in := l.Find(lock.KindOCI, "pause/index"); in == nil || !strings.HasPrefix(in.URL, "oci://origin.invalid/team/pause/") {
		t.Errorf("the lock names the mirror: %+v", in)
	}
	to := newStore(t)
	if _, err := fillImages(t, cfg, to, l); err != nil {
		t.Fatal(err)
	}
	checkImages(t, to, l)

	mirrors("mirror-by-digest-only = true\n")
	if _, err := lockImage(t, cfg, newStore(t), "ref: 'origin.invalid/team/pause:1'"); err == nil {
		t.Error("a tag was taken from a mirror for digests")
	}
	if _, err := fillImages(t, cfg, newStore(t), l); err != nil {
		t.Errorf("by digest: %v", err)
	}
	mirrors("blocked = true\n")
	if _, err := fillImages(t, cfg, newStore(t), l); err == nil || !strings.Contains(err.Error(), "blocks origin.invalid/team") {
		t.Errorf("blocked: %v", err)
	}
}

// Without TLS a registry elsewhere is spoken to where the site says so, for
// digests, and never with a login.
func TestInsecureRegistry(t *testing.T) {
	repo, err := name.NewRepository("registry.example:5000/aa", name.Insecure)
	if err != nil {
		t.Fatal(err)
	}
	answer := rtFunc(func(*http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
	})
	for _, c := range []struct {
		insecure  bool
		url, auth string
		ok        bool
	}{
		{false, "http://registry.example:5000/v2/", "", false},
		{true, "http://registry.example:5000/v2/", "", true},
		{true, "https://registry.example:5000/v2/", "Basic x", true},
		{true, "http://registry.example:5000/v2/", "Basic x", false},
		{true, "http://other.example/v2/", "", false},
		{true, "http://127.0.0.1/v2/", "", false},
	} {
		req, err := http.NewRequest(http.MethodGet, c.url, nil)
		if err != nil {
			t.Fatal(err)
		}
		if c.auth != "" {
			req.Header.Set("Authorization", c.auth)
		}
		resp, err := (&guard{RoundTripper: answer, repo: repo, insecure: c.insecure}).RoundTrip(req)
		if (err == nil) != c.ok {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	cfg := quick()
	cfg.Registries = []string{filepath.Join(t.TempDir(), "r.conf")}
	write(t, filepath.Dir(cfg.Registries[0]), map[string]string{"r.conf": "[[registry]]\nlocation = 'registry.invalid'\ninsecure = true\n"})
	_, err = fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindOCI, URL: "oci://registry.invalid/aa/manifests/latest"})
	if err == nil || !strings.Contains(err.Error(), "name the image by its digest") {
		t.Errorf("a tag: %v", err)
	}
}

type rtFunc func(*http.Request) (*http.Response, error)

func (f rtFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// TestReferrerPages gets a list of several pages as one, and follows no page
// to another place.
func TestReferrerPages(t *testing.T) {
	subject := digest.Of([]byte("subject"))
	page := func(n int) string {
		return fmt.Sprintf(`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"n":%d}]}`, n)
	}
	other := newOCIServer(t)
	for name, c := range map[string]struct {
		next func(n int, host string) string
		want string
		err  string
	}{
		"one page": {func(int, string) string { return "" }, `[{"n":0}]`, ""},
		"relative": {func(n int, _ string) string {
			return fmt.Sprintf("</v2/aa/referrers/%s?n=%d>; rel=\"next\"", subject, n)
		}, `[{"n":0},{"n":1},{"n":2}]`, ""},
		"absolute": {func(n int, host string) string {
			return fmt.Sprintf("<x>; rel=prev, <http://%s/v2/aa/referrers/%s?n=%d>; rel=next", host, subject, n)
		}, `[{"n":0},{"n":1},{"n":2}]`, ""},
		"another host": {func(n int, _ string) string {
			return fmt.Sprintf("<http://%s/v2/aa/referrers/%s?n=%d>; rel=\"next\"", other.host, subject, n)
		}, "", "another place"},
		"another place": {func(n int, _ string) string {
			return fmt.Sprintf("</v2/bb/referrers/%s?n=%d>; rel=\"next\"", subject, n)
		}, "", "another place"},
		"endless": {func(n int, _ string) string {
			return fmt.Sprintf("</v2/aa/referrers/%s?n=%d>; rel=\"next\"", subject, min(n, 1))
		}, "", "more than 100 pages"},
	} {
		srv := newOCIServer(t)
		srv.set(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, "/referrers/") {
				return false
			}
			n := 0
			fmt.Sscan(r.URL.Query().Get("n"), &n)
			if link := c.next(n+1, srv.host); link != "" && (n < 2 || name == "endless") {
				w.Header().Set("Link", link)
			}
			io.WriteString(w, page(n))
			return true
		})
		ft := fetcher(t, quick())
		b, err := ft.Fetch(t.Context(), lock.Want{Kind: lock.KindOCI, URL: fmt.Sprintf("oci://%s/aa/referrers/%s", srv.host, subject), Max: 4 << 20})
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: got %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, err := os.ReadFile(b.Path)
		var got struct {
			MediaType string
			Manifests json.RawMessage
		}
		if err != nil || json.Unmarshal(text, &got) != nil || string(got.Manifests) != c.want || got.MediaType == "" {
			t.Errorf("%s: got %s, %v", name, text, err)
		}
	}
	if len(other.requests()) > 0 {
		t.Errorf("the other host was asked %q", other.requests())
	}
}

// A token that renews logins goes to the realm that the registry names, and
// not to where that redirects to.
func TestTokenRealm(t *testing.T) {
	var leaked []string
	evil := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		leaked = append(leaked, r.Header.Get("Authorization")+string(b))
		io.WriteString(w, `{"access_token":"t","token":"t"}`)
	}))
	for name, auth := range map[string]authn.AuthConfig{"identity token": {IdentityToken: "hunter2"}, "password": {Username: "me", Password: "hunter2"}} {
		realm := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, evil+"/token", http.StatusTemporaryRedirect)
		}))
		srv := newOCIServer(t)
		srv.set(func(w http.ResponseWriter, _ *http.Request) bool {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf("Bearer realm=%q,service=x", realm+"/token"))
			w.WriteHeader(http.StatusUnauthorized)
			return true
		})
		repo, err := newRepository(srv.host + "/aa")
		if err != nil {
			t.Fatal(err)
		}
		cfg := quick()
		cfg.Keychain, cfg.Retries = fixedKeys(auth), -1
		_, err = LoginRegistry(t.Context(), http.DefaultTransport, repo, cfg)
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", name, err)
		}
		for _, l := range leaked {
			if l != "" {
				t.Errorf("%s: the other host was sent %q", name, l)
			}
		}
	}
}

type fixedKeys authn.AuthConfig

func (k fixedKeys) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(authn.AuthConfig(k)), nil
}

func newRepository(s string) (name.Repository, error) { return name.NewRepository(s) }

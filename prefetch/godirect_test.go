package prefetch

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

// goForge serves modules in git repositories at https://example.com, which a
// proxy leads to.
type goForge struct {
	dir   string
	cfg   Config
	env   []string     // for go
	sent  atomic.Int64 // bytes by git's server
	pages map[string]string
}

func newGoForge(t *testing.T) *goForge {
	t.Helper()
	g := &goForge{dir: t.TempDir(), pages: map[string]string{}}
	backend := (&forge{dir: g.dir}).backend(t)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/git/"); ok && r.FormValue("go-get") == "" {
			r.URL.Path = "/" + rest
			backend.ServeHTTP(&countingWriter{w, &g.sent}, r)
			return
		}
		page, ok := g.pages[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		io.WriteString(w, page)
	}))
	t.Cleanup(srv.Close)
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		there, err := net.Dial("tcp", srv.Listener.Addr().String())
		if err != nil || r.Method != http.MethodConnect || r.Host != "example.com:443" {
			http.Error(w, "no", http.StatusBadGateway)
			return
		}
		here, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			io.Copy(there, here)
			there.Close()
		}()
		io.Copy(here, there)
		here.Close()
	}))
	at, err := url.Parse(proxy)
	if err != nil {
		t.Fatal(err)
	}
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	g.cfg = quick()
	g.cfg.RootCAs = srv.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	g.cfg.Proxy = func(*url.URL) (*url.URL, error) { return at, nil }
	g.env = append(gitEnv(), "GOPROXY=direct", "GONOSUMDB=*", "GOFLAGS=-modcacherw", "GOTOOLCHAIN=local", "GOENV=off", "GOWORK=off",
		"HTTPS_PROXY="+proxy, "https_proxy="+proxy, "NO_PROXY=", "no_proxy=", "SSL_CERT_FILE="+ca, "GIT_SSL_CAINFO="+ca, "GIT_TERMINAL_PROMPT=0")
	return g
}

// repo makes a repository of states, each with the tags that name it, and
// returns the commits.
func (g *goForge) repo(t *testing.T, name string, states ...map[string]string) []string {
	t.Helper()
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "main")
	var out []string
	for _, files := range states {
		tags := strings.Fields(files["tags"])
		delete(files, "tags")
		for name, content := range files {
			if target, ok := strings.CutPrefix(content, "->"); ok {
				if err := os.Symlink(target, filepath.Join(work, name)); err != nil {
					t.Fatal(err)
				}
				delete(files, name)
			}
		}
		out = append(out, commit(t, work, files))
		for i, tag := range tags {
			if i%2 == 0 {
				git(t, work, "tag", tag)
			} else {
				git(t, work, "tag", "-a", "-m", "m", tag)
			}
		}
	}
	git(t, "", "clone", "-q", "--bare", work, filepath.Join(g.dir, name))
	return out
}

func page(content ...string) string {
	s := "<!DOCTYPE html><html><head><meta charset=utf-8><title>x</title>"
	for _, c := range content {
		s += `<meta name="go-import" content="` + c + `">` + "\n"
	}
	return s + `</head><body><meta name="go-import" content="example.com/evil git https://evil.example"></body></html>`
}

// download is what go says of a module that it fetches directly.
func (g *goForge) download(t *testing.T, mod module.Version) (sum, modSum string, err error) {
	t.Helper()
	cmd := exec.Command(tooltest.Find(t, "go"), "mod", "download", "-json", mod.String())
	cmd.Dir = t.TempDir()
	cmd.Env = append(slices.Clip(g.env), "GOMODCACHE="+t.TempDir(), "GOPATH="+t.TempDir(), "GOCACHE="+t.TempDir())
	out, _ := cmd.Output()
	var said struct{ Sum, GoModSum, Error string }
	if err := json.Unmarshal(out, &said); err != nil {
		return "", "", fmt.Errorf("go mod download: %w\n%s", err, out)
	}
	if said.Error != "" {
		return "", "", errors.New(said.Error)
	}
	return said.Sum, said.GoModSum, nil
}

// direct is what goDirect makes of a module.
func (g *goForge) direct(t *testing.T, mod module.Version) (sum, modSum string, err error) {
	t.Helper()
	f := fetcher(t, g.cfg)
	escaped, err := module.EscapePath(mod.Path)
	if err != nil {
		t.Fatal(err)
	}
	version, err := module.EscapeVersion(mod.Version)
	if err != nil {
		t.Fatal(err)
	}
	get := func(ext string) (string, []byte, error) {
		to, err := f.store.Create()
		if err != nil {
			t.Fatal(err)
		}
		defer to.Discard()
		if _, err := f.goDirect(t.Context(), escaped+"/@v/"+version+ext, to); err != nil {
			return "", nil, err
		}
		b, err := os.ReadFile(to.Name())
		if err != nil {
			t.Fatal(err)
		}
		sum, err := dirhash.HashZip(to.Name(), dirhash.Hash1)
		return sum, b, err
	}
	_, b, err := get(".mod")
	if b == nil {
		return "", "", err
	}
	if modSum, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }); err != nil {
		t.Fatal(err)
	}
	sum, _, err = get(".zip")
	noLeftovers(t, f)
	return sum, modSum, err
}

// TestGoDirect compares with what go itself makes of the same repositories.
func TestGoDirect(t *testing.T) {
	tooltest.Find(t, "go")
	g := newGoForge(t)
	plain := g.repo(t, "plain", map[string]string{"a.go": "package a\n", "tags": "v1.0.0"}, map[string]string{
		"LICENSE": "MIT", "b.go": "package a\n", "cmd/x/main.go": "package main\n", "vendor/v/v.go": "package v\n", "vendor/modules.txt": "x",
		"nested/go.mod": "module example.com/plain/nested\n", "nested/n.go": "package n\n", ".gitattributes": "b.go export-ignore\nsubst export-subst\n",
		"sub/vendor/w/w.go": "package w\n", "subst": "$Format:%H$", "link": "->a.go", "UPPER/é.go": "package u\n", ".hg_archival.txt": "x",
		"tags": "v1.1.0 v1.2.0 v4.0.0",
	}, map[string]string{"c.go": "package a\n"}, map[string]string{"d.go": "package a\n", "tags": "v1.3.0"})
	g.repo(t, "dotted", map[string]string{"go.mod": "module example.com/git/dotted.git\n", "a.go": "package a\n", "tags": "v0.1.0"})
	g.repo(t, "multi", map[string]string{
		"go.mod": "module example.com/multi\n\ngo 1.21\n", "LICENSE": "root's", "root.go": "package multi\n",
		"sub/go.mod": "module example.com/multi/sub\n", "sub/s.go": "package sub\n", "sub/deep/d.go": "package deep\n",
		"own/go.mod": "module example.com/multi/own\n", "own/LICENSE": "own's", "own/o.go": "package own\n",
		"v2/go.mod": "module example.com/multi/v2\n", "v2/two.go": "package multi\n",
		"tags": "v1.0.0 sub/v0.2.0 own/v0.1.0 v2.0.0",
	})
	major := g.repo(t, "major", map[string]string{"go.mod": "module example.com/major\n", "tags": "v1.0.0"}, map[string]string{"go.mod": "module example.com/major/v3\n", "m.go": "package m\n", "tags": "v3.1.0 v2.0.0"})
	for name, text := range map[string][]string{
		"plain": {"example.com/plain git https://example.com/git/plain"}, "multi": {"example.com/multi git https://example.com/git/multi"},
		"major": {"example.com/major git https://example.com/git/major"}, "major/v3": {"example.com/major git https://example.com/git/major"},
		"multi/sub": {"example.com/multi git https://example.com/git/multi", "example.com/other git https://example.com/git/other"},
		"multi/own": {"example.com/multi git https://example.com/git/multi"}, "multi/v2": {"example.com/multi git https://example.com/git/multi"},
		"folder":   {"example.com/folder git https://example.com/git/folder below/here"},
		"whole/v2": {"example.com/whole/v2 git https://example.com/git/whole"},
	} {
		g.pages[name] = page(text...)
	}
	g.repo(t, "folder", map[string]string{"below/here/go.mod": "module example.com/folder\n", "below/here/f.go": "package f\n", "other.go": "package other\n", "tags": "below/here/v1.0.0"})
	g.repo(t, "whole", map[string]string{"go.mod": "module example.com/whole/v2\n", "w.go": "package w\n", "tags": "v2.5.0"})
	pseudo := func(base, commit string) string { return base + "-20231114221321-" + commit[:12] }
	for _, c := range []struct {
		path, version string
		ok            bool
	}{
		{"example.com/plain", "v1.0.0", true}, {"example.com/plain", "v1.1.0", true}, {"example.com/plain", "v1.2.0", true},
		{"example.com/plain", "v4.0.0+incompatible", true},
		{"example.com/plain", pseudo("v1.2.1-0", plain[2])[:len("v1.2.1-0")] + "." + pseudo("x", plain[2])[2:], true},
		{"example.com/plain", pseudo("v0.0.0", plain[0]), true},
		{"example.com/git/dotted.git", "v0.1.0", true},
		{"example.com/multi", "v1.0.0", true}, {"example.com/multi/sub", "v0.2.0", true}, {"example.com/multi/own", "v0.1.0", true}, {"example.com/multi/v2", "v2.0.0", true},
		{"example.com/major", "v1.0.0", true}, {"example.com/major/v3", "v3.1.0", true}, {"example.com/major/v3", pseudo("v3.0.0", major[1]), true},
		{"example.com/folder", "v1.0.0", true}, {"example.com/whole/v2", "v2.5.0", true},
		{"example.com/plain", "v1.9.0", false}, {"example.com/plain", "v0.0.0-20231114221321-aaaaaaaaaaaa", false},
		{"example.com/major", "v2.0.0+incompatible", false}, {"example.com/multi/sub", "v1.0.0", false}, {"example.com/absent", "v1.0.0", false},
		{"example.com/evil", "v1.0.0", false}, {"example.com/major/v3", "v3.0.0", false},
	} {
		mod := module.Version{Path: c.path, Version: c.version}
		t.Run(mod.String(), func(t *testing.T) {
			t.Parallel()
			g.compare(t, mod, c.ok)
		})
	}
}

// compare compares a module with what go makes of it; ok is what go is
// expected to say.
func (g *goForge) compare(t *testing.T, mod module.Version, ok bool) {
	t.Helper()
	wantSum, wantMod, wantErr := g.download(t, mod)
	sum, modSum, err := g.direct(t, mod)
	if (wantErr == nil) != ok {
		t.Errorf("%s: go itself says %v", mod, wantErr)
	}
	if (err == nil) != (wantErr == nil) || sum != wantSum || modSum != wantMod {
		t.Errorf("%s: got %s, %s, %v; go has %s, %s, %v", mod, sum, modSum, err, wantSum, wantMod, wantErr)
	}
	if !ok && strings.Contains(mod.Path, "absent") && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%s: %v is not fs.ErrNotExist", mod, err)
	}
}

// TestGoDirectOld finds the commit of a pseudo-version which no branch names:
// of a server that can leave trees and files out, without them.
func TestGoDirectOld(t *testing.T) {
	g := newGoForge(t)
	g.pages["old"] = page("example.com/old git https://example.com/git/old")
	states := []map[string]string{{"go.mod": "module example.com/old\n"}}
	for i := range 5 {
		states = append(states, map[string]string{"noise": fmt.Sprint(i) + randomText(30_000)[i*5000:]})
	}
	all := g.repo(t, "old", states...)
	mod := module.Version{Path: "example.com/old", Version: "v0.0.0-20231114221321-" + all[0][:12]}
	for _, filter := range []string{"false", "true"} {
		git(t, filepath.Join(g.dir, "old"), "config", "uploadpack.allowFilter", filter)
		g.sent.Store(0)
		if _, _, err := g.direct(t, mod); err != nil {
			t.Fatal(err)
		}
		n := g.sent.Load()
		t.Logf("%s: %d bytes", filter, n)
		if filter == "true" && n > 6000 {
			t.Errorf("%d bytes came for one commit", n)
		}
	}
	g.compare(t, mod, true)
}

func TestGoDirectByProxy(t *testing.T) {
	g := newGoForge(t)
	g.pages["proxied"] = page("example.com/proxied git https://example.com/git/nothing", "example.com/proxied mod https://example.com/goproxy")
	g.pages["goproxy/example.com/proxied/@v/v1.0.0.mod"] = "module example.com/proxied\n"
	f := fetcher(t, g.cfg)
	to, err := f.store.Create()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Discard()
	if _, err := f.goDirect(t.Context(), "example.com/proxied/@v/v1.0.0.mod", to); err != nil || to.Size() != int64(len("module example.com/proxied\n")) {
		t.Errorf("%d bytes, %v", to.Size(), err)
	}
}

// TestGoDirectFetch fetches by GOPROXY=direct, and what is not what was locked.
func TestGoDirectFetch(t *testing.T) {
	g := newGoForge(t)
	g.pages["proxied"] = page("example.com/proxied mod https://example.com/goproxy")
	const mod, path = "module example.com/proxied\n", "example.com/proxied/@v/v1.0.0.mod"
	g.pages["goproxy/"+path] = mod
	cfg := g.cfg
	cfg.GoProxy = "direct"
	ctx, sum := t.Context(), digest.Of([]byte(mod))
	for _, w := range []lock.Want{{}, {SHA256: sum, Size: int64(len(mod))}} {
		w.Kind, w.URL = lock.KindGo, path
		if b, err := fetcher(t, cfg).Fetch(ctx, w); err != nil || b.SHA256 != sum {
			t.Errorf("got %+v, %v", b, err)
		}
	}
	_, err := fetcher(t, cfg).Fetch(ctx, lock.Want{Kind: lock.KindGo, URL: path, SHA256: digest.Of(nil)})
	if !errors.Is(err, lock.ErrMismatch) {
		t.Errorf("another file than the locked one: %v", err)
	}
}

func TestRepoRoot(t *testing.T) {
	g := newGoForge(t)
	for name, text := range map[string][]string{
		"a/b":      {"example.com/a git https://example.com/git/a"},
		"a":        {"example.com/a git https://example.com/git/other"},
		"several":  {"example.com/several git https://x.example/1", "example.com/several git https://x.example/2"},
		"hg":       {"example.com/hg hg https://x.example/1"},
		"insecure": {"example.com/insecure git http://x.example/1"},
		"here":     {"example.com/here git https://localhost/1"},
		"file":     {"example.com/file git file:///etc"},
		"option":   {"example.com/option git -oProxyCommand=x"},
		"folder":   {"example.com/folder git https://x.example/1 ../../x"},
		"none":     {},
		"foreign":  {"example.org/foreign git https://x.example/1"},
	} {
		g.pages[name] = page(text...)
	}
	g.pages["long"] = strings.Repeat("<p>", maxGoGet) + page("example.com/long git https://x.example/1")
	f := fetcher(t, g.cfg)
	for mod, want := range map[string]string{
		"example.com/a/b": "do not name the same repository", "example.com/several": "several go-import tags", "example.com/hg": "only git",
		"example.com/insecure": "neither https nor ssh", "example.com/here": "on this machine", "example.com/file": "neither https nor ssh",
		"example.com/option": "neither https nor ssh", "example.com/folder": "not in the repository", "example.com/none": "no go-import tag",
		"example.com/foreign": "no go-import tag", "example.com/long": "no go-import tag", "example.com/x.hg/y": "only git",
		"github.com/a/b.git/c": "ends in .git", "nodot/x": "missing dot",
	} {
		if root, err := f.repoRoot(t.Context(), mod); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %+v, %v, want %q", mod, root, err, want)
		}
	}
	for mod, want := range map[string]repoRoot{
		"github.com/google/uuid":    {path: "github.com/google/uuid", vcs: "git", repo: "https://github.com/google/uuid"},
		"github.com/a/b/c/v3":       {path: "github.com/a/b", vcs: "git", repo: "https://github.com/a/b"},
		"bitbucket.org/a/b/c":       {path: "bitbucket.org/a/b", vcs: "git", repo: "https://bitbucket.org/a/b"},
		"code.example/x/y.git/z/v2": {path: "code.example/x/y.git", vcs: "git", repo: "https://code.example/x/y"},
	} {
		if root, err := f.repoRoot(t.Context(), mod); err != nil || root != want {
			t.Errorf("%s: got %+v, %v, want %+v", mod, root, err, want)
		}
	}
}

func FuzzGoImports(f *testing.F) {
	f.Add(page("example.com/a git https://example.com/git/a", "example.com/a mod https://example.com/proxy"))
	f.Add("<meta name=go-import content='a b c d'/></head>")
	f.Fuzz(func(t *testing.T, s string) {
		for _, r := range parseGoImports(strings.NewReader(s)) {
			if r.path == "" || r.vcs == "" || r.repo == "" {
				t.Errorf("got %+v", r)
			}
		}
	})
}

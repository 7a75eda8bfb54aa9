package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/prefetch/gitfetch"
)

// noLeftovers looks for what was on its way into the store.
func noLeftovers(t testing.TB, f *Fetcher) {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(f.store.Dir(), "tmp"))
	if err != nil || len(left) > 0 {
		t.Errorf("left in the store: %v, %v", left, err)
	}
}

// TestGitByEveryWay fetches every kind of ref by HTTP, SSH and from a folder:
// the same commit gives the same file.
func TestGitByEveryWay(t *testing.T) {
	f := newForge(t)
	cfg := quick()
	addr, login := f.sshServer(t)
	cfg.SSH = login
	open := f.dir + "/open.git"
	git(t, "", "clone", "-q", "--bare", f.dir+"/project.git", open)
	git(t, open, "config", "uploadpack.allowReachableSHA1InWant", "true")
	backend := f.backend(t)
	srv := serve(t, backend)
	old := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { // version 0 of the protocol
		r.Header.Del("Git-Protocol")
		backend.ServeHTTP(w, r)
	}))
	peeled := git(t, f.work, "rev-parse", "v1.0^{}")
	for _, c := range []struct{ ref, want, tag string }{
		{"v1.0", peeled, f.tag}, {"refs/tags/v1.0", peeled, f.tag}, {"tags/v1.0", peeled, f.tag}, {f.tag, peeled, f.tag},
		{"light", f.tip, ""}, {"stable", peeled, ""}, {"heads/main", f.tip, ""}, {"both", peeled, ""}, {"", f.tip, ""}, {"HEAD", f.tip, ""},
		{f.tip, f.tip, ""}, {f.old, f.old, ""}, {peeled, peeled, ""},
	} {
		seen := map[string]string{}
		for _, url := range []string{
			srv + "/project.git", old + "/project.git", old + "/open.git", "ssh://git@" + addr + "/project.git", "file://" + f.dir + "/project.git", "file://" + f.work,
		} {
			ft := fetcher(t, cfg)
			b, err := ft.Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: url, Ref: c.ref})
			if err != nil {
				t.Errorf("%s %q: %v", url, c.ref, err)
				continue
			}
			info := ids(t, b)
			if info.Commit != c.want || info.Tag != c.tag {
				t.Errorf("%s %q: got commit %s, tag %q; want %s, %q", url, c.ref, info.Commit, info.Tag, c.want, c.tag)
			}
			seen[b.SHA256.Hex()] = url
			noLeftovers(t, ft)
		}
		if len(seen) != 1 {
			t.Errorf("%q: not the same file by every way: %v", c.ref, seen)
		}
	}
}

// TestGitSHA256 fetches from a repository whose ids are SHA-256, by every way.
func TestGitSHA256(t *testing.T) {
	f := &forge{dir: t.TempDir(), work: t.TempDir()}
	git(t, f.work, "init", "-q", "-b", "main", "--object-format=sha256")
	commit(t, f.work, map[string]string{"README": "first", "big": randomText(5000)})
	f.old = commit(t, f.work, map[string]string{"big": randomText(6000)})
	f.tip = commit(t, f.work, map[string]string{"README": "second"})
	git(t, f.work, "tag", "-a", "-m", "m", "v1")
	git(t, "", "clone", "-q", "--bare", f.work, filepath.Join(f.dir, "project.git"))
	backend := f.backend(t)
	srv := serve(t, backend)
	old := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Git-Protocol")
		backend.ServeHTTP(w, r)
	}))
	for _, url := range []string{srv + "/project.git", old + "/project.git", "file://" + f.work, "file://" + f.dir + "/project.git"} {
		for ref, want := range map[string]string{"v1": f.tip, "main": f.tip, f.old: f.old} {
			b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: url, Ref: ref})
			if err != nil {
				t.Errorf("%s %s: %v", url, ref, err)
				continue
			}
			if got := ids(t, b).Commit; got != want {
				t.Errorf("%s %s: got %s, want %s", url, ref, got, want)
			}
		}
		if _, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: url, Ref: strings.Repeat("0", 40)}); err == nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: an id of another hash: %v", url, err)
		}
	}
}

// TestGitIsShallow counts what comes of a repository with a long history.
func TestGitIsShallow(t *testing.T) {
	f := newForge(t)
	for i := range 20 {
		commit(t, f.work, map[string]string{"noise": strings.Repeat(fmt.Sprint(i*7919, " "), 20_000)})
	}
	tip := commit(t, f.work, map[string]string{"noise": "small"})
	git(t, f.work, "push", "-q", f.dir+"/project.git", "main")
	var sent atomic.Int64
	backend := f.backend(t)
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		backend.ServeHTTP(&countingWriter{w, &sent}, r)
	}))
	b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + "/project.git", Ref: "main"})
	if err != nil || ids(t, b).Commit != tip {
		t.Fatal(err)
	}
	if n := sent.Load(); n > 12_000 {
		t.Errorf("%d bytes came for one commit", n)
	}
}

type countingWriter struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return c.ResponseWriter.Write(p)
}

func TestGitSubmodules(t *testing.T) {
	f := newForge(t)
	srv := serve(t, f.backend(t))
	for _, url := range []string{srv + "/project.git", "file://" + f.dir + "/project.git"} {
		b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: url, Ref: "v1.0", Submodules: true})
		if err != nil {
			t.Fatalf("%s: %v", url, err)
		}
		info := ids(t, b)
		if len(info.Submodules) != 1 || info.Submodules[0].Info.Commit != git(t, f.dir+"/sub.git", "rev-parse", "HEAD") || info.Submodules[0].URL != "../sub.git" {
			t.Errorf("%s: got %+v", url, info.Submodules)
		}
	}
	for url, want := range map[string]string{
		"file://" + f.dir + "/sub.git": "want https or ssh",
		"http://localhost:1/x":         "", // of this machine, as the parent is
		"ext::sh -c id":                "no address of a repository",
		"-oProxyCommand=id":            "no address of a repository",
		"https://127.0.0.1:1/x":        "",
	} {
		git(t, f.work, "config", "-f", ".gitmodules", "submodule.ext/sub.url", url)
		git(t, f.work, "checkout", "-q", "main")
		c := commit(t, f.work, map[string]string{"README": url})
		git(t, f.work, "push", "-q", f.dir+"/project.git", "main")
		cfg := quick()
		cfg.Retries = -1
		_, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + "/project.git", Ref: c, Submodules: true})
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", url, err, want)
		}
	}
	parent, _ := gitfetch.Parse("https://host.example/a/b.git")
	for raw, want := range map[string]string{
		"../c.git": "https://host.example/a/c.git", "../../../../x": "https://host.example/x", "./d": "https://host.example/a/b.git/d",
		"git@other.example:x/y.git": "ssh://git@other.example/x/y.git", "https://user:secret@z.example/x": "https://z.example/x",
	} {
		if u, err := submoduleURLs([]*url.URL{parent}, raw); err != nil || u[0].String() != want {
			t.Errorf("%s: got %v, %v; want %s", raw, u, err, want)
		}
	}
	for _, raw := range []string{"http://127.0.0.1/x", "https://localhost/x", "ssh://[::1]/x", "git://other.example/x", "http://other.example/x", "file:///etc", "/etc"} {
		if u, err := submoduleURLs([]*url.URL{parent}, raw); err == nil {
			t.Errorf("%s was accepted as %s", raw, u)
		}
	}
}

func TestGitRefusals(t *testing.T) {
	f := newForge(t)
	srv := serve(t, f.backend(t))
	for _, c := range []struct{ url, ref, want string }{
		{srv + "/project.git", f.tip[:10], "all 40 digits"},
		{srv + "/project.git", "nope", `no tag, branch or commit "nope"`},
		{srv + "/project.git", strings.Repeat("0", 40), "no tag, branch or commit"},
		{srv + "/project.git", git(t, f.work, "rev-parse", "HEAD^{tree}"), ""},
		{srv + "/absent.git", "main", "not found"},
		{"file://" + f.dir + "/absent.git", "main", "is no git repository"},
		{"file://" + f.dir + "/project.git", f.tip[:12], "all 40 digits"},
		{"git://host.example/x", "main", "does not prove who answers"},
		{"http://host.example/x", "v1", "does not prove who answers"},
		{"https://user:hunter2@host.example/x", "v1", "put that into auth"},
		{"https://ghp_hunter2@host.example/x", "v1", "put that into auth"},
		{"ssh://git:hunter2@host.example/x", "v1", "has a password"},
		{"ftp://host.example/x", "v1", "not supported"},
		{"project", "v1", "no URL"},
		{"git@host.example:x", "v1", "no URL"},
	} {
		ft := fetcher(t, quick())
		_, err := ft.Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: c.url, Ref: c.ref})
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s %s: got %v, want %q", c.url, c.ref, err, c.want)
		}
		if wantGone := strings.Contains(c.want, "no tag") || strings.Contains(c.want, "found") || strings.Contains(c.want, "is no git"); wantGone && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s %s: %v is not fs.ErrNotExist", c.url, c.ref, err)
		}
		if entries, err := os.ReadDir(filepath.Join(ft.store.Dir(), "tmp")); err == nil && len(entries) > 0 {
			t.Errorf("%s %s: left in the store: %v", c.url, c.ref, entries)
		}
	}
}

func TestGitProtocolWithPinnedCommit(t *testing.T) {
	f := newForge(t)
	b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: f.daemon(t), Ref: f.tip})
	if err != nil || ids(t, b).Commit != f.tip {
		t.Errorf("got %v", err)
	}
}

func TestGitLogsIn(t *testing.T) {
	f := newForge(t)
	backend := f.backend(t)
	var elsewhere []string
	other := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		elsewhere = append(elsewhere, r.Header.Get("Authorization"))
		backend.ServeHTTP(w, r)
	}))
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if u, p, ok := r.BasicAuth(); !ok || u != "ann" || p != "hunter2" {
			w.Header().Set("WWW-Authenticate", "Basic realm=x")
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, "/moved"); ok {
			http.Redirect(w, r, other+rest+"?"+r.URL.RawQuery, http.StatusFound)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	cfg := quick()
	cfg.Env = func(name string) string { return map[string]string{"TOKEN": "hunter2", "WRONG": "hunter3"}[name] }
	for _, c := range []struct {
		path, secret string
		ok           bool
	}{{"", "$TOKEN", true}, {"/moved", "$TOKEN", true}, {"", "$WRONG", false}} {
		auth := &lock.Auth{Basic: &lock.AuthBasic{Username: "ann", Password: lock.Secret(c.secret)}}
		_, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + c.path + "/project.git", Ref: "v1.0", Auth: auth, Submodules: true})
		if (err == nil) != c.ok || err != nil && strings.Contains(err.Error(), "hunter") {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if len(elsewhere) == 0 || strings.Join(elsewhere, "") != "" {
		t.Errorf("the other server was sent %q", elsewhere)
	}
	if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + "/project.git", Ref: "v1.0"}); err == nil || !strings.Contains(err.Error(), "authentication required") {
		t.Errorf("without a login: %v", err)
	}
}

// TestGitUnsteadyServer has a server that fails, hangs up in the middle, and
// falls silent.
func TestGitUnsteadyServer(t *testing.T) {
	f := newForge(t)
	backend := f.backend(t)
	var n atomic.Int64
	srv := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n.Add(1) {
		case 1:
			http.Error(w, "later", http.StatusServiceUnavailable)
		case 3: // the pack, cut
			rec := httptest.NewRecorder()
			backend.ServeHTTP(rec, r)
			drop(w, 200, rec.Body.Len(), rec.Body.String()[:rec.Body.Len()/2])
		default:
			backend.ServeHTTP(w, r)
		}
	}))
	ft := fetcher(t, quick())
	if _, err := ft.Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + "/project.git", Ref: "v1.0"}); err != nil {
		t.Error(err)
	}
	noLeftovers(t, ft)
	quiet := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		w.WriteHeader(200)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	cfg := quick()
	cfg.Retries, cfg.IdleTimeout = -1, 100*time.Millisecond
	if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: quiet + "/x", Ref: "v1"}); !errors.Is(err, gitfetch.ErrIdle) {
		t.Errorf("got %v, want that it stopped", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := fetcher(t, quick()).Fetch(ctx, lock.Want{Kind: lock.KindGit, URL: quiet + "/x", Ref: "v1"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the context's error", err)
	}
}

func TestGitLimit(t *testing.T) {
	f := newForge(t)
	for _, w := range []lock.Want{{Max: 1000}, {Size: 1000}} {
		w.Kind, w.URL, w.Ref = lock.KindGit, "file://"+f.work, "main"
		if _, err := fetcher(t, quick()).Fetch(t.Context(), w); err == nil || !strings.Contains(err.Error(), "limit") {
			t.Errorf("got %v", err)
		}
	}
	cfg := quick()
	cfg.MaxSize, cfg.Retries = 5_000, -1
	git(t, f.dir+"/project.git", "config", "core.compression", "0")
	commit(t, f.work, map[string]string{"noise": randomText(40_000)})
	git(t, f.work, "push", "-q", f.dir+"/project.git", "main")
	if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: serve(t, f.backend(t)) + "/project.git", Ref: "main"}); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("got %v", err)
	}
}

func randomText(n int) string {
	var b strings.Builder
	for i := uint32(1); b.Len() < n; i = i*1664525 + 1013904223 {
		fmt.Fprintf(&b, "%x", i)
	}
	return b.String()
}

func TestGitKnownHosts(t *testing.T) {
	f := newForge(t)
	addr, login := f.sshServer(t)
	_, other := f.sshServer(t)
	for name, s := range map[string]gitfetch.SSH{
		"unknown host": {Keys: login.Keys, KnownHosts: []string{"/does/not/exist"}},
		"other host":   {Keys: login.Keys, KnownHosts: other.KnownHosts},
		"other key":    {Keys: other.Keys, KnownHosts: login.KnownHosts},
		"no key":       {KnownHosts: login.KnownHosts},
	} {
		cfg := quick()
		cfg.SSH = s
		if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: "ssh://git@" + addr + "/project.git", Ref: "v1.0"}); err == nil {
			t.Errorf("%s: was let in", name)
		}
	}
}

// TestFillGit fills a store with a git input, again without a request, and
// refuses one whose tree is another.
func TestFillGit(t *testing.T) {
	f := newForge(t)
	srv := serve(t, f.backend(t))
	b, err := fetcher(t, quick()).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: srv + "/project.git", Ref: "v1.0", Submodules: true})
	if err != nil {
		t.Fatal(err)
	}
	info := ids(t, b)
	l := &lock.Lock{Inputs: []lock.Input{{
		Kind: lock.KindGit, Name: "project", URL: srv + "/project.git", SHA256: b.SHA256, Size: b.Size,
		Git: &lock.Git{Ref: "v1.0", Commit: info.Commit, Tree: info.Tree, Tag: info.Tag, Submodules: true},
	}}}
	git(t, f.dir+"/project.git", "branch", "-D", "-q", "stable") // the lock names the commit
	s := newStore(t)
	stats, err := Fill(t.Context(), l, s, Options{Config: quick()})
	if err != nil || stats.Fetched != 1 || !s.Has(b.SHA256) || stats.Bytes != b.Size {
		t.Fatalf("got %+v, %v", stats, err)
	}
	if stats, err = Fill(t.Context(), l, s, Options{Config: quick()}); err != nil || stats.Requests != 0 || stats.Present != 1 {
		t.Errorf("the second time: %+v, %v", stats, err)
	}
	for what, change := range map[string]func(*lock.Git){
		"tree": func(g *lock.Git) { g.Tree = g.Commit }, "commit": func(g *lock.Git) { g.Commit = f.old }, "tag": func(g *lock.Git) { g.Tag = "" },
	} {
		other := *l.Inputs[0].Git
		change(&other)
		l2 := &lock.Lock{Inputs: []lock.Input{l.Inputs[0]}}
		l2.Inputs[0].Git = &other
		for _, s := range []*cas.Store{s, newStore(t)} {
			if _, err := Fill(t.Context(), l2, s, Options{Config: quick()}); err == nil {
				t.Errorf("another %s was accepted", what)
			}
		}
	}
}

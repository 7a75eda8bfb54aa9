package prefetch

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/tooltest"
)

// gitSays runs git with nothing but a configuration.
func gitSays(t *testing.T, env []string, args ...string) string {
	t.Helper()
	c := exec.Command(tooltest.Find(t, "git"), args...)
	c.Dir, c.Env = t.TempDir(), append(env, "PATH="+os.Getenv("PATH"))
	out, _ := c.Output()
	return strings.TrimSuffix(string(out), "\n")
}

// TestGitConfigIsGits reads configurations as git does: what an address is
// rewritten to, and which setting is for which.
func TestGitConfigIsGits(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{
		"system": "[url \"https://system.example/\"]\n\tinsteadOf = https://a.example/\n[http]\n\tproxy = http://system:1\n",
		"home/.gitconfig": "# comment\n[include]\n\tpath = more/inc\n\tpath = ~/tilde\n[URL \"https://mirror.example/github/\"]\n\tINSTEADOF = https://github.com/\n\tinsteadof = git@github.com:\n" +
			"[url \"/srv/git/\"]\n\tinsteadOf = \"https://local.example/\"\n[url \"https://longer.example/x/\"]\n\tinsteadOf = https://github.com/org/\n" +
			"[http \"https://github.com\"]\n\tproxy = http://for-github:2\n\tsslCAInfo = ~/ca.pem\n[http \"https://github.com/org\"]\n\tproxy = http://for-org:3\n[http \"https://b.example:8443/\"]\n\tproxy = \"\"\n",
		"home/more/inc":           "[url \"ssh://git@included.example/\"]\n\tinsteadOf = https://b.example/\n",
		"home/tilde":              "[url \"https://tilde.example/\"]\n\tinsteadOf = https://c.example/\n",
		"home/.config/git/config": "[http]\n\tproxy = http://xdg:4\n",
		"global":                  "[url \"https://global.example/\"]\n\tinsteadOf = https://github.com/\n",
	})
	home := filepath.Join(dir, "home")
	for name, env := range map[string][]string{
		"home":   {"HOME=" + home, "GIT_CONFIG_SYSTEM=" + filepath.Join(dir, "system")},
		"global": {"HOME=" + home, "GIT_CONFIG_SYSTEM=" + filepath.Join(dir, "system"), "GIT_CONFIG_GLOBAL=" + filepath.Join(dir, "global")},
		"no system": {"HOME=" + home, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=2",
			"GIT_CONFIG_KEY_0=url.https://env.example/.insteadOf", "GIT_CONFIG_VALUE_0=https://d.example/", "GIT_CONFIG_KEY_1=http.proxy", "GIT_CONFIG_VALUE_1=http://env:5"},
	} {
		t.Run(name, func(t *testing.T) {
			for _, v := range []string{"XDG_CONFIG_HOME", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_NOSYSTEM", "GIT_CONFIG_COUNT", "GIT_SSL_CAINFO", "GIT_SSL_CERT", "GIT_SSL_KEY"} {
				t.Setenv(v, "")
				os.Unsetenv(v)
			}
			for _, kv := range env {
				k, v, _ := strings.Cut(kv, "=")
				t.Setenv(k, v)
			}
			site, err := readGitConfig(gitConfigFromEnv(home))
			if err != nil {
				t.Fatal(err)
			}
			for _, raw := range []string{
				"https://github.com/x/y", "https://github.com/org/y.git", "https://github.com", "https://a.example/x", "https://b.example/x", "https://b.example:8443/x", "https://c.example/x",
				"https://d.example/x", "https://local.example/x/y", "http://github.com/x", "https://other.example/x", "https://github.com/organ/y",
			} {
				u, err := url.Parse(raw)
				if err != nil {
					t.Fatal(err)
				}
				want := gitSays(t, env, "ls-remote", "--get-url", raw)
				if strings.HasPrefix(want, "/") {
					want = "file://" + want
				}
				if got, err := site.rewrite(u); err != nil || got.String() != want {
					t.Errorf("%s: got %v, %v; git has %s", raw, got, err, want)
				}
				proxy := gitSays(t, env, "config", "--get-urlmatch", "http.proxy", raw)
				a, _, err := site.auth(nil, u)
				if err != nil {
					t.Fatal(err)
				}
				got := ""
				if a != nil && a.Proxy != noProxy {
					got = a.Proxy
				}
				if got != proxy {
					t.Errorf("%s: got the proxy %q, git has %q", raw, got, proxy)
				}
				ca := gitSays(t, env, "config", "--type=path", "--get-urlmatch", "http.sslCAInfo", raw)
				if got := a; (got != nil && got.TLS != nil) != (ca != "") || ca != "" && got.TLS.CA != ca {
					t.Errorf("%s: got %+v, git has the CA %q", raw, got, ca)
				}
			}
		})
	}
}

func TestGitConfigRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"bad": "[http \"x\n\textraHeader = hunter2\n", "circle": "[include]\n\tpath = circle\n", "long": strings.Repeat("#\n", maxGitConfig/2+1)})
	for _, name := range []string{"bad", "circle", "long"} {
		if _, err := readGitConfig(GitConfig{Files: []string{filepath.Join(dir, name)}}); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	site, err := readGitConfig(GitConfig{Files: []string{filepath.Join(dir, "absent"), dir}, Set: [][2]string{{"http.extraHeader", "no header\x00hunter2"}}})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := site.auth(nil, &url.URL{Scheme: "https", Host: "a.example"}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("got %v", err)
	}
}

// TestGitBySite has the site's mirror take a server's place, for a repository,
// its submodule, and a Go module that is fetched directly; the mirror wants a
// header, and has a certificate of the site's. The lock's login stays where
// the lock says.
func TestGitBySite(t *testing.T) {
	f := newForge(t)
	git(t, f.work, "config", "-f", ".gitmodules", "submodule.ext/sub.url", "https://code.example/sub.git")
	f.tip = commit(t, f.work, map[string]string{"go.mod": "module code.example/project.git\n"})
	git(t, f.work, "tag", "v1.2.3")
	git(t, f.work, "push", "-q", "--tags", f.dir+"/project.git", "main")
	backend := f.backend(t)
	var saw seen
	ca := newAuthority(t, "site")
	mirror := ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		saw.note(r)
		if r.Header.Get("Authorization") != "Basic c2l0ZQ==" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		r.URL.Path = strings.TrimPrefix(r.URL.Path, "/code")
		backend.ServeHTTP(w, r)
	}), tls.NoClientCert, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"ca.pem": ca.pem, "gitconfig": "[url \"" + mirror.URL + "/code/\"]\n\tinsteadOf = https://code.example/\n" +
		"[http \"" + mirror.URL + "\"]\n\tsslCAInfo = " + dir + "/ca.pem\n\textraHeader = \"Authorization: Basic c2l0ZQ==\"\n"})
	cfg := quick()
	cfg.Git.Files, cfg.Env = []string{filepath.Join(dir, "gitconfig")}, environment("TOKEN", "of-the-lock")
	ft := fetcher(t, cfg)
	b, err := ft.Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: "https://code.example/project.git", Ref: "main", Submodules: true,
		Auth: &lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN"}}})
	if err != nil {
		t.Fatal(err)
	}
	if info := ids(t, b); info.Commit != f.tip || len(info.Submodules) != 1 {
		t.Errorf("got %+v", info)
	}
	if by := LoginOf(ft.store, b.SHA256); by != byGit {
		t.Errorf("by %q", by)
	}
	cfg.GoProxy = "direct"
	if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGo, URL: "code.example/project.git/@v/v1.2.3.zip"}); err != nil {
		t.Error(err)
	}
	if strings.Contains(saw.String(), "of-the-lock") || !strings.Contains(saw.String(), "/code/sub.git/") {
		t.Errorf("the mirror saw\n%s", &saw)
	}
	write(t, dir, map[string]string{"gitconfig": "[url \"http://mirror.example/\"]\n\tinsteadOf = https://code.example/\n"})
	if _, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: "https://code.example/project.git", Ref: "main"}); err == nil || !strings.Contains(err.Error(), "does not prove who answers") {
		t.Errorf("a tag by http: %v", err)
	}
}

// TestGitMirrors tries the mirrors of a repository in order, those of its
// submodule with them.
func TestGitMirrors(t *testing.T) {
	f := newForge(t)
	backend := f.backend(t)
	broken := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "sub.git/git-upload-pack") {
			http.Error(w, "no", http.StatusInternalServerError)
			return
		}
		backend.ServeHTTP(w, r)
	}))
	gone := serve(t, http.NotFoundHandler())
	good := serve(t, backend)
	cfg := quick()
	cfg.Retries = -1
	get := func(ft *Fetcher, first string, mirrors ...string) (lock.Blob, error) {
		return ft.Fetch(t.Context(), lock.Want{Kind: lock.KindGit, URL: first + "/project.git", Mirrors: mirrors, Ref: f.tip, Submodules: true})
	}
	b, err := get(fetcher(t, cfg), gone, broken+"/project.git", good+"/project.git")
	if err != nil {
		t.Fatal(err)
	}
	if info := ids(t, b); info.Commit != f.tip || len(info.Submodules) != 1 {
		t.Errorf("got %+v", info)
	}
	_, err = get(fetcher(t, cfg), gone, broken+"/project.git")
	if err == nil || !strings.Contains(err.Error(), gone) || !strings.Contains(err.Error(), "500") {
		t.Errorf("got %v", err)
	}
	l := &lock.Lock{Inputs: []lock.Input{{Kind: lock.KindGit, Name: "p", URL: gone + "/project.git", Mirrors: []string{good + "/project.git"}, SHA256: b.SHA256, Size: b.Size,
		Git: &lock.Git{Commit: f.tip, Tree: ids(t, b).Tree, Submodules: true}}}}
	s := newStore(t)
	if _, err := Fill(t.Context(), l, s, Options{Config: cfg}); err != nil || !s.Has(b.SHA256) {
		t.Errorf("got %v", err)
	}
}

package prefetch

import (
	"crypto/tls"
	"encoding/base64"
	"io"
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

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/tooltest"
)

// proxyServer is an HTTP proxy that wants a login where it is given one, and
// answers itself.
type proxyServer struct {
	login string
	mu    sync.Mutex
	saw   []string
}

func (p *proxyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.saw = append(p.saw, r.Method+" "+r.URL.Host)
	p.mu.Unlock()
	if r.Header.Get("Proxy-Authorization") != p.login {
		w.Header().Set("Proxy-Authenticate", "Basic realm=x")
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	if r.Method == http.MethodConnect {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	io.WriteString(w, r.URL.String())
}

func (p *proxyServer) take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := strings.Join(p.saw, ", ")
	p.saw = nil
	return out
}

// cleanEnv takes the variables away that choose proxies and files.
func cleanEnv(t *testing.T) {
	t.Helper()
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if l := strings.ToLower(name); strings.HasSuffix(l, "_proxy") || strings.HasPrefix(l, "go") && l != "gocache" && l != "gomodcache" && l != "gopath" || strings.HasPrefix(l, "cargo_") {
			t.Setenv(name, "")
			os.Unsetenv(name)
		}
	}
	home := t.TempDir()
	write(t, home, map[string]string{".config/go/telemetry/mode": "off 2024-01-01\n"}) // or go writes there when the test is over
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
}

// TestProxyFromEnv goes by the proxies of the environment, logs in at them,
// leaves out what NO_PROXY does, and tells nobody the password.
func TestProxyFromEnv(t *testing.T) {
	cleanEnv(t)
	p := &proxyServer{login: "Basic " + base64.StdEncoding.EncodeToString([]byte("me:hunt er2"))}
	at := serve(t, p)
	t.Setenv("HTTP_PROXY", strings.Replace(at, "http://", "http://me:hunt%20er2@", 1))
	t.Setenv("https_proxy", strings.Replace(at, "http://", "http://me:hunt%20er2@", 1))
	t.Setenv("NO_PROXY", ".inside.invalid,10.0.0.0/8,other.invalid:8080")
	env, err := EnvConfig("test", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := quick()
	cfg.Proxy, cfg.Retries = env.Proxy, -1
	for _, c := range []struct{ url, saw, fault string }{
		{"http://a.invalid/x", "GET a.invalid", ""},
		{"https://a.invalid/x", "CONNECT ", "Bad Gateway"},
		{"http://www.inside.invalid/x", "", "no such host"},
		{"http://other.invalid/x", "GET other.invalid", ""},
		{"http://other.invalid:8080/x", "", "no such host"},
	} {
		got, err := get(t, newClient(t, cfg), Request{URL: c.url})
		if saw := p.take(); !strings.HasPrefix(saw, c.saw) || c.saw == "" && saw != "" {
			t.Errorf("%s: the proxy saw %q, want %q", c.url, saw, c.saw)
		}
		if c.fault == "" && (err != nil || got != c.url) || c.fault != "" && err == nil {
			t.Errorf("%s: got %q, %v, want %q", c.url, got, err, c.fault)
		}
		if err != nil && (strings.Contains(err.Error(), "hunt") || strings.Contains(err.Error(), base64.StdEncoding.EncodeToString([]byte("me:hunt er2")))) {
			t.Errorf("%s: the error has the password: %v", c.url, err)
		}
	}
	t.Setenv("HTTP_PROXY", "http://me:wrong@"+strings.TrimPrefix(at, "http://"))
	t.Setenv("https_proxy", "http://me:wrong@127.0.0.1:1")
	if env, err = EnvConfig("test", t.TempDir()); err != nil {
		t.Fatal(err)
	}
	cfg.Proxy = env.Proxy
	for _, u := range []string{"http://a.invalid/x", "https://a.invalid/x"} {
		if _, err := get(t, newClient(t, cfg), Request{URL: u}); err == nil || strings.Contains(err.Error(), "wrong") {
			t.Errorf("%s: got %v", u, err)
		}
	}
}

// TestGoEnvIsGos reads what `go env -w` has written as go does, and the
// environment before it.
func TestGoEnvIsGos(t *testing.T) {
	goTool := tooltest.Find(t, "go")
	for name, c := range map[string]struct{ written, env []string }{
		"nothing":     {},
		"written":     {written: []string{"GOPROXY=https://a.example,https://b.example|direct", "GOPRIVATE=corp.example/*", "GOSUMDB=sum.example+1+A https://sum.corp.example"}},
		"both":        {written: []string{"GOPROXY=https://a.example", "GONOPROXY=x.example", "GONOSUMDB=y.example"}, env: []string{"GOPROXY=off", "GOPRIVATE=z.example"}},
		"empty ones":  {written: []string{"GOPROXY=https://a.example"}, env: []string{"GOPROXY=", "GONOPROXY="}},
		"no database": {env: []string{"GOSUMDB=off", "GONOSUMDB=x.example"}},
		"no file":     {written: []string{"GOPROXY=https://a.example"}, env: []string{"GOENV=off"}},
	} {
		t.Run(name, func(t *testing.T) {
			cleanEnv(t)
			t.Setenv("GOTOOLCHAIN", "local")
			t.Chdir(t.TempDir())
			if len(c.written) > 0 {
				if out, err := exec.Command(goTool, append([]string{"env", "-w"}, c.written...)...).CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			for _, kv := range c.env {
				k, v, _ := strings.Cut(kv, "=")
				t.Setenv(k, v)
			}
			out, err := exec.Command(goTool, "env", "GOPROXY", "GONOPROXY", "GOSUMDB", "GONOSUMDB").Output()
			if err != nil {
				t.Fatal(err)
			}
			want := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
			if want[2] == "off" {
				want[3] = "*" // which is what it comes to
			}
			env, err := EnvConfig("test", ".")
			if err != nil {
				t.Fatal(err)
			}
			env = env.withDefaults()
			if got := []string{env.GoProxy, env.GoNoProxy, env.GoSumDB, env.GoNoSumDB}; !slices.Equal(got, want) {
				t.Errorf("got %q, go has %q", got, want)
			}
		})
	}
}

// TestCargoHTTP reaches a registry as cargo's configuration says: by its proxy,
// with its certificates, or what the environment says before it.
func TestCargoHTTP(t *testing.T) {
	ca := newAuthority(t, "site")
	r := &crateServer{}
	crates := ca.serveTLS(t, r, tls.NoClientCert, nil)
	r.dl = crates.URL + "/dl"
	p := new(proxyServer)
	byProxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		p.ServeHTTP(httptest.NewRecorder(), req)
		r.ServeHTTP(w, req)
	}))
	t.Cleanup(byProxy.Close)
	token := "[registries.corp]\nindex = 'INDEX'\ntoken = '" + registryToken + "'\n"
	for name, c := range map[string]struct {
		index  string
		config map[string]string
		env    []string
		ok     bool
		saw    string
	}{
		"neither":           {index: crates.URL, config: map[string]string{"project/.cargo/config.toml": token}},
		"cainfo":            {index: crates.URL, config: map[string]string{"project/.cargo/config.toml": token + "[http]\ncainfo = 'certs/ca.pem'\n"}, ok: true},
		"cainfo, nearest":   {index: crates.URL, config: map[string]string{"project/.cargo/config.toml": token + "[http]\ncainfo = 'certs/ca.pem'\n", "home/config.toml": "[http]\ncainfo = '/nowhere'\n"}, ok: true},
		"cainfo, home":      {index: crates.URL, config: map[string]string{"project/.cargo/config.toml": token, "cargo/home/config.toml": "", "home/config.toml": "[http]\ncainfo = 'project/certs/ca.pem'\n"}, ok: true},
		"CARGO_HTTP_CAINFO": {index: crates.URL, config: map[string]string{"project/.cargo/config.toml": token + "[http]\ncainfo = '/nowhere'\n"}, env: []string{"CARGO_HTTP_CAINFO", "DIR/project/certs/ca.pem"}, ok: true},
		"proxy":             {index: "http://crates.invalid", config: map[string]string{"project/.cargo/config.toml": "[http]\nproxy = 'PROXY'\n[registries.corp]\nindex = 'INDEX'\n"}, saw: "GET crates.invalid"},
		"CARGO_HTTP_PROXY":  {index: "http://crates.invalid", config: map[string]string{"project/.cargo/config.toml": "[http]\nproxy = 'http://127.0.0.1:1'\n[registries.corp]\nindex = 'INDEX'\n"}, env: []string{"CARGO_HTTP_PROXY", "PROXY"}, saw: "GET crates.invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			cleanEnv(t)
			dir := t.TempDir()
			put := strings.NewReplacer("INDEX", "sparse+"+c.index+"/index/", "PROXY", byProxy.URL, "DIR", dir)
			write(t, dir, map[string]string{"project/certs/ca.pem": ca.pem})
			for file, text := range c.config {
				write(t, dir, map[string]string{file: put.Replace(text)})
			}
			t.Setenv("CARGO_HOME", filepath.Join(dir, "home"))
			for i := 0; i < len(c.env); i += 2 {
				t.Setenv(c.env[i], put.Replace(c.env[i+1]))
			}
			env, err := EnvConfig("test", filepath.Join(dir, "project"))
			if err != nil {
				t.Fatal(err)
			}
			cfg := quick()
			cfg.Dir, cfg.CargoHome, cfg.CargoHTTP, cfg.Retries = env.Dir, env.CargoHome, env.CargoHTTP, -1
			b, err := fetcher(t, cfg).Fetch(t.Context(), lock.Want{Kind: lock.KindCrate, URL: "a/1.0.0", Registry: "sparse+" + c.index + "/index/"})
			if ok := err == nil && b.SHA256 == digest.Of([]byte("a crate")); ok != c.ok {
				t.Errorf("got %+v, %v", b, err)
			}
			if saw := p.take(); !strings.HasPrefix(saw, c.saw) || c.saw == "" && saw != "" {
				t.Errorf("the proxy saw %q, want %q", saw, c.saw)
			}
		})
	}
}

// A netrc that is named and cannot be read is an error that does not have it.
func TestNetrcErrors(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"long": "machine a.example login me password hunter2\n" + strings.Repeat("#\n", maxNetrc)})
	for _, name := range []string{"long", "."} {
		cfg := quick()
		cfg.Netrc = filepath.Join(dir, name)
		if _, err := NewClient(cfg); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	u, _ := url.Parse("https://a.example/")
	if _, _, ok := parseNetrc("machine a.example login me").find(u); ok {
		t.Error("a login without a password is one")
	}
}

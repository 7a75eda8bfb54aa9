package prefetch

import (
	"context"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"caisson/lock"
	"caisson/lock/digest"
)

const registryToken = "secret-of-the-registry"

// crateServer is a private registry. All wants the token for its index too.
type crateServer struct {
	all bool
	dl  string // where its crates are; itself if empty

	mu    sync.Mutex
	asked []string // paths, each with what it was sent as Authorization
}

func (r *crateServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	r.mu.Lock()
	r.asked = append(r.asked, req.URL.Path+" "+req.Header.Get("Authorization"))
	r.mu.Unlock()
	isConfig := strings.HasSuffix(req.URL.Path, "config.json")
	if req.Header.Get("Authorization") != registryToken && (r.all || !isConfig) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if !isConfig {
		w.Write([]byte("a crate"))
		return
	}
	dl := r.dl
	if dl == "" {
		dl = "http://" + req.Host + "/dl"
	}
	w.Write([]byte(`{"dl": "` + dl + `", "auth-required": true}`))
}

func TestRegistryToken(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files map[string]string // INDEX stands for the registry's
		env   string            // CARGO_REGISTRIES_CORP_NET_TOKEN
		all   bool
		err   string
	}{
		{name: "credentials", files: map[string]string{
			"project/.cargo/config.toml": "[registries.corp-net]\nindex = 'INDEX'\n", "home/credentials.toml": "[registries.corp-net]\ntoken = '" + registryToken + "'\n"}},
		{name: "credentials, before the configuration", all: true, files: map[string]string{
			"project/.cargo/config.toml": "[registries.corp-net]\nindex = 'INDEX'\ntoken = 'no'\n", "home/credentials": "[registries.corp-net]\ntoken = '" + registryToken + "'\n"}},
		{name: "configuration", all: true, files: map[string]string{
			"project/.cargo/config.toml": "[registries.corp-net]\nindex = 'INDEX'\ntoken = '" + registryToken + "'\n"}},
		{name: "environment, before all", all: true, env: registryToken, files: map[string]string{
			"project/.cargo/config.toml": "[registries.corp-net]\nindex = 'INDEX'\n", "home/credentials.toml": "[registries.corp-net]\ntoken = 'no'\n"}},
		{name: "a source of another name", files: map[string]string{
			"project/.cargo/config.toml": "[source.mirror]\nregistry = 'INDEX'\n[registries.corp-net]\nindex = 'INDEX'\ntoken = '" + registryToken + "'\n"}},
		{name: "cargo:token among others", files: map[string]string{
			"home/config.toml": "[registry]\nglobal-credential-providers = ['cargo:libsecret', 'cargo:token']\n[registries.corp-net]\nindex = 'INDEX'\ntoken = '" + registryToken + "'\n"}},
		{name: "none", err: "wants a token; give it", files: map[string]string{"home/config.toml": "[registries.corp-net]\nindex = 'INDEX'\n"}},
		{name: "none, and the index wants it", all: true, err: "wants a token; give it"},
		{name: "a wrong one", all: true, env: "wrong-" + registryToken, err: "401", files: map[string]string{"home/config.toml": "[registries.corp-net]\nindex = 'INDEX'\n"}},
		{name: "a provider", err: "has cargo:libsecret provide it; only cargo:token is supported", files: map[string]string{
			"home/config.toml": "[registries.corp-net]\nindex = 'INDEX'\ncredential-provider = 'cargo:libsecret'\ntoken = '" + registryToken + "'\n"}},
		{name: "a provider with arguments", err: "has cargo:token-from-stdout provide it", files: map[string]string{
			"home/config.toml": "[registry]\nglobal-credential-providers = [['cargo:token-from-stdout', 'x']]\n[registries.corp-net]\nindex = 'INDEX'\n"}},
		{name: "no header", env: "a\nb", err: "characters that cannot be sent", files: map[string]string{"home/config.toml": "[registries.corp-net]\nindex = 'INDEX'\n"}},
		{name: "no TOML", err: "credentials.toml: line 2: not TOML", files: map[string]string{"home/credentials.toml": "[registries.corp-net]\ntoken = " + registryToken + "\n"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &crateServer{all: tt.all}
			srv := httptest.NewServer(r)
			defer srv.Close()
			index, dir := "sparse+"+srv.URL+"/index/", t.TempDir()
			for name, s := range tt.files {
				write(t, dir, map[string]string{name: strings.ReplaceAll(s, "INDEX", index)})
			}
			cfg := quick()
			cfg.Dir, cfg.CargoHome = filepath.Join(dir, "project"), filepath.Join(dir, "home")
			if tt.env != "" {
				cfg.CargoTokens = map[string]string{"corp_net": tt.env}
			}
			b, err := fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindCrate, URL: "a/1.0.0", Registry: index})
			switch {
			case tt.err == "" && (err != nil || b.SHA256 != digest.Of([]byte("a crate"))):
				t.Errorf("got %+v, %v; asked %q", b, err, r.asked)
			case tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), registryToken)):
				t.Errorf("got %v, want %s", err, tt.err)
			}
			if first := r.asked; len(first) > 0 && strings.Contains(first[0], registryToken) {
				t.Errorf("a token was sent before it was asked for: %q", first)
			}
		})
	}
}

// TestRegistryTokenElsewhere has a registry whose crates are on another host:
// that one must not see the token.
func TestRegistryTokenElsewhere(t *testing.T) {
	crates := &crateServer{}
	far := httptest.NewServer(crates)
	defer far.Close()
	for _, dl := range []string{far.URL + "/dl", strings.Replace(far.URL, "127.0.0.1", "localhost", 1) + "/dl"} {
		near := httptest.NewServer(&crateServer{dl: dl})
		defer near.Close()
		index, dir := "sparse+"+near.URL+"/", t.TempDir()
		write(t, dir, map[string]string{".cargo/config.toml": "[registries.corp]\nindex = '" + index + "'\ntoken = '" + registryToken + "'\n"})
		cfg := quick()
		cfg.Dir = dir
		if _, err := fetcher(t, cfg).Fetch(context.Background(), lock.Want{Kind: lock.KindCrate, URL: "a/1.0.0", Registry: index}); err == nil {
			t.Error("a crate came without the token that its server wants")
		}
	}
	if len(crates.asked) == 0 {
		t.Error("the other host was not asked: the test shows nothing")
	}
	for _, a := range crates.asked {
		if strings.Contains(a, registryToken) {
			t.Errorf("another host was sent the token: %s", a)
		}
	}
}

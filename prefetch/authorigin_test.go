package prefetch

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// TestLoginOf has the same file come by every way that a login can take, and
// by none.
func TestLoginOf(t *testing.T) {
	ca := newAuthority(t, "site")
	secure := ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "a file") }), tls.RequestClientCert, ca)
	site := func(t *testing.T) Config {
		cfg := quick()
		cfg.Dir = t.TempDir()
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AddCert(ca.cert)
		return cfg
	}
	file := lock.Want{Kind: lock.KindFile, URL: secure.URL + "/file"}
	crates := httptest.NewServer(&crateServer{})
	defer crates.Close()
	f := newForge(t)
	ssh, keyFile := f.sshServer(t)
	backend := serve(t, f.backend(t))
	secureGit := ca.serveTLS(t, f.backend(t), tls.NoClientCert, nil)
	images := newOCIServer(t)
	index := pushIndex(t, images.host+"/team/pause:1")
	goMod := serve(t, newFiles(map[string]string{"/example.org/m/@v/v1.0.0.mod": "module example.org/m\n"}))

	netrc := func(t *testing.T, cfg *Config) {
		write(t, cfg.Dir, map[string]string{"netrc": "default login me password hunter2\n"})
		cfg.Netrc = filepath.Join(cfg.Dir, "netrc")
	}
	for _, c := range []struct {
		name string
		want lock.Want
		set  func(t *testing.T, cfg *Config, w *lock.Want)
		by   string
	}{
		{"none", file, nil, ""},
		{".netrc", file, func(t *testing.T, cfg *Config, _ *lock.Want) { netrc(t, cfg) }, ".netrc"},
		{".netrc of another host", file, func(t *testing.T, cfg *Config, _ *lock.Want) {
			write(t, cfg.Dir, map[string]string{"netrc": "machine a.example login me password hunter2\n"})
			cfg.Netrc = filepath.Join(cfg.Dir, "netrc")
		}, ""},
		{"password", file, func(t *testing.T, cfg *Config, w *lock.Want) {
			cfg.Env = environment("PASSWORD", "hunter2")
			w.Auth = &lock.Auth{Basic: &lock.AuthBasic{Username: "me", Password: "$PASSWORD"}}
		}, "the lock's login"},
		{"client certificate", file, func(t *testing.T, cfg *Config, w *lock.Want) {
			cert, key := ca.client(t, -time.Hour, time.Hour)
			write(t, cfg.Dir, map[string]string{"c.pem": cert + key})
			w.Auth = &lock.Auth{TLS: &lock.AuthTLS{Cert: "c.pem"}}
		}, "the lock's login"},
		{"CA alone", file, func(t *testing.T, cfg *Config, w *lock.Want) {
			write(t, cfg.Dir, map[string]string{"ca.pem": ca.pem})
			w.Auth = &lock.Auth{TLS: &lock.AuthTLS{CA: "ca.pem"}}
		}, ""},
		{"crate", lock.Want{Kind: lock.KindCrate, URL: "a/1.0.0", Registry: "sparse+" + crates.URL + "/index/"}, func(t *testing.T, cfg *Config, w *lock.Want) {
			write(t, cfg.Dir, map[string]string{".cargo/config.toml": "[registries.corp]\nindex = '" + w.Registry + "'\ntoken = '" + registryToken + "'\n"})
		}, "cargo's token"},
		{"GOPROXY without", lock.Want{Kind: lock.KindGo, URL: "example.org/m/@v/v1.0.0.mod"}, func(_ *testing.T, cfg *Config, _ *lock.Want) { cfg.GoProxy = goMod }, ""},
		{"GOPROXY", lock.Want{Kind: lock.KindGo, URL: "example.org/m/@v/v1.0.0.mod"}, func(_ *testing.T, cfg *Config, _ *lock.Want) {
			cfg.GoProxy = strings.Replace(goMod, "http://", "http://me:hunter2@", 1)
		}, "the login in an address"},
		{"git", lock.Want{Kind: lock.KindGit, URL: backend + "/project.git", Ref: "v1.0"}, nil, ""},
		{"git by .netrc", lock.Want{Kind: lock.KindGit, URL: secureGit.URL + "/project.git", Ref: "v1.0"}, func(t *testing.T, cfg *Config, _ *lock.Want) { netrc(t, cfg) }, ".netrc"},
		{"git by SSH", lock.Want{Kind: lock.KindGit, URL: "ssh://git@" + ssh + "/project.git", Ref: "v1.0"}, func(_ *testing.T, cfg *Config, _ *lock.Want) { cfg.SSH = keyFile }, "an SSH key"},
		{"image", lock.Want{Kind: lock.KindOCI, URL: fmt.Sprintf("oci://%s/team/pause/manifests/%s", images.host, index)}, nil, ""},
		{"image, with a keychain that has nothing", lock.Want{Kind: lock.KindOCI, URL: fmt.Sprintf("oci://%s/team/pause/manifests/%s", images.host, index)},
			func(_ *testing.T, cfg *Config, _ *lock.Want) { cfg.Keychain = keys{} }, ""},
		{"image of a registry that wants a login", lock.Want{Kind: lock.KindOCI, URL: fmt.Sprintf("oci://%s/team/pause/manifests/%s", images.host, index)},
			func(_ *testing.T, cfg *Config, _ *lock.Want) { cfg.Keychain = keys{"me", "hunter2"} }, "the login of a registry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := site(t)
			w := c.want
			if c.set != nil {
				c.set(t, &cfg, &w)
			}
			ft := fetcher(t, cfg)
			b, err := ft.Fetch(t.Context(), w)
			if err != nil {
				t.Fatal(err)
			}
			if by := LoginOf(ft.store, b.SHA256); by != c.by {
				t.Errorf("got %q, want %q", by, c.by)
			}
			hidden(t, ft.store.Dir(), "hunter2", registryToken)
		})
	}
}

// What Fill brings is remembered alike, and what is had without a login when
// it has to come again is not restricted any more.
func TestFillRemembersLogins(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	ca := newAuthority(t, "site")
	secure := ca.serveTLS(t, w.srv, tls.NoClientCert, nil)
	w.cfg.RootCAs = x509.NewCertPool()
	w.cfg.RootCAs.AddCert(ca.cert)
	write(t, w.dir, map[string]string{"netrc": "machine 127.0.0.1 login me password hunter2\n"})
	w.cfg.Netrc = filepath.Join(w.dir, "netrc")
	w.find(t, "an.iso").URL = secure.URL + "/files/iso"
	check := func(want string) {
		t.Helper()
		for _, in := range w.lock.Inputs {
			by := ""
			if in.Name == "an.iso" {
				by = want
			}
			if got := LoginOf(s, in.SHA256); got != by {
				t.Errorf("%s: got %q, want %q", in.Name, got, by)
			}
		}
	}
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	check(".netrc")
	w.cfg.Netrc = ""
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	check(".netrc")
	d := w.find(t, "an.iso").SHA256
	break1(t, s, d, "x")
	opts := w.options()
	opts.Verify = true
	if st, err := Fill(t.Context(), w.lock, s, opts); err != nil || st.Repaired != 1 {
		t.Fatalf("%+v, %v", st, err)
	}
	check("")
	if err := RememberLogin(s, d, "what a registry says"); err != nil || LoginOf(s, d) != "a login" {
		t.Errorf("got %q, %v", LoginOf(s, d), err)
	}
	if LoginOf(s, digest.Of([]byte("other"))) != "" {
		t.Error("a file that is not there has a login")
	}
}

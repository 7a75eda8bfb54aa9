package main

import (
	"encoding/pem"
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
	"strconv"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdRegistry starts Debian's docker-registry. The variable becomes HOST:PORT.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	host := l.Addr().String()
	l.Close()
	config := ts.MkAbs("registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", ts.MkAbs("registry"), host)
	ts.Check(os.WriteFile(config, []byte(text), 0o644))
	c := exec.Command("docker-registry", "serve", config)
	ts.Check(c.Start())
	ts.Defer(func() { c.Process.Kill(); c.Wait() })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			ts.Setenv(args[0], host)
			return
		}
	}
	ts.Fatalf("the registry does not start")
}

// cmdRefuse starts a registry that refuses everybody, or one that refuses only
// what is sent to it:
//
//	refuse VAR [STATUS CODE]
func cmdRefuse(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case len(args) == 1:
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
		case r.Method == http.MethodPost:
			status, err := strconv.Atoi(args[1])
			ts.Check(err)
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"errors":[{"code":%q,"message":"refused"}]}`, args[2])
		}
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], strings.TrimPrefix(srv.URL, "http://"))
}

// cmdRegistryTLS puts TLS and a login before a registry, and its authority into a
// file:
//
//	registrytls HOST VAR CA USER PASSWORD
func cmdRegistryTLS(ts *testscript.TestScript, _ bool, args []string) {
	to := &url.URL{Scheme: "http", Host: args[0]}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(to)
		r.SetXForwarded()
		r.Out.Host = r.In.Host
		r.Out.Header.Del("Authorization")
	}}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != args[3] || password != args[4] {
			w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	ts.Defer(srv.Close)
	ts.Check(os.MkdirAll(filepath.Dir(ts.MkAbs(args[2])), 0o755))
	ts.Check(os.WriteFile(ts.MkAbs(args[2]), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o644))
	ts.Setenv(args[1], strings.TrimPrefix(srv.URL, "https://"))
}

// cmdServeSecrets serves by TLS /token.txt to who has exchanged an offline token at
// /token, as Red Hat's downloads are, and /netrc.txt to who has a password. Its
// authority is registrytls'.
//
//	servesecrets VAR DIR TOKEN USER PASSWORD
func cmdServeSecrets(ts *testscript.TestScript, _ bool, args []string) {
	files := http.FileServer(http.Dir(ts.MkAbs(args[1])))
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, password, _ := r.BasicAuth()
		switch {
		case r.URL.Path == "/token" && r.FormValue("refresh_token") == args[2]:
			io.WriteString(w, `{"access_token":"short","expires_in":300}`)
		case r.URL.Path == "/token.txt" && r.Header.Get("Authorization") == "Bearer short",
			r.URL.Path == "/netrc.txt" && user == args[3] && password == args[4]:
			files.ServeHTTP(w, r)
		default:
			w.WriteHeader(http.StatusUnauthorized)
		}
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	ts.Defer(srv.Close)
	ts.Setenv(args[0], srv.URL)
}

// cmdLabels wants labels of an image in a registry.
func cmdLabels(ts *testscript.TestScript, _ bool, args []string) {
	ref, err := name.ParseReference(args[0])
	ts.Check(err)
	im, err := remote.Image(ref)
	ts.Check(err)
	config, err := im.ConfigFile()
	ts.Check(err)
	for _, want := range args[1:] {
		key, value, _ := strings.Cut(want, "=")
		if got := config.Config.Labels[key]; got != value {
			ts.Fatalf("label %s is %q, want %q", key, got, value)
		}
	}
}

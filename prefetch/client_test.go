package prefetch

import (
	"crypto/x509"
	"errors"
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
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A proxy makes any host name reach the test's server.
func TestRedirectFromOutside(t *testing.T) {
	var mu sync.Mutex
	var auth []string
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		auth = append(auth, r.Host+" "+r.Header.Get("Authorization")+r.Header.Get("Referer"))
		mu.Unlock()
		switch r.Host {
		case "a.example":
			http.Redirect(w, r, "http://b.a.example"+r.URL.Path, http.StatusFound)
		case "evil.example":
			http.Redirect(w, r, "http://"+strings.TrimPrefix(r.URL.Path, "/")+"/", http.StatusFound)
		default:
			io.WriteString(w, hello)
		}
	}))
	cfg := quick()
	cfg.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse(proxy) }
	got, err := get(t, newClient(t, cfg), Request{URL: "http://user:secret@a.example/x?token=y"})
	if err != nil || got != hello {
		t.Fatalf("got %q, %v", got, err)
	}
	want := []string{"a.example Basic dXNlcjpzZWNyZXQ=", "b.a.example "}
	if strings.Join(auth, "|") != strings.Join(want, "|") {
		t.Errorf("got %q, want %q", auth, want)
	}
	for _, host := range []string{"127.0.0.1:8080", "localhost", "sub.localhost", "[::1]", "169.254.169.254", "0.0.0.0", "LOCALHOST."} {
		if got, err := get(t, newClient(t, cfg), Request{URL: "http://evil.example/" + host}); err == nil || !strings.Contains(err.Error(), "to this machine's") {
			t.Errorf("%s: got %q, %v", host, got, err)
		}
	}
}

func TestNoSecretsInErrors(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	gone := serve(t, http.NotFoundHandler())
	for _, u := range []string{
		"http://user:secret@" + dead.Addr().String() + "/a",
		strings.Replace(gone, "http://", "http://user:secret@", 1) + "/a",
		"http://user:secret@host.invalid/a",
		"ftp://user:secret@host.invalid/a",
		"http://user:secret@host.invalid:port/%zz",
	} {
		cfg := quick()
		cfg.Retries = 1
		_, err := get(t, newClient(t, cfg), Request{URL: u})
		if err == nil || strings.Contains(err.Error(), "secret") || strings.Contains(err.Error(), "user") {
			t.Errorf("got %v", err)
		}
	}
}

// A host that cannot be reached costs the retries once, not for each file.
func TestDownHost(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	c := newClient(t, quick())
	for n, want := range []string{"connection refused (after 4 retries)", "not tried, "} {
		if _, err := get(t, c, Request{URL: "http://" + dead.Addr().String() + "/a"}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d: got %v, want %s", n, err, want)
		}
	}
}

func TestPerHost(t *testing.T) {
	var now, most atomic.Int64
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
		io.WriteString(w, hello)
	}))
	cfg := quick()
	cfg.PerHost = 3
	c := newClient(t, cfg)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := get(t, c, Request{URL: url}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if most.Load() > 3 || c.Requests() != 20 {
		t.Errorf("%d at the same time, %d requests", most.Load(), c.Requests())
	}
}

// The bytes on the wire are the file, whatever the server calls their encoding.
func TestEncoding(t *testing.T) {
	var agent, accept string
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		agent, accept = r.UserAgent(), r.Header.Get("Accept-Encoding")
		w.Header().Set("Content-Encoding", "gzip")
		io.WriteString(w, "\x1f\x8b no gzip at all")
	}))
	got, err := get(t, newClient(t, quick()), Request{URL: url})
	if err != nil || got != "\x1f\x8b no gzip at all" {
		t.Errorf("got %q, %v", got, err)
	}
	if agent != "caisson/test" || accept != "identity" {
		t.Errorf("got %q, %q", agent, accept)
	}
}

func TestFileURL(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a file")
	if err := os.WriteFile(path, []byte(hello), 0o644); err != nil {
		t.Fatal(err)
	}
	u := (&url.URL{Scheme: "file", Path: path}).String()
	c := newClient(t, quick())
	if got, err := get(t, c, Request{URL: u, Size: int64(len(hello))}); err != nil || got != hello {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := get(t, c, Request{URL: u, Size: 3}); err == nil {
		t.Error("another size is no error")
	}
	if _, err := get(t, c, Request{URL: u + "x"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	for _, bad := range []string{"file://" + dir, "file:///dev/zero", "file://other.example/a"} {
		if _, err := get(t, c, Request{URL: bad}); err == nil {
			t.Errorf("%s is no error", bad)
		}
	}
}

func TestNetrc(t *testing.T) {
	rc := parseNetrc("# comment\nmachine a.example login me password one\nmachine a.example login x password y\n" +
		"machine b.example\n  login you\n  password two\nmacdef init\nmachine c.example login no password no\n\n" +
		`machine q.example login "a user" password "a \"word\" of\\ four"` + "\nmachine n.example account x password alone\n" +
		"default login any password three\nmachine d.example login late password late\n")
	for _, c := range []struct{ url, login, password string }{
		{"https://a.example/x", "me", "one"}, {"https://B.example:8443/", "you", "two"},
		{"https://c.example/", "any", "three"}, {"https://d.example/", "any", "three"},
		{"https://q.example/", "a user", `a "word" of\ four`}, {"https://n.example/", "", "alone"}, {"http://a.example/", "", ""},
	} {
		u, _ := url.Parse(c.url)
		if login, password, ok := rc.find(u); login != c.login && ok || password != c.password && ok || ok != (c.password != "") {
			t.Errorf("%s: got %q, %q, %v", c.url, login, password, ok)
		}
	}
}

// What curl sends to whom.
func TestNetrcCurl(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Header.Get("Authorization")) }))
	for n, text := range []string{
		"machine a.example login me password one\nmachine b.example\n login you\n password two\n",
		"machine a.example password one login me machine b.example login you password two",
		"default login any password three\nmachine a.example login me password one\n",
		"machine b.example login you password two\n# machine a.example login x password y\ndefault login any password three\n",
		"machine a.example login \"a b\" password \"c\\\"d\\\\\"\n",
		"macdef init\nmachine a.example login x password y\n\nmachine a.example login me password one\n",
		"machine a.example login me password one\nmachine a.example login second password two\n",
		"",
	} {
		path := filepath.Join(t.TempDir(), "netrc")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		rc, err := readNetrc(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, host := range []string{"a.example", "b.example", "A.example"} {
			want, err := exec.Command("curl", "-s", "--netrc-file", path, "-x", proxy, "http://"+host+"/").Output()
			if err != nil {
				t.Fatal(err)
			}
			got := ""
			if login, password, ok := rc.find(&url.URL{Scheme: "https", Host: host}); ok {
				got = basicValue(login, password)
			}
			if got != string(want) {
				t.Errorf("%d, %s: got %q, curl sends %q", n, host, got, want)
			}
		}
	}
}

func TestTLS(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.StartTLS()
	defer srv.Close()
	cfg := quick()
	c := newClient(t, cfg)
	if _, err := get(t, c, Request{URL: srv.URL}); err == nil || !strings.Contains(err.Error(), "certificate") || c.Requests() != 1 {
		t.Errorf("a stranger's certificate: got %v, %d requests", err, c.Requests())
	}
	cfg.RootCAs = x509.NewCertPool()
	cfg.RootCAs.AddCert(srv.Certificate())
	if got, err := get(t, newClient(t, cfg), Request{URL: srv.URL}); err != nil || got != "HTTP/2.0" {
		t.Errorf("got %q, %v", got, err)
	}
}

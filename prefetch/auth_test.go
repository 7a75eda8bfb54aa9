package prefetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"io/fs"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB, name string) *authority {
	a := new(authority)
	c := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	a.cert, a.key = a.issue(t, c, time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw}))
	return a
}

func (a *authority) issue(t testing.TB, c *x509.Certificate, from, to time.Time) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = from, to
	parent, by := a.cert, a.key
	if parent == nil {
		parent, by = c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, by)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// client makes a client certificate and its key, in PEM.
func (a *authority) client(t testing.TB, from, to time.Duration) (cert, key string) {
	c, k := a.issue(t, &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "client"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}},
		time.Now().Add(from), time.Now().Add(to))
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// serveTLS serves with a certificate of the authority; clients are those whose
// client certificates it believes.
func (a *authority) serveTLS(t testing.TB, h http.Handler, auth tls.ClientAuthType, clients *authority) *httptest.Server {
	t.Helper()
	c, k := a.issue(t, &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "server"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost"}},
		time.Now().Add(-time.Hour), time.Now().Add(time.Hour))
	s := httptest.NewUnstartedServer(h)
	s.EnableHTTP2 = true
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{c.Raw}, PrivateKey: k}}, ClientAuth: auth}
	if clients != nil {
		s.TLS.ClientCAs = x509.NewCertPool()
		s.TLS.ClientCAs.AddCert(clients.cert)
	}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

// environment makes variables an Env.
func environment(kv ...string) func(string) string {
	return func(name string) string {
		for i := 0; i < len(kv); i += 2 {
			if kv[i] == name {
				return kv[i+1]
			}
		}
		return ""
	}
}

func TestClientCertificate(t *testing.T) {
	ca, other, site := newAuthority(t, "clients"), newAuthority(t, "others"), newAuthority(t, "site")
	dir := t.TempDir()
	cert, key := ca.client(t, -time.Hour, time.Hour)
	oldCert, oldKey := ca.client(t, -48*time.Hour, -24*time.Hour)
	newCert, newKey := ca.client(t, 24*time.Hour, 48*time.Hour)
	foreignCert, foreignKey := other.client(t, -time.Hour, time.Hour)
	write(t, dir, map[string]string{
		"c.pem": cert, "c.key": key, "both.pem": key + cert, "ca.pem": site.pem, "old.pem": oldCert, "old.key": oldKey, "new.pem": newCert, "new.key": newKey,
		"foreign.pem": foreignCert, "foreign.key": foreignKey, "text": "no certificate",
		"locked.key": "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
	})
	srv := site.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}), tls.RequireAndVerifyClientCert, ca)
	old := time.Now().Add(-24 * time.Hour).UTC().Format(time.DateOnly)
	soon := time.Now().Add(24 * time.Hour).UTC().Format(time.DateOnly)
	at := func(name string) string { return filepath.Join(dir, name) }
	for _, c := range []struct {
		name string
		auth lock.AuthTLS
		err  string // where it cannot be had
	}{
		{"files of the project", lock.AuthTLS{Cert: "c.pem", Key: "c.key", CA: "ca.pem"}, ""},
		{"absolute", lock.AuthTLS{Cert: at("c.pem"), Key: at("c.key"), CA: at("ca.pem")}, ""},
		{"one file", lock.AuthTLS{Cert: "both.pem", CA: "ca.pem"}, ""},
		{"variables", lock.AuthTLS{Cert: "$CERT", Key: "${KEY}", CA: "$DIR/ca.pem"}, ""},
		{"unset", lock.AuthTLS{Cert: "$SSL_CLIENT_CERT", Key: "c.key", CA: "ca.pem"},
			"the client certificate is $SSL_CLIENT_CERT, and neither DNF_VAR_SSL_CLIENT_CERT nor SSL_CLIENT_CERT is set"},
		{"missing", lock.AuthTLS{Cert: "gone.pem", Key: "c.key", CA: "ca.pem"}, "reading the client certificate: stat " + at("gone.pem") + ": no such file"},
		{"missing key", lock.AuthTLS{Cert: "c.pem", Key: "gone.key", CA: "ca.pem"}, "reading the client certificate's key: stat " + at("gone.key")},
		{"missing CA", lock.AuthTLS{CA: "gone.pem"}, "reading the CA certificate: stat " + at("gone.pem")},
		{"key alone", lock.AuthTLS{Key: "c.key", CA: "ca.pem"}, "and no certificate"},
		{"expired", lock.AuthTLS{Cert: "old.pem", Key: "old.key", CA: "ca.pem"}, "the client certificate " + at("old.pem") + " expired on " + old},
		{"not yet", lock.AuthTLS{Cert: "new.pem", Key: "new.key", CA: "ca.pem"}, "the client certificate " + at("new.pem") + " is not valid before " + soon},
		{"another's key", lock.AuthTLS{Cert: "c.pem", Key: "old.key", CA: "ca.pem"}, "the client certificate " + at("c.pem") + " and the key " + at("old.key") + ": tls: private key does not match"},
		{"encrypted", lock.AuthTLS{Cert: "c.pem", Key: "locked.key", CA: "ca.pem"}, at("locked.key") + ": it is encrypted"},
		{"no certificate in it", lock.AuthTLS{Cert: "text", Key: "c.key", CA: "ca.pem"}, at("text") + ": it has no certificate"},
		{"no key in it", lock.AuthTLS{Cert: "c.pem", Key: "c.pem", CA: "ca.pem"}, at("c.pem") + ": it has no private key"},
		{"no CA in it", lock.AuthTLS{CA: "text"}, "the CA certificate " + at("text") + ": it has no certificate"},
		{"a folder", lock.AuthTLS{Cert: ".", Key: "c.key"}, "want a regular file"},
		{"not believed", lock.AuthTLS{Cert: "foreign.pem", Key: "foreign.key", CA: "ca.pem"}, "the server does not accept the client certificate " + at("foreign.pem") + ": tls: "},
		{"none", lock.AuthTLS{CA: "ca.pem"}, "the server wants a client certificate: tls: "},
		{"a server of others", lock.AuthTLS{Cert: "c.pem", Key: "c.key"}, "x509: certificate signed by unknown authority"},
		{"a server of others than the CA's", lock.AuthTLS{Cert: "c.pem", Key: "c.key", CA: "c.pem"}, "trusted are the system's certificates and those of " + at("c.pem")},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := quick()
			cfg.Retries = 10
			cfg.Dir, cfg.Env = dir, environment("DNF_VAR_CERT", "c.pem", "CERT", "text", "KEY", at("c.key"), "DIR", dir)
			client := newClient(t, cfg)
			got, err := get(t, client, Request{URL: srv.URL, Auth: &lock.Auth{TLS: &c.auth}})
			if c.err == "" {
				if err != nil || got != "client" {
					t.Errorf("got %q, %v", got, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want %s", err, c.err)
			}
			if n := client.Requests(); n > 1 && !strings.Contains(c.err, "server") { // its alert may come after the connection's end
				t.Errorf("%d requests", n)
			}
		})
	}
}

// seen is what a server was told by its clients.
type seen struct {
	mu  sync.Mutex
	all []string
}

func (s *seen) note(r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	certs := 0
	if r.TLS != nil {
		certs = len(r.TLS.PeerCertificates)
	}
	s.all = append(s.all, fmt.Sprintf("%s auth=%q token=%q certs=%d", r.URL.Path, r.Header.Get("Authorization"), r.Header.Get("X-Token"), certs))
}

func (s *seen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.all, "\n")
}

// Neither password nor token nor certificate goes where the server redirects
// to, and all come back with it.
func TestLoginsStay(t *testing.T) {
	ca := newAuthority(t, "all")
	cert, key := ca.client(t, -time.Hour, time.Hour)
	dir := t.TempDir()
	write(t, dir, map[string]string{"c.pem": cert, "c.key": key, "password": "s3cret\nmore\n"})
	var mine, others seen
	var home, abroad *httptest.Server
	home = ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mine.note(r)
		if r.URL.Path == "/away" {
			http.Redirect(w, r, abroad.URL+"/there", http.StatusFound)
			return
		}
		io.WriteString(w, hello)
	}), tls.RequestClientCert, ca)
	abroad = ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		others.note(r)
		http.Redirect(w, r, home.URL+"/back", http.StatusFound)
	}), tls.RequestClientCert, ca)
	cfg := quick()
	cfg.Dir, cfg.Env = dir, environment("TOKEN", "t0ken")
	cfg.RootCAs = x509.NewCertPool()
	cfg.RootCAs.AddCert(ca.cert)
	withTLS := &lock.AuthTLS{Cert: "c.pem", Key: "c.key"}
	for _, c := range []struct {
		auth lock.Auth
		sent string
	}{
		{lock.Auth{TLS: withTLS}, `auth="" token="" certs=1`},
		{lock.Auth{TLS: withTLS, Basic: &lock.AuthBasic{Username: "me", Password: "password"}}, `auth="Basic bWU6czNjcmV0" token="" certs=1`},
		{lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN"}}, `auth="Bearer t0ken" token="" certs=0`},
		{lock.Auth{Bearer: &lock.AuthBearer{Token: "token $TOKEN", Raw: true}}, `auth="token t0ken" token="" certs=0`},
		{lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN", Header: "x-token"}}, `auth="" token="t0ken" certs=0`},
	} {
		mine.all, others.all = nil, nil
		if got, err := get(t, newClient(t, cfg), Request{URL: home.URL + "/away", Auth: &c.auth}); err != nil || got != hello {
			t.Fatalf("got %q, %v", got, err)
		}
		if want := "/away " + c.sent + "\n/back " + c.sent; mine.String() != want {
			t.Errorf("at home: got\n%s\nwant\n%s", &mine, want)
		}
		if want := `/there auth="" token="" certs=0`; others.String() != want {
			t.Errorf("elsewhere: got %s", &others)
		}
	}
}

// By http a login goes to this machine only.
func TestLoginsByHTTP(t *testing.T) {
	var got seen
	url := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { got.note(r) }))
	cfg := quick()
	cfg.Env = environment("TOKEN", "t0ken")
	auth := &lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN"}, Proxy: url}
	c := newClient(t, cfg)
	_, err := get(t, c, Request{URL: "http://files.example/a", Auth: auth})
	if err == nil || !strings.Contains(err.Error(), "a login is not sent by http") || c.Requests() != 0 || len(got.all) != 0 {
		t.Errorf("got %v, %d requests, %s", err, c.Requests(), &got)
	}
	auth.Proxy = ""
	if _, err = get(t, c, Request{URL: url, Auth: auth}); err != nil || got.String() != `/ auth="Bearer t0ken" token="" certs=0` {
		t.Errorf("got %v, %s", err, &got)
	}
	auth = &lock.Auth{TLS: &lock.AuthTLS{}} // nothing of it is sent
	if _, err = get(t, c, Request{URL: url, Auth: auth}); err != nil {
		t.Error(err)
	}
}

func TestSecrets(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"token": "from-file\r\nrest", "empty": "\n"})
	cfg := quick()
	cfg.Dir, cfg.Env = dir, environment("A", "one", "DNF_VAR_A", "two", "B", "three", "WHERE", "token")
	for _, c := range []struct {
		in        lock.Secret
		want, err string
	}{
		{"$A", "two", ""}, {"${B}", "three", ""}, {"token", "from-file", ""}, {"$WHERE", "token", ""},
		{"token $A-${B}$$", "token two-three$", ""}, {"key=$NONE", "", "the token is $NONE, and neither"},
		{"$NONE", "", "the token is $NONE, and neither DNF_VAR_NONE nor NONE is set in the environment"},
		{"hunter2-hunter2", "", "is to be read from a file that is not there"},
		{"eyJ.a/b$c", "", "neither"}, {"", "", "neither"}, {"a\x00b", "", "reading the token"},
		{"empty", "", "has 0 bytes"}, {".", "", "is a directory"},
	} {
		got, err := cfg.secret("token", c.in)
		if got != c.want || (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %q, %v, want %q, %s", c.in, got, err, c.want, c.err)
		}
		if err != nil && (strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "eyJ")) {
			t.Errorf("it may be a secret: %v", err)
		}
	}
	if _, err := (Config{}).secret("token", "$A"); err == nil {
		t.Error("without an environment there are variables")
	}
}

func TestProxyOfAuth(t *testing.T) {
	var by seen
	proxy := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		by.note(r)
		io.WriteString(w, "by proxy")
	}))
	target := serve(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "direct") }))
	cfg := quick()
	cfg.Env = environment("PROXY", strings.TrimPrefix(proxy, "http://"))
	cfg.Proxy = func(*url.URL) (*url.URL, error) { return url.Parse(proxy) }
	c := newClient(t, cfg)
	for _, p := range []struct{ proxy, url, want string }{
		{noProxy, target, "direct"}, {"$PROXY", "http://files.example/x", "by proxy"}, {proxy, "http://files.example/x", "by proxy"}, {"", "http://files.example/x", "by proxy"},
	} {
		if got, err := get(t, c, Request{URL: p.url, Auth: &lock.Auth{Proxy: p.proxy}}); err != nil || got != p.want {
			t.Errorf("%q: got %q, %v", p.proxy, got, err)
		}
	}
	for _, bad := range []string{"ftp://user:hunter2@proxy.example", "http://", "$NONE"} {
		if _, err := get(t, c, Request{URL: target, Auth: &lock.Auth{Proxy: bad}}); err == nil || !strings.Contains(err.Error(), "proxy") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

// Who is refused hears what was sent, by name.
func TestRefusedLogins(t *testing.T) {
	ca := newAuthority(t, "all")
	cert, key := ca.client(t, -time.Hour, time.Hour)
	cfg := quick()
	cfg.Dir, cfg.Env = t.TempDir(), environment("TOKEN", "t0ken")
	write(t, cfg.Dir, map[string]string{"c.pem": cert, "c.key": key, "ca.pem": ca.pem})
	url := ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }), tls.RequestClientCert, ca).URL
	for _, c := range []struct {
		auth lock.Auth
		want string
	}{
		{lock.Auth{TLS: &lock.AuthTLS{Cert: "c.pem", Key: "c.key", CA: "ca.pem"}}, "403 Forbidden (with the client certificate " + filepath.Join(cfg.Dir, "c.pem") + ")"},
		{lock.Auth{TLS: &lock.AuthTLS{CA: "ca.pem"}}, "403 Forbidden (without a login)"},
		{lock.Auth{TLS: &lock.AuthTLS{CA: "ca.pem"}, Bearer: &lock.AuthBearer{Token: "$TOKEN"}}, "403 Forbidden"},
	} {
		if _, err := get(t, newClient(t, cfg), Request{URL: url, Auth: &c.auth}); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

// Fill logs in by what the lock says of repository and input, and keeps
// nothing of it.
func TestFillLogins(t *testing.T) {
	w, s := newWorld(t), newStore(t)
	ca := newAuthority(t, "all")
	cert, key := ca.client(t, -time.Hour, time.Hour)
	write(t, w.dir, map[string]string{"c.pem": cert, "c.key": key, "ca.pem": ca.pem})
	var certs, tokens seen
	rpms := ca.serveTLS(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		certs.note(r)
		w.srv.ServeHTTP(rw, r)
	}), tls.RequireAndVerifyClientCert, ca)
	files := serve(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		tokens.note(r)
		w.srv.ServeHTTP(rw, r)
	}))
	w.lock.Repos[0].BaseURL = rpms.URL + "/rpm/"
	w.lock.Repos[0].Auth = &lock.Auth{TLS: &lock.AuthTLS{Cert: "$CERT", Key: "c.key", CA: "ca.pem"}}
	iso := w.find(t, "an.iso")
	iso.URL, iso.Auth = files+"/files/iso", &lock.Auth{Bearer: &lock.AuthBearer{Token: "$TOKEN"}}
	w.cfg.Env = environment("CERT", "c.pem", "TOKEN", "a-long-and-secret-token")
	if _, err := fill(t, w, s); err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(certs.String(), "certs=1"); n != 3 || strings.Contains(certs.String(), "secret") {
		t.Errorf("the repository saw\n%s", &certs)
	}
	if tokens.String() != `/files/iso auth="Bearer a-long-and-secret-token" token="" certs=0` {
		t.Errorf("the files' server saw\n%s", &tokens)
	}
	hidden(t, s.Dir(), "a-long-and-secret-token", "c.pem")

	// An address of another host in the repository's metadata gets nothing.
	certs.all = nil
	in := w.find(t, "hello-2:1.0-3.noarch")
	in.URL = ca.serveTLS(t, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		certs.note(r)
		w.srv.ServeHTTP(rw, r)
	}), tls.RequestClientCert, ca).URL + "/rpm/Packages/hello.rpm"
	w.cfg.RootCAs = x509.NewCertPool()
	w.cfg.RootCAs.AddCert(ca.cert)
	if _, err := Fill(context.Background(), w.lock, newStore(t), w.options()); err != nil || !strings.Contains(certs.String(), `hello.rpm auth="" token="" certs=0`) {
		t.Errorf("got %v,\n%s", err, &certs)
	}
	w.cfg.Env = nil
	_, err := Fill(context.Background(), w.lock, newStore(t), w.options())
	if err == nil || !strings.Contains(err.Error(), "the client certificate is $CERT, and neither DNF_VAR_CERT nor CERT is set") || !strings.Contains(err.Error(), "the token is $TOKEN") {
		t.Errorf("got %v", err)
	}
}

// hidden looks for texts in all files of a folder and in their names.
func hidden(t *testing.T, dir string, texts ...string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		for _, text := range texts {
			if strings.Contains(string(b), text) || strings.Contains(filepath.Base(path), text) {
				t.Errorf("%s has %q", path, text)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// SSL_CERT_FILE is trusted as Go and OpenSSL have it; a child reads it, as it
// is read once in a process.
func TestCertFile(t *testing.T) {
	ca := newAuthority(t, "site")
	srv := ca.serveTLS(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, anISO) }), tls.NoClientCert, nil)
	dir := t.TempDir()
	write(t, dir, map[string]string{"ca.pem": ca.pem})
	s := newStore(t)
	for _, env := range []string{"SSL_CERT_FILE=/nowhere", "SSL_CERT_FILE=" + filepath.Join(dir, "ca.pem")} {
		c := child(s.Dir()+" "+srv.URL+" iso", env)
		said, err := c.CombinedOutput()
		if trusted := strings.Contains(env, dir); (err == nil) != trusted || !trusted && !strings.Contains(string(said), "x509") {
			t.Errorf("%s: %v, %s", env, err, said)
		}
	}
	if !s.Has(digest.Of([]byte(anISO))) {
		t.Error("it is not in the store")
	}
}

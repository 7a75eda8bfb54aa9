package prefetch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"

	"caisson/lock"
)

// noProxy is what an Auth says where no proxy is to be used.
const noProxy = "_none_"

// maxSecret is the longest secret that is read from a file, in bytes.
const maxSecret = 64 << 10

// login is how the server that is asked is logged in to. What other servers
// get, to which it may redirect, has nothing of it but the proxy.
type login struct {
	transport http.RoundTripper // to the server that is asked
	elsewhere http.RoundTripper // to all others
	// header and value are sent to it; an empty header for nothing.
	header, value string
	by            string        // as LoginOf says it; empty where nothing says who asks
	more          http.Header   // is sent besides
	offline       *offlineToken // instead of a value that is known
	cert          string        // the path of the client certificate
	ca            string        // the path of the certificates that are trusted besides
}

// logins are the logins and transports that a client has made.
type logins struct {
	mu         sync.Mutex
	made       map[string]func() (*login, error) // by the Auth, as JSON
	transports map[transportKey]*reacher
}

// transportKey is what one transport differs by from another.
type transportKey struct{ cert, key, ca, proxy string }

// loginFor is the login for a request, by its Auth, whose files are read once.
// Without one that sends something, .netrc counts.
func (c *Client) loginFor(req *Request, u *url.URL) (*login, error) {
	if req.through != nil {
		return &login{transport: req.through, elsewhere: req.through, by: req.by}, nil
	}
	l := &login{transport: c.http.Transport, elsewhere: c.http.Transport}
	if req.Auth != nil {
		var err error
		if l, err = c.loginBy(req.Auth); err != nil {
			return nil, err
		}
	}
	if req.token != "" {
		with := *l
		with.header, with.value, with.by = "Authorization", req.token, byCargo
		return &with, nil
	}
	if name, password, ok := c.netrc.find(u); ok && l.header == "" && u.User == nil {
		with := *l
		with.header, with.value, with.by = "Authorization", basicValue(name, password), byNetrc
		return &with, nil
	}
	return l, nil
}

func (c *Client) loginBy(a *lock.Auth) (*login, error) {
	b, err := json.Marshal(a)
	if err != nil {
		return nil, err
	}
	c.logins.mu.Lock()
	once := c.logins.made[string(b)]
	if once == nil {
		once = sync.OnceValues(func() (*login, error) { return c.makeLogin(a) })
		c.logins.made[string(b)] = once
	}
	c.logins.mu.Unlock()
	return once()
}

func (c *Client) makeLogin(a *lock.Auth) (*login, error) {
	l := new(login)
	key := transportKey{}
	var err error
	if key.proxy, err = c.cfg.expand("proxy", a.Proxy); err != nil {
		return nil, err
	}
	if l.elsewhere, err = c.transport(key); err != nil {
		return nil, err
	}
	if a.TLS != nil {
		if err := c.cfg.tlsPaths(a.TLS, &key); err != nil {
			return nil, err
		}
	}
	if l.transport, err = c.transport(key); err != nil {
		return nil, err
	}
	l.cert, l.ca = key.cert, key.ca
	if Restricts(a) {
		l.by = byAuth
	}
	switch {
	case a.Basic != nil:
		err = l.basic(c.cfg, a.Basic)
	case a.Bearer != nil:
		err = l.bearer(c.cfg, a.Bearer)
	case a.OfflineToken != nil:
		l.header = "Authorization"
		l.offline, err = newOfflineToken(c.cfg, a.OfflineToken, l.elsewhere)
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// transport makes a transport, or takes one that was made before.
func (c *Client) transport(key transportKey) (http.RoundTripper, error) {
	if key == (transportKey{}) {
		return c.http.Transport, nil
	}
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	if t := c.logins.transports[key]; t != nil {
		return t, nil
	}
	t := newReacher(NewTransport(c.cfg), c.cfg)
	var err error
	if t.TLSClientConfig, err = tlsConfig(t.TLSClientConfig, key); err != nil {
		return nil, err
	}
	switch key.proxy {
	case "":
	case noProxy:
		t.Proxy = nil
	default:
		proxy, err := proxyURL(key.proxy)
		if err != nil {
			return nil, err
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	c.logins.transports[key] = t
	return t, nil
}

// proxyURL reads a proxy's address as dnf and curl do: without a scheme it is
// an HTTP proxy.
func proxyURL(s string) (*url.URL, error) {
	if !strings.Contains(s, "://") {
		s = "http://" + s
	}
	u, err := url.Parse(s)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("proxy %q is not an address", safeURL(s))
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
		return u, nil
	}
	return nil, fmt.Errorf("proxy %s: scheme %q is not supported", safeURL(s), u.Scheme)
}

func (l *login) basic(cfg Config, a *lock.AuthBasic) error {
	user, err := cfg.expand("user name", a.Username)
	if err != nil {
		return err
	}
	if strings.Contains(user, ":") {
		return errors.New("the user name has a colon (RFC 7617, section 2)")
	}
	password, err := cfg.secret("password", a.Password)
	if err != nil {
		return err
	}
	l.header, l.value = "Authorization", basicValue(user, password)
	return nil
}

// basicValue is a header's value (RFC 7617, section 2).
func basicValue(user, password string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user+":"+password))
}

func (l *login) bearer(cfg Config, a *lock.AuthBearer) error {
	token, err := cfg.secret("token", a.Token)
	if err != nil {
		return err
	}
	l.header, l.value = "Authorization", "Bearer "+token
	if a.Header != "" && !strings.EqualFold(a.Header, l.header) {
		l.header, l.value = a.Header, token
	} else if a.Raw {
		l.value = token
	}
	if !httpguts.ValidHeaderFieldName(l.header) {
		return fmt.Errorf("the token's header %q is no header's name", a.Header)
	}
	if !httpguts.ValidHeaderFieldValue(l.value) {
		return errors.New("the token has characters that cannot be sent")
	}
	return nil
}

// mayGo tells whether the login's secrets may be sent to an address: by https,
// or to this machine.
func (l *login) mayGo(u *url.URL) error {
	if l.header == "" && len(l.more) == 0 || u.Scheme == "https" || u.Scheme == "http" && isLoopback(u.Hostname()) {
		return nil
	}
	return fmt.Errorf("a login is not sent by %s", u.Scheme)
}

// isLoopback tells whether a host is, by its name, this machine.
func isLoopback(name string) bool {
	ip := net.ParseIP(name)
	return strings.EqualFold(name, "localhost") || ip != nil && ip.IsLoopback()
}

// sender sends a request and those that its redirects come to.
type sender struct {
	l   *login
	url *url.URL // that is asked
	way *journey
}

func newSender(l *login, u *url.URL) *sender { return &sender{l, u, newJourney(u)} }

// RoundTrip logs in to the server that is asked, and to no other.
func (s *sender) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.WithContext(s.way.within(r.Context()))
	if !sameServer(r.URL, s.url) {
		return s.l.elsewhere.RoundTrip(r)
	}
	if len(s.l.more) > 0 {
		r = r.Clone(r.Context())
		maps.Copy(r.Header, s.l.more)
	}
	if s.l.header != "" {
		value := s.l.value
		if s.l.offline != nil {
			var err error
			if value, err = s.l.offline.get(r.Context()); err != nil {
				return nil, err
			}
		}
		r = r.Clone(r.Context())
		r.Header.Set(s.l.header, value)
	}
	resp, err := s.l.transport.RoundTrip(r)
	if err != nil {
		return nil, s.l.explain(err)
	}
	return resp, nil
}

func sameServer(a, b *url.URL) bool { return a.Scheme == b.Scheme && a.Host == b.Host }

// lookup gives a variable as dnf does, of whose variables DNF_VAR_NAME is one.
func (c Config) lookup(name string) (string, bool) {
	if c.Env == nil {
		return "", false
	}
	for _, n := range []string{"DNF_VAR_" + name, name} {
		if v := c.Env(n); v != "" {
			return v, true
		}
	}
	return "", false
}

// unset says which variable a thing of an Auth lacks.
func unset(what, name string) error {
	return fmt.Errorf("the %s is $%s, and neither DNF_VAR_%s nor %s is set in the environment", what, name, name, name)
}

// expand puts in the variables of a text; "$$" is a dollar sign.
func (c Config) expand(what, s string) (string, error) {
	var err error
	out := os.Expand(s, func(name string) string {
		if name == "$" {
			return name
		}
		v, ok := c.lookup(name)
		if !ok && err == nil {
			err = unset(what, name)
		}
		return v
	})
	if err != nil {
		return "", err
	}
	return out, nil
}

// path is where a file of an Auth is.
func (c Config) path(what, s string) (string, error) {
	p, err := c.expand(what, s)
	if err != nil || p == "" || filepath.IsAbs(p) {
		return p, err
	}
	if c.Dir == "" {
		return "", fmt.Errorf("the %s %s is a file of the project, and there is no project", what, p)
	}
	return filepath.Join(c.Dir, p), nil
}

// secret reads a secret. No error says what it is, nor where it was looked
// for where nothing is: that may be the secret itself, written where its path
// belongs.
func (c Config) secret(what string, s lock.Secret) (string, error) {
	if s.HasVariable() {
		return c.expand(what, string(s))
	}
	path, err := c.path(what, string(s))
	if err != nil || path == "" {
		return "", fmt.Errorf(`the %s is neither "$NAME" nor the path of a file that can be found`, what)
	}
	f, err := os.Open(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, os.ErrInvalid):
		return "", fmt.Errorf(`the %s is to be read from a file that is not there (a secret is "$NAME" or the path of a file)`, what)
	case err != nil:
		return "", fmt.Errorf("reading the %s: %w", what, err)
	}
	defer f.Close()
	line, err := bufio.NewReader(io.LimitReader(f, maxSecret)).ReadBytes('\n')
	if err != nil && err != io.EOF {
		return "", fmt.Errorf("reading the %s: %w", what, err)
	}
	if line = bytes.TrimRight(line, "\r\n"); len(line) == 0 || len(line) >= maxSecret {
		return "", fmt.Errorf("reading the %s: the first line of %s has %d bytes, want 1 to %d", what, path, len(line), maxSecret-1)
	}
	return string(line), nil
}

// ask sends one GET with a login.
func (c *Client) ask(ctx context.Context, l *login, u *url.URL, header http.Header) (*http.Response, error) {
	if err := l.mayGo(u); err != nil {
		return nil, permanent{err}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = header
	c.requests.Add(1)
	h := http.Client{Transport: newSender(l, u), CheckRedirect: checkRedirect}
	return h.Do(req)
}

// Package prefetch fills the store with the inputs of a lock, and proves them.
//
// # The promise
//
// Nothing gets its final name in the store before it has been proved:
//
//	all inputs   SHA-256 and size as the lock has them
//	rpm          name, epoch, version, release and architecture are the lock's, header and
//	             payload what the package's own SHA-256 say; where the lock says so, signed by one of the keys that its repository trusts
//	go           h1 of the zip or of go.mod, as go.sum has it; a zip that go will unpack
//	toolchain    h1, as the checksum database has it
//	crate        Cargo.lock's checksum, which is the SHA-256; an archive of files below
//	             NAME-VERSION/
//	tree         the local folder packs to the SHA-256 that was locked
//	oci          the digest of its address, which is the SHA-256
//	git          commit, tree and tag are the lock's, made anew from the contents (see gittree)
//
// A proof that took reading is remembered in the store with what it was made
// against (the file, the fingerprint, the key's own digest), so that a second
// run over a full store reads no file. Fill looks at the sizes of what is
// there; Verify reads it all, as a build does.
//
// # Limits
//
// Go modules come from module proxies, and "direct" from git repositories only,
// which git's own configuration may have a mirror take the place of (GitConfig);
// crates from registries with a sparse index, with the tokens that cargo itself
// keeps in its files and variables (cargo:token); images from the registry that
// the lock names, or the mirrors that registries.conf has for it, with the logins
// of docker and podman, and without TLS from this machine, or where that file
// says so. An idle
// server is given up on, a slow one is not. There is no limit on time but the
// context's.
//
// # Logins
//
// What an Auth of the lock names is read when it is needed, and sent to the
// server of the address that the lock has, and to no other that it redirects
// to: password and token by https, or by http to this machine, a certificate
// by https. Where an Auth says nothing that is sent, .netrc counts. Nothing of
// it is in an error, in the store or in its keys; that a file was logged in for,
// and by what kind of login, is remembered beside it (LoginOf), as it may not be
// everybody's to have.
//
// # Redirects
//
// At most ten are followed; to http and https addresses only, not from https to
// http, and not to what is nearer than who sends there: from the public network
// to a private one, or from elsewhere to this machine or its link. What a name
// resolves to counts; behind a proxy, which resolves the names, only names of
// this machine are known.
//
// # Mirrors
//
// Of several places of a file each is tried after the one before has failed,
// whatever the reason. What has come of a file whose digest is known is gone
// on with at the next one: the digest tells whether the parts fit. An address
// without a digest is asked again every time, on the condition that the file
// has changed since the answer that the store has (RFC 9110, section 13).
//
// A transfer that is cut is gone on with: by the same run where the server
// names the file's version (ETag, Last-Modified) or the digest is known, by a
// later one where the digest is and a megabyte has come; the store keeps what
// came under the digest that it is to have. All of it is hashed again, and
// where the whole is not the digest's it is fetched from the start.
//
// This is the only package of the five stages before attest that uses the
// network.
package prefetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// maxRedirects is how often one request may be sent elsewhere.
const maxRedirects = 10

// maxHeader is how many bytes the head of an answer may have.
const maxHeader = 1 << 20

// downFor is how long a host that could not be reached is left alone.
const downFor = 30 * time.Second

// Client fetches files by HTTP, HTTPS and from file:// addresses. It may be
// used from many goroutines; its limits hold for all of them together.
type Client struct {
	cfg      Config
	http     *http.Client // where no Auth says otherwise
	logins   logins
	netrc    netrc
	requests atomic.Int64
	chunks   sync.Pool // of *[chunkSize]byte

	mu    sync.Mutex
	hosts map[string]*host
}

// host is what the client knows of one server.
type host struct {
	slots chan struct{} // one for each request that may run

	mu   sync.Mutex
	down time.Time // when it could not be reached
	err  error
}

// NewClient makes a client. It reads cfg.Netrc; that file may be absent.
func NewClient(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	rc, err := readNetrc(cfg.Netrc)
	if err != nil {
		return nil, err
	}
	c := &Client{cfg: cfg, netrc: rc, hosts: make(map[string]*host)}
	c.logins.made = make(map[string]func() (*login, error))
	c.logins.transports = map[transportKey]*reacher{{}: newReacher(NewTransport(cfg), cfg)}
	var t http.RoundTripper = c.logins.transports[transportKey{}]
	if cfg.Login != nil {
		t = cfg.Login(t)
	}
	c.http = &http.Client{Transport: t, CheckRedirect: checkRedirect}
	return c, nil
}

// NewTransport makes a transport with the proxies, certificates and limits of
// a Config.
func NewTransport(cfg Config) *http.Transport {
	cfg = cfg.withDefaults()
	t := &http.Transport{
		DialContext:         newDialer(cfg).DialContext,
		TLSClientConfig:     &tls.Config{RootCAs: cfg.RootCAs, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: cfg.ConnectTimeout,
		ForceAttemptHTTP2:   true,
		DisableCompression:  true, // the bytes that are locked are those on the wire
		MaxIdleConnsPerHost: cfg.PerHost,
		IdleConnTimeout:     90 * time.Second,

		MaxResponseHeaderBytes: maxHeader,
	}
	if cfg.Proxy != nil {
		t.Proxy = func(r *http.Request) (*url.URL, error) { return cfg.Proxy(r.URL) }
	}
	return t
}

func newDialer(cfg Config) *net.Dialer {
	return &net.Dialer{Timeout: cfg.ConnectTimeout, KeepAlive: 30 * time.Second}
}

// Requests is how many HTTP requests have been sent, retries included.
func (c *Client) Requests() int64 { return c.requests.Load() }

// CloseIdle closes the connections that are kept for later requests.
func (c *Client) CloseIdle() {
	c.logins.mu.Lock()
	defer c.logins.mu.Unlock()
	for _, t := range c.logins.transports {
		t.CloseIdleConnections()
	}
}

// errRedirect says that a redirect was not followed.
var errRedirect = errors.New("redirect refused")

// checkRedirect keeps passwords and addresses from other hosts, and refuses
// what mayLead refuses.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d of them", errRedirect, maxRedirects)
	}
	first := via[0].URL
	if err := mayLead(first, via[len(via)-1].URL, req.URL); err != nil {
		return err
	}
	req.Header.Del("Referer")
	if !sameServer(req.URL, first) {
		req.Header.Del("Authorization")
		req.Header.Del("Cookie")
	}
	return nil
}

// mayLead refuses to be led from https to http, to anything that is no HTTP,
// and from another host to this machine or its link.
func mayLead(first, last, next *url.URL) error {
	to := next.Scheme + "://" + next.Host
	switch {
	case next.Scheme != "http" && next.Scheme != "https":
		return fmt.Errorf("%w: to %s", errRedirect, to)
	case last.Scheme == "https" && next.Scheme == "http":
		return fmt.Errorf("%w: from https to %s", errRedirect, to)
	case IsLocal(next.Hostname()) && !IsLocal(first.Hostname()):
		return fmt.Errorf("%w: from %s to this machine's %s", errRedirect, first.Hostname(), to)
	}
	return nil
}

// IsLocal tells whether a host is, by its name, this machine or on its link.
func IsLocal(name string) bool {
	name = strings.TrimSuffix(strings.ToLower(name), ".")
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return true
	}
	ip, err := netip.ParseAddr(name)
	ip = ip.Unmap()
	return err == nil && (ip.IsLoopback() || ip.IsUnspecified() || ip.IsLinkLocalUnicast())
}

// hostOf returns what is known of a URL's server.
func (c *Client) hostOf(u *url.URL) *host {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.hosts[u.Host]
	if h == nil {
		h = &host{slots: make(chan struct{}, c.cfg.PerHost)}
		c.hosts[u.Host] = h
	}
	return h
}

// enter waits for a place at the host; leave gives it back.
func (h *host) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *host) leave() { <-h.slots }

// isDown is why the host is not to be tried now, or nil.
func (h *host) isDown() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.err != nil && time.Since(h.down) < downFor {
		return h.err
	}
	return nil
}

// report says how reaching the host went.
func (h *host) report(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.down, h.err = time.Now(), err
}

// safeURL is a URL without user and password, for errors and keys.
func safeURL(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		if _, rest, ok := strings.Cut(raw, "@"); ok {
			raw = "…@" + rest
		}
		return printable(raw)
	}
	u.User = nil
	return u.String()
}

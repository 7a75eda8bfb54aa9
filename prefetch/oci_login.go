package prefetch

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
)

// Limits on what a registry may say beside its files, in bytes.
const (
	maxAnswer = 64 << 10 // an answer that is an error
	maxToken  = 1 << 20  // an answer of the login
)

// errGuard says that a place is not gone to.
var errGuard = errors.New("refused")

// LoginRegistry logs in to read a repository: it asks the registry for its
// challenge and answers with what the keychain of cfg has for it, by a token
// (of anybody, where it has nothing) or by name and password. What comes back
// sends credentials to the registry only, wherever that redirects to. What may
// pass is tried again as often as cfg says, and after the time that the
// registry asks for.
func LoginRegistry(ctx context.Context, t http.RoundTripper, repo name.Repository, cfg Config) (http.RoundTripper, error) {
	in, _, err := loginRegistry(ctx, t, repo, cfg, transport.PullScope, false)
	return in, err
}

// loginRegistry is LoginRegistry for a scope, and returns by what it was logged
// in. An insecure registry may speak without TLS, and then gets no login.
func loginRegistry(ctx context.Context, t http.RoundTripper, repo name.Repository, cfg Config, scope string, insecure bool) (in http.RoundTripper, by string, err error) {
	cfg = cfg.withDefaults()
	auth := authn.Anonymous
	if cfg.Keychain != nil {
		if auth, err = authn.Resolve(ctx, cfg.Keychain, repo); err != nil {
			return nil, "", fmt.Errorf("asking for the login of %s: %w", repo.RegistryStr(), err)
		}
	}
	if !isAnonymous(auth) {
		by = byRegistry
	}
	g := &guard{RoundTripper: t, repo: repo, insecure: insecure}
	backoff := cfg.Backoff
	for left := cfg.Retries; ; left-- {
		try, cancel := context.WithTimeout(ctx, cfg.IdleTimeout)
		in, err := transport.NewWithContext(try, repo.Registry, auth, g, []string{repo.Scope(scope)})
		cancel()
		if err == nil {
			return in, by, nil
		}
		if left <= 0 || ctx.Err() != nil || !mayPass(ctx, err) {
			return nil, "", err
		}
		if err := sleep(ctx, max(time.Duration(g.wait.Swap(0)), backoff/2+rand.N(backoff))); err != nil {
			return nil, "", err
		}
		backoff *= 2
	}
}

// mayPass tells whether another try of a login makes sense.
func mayPass(ctx context.Context, err error) bool {
	var te *transport.Error
	if errors.As(err, &te) {
		return isTemporary(te.StatusCode)
	}
	var temp temporary
	return !errors.Is(err, errGuard) && errors.As(sendError(ctx, err), &temp)
}

// guard is a transport that speaks without TLS to this machine only, and to
// this machine only where the registry is on it; and that bounds what is said
// beside the repository's files.
type guard struct {
	http.RoundTripper
	repo     name.Repository
	insecure bool
	wait     atomic.Int64 // what an answer asked for, a time.Duration
}

// GuardRegistry is a transport for one repository of a registry that speaks
// without TLS to this machine only, and to this machine only where the
// registry is on it. Answers that are no file of the repository are bounded.
func GuardRegistry(t http.RoundTripper, repo name.Repository) http.RoundTripper {
	return &guard{RoundTripper: t, repo: repo}
}

func (g *guard) RoundTrip(r *http.Request) (*http.Response, error) {
	registry := url.URL{Host: g.repo.RegistryStr()}
	var err error
	switch {
	case IsLocal(r.URL.Hostname()) && !IsLocal(registry.Hostname()):
		err = fmt.Errorf("%w: %s is this machine, and the registry is not", errGuard, r.URL.Host)
	case r.URL.Scheme == "https", loopback(r.URL.Hostname()):
	case !g.insecure || r.URL.Host != g.repo.RegistryStr():
		err = fmt.Errorf("%w: %s: without TLS only a registry on this machine is used", errGuard, r.URL.Host)
	case r.Header.Get("Authorization") != "":
		err = fmt.Errorf("%w: %s: a login is not sent without TLS", errGuard, r.URL.Host)
	}
	if err == nil && r.Response != nil && r.Method == http.MethodPost && !g.isFile(r) {
		err = fmt.Errorf("%w: a login is not sent on to %s", errGuard, r.URL.Host)
	}
	if err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	resp, err := g.RoundTripper.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	if isTemporary(resp.StatusCode) {
		g.wait.Store(int64(retryAfter(resp, time.Now())))
	}
	switch {
	case resp.StatusCode >= http.StatusMultipleChoices:
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxAnswer)
	case !g.isFile(r):
		resp.Body = http.MaxBytesReader(nil, resp.Body, maxToken)
	}
	return resp, nil
}

// isFile tells whether a request is for a part of the repository, or for
// where the registry has sent one.
func (g *guard) isFile(r *http.Request) bool {
	for r.Response != nil && r.Response.Request != nil { // the redirect that led here
		r = r.Response.Request
	}
	return r.URL.Host == g.repo.RegistryStr() && strings.HasPrefix(r.URL.Path, "/v2/"+g.repo.RepositoryStr()+"/")
}

// loopback tells whether a host is, by its name, this machine.
func loopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// RegistryErrorText is what went wrong with a registry, in one line, without
// what a terminal would obey.
func RegistryErrorText(err error) string {
	s := err.Error()
	var te *transport.Error
	if errors.As(err, &te) {
		said := []string{fmt.Sprintf("the registry answers %d %s", te.StatusCode, http.StatusText(te.StatusCode))}
		for _, d := range te.Errors {
			said = append(said, strings.TrimSuffix(fmt.Sprintf("%s: %s", d.Code, d.Message), ": "))
		}
		s = strings.Join(said, ": ")
	}
	return strings.Map(func(c rune) rune {
		if !strconv.IsPrint(c) {
			return -1
		}
		return c
	}, s[:min(len(s), 1000)])
}

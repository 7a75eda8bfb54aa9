package prefetch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"caisson/lock"
	"caisson/lock/gittree"
	"caisson/prefetch/cas"
	"caisson/prefetch/gitfetch"
)

// gitJob fetches one repository and its submodules.
type gitJob struct {
	f    *Fetcher
	dir  string // for objects on their way
	auth *lock.Auth
	asks *url.URL // the repository that was asked for
	req  Request  // is told what goes on
	open []*gitfetch.Repo
	by   string // by what it was logged in, as LoginOf says it
}

// fetchGit writes a git repository at a commit, in the form of package
// gittree. Where the digest of that is not known beforehand, the file is
// proved to be what its commit says, and to be the commit that was pinned. It
// returns by what it was logged in for any of it.
func (f *Fetcher) fetchGit(ctx context.Context, w lock.Want, req Request, to *cas.Temp) (by string, err error) {
	by, err = f.tryGit(ctx, w, req, to)
	if err == nil || ctx.Err() != nil {
		return by, ctx.Err()
	}
	fe := &FetchError{URL: safeURL(w.URL), Err: err}
	if errors.Is(err, fs.ErrNotExist) {
		fe.Status = http.StatusNotFound
	}
	var passes *gitfetch.TemporaryError
	if errors.As(err, &passes) {
		fe.Err = temporary{err}
	}
	return "", fe
}

func (f *Fetcher) tryGit(ctx context.Context, w lock.Want, req Request, to *cas.Temp) (by string, err error) {
	u, err := url.Parse(w.URL)
	if err != nil || u.Host == "" && u.Scheme != "file" {
		return "", errors.New("the address is no URL, such as https://host/path or ssh://git@host/path")
	}
	dir, remove, err := f.store.CreateDir()
	if err != nil {
		return "", err
	}
	defer remove()
	g := &gitJob{f: f, dir: dir, auth: w.Auth, asks: u, req: req}
	defer g.close()
	at := []*url.URL{u}
	for _, m := range w.Mirrors {
		mirror, err := url.Parse(m)
		if err != nil {
			return "", fmt.Errorf("the mirror %q is no address", safeURL(m))
		}
		at = append(at, mirror)
	}
	src, err := g.source(ctx, at, w.Ref, w.Submodules)
	if err != nil {
		return "", err
	}
	limit := f.cfg.MaxSize
	switch {
	case w.Size > 0:
		limit = w.Size
	case w.Max > 0:
		limit = min(limit, w.Max)
	}
	if err := gittree.Write(&limitedWriter{ctx, to, limit}, src); err != nil {
		return "", err
	}
	return g.by, checkGit(w, to)
}

// checkGit proves a file that has come: by its digest where that is known.
func checkGit(w lock.Want, to *cas.Temp) error {
	if !w.SHA256.IsZero() {
		if got := to.Sum(); got != w.SHA256 {
			return &cas.MismatchError{Got: got, Want: w.SHA256}
		}
		return nil
	}
	info, err := gittree.Check(io.NewSectionReader(to, 0, to.Size()))
	if err != nil {
		return err
	}
	if gittree.IsID(w.Ref) && w.Ref != info.Commit && w.Ref != info.Tag {
		return fmt.Errorf("got the commit %s, want %s", info.Commit, w.Ref)
	}
	return nil
}

// checkGitURL refuses addresses that hold a secret, and those that anybody on
// the way can answer, unless the commit's own hash says what has to come.
func checkGitURL(u *url.URL, ref string) error {
	switch u.Scheme {
	case "https", "file":
	case "ssh":
		if _, secret := u.User.Password(); secret {
			return errors.New("the address has a password: by ssh, keys are used")
		}
		return nil
	case "http", "git":
		if !gittree.IsID(ref) && !isLoopback(u.Hostname()) {
			return fmt.Errorf("%s does not prove who answers: name the commit by its whole id, or take https or ssh", u.Scheme)
		}
	default:
		return fmt.Errorf("scheme %q is not supported; want https, ssh or file", u.Scheme)
	}
	if u.User != nil {
		return errors.New("the address has a login in it: put that into auth, or into .netrc")
	}
	return nil
}

// limitedWriter ends where too much is written, or the context does.
type limitedWriter struct {
	ctx  context.Context //nolint:containedctx // lives as long as one call
	w    io.Writer
	left int64
}

func (l *limitedWriter) Write(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.left -= int64(len(p)); l.left < 0 {
		return 0, errors.New("the repository is larger than the limit")
	}
	return l.w.Write(p)
}

// close closes all repositories; what they hold is removed anyway.
func (g *gitJob) close() {
	for _, r := range g.open {
		_ = r.Close()
	}
}

// source fetches a repository at a ref and says where gittree finds things.
// at are the places where it may be.
func (g *gitJob) source(ctx context.Context, at []*url.URL, ref string, submodules bool) (*gittree.Source, error) {
	repo, id, err := g.fetchAny(ctx, at, ref)
	if err != nil {
		return nil, err
	}
	src := &gittree.Source{ID: id, Open: repo.Open}
	if submodules {
		src.Module = func(s gittree.Submodule) (*gittree.Source, error) {
			sub, err := submoduleURLs(at, s.URL)
			if err != nil {
				return nil, err
			}
			return g.source(ctx, sub, s.Commit, true)
		}
	}
	return src, nil
}

// fetchAny fetches a repository from the first place that gives it.
func (g *gitJob) fetchAny(ctx context.Context, at []*url.URL, ref string) (*gitfetch.Repo, string, error) {
	var all placesError
	for _, u := range at {
		repo, id, err := g.fetch(ctx, u, ref)
		if err == nil || ctx.Err() != nil || isFull(err) {
			return repo, id, err
		}
		if len(at) > 1 {
			err = fmt.Errorf("%s: %w", safeURL(u.String()), err)
		}
		all = append(all, err)
	}
	if len(all) == 1 {
		return nil, "", all[0]
	}
	return nil, "", all
}

// fetch fetches a repository at a ref, from where the site has it, and tries
// again what may pass.
func (g *gitJob) fetch(ctx context.Context, named *url.URL, ref string) (*gitfetch.Repo, string, error) {
	site, err := g.f.git()
	if err != nil {
		return nil, "", err
	}
	u, err := site.rewrite(named)
	if err == nil {
		err = checkGitURL(u, ref)
	}
	if err != nil {
		return nil, "", err
	}
	var repo *gitfetch.Repo
	var id, by string
	try := 0
	err = g.f.retry(ctx, u, func() (err error) {
		try++
		g.req.tell(u, try)
		var o gitfetch.Options
		if o, by, err = g.f.gitOptions(g.authFor(u), u); err != nil {
			return err
		}
		o.Alive = g.req.alive
		remote, err := gitfetch.Open(ctx, u, o, ref)
		if err != nil {
			return err
		}
		if id, err = remote.Resolve(ref); err == nil {
			repo, err = remote.Fetch(ctx, id, g.dir)
		}
		if err != nil {
			return errors.Join(err, remote.Close())
		}
		return nil
	})
	if err != nil && u != named {
		err = fmt.Errorf("%s (instead of it): %w", safeURL(u.String()), err)
	}
	if err != nil {
		return nil, "", err
	}
	g.open, g.by = append(g.open, repo), cmp.Or(g.by, by)
	return repo, id, nil
}

// authFor is the login that was given, at the server it was given for.
func (g *gitJob) authFor(u *url.URL) *lock.Auth {
	if sameServer(u, g.asks) {
		return g.auth
	}
	return nil
}

// retry calls get, and again after errors that may pass.
func (f *Fetcher) retry(ctx context.Context, u *url.URL, get func() error) error {
	h := f.client.hostOf(u)
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.leave()
	backoff := f.cfg.Backoff
	for left := f.cfg.Retries; ; left-- {
		err := get()
		var passes *gitfetch.TemporaryError
		if err == nil || left <= 0 || ctx.Err() != nil || !errors.As(err, &passes) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(backoff):
		}
		backoff *= 2
	}
}

// gitOptions are how a server is reached, and by what it is logged in there.
func (f *Fetcher) gitOptions(auth *lock.Auth, u *url.URL) (o gitfetch.Options, by string, err error) {
	o = gitfetch.Options{SSH: f.cfg.SSH, Idle: f.cfg.IdleTimeout, Max: f.cfg.MaxSize}
	switch u.Scheme {
	case "ssh":
		return o, bySSH, nil
	case "http", "https":
	default:
		return o, "", nil
	}
	l, err := f.gitLogin(auth, u)
	if err != nil {
		return o, "", err
	}
	if err := l.mayGo(u); err != nil {
		return o, "", err
	}
	o.HTTP = &http.Client{Transport: &counted{&f.client.requests, newSender(l, u)}, CheckRedirect: checkRedirect}
	return o, l.loggedIn(u), nil
}

// counted counts requests.
type counted struct {
	n    *atomic.Int64
	next http.RoundTripper
}

// RoundTrip sends a request.
func (c *counted) RoundTrip(r *http.Request) (*http.Response, error) {
	c.n.Add(1)
	return c.next.RoundTrip(r)
}

// submoduleURLs are where a submodule may be: relative to where its parent may
// be, where its address begins with ./ or ../ (gitmodules(5)).
func submoduleURLs(parents []*url.URL, raw string) ([]*url.URL, error) {
	if !strings.HasPrefix(raw, "./") && !strings.HasPrefix(raw, "../") {
		u, err := submoduleURL(parents[0], raw)
		return []*url.URL{u}, err
	}
	var out []*url.URL
	for _, parent := range parents {
		u := *parent
		u.Path, u.RawPath = path.Join("/", parent.Path, raw), ""
		out = append(out, &u)
	}
	return out, nil
}

// submoduleURL is the address of a submodule. A repository leads by https and
// ssh anywhere but to this machine, and by other ways only where it was
// fetched so itself.
func submoduleURL(parent *url.URL, raw string) (*url.URL, error) {
	u, err := gitfetch.Parse(raw)
	if err != nil {
		return nil, err
	}
	if u.Scheme == "http" || u.Scheme == "https" {
		u.User = nil
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "ssh" && u.Scheme != parent.Scheme:
		return nil, fmt.Errorf("its address %s has the scheme %q; want https or ssh", safeURL(raw), u.Scheme)
	case u.Scheme != "file" && IsLocal(u.Hostname()) && !IsLocal(parent.Hostname()):
		return nil, fmt.Errorf("its address %s is of this machine, and its parent's is not", safeURL(raw))
	}
	return u, nil
}

// sshFromEnv is how OpenSSH is set up, as far as it is used: SSH_AUTH_SOCK,
// and the keys and known hosts in ~/.ssh and /etc/ssh.
func sshFromEnv(home string) gitfetch.SSH {
	s := gitfetch.SSH{Agent: os.Getenv("SSH_AUTH_SOCK"), KnownHosts: []string{"/etc/ssh/ssh_known_hosts"}}
	if home == "" {
		return s
	}
	for _, name := range []string{"id_ed25519", "id_ecdsa", "id_rsa"} {
		s.Keys = append(s.Keys, filepath.Join(home, ".ssh", name))
	}
	s.KnownHosts = append(s.KnownHosts, filepath.Join(home, ".ssh", "known_hosts"))
	return s
}

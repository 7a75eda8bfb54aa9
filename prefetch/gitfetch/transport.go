package gitfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	gogit "github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	gitproto "github.com/go-git/go-git/v5/plumbing/transport/git"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

// maxRefs is how many bytes of refs a server may name.
const maxRefs = 256 << 20

// ErrIdle says that a server has said nothing for too long.
var ErrIdle = errors.New("the server has stopped sending")

// session speaks with a server as long as f runs, and ends it where the
// server says nothing for too long.
func (r *Remote) session(ctx context.Context, f func(context.Context, transport.UploadPackSession, *watch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(r.opts.Idle, func() { cancel(ErrIdle) })
	defer w.stop()
	w.tell = r.opts.Alive
	s, err := r.connect(w)
	if err == nil {
		err = f(ctx, s, w)
		_ = s.Close() // the server may have closed it before
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case errors.Is(cause, ErrIdle):
		return &TemporaryError{fmt.Errorf("%w for %s", ErrIdle, r.opts.Idle)}
	case cause != nil:
		return cause
	case w.failed != nil:
		return &TemporaryError{w.failed}
	case isTemporary(err):
		return &TemporaryError{err}
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return fmt.Errorf("%w (%w)", err, fs.ErrNotExist)
	}
	return err
}

// TemporaryError is an error after which another try may help.
type TemporaryError struct{ Err error }

func (e *TemporaryError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *TemporaryError) Unwrap() error { return e.Err }

// isTemporary knows connections that fail or end.
func isTemporary(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (r *Remote) connect(w *watch) (transport.UploadPackSession, error) {
	ep, err := transport.NewEndpoint(r.url.String())
	if err != nil {
		return nil, errors.New("the address cannot be read")
	}
	switch r.url.Scheme {
	case "http", "https":
		ep.User, ep.Password = "", "" // the client knows the login
		c := *r.opts.HTTP
		c.Transport = &watched{next: c.Transport, w: w, limit: r.opts.Max}
		return githttp.NewClient(&c).NewUploadPackSession(ep, nil)
	case "ssh":
		return r.opts.SSH.connect(ep, r.opts.Idle)
	case "git":
		return gitproto.DefaultClient.NewUploadPackSession(ep, nil)
	}
	return nil, fmt.Errorf("scheme %q is not supported", r.url.Scheme)
}

// watch calls a function when nothing has come for too long.
type watch struct {
	timer  *time.Timer
	after  time.Duration
	failed error  // why an HTTP request came to nothing that may pass
	tell   func() // of what comes; nil for nobody
}

func newWatch(after time.Duration, f func()) *watch {
	return &watch{timer: time.AfterFunc(after, f), after: after}
}

func (w *watch) stop() { w.timer.Stop() }

func (w *watch) alive() {
	w.timer.Reset(w.after)
	if w.tell != nil {
		w.tell()
	}
}

// watched tells the watch of all that comes by HTTP, and limits it.
type watched struct {
	next  http.RoundTripper
	w     *watch
	limit int64
}

// RoundTrip sends a request.
func (t *watched) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	t.w.alive()
	if err != nil {
		if isTemporary(err) {
			t.w.failed = err
		}
		return nil, err
	}
	switch s := resp.StatusCode; {
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented:
		t.w.failed = fmt.Errorf("the server answers %s", resp.Status)
	}
	limit := t.limit
	if r.Method == http.MethodGet {
		limit = min(limit, maxRefs)
	}
	resp.Body = &watchedBody{ReadCloser: resp.Body, w: t.w, left: limit}
	return resp, nil
}

type watchedBody struct {
	io.ReadCloser
	w    *watch
	left int64
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.alive()
	}
	if b.left -= int64(n); b.left < 0 {
		return n, errTooMuch
	}
	if err != nil && isTemporary(err) {
		b.w.failed = err
	}
	return n, err
}

// errTooMuch says that a server sends more than it may.
var errTooMuch = errors.New("the server sends more than the limit")

// demux takes the pack out of what a server sends beside it.
func demux(caps *capability.List, r io.Reader) io.Reader {
	switch {
	case caps.Supports(capability.Sideband64k):
		return sideband.NewDemuxer(sideband.Sideband64k, r)
	case caps.Supports(capability.Sideband):
		return sideband.NewDemuxer(sideband.Sideband, r)
	}
	return r
}

// openLocal reads a repository of this machine.
func (r *Remote) openLocal() error {
	if r.url.Host != "" && r.url.Host != "localhost" {
		return fmt.Errorf("a file address of another machine: %q", r.url.Host)
	}
	repo, err := gogit.PlainOpenWithOptions(r.url.Path, &gogit.PlainOpenOptions{EnableDotGitCommonDir: true})
	if errors.Is(err, gogit.ErrRepositoryNotExists) {
		return fmt.Errorf("%s is no git repository: %w", r.url.Path, fs.ErrNotExist)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.url.Path, err)
	}
	st, ok := repo.Storer.(*filesystem.Storage)
	if !ok {
		return fmt.Errorf("reading %s: it is kept in an unknown way", r.url.Path)
	}
	r.local = &Repo{store: st}
	refs, err := repo.References()
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.url.Path, err)
	}
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		if ref.Type() == plumbing.HashReference && (ref.Name().IsTag() || ref.Name().IsBranch()) {
			r.refs[ref.Name().String()] = ref.Hash().String()
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.url.Path, err)
	}
	for name, id := range r.refs {
		if tag, err := repo.TagObject(plumbing.NewHash(id)); err == nil {
			if c, err := tag.Commit(); err == nil {
				r.peeled[name] = c.Hash.String()
			}
		}
	}
	if head, err := repo.Head(); err == nil {
		r.head = head.Hash().String()
	}
	return nil
}

// Parse reads the address of a repository: a URL, or ssh's short form
// user@host:path, which only .gitmodules may have.
func Parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err == nil && u.Scheme != "" && (u.Host != "" || u.Scheme == "file") {
		return u, nil
	}
	ep, err := transport.NewEndpoint(raw)
	if err != nil || ep.Protocol != "ssh" || strings.Contains(raw, "::") || strings.HasPrefix(raw, "-") {
		return nil, fmt.Errorf("%q is no address of a repository", raw)
	}
	out := &url.URL{Scheme: "ssh", Host: ep.Host, Path: "/" + ep.Path}
	if ep.Path != "" && ep.Path[0] == '/' {
		out.Path = ep.Path
	}
	if ep.User != "" {
		out.User = url.User(ep.User)
	}
	return out, nil
}

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
)

// ErrIdle says that a server has said nothing for too long.
var ErrIdle = errors.New("the server has stopped sending")

// link is a way to a server.
type link interface {
	// greet is what the server says first.
	greet(ctx context.Context) (io.ReadCloser, error)
	// ask sends a request and returns the answer.
	ask(ctx context.Context, request string) (io.ReadCloser, error)
	close()
}

// session speaks with a server as long as f runs, and ends it where the
// server says nothing for too long.
func (r *Remote) session(ctx context.Context, f func(context.Context, link, *watch) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := newWatch(r.opts.Idle, func() { cancel(ErrIdle) })
	defer w.stop()
	w.tell = r.opts.Alive
	l, err := r.connect(ctx, w)
	if err == nil {
		err = f(ctx, l, w)
		l.close()
	}
	switch cause := context.Cause(ctx); {
	case err == nil:
		return nil
	case errors.Is(cause, ErrIdle):
		return &TemporaryError{fmt.Errorf("%w for %s", ErrIdle, r.opts.Idle)}
	case cause != nil:
		return cause
	case isTemporary(err):
		return &TemporaryError{err}
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

func (r *Remote) connect(ctx context.Context, w *watch) (link, error) {
	switch r.url.Scheme {
	case "http", "https":
		return &httpLink{r: r, w: w}, nil
	case "ssh":
		return r.opts.SSH.connect(ctx, r.url, r.opts.Idle, w, r.opts.Max)
	case "git":
		return connectGit(ctx, r.url, w, r.opts.Max)
	}
	return nil, fmt.Errorf("scheme %q is not supported", r.url.Scheme)
}

// watch calls a function when nothing has come for too long.
type watch struct {
	timer *time.Timer
	after time.Duration
	tell  func() // of what comes; nil for nobody
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

// watched tells a watch of what comes, and limits it.
type watched struct {
	io.ReadCloser
	w    *watch
	left int64
}

func (b *watched) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if n > 0 {
		b.w.alive()
	}
	if b.left -= int64(n); b.left < 0 {
		return n, errTooMuch
	}
	return n, err
}

// errTooMuch says that a server sends more than it may.
var errTooMuch = errors.New("the server sends more than the limit")

// httpLink is the "smart" protocol by HTTP (gitprotocol-http).
type httpLink struct {
	r *Remote
	w *watch
}

func (l *httpLink) close() {}

func (l *httpLink) greet(ctx context.Context) (io.ReadCloser, error) {
	const what = "/info/refs"
	u := *l.r.url
	u.User = nil // the client knows the login
	u.Path, u.RawPath = strings.TrimSuffix(u.Path, "/")+what, ""
	u.RawQuery = "service=git-upload-pack"
	resp, err := l.send(ctx, http.MethodGet, u.String(), "")
	if err != nil {
		return nil, err
	}
	at := *resp.Request.URL // where redirects have led to
	path, ok := strings.CutSuffix(at.Path, what)
	if t := resp.Header.Get("Content-Type"); !ok || t != "application/x-git-upload-pack-advertisement" {
		resp.Body.Close()
		return nil, fmt.Errorf("there is no git repository, or none that is served by the smart protocol: the server sends %.80q", t)
	}
	at.Path, at.RawPath, at.RawQuery = path, "", ""
	l.r.base = at.String()
	return &watched{ReadCloser: resp.Body, w: l.w, left: maxRefs}, nil
}

func (l *httpLink) ask(ctx context.Context, request string) (io.ReadCloser, error) {
	resp, err := l.send(ctx, http.MethodPost, l.r.base+"/git-upload-pack", request) //nolint:bodyclose // who reads the answer closes it
	if err != nil {
		return nil, err
	}
	return &watched{ReadCloser: resp.Body, w: l.w, left: l.r.opts.Max}, nil
}

// send sends a request, and makes an error of an answer that is none.
func (l *httpLink) send(ctx context.Context, method, address, body string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, address, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "git/caisson") // by which some servers know git
	req.Header.Set("Git-Protocol", "version=2")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/x-git-upload-pack-request")
		req.Header.Set("Accept", "application/x-git-upload-pack-result")
	}
	resp, err := l.r.opts.HTTP.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) { // it names the address, which whoever asked knows
			err = ue.Err
		}
		return nil, noEOF(err)
	}
	l.w.alive()
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	err = fmt.Errorf("the server answers %s", resp.Status)
	switch s := resp.StatusCode; {
	case s == http.StatusUnauthorized:
		return nil, fmt.Errorf("authentication required: %w", err)
	case s == http.StatusNotFound, s == http.StatusGone:
		return nil, notFound{err}
	case s == http.StatusRequestTimeout, s == http.StatusTooManyRequests, s >= 500 && s != http.StatusNotImplemented:
		return nil, &TemporaryError{err}
	}
	return nil, err
}

// notFound says that a server has no such repository.
type notFound struct{ error }

func (e notFound) Error() string { return "repository not found: " + e.error.Error() }

// Is makes it a fs.ErrNotExist.
func (e notFound) Is(target error) bool { return target == fs.ErrNotExist }

// stream is a connection on which one speaks after another.
type stream struct {
	in  io.ReadCloser
	out io.Writer
	end func()
}

func (s *stream) greet(context.Context) (io.ReadCloser, error) { return io.NopCloser(s.in), nil }

func (s *stream) ask(_ context.Context, request string) (io.ReadCloser, error) {
	_, err := io.WriteString(s.out, request)
	return io.NopCloser(s.in), err
}

// close says that nothing follows.
func (s *stream) close() {
	_, _ = io.WriteString(s.out, flushPkt)
	s.end()
}

// connectGit speaks git's own protocol (gitprotocol-pack, "Git Transport").
func connectGit(ctx context.Context, u *url.URL, w *watch, limit int64) (link, error) {
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "9418")
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", host)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	s := &stream{in: &watched{ReadCloser: conn, w: w, left: limit}, out: conn, end: func() {
		stop()
		conn.Close()
	}}
	if _, err := io.WriteString(conn, pktLine("git-upload-pack %s\x00host=%s\x00\x00version=2\x00", u.Path, u.Host)); err != nil {
		s.end()
		return nil, err
	}
	return s, nil
}

package prefetch

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"os"
	"strings"
	"time"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// worthARetry is how many bytes a try has to bring for the count of retries
// to start again.
const worthARetry = 1 << 20

// worthKeeping is how many bytes have to have come for a later run to go on
// from them.
const worthKeeping = 1 << 20

// maxRetryAfter is the longest that a server may ask us to wait.
const maxRetryAfter = 30 * time.Second

// Request is one file to get.
type Request struct {
	// URL is an http, https or file address.
	URL string
	// Size in bytes, and a limit: the transfer ends as soon as it is
	// exceeded. 0 where it is not known.
	Size int64
	// Digest is what the bytes have to be; zero where it is not known. Only
	// a file of a known digest goes on from what an earlier run has left.
	Digest digest.Digest
	// Immutable: the address never has other bytes, so that a transfer can be
	// gone on with whatever the server says of versions.
	Immutable bool
	// Accept is the header of that name; empty for none.
	Accept string
	// Auth is how to log in to the server; nil for .netrc.
	Auth *lock.Auth
	// Max is the most bytes that may come where Size is not known; 0 for the
	// client's own limit.
	Max int64
	// Progress is told of bytes as they come, by a negative number of those
	// that have to come again, and by 0 of what does not count. It may be nil.
	Progress func(n int64)
	// Trying is told before each try which server is asked, without login, and
	// that it is the first, the second, … time. It may be nil.
	Trying func(host string, try int)

	token string  // the whole Authorization header; empty for that of Auth
	known *answer // an earlier answer: whether it still holds is asked
	learn *answer // is told of this one; nil where nobody wants to know
	next  *string // is told where a list goes on; nil where nobody wants to know

	through http.RoundTripper // instead of the client's transport, logged in already
	by      string            // by what it is, as LoginOf says it
}

// tell tells Trying, if there is one.
func (r *Request) tell(u *url.URL, try int) {
	if r.Trying != nil {
		r.Trying(u.Host, try)
	}
}

// alive tells Progress that something comes that is not counted yet.
func (r *Request) alive() {
	if r.Progress != nil {
		r.Progress(0)
	}
}

// FetchError says which address could not be had, and why.
type FetchError struct {
	URL    string // without user and password
	Status int    // the server's, 0 where it gave none
	Err    error
}

func (e *FetchError) Error() string { return fmt.Sprintf("fetching %s: %v", e.URL, e.Err) }

// Unwrap returns the reason.
func (e *FetchError) Unwrap() error { return e.Err }

// Is makes a FetchError a fs.ErrNotExist where the server says so, and a
// lock.ErrMismatch where what came is another file.
func (e *FetchError) Is(target error) bool {
	switch target {
	case fs.ErrNotExist:
		return e.Status == http.StatusNotFound || e.Status == http.StatusGone
	case lock.ErrMismatch:
		return errors.As(e.Err, new(*cas.MismatchError)) || errors.As(e.Err, new(*SizeError))
	}
	return false
}

// SizeError says that a file does not have the size it should have.
type SizeError struct {
	Got, Want int64 // bytes
	// More: there are at least Got bytes.
	More bool
}

func (e *SizeError) Error() string {
	if e.More {
		return fmt.Sprintf("got more than %d bytes", e.Want)
	}
	return fmt.Sprintf("got %d bytes, want %d", e.Got, e.Want)
}

// transfer is one file on its way, over all tries.
type transfer struct {
	c   *Client
	req Request
	url *url.URL
	to  *cas.Temp
	// login is how to reach the server.
	login *login
	// validator is what If-Range is to say; empty where the server gave
	// nothing by which a file can be told from its successor.
	validator string
	resumed   bool
	wait      time.Duration // what the server asked for
	whole     int64         // how long the server says the file is; -1 where it does not
	odd       string        // what it says that may be why it is not the file
}

// temporary marks an error after which another try makes sense.
type temporary struct{ error }

func (e temporary) Unwrap() error { return e.error }

// permanent marks an error of a request after which another try is useless.
type permanent struct{ error }

func (e permanent) Unwrap() error { return e.error }

// Get writes a file to to, which is empty, or has what came of a file of the
// request's digest elsewhere. It retries what may pass: failed connections,
// answers 408, 429 and 5xx, and bodies that end early or stop coming, which
// are resumed where the server can. Every error is a *FetchError or the
// context's.
func (c *Client) Get(ctx context.Context, req Request, to *cas.Temp) error {
	_, err := c.get(ctx, req, to)
	return err
}

// get is Get, and returns by what it was logged in for the file.
func (c *Client) get(ctx context.Context, req Request, to *cas.Temp) (by string, err error) {
	u, err := url.Parse(req.URL)
	if err != nil {
		return "", &FetchError{URL: safeURL(req.URL), Err: errors.New("not a URL")}
	}
	t := &transfer{c: c, req: req, url: u, to: to}
	switch u.Scheme {
	case "http", "https":
		if t.login, err = c.loginFor(&t.req, u); err == nil && !t.resume() {
			err = t.run(ctx)
		}
	case "file":
		if err = t.restart(); err == nil {
			err = t.file(ctx)
		}
	default:
		err = fmt.Errorf("scheme %q is not supported", u.Scheme)
	}
	if err = t.check(ctx, err); err == nil {
		if t.login != nil {
			by = t.login.loggedIn(u)
		}
		return by, nil
	}
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if errors.As(err, new(*cas.MismatchError)) || errors.As(err, new(*SizeError)) {
		_ = t.restart() // going on from it would end here again; its error would hide this one
		if t.odd != "" {
			err = fmt.Errorf("%w (%s)", err, t.odd)
		}
	}
	fe := &FetchError{URL: safeURL(req.URL), Err: err}
	var se *statusError
	if errors.As(err, &se) {
		fe.Status = se.status
	}
	return "", fe
}

// check compares the digest, and starts afresh where the parts of two files
// may have come together.
func (t *transfer) check(ctx context.Context, err error) error {
	want := t.req.Digest
	if err != nil || want.IsZero() || t.to.Sum() == want {
		return err
	}
	if t.resumed {
		t.validator = ""
		if err := t.run(ctx); err != nil || t.to.Sum() == want {
			return err
		}
	}
	return &cas.MismatchError{Got: t.to.Sum(), Want: want}
}

// blind stands for a validator where there is none of this server: the digest
// tells whether the parts fit.
const blind = "-"

// resume goes on from what has come elsewhere, or what an earlier run has
// left, and tells whether that is the whole file.
func (t *transfer) resume() bool {
	if t.req.Digest.IsZero() {
		return false
	}
	if t.to.Size() > 0 {
		t.validator = blind
	} else {
		t.validator = t.mine(t.to.Resume(t.req.Digest, ""))
		t.progress(t.to.Size())
	}
	if t.to.Size() == 0 {
		return false
	}
	if t.to.Sum() == t.req.Digest {
		return true
	}
	if t.req.Size > 0 && t.to.Size() >= t.req.Size {
		t.validator = "" // the next try starts afresh
	}
	return false
}

// keep keeps what has come for a later run, under the digest alone, whatever
// the address; its mark is in the validator.
func (t *transfer) keep() {
	if t.to.Size() >= worthKeeping && !t.req.Digest.IsZero() && t.validator != "" {
		t.to.Keep(t.req.Digest, "", t.mark()+t.validator)
	}
}

// mark names the address in a validator, without its text.
func (t *transfer) mark() string { return digest.Of([]byte(t.req.URL)).Hex()[:16] + " " }

// mine is what a kept validator says of this address.
func (t *transfer) mine(kept string) string {
	if v, ok := strings.CutPrefix(kept, t.mark()); ok && v != "" {
		return v
	}
	return blind
}

// run tries until there is the whole file or no hope.
func (t *transfer) run(ctx context.Context) error {
	h := t.c.hostOf(t.url)
	if err := h.enter(ctx); err != nil {
		return err
	}
	defer h.leave()
	if err := h.isDown(); err != nil {
		return temporary{fmt.Errorf("not tried, %s could not be reached: %w", t.url.Host, err)}
	}
	backoff := t.c.cfg.Backoff
	for left, try := t.c.cfg.Retries, 1; ; left, try = left-1, try+1 {
		before := t.to.Size()
		t.req.tell(t.url, try)
		err := t.try(ctx)
		if err == nil {
			h.report(nil)
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var temp temporary
		if !errors.As(err, &temp) {
			return err
		}
		if t.to.Size()-before >= worthARetry {
			left, backoff = t.c.cfg.Retries, t.c.cfg.Backoff
		}
		if left <= 0 {
			if unreachable(err) {
				h.report(temp.error)
			}
			if t.c.cfg.Retries > 0 {
				return fmt.Errorf("%w (after %d retries)", err, t.c.cfg.Retries)
			}
			return err
		}
		if err := sleep(ctx, max(t.wait, backoff/2+rand.N(backoff))); err != nil {
			return err
		}
		backoff, t.wait = 2*backoff, 0
	}
}

// unreachable tells whether the server was not met at all.
func unreachable(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// errIdle is the cause of a context that the watchdog cancelled.
var errIdle = errors.New("the server sends nothing")

// try sends one request and reads its body to the end.
func (t *transfer) try(ctx context.Context) error {
	if t.to.Size() > 0 && t.validator == "" {
		if err := t.restart(); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	idle := t.c.cfg.IdleTimeout
	dog := time.AfterFunc(idle, func() { cancel(fmt.Errorf("%w for %s", errIdle, idle)) })
	defer dog.Stop()
	alive := func() { dog.Reset(idle) }
	resp, err := t.send(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { alive() }, GotFirstResponseByte: alive,
	}))
	if err != nil {
		return sendError(ctx, err)
	}
	defer resp.Body.Close()
	if err := t.accept(resp); err != nil {
		return err
	}
	if err := t.copy(resp.Body, alive); err != nil {
		var temp temporary
		if !errors.As(err, &temp) {
			return err
		}
		if t.complete() { // whatever its end was to be
			return nil
		}
		if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
			return temporary{cause}
		}
		return err
	}
	if want := max(t.req.Size, t.whole); t.to.Size() < want {
		return temporary{fmt.Errorf("the body ends early: %w", &SizeError{Got: t.to.Size(), Want: want})}
	}
	return nil
}

// complete tells whether the digest's bytes are all there.
func (t *transfer) complete() bool {
	have := t.to.Size()
	return !t.req.Digest.IsZero() && have >= t.req.Size && t.to.Sum() == t.req.Digest
}

func (t *transfer) send(ctx context.Context) (*http.Response, error) {
	header := make(http.Header)
	header.Set("User-Agent", "caisson/"+t.c.cfg.Version)
	header.Set("Accept-Encoding", "identity")
	if have := t.to.Size(); have > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-", have))
		if !t.req.Immutable && t.validator != blind {
			header.Set("If-Range", t.validator)
		}
	} else if t.req.known != nil {
		t.req.known.ask(header)
	}
	if t.req.Accept != "" {
		header.Set("Accept", t.req.Accept)
	}
	ask := func() (*http.Response, error) { return t.c.ask(ctx, t.login, t.url, header) }
	if t.login.offline != nil {
		ask = func() (*http.Response, error) { return t.askByToken(ctx, header) }
	}
	resp, err := ask()
	if err == nil && resp.StatusCode == http.StatusNotModified && t.req.known != nil && !t.req.known.from(resp) {
		resp.Body.Close() // another server's word does not count
		t.req.known = nil
		header.Del("If-None-Match")
		header.Del("If-Modified-Since")
		return ask()
	}
	return resp, err
}

// sendError takes the URL out of net/http's errors, and tells those apart
// after which another try makes sense.
func sendError(ctx context.Context, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
		return temporary{cause}
	}
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	var perm permanent
	switch {
	case errors.Is(err, errRedirect), errors.As(err, &cert), errors.As(err, &perm):
		return err
	case errors.As(err, &dns) && dns.IsNotFound:
		return err
	}
	return temporary{err}
}

// copy appends the body, up to the limit.
func (t *transfer) copy(body io.Reader, alive func()) error {
	limit := t.c.cfg.MaxSize
	switch {
	case t.req.Size > 0:
		limit = t.req.Size
	case t.req.Max > 0:
		limit = min(limit, t.req.Max)
	}
	if room := limit - t.to.Size() + 1; room <= chunkSize {
		return t.copySmall(body, alive, limit, room)
	}
	done := make(chan struct{})
	defer close(done)
	for c := range t.c.readAhead(body, alive, done) {
		err := t.append(c.b[:c.n], limit)
		t.c.chunks.Put(c.b)
		if err != nil {
			return err
		}
		t.progress(int64(c.n))
		if c.err != nil {
			return t.ended(c.err)
		}
	}
	return nil
}

// copySmall is copy of what fits into one chunk, and is written at once, though
// told of as it comes; room is one more byte than may come.
func (t *transfer) copySmall(body io.Reader, alive func(), limit, room int64) error {
	b := t.c.chunk()
	defer t.c.chunks.Put(b)
	for have := int64(0); ; {
		n, err := body.Read(b[have:room])
		if n > 0 {
			alive()
			t.progress(int64(n))
		}
		if have += int64(n); err == nil && have < room {
			continue
		}
		if aerr := t.append(b[:have], limit); aerr != nil {
			t.progress(-have)
			return aerr
		}
		return t.ended(err)
	}
}

// append writes what has come, unless that is more than the limit.
func (t *transfer) append(b []byte, limit int64) error {
	n := int64(len(b))
	if n == 0 {
		return nil
	}
	if t.to.Size()+n > limit {
		return &SizeError{Got: t.to.Size() + n, Want: limit, More: true}
	}
	if _, err := t.to.Write(b); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	t.keep()
	return nil
}

// ended is what the end of a body comes to.
func (t *transfer) ended(err error) error {
	if err == io.EOF {
		return nil
	}
	return temporary{fmt.Errorf("the body ends early, after %d bytes: %w", t.to.Size(), err)}
}

// chunkSize is how much is read at once, in bytes: two chunks for each
// transfer that runs.
const chunkSize = 256 << 10

// chunk is what one Read gave: n bytes, and why there are no more.
type chunk struct {
	b   *[chunkSize]byte
	n   int
	err error
}

// chunk is room for one. It goes back to c.chunks.
func (c *Client) chunk() *[chunkSize]byte {
	if b, ok := c.chunks.Get().(*[chunkSize]byte); ok {
		return b
	}
	return new([chunkSize]byte)
}

// readAhead reads a body while what came before is hashed and written. It ends
// after an error, or when done is closed and the body as well.
func (c *Client) readAhead(body io.Reader, alive func(), done <-chan struct{}) <-chan chunk {
	out := make(chan chunk)
	go func() {
		for {
			b := c.chunk()
			n, err := body.Read(b[:])
			if n > 0 {
				alive()
			}
			select {
			case out <- chunk{b, n, err}:
			case <-done:
				c.chunks.Put(b)
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// restart drops what has come.
func (t *transfer) restart() error {
	if t.to.Size() == 0 {
		return nil
	}
	t.progress(-t.to.Size())
	return t.to.Restart()
}

func (t *transfer) progress(n int64) {
	if t.req.Progress != nil && n != 0 {
		t.req.Progress(n)
	}
}

// file copies a local file.
func (t *transfer) file(ctx context.Context) error {
	if t.url.Host != "" && t.url.Host != "localhost" {
		return fmt.Errorf("a file of another host, %q", t.url.Host)
	}
	fi, err := os.Stat(t.url.Path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", t.url.Path)
	}
	if t.req.Size > 0 && fi.Size() != t.req.Size {
		return &SizeError{Got: fi.Size(), Want: t.req.Size}
	}
	f, err := os.Open(t.url.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return t.copy(f, func() {
		if ctx.Err() != nil {
			f.Close() // the next Read fails
		}
	})
}

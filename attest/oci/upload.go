package oci

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"caisson/prefetch"
)

// upload sends a blob unless the registry has it, or has it in another
// repository, from, from which it can be mounted. It tells whether it was sent.
func (c *client) upload(ctx context.Context, b *blob, from string, sent func(int64)) (bool, error) {
	if have, err := c.has(ctx, b.descriptor); have || err != nil {
		return false, err
	}
	u := &uploading{client: c, blob: b, from: from, sent: sent}
	if err := c.try(ctx, func() error { return u.step(ctx) }); err != nil {
		return false, fmt.Errorf("sending %s: %w", b.Digest, err)
	}
	have, err := c.has(ctx, b.descriptor)
	if err == nil && !have {
		err = fmt.Errorf("%w: it took the blob %s, and does not have it", ErrLies, b.Digest)
	}
	return !u.mounted, err
}

// uploading is a blob on its way.
type uploading struct {
	*client
	blob    *blob
	from    string
	sent    func(int64) // is told of bytes; a negative number takes some back
	told    int64       // of how many it was
	at      string      // where it goes on; empty before it has begun
	offset  int64       // bytes that the registry has
	mounted bool
}

// tell says how many bytes the registry has been sent.
func (u *uploading) tell(n int64) {
	u.sent(n - u.told)
	u.told = n
}

// step does all that is left (distribution-spec, "Pushing blobs").
func (u *uploading) step(ctx context.Context) (err error) {
	if u.at != "" {
		before := u.offset
		if err := u.resume(ctx); err != nil {
			return err
		}
		if u.offset > before {
			defer func() {
				if err != nil {
					err = &movedError{err}
				}
			}()
		}
	}
	if u.at == "" {
		if u.offset == u.blob.Size && u.offset > 0 { // only the end of it was cut
			if have, err := u.has(ctx, u.blob.descriptor); have || err != nil {
				return err
			}
		}
		u.offset = 0
		if err := u.begin(ctx); err != nil || u.mounted {
			return err
		}
	}
	u.tell(u.offset)
	if u.offset < u.blob.Size || u.blob.Size == 0 {
		if err := u.patch(ctx); err != nil {
			return err
		}
	}
	return u.commit(ctx)
}

// begin opens an upload, or has the blob mounted.
func (u *uploading) begin(ctx context.Context) error {
	q := url.Values{}
	if u.from != "" {
		q.Set("mount", u.blob.Digest.String())
		q.Set("from", u.from)
	}
	address := strings.TrimSuffix(u.url("blobs", "uploads"), "/") + "/"
	if len(q) > 0 {
		address += "?" + q.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, nil)
	if err != nil {
		return err
	}
	resp, err := u.do(req, http.StatusAccepted, http.StatusCreated)
	if err != nil {
		if u.from != "" && prefetch.RegistryStatus(err) != 0 { // nobody who pushes here need be able to read there
			u.from = ""
			return u.begin(ctx)
		}
		return err
	}
	resp.Body.Close()
	if u.mounted = resp.StatusCode == http.StatusCreated; u.mounted {
		return nil
	}
	return u.next(resp)
}

// next takes from an answer where the upload goes on.
func (u *uploading) next(resp *http.Response) error {
	at, err := resp.Location()
	if err != nil {
		return fmt.Errorf("%w: it does not say where to send a blob: %w", ErrLies, err)
	}
	u.at = at.String()
	return nil
}

// resume asks how far an upload that was cut has come. Where the registry does
// not say, it begins anew.
func (u *uploading) resume(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.at, nil)
	if err != nil {
		return err
	}
	resp, err := u.do(req, http.StatusNoContent)
	if err != nil {
		if !mayPass(ctx, err) {
			u.at, err = "", nil
		}
		return err
	}
	resp.Body.Close()
	have := rangeEnd(resp.Header.Get("Range"))
	if resp.Header.Get("Location") != "" && u.next(resp) != nil || have < 0 || have > u.blob.Size {
		u.at = ""
		return nil
	}
	u.offset = have
	return nil
}

// rangeEnd reads the "0-N" of an upload: how many bytes there are; -1 where it
// says nothing. An upload that has nothing says "0-0", so one byte counts as
// none.
func rangeEnd(s string) int64 {
	s = strings.TrimPrefix(s, "bytes=")
	first, last, ok := strings.Cut(s, "-")
	n, err := strconv.ParseInt(last, 10, 64)
	if !ok || err != nil || first != "0" || n < 0 {
		return -1
	}
	if n == 0 {
		return 0
	}
	return n + 1
}

// errIdle is the cause of a request that was ended because nothing moved.
var errIdle = errors.New("the registry takes nothing")

// patch sends what the registry does not have yet.
func (u *uploading) patch(ctx context.Context) error {
	in, err := u.blob.open(u.offset)
	if err != nil {
		return err
	}
	defer in.Close()
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	body := &counted{r: in, sent: func(n int64) { u.tell(u.told + n) }, alive: time.AfterFunc(u.idle, func() { end(errIdle) }), idle: u.idle}
	defer body.alive.Stop()
	defer body.stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodPatch, u.at, io.NopCloser(body))
	if err != nil {
		return err
	}
	req.ContentLength = u.blob.Size - u.offset
	req.Header.Set("Content-Type", "application/octet-stream")
	if u.offset > 0 {
		req.Header.Set("Content-Range", fmt.Sprintf("%d-%d", u.offset, u.blob.Size-1))
	}
	resp, err := u.do(req, http.StatusAccepted, http.StatusNoContent, http.StatusCreated)
	if err != nil {
		if cause := context.Cause(ctx); errors.Is(cause, errIdle) {
			err = fmt.Errorf("%w for %s", cause, u.idle)
		}
		return err
	}
	resp.Body.Close()
	u.offset = u.blob.Size
	return u.next(resp)
}

// commit ends the upload.
func (u *uploading) commit(ctx context.Context) error {
	at, err := url.Parse(u.at)
	if err != nil {
		return err
	}
	q := at.Query()
	q.Set("digest", u.blob.Digest.String())
	at.RawQuery = q.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, at.String(), http.NoBody)
	if err != nil {
		return err
	}
	resp, err := u.do(req, http.StatusCreated, http.StatusNoContent)
	if err != nil {
		return err
	}
	resp.Body.Close()
	return confirm(resp, u.blob.Digest)
}

// counted is a body that tells how much of it was read, and that it moves.
type counted struct {
	r     io.Reader
	sent  func(int64)
	alive *time.Timer
	idle  time.Duration

	mu   sync.Mutex
	done bool
}

func (c *counted) Read(b []byte) (int, error) {
	n, err := c.r.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.done {
		return 0, io.ErrClosedPipe
	}
	c.sent(int64(n))
	if err != nil {
		c.alive.Stop()
	} else {
		c.alive.Reset(c.idle)
	}
	return n, err
}

// stop ends it: what is read later is told to nobody.
func (c *counted) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done = true
}

package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"caisson/lock/digest"
	"caisson/prefetch"
)

// Limits on what a registry may say.
const (
	maxManifest  = 4 << 20 // bytes; registries themselves refuse more
	maxReferrers = 1000
	maxPages     = 100
)

// ErrLies is what is wrong with a registry that says something else of its
// content than is true.
var ErrLies = errors.New("the registry is not to be relied on")

// client speaks to one repository of a registry.
type client struct {
	repo    name.Repository
	http    *http.Client
	retries int
	backoff time.Duration
	idle    time.Duration
	agent   string
}

// connect logs in to a repository.
func connect(ctx context.Context, repo name.Repository, cfg prefetch.Config, write bool) (*client, error) {
	at, in, err := prefetch.OpenRegistry(ctx, repo, cfg, write)
	if err != nil {
		return nil, err
	}
	c := &client{repo: at, http: &http.Client{Transport: in}, retries: cmp.Or(cfg.Retries, 4), backoff: cmp.Or(cfg.Backoff, 500*time.Millisecond),
		idle: cmp.Or(cfg.IdleTimeout, time.Minute), agent: "caisson/" + cfg.Version}
	return c, nil
}

// url is where something of the repository is. The transport changes the scheme
// to what the registry speaks.
func (c *client) url(kind, id string) string {
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", c.repo.Scheme(), c.repo.RegistryStr(), c.repo.RepositoryStr(), kind, id)
}

// waitError is an answer that asks for time before the next try.
type waitError struct {
	error
	wait time.Duration
}

func (e *waitError) Unwrap() error { return e.error }

// movedError is an error after which there was something gained, so that it
// does not count as a try.
type movedError struct{ error }

func (e *movedError) Unwrap() error { return e.error }

// sendError is an error of the network, and not an answer.
type sendError struct{ error }

func (e *sendError) Unwrap() error { return e.error }

// mayPass tells whether trying again makes sense.
func mayPass(ctx context.Context, err error) bool {
	return (errors.As(err, new(*sendError)) || prefetch.RegistryStatus(err) != 0) && prefetch.RegistryMayPass(ctx, err)
}

// try does something until it is done or trying again makes no sense.
func (c *client) try(ctx context.Context, f func() error) error {
	backoff := c.backoff
	for left := c.retries; ; left-- {
		err := f()
		if err == nil || !mayPass(ctx, err) {
			return err
		}
		if errors.As(err, new(*movedError)) {
			left, backoff = c.retries, c.backoff
		}
		if left <= 0 {
			return err
		}
		pause := backoff/2 + rand.N(backoff)
		var asked *waitError
		if errors.As(err, &asked) {
			pause = max(pause, asked.wait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		backoff *= 2
	}
}

// do makes one request. An answer other than one of those wanted is an error.
func (c *client) do(req *http.Request, want ...int) (*http.Response, error) {
	req.Header.Set("User-Agent", c.agent)
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // its address may have what is signed for the request
		}
		return nil, &sendError{err}
	}
	if err := transport.CheckError(resp, want...); err != nil {
		resp.Body.Close()
		if wait := prefetch.RetryAfter(resp, time.Now()); wait > 0 {
			err = &waitError{err, wait}
		}
		return nil, err
	}
	return resp, nil
}

// get fetches something of at most limit bytes; nil where it is not there. It
// returns the answer's header too.
func (c *client) get(ctx context.Context, address, accept string, limit int64) (b []byte, header http.Header, err error) {
	err = c.try(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
		if err != nil {
			return err
		}
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := c.do(req, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		b, header = nil, resp.Header
		if resp.StatusCode == http.StatusNotFound {
			return nil
		}
		if b, err = io.ReadAll(io.LimitReader(resp.Body, limit+1)); err != nil {
			return &sendError{err}
		}
		if int64(len(b)) > limit {
			return fmt.Errorf("%w: an answer of more than %d bytes", ErrLies, limit)
		}
		return nil
	})
	return b, header, err
}

// manifest fetches a manifest or an index by a tag, or by a digest, which is
// checked unless it is zero. It is nil where there is none.
func (c *client) manifest(ctx context.Context, id string, want digest.Digest) ([]byte, error) {
	b, _, err := c.get(ctx, c.url("manifests", id), ManifestType+", "+indexType, maxManifest)
	if b == nil || err != nil {
		return nil, err
	}
	if got := digest.Of(b); !want.IsZero() && got != want {
		return nil, fmt.Errorf("%w: the manifest %s has the digest %s", ErrLies, want, got)
	}
	return b, nil
}

// has tells whether the registry has a blob, and has all of it.
func (c *client) has(ctx context.Context, d descriptor) (ok bool, err error) {
	err = c.try(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodHead, c.url("blobs", d.Digest.String()), nil)
		if err != nil {
			return err
		}
		resp, err := c.do(req, http.StatusOK, http.StatusNotFound)
		if err != nil {
			return err
		}
		resp.Body.Close()
		if ok = resp.StatusCode == http.StatusOK; !ok {
			return nil
		}
		if resp.ContentLength >= 0 && resp.ContentLength != d.Size {
			return fmt.Errorf("%w: it has %d bytes of the blob %s, want %d", ErrLies, resp.ContentLength, d.Digest, d.Size)
		}
		return confirm(resp, d.Digest)
	})
	return ok, err
}

// confirm compares what a registry says that something's digest is, where it
// says so, with what it is.
func confirm(resp *http.Response, want digest.Digest) error {
	got := resp.Header.Get("Docker-Content-Digest")
	if got != "" && strings.HasPrefix(got, "sha256:") && got != want.String() {
		return fmt.Errorf("%w: it calls %q what has the digest %s", ErrLies, got, want)
	}
	return nil
}

// put writes a manifest under a tag or its digest. It tells whether the
// registry keeps lists of what refers to others.
func (c *client) put(ctx context.Context, id, mediaType string, b []byte) (referrers bool, err error) {
	err = c.try(ctx, func() error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.url("manifests", id), strings.NewReader(string(b)))
		if err != nil {
			return err
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := c.do(req, http.StatusCreated, http.StatusOK, http.StatusAccepted)
		if err != nil {
			return err
		}
		resp.Body.Close()
		referrers = resp.Header.Get("OCI-Subject") != ""
		return confirm(resp, digest.Of(b))
	})
	return referrers, err
}

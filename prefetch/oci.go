package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// registries are the logins at registries, one for each repository.
type registries struct {
	mu    sync.Mutex
	repos map[imagePlace]*registry
}

// registry is a repository of one; its login is made by the first who needs
// it.
type registry struct {
	repo     name.Repository
	insecure bool // it may speak without TLS
	mu       sync.Mutex
	in       http.RoundTripper // nil before the login
	by       string            // as LoginOf says it
}

func (r *registries) of(p imagePlace) (*registry, error) {
	var opts []name.Option
	if p.insecure {
		opts = append(opts, name.Insecure)
	}
	repo, err := name.NewRepository(p.host+"/"+p.repository, opts...)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repos == nil {
		r.repos = make(map[imagePlace]*registry)
	}
	have := r.repos[p]
	if have == nil {
		have = &registry{repo: repo, insecure: p.insecure}
		r.repos[p] = have
	}
	return have, nil
}

// url is where a part of the repository lies. The login's transport changes
// the scheme to what the registry speaks.
func (r *registry) url(kind, id string) string {
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", r.repo.Scheme(), r.repo.RegistryStr(), r.repo.RepositoryStr(), kind, id)
}

// login is the transport of one who is logged in.
func (r *registry) login(ctx context.Context, c *Client) (http.RoundTripper, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.in != nil {
		return r.in, nil
	}
	in, by, err := loginRegistry(ctx, c.http.Transport, r.repo, c.cfg, transport.PullScope, r.insecure)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		fe := &FetchError{URL: r.repo.Name(), Err: fmt.Errorf("logging in: %w", err)}
		if te := (*transport.Error)(nil); errors.As(err, &te) {
			fe.Status = te.StatusCode
			fe.Err = fmt.Errorf("logging in: %s", RegistryErrorText(err))
		}
		if fe.Status == http.StatusNotFound { // there is no registry, which says nothing of its images
			fe.Status = 0
		}
		return nil, fe
	}
	r.in, r.by = in, by
	return in, nil
}

// fetchOCI writes a part of an image in a registry: a manifest or an index by
// tag or digest, a blob by digest, or the list of what refers to a manifest
// (distribution-spec 1.1). A digest in the address is checked whether or not
// the lock has it too. It comes from the first place that has it of those that
// the site names. It returns by what it was logged in.
func (f *Fetcher) fetchOCI(ctx context.Context, w lock.Want, req Request, to *cas.Temp) (by string, err error) {
	a, err := lock.ParseOCIAddress(w.URL)
	if err != nil {
		return "", &FetchError{URL: safeURL(w.URL), Err: err}
	}
	if sum, ok := a.Digest(); ok {
		if req.Digest != sum && req.Digest != (digest.Digest{}) {
			return "", &FetchError{URL: w.URL, Err: &cas.MismatchError{Got: sum, Want: req.Digest}}
		}
		req.Digest, req.Immutable = sum, true
	}
	conf, err := f.images()
	if err != nil {
		return "", err
	}
	places, err := conf.places(a)
	if err != nil {
		return "", &FetchError{URL: w.URL, Err: err}
	}
	req.Max = w.Max
	if a.Kind != lock.OCIBlobs {
		req.Accept = strings.Join(w.MediaTypes, ", ")
	}
	var all placesError
	for _, p := range places {
		if by, err = f.fetchPart(ctx, a, p, req, to); err == nil || ctx.Err() != nil || isFull(err) {
			return by, err
		}
		all = append(all, err)
	}
	if len(all) == 1 {
		return "", all[0]
	}
	return "", all
}

// fetchPart is fetchOCI from one place.
func (f *Fetcher) fetchPart(ctx context.Context, a lock.OCIAddress, p imagePlace, req Request, to *cas.Temp) (by string, err error) {
	r, err := f.registries.of(p)
	if err != nil {
		return "", &FetchError{URL: p.host + "/" + p.repository, Err: err}
	}
	if p.insecure && req.Digest.IsZero() && a.Kind != lock.OCIReferrers && !IsLocal(r.hostname()) {
		return "", &FetchError{URL: r.repo.Name() + ":" + a.ID, Err: errors.New("a registry that may speak without TLS does not prove what a tag names: name the image by its digest")}
	}
	if req.through, err = r.login(ctx, f.client); err != nil {
		return "", err
	}
	req.by, req.URL = r.by, r.url(a.Kind, a.ID)
	if a.Kind != lock.OCIReferrers {
		return f.client.get(ctx, req, to)
	}
	by, err = f.getReferrers(ctx, req, to)
	var fe *FetchError
	if errors.As(err, &fe) {
		switch fe.Status {
		// What registries say that do not know of referrers.
		case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
			return "", fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	}
	return by, err
}

// hostname is the registry's, without its port.
func (r *registry) hostname() string {
	u := url.URL{Host: r.repo.RegistryStr()}
	return u.Hostname()
}

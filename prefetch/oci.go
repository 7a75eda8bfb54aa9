package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
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
	repos map[string]*registry
}

// registry is a repository of one; its login is made by the first who needs
// it.
type registry struct {
	repo name.Repository
	mu   sync.Mutex
	in   http.RoundTripper // nil before the login
	by   string            // as LoginOf says it
}

func (r *registries) of(host, repository string) (*registry, error) {
	repo, err := name.NewRepository(host + "/" + repository)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.repos == nil {
		r.repos = make(map[string]*registry)
	}
	have := r.repos[repo.Name()]
	if have == nil {
		have = &registry{repo: repo}
		r.repos[repo.Name()] = have
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
	in, by, err := loginRegistry(ctx, c.http.Transport, r.repo, c.cfg)
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
// the lock has it too. It returns by what it was logged in.
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
	r, err := f.registries.of(a.Host, a.Repository)
	if err != nil {
		return "", &FetchError{URL: w.URL, Err: err}
	}
	if req.through, err = r.login(ctx, f.client); err != nil {
		return "", err
	}
	req.by = r.by
	req.URL, req.Max = r.url(a.Kind, a.ID), w.Max
	if a.Kind != lock.OCIBlobs {
		req.Accept = strings.Join(w.MediaTypes, ", ")
	}
	by, err = f.client.get(ctx, req, to)
	var fe *FetchError
	if a.Kind == lock.OCIReferrers && errors.As(err, &fe) {
		switch fe.Status {
		// What registries say that do not know of referrers.
		case http.StatusBadRequest, http.StatusMethodNotAllowed, http.StatusNotAcceptable:
			return "", fmt.Errorf("%w: %w", fs.ErrNotExist, err)
		}
	}
	return by, err
}

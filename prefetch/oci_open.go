package prefetch

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"caisson/lock"
	"caisson/lock/digest"
)

// answerTimeout is how long a registry may take to begin an answer: it may have
// to read all of a file first.
const answerTimeout = 5 * time.Minute

// OpenRegistry logs in to a repository, to read it or to write to it too, and
// returns where it is and the transport of one who is logged in. Where it is
// the site's registries.conf says: its location counts, as what is pushed goes
// there and not to mirrors; a registry that the site blocks is an error.
func OpenRegistry(ctx context.Context, repo name.Repository, cfg Config, write bool) (name.Repository, http.RoundTripper, error) {
	conf, err := readRegistries(cfg.Registries)
	if err != nil {
		return repo, nil, err
	}
	host := repo.RegistryStr()
	if host == name.DefaultRegistry {
		host = "docker.io"
	}
	places, err := conf.places(lock.OCIAddress{Host: host, Repository: repo.RepositoryStr(), Kind: lock.OCIManifests, ID: digest.Digest{}.String()})
	if err != nil {
		return repo, nil, err
	}
	p := places[len(places)-1]
	var opts []name.Option
	if p.insecure {
		opts = append(opts, name.Insecure)
	}
	if repo, err = name.NewRepository(p.host+"/"+p.repository, opts...); err != nil {
		return repo, nil, err
	}
	t := NewTransport(cfg)
	t.ResponseHeaderTimeout = answerTimeout
	scope := transport.PullScope
	if write {
		scope = transport.PushScope
	}
	in, _, err := loginRegistry(ctx, t, repo, cfg, scope, p.insecure)
	if err != nil {
		return repo, nil, fmt.Errorf("logging in: %w", err)
	}
	return repo, in, nil
}

// RegistryMayPass tells whether another try makes sense after an error of a
// request to a registry; an answer is one as a *transport.Error.
func RegistryMayPass(ctx context.Context, err error) bool {
	return ctx.Err() == nil && mayPass(ctx, err)
}

// RetryAfter is how long an answer asks to wait, 0 where it does not.
func RetryAfter(resp *http.Response, now time.Time) time.Duration { return retryAfter(resp, now) }

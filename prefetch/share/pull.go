package share

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/google/go-containerregistry/pkg/name"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// Pulled says what Pull did.
type Pulled struct {
	Ref string // with the tag
	prefetch.Stats
	OwnPlace int // files of those: from where the lock says
}

// Pull brings into the store what it lacks of a lock's inputs and
// REGISTRY/REPO[:TAG] has, and proves all of them. text is the lock's. It need
// not be the lock that was pushed. The error is as prefetch.Fill's: what the
// registry lacks is a *cas.MissingError each, and all else is in the store.
// Only what may not be passed on is then taken from where the lock says.
func Pull(ctx context.Context, ref string, l *lock.Lock, text []byte, s *cas.Store, o Options) (Pulled, error) {
	r, o, err := begin(ref, text, o)
	if err != nil {
		return Pulled{}, err
	}
	p := &puller{ref: r, s: s, maxSize: cmp.Or(o.Config.MaxSize, 8<<30), has: make(map[digest.Digest]layer), elsewhere: make(map[digest.Digest]bool)}
	for d := range restrictions(l, s) {
		p.elsewhere[d] = true
	}
	p.ready = sync.OnceValue(func() error {
		err := p.connect(ctx, o)
		if err == nil {
			err = p.list(ctx)
		}
		if err != nil {
			return prefetch.RegistryFailed(ctx, r.Name(), err)
		}
		return nil
	})
	done := Pulled{Ref: r.Name()}
	if len(prefetch.Missing(l, s)) > 0 {
		if err := p.ready(); err != nil {
			return done, err
		}
	}
	done.Stats, err = prefetch.Fill(ctx, l, s, prefetch.Options{Config: o.Config, Get: p.get, Progress: o.Progress})
	done.OwnPlace = int(p.taken.Load())
	if p.client != nil {
		done.Requests += p.client.Requests()
		p.client.CloseIdle()
	}
	return done, err
}

// puller is one run of Pull.
type puller struct {
	ref     name.Reference
	s       *cas.Store
	maxSize int64        // bytes of a file whose size the lock does not have
	ready   func() error // connects and lists, once; what follows is its result
	client  *prefetch.Client
	has     map[digest.Digest]layer

	elsewhere map[digest.Digest]bool // what may be taken from where the lock says
	taken     atomic.Int64           // how much of it was
}

// layer is what a repository says of a file that it has.
type layer struct {
	size  int64  // bytes
	login string // by what it was logged in for where it is restricted
}

// connect logs in.
func (p *puller) connect(ctx context.Context, o Options) error {
	repo := p.ref.Context()
	cfg := o.Config
	cfg.Keychain = o.Keychain
	cfg.Netrc = ""            // it is not for registries
	cfg.MaxSize = maxManifest // of what has no size: files have one, from the lock or the manifest
	var loginErr error
	cfg.Login = func(t http.RoundTripper) http.RoundTripper {
		var in http.RoundTripper
		if in, loginErr = prefetch.LoginRegistry(ctx, t, repo, cfg); loginErr != nil {
			return t
		}
		return in
	}
	var err error
	if p.client, err = prefetch.NewClient(cfg); err != nil {
		return err
	}
	return loginErr
}

// address is where something of the repository lies. The login's transport
// changes the scheme to what the registry speaks.
func (p *puller) address(kind, id string) string {
	repo := p.ref.Context()
	return fmt.Sprintf("%s://%s/v2/%s/%s/%s", repo.Scheme(), repo.RegistryStr(), repo.RepositoryStr(), kind, id)
}

// list learns which files the repository has under the reference.
func (p *puller) list(ctx context.Context) error {
	req := prefetch.Request{URL: p.address("manifests", p.ref.Identifier())}
	if d, ok := p.ref.(name.Digest); ok {
		want, err := digest.Parse(d.DigestStr())
		if err != nil {
			return err
		}
		req.Digest = want
	}
	m, err := p.manifest(ctx, req)
	if err != nil {
		return err
	}
	parts := []manifest{m}
	for _, d := range m.Manifests {
		if d.Size > maxManifest {
			return fmt.Errorf("a manifest of %d bytes, want at most %d", d.Size, maxManifest)
		}
		part, err := p.manifest(ctx, prefetch.Request{URL: p.address("manifests", d.Digest.String()), Digest: d.Digest, Size: d.Size})
		if err != nil {
			return err
		}
		if len(part.Manifests) > 0 {
			return fmt.Errorf("the manifest %s is an index in an index", d.Digest)
		}
		parts = append(parts, part)
	}
	for _, m := range parts {
		for _, d := range m.Layers {
			if d.MediaType == leftOutType {
				if err := p.leftOut(ctx, d); err != nil {
					return err
				}
				continue
			}
			has := layer{size: d.Size}
			if d.Annotations != nil {
				has.login = d.Annotations.Login
			}
			p.has[d.Digest] = has
		}
	}
	return nil
}

// leftOut learns what was not pushed.
func (p *puller) leftOut(ctx context.Context, d descriptor) error {
	if d.Size > maxManifest {
		return fmt.Errorf("a list of %d bytes, want at most %d", d.Size, maxManifest)
	}
	b, err := p.small(ctx, prefetch.Request{URL: p.address("blobs", d.Digest.String()), Digest: d.Digest, Size: d.Size})
	if err != nil {
		return err
	}
	all, err := readList(b)
	for _, d := range all {
		p.elsewhere[d] = true
	}
	return err
}

// manifest fetches and reads one manifest.
func (p *puller) manifest(ctx context.Context, req prefetch.Request) (manifest, error) {
	req.Accept = manifestType + ", " + indexType
	b, err := p.small(ctx, req)
	if err != nil {
		return manifest{}, err
	}
	return read(b)
}

// small fetches what fits into memory.
func (p *puller) small(ctx context.Context, req prefetch.Request) ([]byte, error) {
	to, err := p.s.Create()
	if err != nil {
		return nil, err
	}
	defer to.Drop()
	if err := p.client.Get(ctx, req, to); err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(to, 0, to.Size()))
}

// get is prefetch.Options' Get.
func (p *puller) get(ctx context.Context, in *lock.Input, req prefetch.Request, to *cas.Temp) error {
	if err := p.ready(); err != nil {
		return err
	}
	has, ok := p.has[in.SHA256]
	switch {
	case !ok && p.elsewhere[in.SHA256]:
		p.taken.Add(1)
		return prefetch.ErrOwnPlace
	case !ok:
		return fmt.Errorf("%s does not have it: %w", p.ref.Name(), &cas.MissingError{Digest: in.SHA256})
	}
	if req.Size == 0 {
		if req.Size = has.size; has.size > p.maxSize {
			return fmt.Errorf("%s: a file of %d bytes, want at most %d", p.ref.Name(), has.size, p.maxSize)
		}
	}
	req.URL, req.Immutable = p.address("blobs", in.SHA256.String()), true
	if err := p.client.Get(ctx, req, to); err != nil || has.login == "" {
		return err
	}
	return prefetch.RememberLogin(p.s, in.SHA256, has.login)
}

package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"unicode"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Fetcher brings single files into a store.
type Fetcher struct {
	store  *cas.Store
	client *Client
	cfg    Config
	cargo  func() (*cargoConfig, error)
	git    func() (*gitSite, error)
	images func() (*registriesConf, error)
	dl     downloads
	isos   isos

	registries registries
}

// NewFetcher makes a Fetcher. cfg should be the client's.
func NewFetcher(store *cas.Store, client *Client, cfg Config) *Fetcher {
	f := &Fetcher{store: store, client: client, cfg: cfg.withDefaults()}
	f.cargo = sync.OnceValues(func() (*cargoConfig, error) {
		conf, err := readCargoConfig(cfg.Dir, cfg.CargoHome, cfg.CargoIndex, cfg.CargoTokens, cfg.CargoHTTP)
		if err == nil && cfg.CratesIO != "" {
			conf.Source[cratesIOName] = cargoSource{Registry: cfg.CratesIO}
			conf.Registries[cratesIOName] = cargoSource{Index: cfg.CratesIO, Token: cfg.CratesIOToken, Provider: "cargo:token"}
		}
		return conf, err
	})
	f.images = sync.OnceValues(func() (*registriesConf, error) { return readRegistries(cfg.Registries) })
	f.git = sync.OnceValues(func() (*gitSite, error) { return readGitConfig(cfg.Git) })
	return f
}

// Fetch brings a file into the store; it is a lock.Fetch. A file of a known
// digest that the store has is verified and used, as is the copy of an
// address that is immutable; both need no network. Any other address is asked
// whether it still has what it had. What does not exist gives an error that
// is fs.ErrNotExist.
func (f *Fetcher) Fetch(ctx context.Context, w lock.Want) (lock.Blob, error) {
	if !w.SHA256.IsZero() && f.store.Verify(w.SHA256) == nil {
		return f.blob(w.SHA256)
	}
	key := strings.Join([]string{"address", w.Kind, w.Registry, w.URL}, "\x00")
	if !w.ISO.IsZero() {
		key = strings.Join([]string{"iso", w.ISO.Hex(), w.URL}, "\x00")
		w.Immutable = true
	}
	if w.Immutable && w.SHA256.IsZero() {
		if d, ok := f.store.Lookup(key); ok && f.store.Verify(d) == nil {
			return f.blob(d)
		}
	}
	b, err := f.fetchNew(ctx, w, key)
	if isFull(err) {
		free, _ := freeBytes(f.store.Dir())
		err = &NoSpaceError{Dir: f.store.Dir(), Need: w.Size, Free: free, Err: err}
	}
	return b, err
}

// fetchNew is Fetch of what the store does not have.
func (f *Fetcher) fetchNew(ctx context.Context, w lock.Want, key string) (lock.Blob, error) {
	to, err := f.store.Create()
	if err != nil {
		return lock.Blob{}, err
	}
	defer to.Discard()
	got, err := f.bring(ctx, w, Request{Size: w.Size, Digest: w.SHA256, Max: w.Max}, to)
	if err != nil {
		return lock.Blob{}, err
	}
	if !got.have.IsZero() {
		return f.blob(got.have)
	}
	d := to.Sum()
	if err := RememberLogin(f.store, d, got.login); err != nil {
		return lock.Blob{}, err
	}
	if _, err := to.Commit(d); err != nil {
		return lock.Blob{}, err
	}
	switch {
	case w.Immutable:
		err = f.store.Remember(key, d)
	case got.remember != nil:
		err = got.remember()
	}
	if err != nil {
		return lock.Blob{}, err
	}
	return f.blob(d)
}

// brought is what bring says of a file beside its bytes.
type brought struct {
	have     digest.Digest // the store's copy is it; zero where it is new
	login    string        // by what it was logged in for it, as LoginOf says it
	remember func() error  // to be called when it is in the store; may be nil
}

// bring writes a file to an empty to, from where its kind is to be had. The
// request has all but the address.
func (f *Fetcher) bring(ctx context.Context, w lock.Want, req Request, to *cas.Temp) (brought, error) {
	req.Auth = w.Auth
	switch {
	case !w.ISO.IsZero():
		return brought{login: LoginOf(f.store, w.ISO)}, f.fetchISO(ctx, w, req, to)
	case w.Kind == lock.KindGit:
		by, err := f.fetchGit(ctx, w, req, to)
		if err == nil && req.Progress != nil {
			req.Progress(to.Size())
		}
		return brought{login: by}, err
	case w.Kind == lock.KindOCI:
		by, err := f.fetchOCI(ctx, w, req, to)
		return brought{login: by}, err
	}
	if w.Kind == lock.KindCrate && req.Auth == nil {
		conf, err := f.cargo()
		if err != nil {
			return brought{}, err
		}
		req.Auth = conf.HTTP.auth()
	}
	places, err := f.locate(ctx, w)
	if err != nil {
		err = fmt.Errorf("%s %s: %w", w.Kind, safeURL(w.URL), err)
		if len(w.Mirrors) == 0 {
			return brought{}, err
		}
		places = []candidate{{err: err}}
	}
	get := f.plain
	if req.Digest.IsZero() && !w.Immutable {
		get = f.fresh
	}
	if len(w.Mirrors) == 0 {
		return inTurn(ctx, places, req, to, get)
	}
	for _, m := range w.Mirrors {
		places = append(places, candidate{url: m})
	}
	return atAny(ctx, places, req, to, get)
}

// getter gets one address.
type getter func(ctx context.Context, req Request, to *cas.Temp) (brought, error)

// plain gets an address of which nothing is remembered.
func (f *Fetcher) plain(ctx context.Context, req Request, to *cas.Temp) (brought, error) {
	by, err := f.client.get(ctx, req, to)
	return brought{login: by}, err
}

// blob describes a file that the store has.
func (f *Fetcher) blob(d digest.Digest) (lock.Blob, error) {
	size, ok := f.store.Size(d)
	if !ok {
		return lock.Blob{}, &cas.MissingError{Digest: d}
	}
	return lock.Blob{Path: f.store.Path(d), SHA256: d, Size: size}, nil
}

// inTurn tries the places in turn. Of several errors it returns the first that
// says more than that the file is not there.
func inTurn(ctx context.Context, places []candidate, req Request, to *cas.Temp, get getter) (brought, error) {
	var said error
	for _, p := range places {
		var got brought
		err := p.err
		if err == nil {
			req.URL, req.token = p.url, p.token
			if err = to.Restart(); err == nil && p.get != nil {
				got.login, err = p.bring(ctx, req, to)
			} else if err == nil {
				got, err = get(ctx, req, to)
			}
		}
		if err == nil || ctx.Err() != nil {
			return got, err
		}
		gone := errors.Is(err, fs.ErrNotExist)
		switch {
		case said == nil, errors.Is(said, fs.ErrNotExist) && !gone && p.err == nil:
			said = err
		case p.err != nil:
			said = fmt.Errorf("%w; then %w", said, p.err)
		}
		if !gone && !p.any {
			break
		}
		if req.Progress != nil && to.Size() > 0 {
			req.Progress(-to.Size())
		}
	}
	return brought{}, said
}

// locate lists where a file may be.
func (f *Fetcher) locate(ctx context.Context, w lock.Want) ([]candidate, error) {
	if strings.ContainsFunc(w.URL, unicode.IsControl) {
		return nil, fmt.Errorf("the address %q has control characters", w.URL)
	}
	switch w.Kind {
	case lock.KindSumDB:
		return f.goSumDB(w.URL)
	case lock.KindGo, lock.KindToolchain:
		if !strings.Contains(w.URL, "://") {
			return f.goModule(w.URL)
		}
	case lock.KindCrate:
		if !strings.Contains(w.URL, "://") {
			sum := ""
			if !w.SHA256.IsZero() {
				sum = w.SHA256.Hex()
			}
			return f.crate(ctx, w.Registry, w.URL, sum)
		}
	case lock.KindFile, lock.KindKey:
		if !strings.Contains(w.URL, "://") {
			u, err := f.local(w.URL)
			return []candidate{{url: u}}, err
		}
	}
	u, err := url.Parse(w.URL)
	if err != nil || u.Scheme == "" {
		return nil, errors.New("the address is not absolute")
	}
	return []candidate{{url: w.URL}}, nil
}

// local is the address of a plain path, which is one below the project's folder.
func (f *Fetcher) local(path string) (string, error) {
	if f.cfg.Dir == "" {
		return "", errors.New("it is a file of the project, and there is no project")
	}
	u := url.URL{Scheme: "file", Path: filepath.Join(f.cfg.Dir, path)}
	return u.String(), nil
}

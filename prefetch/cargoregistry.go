package prefetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// crateID is the form of a crate's URL in a lock.
var crateID = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_-]*)/([0-9][0-9A-Za-z.+-]*)$`)

// downloads knows the download addresses of the indexes that were asked.
type downloads struct {
	mu sync.Mutex
	at map[string]*download
}

type download struct {
	mu       sync.Mutex
	template string // empty as long as nobody has asked
	auth     bool   // whether the registry wants a token for everything
	err      error
}

func (d *downloads) of(index string) *download {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = make(map[string]*download)
	}
	e := d.at[index]
	if e == nil {
		e = new(download)
		d.at[index] = e
	}
	return e
}

// crate is where a crate "NAME/VERSION" of a registry is.
func (f *Fetcher) crate(ctx context.Context, registry, id, checksum string) ([]candidate, error) {
	m := crateID.FindStringSubmatch(id)
	if m == nil {
		return nil, fmt.Errorf("crate %q: want NAME/VERSION", id)
	}
	name, version := m[1], m[2]
	conf, err := f.cargo()
	if err != nil {
		return nil, err
	}
	at, err := conf.find(registry)
	if err != nil {
		return nil, err
	}
	if at.local != "" {
		u := url.URL{Scheme: "file", Path: filepath.Join(at.local, name+"-"+version+".crate")}
		return []candidate{{url: u.String()}}, nil
	}
	template, auth, err := f.template(ctx, at)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(template, "{") {
		template = strings.TrimSuffix(template, "/") + "/{crate}/{version}/download"
	}
	if strings.Contains(template, "{sha256-checksum}") && checksum == "" {
		return nil, fmt.Errorf("registry %s wants a checksum in the address, and there is none for %s", safeURL(at.index), id)
	}
	prefix := cratePrefix(name)
	u := strings.NewReplacer("{crate}", name, "{version}", version, "{prefix}", prefix,
		"{lowerprefix}", strings.ToLower(prefix), "{sha256-checksum}", checksum).Replace(template)
	place := candidate{url: u}
	if auth && sameHost(u, at.index) { // and to no other host
		place.token = at.token
	}
	return []candidate{place}, nil
}

// cratePrefix is the folder of a crate in an index.
func cratePrefix(name string) string {
	switch len(name) {
	case 1, 2:
		return fmt.Sprint(len(name))
	case 3:
		return "3/" + name[:1]
	}
	return name[:2] + "/" + name[2:4]
}

// template asks an index, once, for its "dl", and whether it wants a token.
func (f *Fetcher) template(ctx context.Context, at registryAddress) (string, bool, error) {
	e := f.dl.of(at.index)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.template != "" || e.err != nil {
		return e.template, e.auth, e.err
	}
	t, auth, err := f.askTemplate(ctx, at)
	if err != nil {
		if ctx.Err() == nil {
			e.err = err
		}
		return "", false, err
	}
	e.template, e.auth = t, auth
	return t, auth, nil
}

// askTemplate reads config.json ("Index Format" in the chapter on registries of
// The Cargo Book). As cargo does, it sends a token only where it is asked for.
func (f *Fetcher) askTemplate(ctx context.Context, at registryAddress) (dl string, auth bool, err error) {
	b, err := f.askConfig(ctx, at.index, "")
	var fe *FetchError
	if errors.As(err, &fe) && fe.Status == http.StatusUnauthorized {
		auth = true
		if err := at.wantToken(); err != nil {
			return "", true, err
		}
		b, err = f.askConfig(ctx, at.index, at.token)
	}
	if err != nil {
		return "", auth, err
	}
	var conf struct {
		DL   string `json:"dl"`
		Auth bool   `json:"auth-required"`
	}
	address := safeURL(at.index + "config.json")
	if err := json.Unmarshal(b, &conf); err != nil {
		return "", auth, fmt.Errorf("%s: %w", address, err)
	}
	if conf.DL == "" {
		return "", auth, fmt.Errorf("%s: there is no \"dl\" in it", address)
	}
	if err := mayServe(at.index, conf.DL); err != nil {
		return "", auth, fmt.Errorf("%s: %w", address, err)
	}
	if conf.Auth {
		if err := at.wantToken(); err != nil {
			return "", true, err
		}
	}
	return conf.DL, auth || conf.Auth, nil
}

// mayServe refuses crates in files of this machine, and on a server of this
// machine where the index is not on it.
func mayServe(index, dl string) error {
	from, err := url.Parse(index)
	to, e := url.Parse(strings.NewReplacer("{", "", "}", "").Replace(dl))
	if err != nil || e != nil || to.Scheme != "http" && to.Scheme != "https" {
		return fmt.Errorf("its \"dl\" is no http or https address: %q", safeURL(dl))
	}
	if IsLocal(to.Hostname()) && !IsLocal(from.Hostname()) {
		return fmt.Errorf("its \"dl\" is on this machine: %q", safeURL(dl))
	}
	return nil
}

// wantToken is an error unless there is a token that can be sent.
func (at registryAddress) wantToken() error {
	switch {
	case at.elsewhere != "":
		return fmt.Errorf("registry %s wants a token, and cargo's configuration has %s provide it; only cargo:token is supported", safeURL(at.index), at.elsewhere)
	case at.token == "":
		return fmt.Errorf("registry %s wants a token; give it as CARGO_REGISTRIES_NAME_TOKEN, or by `cargo login`", safeURL(at.index))
	case !httpguts.ValidHeaderFieldValue(at.token):
		return fmt.Errorf("registry %s: its token has characters that cannot be sent", safeURL(at.index))
	}
	return nil
}

// askConfig fetches an index's config.json.
func (f *Fetcher) askConfig(ctx context.Context, index, token string) ([]byte, error) {
	conf, err := f.cargo()
	if err != nil {
		return nil, err
	}
	to, err := f.store.Create()
	if err != nil {
		return nil, err
	}
	defer to.Discard()
	if err := f.client.Get(ctx, Request{URL: index + "config.json", Max: maxCargoConfig, Auth: conf.HTTP.auth(), token: token}, to); err != nil {
		return nil, err
	}
	return io.ReadAll(io.NewSectionReader(to, 0, to.Size()))
}

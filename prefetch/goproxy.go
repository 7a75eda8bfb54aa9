package prefetch

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"golang.org/x/mod/module"

	"caisson/prefetch/cas"
)

// candidate is one place where a file may be. The next one is tried where
// this one does not have it, and, where any is set, after any other error.
type candidate struct {
	url string
	any bool
	err error // why this place cannot be asked
	// get brings the file from where no single address has it, and url is
	// only what errors call it; nil for url itself.
	get func(ctx context.Context, to *cas.Temp) (by string, err error)
	// direct stands for the version control system that a module is in, until
	// the module is known.
	direct bool
	// token is the whole Authorization header for it; empty for none but that
	// of the request.
	token string
}

// bring gets the file of a place that has no address, and proves it as a
// transfer is proved. It returns by what it was logged in for it.
func (p candidate) bring(ctx context.Context, req Request, to *cas.Temp) (by string, err error) {
	if by, err = p.get(ctx, to); err != nil {
		return "", err
	}
	if got := to.Sum(); !req.Digest.IsZero() && got != req.Digest {
		return "", &FetchError{URL: p.url, Err: &cas.MismatchError{Got: got, Want: req.Digest}}
	}
	if req.Progress != nil {
		req.Progress(to.Size())
	}
	return by, nil
}

// errProxyOff is what "off" in GOPROXY comes to.
var errProxyOff = errors.New(`GOPROXY says "off": no module may be downloaded`)

// parseGoProxy reads GOPROXY as go does: addresses, "direct" and "off",
// separated by "," (the next is asked when this one does not have it) or "|"
// (after any error). What follows "direct" or "off" is never reached.
func parseGoProxy(s string) ([]candidate, error) {
	var out []candidate
	for rest := s; rest != ""; {
		item, anyError := rest, false
		if i := strings.IndexAny(rest, ",|"); i >= 0 {
			item, anyError, rest = rest[:i], rest[i] == '|', rest[i+1:]
		} else {
			rest = ""
		}
		switch item = strings.TrimSpace(item); item {
		case "":
			continue
		case "direct":
			return append(out, candidate{direct: true}), nil
		case "off":
			return append(out, candidate{err: errProxyOff}), nil
		}
		if !strings.ContainsAny(item, ".:/") {
			return nil, fmt.Errorf("GOPROXY: %q is not an address", item)
		}
		if !strings.Contains(item, "://") {
			item = "https://" + item
		}
		u, err := url.Parse(item)
		if err != nil {
			return nil, fmt.Errorf("GOPROXY: %q is not an address", safeURL(item))
		}
		switch u.Scheme {
		case "http", "https", "file":
		default:
			return nil, fmt.Errorf("GOPROXY: %q: scheme %q is not supported", safeURL(item), u.Scheme)
		}
		out = append(out, candidate{url: strings.TrimSuffix(item, "/"), any: anyError})
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("GOPROXY: %q names no proxy", s)
	}
	return out, nil
}

// goModule lists where a path of a module proxy, such as
// "github.com/google/uuid/@v/v1.6.0.zip", can be had.
func (f *Fetcher) goModule(path string) ([]candidate, error) {
	escaped, file, ok := strings.Cut(strings.TrimPrefix(path, "/"), "/@")
	if !ok || file == "" || strings.Contains(file, "..") {
		return nil, fmt.Errorf("%q is no file of a module proxy", path)
	}
	name, err := module.UnescapePath(escaped)
	if err != nil {
		return nil, err
	}
	if module.MatchPrefixPatterns(f.cfg.GoNoProxy, name) {
		return []candidate{f.fromSource(path)}, nil
	}
	proxies, err := parseGoProxy(f.cfg.GoProxy)
	if err != nil {
		return nil, err
	}
	for i := range proxies {
		switch {
		case proxies[i].direct:
			proxies[i] = f.fromSource(path)
		case proxies[i].err == nil:
			proxies[i].url += "/" + escaped + "/@" + file
		}
	}
	return proxies, nil
}

// fromSource is the version control system from which a module proxy's path can
// be made.
func (f *Fetcher) fromSource(path string) candidate {
	return candidate{url: path, get: func(ctx context.Context, to *cas.Temp) (string, error) { return f.goDirect(ctx, path, to) }}
}

// goSumDB lists where a path of the checksum database, such as
// "/lookup/golang.org/toolchain@v0.0.1-go1.26.0.linux-amd64", can be had: from
// each module proxy, then from the database itself.
func (f *Fetcher) goSumDB(path string) ([]candidate, error) {
	name, direct, err := sumDBAddress(f.cfg.GoSumDB)
	if err != nil {
		return nil, err
	}
	path = "/" + strings.TrimPrefix(path, "/")
	proxies, err := parseGoProxy(f.cfg.GoProxy)
	if err != nil {
		return nil, err
	}
	var out []candidate
	for _, p := range proxies {
		switch {
		case p.err != nil: // off
			return append(out, p), nil
		case !p.direct:
			out = append(out, candidate{url: p.url + "/sumdb/" + name + path, any: p.any})
		}
	}
	return append(out, candidate{url: direct + path}), nil
}

// sumDBAddress reads GOSUMDB: a known name, or a verifier key
// "NAME+HASH+KEY", and for either perhaps the address to use.
func sumDBAddress(s string) (name, direct string, err error) {
	fields := strings.Fields(s)
	if len(fields) == 0 || len(fields) > 2 {
		return "", "", fmt.Errorf("GOSUMDB: %q: want a name or a key, and perhaps an address", s)
	}
	name, _, _ = strings.Cut(fields[0], "+")
	switch {
	case name == "off":
		return "", "", errors.New(`GOSUMDB says "off": the checksum database may not be asked`)
	case len(fields) == 2:
		direct = strings.TrimSuffix(fields[1], "/")
	case name == "sum.golang.google.cn": // the same database, by another way
		name, direct = "sum.golang.org", "https://sum.golang.google.cn"
	default:
		direct = "https://" + name
	}
	return name, direct, nil
}

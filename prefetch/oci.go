package prefetch

import (
	"context"
	"errors"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// errNoOCI is what a part of an image comes to.
var errNoOCI = errors.New("images cannot be fetched")

// fetchOCI writes a part of an image in a registry.
func (f *Fetcher) fetchOCI(_ context.Context, w lock.Want, _ Request, _ *cas.Temp) error {
	return &FetchError{URL: safeURL(w.URL), Err: errNoOCI}
}

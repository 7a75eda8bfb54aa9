package prefetch

import (
	"context"
	"errors"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// errNoGit is what a git repository comes to.
var errNoGit = errors.New("git repositories cannot be fetched")

// fetchGit writes a git repository at a commit.
func (f *Fetcher) fetchGit(_ context.Context, w lock.Want, _ *cas.Temp) error {
	return &FetchError{URL: safeURL(w.URL), Err: errNoGit}
}

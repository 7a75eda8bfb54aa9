package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"caisson/prefetch/cas"
)

// maxSaid is of how many places an error says what was wrong there.
const maxSaid = 8

// placesError is what was wrong at each place of a file.
type placesError []error

func (e placesError) Error() string {
	var said []string
	for _, err := range e[:min(len(e), maxSaid)] {
		said = append(said, err.Error())
	}
	if more := len(e) - maxSaid; more > 0 {
		said = append(said, fmt.Sprintf("and %d more places", more))
	}
	return strings.Join(said, "; ")
}

// Is tells whether any of the errors is the target; that the file does not
// exist has to be said at all places.
func (e placesError) Is(target error) bool {
	n := 0
	for _, err := range e {
		if errors.Is(err, target) {
			n++
		}
	}
	return n > 0 && (target != fs.ErrNotExist || n == len(e))
}

// As finds the first that is a target.
func (e placesError) As(target any) bool {
	for _, err := range e {
		if errors.As(err, target) {
			return true
		}
	}
	return false
}

// atAny tries one mirror after the other, whatever is wrong with each. What
// has come of a file of a known digest is kept for the next, but where the
// bytes are not the digest's.
func atAny(ctx context.Context, places []candidate, req Request, to *cas.Temp, get getter) (brought, error) {
	var all placesError
	for _, p := range places {
		err := p.err
		if err == nil {
			var got brought
			req.URL = p.url
			if got, err = get(ctx, req, to); err == nil {
				return got, nil
			}
		}
		if ctx.Err() != nil || isFull(err) {
			return brought{}, err
		}
		all = append(all, err)
		if req.Digest.IsZero() && to.Size() > 0 {
			if req.Progress != nil {
				req.Progress(-to.Size())
			}
			if err := to.Restart(); err != nil {
				return brought{}, err
			}
		}
	}
	if len(all) == 1 {
		return brought{}, all[0]
	}
	return brought{}, all
}

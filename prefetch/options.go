package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Options are Fill's.
type Options struct {
	// Client and Config are where the network is. A nil Client is made from
	// Config.
	Client *Client
	Config Config
	// Tree packs the local folder of a tree, as lock.Pack does. An error that
	// is fs.ErrNotExist says that there is no such folder: then the store's
	// copy will do. Nil where there is no project.
	Tree func(in *lock.Input) (io.ReadCloser, error)
	// Get fetches an input from elsewhere than the lock says. The request has
	// all but the address, and may be passed on to a Client. ErrOwnPlace, with
	// nothing written, has Fill take this one from where the lock says. With a
	// Get no file of the project is looked at. Nil where the lock's own places
	// count.
	Get func(ctx context.Context, in *lock.Input, req Request, to *cas.Temp) error
	// Parallel is how many inputs are worked on at the same time; 16.
	Parallel int
	// Verify hashes also what the store has.
	Verify   bool
	Progress Progress
}

// ErrOwnPlace is Options.Get's answer for what it leaves to Fill.
var ErrOwnPlace = errors.New("to be fetched from where the lock says")

// Stats says what Fill did. Counts are of inputs.
type Stats struct {
	Fetched  int   // by the network
	Packed   int   // from the project's folder
	Present  int   // in the store before
	Repaired int   // of those fetched or packed: damaged before
	Bytes    int64 // that have been fetched or packed
	Requests int64 // HTTP requests, retries included
}

// InputError says which input an error is of.
type InputError struct {
	Kind, Name string
	Err        error
}

func (e *InputError) Error() string { return fmt.Sprintf("%s %s: %v", e.Kind, e.Name, e.Err) }

// Unwrap returns the reason.
func (e *InputError) Unwrap() error { return e.Err }

// TreeChangedError says that what lies in the project's folder is not what
// was locked.
type TreeChangedError struct {
	Path      string
	Got, Want digest.Digest
}

func (e *TreeChangedError) Error() string {
	return fmt.Sprintf("%s is not what was locked: got %s, want %s", e.Path, e.Got, e.Want)
}

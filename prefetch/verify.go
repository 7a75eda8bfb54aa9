package prefetch

import (
	"cmp"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Missing lists the inputs that the store does not have, or has in another
// size. It reads no file.
func Missing(l *lock.Lock, s *cas.Store) []*lock.Input {
	reserve(l, s)
	var out []*lock.Input
	for i := range l.Inputs {
		if in := &l.Inputs[i]; !isPresent(in, s) {
			out = append(out, in)
		}
	}
	return out
}

// Stored is a file that a store has or should have.
type Stored struct {
	Digest digest.Digest
	Size   int64  // bytes, as far as it is known
	Name   string // what it is for; may be empty
}

// tellEvery is how often Verify tells how far it is.
const tellEvery = 100 * time.Millisecond

// Verify reads files of a store on all processors, the largest first, and
// compares them with their digests. Each that is not as it should be gives a
// *cas.MissingError, a *cas.DamagedError or why it could not be read, in the
// order of the files. The last error is the context's. Progress may be nil.
func Verify(ctx context.Context, s *cas.Store, files []Stored, progress Progress) ([]error, error) {
	var mu sync.Mutex
	told := time.Now()
	e := Event{Total: len(files)}
	errs := make([]error, len(files))
	order := make([]int, len(files))
	for i, f := range files {
		order[i] = i
		e.TotalBytes += f.Size
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(files[b].Size, files[a].Size) })
	tell := func(finished int, n int64) {
		mu.Lock()
		defer mu.Unlock()
		e.Done += finished
		if e.Bytes += n; progress != nil && time.Since(told) > tellEvery {
			told = time.Now()
			progress(e)
		}
	}
	var g errgroup.Group
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range order {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			errs[i] = named(s.Check(ctx, files[i].Digest, func(n int64) { tell(0, n) }), files[i].Name)
			tell(1, 0)
			return nil
		})
	}
	_ = g.Wait() // the errors are kept beside the files
	return slices.DeleteFunc(errs, func(err error) bool { return err == nil }), ctx.Err()
}

// named puts into an error of the store what the file is for.
func named(err error, name string) error {
	var missing *cas.MissingError
	var damaged *cas.DamagedError
	switch {
	case errors.As(err, &missing):
		missing.Name = name
	case errors.As(err, &damaged):
		damaged.Name = name
	}
	return err
}

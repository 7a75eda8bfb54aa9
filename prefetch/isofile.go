package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
	"caisson/prefetch/iso"
)

// isos are the images that files are read from.
type isos struct {
	mu   sync.Mutex
	open map[digest.Digest]*openISO
}

// openISO is an image of the store.
type openISO struct {
	*iso.Image
	file   *cas.File
	verify func() error // that it is what its digest says, once
}

// iso opens an image that the store has, once.
func (f *Fetcher) iso(d digest.Digest) (*openISO, error) {
	f.isos.mu.Lock()
	defer f.isos.mu.Unlock()
	if i := f.isos.open[d]; i != nil {
		return i, nil
	}
	file, err := f.store.Open(d)
	if err != nil {
		return nil, err
	}
	image, err := iso.New(file, file.Size())
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	if f.isos.open == nil {
		f.isos.open = make(map[digest.Digest]*openISO)
	}
	f.isos.open[d] = &openISO{image, file, sync.OnceValue(file.Verify)}
	return f.isos.open[d], nil
}

// Close closes the ISO images that the Fetcher has read from. It may be used
// afterwards.
func (f *Fetcher) Close() {
	f.isos.mu.Lock()
	defer f.isos.mu.Unlock()
	for _, i := range f.isos.open {
		i.file.Close()
	}
	f.isos.open = nil
}

// fetchISO copies a file out of an image that the store has. Where the file's
// own digest is not known, the image's is checked first.
func (f *Fetcher) fetchISO(ctx context.Context, w lock.Want, req Request, to *cas.Temp) error {
	i, err := f.iso(w.ISO)
	if err != nil {
		return err
	}
	if req.Digest.IsZero() {
		if err := i.verify(); err != nil {
			return err
		}
	}
	file, err := i.Open(w.URL)
	if err != nil {
		return err
	}
	want, limit := req.Size, f.cfg.MaxSize
	if req.Max > 0 {
		limit = min(limit, req.Max)
	}
	switch {
	case want > 0 && file.Size() != want:
		return fmt.Errorf("%s in the ISO image: %w", w.URL, &SizeError{Got: file.Size(), Want: want})
	case want == 0 && file.Size() > limit:
		return fmt.Errorf("%s in the ISO image: %w", w.URL, &SizeError{Got: file.Size(), Want: limit, More: true})
	}
	r := &countedReader{ctx, io.NewSectionReader(file, 0, file.Size()), req.Progress}
	if _, err := io.CopyBuffer(to, r, make([]byte, chunkSize)); err != nil {
		return fmt.Errorf("%s in the ISO image: %w", w.URL, err)
	}
	if got := to.Sum(); !req.Digest.IsZero() && got != req.Digest {
		return fmt.Errorf("%s in the ISO image: %w", w.URL, &cas.MismatchError{Got: got, Want: req.Digest})
	}
	return nil
}

// countedReader tells of what is read, until a context ends.
type countedReader struct {
	ctx  context.Context
	r    io.Reader
	tell func(n int64)
}

func (c *countedReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.r.Read(p)
	if c.tell != nil && n > 0 {
		c.tell(int64(n))
	}
	return n, err
}

package prefetch

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// doLocal compares what is in the project's folder with the lock, and brings
// it into the store where it is not there, whole.
func (f *filler) doLocal(ctx context.Context, j *job, in *lock.Input) {
	if j.present {
		switch err := f.compareLocal(ctx, j, in); {
		case err == nil || ctx.Err() != nil:
			return
		case !isDamage(err):
			f.fail(in, err)
			return
		}
	}
	to, err := f.s.Create()
	if err != nil {
		f.fail(in, err)
		return
	}
	defer to.Discard()
	err = f.copyLocal(ctx, in, to)
	if !j.present {
		j.active.bytes(to.Size())
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		f.fail(in, err)
	case to.Sum() != in.SHA256:
		f.fail(in, &TreeChangedError{Path: in.URL, Got: to.Sum(), Want: in.SHA256})
	default:
		f.commit(j, to, &f.stats.Packed)
	}
}

// compareLocal is doLocal for what the store has: it writes nothing. Without
// a folder the store's copy will do. Damage of that is returned; the rest of
// what may be wrong with it has been said.
func (f *filler) compareLocal(ctx context.Context, j *job, in *lock.Input) error {
	r, err := f.openLocal(in)
	gone := errors.Is(err, fs.ErrNotExist)
	if err != nil && !gone {
		return err
	}
	if !gone {
		got, _, err := digest.Reader(&countedReader{ctx, r, nil})
		if err = errors.Join(err, r.Close()); err != nil {
			return err
		}
		if got != in.SHA256 {
			return &TreeChangedError{Path: in.URL, Got: got, Want: in.SHA256}
		}
	}
	err = f.recheck(j)
	switch {
	case err == nil:
		f.count(j, &f.stats.Present, 0, false)
	case gone && isDamage(err):
		f.fail(in, err)
		return nil
	case !isDamage(err):
		return nil
	}
	return err
}

// copyLocal writes what is local.
func (f *filler) copyLocal(ctx context.Context, in *lock.Input, to *cas.Temp) error {
	r, err := f.openLocal(in)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, &countedReader{ctx, r, nil})
	return errors.Join(err, r.Close())
}

// openLocal opens what is local: a tree is packed.
func (f *filler) openLocal(in *lock.Input) (io.ReadCloser, error) {
	if in.Kind == lock.KindTree {
		return f.opts.Tree(in)
	}
	path := filepath.Join(f.opts.Config.Dir, filepath.FromSlash(in.URL))
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: path, Err: errors.New("not a regular file")}
	}
	return os.Open(path)
}

package view

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// errOther ends the comparison of a folder with the view.
var errOther = errors.New("not the view")

// isAt tells whether a folder is the view already, to the last file and mode:
// then nothing needs to be written, and who reads it is not disturbed. Links
// are compared by their inode, copies are read.
func (t *Tree) isAt(ctx context.Context, dir string, places []place) (Stats, bool) {
	if len(t.folders) > 0 {
		return Stats{}, false
	}
	var mu sync.Mutex
	sum := Stats{Kept: true, Linked: make(map[cas.Linked]int)}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for some := range slices.Chunk(places, atOnce) {
		g.Go(func() error {
			for _, p := range some {
				st, err := t.compare(gctx, dir, p)
				if err != nil {
					return err
				}
				mu.Lock()
				sum.add(st)
				mu.Unlock()
			}
			return nil
		})
	}
	return sum, g.Wait() == nil && ctx.Err() == nil
}

// compare compares one folder. It has all that it should have where it has as
// much, and each that it should have.
func (t *Tree) compare(ctx context.Context, root string, p place) (Stats, error) {
	st := Stats{Linked: make(map[cas.Linked]int)}
	entries, err := os.ReadDir(filepath.Join(root, p.name))
	if err != nil {
		return st, err
	}
	dirs, files := 0, 0
	for _, e := range entries {
		switch {
		case e.IsDir():
			dirs++
		case e.Type().IsRegular():
			files++
		default:
			return st, errOther
		}
	}
	if p.name == "." {
		if !sameBytes(filepath.Join(root, marker), []byte(markerText)) {
			return st, errOther
		}
		files--
	}
	if dirs != len(p.dirs) || files != len(p.files) {
		return st, errOther
	}
	for _, base := range p.files {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		name := path.Join(p.name, base)
		if err := t.compareFile(filepath.Join(root, name), t.entries[name], &st); err != nil {
			return st, err
		}
	}
	return st, nil
}

func (t *Tree) compareFile(name string, e entry, st *Stats) error {
	if e.data != nil {
		st.Made++
		if !sameBytes(name, e.data) {
			return errOther
		}
		return nil
	}
	var here, there unix.Stat_t
	if err := errors.Join(unix.Lstat(name, &here), unix.Lstat(t.store.Path(e.digest), &there)); err != nil {
		return err
	}
	if here.Mode != unix.S_IFREG|0o444 || here.Size != there.Size {
		return errOther
	}
	if here.Dev == there.Dev && here.Ino == there.Ino {
		st.Linked[cas.HardLink]++
		return nil
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	if d, _, err := digest.Reader(f); err != nil || d != e.digest {
		return errors.Join(errOther, err)
	}
	st.Linked[cas.Copy]++
	return nil
}

// sameBytes tells whether a file is read-only and has these bytes.
func sameBytes(name string, b []byte) bool {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return false
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil || fi.Mode() != fs.FileMode(0o444) || fi.Size() != int64(len(b)) {
		return false
	}
	got := make([]byte, len(b))
	_, err = io.ReadFull(f, got)
	return err == nil && bytes.Equal(got, b)
}

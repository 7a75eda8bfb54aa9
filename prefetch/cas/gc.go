package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"caisson/lock/digest"
)

// gcBatch is how many files are removed under one hold of the lock.
const gcBatch = 256

// Entry is one name of a store's top layer.
type Entry struct {
	Digest  digest.Digest
	Regular bool  // what is no regular file is damage
	Size    int64 // bytes
	ModTime time.Time
	// Linked: the file has names outside the store as well.
	Linked bool
}

// Walk calls f for all of the top layer, in the order of the digests, and
// foreign, which may be nil, with the path of what is not called by a digest.
func (s *Store) Walk(f func(Entry) error, foreign func(path string) error) error {
	if foreign == nil {
		foreign = func(string) error { return nil }
	}
	root := filepath.Join(s.dir, "sha256")
	shards, err := os.ReadDir(root)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the store: %w", err)
	}
	for _, shard := range shards {
		dir := filepath.Join(root, shard.Name())
		if !shard.IsDir() {
			if err := foreign(dir); err != nil {
				return err
			}
			continue
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("reading the store: %w", err)
		}
		for _, n := range names {
			d, err := digest.ParseHex(n.Name())
			if err != nil || n.Name()[:2] != shard.Name() {
				if err := foreign(filepath.Join(dir, n.Name())); err != nil {
					return err
				}
				continue
			}
			fi, err := n.Info()
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return fmt.Errorf("reading the store: %w", err)
			}
			if err := f(newEntry(d, fi)); err != nil {
				return err
			}
		}
	}
	return nil
}

func newEntry(d digest.Digest, fi fs.FileInfo) Entry {
	e := Entry{Digest: d, Regular: fi.Mode().IsRegular(), Size: fi.Size(), ModTime: fi.ModTime()}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		e.Linked = e.Regular && st.Nlink > 1
	}
	return e
}

// Partial is how much is kept of transfers that were cut.
func (s *Store) Partial() Count {
	var c Count
	for _, p := range s.partials() {
		c.add(p.size)
	}
	return c
}

// GCOptions say what GC is to do.
type GCOptions struct {
	// Keep tells whether a file is needed.
	Keep func(digest.Digest) bool
	// Grace is how long a file stays after it was written or a process that
	// has ended asked for it.
	Grace time.Duration
	// Wait is how long to wait for readers unknown to end.
	Wait time.Duration
	// DryRun removes nothing.
	DryRun bool
}

// Count is a number of files and the sum of their sizes in bytes.
type Count struct {
	Files int
	Bytes int64
}

func (c *Count) add(size int64) {
	c.Files++
	c.Bytes += size
}

// GCStats is what GC found, each file counted once.
type GCStats struct {
	Kept    Count // needed
	InUse   Count // not needed, but a process that runs has asked for it
	Fresh   Count // neither, but written or asked for within the grace period
	Removed Count // or to be removed, in a dry run
	// Linked are those of Removed that have other names, so that their room
	// is not free yet.
	Linked Count
	// Partial are the kept transfers that were removed.
	Partial Count
}

// Freed is how many bytes became free.
func (s GCStats) Freed() int64 { return s.Removed.Bytes - s.Linked.Bytes + s.Partial.Bytes }

// GC removes files that are not to be kept from the top layer, as the package
// comment says, with what is remembered of them. Where it is interrupted or
// the store is in use by readers unknown (a *BusyError) the statistics say
// what was done before.
func (s *Store) GC(ctx context.Context, o GCOptions) (GCStats, error) {
	var st GCStats
	lock, err := openLock(s.dir)
	if err != nil {
		return st, fmt.Errorf("writing to the store: %w", err)
	}
	defer lock.Close()
	g := &collection{s: s, o: o, lock: lock, now: time.Now(), stats: &st}
	if err := g.run(ctx); err != nil {
		return st, err
	}
	g.partials()
	if !o.DryRun {
		s.removeDoubts()
		err = g.index()
	}
	return st, err
}

// collection is one run of GC.
type collection struct {
	s     *Store
	o     GCOptions
	lock  *os.File
	now   time.Time
	stats *GCStats
}

func (g *collection) fresh(t time.Time) bool { return g.now.Sub(t) < g.o.Grace }

func (g *collection) run(ctx context.Context) error {
	var batch []Entry
	err := g.s.Walk(func(e Entry) error {
		if g.o.Keep(e.Digest) {
			g.stats.Kept.add(e.Size)
			return nil
		}
		if batch = append(batch, e); len(batch) < gcBatch {
			return nil
		}
		err := g.remove(ctx, batch)
		batch = batch[:0]
		return err
	}, nil)
	if err != nil {
		return err
	}
	return g.remove(ctx, batch)
}

// remove removes those of a batch that nobody has asked for.
func (g *collection) remove(ctx context.Context, batch []Entry) error {
	if len(batch) == 0 {
		return ctx.Err()
	}
	if !g.o.DryRun {
		if err := exclusive(ctx, g.s.dir, g.lock, g.o.Wait); err != nil {
			return err
		}
		defer unlock(g.lock)
	}
	leases, err := readLeases(g.s.dir, g.now, g.o.Grace)
	if err != nil {
		return err
	}
	for _, e := range batch {
		_, live := leases.live[e.Digest]
		_, recent := leases.recent[e.Digest]
		switch {
		case live:
			g.stats.InUse.add(e.Size)
			continue
		case recent || g.fresh(e.ModTime):
			g.stats.Fresh.add(e.Size)
			continue
		}
		if !g.o.DryRun {
			if err := os.RemoveAll(g.s.path(e.Digest)); err != nil {
				return fmt.Errorf("removing from the store: %w", err)
			}
		}
		g.stats.Removed.add(e.Size)
		if e.Linked {
			g.stats.Linked.add(e.Size)
		}
	}
	return nil
}

// partials removes kept transfers of files that are not to be kept.
func (g *collection) partials() {
	for _, p := range g.s.partials() {
		d, err := digest.ParseHex(p.want)
		if g.fresh(p.modTime) || err == nil && g.o.Keep(d) && !g.s.hasTop(d) {
			continue
		}
		if g.o.DryRun || removePartial(p.path) {
			g.stats.Partial.add(p.size)
		}
	}
}

func (s *Store) hasTop(d digest.Digest) bool {
	_, err := os.Lstat(s.path(d))
	return err == nil
}

// index forgets what is remembered of files that no layer has. Somebody who
// proves a file remembers it shortly before the file has its name: what such
// a one loses is a proof, which is made again.
func (g *collection) index() error {
	root := filepath.Join(g.s.dir, "index")
	err := filepath.WalkDir(root, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || e.IsDir() {
			return err
		}
		if d, _, ok := readIndex(path); ok {
			if _, _, there := g.s.find(d); there {
				return nil
			}
		}
		if fi, err := e.Info(); err != nil || g.fresh(fi.ModTime()) {
			return nil
		}
		return os.Remove(path)
	})
	if err != nil {
		return fmt.Errorf("removing from the store: %w", err)
	}
	return nil
}

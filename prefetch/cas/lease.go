package cas

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
)

// MaxGrace is how long it is known what a process that has ended asked for: a
// longer grace period holds for the time of writing only.
const MaxGrace = 24 * time.Hour

// lease is what one Store has asked for. The zero value is ready.
type lease struct {
	mu     sync.Mutex
	pinned map[digest.Digest]struct{}
	lock   *os.File // DIR/lock
	file   *os.File // locked; nil before the first digest
	held   bool     // the shared lock is held in place of a lease
}

// pin keeps GC from removing files for as long as the process lives. It is
// called before they are looked for.
func (l *lease) pin(dir string, ds ...digest.Digest) {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b []byte
	for _, d := range ds {
		if _, ok := l.pinned[d]; !ok {
			b = append(b, d[:]...)
		}
	}
	if len(b) == 0 || l.held {
		return
	}
	if l.file == nil && !l.open(dir) {
		l.share(dir)
		return
	}
	if unix.Flock(int(l.lock.Fd()), unix.LOCK_SH) != nil {
		return
	}
	if _, err := l.file.Write(b); err != nil {
		l.held = true // the lock is not given back
		return
	}
	unlock(l.lock)
	for _, d := range ds {
		l.pinned[d] = struct{}{}
	}
}

// open starts a lease; false where the store may not be written to.
func (l *lease) open(dir string) bool {
	lock, err := openLock(dir)
	if err != nil {
		return false
	}
	f, err := createLocked(filepath.Join(dir, "leases"), 0o644)
	if err != nil {
		lock.Close()
		return false
	}
	l.lock, l.file, l.pinned = lock, f, make(map[digest.Digest]struct{})
	return true
}

// hold takes the shared lock of a store that is only read.
func (l *lease) hold(dir string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.share(dir)
}

// share takes the shared lock, if there is one to take. Where there is none
// nobody has ever written to the store, or nobody can.
func (l *lease) share(dir string) {
	l.held = true
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return
	}
	if unix.Flock(int(f.Fd()), unix.LOCK_SH) != nil {
		f.Close()
		return
	}
	l.lock = f
}

func openLock(dir string) (*os.File, error) {
	return os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR|os.O_CREATE, 0o644)
}

// BusyError says that files could not be removed, because the store is used
// by a process of which it is not known what it uses.
type BusyError struct{ Dir string }

func (e *BusyError) Error() string {
	return fmt.Sprintf("%s is used by a process that may only read it: nothing can be removed until that ends", e.Dir)
}

// exclusive takes the lock under which files are removed.
func exclusive(ctx context.Context, dir string, lock *os.File, wait time.Duration) error {
	for end := time.Now().Add(wait); ; {
		err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, unix.EWOULDBLOCK):
			return fmt.Errorf("locking %s: %w", lock.Name(), err)
		case time.Now().After(end):
			return &BusyError{Dir: dir}
		}
		timer := time.NewTimer(10 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// leased is what the leases hold, by whether their process lives.
type leased struct {
	live, recent map[digest.Digest]struct{}
}

// readLeases reads all leases: of those whose process has ended the ones that
// were added to within the grace period.
func readLeases(dir string, now time.Time, grace time.Duration) (leased, error) {
	all := leased{make(map[digest.Digest]struct{}), make(map[digest.Digest]struct{})}
	entries, err := os.ReadDir(filepath.Join(dir, "leases"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return all, fmt.Errorf("reading the store's leases: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, "leases", e.Name())
		fi, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return all, fmt.Errorf("reading the store's leases: %w", err)
		}
		into := all.live
		if !isLocked(path) {
			if into = all.recent; now.Sub(fi.ModTime()) >= grace {
				continue
			}
		}
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return all, fmt.Errorf("reading the store's leases: %w", err)
		}
		for ; len(b) >= len(digest.Digest{}); b = b[len(digest.Digest{}):] {
			into[digest.Digest(b[:len(digest.Digest{})])] = struct{}{}
		}
	}
	return all, nil
}

// isLocked tells whether somebody holds a file's lock. What cannot be told is
// taken for locked.
func isLocked(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return !errors.Is(err, fs.ErrNotExist)
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// removeStaleLeases removes the leases that no grace period reaches back to.
func (s *Store) removeStaleLeases() {
	dir := filepath.Join(s.dir, "leases")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		fi, err := e.Info()
		if err != nil || time.Since(fi.ModTime()) < MaxGrace {
			continue
		}
		if f := lockNamed(filepath.Join(dir, e.Name()), os.O_RDONLY); f != nil {
			os.Remove(f.Name())
			f.Close()
		}
	}
}

// unlock gives the lock back; it cannot fail where the lock is held.
func unlock(lock *os.File) { _ = unix.Flock(int(lock.Fd()), unix.LOCK_UN) }

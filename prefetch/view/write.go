package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

const (
	// marker is the file by which a folder is known as a view.
	marker     = ".caisson-view"
	markerText = "caisson view 1\n"
	// tempMark is in the names of views that are not finished.
	tempMark = ".caisson-tmp-"
)

// ForeignError says that a folder has files and is no view.
type ForeignError struct {
	Dir string
}

func (e *ForeignError) Error() string {
	return fmt.Sprintf("%s is not empty and not a view that Caisson wrote", e.Dir)
}

// Stats says of what a view was made: numbers of files.
type Stats struct {
	Linked  map[cas.Linked]int // files of the store, by how
	Symlink int                // files of the store, as symbolic links
	Made    int                // files that are not in the store
}

// Write makes dir the view, in place of an earlier one. The error is a
// *ForeignError where there is something else, and a *cas.MissingError where
// the store lacks a file; then dir is as it was.
func (t *Tree) Write(ctx context.Context, dir string) (Stats, error) {
	st, err := t.write(ctx, dir)
	if err != nil {
		return Stats{}, fmt.Errorf("writing the view %s: %w", dir, err)
	}
	return st, nil
}

func (t *Tree) write(ctx context.Context, dir string) (Stats, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return Stats{}, err
	}
	if err := checkOurs(dir); err != nil {
		return Stats{}, err
	}
	parent, base := filepath.Split(dir)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return Stats{}, err
	}
	st, err := t.writeVia(ctx, parent, "."+base+tempMark, func(tmp string) error { return exchange(tmp, dir) })
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		st, err = t.writeVia(ctx, dir, tempMark, func(tmp string) error { return exchangeEntries(tmp, dir) })
	}
	return st, err
}

// checkOurs refuses a folder that Write may not replace.
func checkOurs(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	foreign := false
	for _, e := range entries {
		if e.Name() == marker {
			return nil
		}
		foreign = foreign || !strings.HasPrefix(e.Name(), tempMark) // one that was killed
	}
	if foreign {
		return &ForeignError{Dir: dir}
	}
	return nil
}

// writeVia fills a temporary folder in parent and calls place with it. What
// is left of it then, and of those of processes that have died, is removed.
func (t *Tree) writeVia(ctx context.Context, parent, prefix string, place func(tmp string) error) (Stats, error) {
	removeStale(parent, prefix)
	tmp, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return Stats{}, err
	}
	defer removeAll(tmp)
	lock, err := os.Open(tmp)
	if err != nil {
		return Stats{}, err
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return Stats{}, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // a view is for others to read
		return Stats{}, err
	}
	st, err := t.fill(ctx, tmp)
	if err != nil {
		return Stats{}, err
	}
	return st, place(tmp)
}

// removeStale removes the temporary folders that nobody has locked.
func removeStale(parent, prefix string) {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), prefix) {
			continue
		}
		name := filepath.Join(parent, e.Name())
		if f, err := os.Open(name); err == nil {
			if unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil {
				removeAll(name)
			}
			f.Close()
		}
	}
}

// removeAll removes a folder with read-only ones in it, as go leaves them in a
// module cache. Files are not made writable: they may be the store's.
func removeAll(dir string) {
	if os.RemoveAll(dir) == nil {
		return
	}
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:gosec // a folder about to be removed
		}
		return nil
	})
	_ = os.RemoveAll(dir)
}

func (t *Tree) fill(ctx context.Context, dir string) (Stats, error) {
	digests := make([]digest.Digest, 0, len(t.entries))
	for _, e := range t.entries {
		if e.data == nil {
			digests = append(digests, e.digest)
		}
	}
	t.store.Reserve(digests)
	st := Stats{Linked: make(map[cas.Linked]int)}
	made := map[string]bool{".": true}
	for _, name := range slices.Sorted(maps.Keys(t.entries)) {
		if err := ctx.Err(); err != nil {
			return st, err
		}
		if err := makeDirs(dir, path.Dir(name), made); err != nil {
			return st, err
		}
		if err := t.put(filepath.Join(dir, name), t.entries[name], &st); err != nil {
			return st, err
		}
	}
	for _, f := range t.folders {
		if err := makeDirs(dir, path.Dir(f.name), made); err != nil {
			return st, err
		}
		n, err := f.fill(filepath.Join(dir, f.name))
		if err != nil {
			return st, err
		}
		st.Made += n
	}
	return st, writeReadOnly(filepath.Join(dir, marker), []byte(markerText))
}

// fill makes the folder and its files read-only, and returns their number.
func (f *folder) fill(dir string) (files int, err error) {
	if err := f.make(dir); err != nil {
		return 0, err
	}
	err = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		return os.Chmod(p, 0o444)
	})
	return files, err
}

// makeDirs makes a folder below dir, and those above it, that are not made.
func makeDirs(dir, name string, made map[string]bool) error {
	if made[name] {
		return nil
	}
	if err := makeDirs(dir, path.Dir(name), made); err != nil {
		return err
	}
	made[name] = true
	return os.Mkdir(filepath.Join(dir, name), 0o755) //nolint:gosec // as above
}

func (t *Tree) put(name string, e entry, st *Stats) error {
	switch {
	case e.data != nil:
		st.Made++
		return writeReadOnly(name, e.data)
	case t.mounted != "":
		rel, err := filepath.Rel(t.store.Dir(), t.store.Path(e.digest))
		if err != nil || !filepath.IsLocal(rel) {
			return fmt.Errorf("%s: it is in a lower layer of the store, which is not mounted", e.what)
		}
		if !t.store.Has(e.digest) {
			return &cas.MissingError{Digest: e.digest, Name: e.what}
		}
		st.Symlink++
		return os.Symlink(filepath.Join(t.mounted, rel), name)
	}
	how, err := t.store.Link(e.digest, name)
	var missing *cas.MissingError
	if errors.As(err, &missing) {
		return &cas.MissingError{Digest: e.digest, Name: e.what}
	}
	st.Linked[how]++
	return err
}

func writeReadOnly(name string, b []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Chmod(0o444), f.Close())
}

// exchange renames tmp to dir; what was dir is tmp then.
func exchange(tmp, dir string) error {
	err := os.Rename(tmp, dir) // which replaces an empty folder
	if err == nil || !errors.Is(err, fs.ErrExist) && !errors.Is(err, unix.ENOTDIR) {
		return err // ENOTEMPTY is fs.ErrExist
	}
	if err = unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, dir, unix.RENAME_EXCHANGE); err == nil {
		return nil
	}
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return &os.LinkError{Op: "exchange", Old: tmp, New: dir, Err: err}
	}
	// A file system without the exchange: for a moment there is no dir.
	old := tmp + ".old"
	if err := os.Rename(dir, old); err != nil {
		return err
	}
	if err := os.Rename(tmp, dir); err != nil {
		return errors.Join(err, os.Rename(old, dir))
	}
	removeAll(old)
	return nil
}

// exchangeEntries gives dir the entries of tmp, which is in it, and removes
// all others.
func exchangeEntries(tmp, dir string) error {
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	// The marker comes first: it sorts before letters, and before what else
	// begins with a dot it has to be put.
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int { return first(b) - first(a) })
	keep := map[string]bool{filepath.Base(tmp): true}
	for _, e := range entries {
		keep[e.Name()] = true
		to := filepath.Join(dir, e.Name())
		if err := exchange(filepath.Join(tmp, e.Name()), to); err != nil {
			return err
		}
	}
	old, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range old {
		if !keep[e.Name()] && !strings.HasPrefix(e.Name(), tempMark) {
			removeAll(filepath.Join(dir, e.Name()))
		}
	}
	return nil
}

func first(e fs.DirEntry) int {
	if e.Name() == marker {
		return 1
	}
	return 0
}

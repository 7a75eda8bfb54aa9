package view

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

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
	// Kept: dir was this view already, and nothing was written.
	Kept   bool
	Linked map[cas.Linked]int // files of the store, by how
	Made   int                // files that are not in the store
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
	t.reserve()
	places := t.places()
	if st, ok := t.isAt(ctx, dir, places); ok {
		return st, nil
	}
	parent, base := filepath.Split(dir)
	if err := os.MkdirAll(parent, 0o777); err != nil {
		return Stats{}, err
	}
	var st Stats
	err = error(unix.EBUSY)
	if !isMount(dir) {
		st, err = t.writeVia(ctx, places, parent, "."+base+tempMark, func(tmp string) error { return exchange(tmp, dir) })
	}
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) || errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EROFS) {
		st, err = t.writeVia(ctx, places, dir, tempMark, func(tmp string) error { return exchangeEntries(tmp, dir) })
	}
	return st, err
}

// isMount tells whether a folder is a mount point, as far as the kernel tells:
// such a one cannot be renamed.
func isMount(dir string) bool {
	var st unix.Statx_t
	return unix.Statx(unix.AT_FDCWD, dir, unix.AT_SYMLINK_NOFOLLOW, 0, &st) == nil && st.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
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
func (t *Tree) writeVia(ctx context.Context, places []place, parent, prefix string, place func(tmp string) error) (Stats, error) {
	removeStale(parent, prefix)
	tmp, err := os.MkdirTemp(parent, prefix)
	if err != nil {
		return Stats{}, err
	}
	defer removeAll(tmp)
	root, err := os.Open(tmp)
	if err != nil {
		return Stats{}, err
	}
	defer root.Close()
	if err := unix.Flock(int(root.Fd()), unix.LOCK_EX); err != nil {
		return Stats{}, err
	}
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // a view is for others to read
		return Stats{}, err
	}
	st, err := t.fill(ctx, root, places)
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

package build

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// origin is how a file that is in no package came to be, or what changed one
// that is.
type origin struct {
	account Account
	inputs  []string
	by      string
	// onRoot is set for a step that had the root before it: it may have changed
	// what a package brought.
	onRoot bool
}

// ledger says of the paths of a root by what they came to be. After each step
// that runs foreign programs the root is looked through for what is new or
// has changed, and that is entered under the step's name; what Caisson writes
// itself it enters path by path. A path of the image that is not in the
// ledger has no account.
type ledger struct {
	dir  string
	by   map[string]origin
	last map[string]stamp
}

// stamp changes whenever a file does. Of a folder it is its existence alone.
type stamp struct {
	ino, size uint64
	sec, nsec int64
	mode      uint32
}

func newLedger(dir string) *ledger {
	return &ledger{dir: dir, by: map[string]origin{}, last: map[string]stamp{}}
}

// set enters a path that Caisson wrote.
func (l *ledger) set(p string, o origin) { l.by[p] = o }

// know takes the root as it is now for granted: what differs from here on is
// the next step's.
func (l *ledger) know() error {
	now, err := look(l.dir)
	l.last = now
	return err
}

// step enters what is new or has changed since the last look: how says of a
// path by what.
func (l *ledger) step(how func(p string, dir bool) origin) error {
	now, err := look(l.dir)
	if err != nil {
		return err
	}
	for p, st := range now {
		if old, ok := l.last[p]; !ok || old != st {
			l.by[p] = how(p, st.mode&unix.S_IFMT == unix.S_IFDIR)
		}
	}
	l.last = now
	return nil
}

// generated is what a step made.
func generated(by string) func(string, bool) origin {
	return func(string, bool) origin { return origin{account: Generated, by: by} }
}

// rpmdb is where rpm keeps its database.
const rpmdb = "usr/lib/sysimage/rpm"

// byInstallation is what rpm made: folders and its database by itself, the
// rest by scriptlets and triggers.
func byInstallation(p string, dir bool) origin {
	switch {
	case dir:
		return origin{account: Generated, by: "installation"}
	case path.Dir(p) == rpmdb:
		return origin{account: Generated, by: "rpm"}
	}
	return origin{account: Generated, by: "scriptlets"}
}

// look reads a root's paths.
func look(dir string) (map[string]stamp, error) {
	out := map[string]stamp{}
	return out, lookBelow(dir, "", out)
}

func lookBelow(base, rel string, out map[string]stamp) error {
	names, err := readNames(filepath.Join(base, rel))
	if err != nil {
		return err
	}
	for _, name := range names {
		p := path.Join(rel, name)
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(base, p), &st); err != nil {
			return &os.PathError{Op: "lstat", Path: filepath.Join(base, p), Err: err}
		}
		if st.Mode&unix.S_IFMT == unix.S_IFDIR {
			out[p] = stamp{mode: unix.S_IFDIR}
			if err := lookBelow(base, p, out); err != nil {
				return err
			}
			continue
		}
		out[p] = stamp{ino: st.Ino, size: uint64(st.Size), sec: st.Ctim.Sec, nsec: st.Ctim.Nsec, mode: st.Mode} //nolint:gosec // sizes are positive
	}
	return nil
}

// readNames reads a folder, also one that is closed to its owner.
func readNames(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrPermission) {
		var st unix.Stat_t
		if err := unix.Lstat(dir, &st); err != nil {
			return nil, &os.PathError{Op: "lstat", Path: dir, Err: err}
		}
		if err := unix.Chmod(dir, st.Mode&0o7777|0o700); err != nil {
			return nil, &os.PathError{Op: "chmod", Path: dir, Err: err}
		}
		defer unix.Chmod(dir, st.Mode&0o7777) //nolint:errcheck // it has just been possible
		f, err = os.Open(dir)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

package build

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
)

// asOther is what the steps of the manifest find otherwise, and what installs packages
// does not: that runs as root with umask 022, as package managers do, and rpm leaves its
// database with the mode that the umask gives.
func (b *builder) asOther() sandbox.Surroundings {
	return sandbox.Surroundings{User: b.Around.User, Umask: b.Around.Umask}
}

// wanted tells whether step n is run.
func (b *builder) wanted(n int) bool { return b.only == nil || slices.Contains(b.only, n) }

// Alone tells whether a step needs nothing but the tools root and its inputs: one
// that works on the installed root does not.
func Alone(l *lock.Lock, n int) bool {
	return n >= 1 && n <= len(l.Steps) && !usesRoot.MatchString(l.Steps[n-1].Run)
}

// Steps runs some steps of a lock, each by its number from 1 and one that is
// Alone, and makes no image. It returns what they left for the root, sorted by path,
// with type and permissions, content and the step that made it; owners are not
// looked at. Nothing is left in Options.Out.
func Steps(ctx context.Context, o Options, only []int) (files []File, err error) {
	for _, n := range only {
		if !Alone(o.Lock, n) {
			return nil, fmt.Errorf("step %d is none that can be run alone", n)
		}
	}
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	b.only = only
	w, err := newWorkDir(b.Out)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, w.remove()) }()
	if err := b.enter(w.path); err != nil {
		return nil, err
	}
	defer b.log.Close()
	if err := b.unpackTools(ctx); err != nil {
		return nil, err
	}
	if err := b.runSteps(ctx, nil); err != nil {
		return nil, err
	}
	return b.placed()
}

// placed are the files that steps left in b.out.
func (b *builder) placed() ([]File, error) {
	var out []File
	err := filepath.WalkDir(b.out, func(name string, _ fs.DirEntry, err error) error {
		if err != nil || name == b.out {
			return err
		}
		rel, err := filepath.Rel(b.out, name)
		if err != nil {
			return err
		}
		f := File{Part: lock.SetRoot, Path: "/" + rel, Account: b.made[rel].account, By: b.made[rel].by}
		var st unix.Stat_t
		if err := unix.Lstat(name, &st); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		f.Mode = st.Mode
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			if f.Target, err = os.Readlink(name); err != nil {
				return err
			}
		case unix.S_IFREG:
			content, err := readPlaced(name, st.Mode)
			if err != nil {
				return err
			}
			f.Size, f.SHA256 = st.Size, &content
		}
		out = append(out, f)
		return nil
	})
	return out, err
}

// readPlaced hashes a file that its step may have closed to its owner.
func readPlaced(name string, mode uint32) (digest.Digest, error) {
	if mode&0o400 == 0 {
		if err := os.Chmod(name, 0o600); err != nil {
			return digest.Digest{}, err
		}
	}
	f, err := os.Open(name)
	if err != nil {
		return digest.Digest{}, err
	}
	defer f.Close()
	sum, _, err := digest.Reader(f)
	return sum, err
}

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// lockName is what a lock is called unless another name is given.
const lockName = "caisson.lock"

// sources are where a command finds the lock and the store.
type sources struct {
	lockFile, store string
}

func (s *sources) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.lockFile, "lock", lockName, "the lock")
	s.storeFlag(c)
}

func (s *sources) storeFlag(c *cobra.Command) {
	c.Flags().StringVar(&s.store, "store", "", "the store's folder (default $XDG_CACHE_HOME/caisson)")
}

// require marks flags without which a command cannot do its work.
func require(c *cobra.Command, flags ...string) {
	for _, f := range flags {
		if err := c.MarkFlagRequired(f); err != nil {
			panic(err) // the command has no such flag: a mistake in its definition
		}
	}
}

// args are the flags by which another command finds the same lock and store.
func (s *sources) args() []string {
	var out []string
	if s.lockFile != lockName {
		out = append(out, "--lock", s.lockFile)
	}
	return append(out, s.storeArgs()...)
}

func (s *sources) storeArgs() []string {
	if s.store == "" {
		return nil
	}
	return []string{"--store", s.store}
}

// open reads the lock and opens the store, which has to be there.
func (s *sources) open() (*lock.Lock, []byte, *cas.Store, error) {
	l, b, err := s.readLock()
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := s.layered()
	return l, b, st, err
}

// withLower lays an opened store over those below it.
func withLower(top *cas.Store, err error) (*cas.Store, error) {
	if err != nil || len(lowerStores()) == 0 {
		return top, err
	}
	return cas.Open(top.Dir(), lowerStores()...)
}

// layered opens the store over those below it. One of them has to be there.
func (s *sources) layered() (*cas.Store, error) {
	if len(lowerStores()) > 0 {
		return withLower(s.makeStore())
	}
	return s.openStore()
}

func (s *sources) readLock() (*lock.Lock, []byte, error) {
	b, err := os.ReadFile(s.lockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, &codeError{fmt.Errorf("%s: there is no lock", s.lockFile), exitLock, "run `caisson lock` first, or name the lock with --lock"}
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := parseLock(s.lockFile, b)
	if newer := new(lock.RevisionError); errors.As(err, &newer) {
		return nil, nil, &codeError{err, exitLock, newerHint}
	}
	if err != nil {
		return nil, nil, &codeError{err, exitLock, "get the lock back from where it is kept, or have `caisson lock --update` choose everything anew"}
	}
	return l, b, nil
}

// storeDir is the store's folder, as given or where the system keeps such.
func (s *sources) storeDir() (string, error) {
	if s.store != "" {
		return s.store, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("no folder for the store: %w; name one with --store", err)
	}
	return filepath.Join(cache, "caisson"), nil
}

// openStore opens a store that is there.
func (s *sources) openStore() (*cas.Store, error) {
	dir, err := s.storeDir()
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, &codeError{fmt.Errorf("%s: there is no store", dir), exitMissing, "run `caisson prefetch`, or name the store with --store"}
	}
	return s.makeStore()
}

// makeStore opens the store and makes it where there is none.
func (s *sources) makeStore() (*cas.Store, error) {
	dir, err := s.storeDir()
	if err != nil {
		return nil, err
	}
	if err := wantFolder(dir, "the store"); err != nil {
		return nil, err
	}
	return cas.Open(dir)
}

// wantFolder refuses a path at which there is something else than a folder.
func wantFolder(dir, what string) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return fmt.Errorf("%s: %s has to be a folder, and this is a file", dir, what)
	}
	return nil
}

// buildable tells whether this program on this machine can build the lock's
// image.
func buildable(l *lock.Lock, lockFile, variant string) error {
	arch := machineArch()
	if l.Imported != "" {
		return fmt.Errorf("%s: no image can be built from an %s: it has no manifest", lockFile, l.Imported)
	}
	if err := sameRevision(l, lockFile); err != nil {
		return err
	}
	if !slices.Contains(l.Arches, arch) {
		return fmt.Errorf("%s is for %s, and this machine is %s: an image is built on a machine of its own kind", lockFile, strings.Join(l.Arches, ", "), arch)
	}
	if _, ok := l.ImageFor(variant); ok {
		return nil
	}
	has := "it has no variants"
	if len(l.Variants) > 0 {
		var all []string
		for _, v := range l.Variants {
			all = append(all, v.Name)
		}
		has = "it has " + strings.Join(all, ", ")
	}
	return usageError{fmt.Errorf("%s has no variant %q: %s", lockFile, variant, has)}
}

// newerHint is what to do about a lock that a later Caisson made.
const newerHint = "use a newer Caisson; `caisson version` says which revision one makes"

// sameRevision refuses a lock that a Caisson of another revision made: this one
// would make another image of it, or say of one that it made it.
func sameRevision(l *lock.Lock, lockFile string) error {
	if l.Revision == lock.Revision {
		return nil
	}
	hint := newerHint
	if l.Revision < lock.Revision {
		args := []string{"lock", "--upgrade"}
		if lockFile != lockName {
			args = append(args, "-o", lockFile)
		}
		hint = fmt.Sprintf("`caisson %s` says what changes, and keeps every choice; for an image that exists, use a Caisson of revision %d", quote(args), l.Revision)
	}
	return &codeError{fmt.Errorf("%s is made for revision %d of the image's bytes, and this Caisson makes revision %d", lockFile, l.Revision, lock.Revision), exitLock, hint}
}

// machineArch is this machine's architecture as RPM calls it.
func machineArch() string {
	if a, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; ok {
		return a
	}
	return runtime.GOARCH
}

// writeFile replaces a file, under a temporary name until it is whole.
func writeFile(name string, b []byte) error {
	if err := replaceFile(name, b); err != nil {
		return fmt.Errorf("writing %s: %w", name, cause(err))
	}
	return nil
}

func replaceFile(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// cause is an error of the file system without the temporary name that it is
// about.
func cause(err error) error {
	var path *fs.PathError
	var link *os.LinkError
	switch {
	case errors.As(err, &path):
		return path.Err
	case errors.As(err, &link):
		return link.Err
	}
	return err
}

// packTree packs a local folder of the project for the store.
func packTree(project string) func(in *lock.Input) (io.ReadCloser, error) {
	return func(in *lock.Input) (io.ReadCloser, error) {
		dir := filepath.Join(project, in.URL)
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(lock.PackInput(w, project, in.URL)) }()
		return r, nil
	}
}

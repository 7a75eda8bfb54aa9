package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// sources are where a command finds the lock and the store.
type sources struct {
	lockFile, store string
}

func (s *sources) flags(c *cobra.Command) {
	c.Flags().StringVar(&s.lockFile, "lock", "caisson.lock", "the lock")
	s.storeFlag(c)
}

func (s *sources) storeFlag(c *cobra.Command) {
	c.Flags().StringVar(&s.store, "store", "", "the store's folder (default $XDG_CACHE_HOME/caisson)")
}

// open reads the lock and opens the store.
func (s *sources) open() (*lock.Lock, []byte, *cas.Store, error) {
	l, b, err := s.readLock()
	if err != nil {
		return nil, nil, nil, err
	}
	st, err := s.openStore()
	return l, b, st, err
}

func (s *sources) readLock() (*lock.Lock, []byte, error) {
	b, err := os.ReadFile(s.lockFile)
	if os.IsNotExist(err) {
		return nil, nil, &codeError{fmt.Errorf("%s: there is no lock", s.lockFile), exitLock, "run `caisson lock` first, or name the lock with --lock"}
	}
	if err != nil {
		return nil, nil, err
	}
	l, err := lock.Parse(s.lockFile, b)
	if err != nil {
		return nil, nil, &codeError{err, exitLock, ""}
	}
	return l, b, nil
}

func (s *sources) openStore() (*cas.Store, error) {
	dir := s.store
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, fmt.Errorf("no folder for the store: %w; name one with --store", err)
		}
		dir = filepath.Join(cache, "caisson")
	}
	return cas.Open(dir)
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
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err := f.Write(b); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		f.Close()
		return err
	}
	if err := f.Sync(); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// packTree packs a local folder of the project for the store.
func packTree(project string) func(in *lock.Input) (io.ReadCloser, error) {
	return func(in *lock.Input) (io.ReadCloser, error) {
		dir := filepath.Join(project, in.URL)
		if _, err := os.Stat(dir); err != nil {
			return nil, err
		}
		r, w := io.Pipe()
		go func() { w.CloseWithError(lock.Pack(w, dir)) }()
		return r, nil
	}
}

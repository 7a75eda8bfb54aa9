package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

// lowerVar is the variable that names the stores below the store, as PATH
// names folders.
const lowerVar = "CAISSON_STORE_LOWER"

func newStoreCommand(ui *ui) *cobra.Command {
	c := &cobra.Command{
		Use:   "store",
		Short: "Look after the store",
		Long: `Store checks, tidies and shares what prefetch has brought.

Below the store there can be others that are only read, such as one on a share:
` + lowerVar + ` lists their folders, separated by colons. What they have is not
fetched, and nothing is written to them.`,
	}
	c.AddCommand(newStoreVerifyCommand(ui), newStoreGCCommand(ui), newStoreDUCommand(ui), newStorePushCommand(ui), newStorePullCommand(ui))
	return c
}

// lowerStores are the stores below the store.
func lowerStores() []string {
	var out []string
	for _, dir := range filepath.SplitList(os.Getenv(lowerVar)) {
		if dir != "" {
			out = append(out, dir)
		}
	}
	return out
}

// storeSources are a store and any number of locks.
type storeSources struct {
	sources
	locks []string
}

// read reads the locks that are named. Where none is, and optional is set, it
// is the one in this folder, if there is one.
func (s *storeSources) read(optional bool) ([]*lock.Lock, error) {
	names := s.locks
	if len(names) == 0 && optional {
		if _, err := os.Stat(lockName); err != nil {
			return nil, nil //nolint:nilerr // there is none
		}
		names = []string{lockName}
	}
	var out []*lock.Lock
	for _, name := range names {
		one := sources{lockFile: name}
		l, _, err := one.readLock()
		if err != nil {
			return nil, err
		}
		out = append(out, l)
	}
	return out, nil
}

// byDigest is what files are for: the first input of each.
func byDigest(locks []*lock.Lock) map[digest.Digest]*lock.Input {
	out := make(map[digest.Digest]*lock.Input)
	for _, l := range locks {
		for i := range l.Inputs {
			if in := &l.Inputs[i]; out[in.SHA256] == nil {
				out[in.SHA256] = in
			}
		}
	}
	return out
}

func newStoreVerifyCommand(ui *ui) *cobra.Command {
	var s storeSources
	c := &cobra.Command{
		Use:   "verify",
		Short: "Read the files of the store and compare them with their digests",
		Long: `Verify reads every file of the store or, with --lock, what locks need, and names
what is damaged or missing by what it is for. The next prefetch then replaces what
is damaged.`,
		Example: "  caisson store verify\n  caisson store verify --lock caisson.lock",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStoreVerify(cmd.Context(), ui, &s) },
	}
	s.storeFlag(c)
	c.Flags().StringArrayVar(&s.locks, "lock", nil, "read only what this lock needs; can be repeated")
	return c
}

func runStoreVerify(ctx context.Context, ui *ui, s *storeSources) error {
	locks, err := s.read(true)
	if err != nil {
		return err
	}
	var store *cas.Store
	var files []prefetch.Stored
	var bad []error
	inputs := byDigest(locks)
	if len(s.locks) > 0 {
		if store, err = s.layered(); err != nil {
			return err
		}
		for d, in := range inputs {
			files = append(files, prefetch.Stored{Digest: d, Size: in.Size, Name: in.Kind + " " + in.Name})
		}
	} else {
		if store, err = s.openStore(); err != nil {
			return err
		}
		if files, bad, err = allFiles(store, inputs); err != nil {
			return err
		}
	}
	began := time.Now()
	slices.SortFunc(files, func(a, b prefetch.Stored) int { return cmp.Compare(a.Name, b.Name) })
	var total int64
	for _, f := range files {
		total += f.Size
	}
	show, end := ui.transfer("read")
	wrong, err := prefetch.Verify(ctx, store, files, show)
	end()
	if err != nil {
		return err
	}
	for _, err := range wrong {
		if len(s.locks) > 0 || !errors.As(err, new(*cas.MissingError)) { // what was there a moment ago may go
			bad = append(bad, err)
		}
	}
	if len(bad) > 0 {
		return errors.Join(bad...)
	}
	ui.print("%s: %s, all as their names say: %s, %s", store.Dir(), count(len(files), "file"), size(total), took(began))
	return nil
}

// allFiles lists a store, and what does not belong in it.
func allFiles(store *cas.Store, inputs map[digest.Digest]*lock.Input) (files []prefetch.Stored, foreign []error, err error) {
	err = store.Walk(func(e cas.Entry) error {
		f := prefetch.Stored{Digest: e.Digest, Size: e.Size}
		if in := inputs[e.Digest]; in != nil {
			f.Name = in.Kind + " " + in.Name
		}
		files = append(files, f)
		return nil
	}, func(path string) error {
		foreign = append(foreign, fmt.Errorf("%s: not a file of the store", path))
		return nil
	})
	return files, foreign, err
}

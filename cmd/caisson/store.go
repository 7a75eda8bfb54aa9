package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"github.com/spf13/cobra"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

func newStoreCommand(ui *ui) *cobra.Command {
	c := &cobra.Command{Use: "store", Short: "Look after the store"}
	var s sources
	verify := &cobra.Command{
		Use:   "verify",
		Short: "Read every file of the store and compare it with its digest",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := s.openStore()
			if err != nil {
				return err
			}
			return verifyStore(cmd.Context(), ui, store)
		},
	}
	s.storeFlag(verify)
	c.AddCommand(verify)
	return c
}

// verifyStore reads the whole store; all that is damaged is in the error.
func verifyStore(ctx context.Context, ui *ui, store *cas.Store) error {
	var bad []error
	n := 0
	top := filepath.Join(store.Dir(), "sha256")
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if p == top && errors.Is(err, fs.ErrNotExist) {
			return fs.SkipAll // a store without a file
		}
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		sum, err := digest.ParseHex(filepath.Base(p))
		if err != nil {
			bad = append(bad, fmt.Errorf("%s: not a file of the store: %w", p, err))
			return nil
		}
		n++
		if err := store.Verify(sum); err != nil {
			bad = append(bad, err)
		}
		return nil
	})
	if err := errors.Join(append(bad, err)...); err != nil {
		return err
	}
	ui.print("%s: %s, all as their names say", store.Dir(), count(n, "file"))
	return nil
}

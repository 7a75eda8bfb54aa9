package main

import (
	"context"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

type prefetchOptions struct {
	sources
	project string
}

func newPrefetchCommand(ui *ui) *cobra.Command {
	var o prefetchOptions
	c := &cobra.Command{
		Use:   "prefetch",
		Short: "Fill the store with what the lock names, and prove it",
		Long: `Prefetch brings into the store what is missing of the lock's inputs and checks
SHA-256, the h1 of Go modules, the checksums of crates, and the signatures of
packages. It can be interrupted at any time and run again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runPrefetch(cmd.Context(), ui, &o) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.project, "project", "", "the manifest's folder, for local sources and keys (default the lock's)")
	return c
}

func runPrefetch(ctx context.Context, ui *ui, o *prefetchOptions) error {
	l, _, store, err := o.open()
	if err != nil {
		return err
	}
	if o.project == "" {
		o.project = filepath.Dir(o.lockFile)
	}
	if err := fill(ctx, ui, l, store, o.project); err != nil {
		return err
	}
	ui.next("caisson build --lock %s --out out", o.lockFile)
	return nil
}

// fill is prefetch.Fill with a progress line.
func fill(ctx context.Context, ui *ui, l *lock.Lock, store *cas.Store, project string) error {
	cfg, err := prefetch.EnvConfig(programVersion(), project)
	if err != nil {
		return err
	}
	began := time.Now()
	stats, err := prefetch.Fill(ctx, l, store, prefetch.Options{
		Config: cfg, Tree: packTree(project),
		Progress: func(e prefetch.Event) {
			if e.Repaired != "" {
				ui.stage("%s was damaged in the store and has been replaced", e.Repaired)
			}
			ui.progress(e.Done, e.Total, e.Bytes, e.TotalBytes, began, strings.Join(e.Active, " "))
		},
	})
	if err != nil {
		return err
	}
	ui.stage("%d inputs fetched (%s), %d packed, %d were there, %d requests, %s",
		stats.Fetched, size(stats.Bytes), stats.Packed, stats.Present, stats.Requests, took(began))
	return nil
}

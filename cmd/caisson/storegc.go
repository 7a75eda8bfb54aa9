package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

type storeGCOptions struct {
	storeSources
	grace  time.Duration
	dryRun bool
}

func newStoreGCCommand(ui *ui) *cobra.Command {
	var o storeGCOptions
	c := &cobra.Command{
		Use:   "gc",
		Short: "Remove what no given lock needs",
		Long: `Gc removes from the store the files that none of the given locks needs, and says
how much it freed. It may run beside prefetches and builds: what a process that
runs has asked for stays, as does what was written or asked for within --grace.
Stores below the store are left alone.`,
		Example: "  caisson store gc --lock caisson.lock --lock ../other/caisson.lock --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runStoreGC(cmd.Context(), ui, &o) },
	}
	o.storeFlag(c)
	c.Flags().StringArrayVar(&o.locks, "lock", nil, "keep what this lock needs; can be repeated")
	c.Flags().DurationVar(&o.grace, "grace", time.Hour, "keep what was written or asked for so recently")
	c.Flags().BoolVar(&o.dryRun, "dry-run", false, "remove nothing, say what would be")
	require(c, "lock")
	return c
}

func runStoreGC(ctx context.Context, ui *ui, o *storeGCOptions) error {
	if o.grace < 0 {
		return usageError{fmt.Errorf("--grace %s: a time cannot be negative", o.grace)}
	}
	locks, err := o.read(false)
	if err != nil {
		return err
	}
	store, err := o.openStore()
	if err != nil {
		return err
	}
	inputs := byDigest(locks)
	st, err := store.GC(ctx, cas.GCOptions{
		Keep:  func(d digest.Digest) bool { return inputs[d] != nil },
		Grace: o.grace, Wait: 10 * time.Second, DryRun: o.dryRun,
	})
	var busy *cas.BusyError
	if errors.As(err, &busy) {
		err = &codeError{err, exitError, "run it again when that process has ended; `fuser " + busy.Dir + "/lock` names it"}
	}
	if err == nil || st.Removed.Files > 0 {
		printGC(ui, o, len(locks), st)
	}
	return err
}

func printGC(ui *ui, o *storeGCOptions, locks int, st cas.GCStats) {
	removed := "removed"
	if o.dryRun {
		removed = "would remove"
	}
	ui.print("%s %s, %s freed", removed, count(st.Removed.Files, "file"), size(st.Freed()))
	if st.Linked.Files > 0 {
		ui.print("  %s of them, %s, with names outside the store, which keep their room", count(st.Linked.Files, "file"), size(st.Linked.Bytes))
	}
	if st.Partial.Files > 0 {
		ui.print("  and %s, %s", count(st.Partial.Files, "unfinished transfer"), size(st.Partial.Bytes))
	}
	ui.print("kept %s, %s, needed by %s", count(st.Kept.Files, "file"), size(st.Kept.Bytes), count(locks, "lock"))
	if st.InUse.Files > 0 {
		ui.print("kept %s, %s, used by a process that runs", count(st.InUse.Files, "file"), size(st.InUse.Bytes))
	}
	if st.Fresh.Files > 0 {
		ui.print("kept %s, %s, written or used within %s (--grace)", count(st.Fresh.Files, "file"), size(st.Fresh.Bytes), o.grace)
	}
}

func newStoreDUCommand(ui *ui) *cobra.Command {
	var s storeSources
	c := &cobra.Command{
		Use:   "du",
		Short: "Say how much room the store takes, and for what",
		Long: `Du counts the files of the store by the kind of input that they are in the given
locks, or in caisson.lock of this folder.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runStoreDU(ui, &s) },
	}
	s.storeFlag(c)
	c.Flags().StringArrayVar(&s.locks, "lock", nil, "a lock that says what files are for; can be repeated")
	return c
}

func runStoreDU(ui *ui, s *storeSources) error {
	locks, err := s.read(true)
	if err != nil {
		return err
	}
	store, err := s.openStore()
	if err != nil {
		return err
	}
	inputs := byDigest(locks)
	kinds := make(map[string]cas.Count)
	var all, others cas.Count
	add := func(c cas.Count, n int64) cas.Count { return cas.Count{Files: c.Files + 1, Bytes: c.Bytes + n} }
	err = store.Walk(func(e cas.Entry) error {
		all = add(all, e.Size)
		if in := inputs[e.Digest]; in != nil {
			kinds[in.Kind] = add(kinds[in.Kind], e.Size)
		} else {
			others = add(others, e.Size)
		}
		return nil
	}, nil)
	if err != nil {
		return err
	}
	line := func(what string, c cas.Count) { ui.print("%-10s %8d %10s", what, c.Files, size(c.Bytes)) }
	for _, kind := range slices.Sorted(maps.Keys(kinds)) {
		line(kind, kinds[kind])
	}
	if others.Files > 0 {
		line("other", others)
	}
	if partial := store.Partial(); partial.Files > 0 {
		line("unfinished", partial)
	}
	line("all", all)
	return nil
}

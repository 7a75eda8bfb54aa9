package main

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/prefetch"
	"caisson/prefetch/cas"
)

type prefetchOptions struct {
	fetchOptions
	project string
	views   []string
	mode    string
	config  string
	verify  bool
	json    bool
}

func newPrefetchCommand(ui *ui) *cobra.Command {
	var o prefetchOptions
	c := &cobra.Command{
		Use:   "prefetch",
		Short: "Fill the store with what the lock names, and prove it",
		Long: `Prefetch brings into the store what is missing of the lock's inputs, and checks
SHA-256, the h1 of Go modules, the checksums of crates, and the signatures of
packages. It can be interrupted at any time and run again.

What is there already has been checked when it came, and is looked at by its size
only: a build reads it whole. What a build or a verification found damaged is
replaced; with --verify all is read and checked again, and so too what nobody has
read since.

--view lays the inputs out for other tools, by links to the store: a Go module
cache and proxy, cargo registries, RPM repositories, or Hermeto's output. Then
all is read, as with --verify: not every tool checks what it is given.

--input takes, in place of a lock, what Hermeto's fetch-deps takes; see
` + "`caisson hermeto --help`" + `.`,
		Example: `  caisson prefetch
  caisson prefetch --view go=/tmp/mod --view rpm=/tmp/rpm
  caisson prefetch --input '{"type": "gomod"}' --source src --output out`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.input != "" {
				h := hermetoOptions{mode: o.mode, config: o.config}
				if err := h.check(); err != nil {
					return err
				}
				return runFetchDeps(cmd.Context(), ui, &h, &o.fetchOptions)
			}
			if err := withoutInput(cmd); err != nil {
				return err
			}
			return runPrefetch(cmd.Context(), ui, &o)
		},
	}
	o.sources.flags(c)
	o.fetchOptions.flags(c)
	c.Flags().StringVar(&o.project, "project", "", "the manifest's folder, for local sources and keys (default the lock's)")
	c.Flags().BoolVar(&o.verify, "verify", false, "also read what the store has, and replace what is damaged")
	c.Flags().StringVar(&o.input, "input", "", "a prefetch input of Hermeto's, or a file with one, instead of a lock")
	c.Flags().StringVar(&o.mode, "mode", "strict", "Hermeto's, for --input: only \"strict\"")
	c.Flags().StringVar(&o.config, "config-file", "", "a configuration file of Hermeto's, for --input")
	c.Flags().StringArrayVar(&o.views, "view", nil, "KIND=FOLDER: also write a view of that kind: go, cargo, rpm or hermeto")
	c.Flags().BoolVar(&o.json, "json", false, "print what was done as JSON")
	for _, f := range []string{"lock", "project", "view", "verify", "json"} {
		c.MarkFlagsMutuallyExclusive("input", f)
	}
	return c
}

func runPrefetch(ctx context.Context, ui *ui, o *prefetchOptions) error {
	views, err := parseViews(o.views)
	if err != nil {
		return err
	}
	l, _, err := o.readLock()
	if err != nil {
		return err
	}
	store, err := withLower(o.makeStore())
	if err != nil {
		return err
	}
	if o.project == "" {
		o.project = filepath.Dir(o.lockFile)
	}
	done, err := fill(ctx, ui, l, store, o.project, o.verify || len(o.views) > 0)
	if err != nil {
		return err
	}
	if o.json {
		if err := ui.json(done); err != nil {
			return err
		}
	}
	if err := views.write(ctx, ui, l, store, o.project); err != nil {
		return err
	}
	if l.Imported != "" { // there is nothing to build
		return nil
	}
	ui.next(append([]string{"build", "--out", "out"}, o.args()...)...)
	return nil
}

// filled is what prefetch has done. Counts are of inputs, as prefetch.Stats has
// them.
type filled struct {
	Fetched  int     `json:"fetched"`
	Packed   int     `json:"packed"`
	Present  int     `json:"present"`
	Repaired int     `json:"repaired"`
	Bytes    int64   `json:"bytes"` // fetched or packed
	Requests int64   `json:"requests"`
	Seconds  float64 `json:"seconds"`
}

// fill is prefetch.Fill with a display. verify also hashes what the store has.
func fill(ctx context.Context, ui *ui, l *lock.Lock, store *cas.Store, project string, verify bool) (*filled, error) {
	cfg, err := prefetch.EnvConfig(programVersion(), project)
	if err != nil {
		return nil, err
	}
	return fillWith(ctx, ui, cfg, l, store, project, verify)
}

// fillWith is fill with surroundings of one's own.
func fillWith(ctx context.Context, ui *ui, cfg prefetch.Config, l *lock.Lock, store *cas.Store, project string, verify bool) (*filled, error) {
	began := time.Now()
	tell, end := ui.transfer("fetch")
	stats, err := prefetch.Fill(ctx, l, store, prefetch.Options{
		Config: cfg, Tree: packTree(project), Verify: verify,
		Progress: tell,
	})
	end()
	if err != nil {
		return nil, fillError(err)
	}
	ui.stage("%s fetched (%s), %d packed, %d were there, %s, %s",
		count(stats.Fetched, "input"), size(stats.Bytes), stats.Packed, stats.Present, count(int(stats.Requests), "request"), took(began))
	return &filled{
		Fetched: stats.Fetched, Packed: stats.Packed, Present: stats.Present, Repaired: stats.Repaired,
		Bytes: stats.Bytes, Requests: stats.Requests, Seconds: time.Since(began).Seconds(),
	}, nil
}

// fillError says what to do where inputs could not be had. A wrong signature
// or a changed folder weighs more.
func fillError(err error) error {
	switch {
	case errors.As(err, new(*prefetch.SignatureError)), errors.As(err, new(*prefetch.TreeChangedError)):
		return err
	case notAsLocked(err):
		return &codeError{err, exitMissing, "where it comes from has other bytes than were locked: take them from a mirror that has the locked ones, or run `caisson lock`"}
	case isMissing(err):
		return &codeError{err, exitMissing, "it is no longer where the lock says: `caisson lock` chooses among what is there; for files of the project, --project names its folder"}
	}
	return err
}

// notAsLocked tells whether something has other bytes than it should have.
func notAsLocked(err error) bool {
	return errors.As(err, new(*cas.MismatchError)) || errors.As(err, new(*prefetch.SizeError)) || errors.As(err, new(*prefetch.HashError))
}

// isMissing tells whether something is not there.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// fetchError says what to do where the lock's own files could not be had.
func fetchError(err error) error {
	var coded *codeError
	switch {
	case err == nil || errors.As(err, &coded):
		return err
	case notAsLocked(err):
		return &codeError{err, exitMissing, "the files there do not fit together: they may be in the middle of a change; try again"}
	case errors.As(err, new(*prefetch.FetchError)) && isMissing(err):
		return &codeError{err, exitMissing, "check the address in the manifest"}
	}
	return err
}

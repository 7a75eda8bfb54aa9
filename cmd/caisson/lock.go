package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/digest"
)

type lockOptions struct {
	sources
	manifest string
	out      string
	check    bool
	update   string
	json     bool
}

// updateAll is --update without a list.
const updateAll = "*"

func newLockCommand(ui *ui) *cobra.Command {
	var o lockOptions
	c := &cobra.Command{
		Use:   "lock",
		Short: "Choose every input of the image and pin it",
		Long: `Lock reads the manifest, chooses the packages of every set as dnf would, and
pins every input by its SHA-256 in the lock. What an existing lock chose is
kept as long as it satisfies the manifest.`,
		Example: "  caisson lock\n  caisson lock --update=openssl,systemd\n  caisson lock --check",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runLock(cmd.Context(), ui, &o) },
	}
	c.Flags().StringVarP(&o.manifest, "file", "f", "caisson.yaml", "the manifest")
	c.Flags().StringVarP(&o.out, "output", "o", "", "the lock (default caisson.lock beside the manifest)")
	c.Flags().BoolVar(&o.check, "check", false, "only tell whether the lock still answers the manifest, with no network")
	c.Flags().StringVar(&o.update, "update", "", "choose anew: all packages, or those named")
	c.Flags().Lookup("update").NoOptDefVal = updateAll
	c.Flags().BoolVar(&o.json, "json", false, "print a summary as JSON")
	o.storeFlag(c)
	return c
}

// readManifest reads and checks the manifest.
func readManifest(name string) (*lock.Manifest, digest.Digest, error) {
	b, err := os.ReadFile(name)
	if os.IsNotExist(err) {
		return nil, digest.Digest{}, &codeError{fmt.Errorf("%s: there is no manifest", name), exitError, "name it with -f, or write one: README.md shows how"}
	}
	if err != nil {
		return nil, digest.Digest{}, err
	}
	m, err := lock.ParseManifest(name, b)
	return m, digest.Of(b), err
}

func runLock(ctx context.Context, ui *ui, o *lockOptions) error {
	began := time.Now()
	m, sum, err := readManifest(o.manifest)
	if err != nil {
		return err
	}
	if o.out == "" {
		o.out = filepath.Join(filepath.Dir(o.manifest), "caisson.lock")
	}
	o.lockFile = o.out
	dir := filepath.Dir(o.manifest)
	if o.check {
		return checkLock(ui, o, sum, dir)
	}
	var old *lock.Lock
	if _, err := os.Stat(o.out); err == nil {
		if old, _, err = o.readLock(); err != nil {
			return err
		}
	}
	store, err := o.openStore()
	if err != nil {
		return err
	}
	l, err := resolveLock(ctx, ui, lock.Options{
		Dir: dir, Manifest: m, Digest: sum, Old: old, UpdateAll: o.update == updateAll,
		Update: strings.FieldsFunc(strings.Trim(o.update, updateAll), func(r rune) bool { return r == ',' }),
	}, store)
	if err != nil {
		return err
	}
	b, err := lock.Format(l)
	if err != nil {
		return err
	}
	if err := writeFile(o.out, b); err != nil {
		return err
	}
	summary := summarise(l, digest.Of(b))
	summary.Seconds = time.Since(began).Seconds()
	if o.json {
		return ui.json(summary)
	}
	ui.stage("%s: %s in %s", o.out, summary, took(began))
	for _, r := range l.Repos {
		if !r.GPGCheck {
			ui.stage("warning: packages of repository %s (%s) are not checked for signatures", r.ID, r.Arch)
		}
	}
	ui.next("caisson prefetch --lock %s", o.out)
	return nil
}

func checkLock(ui *ui, o *lockOptions, sum digest.Digest, dir string) error {
	l, _, err := o.readLock()
	if err != nil {
		return err
	}
	if err := lock.Check(l, sum, dir); err != nil {
		return &codeError{fmt.Errorf("%s does not answer %s:\n%w", o.out, o.manifest, err), exitLock, "run `caisson lock`"}
	}
	ui.stage("%s answers %s", o.out, o.manifest)
	return nil
}

// lockSummary is what a person wants to know of a lock.
type lockSummary struct {
	Digest  digest.Digest  `json:"digest"`
	Inputs  int            `json:"inputs"`
	Bytes   int64          `json:"bytes"`
	Kinds   map[string]int `json:"kinds"`
	Sets    map[string]int `json:"sets"`
	Seconds float64        `json:"seconds,omitempty"`
}

func summarise(l *lock.Lock, d digest.Digest) lockSummary {
	s := lockSummary{Digest: d, Inputs: len(l.Inputs), Kinds: map[string]int{}, Sets: map[string]int{}}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		s.Bytes += in.Size
		s.Kinds[in.Kind]++
		if in.Kind == lock.KindRPM {
			for _, set := range l.Sets {
				for _, arch := range l.Arches {
					if in.InSet(arch, set.Name) {
						s.Sets[set.Name]++
					}
				}
			}
		}
	}
	return s
}

func (s lockSummary) String() string {
	var sets []string
	for _, name := range slices.Sorted(maps.Keys(s.Sets)) {
		sets = append(sets, fmt.Sprintf("%s %d", name, s.Sets[name]))
	}
	return fmt.Sprintf("%d inputs, %s; packages: %s", s.Inputs, size(s.Bytes), strings.Join(sets, ", "))
}

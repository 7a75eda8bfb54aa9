package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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
	dryRun   bool
	replay   bool
	upgrade  bool
	konflux  konfluxOptions
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
kept as long as it satisfies the manifest; --update chooses anew.

A lock is made for one revision of the bytes that Caisson writes, and a Caisson of
another refuses to build it. --upgrade says, revision by revision, what that
changes for this lock, and makes it one of this Caisson's revision: every choice
stays, and no network is needed. See ` + "`caisson help engineer`" + `.

Where the manifest is an rpms.in.yaml of Konflux it is locked on its own, on top
of its context, into an rpms.lock.yaml that Hermeto reads.`,
		Example: "  caisson lock\n  caisson lock --update=openssl,systemd\n  caisson lock --check\n  caisson lock --replay\n  caisson lock --upgrade --dry-run",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runLock(cmd.Context(), ui, &o) },
	}
	f := c.Flags()
	f.StringVarP(&o.manifest, "file", "f", "caisson.yaml", "the manifest")
	f.StringVarP(&o.out, "output", "o", "", "the lock (default caisson.lock beside the manifest)")
	f.BoolVar(&o.check, "check", false, "only tell whether the lock still answers the manifest, with no network")
	f.StringVar(&o.update, "update", "", "choose anew: all packages, or those named")
	f.Lookup("update").NoOptDefVal = updateAll
	f.BoolVar(&o.replay, "replay", false, "only make the choice of packages again from the metadata that the lock pins, with no network, and compare")
	f.BoolVar(&o.upgrade, "upgrade", false, "only make the lock one of this Caisson's revision, and say what that changes")
	f.BoolVar(&o.dryRun, "dry-run", false, "tell what would change, and write no lock")
	f.BoolVar(&o.json, "json", false, "print a summary as JSON")
	o.konflux.flags(f)
	c.MarkFlagsMutuallyExclusive("check", "update", "replay", "upgrade")
	c.MarkFlagsMutuallyExclusive("check", "dry-run", "replay")
	o.storeFlag(c)
	return c
}

// manifest is what is to be locked: a manifest, or an rpms.in.yaml alone.
type manifest struct {
	*lock.Manifest // nil for an rpms.in.yaml
	digest         digest.Digest
}

// readManifest reads and checks the manifest.
func readManifest(name string) (m manifest, err error) {
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return m, &codeError{fmt.Errorf("%s: there is no manifest", name), exitError, "name it with -f, or write one: README.md shows how"}
	}
	if err != nil {
		return m, err
	}
	m.digest = digest.Of(b)
	if !lock.IsKonfluxIn(b) {
		m.Manifest, err = lock.ParseManifest(name, b)
	}
	return m, err
}

// names sets how the lock is called, unless that is given.
func (o *lockOptions) names(m manifest) {
	if o.out == "" {
		name := lockName
		if m.Manifest == nil && m.digest != (digest.Digest{}) {
			name = konfluxLockName
		}
		o.out = filepath.Join(filepath.Dir(o.manifest), name)
	}
	o.lockFile = o.out
}

func runLock(ctx context.Context, ui *ui, o *lockOptions) error {
	began := time.Now()
	if o.replay || o.upgrade { // the manifest has no say
		o.names(manifest{})
		if o.upgrade {
			return upgradeLock(ui, o)
		}
		return replayLock(ctx, ui, o)
	}
	m, err := readManifest(o.manifest)
	if err != nil {
		return err
	}
	o.names(m)
	if err := o.fits(m); err != nil {
		return err
	}
	if o.check {
		return checkLock(ui, o, m.digest)
	}
	old, before, err := o.oldLock()
	if err != nil {
		return err
	}
	l, err := o.resolve(ctx, ui, m, old)
	if err != nil {
		return err
	}
	b, err := o.format(l)
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if o.dryRun {
		return showDryRun(ui, o, old, l)
	}
	if !bytes.Equal(before, b) {
		if err := writeFile(o.out, b); err != nil {
			return err
		}
	}
	summary := summarise(l, digest.Of(b))
	summary.Changed = !bytes.Equal(before, b)
	summary.Seconds = time.Since(began).Seconds()
	if o.json {
		return ui.json(summary)
	}
	showLock(ui, o, l, summary, began)
	return nil
}

// fits refuses options that the manifest cannot have.
func (o *lockOptions) fits(m manifest) error {
	switch {
	case m.Manifest != nil && o.konflux.given():
		return usageError{fmt.Errorf("--arch, --var, --image, --bare, --local-system and --allow-missing-sources are for an rpms.in.yaml; %s says that itself", o.manifest)}
	case m.Manifest != nil && isYAML(o.out):
		return usageError{fmt.Errorf("-o %s: what %s asks for does not fit into an rpms.lock.yaml; make a lock, and use `caisson convert`", o.out, o.manifest)}
	case o.check && isYAML(o.out):
		return &codeError{fmt.Errorf("%s: an rpms.lock.yaml does not say what it was made from", o.out), exitError,
			"see with `caisson lock --dry-run` what would change, or keep a lock as JSON with -o " + lockName}
	}
	return nil
}

// resolve makes the choice.
func (o *lockOptions) resolve(ctx context.Context, ui *ui, m manifest, old *lock.Lock) (*lock.Lock, error) {
	store, err := o.makeStore()
	if err != nil {
		return nil, err
	}
	opts := lock.Options{
		Dir: filepath.Dir(o.manifest), Manifest: m.Manifest, Digest: m.digest, Old: old, UpdateAll: o.update == updateAll,
		Update: strings.FieldsFunc(strings.Trim(o.update, updateAll), func(r rune) bool { return r == ',' }),
	}
	if m.Manifest != nil {
		return resolveLock(ctx, ui, opts, store)
	}
	k, err := o.konflux.options(o.manifest)
	if err != nil {
		return nil, err
	}
	return resolveKonflux(ctx, ui, opts, k, store)
}

// format is the lock's text, in the form that its name says.
func (o *lockOptions) format(l *lock.Lock) ([]byte, error) {
	if isYAML(o.out) {
		return konfluxForm(l, "")
	}
	return lock.Format(l)
}

// showDryRun tells what a lock that is not written would change.
func showDryRun(ui *ui, o *lockOptions, old, l *lock.Lock) error {
	if old == nil {
		old = &lock.Lock{}
	}
	d, err := compareLocks(old, l, o.advisories(ui, l))
	if err != nil {
		return err
	}
	if o.json {
		return ui.json(d)
	}
	d.show(ui)
	if d.empty() {
		ui.stage("%s would not change", o.out)
	} else {
		ui.stage("%s is as it was: this was a dry run", o.out)
	}
	return nil
}

// showLock tells a person what was locked, and what comes next.
func showLock(ui *ui, o *lockOptions, l *lock.Lock, s lockSummary, began time.Time) {
	news := ""
	if !s.Changed {
		news = "nothing changed, "
	}
	ui.stage("%s: %s%s in %s", o.out, news, s, took(began))
	for _, r := range l.Unchecked() {
		ui.stage("warning: packages of repository %s (%s) are not checked for signatures", r.ID, r.Arch)
	}
	if n := len(l.MissingSources); n > 0 {
		ui.stage("warning: no repository has %s: %s", count(n, "source package"), strings.Join(l.MissingSources, ", "))
	}
	unproved := 0
	for i := range l.Inputs {
		if g := l.Inputs[i].Go; g != nil && g.Unproved {
			unproved++
		}
	}
	if unproved > 0 {
		ui.stage("warning: %s of Go modules that no sum file and no checksum database vouches for, locked as found", count(unproved, "file"))
	}
	if isYAML(o.out) {
		return
	}
	next := append([]string{"prefetch"}, o.args()...)
	if project := filepath.Dir(o.manifest); project != filepath.Dir(o.out) {
		next = append(next, "--project", project)
	}
	ui.next(next...)
}

// oldLock reads the lock that there is, if there is one. One that cannot be
// read is an error, unless everything is chosen anew.
func (o *lockOptions) oldLock() (*lock.Lock, []byte, error) {
	if err := wantParent(o.out); err != nil {
		return nil, nil, err
	}
	if _, err := os.Stat(o.out); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	l, b, err := o.readLock()
	switch newer := new(lock.RevisionError); {
	case errors.As(err, &newer):
		return nil, nil, err
	case err != nil && b == nil && o.update == updateAll && errors.As(err, new(*codeError)):
		return nil, nil, nil
	case err == nil && l.Revision > lock.Revision:
		return nil, nil, sameRevision(l, o.out) // it would go back, and lose what this Caisson does not know
	}
	return l, b, err
}

// wantParent tells early that a file cannot be written because there is no
// such folder.
func wantParent(name string) error {
	if dir := filepath.Dir(name); dir != "." {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%s: there is no folder %s", name, dir)
		}
	}
	return nil
}

func checkLock(ui *ui, o *lockOptions, sum digest.Digest) error {
	l, _, err := o.readLock()
	if err != nil {
		return err
	}
	if err := sameRevision(l, o.out); err != nil {
		_, hint := classify(err)
		ui.stage("warning: %v: %s", err, hint)
	}
	err = lock.Check(l, sum, filepath.Dir(o.manifest))
	if o.json {
		answer := lockAnswer{Answers: err == nil}
		if err != nil {
			answer.Changed = strings.Split(err.Error(), "\n")
		}
		if err := ui.json(answer); err != nil {
			return err
		}
	}
	if err != nil {
		hint := "run " + "`caisson " + quote(o.lockArgs()) + "`"
		return &codeError{fmt.Errorf("%s does not answer %s:\n%w", o.out, o.manifest, err), exitLock, hint}
	}
	ui.stage("%s answers %s", o.out, o.manifest)
	return nil
}

// lockArgs is the command that makes the lock.
func (o *lockOptions) lockArgs() []string {
	args := []string{"lock"}
	if o.manifest != "caisson.yaml" {
		args = append(args, "-f", o.manifest)
	}
	if filepath.Clean(o.out) != filepath.Join(filepath.Dir(o.manifest), lockName) {
		args = append(args, "-o", o.out)
	}
	return append(args, o.storeArgs()...)
}

// lockAnswer is what --check --json prints.
type lockAnswer struct {
	Answers bool     `json:"answers"`
	Changed []string `json:"changed,omitempty"`
}

// lockSummary is what a person wants to know of a lock.
type lockSummary struct {
	Digest  digest.Digest  `json:"digest"`
	Changed bool           `json:"changed"`
	Inputs  int            `json:"inputs"`
	Bytes   int64          `json:"bytes"`
	Kinds   map[string]int `json:"kinds"`
	Sets    map[string]int `json:"sets"`
	Seconds float64        `json:"seconds"`
	// Unchecked are the repositories whose packages need no signature.
	Unchecked      []string `json:"unchecked,omitempty"`
	MissingSources []string `json:"missingSources,omitempty"`
}

func summarise(l *lock.Lock, d digest.Digest) lockSummary {
	s := lockSummary{Digest: d, Inputs: len(l.Inputs), Kinds: map[string]int{}, Sets: map[string]int{}, MissingSources: l.MissingSources}
	for _, r := range l.Unchecked() {
		s.Unchecked = append(s.Unchecked, r.ID+" ("+r.Arch+")")
	}
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
	if len(sets) == 0 {
		return fmt.Sprintf("%s, %s; no packages", count(s.Inputs, "input"), size(s.Bytes))
	}
	return fmt.Sprintf("%s, %s; packages: %s", count(s.Inputs, "input"), size(s.Bytes), strings.Join(sets, ", "))
}

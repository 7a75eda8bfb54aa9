package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
)

type runOptions struct {
	sources
	boots
	manifest, out, variant, key string
	boot, anySpace              bool
	stepTimeout                 time.Duration
	isolation                   isolation
	given, givenToo             []string // the flags of the command line; those of them that verify has too
}

func newRunCommand(ui *ui) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run --out DIR",
		Short: "All five stages, one after the other",
		Long: `Run locks, prefetches, builds, verifies and, where it is given a key, attests,
and ends with what inspect shows. It stops at the first stage that fails, with
that stage's exit code, and says how to go on: what the stages before have done
is not done again. An image that is not what its lock makes is not attested.`,
		Example: "  caisson run --out out --boot --key cosign.key",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.given, o.givenToo = givenFlags(cmd, nil), givenFlags(cmd, []string{"boot", "memory", "cpus", "timeout", "wait-for", "any-space", "step-timeout", "isolation", "vm"})
			return runAll(cmd.Context(), ui, &o)
		},
	}
	c.Flags().StringVarP(&o.manifest, "file", "f", "caisson.yaml", "the manifest")
	c.Flags().StringVar(&o.lockFile, "lock", "", "the lock (default caisson.lock beside the manifest)")
	c.Flags().StringVar(&o.out, "out", "", "the output folder")
	c.Flags().StringVar(&o.variant, "variant", "", "build this variant of the image")
	c.Flags().StringVar(&o.key, "key", "", "the signing key; without one nothing is attested")
	c.Flags().BoolVar(&o.boot, "boot", false, "boot the image as well")
	spaceFlag(c, &o.anySpace)
	timeoutFlag(c, &o.stepTimeout)
	o.isolation.isolationFlags(c)
	o.storeFlag(c)
	o.bootFlags(c)
	require(c, "out")
	return c
}

// givenFlags are the flags of a command line, as they can be given again: all,
// or those of some names.
func givenFlags(c *cobra.Command, names []string) []string {
	var out []string
	c.Flags().Visit(func(f *pflag.Flag) {
		if names == nil || slices.Contains(names, f.Name) {
			out = append(out, asGiven(f)...)
		}
	})
	return out
}

func asGiven(f *pflag.Flag) []string {
	if all, ok := f.Value.(pflag.SliceValue); ok {
		var out []string
		for _, v := range all.GetSlice() {
			out = append(out, "--"+f.Name, v)
		}
		return out
	}
	if f.Value.Type() == "bool" {
		return []string{"--" + f.Name + strings.TrimSuffix("="+f.Value.String(), "=true")}
	}
	return []string{"--" + f.Name, f.Value.String()}
}

// course is run's stages, as the display has them.
type course struct {
	names []string
	at    int
	began time.Time
}

func (c *course) line(now time.Time, l look) string {
	return fmt.Sprintf("  stage %d of %d, %s: %s so far", c.at+1, len(c.names),
		paint(bold, c.names[c.at], l.colour), now.Sub(c.began).Round(time.Second))
}

// running is a run on its way.
type running struct {
	*runOptions
	ui     *ui
	lock   *lock.Lock
	text   []byte
	store  *cas.Store
	image  string
	report *verify.Report
}

func runAll(ctx context.Context, ui *ui, o *runOptions) error {
	if o.lockFile == "" {
		o.lockFile = filepath.Join(filepath.Dir(o.manifest), lockName)
	}
	if _, err := o.boots.options(); err != nil {
		return err
	}
	if err := o.isolation.check(); err != nil {
		return err
	}
	if o.key != "" { // a wrong password is told now, not after all the work
		if _, err := loadSigner(ctx, o.key); err != nil {
			return err
		}
	}
	if err := wantFolder(o.out, "the output folder"); err != nil {
		return err
	}
	r := &running{runOptions: o, ui: ui}
	stages := []struct {
		name string
		run  func(context.Context) error
	}{
		{"lock", r.makeLock}, {"prefetch", r.prefetch}, {"build", r.build}, {"verify", r.verify}, {"attest", r.attest},
	}
	if o.key == "" {
		stages = stages[:4]
	}
	began := time.Now()
	c := &course{began: began}
	for _, s := range stages {
		c.names = append(c.names, s.name)
	}
	ui.course = c
	for i, s := range stages {
		ui.mu.Lock()
		c.at = i
		ui.mu.Unlock()
		ui.head(s.name)
		if err := s.run(ctx); err != nil {
			return r.stopped(s.name, err)
		}
	}
	if err := inspectFolder(ctx, ui, o.out, &inspectOptions{lockFile: o.lockFile, key: publicKey(o.key)}); err != nil {
		return err
	}
	ui.stage("all of it took %s", took(began))
	return nil
}

func (r *running) makeLock(ctx context.Context) error {
	return runLock(ctx, r.ui, &lockOptions{sources: r.sources, manifest: r.manifest, out: r.lockFile})
}

func (r *running) prefetch(ctx context.Context) error {
	return runPrefetch(ctx, r.ui, &prefetchOptions{fetchOptions: fetchOptions{sources: r.sources}, project: filepath.Dir(r.manifest)})
}

func (r *running) build(ctx context.Context) (err error) {
	if r.lock, r.text, r.store, err = r.open(); err != nil {
		return err
	}
	if r.boot && r.lock.IsArchive() {
		return noBoot(r.lock)
	}
	d, err := buildImage(ctx, r.ui, r.lock, r.store, &buildOptions{sources: r.sources, out: r.out, variant: r.variant, anySpace: r.anySpace, stepTimeout: r.stepTimeout, isolation: r.isolation})
	if err == nil {
		r.image = filepath.Join(r.out, d.Files[0].Name)
	}
	return err
}

func (r *running) verify(ctx context.Context) (err error) {
	o := &verifyOptions{sources: r.sources, out: r.out, boot: r.boot, boots: r.boots, anySpace: r.anySpace, stepTimeout: r.stepTimeout, isolation: r.isolation}
	if r.report, err = verifyImage(ctx, r.ui, o, r.image, r.lock, r.text, r.store); err != nil {
		return err
	}
	if err := verdictError(r.report); err != nil {
		return errors.Join(err, showReport(r.ui, r.report))
	}
	return nil
}

func (r *running) attest(ctx context.Context) error {
	_, err := attestImage(ctx, r.ui, r.lock, r.text, r.store, &attestOptions{sources: r.sources, out: r.out, key: r.key})
	return err
}

// stopped adds to the error of a stage how to go on.
func (r *running) stopped(stage string, err error) error {
	var on [][]string
	attest := append([]string{"attest", "--out", r.out, "--key", r.key}, r.args()...)
	switch stage {
	case "verify":
		on = append(on, slices.Concat([]string{"verify", r.image}, r.args(), r.givenToo))
		if r.key != "" {
			on = append(on, attest)
		}
	case "attest":
		on = append(on, attest)
	default:
		on = append(on, append([]string{"run"}, r.given...))
	}
	var commands []string
	for _, c := range on {
		commands = append(commands, "`caisson "+quote(c)+"`")
	}
	if errors.As(err, new(*quietError)) { // it is the verdict, which has been told
		r.ui.line("stopped at " + stage)
		if r.key != "" {
			r.ui.line("  nothing was signed; " + commands[1] + " signs this verdict all the same")
		}
		return err
	}
	code, hint := classify(err)
	how := "run stopped at " + stage + "; when that is mended, go on with " + strings.Join(commands, ", then ")
	return &codeError{err, code, strings.TrimPrefix(hint+"\nhint: "+how, "\nhint: ")}
}

// publicKey is the public key's file beside the private one, if it is there.
func publicKey(key string) string {
	pub := key
	if ext := filepath.Ext(key); ext != "" {
		pub = key[:len(key)-len(ext)]
	}
	pub += ".pub"
	if _, err := os.Stat(pub); key == "" || err != nil {
		return ""
	}
	return pub
}

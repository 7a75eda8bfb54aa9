package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/build/esp"
	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
)

type buildOptions struct {
	sources
	out, variant string
	keep         bool
	json, events bool
	anySpace     bool
	secureBoot   bootKey
	sign         esp.Signer
	stepTimeout  time.Duration
	around       string // Surroundings as JSON
	onlySteps    []int
	reuse        bool
	isolation    isolation
	describe     bool
}

func newBuildCommand(ui *ui) *cobra.Command {
	var o buildOptions
	c := &cobra.Command{
		Use:   "build --out DIR",
		Short: "Make the image from lock and store, with no network and no privileges",
		Long: `Build makes the image that the lock describes from the store alone. It needs no
privileges, no devices and no network; what runs foreign code runs in a sandbox
that records what was tried. It leaves the image, what it will measure
(measurements.json), what it is (image.json), where every file of it comes from
(files.json) and what the sandbox saw (evidence.json) in the output folder.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return runBuild(cmd.Context(), ui, &o) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.out, "out", "", "the output folder")
	c.Flags().StringVar(&o.variant, "variant", "", "build this variant of the image")
	c.Flags().StringVar(&o.secureBoot.key, "secure-boot-key", "", "sign the EFI programs that have no signature with this key, as sign-boot does later: a file or env://NAME")
	c.Flags().StringVar(&o.secureBoot.cert, "secure-boot-cert", "", "the certificate of --secure-boot-key")
	c.Flags().BoolVar(&o.keep, "keep", false, "keep the working folder of a build that fails, for a shell in the sandbox of the step that did")
	c.Flags().BoolVar(&o.reuse, "reuse", false, "take what steps made from the store where this program has run them before with the same tools and inputs, and keep it there; verify never does")
	timeoutFlag(c, &o.stepTimeout)
	spaceFlag(c, &o.anySpace)
	o.isolation.isolationFlags(c)
	c.Flags().BoolVar(&o.describe, "describe", false, "leave "+madeFile+" in the output folder")
	c.Flags().BoolVar(&o.json, "json", false, "print where time and bytes went, by step, package and other input, as JSON")
	c.Flags().BoolVar(&o.events, "events", false, "print what goes on, a line of JSON each")
	c.Flags().StringVar(&o.around, "around", "", "what the steps find otherwise than usual, as JSON")
	c.Flags().IntSliceVar(&o.onlySteps, "only-steps", nil, "run these steps alone, make no image, and leave "+stepsFile)
	for _, name := range []string{"events", "around", "only-steps", "describe"} {
		c.Flags().Lookup(name).Hidden = true // they are between this program and itself
	}
	c.MarkFlagsMutuallyExclusive("json", "events")
	require(c, "out")
	return c
}

func spaceFlag(c *cobra.Command, anySpace *bool) {
	c.Flags().BoolVar(anySpace, "any-space", false, "build even where there seems to be too little room")
}

func timeoutFlag(c *cobra.Command, d *time.Duration) {
	c.Flags().DurationVar(d, "step-timeout", build.StepTimeout, "how long one step, or one installation, may run; twenty times as long by default where a virtual machine is emulated")
}

func runBuild(ctx context.Context, ui *ui, o *buildOptions) error {
	key, err := o.secureBoot.load()
	if err != nil {
		return err
	}
	if key != nil {
		o.sign = esp.ByKey(key, nil)
	}
	l, _, store, err := o.open()
	if err != nil {
		return err
	}
	d, err := buildImage(ctx, ui, l, store, o)
	if err != nil || d == nil {
		return err
	}
	ui.next(append([]string{"verify", filepath.Join(o.out, d.Files[0].Name)}, o.args()...)...)
	return nil
}

// stepMeasure is the step that follows those of package build.
const stepMeasure = "predict the measurements"

// stepsFile is, in the output folder of a build of steps alone, what they left.
const stepsFile = "steps.json"

// buildSteps runs steps alone, and writes down what they left.
func buildSteps(ctx context.Context, o build.Options, only []int) error {
	files, err := build.Steps(ctx, o, only)
	if err != nil {
		return err
	}
	b, err := json.Marshal(files)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(o.Out, stepsFile), b, 0o600)
}

// writeDescription is for the run of this program that asked for it.
func writeDescription(name string, img *build.Image) error {
	b, err := json.Marshal(img)
	if err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

// buildImage builds and describes an image. For another run of this program, which
// asked for the events, it is not described, and nil.
func buildImage(ctx context.Context, ui *ui, l *lock.Lock, store *cas.Store, o *buildOptions) (*verify.Description, error) {
	if err := buildable(l, o.lockFile, o.variant); err != nil {
		return nil, err
	}
	if err := wantFolder(o.out, "the output folder"); err != nil {
		return nil, err
	}
	program, err := o.reuser()
	if err != nil {
		return nil, err
	}
	by, err := o.builders(ctx, ui)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	b, tell, end := ui.building()
	defer end()
	if o.events {
		tell = func(e build.Event) { ui.event(e) }
	}
	measuring := func(s build.State) {
		if !o.events && !l.IsArchive() {
			tell(build.Event{Step: stepMeasure, State: s})
		}
	}
	measuring(build.Planned)
	options := build.Options{
		Lock: l, Store: store, Variant: o.variant, Arch: machineArch(), Out: o.out, Keep: o.keep, AnySpace: o.anySpace, Sign: o.sign, StepTimeout: o.stepTimeout, Reuse: program, Events: tell,
	}
	if o.around != "" {
		if err := json.Unmarshal([]byte(o.around), &options.Around); err != nil {
			return nil, usageError{fmt.Errorf("--around: %w", err)}
		}
	}
	if len(o.onlySteps) > 0 {
		return nil, by.steps(ctx, options, o.onlySteps)
	}
	img, err := by.image(ctx, options)
	if err == nil && o.describe {
		err = writeDescription(filepath.Join(o.out, madeFile), img)
	}
	if err != nil || o.events { // who reads the events predicts from the bytes what it needs
		return nil, err
	}
	measuring(build.Begun)
	d, err := verify.Describe(o.out, img)
	if err != nil {
		return nil, err
	}
	measuring(build.Ended)
	end()
	s, err := spentOn(o.out, d, b, time.Since(began))
	if err != nil {
		return nil, err
	}
	if o.json {
		if err := ui.json(s); err != nil {
			return nil, err
		}
	} else {
		s.show(ui)
	}
	ui.stage("%s: %s, %s, %s", filepath.Join(o.out, d.Files[0].Name), size(d.Files[0].Size), knownBy(&d.Image), took(began))
	return d, nil
}

// reuser is the program whose steps may be reused, by its digest; empty for none.
func (o *buildOptions) reuser() (string, error) {
	if !o.reuse {
		return "", nil
	}
	v, err := readVersion()
	return v.SHA256.String(), err
}

// knownBy is, in short, the digest that an image is known by besides its file's.
func knownBy(im *build.Image) string {
	switch {
	case im.Manifest != nil:
		return "manifest " + im.Manifest.String()[:len("sha256:")+16] + "…"
	case im.IsArchive():
		return im.Files[0].SHA256.String()[:len("sha256:")+16] + "…"
	}
	return "root hash " + im.RootHash[:16] + "…"
}

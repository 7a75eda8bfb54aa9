package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
)

type buildOptions struct {
	sources
	out, variant string
	keep         bool
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
	c.Flags().BoolVar(&o.keep, "keep", false, "keep the working folder of a build that fails")
	if err := c.MarkFlagRequired("out"); err != nil {
		panic(err) // the flag is defined two lines above
	}
	return c
}

func runBuild(ctx context.Context, ui *ui, o *buildOptions) error {
	l, _, store, err := o.open()
	if err != nil {
		return err
	}
	d, err := buildImage(ctx, ui, l, store, o)
	if err != nil {
		return err
	}
	ui.next("caisson verify %s --lock %s", filepath.Join(o.out, d.Files[0].Name), o.lockFile)
	return nil
}

// buildImage builds and describes an image.
func buildImage(ctx context.Context, ui *ui, l *lock.Lock, store *cas.Store, o *buildOptions) (*verify.Description, error) {
	began := time.Now()
	img, err := build.Build(ctx, build.Options{
		Lock: l, Store: store, Variant: o.variant, Arch: machineArch(), Out: o.out, Keep: o.keep,
		Progress: func(s string) { ui.stage("%s", s) },
	})
	if err != nil {
		return nil, err
	}
	d, err := verify.Describe(o.out, img)
	if err != nil {
		return nil, err
	}
	ui.stage("%s: %s, root hash %s…, %s", filepath.Join(o.out, d.Files[0].Name), size(d.Files[0].Size), d.RootHash[:16], took(began))
	return d, nil
}

func newMeasureCommand(ui *ui) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "measure IMAGE",
		Short: "Predict from an image's bytes what a machine that boots it will measure",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			m, _, err := verify.Measure(args[0])
			if err != nil {
				return err
			}
			if asJSON {
				return ui.json(m)
			}
			ui.print("root hash %s", m.RootHash)
			for _, bank := range sortedKeys(m.PCRs) {
				for _, pcr := range []string{"4", "5", "7", "9", "11", "12"} {
					ui.print("pcr %-2s %s %s", pcr, bank, m.PCRs[bank][pcr])
				}
			}
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func newKeygenCommand(ui *ui) *cobra.Command {
	var prefix string
	c := &cobra.Command{
		Use:   "keygen",
		Short: "Make a key pair to sign statements with, as cosign's",
		Long: `Keygen writes PREFIX.key, encrypted with the password in COSIGN_PASSWORD, and
PREFIX.pub. Files that are there are never overwritten.`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runKeygen(ui, prefix) },
	}
	c.Flags().StringVar(&prefix, "prefix", "cosign", "what the files are called")
	return c
}

func runKeygen(ui *ui, prefix string) error {
	for _, name := range []string{prefix + ".key", prefix + ".pub"} {
		if _, err := os.Stat(name); err == nil {
			return fmt.Errorf("%s is there already; remove it, or choose another --prefix", name)
		}
	}
	private, public, err := generateKey()
	if err != nil {
		return err
	}
	if err := os.WriteFile(prefix+".key", private, 0o600); err != nil {
		return err
	}
	if err := os.WriteFile(prefix+".pub", public, 0o644); err != nil { //nolint:gosec // a public key
		return err
	}
	ui.stage("%s.key and %s.pub written", prefix, prefix)
	return nil
}

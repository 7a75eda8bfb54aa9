package main

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

type runOptions struct {
	sources
	boots
	manifest, out, variant, key string
	boot                        bool
}

func newRunCommand(ui *ui) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run --out DIR",
		Short: "All five stages, one after the other",
		Long: `Run locks, prefetches, builds, verifies and, where it is given a key, attests,
and ends with what inspect shows. Its exit code is the verdict's.`,
		Example: "  caisson run --out out --boot --key cosign.key",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runAll(cmd.Context(), ui, &o) },
	}
	c.Flags().StringVarP(&o.manifest, "file", "f", "caisson.yaml", "the manifest")
	c.Flags().StringVar(&o.lockFile, "lock", "", "the lock (default caisson.lock beside the manifest)")
	c.Flags().StringVar(&o.out, "out", "", "the output folder")
	c.Flags().StringVar(&o.variant, "variant", "", "build this variant of the image")
	c.Flags().StringVar(&o.key, "key", "", "the signing key; without one nothing is attested")
	c.Flags().BoolVar(&o.boot, "boot", false, "boot the image as well")
	o.storeFlag(c)
	o.bootFlags(c)
	require(c, "out")
	return c
}

func runAll(ctx context.Context, ui *ui, o *runOptions) error {
	if o.lockFile == "" {
		o.lockFile = filepath.Join(filepath.Dir(o.manifest), "caisson.lock")
	}
	if o.key != "" { // a wrong password is told now, not after all the work
		if _, err := loadSigner(o.key); err != nil {
			return err
		}
	}
	if err := wantFolder(o.out, "the output folder"); err != nil {
		return err
	}
	began := time.Now()
	ui.chained = true
	ui.head("lock")
	if err := runLock(ctx, ui, &lockOptions{sources: o.sources, manifest: o.manifest, out: o.lockFile}); err != nil {
		return err
	}
	ui.head("prefetch")
	if err := runPrefetch(ctx, ui, &prefetchOptions{fetchOptions: fetchOptions{sources: o.sources}, project: filepath.Dir(o.manifest)}); err != nil {
		return err
	}
	ui.head("build")
	l, text, store, err := o.open()
	if err != nil {
		return err
	}
	d, err := buildImage(ctx, ui, l, store, &buildOptions{sources: o.sources, out: o.out, variant: o.variant})
	if err != nil {
		return err
	}
	ui.head("verify")
	image := filepath.Join(o.out, d.Files[0].Name)
	r, err := verifyImage(ctx, ui, &verifyOptions{sources: o.sources, out: o.out, boot: o.boot, boots: o.boots}, image, l, text, store)
	if err != nil {
		return err
	}
	if o.key != "" {
		ui.head("attest")
		if _, err := attestImage(ctx, ui, l, text, store, &attestOptions{sources: o.sources, out: o.out, key: o.key}); err != nil {
			return err
		}
	}
	if err := inspectFolder(ctx, ui, o.out, &inspectOptions{lockFile: o.lockFile, key: publicKey(o.key)}); err != nil {
		return err
	}
	ui.stage("all of it took %s", took(began))
	return verdictError(r)
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

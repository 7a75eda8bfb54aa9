package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"caisson/lock/start"
)

type initOptions struct {
	from     []string
	profiles []string
	output   string
	force    bool
}

func newInitCommand(ui *ui) *cobra.Command {
	var o initOptions
	c := &cobra.Command{
		Use:   "init",
		Short: "Start a manifest from what is there",
		Long: `Init writes a caisson.yaml from the definitions that a project has for other
tools: rpms.in.yaml, rpms.lock.yaml, a prefetch-input, a Containerfile,
mkosi.conf with drop-ins, profiles (--profile) and scripts, image-build's config.yaml, an .aib.yml, a
kickstart. --from names files or folders, and may be repeated; unless it is
given, the folder that the manifest is to lie in is looked through. Without any
of these the manifest is a pattern to fill in.

What could not be carried over is said on stderr, a line each: FILE:LINE, what
it is, and why. In the manifest there are comments where you have to decide. A
manifest that is there is not overwritten without --force.`,
		Example: `  caisson init
  caisson init --from podvm-mkosi/mkosi.images/system --from payload.ks`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return runInit(ui, o) },
	}
	c.Flags().StringArrayVar(&o.from, "from", nil, "a file to start from, or a folder that has such")
	c.Flags().StringArrayVar(&o.profiles, "profile", nil, "a profile of mkosi.profiles to take in")
	c.Flags().StringVarP(&o.output, "output", "o", "caisson.yaml", "the manifest")
	c.Flags().BoolVar(&o.force, "force", false, "replace a manifest that is there")
	return c
}

func runInit(ui *ui, o initOptions) error {
	if _, err := os.Lstat(o.output); err == nil && !o.force {
		return &codeError{fmt.Errorf("%s is there already", o.output), exitError, "name another with -o, or replace it with --force"}
	}
	dir := filepath.Dir(o.output)
	from := o.from
	if len(from) == 0 {
		from = []string{dir}
	}
	d, err := start.From(dir, from, o.profiles...)
	if err != nil {
		return err
	}
	if len(d.Read) == 0 && len(o.from) > 0 {
		return &codeError{errors.New("in what --from names is nothing to start from"), exitError, "see `caisson init --help` for the files that are read"}
	}
	if o.force {
		err = writeFile(o.output, d.Manifest)
	} else {
		err = create(o.output, d.Manifest, 0o644)
	}
	if err != nil {
		return err
	}
	for _, n := range d.Notes {
		ui.line(n.String())
	}
	switch {
	case len(d.Read) == 0:
		ui.stage("%s written, to be filled in: nothing was found to start from", o.output)
	case len(d.Notes) == 0:
		ui.stage("%s written of %d file(s); all of them was carried over", o.output, len(d.Read))
	default:
		ui.stage("%s written of %d file(s); %d line(s), named above, were not carried over", o.output, len(d.Read), len(d.Notes))
	}
	ui.next("lock")
	return nil
}

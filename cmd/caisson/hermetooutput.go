package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"caisson/prefetch/hermeto"
)

// outputOptions are those of the commands that read an output.
type outputOptions struct {
	forDir, file, format string
}

func (o *outputOptions) config(dir string) (*hermeto.BuildConfig, string, error) {
	at := o.forDir
	if at == "" {
		at = dir
	}
	at, err := filepath.Abs(at)
	if err != nil {
		return nil, "", err
	}
	c, err := hermeto.ReadConfig(dir)
	return c, at, err
}

const forDirHelp = "for a build that will see the output folder at this path"

func newGenerateEnvCommand(ui *ui, h *hermetoOptions) *cobra.Command {
	var o outputOptions
	c := &cobra.Command{
		Use:   "generate-env OUT",
		Short: "Print the environment variables that a build with the output needs",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := h.check(); err != nil {
				return err
			}
			return runGenerateEnv(ui, &o, args[0])
		},
	}
	c.Flags().StringVarP(&o.format, "format", "f", "", "env (lines for a shell) or json (default by the name of the file, else json)")
	c.Flags().StringVarP(&o.file, "output", "o", "", "write to this file")
	c.Flags().StringVar(&o.forDir, "for-output-dir", "", forDirHelp)
	return c
}

func runGenerateEnv(ui *ui, o *outputOptions, dir string) error {
	format := o.format
	if format == "" && o.file == "" {
		format = "json"
	}
	if format == "" {
		switch filepath.Ext(o.file) {
		case ".json":
			format = "json"
		case ".env", ".sh":
			format = "env"
		}
	}
	if format != "json" && format != "env" {
		return usageError{errors.New("want --format env or json, or an output file that ends in .json, .env or .sh")}
	}
	c, at, err := o.config(dir)
	if err != nil {
		return err
	}
	b, err := c.Env(at, format)
	if err != nil {
		return err
	}
	return o.write(ui, b)
}

// write writes to the file, or to standard output.
func (o *outputOptions) write(ui *ui, b []byte) error {
	if o.file != "" {
		return writeFile(o.file, b)
	}
	return ui.result(func(w io.Writer) error {
		_, err := w.Write(b)
		return err
	})
}

func newInjectFilesCommand(ui *ui, h *hermetoOptions) *cobra.Command {
	var o outputOptions
	c := &cobra.Command{
		Use:   "inject-files OUT",
		Short: "Write into the project the files that a build with the output needs",
		Args:  cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := h.check(); err != nil {
				return err
			}
			c, at, err := o.config(args[0])
			if err != nil {
				return err
			}
			name, ok := hermetoName(os.Args[0])
			if !ok {
				name = hermetoNames[0]
			}
			wrote, err := c.Inject(args[0], at, name)
			for _, w := range wrote {
				ui.stage("%s written", w)
			}
			return err
		},
	}
	c.Flags().StringVar(&o.forDir, "for-output-dir", "", forDirHelp)
	return c
}

func newMergeSBOMsCommand(ui *ui, h *hermetoOptions) *cobra.Command {
	var o outputOptions
	var name string
	c := &cobra.Command{
		Use:   "merge-sboms SBOM SBOM...",
		Short: "Make one SBOM of several that fetch-deps has written",
		Args:  cobra.MinimumNArgs(2),
		RunE: func(_ *cobra.Command, args []string) error {
			if err := h.check(); err != nil {
				return err
			}
			if o.format != "cyclonedx" && o.format != "spdx" {
				return usageError{fmt.Errorf("sbom-output-type %q: want cyclonedx or spdx", o.format)}
			}
			return runMergeSBOMs(ui, &o, name, args)
		},
	}
	c.Flags().StringVarP(&o.file, "output", "o", "", "write to this file")
	c.Flags().StringVar(&o.format, "sbom-output-type", "cyclonedx", "cyclonedx or spdx")
	c.Flags().StringVar(&name, "sbom-name", "", "the name of an SPDX document")
	return c
}

func runMergeSBOMs(ui *ui, o *outputOptions, name string, files []string) error {
	var all []hermeto.Document
	for _, file := range slices.Compact(slices.Sorted(slices.Values(files))) {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		d, err := hermeto.ReadDocument(file, b)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	epoch, err := sourceEpoch(".")
	if err != nil {
		return err
	}
	merged, err := hermeto.Merge(all, o.format == "spdx", name, epoch)
	if err != nil {
		return err
	}
	b, err := merged.Format()
	if err != nil {
		return err
	}
	return o.write(ui, b)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch"
	"caisson/prefetch/hermeto"
)

// hermetoNames are those under which the program is `caisson hermeto`: links
// of these names take their place in a pipeline.
var hermetoNames = []string{"hermeto", "cachi2"}

// hermetoName is which of them the program was called by, if any.
func hermetoName(arg0 string) (string, bool) {
	name := filepath.Base(arg0)
	return name, slices.Contains(hermetoNames, name)
}

// programArgs is the command line without the program.
func programArgs(args []string) []string {
	if _, ok := hermetoName(args[0]); ok {
		return append([]string{"hermeto"}, args[1:]...)
	}
	return args[1:]
}

const modePermissive = "permissive"

// hermetoOptions are the flags of Hermeto's command line.
type hermetoOptions struct {
	mode, logLevel, config string
	color, noColor         bool
}

// newHermetoCommand is Hermeto's own command line.
func newHermetoCommand(ui *ui) *cobra.Command {
	var o hermetoOptions
	c := &cobra.Command{
		Use:   "hermeto",
		Short: "Prefetch with Hermeto's command line, input and output",
		Long: `Hermeto takes the command line of the tool of that name, reads what it reads
(go.mod, Cargo.lock, rpms.lock.yaml, artifacts.lock.yaml, its configuration) and
leaves what it leaves, with Caisson's store and proofs in between. As a link
called "hermeto" the program needs not be told: a pipeline runs it in that
tool's place.

What it does not do it refuses: other package managers, the permissive mode,
files without a checksum.`,
		Version: programVersion(),
	}
	f := c.PersistentFlags()
	f.StringVar(&o.mode, "mode", "strict", "only \"strict\": what is not pinned is an error")
	f.StringVar(&o.logLevel, "log-level", "info", "accepted, and passed over: debug, info, warning, error or critical")
	f.StringVar(&o.config, "config-file", "", "Hermeto's configuration, besides what the environment and hermeto.yaml say")
	f.BoolVar(&o.color, "color", false, "accepted, and passed over")
	f.BoolVar(&o.noColor, "no-color", false, "accepted, and passed over")
	c.AddCommand(
		newFetchDepsCommand(ui, &o), newGenerateEnvCommand(ui, &o), newInjectFilesCommand(ui, &o), newMergeSBOMsCommand(ui, &o), newConfigCommand(ui, &o),
		&cobra.Command{
			Use: "list-backends", Short: "List the types of input that are done", Args: cobra.NoArgs,
			RunE: func(*cobra.Command, []string) error {
				ui.print("Supported: %s\n", strings.Join([]string{"cargo", "generic", "gomod", "rpm"}, ", "))
				return nil
			},
		},
	)
	return c
}

// check refuses what would have to be done otherwise.
func (o *hermetoOptions) check() error {
	switch {
	case o.mode == modePermissive:
		return usageError{errPermissive}
	case o.mode != "strict":
		return usageError{fmt.Errorf("mode %q: want strict", o.mode)}
	case o.logLevel != "" && !slices.Contains(logLevels[:], strings.ToLower(o.logLevel)):
		return usageError{fmt.Errorf("log-level %q: want one of %s", o.logLevel, strings.Join(logLevels[:], ", "))}
	}
	return nil
}

var logLevels = [...]string{"debug", "info", "warning", "error", "critical"}

var errPermissive = errors.New("mode permissive: it fetches what no lock file pins, so that nobody can say what was built; put the lock files in order instead")

// maxSettings is the largest configuration file that is read, in bytes.
const maxSettings = 1 << 20

// settings reads Hermeto's configuration: of the files the one that is named
// counts most, and the environment more than all.
func (o *hermetoOptions) settings(ui *ui) (*hermeto.Settings, error) {
	names := []string{"hermeto.yaml", ".hermeto.yaml"}
	if home, err := os.UserHomeDir(); err == nil {
		names = slices.Insert(names, 0, filepath.Join(home, ".config/hermeto/config.yaml"))
	}
	var files []hermeto.SettingsFile
	for _, name := range append(names, o.config) {
		if name == "" {
			continue
		}
		fi, err := os.Stat(name)
		if errors.Is(err, fs.ErrNotExist) && name != o.config {
			continue
		}
		if err == nil && (!fi.Mode().IsRegular() || fi.Size() > maxSettings) {
			err = fmt.Errorf("%s: want a file of at most %d bytes", name, maxSettings)
		}
		if err != nil {
			return nil, usageError{err}
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		files = append(files, hermeto.SettingsFile{Name: name, Content: b})
	}
	s, err := hermeto.ReadSettings(files, os.Environ())
	if err != nil {
		return nil, usageError{fmt.Errorf("the configuration of Hermeto: %w", err)}
	}
	for _, note := range s.Notes {
		ui.stage("%s", note)
	}
	return s, nil
}

func newConfigCommand(ui *ui, h *hermetoOptions) *cobra.Command {
	var diff, raw bool
	c := &cobra.Command{
		Use:   "config",
		Short: "Print Hermeto's configuration as it counts",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			if err := h.check(); err != nil {
				return err
			}
			s, err := h.settings(ui)
			if err != nil {
				return err
			}
			b, err := s.Show(diff, raw)
			if err != nil {
				return err
			}
			return ui.result(func(w io.Writer) error {
				_, err := w.Write(b)
				return err
			})
		},
	}
	c.Flags().BoolVar(&diff, "diff", false, "only what differs from the defaults")
	c.Flags().BoolVar(&raw, "raw", false, "with passwords")
	return c
}

// fetchOptions are what fetch-deps is told.
type fetchOptions struct {
	sources
	input          string
	source, output string
	sbom           string
	keys           []string
	arches         []string
	cgoDisable     bool
}

// flags are those of fetch-deps, and ours beside them. prefetch has them too.
func (o *fetchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.source, "source", ".", "the project's folder, for --input")
	f.StringVar(&o.output, "output", "./hermeto-output", "where the output goes, for --input")
	f.StringVar(&o.sbom, "sbom-output-type", "cyclonedx", "bom.json's format, for --input: cyclonedx or spdx")
	f.StringSliceVar(&o.keys, "rpm-key", nil, "an OpenPGP key file, for --input; with one, every RPM has to be signed by it or another")
	f.StringSliceVar(&o.arches, "arch", nil, "for which machines the Go toolchain that go.mod names is fetched, for --input (default this one)")
	f.BoolVar(&o.cgoDisable, cgoDisable, false, "list the Go packages as they are built without cgo, for --input")
	for _, name := range hermetoFlags {
		f.Bool(name, false, "accepted, and passed over")
		if err := f.MarkHidden(name); err != nil {
			panic(err) // it was defined one line above
		}
	}
}

// cgoDisable is the flag, and its name in an input.
const cgoDisable = "cgo-disable"

// hermetoFlags change nothing, as for Hermeto itself.
var hermetoFlags = []string{"dev-package-managers", "force-gomod-tidy", "gomod-vendor", "gomod-vendor-check"}

// withoutInput refuses flags that say nothing without --input.
func withoutInput(c *cobra.Command) error {
	for _, name := range append([]string{"source", "output", "sbom-output-type", "rpm-key", "arch", "mode", "config-file", cgoDisable}, hermetoFlags...) {
		if c.Flags().Changed(name) {
			return usageError{fmt.Errorf("--%s says something with --input only", name)}
		}
	}
	return nil
}

func newFetchDepsCommand(ui *ui, h *hermetoOptions) *cobra.Command {
	var o fetchOptions
	c := &cobra.Command{
		Use:   "fetch-deps PKG",
		Short: "Fetch what lock files of a source name: `caisson prefetch --input`",
		Long: `Fetch-deps fetches what the lock files of a source folder name into the store,
proves it, and leaves views of it in the output folder, with bom.json,
.build-config.json and the lock of all that was fetched. PKG is a type (gomod,
cargo, rpm, generic), a JSON object or list, or a file with one.`,
		Example: "  caisson hermeto fetch-deps gomod\n  caisson hermeto fetch-deps --source src --output out '[{\"type\": \"rpm\"}, {\"type\": \"cargo\", \"path\": \"guest\"}]'",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.input = args[0]
			if err := h.check(); err != nil {
				return err
			}
			return runFetchDeps(cmd.Context(), ui, h, &o)
		},
	}
	o.storeFlag(c)
	o.flags(c)
	return c
}

// readInput reads a prefetch input: a file's, or the text itself.
func readInput(arg string) (*konflux.PrefetchInput, digest.Digest, error) {
	name, b := "the input", []byte(arg)
	if st, err := os.Stat(arg); err == nil && st.Mode().IsRegular() {
		name = arg
		if b, err = os.ReadFile(arg); err != nil {
			return nil, digest.Digest{}, err
		}
	}
	in, err := konflux.ReadPrefetchInput(name, b)
	if err != nil {
		return nil, digest.Digest{}, usageError{err}
	}
	return in, digest.Of(b), nil
}

func runFetchDeps(ctx context.Context, ui *ui, h *hermetoOptions, o *fetchOptions) error {
	if o.sbom != "cyclonedx" && o.sbom != "spdx" {
		return usageError{fmt.Errorf("sbom-output-type %q: want cyclonedx or spdx", o.sbom)}
	}
	settings, err := h.settings(ui)
	if err != nil {
		return err
	}
	in, d, err := readInput(o.input)
	if err != nil {
		return err
	}
	if o.cgoDisable {
		in.Flags = append(in.Flags, cgoDisable)
	}
	if st, err := os.Stat(o.source); err != nil || !st.IsDir() {
		return usageError{fmt.Errorf("source %s: there is no such folder", o.source)}
	}
	store, err := withLower(o.makeStore())
	if err != nil {
		return err
	}
	req := hermeto.Request{Input: in, Digest: d, Source: o.source, Arches: o.arches, Keys: o.keys, Store: store, Settings: settings}
	if req.Epoch, err = sourceEpoch(o.source); err != nil {
		return err
	}
	if len(req.Arches) == 0 {
		req.Arches = []string{machineArch()}
	}
	cfg, err := prefetch.EnvConfig(programVersion(), cargoDir(in, o.source))
	if err != nil {
		return err
	}
	if err := settings.Apply(&cfg); err != nil {
		return err
	}
	plan, err := newPlan(ctx, ui, cfg, req)
	if err != nil {
		return err
	}
	if _, err := fillWith(ctx, ui, cfg, plan.Lock, store, o.source, true); err != nil {
		return err
	}
	st, err := plan.Write(ctx, o.output, o.sbom == "spdx")
	if err != nil {
		return viewError(err)
	}
	ui.stage("%s %s", o.output, viewStats(st))
	return nil
}

// newPlan pins what a request asks for.
func newPlan(ctx context.Context, ui *ui, cfg prefetch.Config, req hermeto.Request) (plan *hermeto.Plan, err error) {
	err = withConfig(ui, cfg, lock.Options{Dir: req.Source, Digest: req.Digest, NeedsOnly: true}, req.Store, func(lo lock.Options) error {
		req.Fetch = lo.Fetch
		req.Resolve = func(ctx context.Context, m *lock.Manifest) (*lock.Lock, error) {
			lo.Manifest = m
			return lock.Resolve(ctx, lo)
		}
		var err error
		plan, err = hermeto.New(ctx, req)
		return err
	})
	var missing *fs.PathError
	switch {
	case errors.As(err, new(*hermeto.UnpinnedError)):
		return nil, &codeError{err, exitError, "add `checksum: sha256:...` to it: what its repository's metadata has, or sha256sum says of a package whose signature is good"}
	case errors.As(err, &missing) && isMissing(err) && lockFileHints[filepath.Base(missing.Path)] != "":
		return nil, &codeError{err, exitError, lockFileHints[filepath.Base(missing.Path)]}
	case err != nil:
		return nil, fetchError(err)
	}
	return plan, nil
}

// lockFileHints say what makes a lock file that is not there.
var lockFileHints = map[string]string{
	"go.mod":              "name the module's folder as \"path\" of the input, or run `go mod init`",
	"Cargo.lock":          "run `cargo generate-lockfile`, and commit it",
	"rpms.lock.yaml":      "write it with `caisson lock`, or with rpm-lockfile-prototype",
	"artifacts.lock.yaml": "name the file as \"lockfile\" of the input, if it is called otherwise",
}

// cargoDir is the folder whose cargo configuration counts, with those above
// it: that of the Rust source, if there is one and not two.
func cargoDir(in *konflux.PrefetchInput, source string) string {
	var dirs []string
	for _, p := range in.Packages {
		if p.Type == "cargo" {
			dirs = append(dirs, p.Path)
		}
	}
	if len(dirs) == 1 {
		return filepath.Join(source, filepath.FromSlash(dirs[0]))
	}
	return source
}

// sourceEpoch is the time for what is written: SOURCE_DATE_EPOCH, or that of
// the source's commit.
func sourceEpoch(source string) (int64, error) {
	s := os.Getenv("SOURCE_DATE_EPOCH")
	if s == "" {
		return hermeto.Commit(source)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("SOURCE_DATE_EPOCH is %q: want seconds since 1970", s)
	}
	return n, nil
}

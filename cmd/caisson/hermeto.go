package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
	"caisson/prefetch/hermeto"
	"caisson/prefetch/view"
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
(go.mod, Cargo.lock, rpms.lock.yaml, artifacts.lock.yaml) and leaves what it
leaves, with Caisson's store and proofs in between. As a link called "hermeto"
the program needs not be told: a pipeline runs it in that tool's place.

What it does not do it refuses: other package managers, the permissive mode,
files without a checksum.`,
		Version: programVersion(),
	}
	f := c.PersistentFlags()
	f.StringVar(&o.mode, "mode", "strict", "only \"strict\": what is not pinned is an error")
	f.StringVar(&o.logLevel, "log-level", "", "accepted, and passed over")
	f.StringVar(&o.config, "config-file", "", "refused: Hermeto's configuration is not read")
	f.BoolVar(&o.color, "color", false, "accepted, and passed over")
	f.BoolVar(&o.noColor, "no-color", false, "accepted, and passed over")
	c.AddCommand(
		newFetchDepsCommand(ui, &o), newGenerateEnvCommand(ui, &o), newInjectFilesCommand(ui, &o), newMergeSBOMsCommand(ui, &o),
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
	case o.config != "":
		return usageError{errors.New("--config-file: Hermeto's configuration is not read; proxies and certificates come from the environment, as for curl, go and cargo")}
	}
	return nil
}

var errPermissive = errors.New("mode permissive: it fetches what no lock file pins, so that nobody can say what was built; put the lock files in order instead")

// fetchOptions are what fetch-deps is told.
type fetchOptions struct {
	sources
	input          string
	source, output string
	sbom           string
	keys           []string
	arches         []string
}

// flags are those of fetch-deps, and ours beside them. prefetch has them too.
func (o *fetchOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.source, "source", ".", "the project's folder, for --input")
	f.StringVar(&o.output, "output", "./hermeto-output", "where the output goes, for --input")
	f.StringVar(&o.sbom, "sbom-output-type", "cyclonedx", "bom.json's format, for --input: cyclonedx or spdx")
	f.StringSliceVar(&o.keys, "rpm-key", nil, "an OpenPGP key file, for --input; with one, every RPM has to be signed by it or another")
	f.StringSliceVar(&o.arches, "arch", nil, "for which machines the Go toolchain that go.mod names is fetched, for --input (default this one)")
	for _, name := range hermetoFlags {
		f.Bool(name, false, "accepted, and passed over")
		if err := f.MarkHidden(name); err != nil {
			panic(err) // it was defined one line above
		}
	}
}

// hermetoFlags change nothing: no program is run here.
var hermetoFlags = []string{"cgo-disable", "dev-package-managers", "force-gomod-tidy", "gomod-vendor", "gomod-vendor-check"}

// withoutInput refuses flags that say nothing without --input.
func withoutInput(c *cobra.Command) error {
	for _, name := range append([]string{"source", "output", "sbom-output-type", "rpm-key", "arch", "mode"}, hermetoFlags...) {
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
			return runFetchDeps(cmd.Context(), ui, &o)
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

func runFetchDeps(ctx context.Context, ui *ui, o *fetchOptions) error {
	if o.sbom != "cyclonedx" && o.sbom != "spdx" {
		return usageError{fmt.Errorf("sbom-output-type %q: want cyclonedx or spdx", o.sbom)}
	}
	in, d, err := readInput(o.input)
	if err != nil {
		return err
	}
	if st, err := os.Stat(o.source); err != nil || !st.IsDir() {
		return usageError{fmt.Errorf("source %s: there is no such folder", o.source)}
	}
	store, err := withLower(o.makeStore())
	if err != nil {
		return err
	}
	epoch, err := sourceEpoch(o.source)
	if err != nil {
		return err
	}
	arches := o.arches
	if len(arches) == 0 {
		arches = []string{machineArch()}
	}
	var plan *hermeto.Plan
	err = withNetwork(ui, lock.Options{Dir: o.source, Digest: d, NeedsOnly: true}, store, func(lo lock.Options) error {
		var err error
		plan, err = hermeto.New(ctx, hermeto.Request{
			Input: in, Digest: d, Source: o.source, Arches: arches, Keys: o.keys, Epoch: epoch, Store: store, Fetch: lo.Fetch,
			Resolve: func(ctx context.Context, m *lock.Manifest) (*lock.Lock, error) {
				lo.Manifest = m
				return lock.Resolve(ctx, lo)
			},
		})
		return err
	})
	if err != nil {
		return fetchError(err)
	}
	if err := fill(ctx, ui, plan.Lock, store, o.source); err != nil {
		return err
	}
	st, err := plan.Write(ctx, o.output, o.sbom == "spdx")
	if err != nil {
		return viewError(err)
	}
	ui.stage("%s written: %s", o.output, viewStats(st))
	return nil
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

// viewError says what to do where a view could not be written.
func viewError(err error) error {
	if errors.As(err, new(*view.ForeignError)) {
		return &codeError{err, exitError, "name an empty folder, or one that does not exist"}
	}
	return err
}

// viewStats says of what a view was made.
func viewStats(st view.Stats) string {
	var parts []string
	for _, how := range []cas.Linked{cas.HardLink, cas.Reflink, cas.Copy} {
		if n := st.Linked[how]; n > 0 {
			name := string(how)
			if n > 1 {
				name = map[cas.Linked]string{cas.HardLink: "hard links", cas.Reflink: "reflinks", cas.Copy: "copies"}[how]
			}
			parts = append(parts, fmt.Sprintf("%d %s", n, name))
		}
	}
	return strings.Join(append(parts, fmt.Sprintf("%d made", st.Made)), ", ")
}

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

// views are folders to write what a lock names to, by kind.
type views map[string]string

// viewKinds are the kinds of view that --view knows.
var viewKinds = []string{"go", "cargo", "rpm", "hermeto"}

func parseViews(args []string) (views, error) {
	out := views{}
	for _, arg := range args {
		kind, dir, ok := strings.Cut(arg, "=")
		if !ok || dir == "" || !slices.Contains(viewKinds, kind) {
			return nil, usageError{fmt.Errorf("view %q: want KIND=FOLDER, of one of the kinds %s", arg, strings.Join(viewKinds, ", "))}
		}
		if _, twice := out[kind]; twice {
			return nil, usageError{fmt.Errorf("view %q: there is one of that kind already", arg)}
		}
		out[kind] = dir
	}
	return out, nil
}

// write writes the views of a lock whose inputs the store has.
func (v views) write(ctx context.Context, ui *ui, l *lock.Lock, store *cas.Store, project string) error {
	for _, kind := range viewKinds {
		dir, ok := v[kind]
		if !ok {
			continue
		}
		st, err := writeView(ctx, kind, dir, l, store, project)
		if err != nil {
			return viewError(err)
		}
		ui.stage("%s written: %s", dir, viewStats(st))
	}
	return nil
}

func writeView(ctx context.Context, kind, dir string, l *lock.Lock, store *cas.Store, project string) (view.Stats, error) {
	at, err := filepath.Abs(dir)
	if err != nil {
		return view.Stats{}, err
	}
	t := view.New(store)
	switch kind {
	case "hermeto":
		return hermeto.Of(l, store, project).Write(ctx, dir, false)
	case "go":
		err = t.Go("", l)
	case "cargo":
		var sources []string
		if sources, err = t.Cargo(ctx, "", l); err == nil {
			err = t.CargoConfig("", at, sources)
		}
	case "rpm":
		if err = t.RPM(ctx, "", l); err == nil {
			err = t.RepoFiles("", at, l)
		}
	}
	if err != nil {
		return view.Stats{}, err
	}
	return t.Write(ctx, dir)
}

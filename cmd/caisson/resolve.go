package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"caisson/lock"
	"caisson/lock/solve"
)

type resolveOptions struct {
	sources
	arch, releasever string
	repos            []string
	priorities       []string
	weak, best       bool
	modules          bool
	obsoletes        bool
	json, each       bool
}

func newResolveCommand(ui *ui) *cobra.Command {
	var o resolveOptions
	c := &cobra.Command{
		Use:   "resolve SPEC...",
		Short: "Tell which packages a request would bring, without a manifest",
		Long: `Resolve asks the solver what SPECs would bring from the repositories given, and
prints one line a package: name-epoch:version-release.arch@repo, sorted. A SPEC
is a name, a NEVRA, a glob, a provide, a /path, an @group or an @module. With --each it reads
a SPEC a line from standard input and prints a JSON line for each; several names
joined by commas are one request. Where there is no solution nothing is printed
but the reasons, on standard error, and the exit code is 1.

An @module or @module:stream/profile enables a module's stream.

Signatures are not checked here.`,
		Example: "  caisson resolve --arch x86_64 --releasever 9 --repo baseos=https://mirror.example/9-stream/BaseOS/x86_64/os/ bash",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) == 0 && !o.each:
				return errors.New("want at least one SPEC, or --each")
			case len(args) > 0 && o.each:
				return errors.New("with --each the SPECs come from standard input")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runResolve(cmd.Context(), ui, &o, args, cmd.InOrStdin())
		},
	}
	f := c.Flags()
	f.StringVar(&o.arch, "arch", machineArch(), "the machine's architecture")
	f.StringVar(&o.releasever, "releasever", "", "the value of $releasever")
	f.StringArrayVar(&o.repos, "repo", nil, "a repository: ID=URL (http, https, file) or ID=FOLDER; may be repeated")
	f.StringArrayVar(&o.priorities, "repo-priority", nil, "a repository's priority: ID=N, lower wins; may be repeated")
	f.BoolVar(&o.weak, "weak-deps", true, "install weak dependencies")
	f.BoolVar(&o.best, "best", true, "a request gets its best candidate, or it is a problem")
	f.BoolVar(&o.modules, "modules", true, "hide packages of module streams that are not active")
	f.BoolVar(&o.obsoletes, "obsoletes", true, "a package that obsoletes the one asked for comes in its place")
	f.BoolVar(&o.json, "json", false, "print JSON")
	f.BoolVar(&o.each, "each", false, "answer each line of standard input by itself")
	o.storeFlag(c)
	return c
}

func runResolve(ctx context.Context, ui *ui, o *resolveOptions, specs []string, stdin io.Reader) error {
	repos, err := o.load(ctx, ui)
	if err != nil {
		return err
	}
	if !o.modules {
		for i := range repos {
			repos[i].Modules = nil
		}
	}
	pool, err := solve.NewPool(repos, solve.Options{Arch: o.arch})
	if err != nil {
		return err
	}
	if o.each {
		return o.answerEach(ctx, ui, pool, stdin)
	}
	lines, err := o.answer(ctx, pool, specs)
	if err != nil {
		return err
	}
	if o.json {
		return ui.json(map[string]any{"install": lines})
	}
	for _, l := range lines {
		ui.print("%s", l)
	}
	return nil
}

// load reads the repositories' metadata by way of the store.
func (o *resolveOptions) load(ctx context.Context, ui *ui) ([]solve.Repo, error) {
	if len(o.repos) == 0 {
		return nil, usageError{errors.New("want at least one --repo ID=URL")}
	}
	m := &lock.Manifest{RPM: lock.ManifestRPM{Vars: map[string]string{}}}
	if o.releasever != "" {
		m.RPM.Vars["releasever"] = o.releasever
	}
	off := false
	for _, r := range o.repos {
		id, at, ok := strings.Cut(r, "=")
		if !ok || id == "" || at == "" {
			return nil, usageError{fmt.Errorf("--repo %q: want ID=URL", r)}
		}
		if slices.ContainsFunc(m.RPM.Repos, func(r lock.ManifestRepo) bool { return r.ID == id }) {
			return nil, usageError{fmt.Errorf("--repo %q: two repositories are called %q", r, id)}
		}
		if o.releasever == "" && (strings.Contains(at, "$releasever") || strings.Contains(at, "${releasever}")) {
			return nil, usageError{fmt.Errorf("--repo %q: $releasever has no value: give it one with --releasever", r)}
		}
		if !strings.Contains(at, "://") {
			var err error
			if at, err = folderURL(at); err != nil {
				return nil, fmt.Errorf("--repo %q: %w", r, err)
			}
		}
		m.RPM.Repos = append(m.RPM.Repos, lock.ManifestRepo{ID: id, BaseURL: lock.StringList{at}, GPGCheck: &off})
	}
	for _, p := range o.priorities {
		id, n, _ := strings.Cut(p, "=")
		prio, err := strconv.Atoi(n)
		i := slices.IndexFunc(m.RPM.Repos, func(r lock.ManifestRepo) bool { return r.ID == id })
		if err != nil || i < 0 {
			return nil, usageError{fmt.Errorf("--repo-priority %q: want ID=N of a repository given by --repo", p)}
		}
		m.RPM.Repos[i].Priority = &prio
	}
	store, err := o.makeStore()
	if err != nil {
		return nil, err
	}
	return loadMetadata(ctx, ui, store, m, o.arch)
}

// folderURL is the address of a folder.
func folderURL(dir string) (string, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return "", fmt.Errorf("%s is not a folder", dir)
	}
	abs, err := filepath.Abs(dir)
	return (&url.URL{Scheme: "file", Path: abs}).String(), err
}

func (o *resolveOptions) answer(ctx context.Context, pool *solve.Pool, specs []string) ([]string, error) {
	sol, err := pool.SolveContext(ctx, solve.Request{Specs: specs, WeakDeps: o.weak, Best: o.best, KeepObsoleted: !o.obsoletes})
	if err != nil {
		return nil, err
	}
	lines := []string{}
	for _, c := range sol.Packages {
		lines = append(lines, c.Package.String()+"@"+c.Repo)
	}
	slices.Sort(lines)
	return lines, nil
}

// eachAnswer is a line of --each: one of the two lists.
type eachAnswer struct {
	Spec     string   `json:"spec"`
	Install  []string `json:"install,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

// maxSpecs is the longest line of --each, in bytes.
const maxSpecs = 1 << 20

// answerEach answers each line as it comes.
func (o *resolveOptions) answerEach(ctx context.Context, ui *ui, pool *solve.Pool, stdin io.Reader) error {
	sc := bufio.NewScanner(stdin)
	sc.Buffer(nil, maxSpecs)
	for sc.Scan() {
		if err := ctx.Err(); err != nil {
			return err
		}
		spec := strings.TrimSpace(sc.Text())
		if spec == "" {
			continue
		}
		a := eachAnswer{Spec: spec}
		var err error
		a.Install, err = o.answer(ctx, pool, specsOf(spec))
		var problem *solve.Problem
		switch {
		case errors.As(err, &problem):
			a.Problems = problem.Lines
		case err != nil:
			return fmt.Errorf("%s: %w", spec, err)
		}
		if err := ui.result(func(w io.Writer) error { return writeLine(w, a) }); err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("reading standard input: %w", err)
	}
	return nil
}

// specsOf splits a line at its commas.
func specsOf(line string) []string {
	var out []string
	for s := range strings.SplitSeq(line, ",") {
		if s = strings.TrimSpace(s); s != "" {
			out = append(out, s)
		}
	}
	return out
}

func writeLine(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

package main

import (
	"bufio"
	"context"
	"encoding/json"
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
	"caisson/lock/solve"
)

type resolveOptions struct {
	sources
	arch, releasever string
	repos            []string
	priorities       []string
	weak, best       bool
	modules          bool
	json, each       bool
}

func newResolveCommand(ui *ui) *cobra.Command {
	var o resolveOptions
	c := &cobra.Command{
		Use:   "resolve SPEC...",
		Short: "Tell which packages a request would bring, without a manifest",
		Long: `Resolve asks the solver what SPECs would bring from the repositories given, and
prints one line a package: name-epoch:version-release.arch@repo, sorted. A SPEC
is a name, a NEVRA, a glob, a provide, a /path, an @group. With --each it reads
a SPEC a line from standard input and prints a JSON line for each.`,
		Example: "  caisson resolve --arch x86_64 --releasever 9 --repo baseos=https://mirror.example/9-stream/BaseOS/x86_64/os/ bash",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 && !o.each {
				return errors.New("resolve: want at least one SPEC, or --each")
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
	pool, err := solve.NewPool(repos, solve.Options{Arch: o.arch})
	if err != nil {
		return err
	}
	if o.each {
		return o.answerEach(ctx, ui, pool, stdin)
	}
	lines, err := o.answer(pool, specs)
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
		return nil, usageError{errors.New("resolve: want at least one --repo ID=URL")}
	}
	m := &lock.Manifest{RPM: lock.ManifestRPM{Vars: map[string]string{"releasever": o.releasever}}}
	off := false
	for _, r := range o.repos {
		id, url, ok := strings.Cut(r, "=")
		if !ok || id == "" || url == "" {
			return nil, usageError{fmt.Errorf("resolve: --repo %q: want ID=URL", r)}
		}
		if !strings.Contains(url, "://") {
			abs, err := absFolder(url)
			if err != nil {
				return nil, err
			}
			url = "file://" + abs
		}
		m.RPM.Repos = append(m.RPM.Repos, lock.ManifestRepo{ID: id, BaseURL: url, GPGCheck: &off})
	}
	for _, p := range o.priorities {
		id, n, _ := strings.Cut(p, "=")
		prio, err := strconv.Atoi(n)
		i := slices.IndexFunc(m.RPM.Repos, func(r lock.ManifestRepo) bool { return r.ID == id })
		if err != nil || i < 0 {
			return nil, usageError{fmt.Errorf("resolve: --repo-priority %q: want ID=N of a repository given by --repo", p)}
		}
		m.RPM.Repos[i].Priority = &prio
	}
	store, err := o.openStore()
	if err != nil {
		return nil, err
	}
	return loadMetadata(ctx, ui, store, m, o.arch)
}

func absFolder(dir string) (string, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return "", err
	}
	if !st.IsDir() {
		return "", fmt.Errorf("%s is not a folder", dir)
	}
	return filepath.Abs(dir)
}

func (o *resolveOptions) answer(pool *solve.Pool, specs []string) ([]string, error) {
	sol, err := pool.Solve(solve.Request{Specs: specs, WeakDeps: o.weak, Best: o.best})
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

// eachAnswer is a line of --each.
type eachAnswer struct {
	Spec     string   `json:"spec"`
	Install  []string `json:"install,omitempty"`
	Problems []string `json:"problems,omitempty"`
}

func (o *resolveOptions) answerEach(ctx context.Context, ui *ui, pool *solve.Pool, stdin io.Reader) error {
	out := bufio.NewWriter(ui.out)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	sc := bufio.NewScanner(stdin)
	for sc.Scan() {
		if err := ctx.Err(); err != nil {
			return err
		}
		spec := strings.TrimSpace(sc.Text())
		if spec == "" {
			continue
		}
		a := eachAnswer{Spec: spec}
		lines, err := o.answer(pool, strings.Split(spec, ","))
		var problem *solve.Problem
		switch {
		case errors.As(err, &problem):
			a.Problems = strings.Split(err.Error(), "\n")
		case err != nil:
			return err
		}
		a.Install = lines
		if err := enc.Encode(a); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("reading standard input: %w", err)
	}
	return out.Flush()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/prefetch/cas"
	"caisson/prefetch/hermeto"
	"caisson/prefetch/view"
)

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
		ui.stage("%s %s", dir, viewStats(st))
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
		err = cargoView(ctx, t, at, l, project)
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

// viewError says what to do where a view could not be written.
func viewError(err error) error {
	if errors.As(err, new(*view.ForeignError)) {
		return &codeError{err, exitError, "name an empty folder, or one that does not exist"}
	}
	return err
}

// viewStats says what became of a view, and of what it is made.
func viewStats(st view.Stats) string {
	done := "written"
	if st.Kept {
		done = "as it was"
	}
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
	return done + ": " + strings.Join(append(parts, fmt.Sprintf("%d made", st.Made)), ", ")
}

// cargoView puts a lock's crates and the repositories that others come from
// into a view. Which of them a source asks for by which name is in its
// Cargo.lock.
func cargoView(ctx context.Context, t *view.Tree, at string, l *lock.Lock, project string) error {
	sources, err := t.Cargo(ctx, "", l)
	if err != nil {
		return err
	}
	repos, err := cargoRepos(l, project)
	if err != nil {
		return err
	}
	if err := t.CargoGit(ctx, "git", filepath.Join(at, "git"), l, repos); err != nil {
		return err
	}
	return t.CargoConfig("", at, sources, repos)
}

func cargoRepos(l *lock.Lock, project string) ([]cargo.Git, error) {
	var out []cargo.Git
	for _, p := range l.Payloads {
		if p.Kind != "cargo" {
			continue
		}
		c, err := cargo.Read(os.DirFS(filepath.Join(project, filepath.FromSlash(p.Source))))
		if err != nil {
			return nil, fmt.Errorf("the source of %s: %w", p.Name, err)
		}
		for _, g := range c.Git {
			g.By = ""
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
	}
	return out, nil
}

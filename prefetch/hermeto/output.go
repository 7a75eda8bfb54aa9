package hermeto

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
	"caisson/prefetch/view"
)

// Write makes dir the output, in place of an earlier one. The store has to
// have all inputs of the plan's lock. spdx chooses bom.json's format.
func (p *Plan) Write(ctx context.Context, dir string, spdx bool) (view.Stats, error) {
	t := view.New(p.req.Store)
	if err := t.Go("deps/gomod/pkg/mod", p.Lock); err != nil {
		return view.Stats{}, err
	}
	crates, err := p.crates(ctx, t, dir)
	if err != nil {
		return view.Stats{}, err
	}
	if err := t.RPM(ctx, "deps/rpm", p.Lock); err != nil {
		return view.Stats{}, err
	}
	for i := range p.Lock.Inputs {
		if in := &p.Lock.Inputs[i]; in.Kind == lock.KindFile {
			if err := t.Link(path.Join("deps/generic", in.Name), in); err != nil {
				return view.Stats{}, err
			}
		}
	}
	config, err := p.config(crates)
	if err != nil {
		return view.Stats{}, err
	}
	for name, format := range map[string]func() ([]byte, error){
		configName:     func() ([]byte, error) { return formatJSON(config) },
		"caisson.lock": func() ([]byte, error) { return lock.Format(p.Lock) },
		"bom.json":     func() ([]byte, error) { return p.sbom(ctx, spdx) },
	} {
		b, err := format()
		if err != nil {
			return view.Stats{}, fmt.Errorf("%s: %w", name, err)
		}
		if err := t.File(name, b); err != nil {
			return view.Stats{}, err
		}
	}
	return t.Write(ctx, dir)
}

// crateSources are where a source's crates come from.
type crateSources struct {
	registries []string
	repos      []cargo.Git
}

// crates lays out the local registries and git repositories of all Rust
// sources. Where submodules are found is told by the output's own path.
func (p *Plan) crates(ctx context.Context, t *view.Tree, dir string) (crateSources, error) {
	var out crateSources
	any := false
	for _, pkg := range p.req.Input.Packages {
		if pkg.Type != "cargo" {
			continue
		}
		any = true
		if _, _, err := p.read(pkg, "Cargo.lock"); err != nil { // no link may lead out
			return out, err
		}
		l, err := cargo.Read(os.DirFS(filepath.Join(p.req.Source, filepath.FromSlash(pkg.Path))))
		if err != nil {
			return out, err
		}
		for _, g := range l.Git {
			g.By = ""
			if !slices.Contains(out.repos, g) {
				out.repos = append(out.repos, g)
			}
		}
	}
	if !any {
		return out, nil
	}
	at, err := filepath.Abs(dir)
	if err != nil {
		return out, err
	}
	if out.registries, err = t.Cargo(ctx, "deps/cargo", p.Lock); err != nil {
		return out, err
	}
	return out, t.CargoGit(ctx, "deps/cargo/git", path.Join(at, "deps/cargo/git"), p.Lock, out.repos)
}

func (p *Plan) sbom(ctx context.Context, spdx bool) ([]byte, error) {
	b, err := p.bom(ctx)
	if err != nil {
		return nil, err
	}
	if !spdx {
		return b.Format()
	}
	d, err := b.SPDX("", p.req.Epoch)
	if err != nil {
		return nil, err
	}
	return d.Format()
}

// Of is the plan of a lock that was made otherwise: its payloads are the
// sources, in the project's folder.
func Of(l *lock.Lock, s *cas.Store, project string) *Plan {
	in := &konflux.PrefetchInput{}
	for _, p := range l.Payloads {
		typ := p.Kind
		if typ == "go" {
			typ = "gomod"
		}
		in.Packages = append(in.Packages, konflux.PrefetchPackage{Type: typ, Path: p.Source})
	}
	return &Plan{Lock: l, alone: true, repos: map[string]*repository{}, req: Request{Input: in, Source: project, Epoch: l.Epoch, Store: s}}
}

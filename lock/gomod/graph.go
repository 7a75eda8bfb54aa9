package gomod

import (
	"context"
	"fmt"
	"go/version"
	"maps"
	"os"
	"slices"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// pruning is how much of the module graph is followed: "Module graph pruning"
// in The Go Modules Reference.
type pruning int

const (
	pruned    pruning = iota // a module's own requirements, not those of what it requires
	unpruned                 // all
	workspace                // of several main modules
)

// summary is what the graph knows of a go.mod.
type summary struct {
	require []module.Version
	pruning pruning
}

func pruningOf(f *modfile.File) pruning {
	if version.Compare(goLine(f), "go1.17") < 0 {
		return unpruned
	}
	return pruned
}

// required are the requirements of a go.mod but for those excluded by a main
// module, and for the pseudo-modules go and toolchain.
func (l *loader) required(f *modfile.File) []module.Version {
	var out []module.Version
	for _, r := range f.Require {
		if !l.excluded[r.Mod] {
			out = append(out, r.Mod)
		}
	}
	return out
}

// summary reads the go.mod of a module, or of what replaces it.
func (l *loader) summary(ctx context.Context, m module.Version) (*summary, error) {
	if s := l.mods[m]; s != nil {
		return s, nil
	}
	f, err := l.goMod(ctx, m)
	if err != nil {
		return nil, err
	}
	if v := goLine(f); l.o.Toolchain != "" && version.Compare(v, l.o.Toolchain) > 0 {
		return nil, fmt.Errorf("%s needs %s, and the toolchain is %s", m, v, l.o.Toolchain)
	}
	s := &summary{require: l.required(f), pruning: pruningOf(f)}
	l.mods[m] = s
	return s, nil
}

func (l *loader) goMod(ctx context.Context, m module.Version) (*modfile.File, error) {
	if m.Version == "" {
		for _, main := range l.mains {
			if main.path() == m.Path {
				return main.file, nil
			}
		}
	}
	name := m.String() + ".mod"
	var b []byte
	var err error
	r := l.actual(m)
	if r.dir != "" {
		name = r.dir + "/go.mod"
		b, err = readFile(l.fsys, name)
	} else {
		var file string
		if file, err = l.file(ctx, r.Version, ".mod"); err == nil {
			b, err = os.ReadFile(file)
		}
	}
	if err != nil {
		return nil, err
	}
	f, err := modfile.ParseLax(name, b, nil)
	if err != nil {
		return nil, err
	}
	if r.dir != "" {
		return f, nil
	}
	if f.Module == nil {
		return nil, fmt.Errorf("%s: there is no module line", name)
	}
	if p := f.Module.Mod.Path; p != m.Path && p != r.Path {
		return nil, fmt.Errorf("%s: it says that it is module %s", name, p)
	}
	return f, nil
}

// graph is the module graph, as far as pruning has it loaded.
type graph struct {
	require  map[module.Version][]module.Version
	selected map[string]string // version by path; that of a main module is empty
	main     map[string]bool
}

func (g *graph) add(m module.Version, reqs []module.Version) {
	g.require[m] = reqs
	for _, r := range append([]module.Version{m}, reqs...) {
		if old, ok := g.selected[r.Path]; !g.main[r.Path] && (!ok || semver.Compare(r.Version, old) > 0) {
			g.selected[r.Path] = r.Version
		}
	}
}

// graphLoad is the loading of a graph.
type graphLoad struct {
	*graph
	l    *loader
	seen map[graphNode]bool
}

type graphNode struct {
	m module.Version
	p pruning
}

// loadGraph loads the module graph, once.
func (l *loader) loadGraph(ctx context.Context) error {
	if l.graph != nil {
		return nil
	}
	g := &graphLoad{l: l, seen: make(map[graphNode]bool), graph: &graph{
		require: make(map[module.Version][]module.Version), selected: make(map[string]string), main: make(map[string]bool),
	}}
	for _, m := range l.mains {
		g.main[m.path()], g.selected[m.path()] = true, ""
	}
	if l.work != nil {
		if err := g.loadWorkspace(ctx); err != nil {
			return err
		}
	} else {
		main := l.mains[0]
		roots := l.required(main.file)
		g.add(module.Version{Path: main.path()}, roots)
		if err := g.load(ctx, pruningOf(main.file), roots); err != nil {
			return err
		}
	}
	l.graph = g.graph
	return nil
}

// load follows the requirements of modules.
func (g *graphLoad) load(ctx context.Context, p pruning, roots []module.Version) error {
	var queue []graphNode
	for _, m := range roots {
		queue = append(queue, graphNode{m, p})
	}
	for i := 0; i < len(queue); i++ {
		n := queue[i]
		if g.seen[n] {
			continue
		}
		g.seen[n] = true
		s, err := g.l.summary(ctx, n.m)
		if err != nil {
			return err
		}
		g.add(n.m, s.require)
		next := s.pruning
		if n.p == unpruned {
			next = unpruned
		}
		if n.p == pruned && s.pruning == pruned {
			continue
		}
		for _, r := range s.require {
			queue = append(queue, graphNode{r, next})
		}
	}
	return nil
}

// loadWorkspace loads the graph of all main modules. What they require may be
// selected at a higher version than any of them asks for: then that version's
// requirements count too, as far as they raise further ones.
func (g *graphLoad) loadWorkspace(ctx context.Context) error {
	var roots []module.Version
	relevant := make(map[string]bool) // paths whose selected version has to be loaded
	for _, m := range g.l.mains {
		roots = append(roots, module.Version{Path: m.path()})
		relevant[m.path()] = true
	}
	if err := g.load(ctx, workspace, roots); err != nil {
		return err
	}
	seen := make(map[module.Version]bool)
	for {
		more := make(map[module.Version]bool)
		for p := range relevant {
			m := module.Version{Path: p, Version: g.selected[p]}
			if !seen[m] {
				more[m] = true
				continue
			}
			for _, r := range g.require[m] {
				s := module.Version{Path: r.Path, Version: g.selected[r.Path]}
				raised := g.main[r.Path] || semver.Compare(s.Version, r.Version) > 0
				if raised && !seen[s] {
					more[s] = true
				}
			}
		}
		if len(more) == 0 {
			return nil
		}
		next := slices.SortedFunc(maps.Keys(more), compareVersions)
		for _, m := range next {
			seen[m], relevant[m.Path] = true, true
		}
		if err := g.load(ctx, workspace, next); err != nil {
			return err
		}
	}
}

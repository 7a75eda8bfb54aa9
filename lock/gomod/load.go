package gomod

import (
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/sync/errgroup"
)

// fetchLimit is how many files are fetched at a time.
const fetchLimit = 12

// Options are what Load works with.
type Options struct {
	// Packages are built. Where there are none, no program is known: then all
	// packages of the source are looked at, and what they import and nobody
	// has is passed over.
	Packages []Package
	// Arches are the machines they are built for, as GOARCH has them.
	Arches []string
	// Top is the folder of fsys that has the go.mod or go.work; empty for fsys
	// itself. What they name by path may lie anywhere in fsys.
	Top string
	// Toolchain compiles them, such as "go1.26.0"; where it is empty, one that
	// is new enough for all of them.
	Toolchain string
	// Fetch brings a file of a module, ext being ".mod" or ".zip", and returns
	// where it lies. Its h1 must be the one given, unless that is empty. It is
	// called by several goroutines.
	Fetch func(ctx context.Context, m module.Version, ext, h1 string) (string, error)
	// Unlisted is asked for the h1 of a file that no sum file lists; version
	// ends in "/go.mod" for a go.mod. An empty h1 means that any file will do,
	// and is taken at its word. proved tells whether a checksum database
	// vouches for it.
	Unlisted func(ctx context.Context, path, version string) (h1 string, proved bool, err error)
}

// Package is a package that is built.
type Package struct {
	Path string // as the go command has it: ".", "./cmd/agent", "example.org/x/cmd/y"
	Cgo  bool   // with cgo
}

// Needed is a module that a build needs, and why.
type Needed struct {
	Module
	// By is the module that requires it: the first one in breadth-first order
	// from the source, which is the empty By itself. Nobody is known where
	// Listed only.
	By module.Version
	// Listed says that nothing but a sum file names this version.
	Listed bool
	// UnprovedMod and UnprovedZip say that no sum file and no checksum database
	// vouches for the file: its hash is that of what was fetched.
	UnprovedMod, UnprovedZip bool
}

// Load returns the modules that a build of the source folder needs, as Read
// does, and where the folder is a workspace also those that its sum files
// lack: it loads the module graph and the packages as the go command (1.26)
// does for -mod=readonly. In a plain module what the sum files lack is an
// error, as it is for the go command.
func Load(ctx context.Context, fsys fs.FS, o Options) ([]Needed, error) {
	l, err := newLoader(fsys, o)
	if err != nil {
		return nil, err
	}
	defer l.close()
	listed, err := l.modules()
	if err != nil {
		return nil, err
	}
	if err := l.fetchListed(ctx, listed); err != nil {
		return nil, err
	}
	if err := l.loadPackages(ctx); err != nil {
		return nil, err
	}
	return l.explained(ctx), nil
}

// loader works out what a build reads.
type loader struct {
	*source
	o        Options
	replaced map[module.Version]replacement
	need     map[module.Version]*Needed
	files    map[module.Version]string // what was fetched; a go.mod's version ends in "/go.mod"
	mods     map[module.Version]*summary
	graph    *graph // nil until a package asks for it
	zips     map[module.Version]*tree
	imports  map[string][]string // of files, by module and name
}

func newLoader(fsys fs.FS, o Options) (*loader, error) {
	s, err := readSource(fsys, o.Top)
	if err != nil {
		return nil, err
	}
	l := &loader{
		source: s, o: o, need: make(map[module.Version]*Needed), files: make(map[module.Version]string),
		mods: make(map[module.Version]*summary), zips: make(map[module.Version]*tree), imports: make(map[string][]string),
	}
	return l, l.setReplacements()
}

// replacement is what stands for a module: another one, or a folder.
type replacement struct {
	module.Version
	dir string // of the source; Version is then empty
}

// setReplacements collects the replace directives: those of go.work win over
// the modules' own, which must not contradict each other.
func (l *loader) setReplacements() error {
	l.replaced = make(map[module.Version]replacement)
	byWork := make(map[string]bool)
	set := func(r *modfile.Replace, dir, name string) error {
		to := replacement{Version: r.New}
		if r.New.Version == "" {
			to = replacement{dir: path.Join(dir, r.New.Path)}
		}
		if old, ok := l.replaced[r.Old]; ok && old != to {
			return fmt.Errorf("%s: replace %s: another module of the workspace replaces it otherwise; decide in go.work", name, r.Old)
		}
		l.replaced[r.Old] = to
		return nil
	}
	if l.work != nil {
		for _, r := range l.work.Replace {
			byWork[r.Old.Path] = true
			if err := set(r, l.top, path.Join(l.top, "go.work")); err != nil {
				return err
			}
		}
	}
	for _, m := range l.mains {
		for _, r := range m.file.Replace {
			if byWork[r.Old.Path] {
				continue
			}
			if err := set(r, m.dir, path.Join(m.dir, "go.mod")); err != nil {
				return err
			}
		}
	}
	return nil
}

// actual is what stands for a module.
func (l *loader) actual(m module.Version) replacement {
	if m.Version == "" {
		return replacement{Version: m} // a main module is never replaced
	}
	if r, ok := l.replaced[m]; ok {
		return r
	}
	if r, ok := l.replaced[module.Version{Path: m.Path}]; ok {
		return r
	}
	return replacement{Version: m}
}

// fetchListed fetches, all at a time, what the sum files name.
func (l *loader) fetchListed(ctx context.Context, listed []Module) error {
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(fetchLimit)
	files := make([][2]string, len(listed))
	for i, m := range listed {
		v := module.Version{Path: m.Path, Version: m.Version}
		for j, f := range []struct{ ext, h1 string }{{".mod", m.ModH1}, {".zip", m.ZipH1}} {
			if f.h1 != "" {
				g.Go(func() (err error) {
					files[i][j], err = l.o.Fetch(gctx, v, f.ext, f.h1)
					return err
				})
			}
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, m := range listed {
		v := module.Version{Path: m.Path, Version: m.Version}
		l.need[v] = &Needed{Module: m}
		l.files[goModOf(v)] = files[i][0]
		if m.ZipH1 != "" {
			l.files[v] = files[i][1]
		}
	}
	return nil
}

// goModOf is how sum files call a module's go.mod.
func goModOf(m module.Version) module.Version {
	return module.Version{Path: m.Path, Version: m.Version + "/go.mod"}
}

// file fetches a file of a module, unless it has been, and notes that it is
// needed.
func (l *loader) file(ctx context.Context, m module.Version, ext string) (string, error) {
	key := m
	if ext == ".mod" {
		key = goModOf(m)
	}
	if f, ok := l.files[key]; ok {
		return f, nil
	}
	n := l.need[m]
	if n == nil {
		n = &Needed{Module: Module{Path: m.Path, Version: m.Version}}
	}
	h1, unproved, f := &n.ModH1, &n.UnprovedMod, ""
	known := l.sums[m].ModH1
	if ext == ".zip" {
		h1, unproved, known = &n.ZipH1, &n.UnprovedZip, l.sums[m].ZipH1
	}
	var err error
	switch {
	case known != "":
		*h1 = known
	case l.work == nil:
		return "", fmt.Errorf("%s has no hash for %s %s; run `go mod tidy`", path.Join(l.top, "go.sum"), key.Path, key.Version)
	default:
		var proved bool
		if *h1, proved, err = l.o.Unlisted(ctx, key.Path, key.Version); err != nil {
			return "", err
		}
		*unproved = !proved
	}
	if f, err = l.o.Fetch(ctx, m, ext, *h1); err != nil {
		return "", err
	}
	if *h1 == "" {
		if *h1, err = fileHash(f, ext); err != nil {
			return "", err
		}
	}
	l.need[m], l.files[key] = n, f
	return f, nil
}

func fileHash(name, ext string) (string, error) {
	if ext == ".zip" {
		return ZipHash(name)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return ModHash(b)
}

// explained is all that is needed, sorted, each with who requires it.
func (l *loader) explained(ctx context.Context) []Needed {
	by := make(map[module.Version]module.Version)
	type edge struct{ m, by module.Version }
	var queue []edge
	for _, m := range l.mains {
		for _, r := range l.required(m.file) {
			queue = append(queue, edge{m: r})
		}
	}
	for i := 0; i < len(queue); i++ {
		m, from := l.actual(queue[i].m), queue[i].by
		next := from // a folder of the source is the source
		if m.dir == "" {
			if _, seen := by[m.Version]; seen {
				continue
			}
			by[m.Version] = from
			next = m.Version
			if _, ok := l.files[goModOf(m.Version)]; !ok {
				continue // pruned away
			}
		} else if _, seen := by[queue[i].m]; seen {
			continue
		} else {
			by[queue[i].m] = from
		}
		f, err := l.goMod(ctx, queue[i].m)
		if err != nil {
			continue // a version that no build looks at may be anything
		}
		for _, r := range l.required(f) {
			queue = append(queue, edge{r, next})
		}
	}
	out := make([]Needed, 0, len(l.need))
	for v, n := range l.need {
		from, ok := by[v]
		n.By, n.Listed = from, !ok
		out = append(out, *n)
	}
	slices.SortFunc(out, func(a, b Needed) int { return compareModules(a.Module, b.Module) })
	return out
}

// close closes the zips.
func (l *loader) close() {
	for _, z := range l.zips {
		if z.close != nil {
			_ = z.close()
		}
	}
}

// goLine is the language version of a go.mod, in the form of go/version.
func goLine(f *modfile.File) string {
	if f.Go == nil {
		return "go1.16"
	}
	return "go" + cmp.Or(f.Go.Version, "1.16")
}

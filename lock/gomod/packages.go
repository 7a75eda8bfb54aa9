package gomod

import (
	"archive/zip"
	"cmp"
	"context"
	"errors"
	"fmt"
	"go/build"
	"go/parser"
	"go/token"
	"go/version"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/mod/module"
)

// maxGoFile bounds a Go file, in bytes. The largest that people write, tables
// that a program generated, are below.
const maxGoFile = 64 << 20

// tree is the files of a module.
type tree struct {
	fsys  fs.FS
	dir   string         // the module's folder in it
	local bool           // of the source: other modules may be inside
	mod   module.Version // or what replaces it; a folder of the source has no version
	id    string
	close func() error
}

// walk is one way to look at packages: for one machine, with or without cgo.
type walk struct {
	l    *loader
	ctx  build.Context
	seen map[string]bool // packages, by import path
	// strict makes it an error that nobody has a package.
	strict bool
	// found is told of every package that has files for the machine, std of
	// every one of the standard library that is imported; they may be nil.
	found func(name string, t *tree, dir string)
	std   func(ctx context.Context, name string) error
}

// loadPackages follows the imports of what is built.
func (l *loader) loadPackages(ctx context.Context) error {
	strict := len(l.o.Packages) > 0
	if !strict && l.work == nil {
		return nil // the sum files are all that counts
	}
	for _, arch := range l.o.Arches {
		for _, cgo := range []bool{false, true} {
			w := &walk{l: l, ctx: l.buildContext(arch, cgo), seen: make(map[string]bool), strict: strict}
			if !strict {
				if err := w.all(ctx); err != nil {
					return err
				}
			}
			for _, p := range l.o.Packages {
				if p.Cgo == cgo {
					if err := w.root(ctx, p.Path); err != nil {
						return err
					}
				}
			}
		}
	}
	return nil
}

// newestGo stands for a toolchain that is not known: no source asks for a
// later release of Go.
const newestGo = "go1.99"

// buildContext is what decides which files belong to a package.
func (l *loader) buildContext(arch string, cgo bool) build.Context {
	c := build.Context{GOARCH: arch, GOOS: "linux", Compiler: "gc", CgoEnabled: cgo, JoinPath: path.Join}
	// The oldest machine of each architecture, as the build has it.
	if level := map[string]string{"amd64": "v1", "arm64": "v8.0", "ppc64le": "power8"}[arch]; level != "" {
		c.ToolTags = []string{arch + "." + level}
	}
	minor, err := strconv.Atoi(strings.TrimPrefix(version.Lang(cmp.Or(l.o.Toolchain, newestGo)), "go1."))
	for i := 1; err == nil && i <= minor; i++ {
		c.ReleaseTags = append(c.ReleaseTags, "go1."+strconv.Itoa(i))
	}
	return c
}

// root looks at a package that is built.
func (w *walk) root(ctx context.Context, pkg string) error {
	if pkg != "." && !strings.HasPrefix(pkg, "./") {
		return w.importPath(ctx, pkg, "", "")
	}
	dir, rest, pattern := strings.Cut(path.Join(w.l.top, pkg), "...")
	if pattern {
		if rest != "" || dir != "" && !strings.HasSuffix(dir, "/") {
			return fmt.Errorf("package %q: want a folder, or one with /... behind it", pkg)
		}
		return w.below(ctx, path.Clean(cmp.Or(dir, ".")))
	}
	m, ok := w.mainOf(dir)
	if !ok {
		return fmt.Errorf("package %q is in no module of the source", pkg)
	}
	return w.folder(ctx, m, dir)
}

// mainOf is the main module that a folder of the source belongs to.
func (w *walk) mainOf(dir string) (mainModule, bool) {
	best, ok := mainModule{}, false
	for _, m := range w.l.mains {
		in := m.dir == "." || dir == m.dir || strings.HasPrefix(dir, m.dir+"/")
		if in && (!ok || len(m.dir) > len(best.dir) || best.dir == ".") {
			best, ok = m, true
		}
	}
	return best, ok
}

// folder looks at the package in a folder of a main module.
func (w *walk) folder(ctx context.Context, m mainModule, dir string) error {
	rel := "."
	if dir != m.dir {
		rel = dir
		if m.dir != "." {
			rel = strings.TrimPrefix(dir, m.dir+"/")
		}
	}
	t := &tree{fsys: w.l.fsys, dir: m.dir, local: true, mod: module.Version{Path: m.path()}, id: "./" + m.dir}
	return w.pkg(ctx, path.Join(m.path(), rel), t, dir)
}

// all looks at every package of the main modules.
func (w *walk) all(ctx context.Context) error {
	for _, m := range w.l.mains {
		if err := w.below(ctx, m.dir); err != nil {
			return err
		}
	}
	return nil
}

// below looks at the packages of a folder and of those in it, without other
// modules, vendor and testdata, as the pattern "./..." does.
func (w *walk) below(ctx context.Context, top string) error {
	m, ok := w.mainOf(top)
	if !ok {
		return fmt.Errorf("folder %q is in no module of the source", top)
	}
	return fs.WalkDir(w.l.fsys, top, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		base := path.Base(name)
		if name != top {
			if base == "vendor" || base == "testdata" || strings.HasPrefix(base, ".") || strings.HasPrefix(base, "_") {
				return fs.SkipDir
			}
			if isFile(w.l.fsys, path.Join(name, "go.mod")) {
				return fs.SkipDir
			}
		}
		if ok, err := hasGoFiles(w.l.fsys, name); err != nil || !ok {
			return err
		}
		return w.folder(ctx, m, name)
	})
}

// pkg looks at what a package imports.
func (w *walk) pkg(ctx context.Context, name string, t *tree, dir string) error {
	if w.seen[name] {
		return nil
	}
	w.seen[name] = true
	if err := ctx.Err(); err != nil {
		return err
	}
	imports, any, err := w.imports(t, dir)
	if err != nil {
		return fmt.Errorf("package %s: %w", name, err)
	}
	if any && w.found != nil {
		w.found(name, t, dir)
	}
	for _, p := range sortedKeys(imports) {
		if err := w.importPath(ctx, p, name, t.id); err != nil {
			return err
		}
	}
	return nil
}

// imports is what the files of a package import that are for the machine, and
// whether there are any, be they tests.
func (w *walk) imports(t *tree, dir string) (imports map[string]bool, any bool, err error) {
	entries, err := fs.ReadDir(t.fsys, dir)
	if err != nil {
		return nil, false, err
	}
	c := w.ctx
	c.OpenFile = func(p string) (io.ReadCloser, error) { return t.fsys.Open(p) }
	imports = make(map[string]bool)
	for _, e := range entries {
		file := e.Name()
		if e.IsDir() || !strings.HasSuffix(file, ".go") {
			continue
		}
		ok, err := c.MatchFile(dir, file)
		if err != nil {
			return nil, false, err
		}
		any = any || ok
		if !ok || strings.HasSuffix(file, "_test.go") {
			continue
		}
		list, err := w.l.importsOf(t, path.Join(dir, file))
		if err != nil {
			if !w.strict {
				continue
			}
			return nil, false, err
		}
		if slices.Contains(list, "C") && !c.CgoEnabled {
			continue
		}
		for _, p := range list {
			imports[p] = true
		}
	}
	return imports, any, nil
}

// importsOf parses the imports of a file.
func (l *loader) importsOf(t *tree, name string) ([]string, error) {
	key := t.id + "\x00" + name
	if list, ok := l.imports[key]; ok {
		return list, nil
	}
	f, err := t.fsys.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxGoFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxGoFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, maxGoFile)
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), name, b, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	list := []string{}
	for _, i := range parsed.Imports {
		p, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return nil, fmt.Errorf("%s: import %s: %w", name, i.Path.Value, err)
		}
		list = append(list, p)
	}
	l.imports[key] = list
	return list, nil
}

// importPath finds who has a package, and looks at it. by is the package that
// imports it, in the module with the id in.
func (w *walk) importPath(ctx context.Context, p, by, in string) error {
	if in == stdID || p == "C" || p == "unsafe" {
		return w.standard(ctx, p)
	}
	if w.seen[p] {
		return nil
	}
	where := "package " + p
	if by != "" {
		where = fmt.Sprintf("package %s imports %s", by, p)
		if in != "" && !strings.HasPrefix(in, "./") {
			where = fmt.Sprintf("package %s of %s imports %s", by, in, p)
		}
	}
	first, _, _ := strings.Cut(p, "/")
	std := !strings.Contains(first, ".")
	if err := module.CheckImportPath(p); err != nil {
		if !w.strict {
			return nil
		}
		return fmt.Errorf("%s: %w", where, err)
	}
	t, dir, err := w.l.provider(ctx, p, std)
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	switch {
	case t != nil:
		return w.pkg(ctx, p, t, dir)
	case std:
		return w.standard(ctx, p)
	case !w.strict:
		return nil
	}
	return fmt.Errorf("%s: no required module has it; run `go mod tidy`", where)
}

// standard tells of a package of the standard library, or of cgo's "C".
func (w *walk) standard(ctx context.Context, p string) error {
	if w.std == nil {
		return nil
	}
	return w.std(ctx, p)
}

// provider finds the module that has a package, first among those that the
// source itself requires, then, unless the package may be of the standard
// library, in the whole graph. As the go command does, it looks into every
// module whose path the package's begins with.
func (l *loader) provider(ctx context.Context, p string, std bool) (*tree, string, error) {
	if l.work == nil && pruningOf(l.mains[0].file) == unpruned {
		if err := l.loadGraph(ctx); err != nil {
			return nil, "", err
		}
	}
	for {
		t, dir, err := l.lookIn(ctx, p)
		if t != nil || err != nil || std || l.graph != nil {
			return t, dir, err
		}
		if err := l.loadGraph(ctx); err != nil {
			return nil, "", err
		}
	}
}

// lookIn looks for a package in the selected modules, or as long as there is
// no graph in the roots of it.
func (l *loader) lookIn(ctx context.Context, p string) (found *tree, at string, err error) {
	for prefix := p; prefix != "."; prefix = path.Dir(prefix) {
		m, ok := l.selected(prefix)
		if !ok {
			continue
		}
		t, err := l.tree(ctx, m)
		if err != nil {
			return nil, "", err
		}
		dir := path.Join(t.dir, strings.TrimPrefix(strings.TrimPrefix(p, prefix), "/"))
		if ok, err := t.has(dir); err != nil || !ok {
			if err != nil {
				return nil, "", err
			}
			continue
		}
		if found != nil {
			return nil, "", fmt.Errorf("both %s and %s have it", found.id, t.id)
		}
		found, at = t, dir
	}
	return found, at, nil
}

// selected is the version of a module that the build uses.
func (l *loader) selected(p string) (module.Version, bool) {
	if l.graph != nil {
		v, ok := l.graph.selected[p]
		return module.Version{Path: p, Version: v}, ok
	}
	for _, m := range l.mains {
		if m.path() == p {
			return module.Version{Path: p}, true
		}
	}
	if l.work != nil {
		return module.Version{}, false
	}
	best, ok := module.Version{}, false
	for _, r := range l.required(l.mains[0].file) {
		if r.Path == p && (!ok || compareVersions(best, r) < 0) {
			best, ok = r, true
		}
	}
	return best, ok
}

// tree opens the files of a module.
func (l *loader) tree(ctx context.Context, m module.Version) (*tree, error) {
	if t := l.zips[m]; t != nil {
		return t, nil
	}
	t := &tree{fsys: l.fsys, local: true, mod: module.Version{Path: m.Path}}
	if m.Version == "" {
		for _, main := range l.mains {
			if main.path() == m.Path {
				t.dir, t.id = main.dir, "./"+main.dir
			}
		}
	} else if r := l.actual(m); r.dir != "" {
		t.dir, t.id = r.dir, "./"+r.dir
	} else {
		if _, err := l.file(ctx, r.Version, ".mod"); err != nil {
			return nil, err
		}
		name, err := l.file(ctx, r.Version, ".zip")
		if err != nil {
			return nil, err
		}
		z, err := zip.OpenReader(name)
		if err != nil {
			return nil, fmt.Errorf("%s.zip: %w", r.Version, err)
		}
		t = &tree{fsys: z, dir: r.Version.String(), mod: r.Version, id: r.Version.String(), close: z.Close}
	}
	l.zips[m] = t
	return t, nil
}

// has tells whether a folder of a module has Go files, and is not in a
// module inside.
func (t *tree) has(dir string) (bool, error) {
	for d := dir; t.local && d != t.dir && d != "."; d = path.Dir(d) {
		if isFile(t.fsys, path.Join(d, "go.mod")) {
			return false, nil
		}
	}
	return hasGoFiles(t.fsys, dir)
}

func isFile(fsys fs.FS, name string) bool {
	fi, err := fs.Stat(fsys, name)
	return err == nil && !fi.IsDir()
}

func hasGoFiles(fsys fs.FS, dir string) (bool, error) {
	entries, err := fs.ReadDir(fsys, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		if fi, serr := fs.Stat(fsys, dir); serr == nil && !fi.IsDir() {
			return false, nil
		}
		return false, err
	}
	for _, e := range entries {
		if !e.IsDir() && strings.HasSuffix(e.Name(), ".go") {
			return true, nil
		}
	}
	return false, nil
}

package gomod

import (
	"cmp"
	"context"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/mod/module"
)

// Listing is what the packages of a source are made of, sorted.
type Listing struct {
	// Local are the modules in the source's tree: its own, and those that
	// stand in folders for what they require.
	Local    []LocalModule
	Packages []ListedPackage
}

// LocalModule is a module in the source's tree.
type LocalModule struct {
	Path string
	Dir  string // in fsys
}

// ListedPackage is a package.
type ListedPackage struct {
	ImportPath string
	// Module is where it is from: what stands for another module is told
	// instead of that, and one of Listing.Local has no version. Empty for a
	// package of the standard library.
	Module module.Version
	Dir    string // the folder in the module, "." for its top
}

// ListOptions are what List works with: of Options it heeds Top, Arches,
// Toolchain, Fetch and Unlisted.
type ListOptions struct {
	Options
	Cgo bool // whether C may be called
	// Std has the standard library's packages, as the folder src of a
	// toolchain. Where it is nil those that the source and its modules import
	// are listed, and not what these import.
	Std fs.FS
}

// List returns what `go list -deps ./...` does in every module of the source:
// their packages, and what these import, without tests. What nobody has is
// passed over, as are the imports of a file that is no Go.
func List(ctx context.Context, fsys fs.FS, o ListOptions) (*Listing, error) {
	l, err := newLoader(fsys, o.Options)
	if err != nil {
		return nil, err
	}
	defer l.close()
	found := make(map[string]ListedPackage)
	for _, arch := range o.Arches {
		w := &walk{l: l, ctx: l.buildContext(arch, o.Cgo), seen: make(map[string]bool)}
		s := &stdWalk{walk: w, fsys: o.Std, found: found}
		w.std = s.add
		w.found = func(name string, t *tree, dir string) {
			if t.id == stdID {
				found[name] = ListedPackage{ImportPath: name, Dir: dir}
				return
			}
			rel := strings.TrimPrefix(dir, t.dir)
			if t.dir == "." {
				rel = dir
			}
			found[name] = ListedPackage{ImportPath: name, Module: t.mod, Dir: path.Clean(strings.TrimPrefix(rel, "/"))}
		}
		if err := w.all(ctx); err != nil {
			return nil, err
		}
		if o.Std != nil && len(found) > 0 {
			if err := s.add(ctx, "runtime"); err != nil { // every program has it
				return nil, err
			}
		}
	}
	out := &Listing{Local: l.local()}
	for _, name := range sortedKeys(found) {
		out.Packages = append(out.Packages, found[name])
	}
	return out, nil
}

// local are the modules in the tree.
func (l *loader) local() []LocalModule {
	var out []LocalModule
	for _, m := range l.mains {
		if m.path() != "" {
			out = append(out, LocalModule{m.path(), m.dir})
		}
		for _, r := range l.required(m.file) {
			if a := l.actual(r); a.dir != "" {
				out = append(out, LocalModule{r.Path, a.dir})
			}
		}
	}
	slices.SortFunc(out, func(a, b LocalModule) int {
		return cmp.Or(strings.Compare(a.Path, b.Path), strings.Compare(a.Dir, b.Dir))
	})
	return slices.Compact(out)
}

// stdID is the id of the standard library's tree.
const stdID = "std"

// stdWalk looks at the standard library.
type stdWalk struct {
	*walk
	fsys  fs.FS // may be nil
	found map[string]ListedPackage
}

// add adds a package, and where there are files what it imports. What the go
// command adds to the imports of a package that calls C is added here.
func (s *stdWalk) add(ctx context.Context, p string) error {
	if p == "C" {
		for _, implied := range []string{"unsafe", "syscall", "runtime/cgo"} {
			if err := s.add(ctx, implied); err != nil {
				return err
			}
		}
		return nil
	}
	if s.fsys == nil {
		s.found[p] = ListedPackage{ImportPath: p, Dir: p}
		return nil
	}
	first, _, _ := strings.Cut(p, "/")
	if strings.Contains(first, ".") {
		p = path.Join("vendor", p)
	}
	if _, err := fs.Stat(s.fsys, p); err != nil { // no package of Go, whatever it is called
		return nil
	}
	return s.pkg(ctx, p, &tree{fsys: s.fsys, dir: ".", id: stdID}, p)
}

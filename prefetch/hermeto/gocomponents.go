package hermeto

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/gomod"
	"caisson/lock/konflux"
)

// goTop is the folder whose go.work or go.mod counts for a package: as for the
// go command, a go.work above, within the source, if it uses the package.
func (p *Plan) goTop(pkg konflux.PrefetchPackage) (string, error) {
	for dir := pkg.Path; ; dir = path.Dir(dir) {
		b, s, err := p.read(konflux.PrefetchPackage{Path: dir}, "go.work")
		if errors.Is(err, fs.ErrNotExist) {
			if dir == "." || p.alone {
				return pkg.Path, nil
			}
			continue
		}
		if err != nil {
			return "", err
		}
		work, err := modfile.ParseWork(s.Name, b, nil)
		if err != nil {
			return "", err
		}
		uses := func(u *modfile.Use) bool { return path.Join(dir, u.Path) == pkg.Path }
		if dir == pkg.Path || slices.ContainsFunc(work.Use, uses) {
			return dir, nil
		}
		return pkg.Path, nil
	}
}

// goSource is the folder that a Go package is of, the toolchain that it names,
// if it does, and the files that say so.
func (p *Plan) goSource(pkg konflux.PrefetchPackage) (top, toolchain string, l *lock.Lock, err error) {
	if top, err = p.goTop(pkg); err != nil {
		return "", "", nil, err
	}
	l = &lock.Lock{}
	note := func(dir string, names ...string) error {
		for i, name := range names { // but the first may be absent
			_, s, err := p.read(konflux.PrefetchPackage{Path: dir}, name)
			if errors.Is(err, fs.ErrNotExist) && i > 0 {
				continue
			}
			if err != nil {
				return err
			}
			l.Sources = append(l.Sources, s)
		}
		return nil
	}
	b, s, err := p.read(konflux.PrefetchPackage{Path: top}, "go.work")
	if errors.Is(err, fs.ErrNotExist) {
		if b, s, err = p.read(pkg, "go.mod"); err != nil {
			return "", "", nil, err
		}
		mod, err := modfile.Parse(s.Name, b, nil)
		if err != nil {
			return "", "", nil, err
		}
		if mod.Toolchain != nil {
			toolchain = mod.Toolchain.Name
		}
		return top, known(toolchain), l, note(top, "go.mod", "go.sum")
	}
	if err != nil {
		return "", "", nil, err
	}
	work, err := modfile.ParseWork(s.Name, b, nil)
	if err != nil {
		return "", "", nil, err
	}
	if work.Toolchain != nil {
		toolchain = work.Toolchain.Name
	}
	for _, u := range work.Use {
		if err := note(path.Join(top, u.Path), "go.mod", "go.sum"); err != nil {
			return "", "", nil, fmt.Errorf("%s: use %s: %w", s.Name, u.Path, err)
		}
	}
	return top, known(toolchain), l, note(top, "go.work", "go.work.sum")
}

// known is a toolchain's name, or none for "default" and "local".
func known(toolchain string) string {
	if strings.HasPrefix(toolchain, "go1.") {
		return toolchain
	}
	return ""
}

// goComponents are what stands for the Go sources in the SBOM: the modules of
// the lock, those of the sources themselves, and all packages.
func (p *Plan) goComponents(ctx context.Context) ([]Component, error) {
	var out []Component
	for i := range p.Lock.Inputs {
		in := &p.Lock.Inputs[i]
		if in.Kind != lock.KindGo || path.Ext(in.Name) != ".zip" {
			continue
		}
		c := goModule(in.Go.Module, in.Go.Version, "")
		c.References = p.req.Settings.goReferences()
		c.Hashes = []Hash{{Algorithm: "SHA-256", Content: in.SHA256.Hex()}}
		out = append(out, c)
	}
	seen := map[string]bool{}
	for _, pkg := range p.req.Input.Packages {
		if pkg.Type != "gomod" {
			continue
		}
		top, toolchain, _, err := p.goSource(pkg)
		if err == nil && !seen[top] {
			seen[top] = true
			err = p.listGo(ctx, top, toolchain, &out)
		}
		if err != nil {
			return nil, fmt.Errorf("listing the packages of %q: %w", pkg.Path, err)
		}
	}
	return out, nil
}

// goModule is the component of a module; vcs is where a local one is from.
func goModule(name, version, vcs string) Component {
	c := Component{Name: name, Version: version}
	c.PURL = purl("golang", "", name, version, map[string]string{"type": "module", "vcs_url": vcs}, "")
	return c
}

// localModule is where a module of the source's tree is.
type localModule struct {
	name         string // in a package URL
	version, vcs string
}

// listGo adds the modules of a source's tree and the packages that its own
// are made of.
func (p *Plan) listGo(ctx context.Context, top, toolchain string, out *[]Component) error {
	root, err := os.OpenRoot(p.req.Source)
	if err != nil {
		return err
	}
	defer root.Close()
	o := gomod.ListOptions{
		Cgo:     !slices.Contains(p.req.Input.Flags, "cgo-disable"),
		Options: gomod.Options{Top: top, Toolchain: toolchain},
	}
	o.Fetch, o.Unlisted = p.goFiles()
	for _, arch := range p.Lock.Arches {
		if a := lock.GoArch(arch); a != "" {
			o.Arches = append(o.Arches, a)
		}
	}
	std, err := p.standardLibrary(toolchain)
	if err != nil {
		return err
	}
	if std != nil {
		defer std.Close()
		if o.Std, err = fs.Sub(std, std.src); err != nil {
			return err
		}
	}
	l, err := gomod.List(ctx, root.FS(), o)
	if err != nil {
		return err
	}
	local := map[string]localModule{}
	for _, m := range l.Local {
		at, err := p.localGo(m)
		if err != nil {
			return err
		}
		local[m.Path] = at
		c := goModule(at.name, at.version, at.vcs)
		c.Name = m.Path
		*out = append(*out, c)
	}
	for _, pkg := range l.Packages {
		*out = append(*out, p.goPackage(pkg, local))
	}
	return nil
}

// localGo names a module of the source's tree by where the repository is, in
// which it lies.
func (p *Plan) localGo(m gomod.LocalModule) (localModule, error) {
	dir := filepath.Join(p.req.Source, filepath.FromSlash(m.Dir))
	r, err := p.repository(dir)
	if err != nil || r == nil {
		return localModule{name: m.Path}, err
	}
	rel, err := r.rel(dir)
	if err != nil {
		return localModule{}, err
	}
	at := localModule{name: m.Path, vcs: r.vcsURL()}
	if name := r.name(); name != "" {
		at.name = path.Join(name, rel)
	}
	at.version, err = r.goVersion(m.Path, rel)
	return at, err
}

// repository is the git repository that a folder is in.
func (p *Plan) repository(dir string) (*repository, error) {
	r, err := readGit(dir, p.repos)
	if err == nil && r != nil {
		p.repos[r.root] = r
	}
	return r, err
}

// goPackage is the component of a package.
func (p *Plan) goPackage(pkg gomod.ListedPackage, local map[string]localModule) Component {
	q := map[string]string{"type": "package"}
	if pkg.Module.Path == "" { // of the standard library
		return Component{Name: pkg.ImportPath, PURL: purl("golang", "", pkg.ImportPath, "", q, "")}
	}
	c := Component{Name: path.Join(pkg.Module.Path, pkg.Dir), Version: pkg.Module.Version}
	name := c.Name
	if c.Version == "" {
		at := local[pkg.Module.Path]
		name, c.Version, q["vcs_url"] = path.Join(at.name, pkg.Dir), at.version, at.vcs
	} else {
		c.References = p.req.Settings.goReferences()
	}
	c.PURL = purl("golang", "", name, c.Version, q, "")
	return c
}

// goFiles are gomod's ways to the files of modules: those of the lock.
func (p *Plan) goFiles() (
	fetch func(ctx context.Context, m module.Version, ext, h1 string) (string, error),
	unlisted func(ctx context.Context, path, version string) (string, bool, error),
) {
	type file struct {
		sum digest.Digest
		h1  string
	}
	files := map[string]file{}
	for i := range p.Lock.Inputs {
		if in := &p.Lock.Inputs[i]; in.Kind == lock.KindGo {
			files[in.Name] = file{in.SHA256, in.Go.H1}
		}
	}
	find := func(name string) (file, error) {
		f, ok := files[name]
		if !ok {
			return f, fmt.Errorf("%s is not in the lock", name)
		}
		return f, nil
	}
	fetch = func(_ context.Context, m module.Version, ext, _ string) (string, error) {
		f, err := find(m.String() + ext)
		return p.req.Store.Path(f.sum), err
	}
	unlisted = func(_ context.Context, path, version string) (string, bool, error) {
		name := path + "@" + version + ".zip"
		if v, ok := strings.CutSuffix(version, "/go.mod"); ok {
			name = path + "@" + v + ".mod"
		}
		f, err := find(name)
		return f.h1, true, err
	}
	return fetch, unlisted
}

// toolchainZip is a Go toolchain of the lock.
type toolchainZip struct {
	*zip.ReadCloser
	src string // the folder of the standard library
}

// standardLibrary opens a toolchain, of whichever machine; nil where the lock
// has none of that name.
func (p *Plan) standardLibrary(toolchain string) (*toolchainZip, error) {
	for i := range p.Lock.Inputs {
		in := &p.Lock.Inputs[i]
		if in.Kind != lock.KindToolchain || toolchain == "" || !strings.HasPrefix(in.Go.Version, "v0.0.1-"+toolchain+".") {
			continue
		}
		z, err := zip.OpenReader(p.req.Store.Path(in.SHA256))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", in.Name, err)
		}
		return &toolchainZip{z, in.Go.Module + "@" + in.Go.Version + "/src"}, nil
	}
	return nil, nil
}

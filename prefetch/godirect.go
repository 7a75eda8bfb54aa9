package prefetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/zip"

	"caisson/prefetch/cas"
	"caisson/prefetch/gitfetch"
)

// goDirect writes a module's zip or go.mod as "direct" in GOPROXY has it: from
// the git repository that the module's path leads to. path is one of a module
// proxy, such as "example.com/x/@v/v1.2.3.zip". Other version control systems
// are not supported, GOVCS is not read, and files that .gitattributes has git rewrite (eol=crlf, ident,
// working-tree-encoding) are taken as they are kept, which go does not do:
// their module does not prove to be what go.sum says. It returns by what it
// was logged in.
func (f *Fetcher) goDirect(ctx context.Context, file string, to *cas.Temp) (by string, err error) {
	mod, ext, err := parseModuleFile(file)
	if err != nil {
		return "", err
	}
	root, err := f.repoRoot(ctx, mod.Path)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return "", &FetchError{URL: "https://" + mod.Path, Err: err}
	}
	if root.vcs == "mod" {
		return f.client.get(ctx, Request{URL: strings.TrimSuffix(root.repo, "/") + "/" + file, Immutable: true}, to)
	}
	by, err = f.moduleOf(ctx, root, mod, ext, to)
	if err == nil || ctx.Err() != nil {
		return by, ctx.Err()
	}
	fe := &FetchError{URL: safeURL(root.repo), Err: fmt.Errorf("%s: %w", mod, err)}
	if errors.Is(err, fs.ErrNotExist) {
		fe.Status = http.StatusNotFound
	}
	return "", fe
}

// parseModuleFile reads a path of a module proxy.
func parseModuleFile(file string) (mod module.Version, ext string, err error) {
	escaped, name, ok := strings.Cut(strings.TrimPrefix(file, "/"), "/@v/")
	ext = path.Ext(name)
	if !ok || ext != ".zip" && ext != ".mod" {
		return mod, "", fmt.Errorf("%q is no zip and no go.mod of a module", file)
	}
	if mod.Path, err = module.UnescapePath(escaped); err != nil {
		return mod, "", err
	}
	if mod.Version, err = module.UnescapeVersion(strings.TrimSuffix(name, ext)); err != nil {
		return mod, "", err
	}
	if !semver.IsValid(mod.Version) || module.CanonicalVersion(mod.Version) != mod.Version {
		return mod, "", fmt.Errorf("%s is no canonical version", mod)
	}
	return mod, ext, nil
}

// goModule is a module in a repository at a commit.
type goModule struct {
	module.Version
	pathMajor string // "/v2", ".v2" or ""
	whole     bool   // the repository is the module's, whatever its path ends in
	dir       string // where its path leads to in the repository
	repo      *gitfetch.Repo
	files     map[string]gitfetch.File
	order     []gitfetch.File
}

// newGoModule says where in a repository a module is, as cmd/go does.
func newGoModule(root repoRoot, mod module.Version) (*goModule, error) {
	prefix, major, ok := module.SplitPathVersion(mod.Path)
	if !ok {
		return nil, fmt.Errorf("%q is no module path", mod.Path)
	}
	m := &goModule{Version: mod, pathMajor: major, whole: root.path == mod.Path}
	if !m.whole {
		rest, ok := strings.CutPrefix(prefix, root.path)
		if !ok || rest != "" && rest[0] != '/' {
			return nil, fmt.Errorf("the repository of %s cannot have the module %s", root.path, mod.Path)
		}
		m.dir = strings.Trim(rest, "/")
	}
	m.dir = strings.TrimPrefix(path.Join(m.dir, root.subdir), "/")
	return m, nil
}

// moduleOf fetches a module's repository and writes what is asked for of it.
// It returns by what it was logged in.
func (f *Fetcher) moduleOf(ctx context.Context, root repoRoot, mod module.Version, ext string, to *cas.Temp) (by string, err error) {
	u, err := url.Parse(root.repo)
	if err != nil {
		return "", errors.New("the address of its repository is no URL")
	}
	site, err := f.git()
	if err != nil {
		return "", err
	}
	if u, err = site.rewrite(u); err != nil {
		return "", err
	}
	if err := checkGitURL(u, mod.Version); err != nil {
		return "", err
	}
	m, err := newGoModule(root, mod)
	if err != nil {
		return "", err
	}
	dir, remove, err := f.store.CreateDir()
	if err != nil {
		return "", err
	}
	defer remove()
	err = f.retry(ctx, u, func() (err error) {
		var o gitfetch.Options
		o, by, err = f.gitOptions(nil, u)
		if err != nil {
			return err
		}
		return m.fetch(ctx, u, o, dir)
	})
	if err != nil {
		return "", err
	}
	defer m.repo.Close()
	if ext == ".mod" {
		return by, m.writeMod(to)
	}
	return by, m.writeZip(to)
}

// fetch finds the commit of the version and lists its files.
func (m *goModule) fetch(ctx context.Context, u *url.URL, o gitfetch.Options, dir string) error {
	id, err := m.fetchVersion(ctx, u, o, dir)
	if err != nil {
		return err
	}
	if m.order, err = m.repo.Files(id); err != nil {
		return errors.Join(err, m.repo.Close())
	}
	m.files = make(map[string]gitfetch.File, len(m.order))
	for _, file := range m.order {
		m.files[file.Path] = file
	}
	return nil
}

// fetchVersion fetches what the version's tag names or, where it is a
// pseudo-version, the commit of which that has the first twelve digits.
func (m *goModule) fetchVersion(ctx context.Context, u *url.URL, o gitfetch.Options, dir string) (id string, err error) {
	var refs []string
	if !module.IsPseudoVersion(m.Version.Version) {
		refs = []string{"refs/tags/" + path.Join(m.dir, strings.TrimSuffix(m.Version.Version, "+incompatible"))}
	}
	remote, err := gitfetch.Open(ctx, u, o, refs...)
	if err != nil {
		return "", err
	}
	if refs != nil {
		if id, err = remote.Resolve(refs[0]); err == nil {
			m.repo, err = remote.Fetch(ctx, id, dir)
		}
	} else {
		var rev string
		if rev, err = module.PseudoVersionRev(m.Version.Version); err == nil {
			m.repo, id, err = remote.FetchPrefix(ctx, rev, dir)
		}
	}
	if err != nil {
		return "", errors.Join(err, remote.Close())
	}
	return id, nil
}

// read reads a file of the commit; it is fs.ErrNotExist where there is none.
func (m *goModule) read(name string, limit int64) ([]byte, error) {
	file, ok := m.files[name]
	if !ok || file.Mode&fs.ModeSymlink != 0 {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	if file.Size > limit {
		return nil, fmt.Errorf("%s has %d bytes, want %d at most", name, file.Size, limit)
	}
	r, err := m.repo.Open(file.ID)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(io.LimitReader(r, limit))
}

// root is the folder with the module's go.mod, and that file; nil where the
// module has none. A module of major version 2 or more is in the folder that
// its path names, or in one called v2 there; it may not be in both.
func (m *goModule) root() (dir string, mod []byte, err error) {
	first := path.Join(m.dir, "go.mod")
	mod, err = m.read(first, zip.MaxGoMod)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	there := err == nil
	name := modfile.ModulePath(mod)
	fits := there && (isMajor(name, m.pathMajor) || m.pathMajor == "" && strings.HasPrefix(name, "gopkg.in/"))
	if strings.HasPrefix(m.pathMajor, "/") && !m.whole {
		below := path.Join(m.dir, m.pathMajor[1:])
		mod2, err := m.read(path.Join(below, "go.mod"), zip.MaxGoMod)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return "", nil, err
		case !isMajor(modfile.ModulePath(mod2), m.pathMajor):
			return "", nil, fmt.Errorf("%s/go.mod has the module path %q, want one that ends in %s", below, modfile.ModulePath(mod2), m.pathMajor)
		case fits:
			return "", nil, fmt.Errorf("%s and %s/go.mod both have module paths that end in %s", first, below, m.pathMajor)
		default:
			return below, mod2, nil
		}
	}
	switch {
	case fits:
		return m.dir, mod, nil
	case there:
		return "", nil, fmt.Errorf("%s has the module path %q, which is not of major version %q", first, name, module.PathMajorPrefix(m.pathMajor))
	case m.dir == "" && !strings.HasPrefix(m.pathMajor, "/"):
		return "", nil, nil
	}
	return "", nil, fmt.Errorf("%s: %w", first, fs.ErrNotExist)
}

// isMajor tells whether a module path is of the major version that another
// path ends in.
func isMajor(mod, pathMajor string) bool {
	_, major, ok := module.SplitPathVersion(mod)
	switch {
	case mod == "" || !ok:
		return false
	case pathMajor == "":
		p := module.PathMajorPrefix(major)
		return p == "" || p == "v0" || p == "v1"
	}
	return major != "" && major[1:] == pathMajor[1:]
}

// writeMod writes the module's go.mod, or what stands for one.
func (m *goModule) writeMod(w io.Writer) error {
	_, mod, err := m.root()
	if err != nil {
		return err
	}
	if mod == nil {
		mod = fmt.Appendf(nil, "module %s\n", modfile.AutoQuote(m.Path))
	}
	_, err = w.Write(mod)
	return err
}

// writeZip writes the module's zip (golang.org/x/mod/zip), with the
// repository's LICENSE where the module has none of its own.
func (m *goModule) writeZip(w io.Writer) error {
	dir, _, err := m.root()
	if err != nil {
		return err
	}
	prefix := ""
	if dir != "" {
		prefix = dir + "/"
	}
	var files []zip.File
	license := prefix == ""
	for _, file := range m.order {
		name, ok := strings.CutPrefix(file.Path, prefix)
		if !ok {
			continue
		}
		files = append(files, zipFile{m.repo, file, name})
		license = license || name == "LICENSE"
	}
	if file, ok := m.files["LICENSE"]; ok && !license && file.Mode.IsRegular() && file.Size <= zip.MaxLICENSE {
		files = append(files, zipFile{m.repo, file, "LICENSE"})
	}
	return zip.Create(w, m.Version, files)
}

// zipFile is a file of a repository as zip.Create takes it.
type zipFile struct {
	repo *gitfetch.Repo
	file gitfetch.File
	name string
}

// Path is the file's path in the module.
func (z zipFile) Path() string { return z.name }

// Lstat describes the file.
func (z zipFile) Lstat() (fs.FileInfo, error) { return z, nil }

// Open opens the file.
func (z zipFile) Open() (io.ReadCloser, error) { return z.repo.Open(z.file.ID) }

// Name, Size, Mode, ModTime, IsDir and Sys make it a fs.FileInfo.
func (z zipFile) Name() string       { return path.Base(z.name) }
func (z zipFile) Size() int64        { return z.file.Size }
func (z zipFile) Mode() fs.FileMode  { return z.file.Mode }
func (z zipFile) ModTime() time.Time { return time.Time{} }
func (z zipFile) IsDir() bool        { return false }
func (z zipFile) Sys() any           { return nil }

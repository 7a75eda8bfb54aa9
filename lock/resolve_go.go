package lock

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/package-url/packageurl-go"
	"golang.org/x/mod/module"
	"golang.org/x/sync/errgroup"

	"caisson/lock/gomod"
)

// goArch is the Go name of an RPM architecture.
var goArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}

// GoArch is the Go name of an RPM architecture, empty for one that Go programs
// are not built for here.
func GoArch(arch string) string { return goArch[arch] }

// goPayloads pins the modules and toolchains of the Go sources.
func (r *resolver) goPayloads(ctx context.Context) error {
	for _, g := range r.m.Inputs.Go {
		if err := r.goPayload(ctx, g); err != nil {
			return fmt.Errorf("inputs.go: %s: %w", g.Name, err)
		}
	}
	return nil
}

func (r *resolver) goPayload(ctx context.Context, g ManifestGo) error {
	r.say("reading the modules of %s", g.Name)
	g.Dir = path.Clean(g.Dir)
	src := os.DirFS(filepath.Join(r.Dir, g.Dir))
	arches := r.lock.Arches
	if g.Toolchain == "" && r.NeedsOnly {
		arches = nil
	} else if err := gomod.CheckToolchain(src, g.Toolchain); err != nil {
		return err
	}
	set := "go:" + g.Name
	r.lock.Payloads = append(r.lock.Payloads, Payload{Kind: "go", Name: g.Name, Source: g.Dir, Toolchain: g.Toolchain})
	if err := r.tree(g.Dir, Use{Set: set, By: "inputs.go " + g.Name}); err != nil {
		return err
	}
	wants := r.samePayload(g.Dir, set)
	if wants == nil {
		var err error
		if wants, err = r.goModules(ctx, g, set); err != nil {
			return err
		}
	}
	var tools []*Input
	for _, arch := range arches {
		t, err := r.toolchain(ctx, g.Toolchain, arch, set)
		if err != nil {
			return err
		}
		tools = append(tools, t)
	}
	grp, gctx := errgroup.WithContext(ctx)
	for _, t := range tools {
		grp.Go(func() error { return r.pinToolchain(gctx, t) })
	}
	if err := grp.Wait(); err != nil {
		return err
	}
	for _, in := range slices.Concat(wants, tools) {
		if have := r.inputs[in.Kind+"/"+in.Name]; have != nil && !in.Go.Unproved {
			have.Go = in.Go // another payload's sum file may not list it
		}
		if err := r.add(*in); err != nil {
			return err
		}
	}
	return nil
}

// samePayload is the modules that the lock there was has for a source, where
// neither that source nor the manifest has changed; else nil.
func (r *resolver) samePayload(dir, set string) []*Input {
	old, now := r.old(KindTree, dir), r.inputs[KindTree+"/"+dir]
	if old == nil || r.Old.Manifest != r.Digest || old.SHA256 != now.SHA256 {
		return nil
	}
	out := []*Input{}
	for i := range r.Old.Inputs {
		in := r.Old.Inputs[i]
		in.For = nil
		for _, u := range r.Old.Inputs[i].For {
			if u.Set == set {
				in.For = append(in.For, u)
			}
		}
		if in.Kind == KindGo && in.For != nil {
			out = append(out, &in)
		}
	}
	return out
}

// goModules finds and pins the modules of a Go source.
func (r *resolver) goModules(ctx context.Context, g ManifestGo, set string) ([]*Input, error) {
	// A source that is not packed on its own may name what lies beside it.
	src, top := os.DirFS(filepath.Join(r.Dir, g.Dir)), "."
	if r.NeedsOnly {
		root, err := os.OpenRoot(r.Dir)
		if err != nil {
			return nil, err
		}
		defer root.Close()
		src, top = root.FS(), g.Dir
	}
	f := &goFetch{r: r, blobs: make(map[string]Blob), read: make(map[string]string)}
	o := gomod.Options{Top: top, Toolchain: g.Toolchain, Fetch: f.fetch, Unlisted: f.unlisted(ctx)}
	for _, arch := range r.lock.Arches {
		o.Arches = append(o.Arches, goArch[arch])
	}
	for _, s := range r.m.Steps {
		if s.Go != nil && s.Go.Input == g.Name {
			if a := GoArch(s.Go.Arch); a != "" && !slices.Contains(o.Arches, a) {
				o.Arches = append(o.Arches, a)
			}
			o.Packages = append(o.Packages, gomod.Package{Path: cmp.Or(s.Go.Package, "."), Cgo: s.Go.Cgo})
		}
	}
	needed, err := gomod.Load(ctx, src, o)
	if err != nil {
		return nil, err
	}
	zip := func(m gomod.Module) (string, error) {
		v := module.Version{Path: m.Path, Version: m.Version}
		return f.fetch(ctx, v, ".zip", m.ZipH1)
	}
	if err := gomod.CheckVendor(src, top, needed, zip); err != nil {
		return nil, err
	}
	var out []*Input
	for _, n := range needed {
		use := Use{Set: set, By: g.Dir, Dep: "go.mod"}
		if n.By.Path != "" {
			use.By = n.By.String()
		}
		if n.Listed {
			use.Dep = "go.sum"
		}
		out = append(out, f.input(n.Module, ".mod", n.ModH1, n.UnprovedMod, use))
		if n.ZipH1 != "" {
			out = append(out, f.input(n.Module, ".zip", n.ZipH1, n.UnprovedZip, use))
		}
	}
	return out, nil
}

// goFetch fetches the files of modules, each once, and proves them.
type goFetch struct {
	r     *resolver
	mu    sync.Mutex
	blobs map[string]Blob   // by input name
	read  map[string]string // their h1
}

// fetch brings a file of a module and compares it with its h1. One that the
// lock there was has with that h1 has to be the same file, byte for byte.
func (f *goFetch) fetch(ctx context.Context, m module.Version, ext, h1 string) (string, error) {
	name := m.String() + ext
	f.mu.Lock()
	blob, ok := f.blobs[name]
	had := f.read[name]
	f.mu.Unlock()
	if ok && (h1 == "" || h1 == had) {
		return blob.Path, nil
	}
	gm := gomod.Module{Path: m.Path, Version: m.Version}
	want := Want{Kind: KindGo, URL: gomod.ModPath(gm), Immutable: true}
	if ext == ".zip" {
		want.URL = gomod.ZipPath(gm)
	}
	if old := f.r.old(KindGo, name); old != nil && old.Go.H1 == h1 {
		want.SHA256, want.Size = old.SHA256, old.Size
	}
	blob, err := f.r.Fetch(ctx, want)
	if err != nil {
		return "", err
	}
	if h1 != "" {
		if err := checkGoFile(blob.Path, ext, h1); err != nil {
			return "", fmt.Errorf("%s: %w", name, err)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.blobs[name], f.read[name] = blob, h1
	return blob.Path, nil
}

// unlisted finds the h1 of files that no sum file lists: in the checksum
// database, or, for modules that it is not to be asked for, in the lock there
// was.
func (f *goFetch) unlisted(ctx context.Context) func(ctx context.Context, path, version string) (string, bool, error) {
	lookup := gomod.SumDB(ctx, f.r.readSumDB, cmp.Or(f.r.SumDBKey, gomod.SumDBKey))
	return func(_ context.Context, path, version string) (string, bool, error) {
		if !module.MatchPrefixPatterns(f.r.NoSumDB, path) {
			f.r.say("looking up %s %s in the checksum database", path, version)
			h1, err := lookup(path, version)
			return h1, true, err
		}
		name := path + "@" + version + ".zip"
		if v, ok := strings.CutSuffix(version, "/go.mod"); ok {
			name = path + "@" + v + ".mod"
		}
		if old := f.r.old(KindGo, name); old != nil {
			return old.Go.H1, false, nil
		}
		return "", false, nil
	}
}

func (f *goFetch) input(m gomod.Module, ext, h1 string, unproved bool, use Use) *Input {
	name, url := m.Path+"@"+m.Version+ext, gomod.ModPath(m)
	if ext == ".zip" {
		url = gomod.ZipPath(m)
	}
	blob := f.blobs[name]
	return &Input{
		Kind: KindGo, Name: name, URL: url, PURL: goPURL(m.Path, m.Version), SHA256: blob.SHA256, Size: blob.Size,
		Go: &Go{Module: m.Path, Version: m.Version, H1: h1, Unproved: unproved}, For: []Use{use},
	}
}

// goPURL is a module's package URL (purl-spec, type golang): all but the last
// element of its path is the namespace.
func goPURL(mod, version string) string {
	dir, name := path.Split(mod)
	return packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(dir, "/"), name, version, nil, "").ToString()
}

// readSumDB fetches a path of the checksum database.
func (r *resolver) readSumDB(ctx context.Context, path string) ([]byte, error) {
	blob, err := r.Fetch(ctx, Want{Kind: KindSumDB, URL: path, Immutable: true})
	if err != nil {
		return nil, err
	}
	return os.ReadFile(blob.Path)
}

// toolchain looks a Go toolchain up in the checksum database, which go.sum
// cannot list.
func (r *resolver) toolchain(ctx context.Context, version, arch, set string) (*Input, error) {
	mod, ver := gomod.ToolchainModule(version, "linux", goArch[arch])
	m := gomod.Module{Path: mod, Version: ver}
	in := &Input{
		Kind: KindToolchain, Name: mod + "@" + ver + ".zip", URL: gomod.ZipPath(m),
		PURL: goPURL(mod, ver),
		Go:   &Go{Module: mod, Version: ver}, For: []Use{{Arch: arch, Set: set, By: "toolchain " + version}},
	}
	if old := r.old(KindToolchain, in.Name); old != nil {
		in.Go.H1 = old.Go.H1
		return in, nil
	}
	r.say("looking up %s in the checksum database", ver)
	var err error
	if in.Go.H1, err = gomod.ToolchainSum(ctx, r.readSumDB, version, "linux", goArch[arch], cmp.Or(r.SumDBKey, gomod.SumDBKey)); err != nil {
		return nil, fmt.Errorf("toolchain %s for %s: %w", version, arch, err)
	}
	return in, nil
}

// pinToolchain gives a toolchain its size and SHA-256. Its h1 pins it
// already, so what the lock there was says of the same h1 holds; else it is
// fetched and compared with its h1.
func (r *resolver) pinToolchain(ctx context.Context, in *Input) error {
	if old := r.old(in.Kind, in.Name); old != nil && old.Go.H1 == in.Go.H1 {
		in.SHA256, in.Size = old.SHA256, old.Size
		return nil
	}
	blob, err := r.Fetch(ctx, Want{Kind: in.Kind, URL: in.URL, Immutable: true})
	if err != nil {
		return err
	}
	if err := checkGoFile(blob.Path, ".zip", in.Go.H1); err != nil {
		return fmt.Errorf("%s: %w", in.Name, err)
	}
	in.SHA256, in.Size = blob.SHA256, blob.Size
	return nil
}

func checkGoFile(name, ext, h1 string) error {
	if ext == ".zip" {
		return gomod.CheckZip(name, h1)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return gomod.CheckMod(b, h1)
}

package lock

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/package-url/packageurl-go"
	"golang.org/x/sync/errgroup"

	"caisson/lock/gomod"
)

// goArch is the Go name of an RPM architecture.
var goArch = map[string]string{"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}

// fetchLimit is how many files are fetched at a time while locking.
const fetchLimit = 12

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
	mods, err := gomod.Read(src)
	if err != nil {
		return err
	}
	if err := gomod.CheckToolchain(src, g.Toolchain); err != nil {
		return err
	}
	set := "go:" + g.Name
	r.lock.Payloads = append(r.lock.Payloads, Payload{Kind: "go", Name: g.Name, Source: g.Dir, Toolchain: g.Toolchain})
	if err := r.tree(g.Dir, Use{Set: set, By: "inputs.go " + g.Name}); err != nil {
		return err
	}
	var wants []*Input
	for _, m := range mods {
		wants = append(wants, goInput(m, ".mod", m.ModH1, gomod.ModPath(m), set, g.Dir))
		if m.ZipH1 != "" {
			wants = append(wants, goInput(m, ".zip", m.ZipH1, gomod.ZipPath(m), set, g.Dir))
		}
	}
	for _, arch := range r.lock.Arches {
		t, err := r.toolchain(ctx, g.Toolchain, arch, set)
		if err != nil {
			return err
		}
		wants = append(wants, t)
	}
	grp, gctx := errgroup.WithContext(ctx)
	grp.SetLimit(fetchLimit)
	for _, in := range wants {
		grp.Go(func() error { return r.pinGo(gctx, in) })
	}
	if err := grp.Wait(); err != nil {
		return err
	}
	for _, in := range wants {
		if err := r.add(*in); err != nil {
			return err
		}
	}
	return nil
}

func goInput(m gomod.Module, ext, h1, url, set, by string) *Input {
	return &Input{
		Kind: KindGo, Name: m.Path + "@" + m.Version + ext, URL: url,
		PURL: goPURL(m.Path, m.Version),
		Go:   &Go{Module: m.Path, Version: m.Version, H1: h1}, For: []Use{{Set: set, By: by, Dep: "go.sum"}},
	}
}

// goPURL is a module's package URL (purl-spec, type golang): all but the last
// element of its path is the namespace.
func goPURL(mod, version string) string {
	dir, name := path.Split(mod)
	return packageurl.NewPackageURL(packageurl.TypeGolang, strings.TrimSuffix(dir, "/"), name, version, nil, "").ToString()
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
	read := func(ctx context.Context, path string) ([]byte, error) {
		blob, err := r.Fetch(ctx, Want{Kind: KindSumDB, URL: path, Immutable: true})
		if err != nil {
			return nil, err
		}
		return os.ReadFile(blob.Path)
	}
	var err error
	if in.Go.H1, err = gomod.ToolchainSum(ctx, read, version, "linux", goArch[arch], cmp.Or(r.SumDBKey, gomod.SumDBKey)); err != nil {
		return nil, fmt.Errorf("toolchain %s for %s: %w", version, arch, err)
	}
	return in, nil
}

// pinGo gives a Go input its size and SHA-256. Its h1 pins it already, so
// what the lock there was says of the same h1 holds; else it is fetched and
// compared with its h1.
func (r *resolver) pinGo(ctx context.Context, in *Input) error {
	if old := r.old(in.Kind, in.Name); old != nil && old.Go.H1 == in.Go.H1 {
		in.SHA256, in.Size = old.SHA256, old.Size
		return nil
	}
	blob, err := r.Fetch(ctx, Want{Kind: in.Kind, URL: in.URL, Immutable: true})
	if err != nil {
		return err
	}
	if filepath.Ext(in.Name) == ".zip" {
		err = gomod.CheckZip(blob.Path, in.Go.H1)
	} else {
		var b []byte
		if b, err = os.ReadFile(blob.Path); err == nil {
			err = gomod.CheckMod(b, in.Go.H1)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", in.Name, err)
	}
	in.SHA256, in.Size = blob.SHA256, blob.Size
	return nil
}

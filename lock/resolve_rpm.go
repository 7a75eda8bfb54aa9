package lock

import (
	"context"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// packages chooses the packages of every set, for every arch and variant.
func (r *resolver) packages(ctx context.Context) error {
	r.requests()
	for _, arch := range r.lock.Arches {
		repos, err := r.loadRepos(ctx, arch)
		if err != nil {
			return err
		}
		pool, err := solve.NewPool(repos, solve.Options{Arch: arch})
		if err != nil {
			return err
		}
		for _, set := range r.lock.Sets {
			r.say("choosing the packages of %s (%s)", set.Name, arch)
			if err := r.solveSet(pool, arch, set); err != nil {
				return err
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// requests makes the lock's sets out of the manifest's and its variants'.
func (r *resolver) requests() {
	for _, name := range slices.Sorted(maps.Keys(r.m.Sets)) {
		s := r.m.Sets[name]
		r.request(name, name, s)
		for _, v := range slices.Sorted(maps.Keys(r.m.Variants)) {
			if more, ok := r.m.Variants[v].Sets[name]; ok {
				r.request(name, SetName(name, v), ManifestSet{
					Packages: slices.Concat(s.Packages, more.Packages),
					Exclude:  slices.Concat(s.Exclude, more.Exclude),
					Modules:  slices.Concat(s.Modules, more.Modules),
				})
			}
		}
	}
}

func (r *resolver) request(base, name string, s ManifestSet) {
	set := Set{Name: name, Packages: sorted(s.Packages), Exclude: sorted(s.Exclude), Modules: s.Modules}
	if base == r.m.RPM.Set {
		set.Only = r.only
	}
	r.lock.Sets = append(r.lock.Sets, set)
}

func sorted(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

// solveSet asks the solver for one set and records its answer.
func (r *resolver) solveSet(pool *solve.Pool, arch string, set Set) error {
	sol, err := pool.Solve(solve.Request{
		Specs: set.PackagesFor(arch), WeakDeps: r.lock.RPM.WeakDeps, Best: r.lock.RPM.Best, Exclude: set.Exclude, Prefer: r.prefer(arch, set.Name),
	})
	if err != nil {
		return fmt.Errorf("set %s (%s): %w", set.Name, arch, err)
	}
	for _, c := range sol.Packages {
		in, err := r.rpmInput(c)
		if err != nil {
			return err
		}
		use := Use{Arch: arch, Set: set.Name, By: c.Reason.Spec}
		if c.Reason.Kind != solve.Requested {
			use.By, use.Dep = nevra(c.Reason.By), c.Reason.Dep
		}
		in.For = []Use{use}
		if err := r.add(in); err != nil {
			return err
		}
	}
	return nil
}

func nevra(p *rpmmd.Package) string { return p.Name + "-" + p.EVR.String() + "." + p.Arch }

// prefer is what the lock there was chose for a set, without what is to be
// chosen anew.
func (r *resolver) prefer(arch, set string) []string {
	if r.Old == nil || r.UpdateAll {
		return nil
	}
	var out []string
	for _, in := range r.Old.Of(arch, set) {
		if in.Kind == KindRPM && !slices.Contains(r.Update, in.RPM.Name) {
			out = append(out, in.Name)
		}
	}
	return out
}

func (r *resolver) rpmInput(c solve.Choice) (Input, error) {
	p := c.Package
	if p.Checksum.Algorithm != "sha256" {
		return Input{}, fmt.Errorf("%s in repository %q is pinned by %s; want sha256", nevra(p), c.Repo, p.Checksum.Algorithm)
	}
	sum, err := digest.ParseHex(p.Checksum.Hex)
	if err != nil {
		return Input{}, fmt.Errorf("%s in repository %q: %w", nevra(p), c.Repo, err)
	}
	repo := r.repos[c.Repo]
	in := Input{
		Kind: KindRPM, Name: nevra(p), URL: p.Location, Repo: c.Repo, Size: p.Size, SHA256: sum,
		RPM: &RPM{
			Name: p.Name, Epoch: p.Epoch, Version: p.Version, Release: p.Release, Arch: p.Arch,
			SourceRPM: p.SourceRPM, BuildTime: p.BuildTime, Signed: repo.GPGCheck, Module: c.Module,
		},
	}
	if p.Base != "" {
		if in.URL, err = elsewhere(repo.BaseURL, p); err != nil {
			return Input{}, fmt.Errorf("%s in repository %q: %w", nevra(p), c.Repo, err)
		}
	}
	in.PURL = rpmPURL(in.RPM, c.Repo, sum)
	return in, nil
}

// elsewhere is the address of a package that, as xml:base says, does not lie
// in its repository. It must be one of the web, or of the file system where
// the repository is in it.
func elsewhere(repo string, p *rpmmd.Package) (string, error) {
	base, err := url.Parse(repo)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(strings.TrimRight(p.Base, "/") + "/")
	if err != nil {
		return "", fmt.Errorf("xml:base: %w", err)
	}
	if s := u.Scheme; s != "https" && s != "http" && (s != "file" || base.Scheme != "file") {
		return "", fmt.Errorf("xml:base %q: want an address of the web", p.Base)
	}
	return u.String() + p.Location, nil
}

// rpmPURL is a package's URL (purl-spec, type rpm).
func rpmPURL(p *RPM, repo string, sum digest.Digest) string {
	q := map[string]string{"arch": p.Arch, "checksum": sum.String(), "repository_id": repo}
	if p.Epoch != 0 {
		q["epoch"] = fmt.Sprint(p.Epoch)
	}
	if p.SourceRPM != "" {
		q["upstream"] = p.SourceRPM
	}
	return packageurl.NewPackageURL(packageurl.TypeRPM, "", p.Name, p.Version+"-"+p.Release, packageurl.QualifiersFromMap(q), "").ToString()
}

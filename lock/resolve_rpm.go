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
	"caisson/lock/konflux"
	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// expandFrom takes over the repositories, packages and installWeakDeps of a
// Konflux file.
func (r *resolver) expandFrom() error {
	if r.m.RPM.From == "" {
		return nil
	}
	in, err := konflux.ReadIn(r.Dir, r.m.RPM.From)
	if err != nil {
		return err
	}
	for _, k := range in.Repos {
		repo := ManifestRepo{
			ID: k.ID, BaseURL: k.BaseURL, GPGKey: k.GPGKey, GPGCheck: k.GPGCheck, RepoGPGCheck: k.RepoGPGCheck, Priority: k.Priority,
		}
		if slices.ContainsFunc(r.m.RPM.Repos, func(o ManifestRepo) bool { return o.ID == repo.ID }) {
			return fmt.Errorf("%s: two repositories are called %q", k.At, repo.ID)
		}
		if key, err := repo.check(); err != nil {
			return fmt.Errorf("%s: %s: %w", k.At, key, err)
		}
		r.m.RPM.Repos = append(r.m.RPM.Repos, repo)
	}
	for _, f := range in.Files {
		r.lock.Sources = append(r.lock.Sources, Source{Name: f.Name, SHA256: f.SHA256})
	}
	slices.SortFunc(r.lock.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	r.lock.Sources = slices.Compact(r.lock.Sources)
	if r.m.RPM.WeakDeps == nil {
		r.m.RPM.WeakDeps = in.WeakDeps
	}
	if len(r.m.RPM.Repos) == 0 {
		return fmt.Errorf("%s: it names no repository, and the manifest has none", r.m.RPM.From)
	}
	r.addPackages(in)
	return nil
}

// addPackages adds what a Konflux file asks for to the set that the manifest
// names: what is for all arches to all, the rest to each arch's own.
func (r *resolver) addPackages(in *konflux.In) {
	set := r.m.Sets[r.m.RPM.Set]
	count := map[string]int{}
	for _, arch := range r.lock.Arches {
		for _, p := range sorted(in.PackagesFor(arch)) {
			count[p]++
		}
	}
	for _, p := range slices.Sorted(maps.Keys(count)) {
		if count[p] == len(r.lock.Arches) {
			set.Packages = append(slices.Clip(set.Packages), p)
		}
	}
	r.m.Sets[r.m.RPM.Set] = set
	for _, arch := range r.lock.Arches {
		var only []string
		for _, p := range sorted(in.PackagesFor(arch)) {
			if count[p] < len(r.lock.Arches) {
				only = append(only, p)
			}
		}
		if len(only) > 0 {
			r.only = append(r.only, ArchPackages{Arch: arch, Packages: only})
		}
	}
}

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

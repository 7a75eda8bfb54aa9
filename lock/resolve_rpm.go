package lock

import (
	"cmp"
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

// packages chooses the packages of every set, for every arch and variant, out
// of one snapshot of the repositories.
func (r *resolver) packages(ctx context.Context) error {
	if r.NeedsOnly {
		return nil
	}
	r.requests()
	if len(r.m.RPM.Repos) == 0 && !slices.ContainsFunc(r.lock.Sets, func(s Set) bool { return len(s.Packages)+len(s.Only) > 0 }) {
		return nil // an archive of steps and overlays
	}
	return r.steadily(ctx, func() error {
		s, err := r.open(ctx, true)
		if err != nil {
			return err
		}
		missing := make(map[string]string)
		for _, arch := range r.lock.Arches {
			repos, err := s.load(ctx, arch)
			if err != nil {
				return err
			}
			if err := r.chooseArch(ctx, arch, repos); err != nil {
				return err
			}
			if err := r.addSources(arch, repos, missing); err != nil {
				return err
			}
		}
		if err := r.checkSources(missing); err != nil {
			return err
		}
		if r.lock.RPM.SameEVR {
			if err := r.checkSameEVR(); err != nil {
				return err
			}
		}
		return s.recheck(ctx)
	})
}

// chooseArch chooses the packages of every set for an arch.
func (r *resolver) chooseArch(ctx context.Context, arch string, repos []solve.Repo) error {
	options := r.lock.RPM.poolOptions(arch)
	if x := r.extra[arch]; x != nil {
		options.Installed = x.installed
		repos = x.addAssumed(repos)
		if err := x.findBuildDeps(repos); err != nil {
			return fmt.Errorf("%s: %w", arch, err)
		}
	}
	pool, err := solve.NewPool(repos, options)
	if err != nil {
		return err
	}
	for _, set := range r.lock.Sets {
		r.say("choosing the packages of %s (%s)", set.Name, arch)
		chosen, err := r.choose(ctx, pool, arch, set, r.prefer(arch, set.Name))
		if err != nil {
			return fmt.Errorf("set %s (%s): %w", set.Name, arch, err)
		}
		for _, in := range chosen {
			if err := r.add(in); err != nil {
				return err
			}
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

// rpmOptions are the solver's options as the lock keeps them.
func (m *ManifestRPM) rpmOptions() RPMOptions {
	o := RPMOptions{
		WeakDeps: on(m.WeakDeps), Best: on(m.Best), KeepObsoleted: !on(m.Obsoletes), SameEVR: m.SameEVR,
		ModuleEnable: sorted(m.ModuleEnable), ModuleDisable: sorted(m.ModuleDisable), InstallOnly: sorted(m.InstallOnly),
	}
	if m.Sources != sourcesNo {
		o.Sources = m.Sources
	}
	return o
}

func (o *RPMOptions) poolOptions(arch string) solve.Options {
	return solve.Options{Arch: arch, InstallOnly: o.InstallOnly}
}

// request is the question for a set.
func (o *RPMOptions) request(set *Set, arch string, prefer []string) solve.Request {
	return solve.Request{
		Specs: set.PackagesFor(arch), Exclude: set.Exclude, Prefer: prefer,
		WeakDeps: o.WeakDeps, Best: o.Best, KeepObsoleted: o.KeepObsoleted, EnableModules: o.ModuleEnable, DisableModules: o.ModuleDisable,
	}
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

					Scriptlets: cmp.Or(more.Scriptlets, s.Scriptlets),
				})
			}
		}
	}
}

func (r *resolver) request(base, name string, s ManifestSet) {
	set := Set{Name: name, Packages: sorted(s.Packages), Exclude: sorted(s.Exclude), Modules: s.Modules}
	if s.Scriptlets == ScriptletsSkip {
		set.Scriptlets = s.Scriptlets
	}
	if base == r.m.RPM.Set {
		set.Only = r.only
	}
	r.lock.Sets = append(r.lock.Sets, set)
}

func sorted(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

// choose asks the solver for one set.
func (r *resolver) choose(ctx context.Context, pool *solve.Pool, arch string, set Set, prefer []string) ([]Input, error) {
	req := r.lock.RPM.request(&set, arch, prefer)
	if base, _, _ := strings.Cut(set.Name, "+"); r.extra[arch] != nil && base == r.m.RPM.Set {
		r.extra[arch].add(&req)
	}
	sol, err := pool.SolveContext(ctx, req)
	if err != nil {
		return nil, err
	}
	var out []Input
	for _, c := range sol.Packages {
		if c.Repo == assumedRepo {
			continue
		}
		in, err := r.rpmInput(c.Repo, c.Package, c.Module)
		if err != nil {
			return nil, err
		}
		use := Use{Arch: arch, Set: set.Name, By: c.Reason.Spec}
		switch {
		case c.Reason.By != nil:
			use.By, use.Dep = nevra(c.Reason.By), c.Reason.Dep
		case c.Reason.Kind != solve.Requested:
			use.By = byInstalled
		}
		in.For = []Use{use}
		out = append(out, in)
	}
	return out, nil
}

// byInstalled is what brought a package that only something installed, as it
// is now, needs.
const byInstalled = "what is installed"

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
			out = append(out, in.RPM.nevra())
		}
	}
	return out
}

func (r *RPM) nevra() string { return r.Name + "-" + r.EVR() + "." + r.Arch }

// rpmInput pins a package of a repository.
func (r *resolver) rpmInput(id string, p *rpmmd.Package, module string) (Input, error) {
	repo := r.repos[id]
	fail := func(err error) (Input, error) {
		return Input{}, fmt.Errorf("%s in repository %q: %w", nevra(p), id, err)
	}
	if p.Checksum.Algorithm != "sha256" {
		return fail(fmt.Errorf("it is pinned by %s; want sha256", p.Checksum.Algorithm))
	}
	sum, err := digest.ParseHex(p.Checksum.Hex)
	if err != nil {
		return fail(err)
	}
	in := Input{
		Kind: KindRPM, Name: nevra(p), URL: p.Location, Repo: id, Size: p.Size, SHA256: sum,
		RPM: &RPM{
			Name: p.Name, Epoch: p.Epoch, Version: p.Version, Release: p.Release, Arch: p.Arch,
			SourceRPM: p.SourceRPM, BuildTime: p.BuildTime, Signed: repo.GPGCheck, Module: module,
		},
	}
	if in.RPM.IsSource() {
		in.RPM.SourceRPM = ""
	}
	if p.Base != "" {
		if in.URL, err = elsewhere(repo.BaseURL, p); err != nil {
			return fail(err)
		}
	}
	in.PURL = rpmPURL(in.RPM, id, sum)
	return in, nil
}

// elsewhere is the address of a package that, as xml:base says, does not lie
// in its repository. It must be one of the web, and no less safe than the
// repository's, or of the file system where the repository is in it.
func elsewhere(repo string, p *rpmmd.Package) (string, error) {
	base, err := url.Parse(repo)
	if err != nil {
		return "", err
	}
	u, err := base.Parse(strings.TrimRight(p.Base, "/") + "/")
	if err != nil {
		return "", fmt.Errorf("xml:base: %w", err)
	}
	switch {
	case u.Scheme == "https", u.Scheme == "http" && base.Scheme != "https", u.Scheme == "file" && base.Scheme == "file":
	case u.Scheme == "http":
		return "", fmt.Errorf("xml:base %q: the repository is at https, and its packages would come by http", p.Base)
	default:
		return "", fmt.Errorf("xml:base %q: want an address of the web", p.Base)
	}
	if u.Host == "" && u.Scheme != "file" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", fmt.Errorf("xml:base %q: want an address such as https://host/path/", u.Redacted())
	}
	return u.String() + p.Location, nil
}

// checkSameEVR wants a package that a set has on several arches to be the same
// on all.
func (r *resolver) checkSameEVR() error {
	type key struct{ set, name string }
	evrs := make(map[key]map[string][]string) // by arch
	for _, in := range r.inputs {
		if in.Kind != KindRPM || in.RPM.IsSource() {
			continue
		}
		for _, u := range in.For {
			k := key{u.Set, in.RPM.Name}
			if evrs[k] == nil {
				evrs[k] = make(map[string][]string)
			}
			if !slices.Contains(evrs[k][u.Arch], in.RPM.EVR()) { // multilib has one on two
				evrs[k][u.Arch] = append(evrs[k][u.Arch], in.RPM.EVR())
			}
		}
	}
	var lines []string
	for k, byArch := range evrs {
		var each []string
		differs, first := false, ""
		for i, arch := range slices.Sorted(maps.Keys(byArch)) {
			have := strings.Join(slices.Sorted(slices.Values(byArch[arch])), " ")
			if i == 0 {
				first = have
			}
			differs = differs || have != first
			each = append(each, arch+" "+have)
		}
		if differs {
			lines = append(lines, fmt.Sprintf("%s (set %s): %s", k.name, k.set, strings.Join(each, ", ")))
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.Sort(lines)
	return fmt.Errorf("rpm.sameEVR: %d packages differ between arches; lock from repositories of one compose, or update them all:\n  %s",
		len(lines), strings.Join(lines, "\n  "))
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

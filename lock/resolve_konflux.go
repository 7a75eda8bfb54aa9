package lock

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/lock/gittree"
	"caisson/lock/konflux"
	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// expandFrom takes over what the manifest leaves to other files: the
// repositories and packages of a Konflux file, the inputs of a Hermeto
// prefetch-input.
//
// An image of Caisson starts from nothing: of a Konflux file for one, the
// context, reinstallPackages, upgradePackages and allowerasing mean nothing,
// whether source packages are locked is the manifest's to say, and what would
// need a context is an error. ResolveKonflux follows these too.
func (r *resolver) expandFrom(ctx context.Context) error {
	if err := r.expandInputs(); err != nil {
		return err
	}
	if r.m.RPM.From == "" {
		return nil
	}
	in, err := konflux.ReadIn(r.Dir, r.m.RPM.From, r.konfluxNetwork(ctx))
	if err != nil {
		return err
	}
	for _, k := range []struct {
		name string
		used bool
	}{{"assumeProvides", len(in.AssumeProvides) > 0}, {"matchContextVersions", len(in.MatchVersions) > 0}} {
		if k.used {
			return fmt.Errorf("%s: %s: an image's root starts from nothing, so there is nothing to assume or to match", r.m.RPM.From, k.name)
		}
	}
	requests, err := archRequests(in, r.lock.Arches)
	if err != nil {
		return fmt.Errorf("%s: %w", r.m.RPM.From, err)
	}
	for _, req := range requests {
		req.Reinstall, req.Upgrade, req.AllowErasing = nil, nil, false
	}
	for i := range in.Repos {
		if err := r.addKonfluxRepo(&in.Repos[i], false); err != nil {
			return err
		}
	}
	if r.m.RPM.WeakDeps == nil {
		r.m.RPM.WeakDeps = in.WeakDeps
	}
	if len(r.m.RPM.Repos) == 0 {
		return fmt.Errorf("%s: it names no repository, and the manifest has none", r.m.RPM.From)
	}
	r.addRequests(requests)
	r.noteSources(in)
	return nil
}

// archRequests is what a file asks for on each arch.
func archRequests(in *konflux.In, arches []string) (map[string]*konflux.ArchRequests, error) {
	out := map[string]*konflux.ArchRequests{}
	for _, arch := range arches {
		req, err := in.Requests(arch)
		if err != nil {
			return nil, err
		}
		for _, spec := range slices.Concat(req.Install, req.Reinstall, req.Upgrade) {
			if strings.Contains(spec, "://") || strings.HasSuffix(spec, ".rpm") {
				return nil, fmt.Errorf("%s: %q is a file and in no repository: leave it out by excludePackages, and take it as an artifact", arch, spec)
			}
		}
		for _, spec := range req.BuildDep {
			if strings.HasSuffix(spec, ".spec") || strings.HasSuffix(spec, ".rpm") || strings.Contains(spec, "/") {
				return nil, fmt.Errorf("%s: builddep %q: what a file needs to be built is not looked up; name that under packages, and the file without packagesFromContainerfile", arch, spec)
			}
		}
		out[arch] = req
	}
	return out, nil
}

// addKonfluxRepo adds a repository. Where keys may be missing, one without a
// key that is here is not checked: the files of Konflux are for a machine
// that has the keys, and the prototype checks nothing.
func (r *resolver) addKonfluxRepo(k *konflux.Repo, keysMayMiss bool) error {
	repo := ManifestRepo{
		ID: k.ID, BaseURL: k.BaseURL, Metalink: k.Metalink, Mirrorlist: k.Mirrorlist, GPGKey: k.GPGKey, GPGCheck: k.GPGCheck, RepoGPGCheck: k.RepoGPGCheck,
		Priority: k.Priority, Cost: k.Cost, ExcludePkgs: k.Exclude, IncludePkgs: k.Include, ModuleHotfixes: k.ModuleHotfixes,
		SSLClientCert: k.SSLClientCert, SSLClientKey: k.SSLClientKey, SSLCACert: k.SSLCACert, Username: k.Username, Password: k.Password, Proxy: k.Proxy,
	}
	if slices.ContainsFunc(r.m.RPM.Repos, func(o ManifestRepo) bool { return o.ID == repo.ID }) {
		return fmt.Errorf("%s: two repositories are called %q", k.At, repo.ID)
	}
	if keysMayMiss {
		for _, key := range k.GPGKey {
			name, ok := strings.CutPrefix(key, "file://")
			if !ok {
				continue
			}
			if _, err := os.Stat(name); err != nil {
				r.say("repository %s is not checked: its key %s is not here", k.ID, name)
				repo.GPGKey = nil
			}
		}
		if len(repo.GPGKey) == 0 {
			off := false
			repo.GPGCheck = &off
		}
	}
	if key, err := repo.check(); err != nil {
		return fmt.Errorf("%s: %s: %w", k.At, key, err)
	}
	r.m.RPM.Repos = append(r.m.RPM.Repos, repo)
	return nil
}

// addRequests adds what a Konflux file asks for to the set that the manifest
// names: what is for all arches to all, the rest to each arch's own.
func (r *resolver) addRequests(requests map[string]*konflux.ArchRequests) {
	set := r.m.Sets[r.m.RPM.Set]
	all, each := split(requests, func(q *konflux.ArchRequests) []string { return q.Install })
	set.Packages = slices.Concat(set.Packages, all)
	for _, arch := range r.lock.Arches {
		if len(each[arch]) > 0 {
			r.only = append(r.only, ArchPackages{Arch: arch, Packages: each[arch]})
		}
	}
	all, hide := split(requests, func(q *konflux.ArchRequests) []string { return q.Hide })
	set.Exclude = slices.Concat(set.Exclude, all)
	r.m.Sets[r.m.RPM.Set] = set
	all, enable := split(requests, func(q *konflux.ArchRequests) []string { return q.ModuleEnable })
	r.m.RPM.ModuleEnable = slices.Concat(r.m.RPM.ModuleEnable, all)
	all, disable := split(requests, func(q *konflux.ArchRequests) []string { return q.ModuleDisable })
	r.m.RPM.ModuleDisable = slices.Concat(r.m.RPM.ModuleDisable, all)
	if r.extra == nil {
		r.extra = map[string]*archExtra{}
	}
	for arch, q := range requests {
		x := r.extra[arch]
		if x == nil {
			x = &archExtra{}
			r.extra[arch] = x
		}
		x.upgrade, x.reinstall, x.erasing, x.buildDeps = q.Upgrade, q.Reinstall, q.AllowErasing, q.BuildDep
		x.hide, x.enable, x.disable = hide[arch], enable[arch], disable[arch]
	}
}

// split tells what is in a list of all arches from what is in those of some.
func split(requests map[string]*konflux.ArchRequests, list func(*konflux.ArchRequests) []string) (all []string, each map[string][]string) {
	count := map[string]int{}
	for _, q := range requests {
		for _, s := range sorted(list(q)) {
			count[s]++
		}
	}
	for _, s := range slices.Sorted(maps.Keys(count)) {
		if count[s] == len(requests) {
			all = append(all, s)
		}
	}
	each = map[string][]string{}
	for arch, q := range requests {
		for _, s := range sorted(list(q)) {
			if count[s] < len(requests) {
				each[arch] = append(each[arch], s)
			}
		}
	}
	return all, each
}

// noteSources makes what was read for a Konflux file the lock's sources.
func (r *resolver) noteSources(in *konflux.In) {
	for _, f := range in.Files {
		r.lock.Sources = append(r.lock.Sources, Source{Name: f.Name, SHA256: f.SHA256})
	}
	slices.SortFunc(r.lock.Sources, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	r.lock.Sources = slices.Compact(r.lock.Sources)
}

// archExtra is what counts on one arch besides what the lock can say.
type archExtra struct {
	installed          []rpmmd.Package
	releasever         string // of the installed packages
	upgrade, reinstall []string
	hide               []string
	enable, disable    []string // modules
	assume             []string
	buildDeps          []string // names of source packages
	needed             []string // what these need, once it is known
	erasing            bool
}

// add adds it to a question for the solver.
func (x *archExtra) add(req *solve.Request) {
	req.Specs = slices.Concat(req.Specs, x.needed)
	req.Upgrade, req.Reinstall, req.AllowErasing = x.upgrade, x.reinstall, x.erasing
	req.Exclude = slices.Concat(req.Exclude, x.hide)
	req.EnableModules = slices.Concat(req.EnableModules, x.enable)
	req.DisableModules = slices.Concat(req.DisableModules, x.disable)
}

// assumedRepo is the repository of what is assumed to be provided.
const assumedRepo = "_assumed-provides"

// addAssumed adds a repository with a package for each name or capability
// that is assumed to be provided.
func (x *archExtra) addAssumed(repos []solve.Repo) []solve.Repo {
	if len(x.assume) == 0 {
		return repos
	}
	assumed := solve.Repo{ID: assumedRepo}
	for _, name := range x.assume {
		assumed.Packages = append(assumed.Packages, rpmmd.Package{
			Name: assumedRepo + "-" + name, Arch: "noarch", EVR: rpmmd.EVR{Version: "0", Release: "0"}, Provides: []rpmmd.Dep{{Name: name}},
		})
	}
	return append(slices.Clip(repos), assumed)
}

// findBuildDeps looks up what source packages need to be built: what the
// newest one of that name in the repositories requires.
func (x *archExtra) findBuildDeps(repos []solve.Repo) error {
	x.needed = nil
	for _, name := range x.buildDeps {
		var best *rpmmd.Package
		for i := range repos {
			for j := range repos[i].Packages {
				p := &repos[i].Packages[j]
				if ok, err := path.Match(name, p.Name); !isSource(p.Arch) || err != nil || !ok {
					continue
				}
				if best == nil || p.EVR.Compare(best.EVR) > 0 {
					best = p
				}
			}
		}
		if best == nil {
			return fmt.Errorf("builddep %q: no repository has a source package of that name", name)
		}
		for _, d := range best.Requires {
			if !strings.HasPrefix(d.Name, "rpmlib(") {
				x.needed = append(x.needed, d.String())
			}
		}
	}
	x.needed = sorted(x.needed)
	return nil
}

// konfluxNetwork brings what a Konflux file names.
func (r *resolver) konfluxNetwork(ctx context.Context) konflux.Network {
	const most = 1 << 20
	return konflux.Network{
		URL: func(u string) ([]byte, error) {
			blob, err := r.Fetch(ctx, Want{Kind: KindFile, URL: u, Max: most})
			if err != nil {
				return nil, err
			}
			return readFileMax(blob.Path, most)
		},
		Git: func(u, ref, file string) ([]byte, error) {
			u, auth, err := gitLogin(u)
			if err != nil {
				return nil, err
			}
			blob, err := r.Fetch(ctx, Want{Kind: KindGit, URL: u, Ref: ref, Auth: auth})
			if err != nil {
				return nil, err
			}
			return gitFile(blob.Path, file, most)
		},
		Labels: func(image string) (map[string]string, digest.Digest, error) { return r.imageLabels(ctx, image) },
	}
}

// gitLogin takes the login out of an address: "https://$USER:$TOKEN@host/x".
func gitLogin(at string) (string, *Auth, error) {
	scheme, rest, ok := strings.Cut(at, "://")
	host, _, _ := strings.Cut(rest, "/")
	i := strings.LastIndexByte(host, '@')
	if !ok || i < 0 || scheme == "ssh" {
		return at, nil, nil
	}
	user, password, _ := strings.Cut(host[:i], ":")
	if !secretName.MatchString(password) {
		return "", nil, fmt.Errorf(`giturl: a password does not belong into a file; write %s://USER:$NAME@%s, with the name of an environment variable`, scheme, host[i+1:])
	}
	return scheme + "://" + rest[i+1:], &Auth{Basic: &AuthBasic{Username: user, Password: Secret(password)}}, nil
}

// gitFile reads one file of a repository at a commit.
func gitFile(tree, name string, limit int64) ([]byte, error) {
	f, err := os.Open(tree)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []byte
	found := false
	_, err = gittree.Read(f, func(e gittree.File, r io.Reader) error {
		if e.Module != "" || e.Object != "" || e.Path != path.Clean(name) || !strings.HasPrefix(e.Mode, "100") {
			return nil
		}
		if e.Size > limit {
			return fmt.Errorf("%s: more than the %d bytes that are read", name, limit)
		}
		found = true
		out, err = io.ReadAll(r)
		return err
	})
	if err == nil && !found {
		err = fmt.Errorf("%s: the repository has no such file: %w", name, fs.ErrNotExist)
	}
	return out, err
}

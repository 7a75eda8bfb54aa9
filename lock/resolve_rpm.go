package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
	"golang.org/x/sync/errgroup"

	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// defaultPriority is dnf's.
const defaultPriority = 99

// expandFrom takes over the repositories and packages of a Konflux file.
func (r *resolver) expandFrom() error {
	if r.m.RPM.From == "" {
		return nil
	}
	in, err := konflux.ReadIn(r.Dir, r.m.RPM.From)
	if err != nil {
		return err
	}
	for _, repo := range in.Repos {
		r.m.RPM.Repos = append(r.m.RPM.Repos, ManifestRepo{
			ID: repo.ID, BaseURL: repo.BaseURL, GPGKey: repo.GPGKey, GPGCheck: repo.GPGCheck, RepoGPGCheck: repo.RepoGPGCheck, Priority: repo.Priority,
		})
	}
	set := r.m.Sets[r.m.RPM.Set]
	set.Packages = slices.Concat(set.Packages, in.PackagesFor(r.m.Arches))
	set.Exclude = slices.Concat(set.Exclude, in.Exclude)
	r.m.Sets[r.m.RPM.Set] = set
	return r.m.checkRepos()
}

// packages chooses the packages of every set, for every arch and variant.
func (r *resolver) packages(ctx context.Context) error {
	if err := r.keys(ctx); err != nil {
		return err
	}
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
		r.lock.Sets = append(r.lock.Sets, Set{Name: name, Packages: sorted(s.Packages), Exclude: sorted(s.Exclude), Modules: s.Modules})
		for _, v := range slices.Sorted(maps.Keys(r.m.Variants)) {
			more, ok := r.m.Variants[v].Sets[name]
			if !ok {
				continue
			}
			r.lock.Sets = append(r.lock.Sets, Set{
				Name: SetName(name, v), Packages: sorted(slices.Concat(s.Packages, more.Packages)),
				Exclude: sorted(slices.Concat(s.Exclude, more.Exclude)), Modules: slices.Concat(s.Modules, more.Modules),
			})
		}
	}
}

func sorted(s []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(s)))
}

// keys reads the repositories' keys and pins them.
func (r *resolver) keys(ctx context.Context) error {
	for _, repo := range r.m.RPM.Repos {
		for _, k := range repo.GPGKey {
			if _, ok := r.inputs[KindKey+"/"+k]; ok {
				continue
			}
			b, d, err := r.readKey(ctx, k)
			if err != nil {
				return fmt.Errorf("the key of repository %q: %w", repo.ID, err)
			}
			fps, err := r.Fingerprints(b)
			if err != nil {
				return fmt.Errorf("the key of repository %q: %s: %w", repo.ID, k, err)
			}
			in := Input{Kind: KindKey, Name: k, URL: k, Size: int64(len(b)), SHA256: d, Fingerprint: strings.Join(fps, ",")}
			if err := r.add(in); err != nil {
				return err
			}
		}
	}
	return nil
}

func (r *resolver) readKey(ctx context.Context, k string) ([]byte, digest.Digest, error) {
	name := filepath.Join(r.Dir, k)
	if strings.Contains(k, "://") {
		blob, err := r.Fetch(ctx, Want{Kind: KindKey, URL: k})
		if err != nil {
			return nil, digest.Digest{}, err
		}
		name = blob.Path
	}
	b, err := os.ReadFile(name)
	return b, digest.Of(b), err
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// expand puts variables into a repository's address.
func (r *resolver) expand(s, arch string) (string, error) {
	var missing error
	out := variable.ReplaceAllStringFunc(s, func(v string) string {
		name := strings.Trim(v, "${}")
		if name == "basearch" || name == "arch" {
			return arch
		}
		val, ok := r.m.RPM.Vars[name]
		if !ok {
			missing = fmt.Errorf("%s: variable %s has no value; give it one in rpm.vars", s, v)
		}
		return val
	})
	if missing != nil {
		return "", missing
	}
	if u, err := url.Parse(out); err != nil || u.Scheme == "" {
		return "", fmt.Errorf("baseurl %q: want an address such as https://host/path/", out)
	}
	return strings.TrimRight(out, "/") + "/", nil
}

// loadRepos fetches and reads the metadata of all repositories for one arch.
func (r *resolver) loadRepos(ctx context.Context, arch string) ([]solve.Repo, error) {
	r.say("reading the metadata of %d repositories (%s)", len(r.m.RPM.Repos), arch)
	type loaded struct {
		repo   solve.Repo
		lock   Repo
		inputs []Input
	}
	all := make([]loaded, len(r.m.RPM.Repos))
	g, gctx := errgroup.WithContext(ctx)
	for i, m := range r.m.RPM.Repos {
		g.Go(func() error {
			l := repoLoader{r: r, m: m, arch: arch}
			repo, err := l.load(gctx, ctx)
			if err != nil {
				return fmt.Errorf("repository %q: %w", m.ID, err)
			}
			all[i] = loaded{*repo, l.repo, l.inputs}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var repos []solve.Repo
	for _, l := range all {
		repos = append(repos, l.repo)
		r.lock.Repos = append(r.lock.Repos, l.lock)
		for _, in := range l.inputs {
			if err := r.add(in); err != nil {
				return nil, err
			}
		}
	}
	return repos, nil
}

// repoLoader reads one repository for one arch.
type repoLoader struct {
	r      *resolver
	m      ManifestRepo
	arch   string
	repo   Repo
	inputs []Input
}

// load reads what is needed always; later is the context under which the
// filelists are fetched, should the solver ask for them.
func (l *repoLoader) load(ctx, later context.Context) (*solve.Repo, error) {
	base, err := l.r.expand(l.m.BaseURL, l.arch)
	if err != nil {
		return nil, err
	}
	l.repo = Repo{
		ID: l.m.ID, Arch: l.arch, BaseURL: base, Priority: defaultPriority,
		GPGCheck: on(l.m.GPGCheck), RepoGPGCheck: l.m.RepoGPGCheck != nil && *l.m.RepoGPGCheck,
	}
	if l.m.Priority != nil {
		l.repo.Priority = *l.m.Priority
	}
	for _, k := range l.m.GPGKey {
		l.repo.Keys = append(l.repo.Keys, strings.Split(l.r.inputs[KindKey+"/"+k].Fingerprint, ",")...)
	}
	slices.Sort(l.repo.Keys)
	md, err := l.repomd(ctx)
	if err != nil {
		return nil, err
	}
	out := &solve.Repo{ID: l.m.ID, Priority: l.repo.Priority}
	if out.Packages, err = readData(ctx, l, md, "primary", rpmmd.ParsePrimary); err != nil {
		return nil, err
	}
	if md.Find("group") != nil {
		if out.Comps, err = readData(ctx, l, md, "group", rpmmd.ParseComps); err != nil {
			return nil, err
		}
	}
	if d := md.Find("filelists"); d != nil {
		out.Filelists = func() (io.ReadCloser, error) { return l.filelists(later, d) }
	}
	return out, nil
}

// repomd fetches repomd.xml and, where the repository says so, checks its
// signature.
func (l *repoLoader) repomd(ctx context.Context) (*rpmmd.Repomd, error) {
	const name = "repodata/repomd.xml"
	blob, err := l.r.Fetch(ctx, Want{Kind: KindRepodata, URL: l.repo.BaseURL + name})
	if err != nil {
		return nil, err
	}
	if l.repo.RepoGPGCheck {
		if err := l.checkRepomd(ctx, blob); err != nil {
			return nil, err
		}
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	md, err := rpmmd.ParseRepomd(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.repo.BaseURL+name, err)
	}
	l.repo.Repomd = blob.SHA256
	l.note("repomd.xml", name, blob)
	return md, nil
}

func (l *repoLoader) checkRepomd(ctx context.Context, blob Blob) error {
	at := l.repo.BaseURL + "repodata/repomd.xml.asc"
	sig, err := l.r.Fetch(ctx, Want{Kind: KindRepodata, URL: at})
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("repo_gpgcheck is on and %s does not exist", at)
	}
	if err != nil {
		return err
	}
	var keys [][]byte
	for _, k := range l.m.GPGKey {
		b, _, err := l.r.readKey(ctx, k)
		if err != nil {
			return err
		}
		keys = append(keys, b)
	}
	signed, err := os.Open(blob.Path)
	if err != nil {
		return err
	}
	defer signed.Close()
	signature, err := os.Open(sig.Path)
	if err != nil {
		return err
	}
	defer signature.Close()
	if err := l.r.CheckSignature(keys, signed, signature); err != nil {
		return fmt.Errorf("%s: %w", at, err)
	}
	return nil
}

// note pins a metadata file.
func (l *repoLoader) note(name, rel string, blob Blob) {
	l.inputs = append(l.inputs, Input{
		Kind: KindRepodata, Name: l.m.ID + "-" + l.arch + "/" + name, URL: rel, Repo: l.m.ID, Size: blob.Size, SHA256: blob.SHA256,
		For: []Use{{Arch: l.arch, By: "repository " + l.m.ID}},
	})
}

// fetchData fetches one of the files that repomd.xml names.
func (l *repoLoader) fetchData(ctx context.Context, d *rpmmd.Data) (Blob, error) {
	w := Want{Kind: KindRepodata, URL: l.repo.BaseURL + d.Location, Size: d.Size}
	if d.Checksum.Algorithm != "sha256" {
		return Blob{}, fmt.Errorf("%s: repomd.xml pins it by %s; want sha256", w.URL, d.Checksum.Algorithm)
	}
	var err error
	if w.SHA256, err = digest.ParseHex(d.Checksum.Hex); err != nil {
		return Blob{}, err
	}
	return l.r.Fetch(ctx, w)
}

func readData[T any](ctx context.Context, l *repoLoader, md *rpmmd.Repomd, typ string, parse func(io.Reader) (T, error)) (out T, err error) {
	d := md.Find(typ)
	if d == nil {
		return out, fmt.Errorf("repomd.xml names no %s", typ)
	}
	blob, err := l.fetchData(ctx, d)
	if err != nil {
		return out, err
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return out, err
	}
	defer f.Close()
	if out, err = parse(f); err != nil {
		return out, fmt.Errorf("%s: %w", l.repo.BaseURL+d.Location, err)
	}
	l.note(typ, d.Location, blob)
	return out, nil
}

func (l *repoLoader) filelists(ctx context.Context, d *rpmmd.Data) (io.ReadCloser, error) {
	blob, err := l.fetchData(ctx, d)
	if err != nil {
		return nil, err
	}
	mark := len(l.inputs)
	l.note("filelists", d.Location, blob)
	if err := l.r.add(l.inputs[mark]); err != nil { // the others have been added by now
		return nil, err
	}
	return os.Open(blob.Path)
}

// solveSet asks the solver for one set and records its answer.
func (r *resolver) solveSet(pool *solve.Pool, arch string, set Set) error {
	sol, err := pool.Solve(solve.Request{
		Specs: set.Packages, WeakDeps: r.lock.RPM.WeakDeps, Best: r.lock.RPM.Best, Exclude: set.Exclude, Prefer: r.prefer(arch, set.Name),
	})
	if err != nil {
		return fmt.Errorf("set %s (%s): %w", set.Name, arch, err)
	}
	for _, c := range sol.Packages {
		in, err := r.rpmInput(c, arch)
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

func (r *resolver) rpmInput(c solve.Choice, arch string) (Input, error) {
	p := c.Package
	if p.Checksum.Algorithm != "sha256" {
		return Input{}, fmt.Errorf("%s in repository %q is pinned by %s; want sha256", nevra(p), c.Repo, p.Checksum.Algorithm)
	}
	sum, err := digest.ParseHex(p.Checksum.Hex)
	if err != nil {
		return Input{}, fmt.Errorf("%s in repository %q: %w", nevra(p), c.Repo, err)
	}
	i := slices.IndexFunc(r.lock.Repos, func(l Repo) bool { return l.ID == c.Repo && l.Arch == arch })
	repo := r.lock.Repos[i]
	in := Input{
		Kind: KindRPM, Name: nevra(p), URL: p.Location, Repo: c.Repo, Size: p.Size, SHA256: sum,
		RPM: &RPM{
			Name: p.Name, Epoch: p.Epoch, Version: p.Version, Release: p.Release, Arch: p.Arch,
			SourceRPM: p.SourceRPM, BuildTime: p.BuildTime, Signed: repo.GPGCheck,
		},
	}
	if p.Base != "" {
		in.URL = strings.TrimRight(p.Base, "/") + "/" + p.Location
	}
	in.PURL = rpmPURL(in.RPM, c.Repo, sum)
	return in, nil
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

// sortRepos is the order of the lock's repositories.
func sortRepos(repos []Repo) {
	slices.SortFunc(repos, func(a, b Repo) int { return cmp.Or(cmp.Compare(a.ID, b.ID), cmp.Compare(a.Arch, b.Arch)) })
}

package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"caisson/lock/digest"
	"caisson/lock/solve"
)

// LoadRepos fetches and reads the metadata of a manifest's repositories for
// one arch, for a question that needs no lock.
func LoadRepos(ctx context.Context, o Options, arch string) ([]solve.Repo, error) {
	r := newResolver(o)
	r.lock = &Lock{Arches: []string{arch}}
	if err := r.files(ctx); err != nil { // a repository may be in one
		return nil, err
	}
	var repos []solve.Repo
	err := r.steadily(ctx, func() error {
		s, err := r.open(ctx, false)
		if err != nil {
			return err
		}
		repos, err = s.load(ctx, arch)
		return err
	})
	return repos, err
}

// maxTries is how often repositories are read that change while they are read.
const maxTries = 3

// steadily does what reads repositories, again where one of them changed
// meanwhile.
func (r *resolver) steadily(ctx context.Context, f func() error) error {
	for try := 1; ; try++ {
		err := f()
		var moved *movedError
		if ctx.Err() != nil || !errors.As(err, &moved) {
			return err
		}
		if try == maxTries {
			return fmt.Errorf("%w (tried %d times); wait until the repository stands still, or lock from another mirror or from a snapshot of it", err, maxTries)
		}
		r.say("repository %s changed while it was read: reading again", moved.repo)
		r.forget()
	}
}

// movedError says that a repository's files do not, or no longer, go together.
type movedError struct {
	repo string
	err  error
}

func (e *movedError) Error() string { return e.err.Error() }
func (e *movedError) Unwrap() error { return e.err }

// forget drops what was made of the repositories.
func (r *resolver) forget() {
	for key, in := range r.inputs {
		if in.Kind == KindRPM || in.Kind == KindRepodata {
			delete(r.inputs, key)
		}
	}
	r.lock.Repos, r.lock.MissingSources = nil, nil
}

// snapshot is the repositories as they are at one time, for all arches of a
// lock: every repomd.xml is there before any other file is read.
type snapshot struct {
	r     *resolver
	repos map[string][]*repoLoader // by arch, in the manifest's order
}

// repoLoader reads one repository for one arch.
type repoLoader struct {
	r    *resolver
	m    *ManifestRepo
	arch string
	*place
	keys []string  // names of inputs
	data *metadata // shared by arches whose place is the same
}

// open fetches the repomd.xml of all repositories and arches. A repository
// that is at the same address for several arches is fetched, and later read,
// once. advisories says whether load brings updateinfo too.
func (r *resolver) open(ctx context.Context, advisories bool) (*snapshot, error) {
	s := &snapshot{r: r, repos: make(map[string][]*repoLoader)}
	var all []*repoLoader
	for _, arch := range r.lock.Arches {
		for i := range r.m.RPM.Repos {
			l := &repoLoader{r: r, m: &r.m.RPM.Repos[i], arch: arch}
			s.repos[arch] = append(s.repos[arch], l)
			all = append(all, l)
		}
	}
	err := each(ctx, all, func(ctx context.Context, l *repoLoader) (err error) {
		l.place, err = r.place(ctx, l.m, l.arch)
		return err
	})
	if err != nil {
		return nil, err
	}
	shared := make(map[string]*metadata)
	var first []*repoLoader
	for _, l := range all {
		if l.keys, err = r.keys(ctx, l.m, &l.repo); err != nil {
			return nil, l.named(err)
		}
		key := strings.Join([]string{l.m.ID, l.repo.BaseURL, l.metalink}, " ")
		if l.data = shared[key]; l.data == nil {
			l.data = &metadata{place: l.place, fetch: r.Fetch, advisories: advisories}
			shared[key] = l.data
			first = append(first, l)
		}
		l.data.readers++
	}
	if err := each(ctx, first, func(ctx context.Context, l *repoLoader) error { return l.open(ctx) }); err != nil {
		return nil, err
	}
	for _, l := range all {
		l.repo.Repomd = l.data.blob.SHA256
	}
	return s, nil
}

// each does something for repositories at the same time.
func each(ctx context.Context, all []*repoLoader, f func(context.Context, *repoLoader) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxParallel)
	for _, l := range all {
		g.Go(func() error { return l.named(f(ctx, l)) })
	}
	return g.Wait()
}

// named says of which repository an error is.
func (l *repoLoader) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("repository %q (%s): %w", l.m.ID, l.arch, err)
}

// open fetches repomd.xml and, where the repository says so, checks its
// signature.
func (l *repoLoader) open(ctx context.Context) error {
	if err := l.data.open(ctx); err != nil {
		return err
	}
	if !l.repo.RepoGPGCheck {
		return nil
	}
	return l.checkRepomd(ctx, l.data.blob)
}

// load reads the repositories of an arch and records what was read. ctx is
// also that under which filelists are fetched, should the solver ask for them.
func (s *snapshot) load(ctx context.Context, arch string) ([]solve.Repo, error) {
	what := fmt.Sprintf("%d repositories", len(s.repos[arch]))
	if len(s.repos[arch]) == 1 {
		what = "one repository"
	}
	s.r.say("reading the metadata of %s (%s)", what, arch)
	all := make(map[*repoLoader]solve.Repo)
	var mu sync.Mutex
	err := each(ctx, s.repos[arch], func(gctx context.Context, l *repoLoader) error {
		c, err := l.data.read(gctx)
		if err != nil {
			return err
		}
		repo := l.repo.solveRepo(c)
		if l.data.repomd.Find("filelists") != nil {
			repo.Filelists = func() (io.ReadCloser, error) { return l.filelists(ctx) }
		}
		mu.Lock()
		defer mu.Unlock()
		all[l] = repo
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []solve.Repo
	s.r.repos = make(map[string]Repo, len(all))
	for _, l := range s.repos[arch] {
		out = append(out, all[l])
		s.r.repos[l.repo.ID] = l.repo
		s.r.lock.Repos = append(s.r.lock.Repos, l.repo)
		for _, typ := range l.data.types() {
			if typ == "filelists" { // another arch has asked for them
				continue
			}
			if err := s.r.add(l.input(typ)); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// solveRepo is the repository as the solver has it.
func (r *Repo) solveRepo(c *content) solve.Repo {
	return solve.Repo{
		ID: r.ID, Priority: r.Priority, Cost: r.Cost, Packages: c.packages, Comps: c.comps, Modules: c.modules,
		ModuleHotfixes: r.ModuleHotfixes, ExcludePkgs: r.ExcludePkgs, IncludePkgs: r.IncludePkgs,
	}
}

// input pins a metadata file that was read.
func (l *repoLoader) input(typ string) Input {
	f := l.data.files[typ]
	return Input{
		Kind: KindRepodata, Name: repodataName(&l.repo, typ), URL: f.rel, Repo: l.repo.ID, Size: f.blob.Size, SHA256: f.blob.SHA256,
		For: []Use{{Arch: l.repo.Arch, By: "repository " + l.repo.ID}},
	}
}

// repodataName is what the input is called that is a metadata file of that
// type.
func repodataName(r *Repo, typ string) string { return r.ID + "-" + r.Arch + "/" + typ }

// filelists opens the repository's filelists, which become an input by it.
func (l *repoLoader) filelists(ctx context.Context) (io.ReadCloser, error) {
	blob, err := l.data.file(ctx, "filelists")
	if err == nil {
		err = l.r.add(l.input("filelists"))
	}
	if err != nil {
		return nil, l.named(err)
	}
	return os.Open(blob.Path)
}

// recheck asks for every repomd.xml once more: where one is another by now,
// the repositories, or a repository's arches, are not of one time.
func (s *snapshot) recheck(ctx context.Context) error {
	var all []*repoLoader
	for _, arch := range s.r.lock.Arches {
		for _, l := range s.repos[arch] {
			if l.place == l.data.place && l.repo.ISO == "" {
				all = append(all, l)
			}
		}
	}
	return each(ctx, all, func(ctx context.Context, l *repoLoader) error { return l.recheck(ctx) })
}

func (l *repoLoader) recheck(ctx context.Context) error {
	was := l.data.blob.SHA256
	if l.metalink != "" {
		link, err := l.r.fetchMetalink(ctx, l.place)
		if err != nil {
			return err
		}
		for _, v := range link.Versions {
			if v.SHA256() == was.Hex() {
				return nil
			}
		}
		return &movedError{l.repo.ID, fmt.Errorf("it changed while it was read: repomd.xml was %s, and its metalink wants sha256:%s now", was, link.Versions[0].SHA256())}
	}
	w := l.want(repomdName)
	w.Max = maxRepomd
	blob, err := l.r.Fetch(ctx, w)
	if err == nil && blob.SHA256 != was {
		err = &movedError{l.repo.ID, fmt.Errorf("it changed while it was read: repomd.xml was %s, and is %s now", was, blob.SHA256)}
	}
	return err
}

// maxParallel is how many repositories are read at the same time.
const maxParallel = 16

// maxKey is the largest key file read, in bytes.
const maxKey = 1 << 20

// keys reads and pins a repository's keys. It returns their names as inputs.
func (r *resolver) keys(ctx context.Context, m *ManifestRepo, repo *Repo) ([]string, error) {
	var names []string
	for _, k := range m.GPGKey {
		k, err := r.substitute(k, repo.Arch)
		if err != nil {
			return nil, fmt.Errorf("gpgkey: %w", err)
		}
		if !isURL(k) {
			k = path.Clean(k)
		}
		names = append(names, k)
		if _, ok := r.inputs[KindKey+"/"+k]; !ok {
			if err := r.pinKey(ctx, k, repo); err != nil {
				return nil, fmt.Errorf("gpgkey: %w", err)
			}
		}
		repo.Keys = append(repo.Keys, r.inputs[KindKey+"/"+k].Fingerprints()...)
	}
	slices.Sort(repo.Keys)
	repo.Keys = slices.Compact(repo.Keys)
	return names, nil
}

// pinKey reads a key. The repository's login is for its own host only.
func (r *resolver) pinKey(ctx context.Context, k string, repo *Repo) error {
	in := Input{Kind: KindKey, Name: k, URL: k}
	if sameHost(k, repo.BaseURL) {
		in.Auth = repo.Auth
	}
	b, d, err := r.readKey(ctx, &in)
	if err != nil {
		return err
	}
	fps, err := r.Fingerprints(b)
	if err == nil && len(fps) == 0 {
		err = errors.New("it has no key")
	}
	if err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	in.Size, in.SHA256, in.Fingerprint = int64(len(b)), d, strings.Join(fps, ",")
	return r.add(in)
}

func (r *resolver) readKey(ctx context.Context, in *Input) ([]byte, digest.Digest, error) {
	name := filepath.Join(r.Dir, in.URL)
	if isURL(in.URL) {
		blob, err := r.Fetch(ctx, Want{Kind: KindKey, URL: in.URL, Auth: in.Auth, Max: maxKey})
		if err != nil {
			return nil, digest.Digest{}, err
		}
		name = blob.Path
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, digest.Digest{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxKey+1))
	if err == nil && len(b) > maxKey {
		err = fmt.Errorf("%s: more than the %d bytes that a key file may have", in.URL, maxKey)
	}
	return b, digest.Of(b), err
}

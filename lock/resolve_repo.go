package lock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
	"caisson/lock/solve"
)

// defaultPriority is dnf's.
const defaultPriority = 99

// LoadRepos fetches and reads the metadata of a manifest's repositories for
// one arch, for a question that needs no lock.
func LoadRepos(ctx context.Context, o Options, arch string) ([]solve.Repo, error) {
	r := newResolver(o)
	r.lock = &Lock{Arches: []string{arch}}
	return r.loadRepos(ctx, arch)
}

// maxKey is the largest key file read, in bytes.
const maxKey = 1 << 20

// keys reads and pins a repository's keys for an arch. It returns their
// names as inputs.
func (r *resolver) keys(ctx context.Context, repo ManifestRepo, arch string) ([]string, error) {
	var names []string
	for _, k := range repo.GPGKey {
		k, err := r.substitute(k, arch)
		if err != nil {
			return nil, fmt.Errorf("gpgkey: %w", err)
		}
		if !isURL(k) {
			k = path.Clean(k)
		}
		names = append(names, k)
		if _, ok := r.inputs[KindKey+"/"+k]; ok {
			continue
		}
		b, d, err := r.readKey(ctx, k)
		if err != nil {
			return nil, fmt.Errorf("gpgkey: %w", err)
		}
		fps, err := r.Fingerprints(b)
		if err == nil && len(fps) == 0 {
			err = errors.New("it has no key")
		}
		if err != nil {
			return nil, fmt.Errorf("gpgkey: %s: %w", k, err)
		}
		in := Input{Kind: KindKey, Name: k, URL: k, Size: int64(len(b)), SHA256: d, Fingerprint: strings.Join(fps, ",")}
		if err := r.add(in); err != nil {
			return nil, err
		}
	}
	return names, nil
}

func (r *resolver) readKey(ctx context.Context, k string) ([]byte, digest.Digest, error) {
	name := filepath.Join(r.Dir, k)
	if isURL(k) {
		blob, err := r.Fetch(ctx, Want{Kind: KindKey, URL: k})
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
		err = fmt.Errorf("%s: more than the %d bytes that a key file may have", k, maxKey)
	}
	return b, digest.Of(b), err
}

var variable = regexp.MustCompile(`\$(\w+|\{\w+\})`)

// substitute puts variables' values into a text.
func (r *resolver) substitute(s, arch string) (string, error) {
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
	if missing == nil && strings.Contains(out, "${") {
		missing = fmt.Errorf("%s: want variables as $name or ${name}", s)
	}
	return out, missing
}

// expand is a repository's address for an arch, with a final slash.
func (r *resolver) expand(s, arch string) (string, error) {
	out, err := r.substitute(s, arch)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(out)
	switch {
	case err != nil || u.Scheme == "" || u.Host == "" && u.Scheme != "file":
		return "", fmt.Errorf("baseurl %q: want an address such as https://host/path/", out)
	case u.User != nil:
		return "", fmt.Errorf("baseurl %q: a name and password do not belong into a lock; put them into .netrc", u.Redacted())
	case u.RawQuery != "" || u.Fragment != "":
		return "", fmt.Errorf("baseurl %q: want an address without ? and #", out)
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
	keys := make([][]string, len(all))
	for i, m := range r.m.RPM.Repos {
		var err error
		if keys[i], err = r.keys(ctx, m, arch); err != nil {
			return nil, fmt.Errorf("repository %q: %w", m.ID, err)
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for i, m := range r.m.RPM.Repos {
		g.Go(func() error {
			l := repoLoader{r: r, m: m, arch: arch, keys: keys[i]}
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
	r.repos = make(map[string]Repo, len(all))
	for _, l := range all {
		repos = append(repos, l.repo)
		r.repos[l.lock.ID] = l.lock
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
	keys   []string // names of inputs
	repo   Repo
	inputs []Input
}

// load reads what is needed always; later is the context under which the
// filelists are fetched, should the solver ask for them.
func (l *repoLoader) load(ctx, later context.Context) (*solve.Repo, error) {
	base, err := l.r.expand(l.m.BaseURL[0], l.arch)
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
	for _, k := range l.keys {
		l.repo.Keys = append(l.repo.Keys, l.r.inputs[KindKey+"/"+k].Fingerprints()...)
	}
	slices.Sort(l.repo.Keys)
	l.repo.Keys = slices.Compact(l.repo.Keys)
	md, err := l.repomd(ctx)
	if err != nil {
		return nil, err
	}
	out := &solve.Repo{ID: l.m.ID, Priority: l.repo.Priority}
	if out.Packages, err = readData(ctx, l, md, "primary", rpmmd.ParsePrimary); err != nil {
		return nil, err
	}
	for _, typ := range []string{"group_gz", "group"} { // the same, compressed and not
		if md.Find(typ) == nil {
			continue
		}
		if out.Comps, err = readData(ctx, l, md, typ, rpmmd.ParseComps); err != nil {
			return nil, err
		}
		break
	}
	if md.Find("modules") != nil {
		if out.Modules, err = readData(ctx, l, md, "modules", rpmmd.ParseModules); err != nil {
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
	for _, k := range l.keys {
		b, d, err := l.r.readKey(ctx, k)
		if err != nil {
			return err
		}
		if want := l.r.inputs[KindKey+"/"+k].SHA256; d != want {
			return fmt.Errorf("gpgkey: %s changed while it was read: got %s, want %s", k, d, want)
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
		return Blob{}, fmt.Errorf("%s: %w", w.URL, err)
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

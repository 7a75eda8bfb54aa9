package lock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/lock/solve"
)

// ReplayResult is what making a lock's choice of packages again found.
type ReplayResult struct {
	// Packages is how many choices are the lock's, counting a package once for
	// each set and arch.
	Packages int `json:"packages"`
	// Kept are packages that a fresh choice would have otherwise, and that the
	// lock has because an earlier lock had them: with that preference the
	// choice is the lock's.
	Kept []ReplayDifference `json:"kept,omitempty"`
	// Different are packages, or whole sets, that the locked metadata does not
	// give.
	Different []ReplayDifference `json:"different,omitempty"`
}

// ReplayDifference is a package of a set on an arch that is chosen otherwise.
type ReplayDifference struct {
	Arch string `json:"arch"`
	Set  string `json:"set"`
	// Name is the package's; empty where the whole set is meant.
	Name string `json:"name,omitempty"`
	// Locked are the NEVRAs that the lock has, and Fresh those that the choice
	// has, of that name: none, one, or several.
	Locked []string `json:"locked,omitempty"`
	Fresh  []string `json:"fresh,omitempty"`
	// Reason says why there is no choice to compare with, or, where both have
	// the same NEVRA, that it is another file.
	Reason string `json:"reason,omitempty"`
}

func (d ReplayDifference) String() string {
	s := fmt.Sprintf("set %s (%s)", d.Set, d.Arch)
	if d.Name != "" {
		s += ": " + d.Name + ": locked " + orNone(d.Locked) + ", chosen " + orNone(d.Fresh)
	}
	if d.Reason != "" {
		s += ": " + d.Reason
	}
	return s
}

func orNone(s []string) string { return cmp.Or(strings.Join(s, " "), "none") }

// Replay makes the choice of packages of every set and arch again, from the
// lock and its locked metadata alone. open gives the path of the file of a
// digest. An error says that it could not be done: what is found is in the
// result. Signatures are not checked: that is for prefetch, when the lock is
// made, and the metadata that was used is pinned by the lock.
func Replay(ctx context.Context, l *Lock, open func(digest.Digest) (path string, err error)) (*ReplayResult, error) {
	if l.Imported != "" {
		return nil, fmt.Errorf("the lock was converted from a %s, which does not say what the choice was made of", l.Imported)
	}
	if l.Context != "" && l.Context != contextBare {
		return nil, fmt.Errorf("the lock was made on top of what is installed in its context (%s), and that is not among its inputs", l.Context)
	}
	p := &replayer{
		l: l, r: &resolver{lock: l}, open: open, out: &ReplayResult{}, lacking: make(map[string]string),
	}
	for _, arch := range l.Arches {
		if err := p.replayArch(ctx, arch); err != nil {
			return nil, err
		}
	}
	p.sources()
	return p.out, nil
}

// replayer makes the choice of a lock again.
type replayer struct {
	l       *Lock
	r       *resolver // what Resolve works with, without a network
	open    func(digest.Digest) (string, error)
	out     *ReplayResult
	lacking map[string]string // source packages that an arch's repositories do not have
}

// notLockedError says that the choice asks for a file that the lock does not
// have.
type notLockedError struct{ name string }

func (e *notLockedError) Error() string { return e.name + " is asked for and is not locked" }

func (p *replayer) replayArch(ctx context.Context, arch string) error {
	repos, err := p.load(ctx, arch)
	if err != nil {
		return err
	}
	pool, err := solve.NewPool(repos, p.l.RPM.poolOptions(arch))
	if err != nil {
		return err
	}
	for _, set := range p.l.Sets {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := p.replaySet(ctx, pool, arch, set); err != nil {
			return fmt.Errorf("set %s (%s): %w", set.Name, arch, err)
		}
	}
	if p.l.RPM.Sources == "" {
		return nil
	}
	return p.replaySources(arch, repos)
}

// load reads the repositories of an arch out of the locked metadata.
func (p *replayer) load(ctx context.Context, arch string) ([]solve.Repo, error) {
	p.r.repos = make(map[string]Repo)
	var all []*repoLoader
	for _, repo := range p.l.Repos {
		if repo.Arch != arch {
			continue
		}
		p.r.repos[repo.ID] = repo
		l := &repoLoader{r: p.r, m: &ManifestRepo{ID: repo.ID}, arch: arch, place: &place{repo: repo}}
		l.data = &metadata{place: l.place, locked: true, readers: 1, fetch: p.fetch(l.place)}
		all = append(all, l)
	}
	slices.SortStableFunc(all, func(a, b *repoLoader) int { return cmp.Compare(a.repo.Order, b.repo.Order) })
	var out []solve.Repo
	for _, l := range all {
		c, err := p.read(ctx, l)
		if err != nil {
			return nil, l.named(err)
		}
		repo := l.repo.solveRepo(c)
		if l.data.repomd.Find("filelists") != nil {
			repo.Filelists = func() (io.ReadCloser, error) {
				blob, err := l.data.file(ctx, "filelists")
				if err != nil {
					return nil, err
				}
				return os.Open(blob.Path)
			}
		}
		out = append(out, repo)
	}
	return out, nil
}

func (p *replayer) read(ctx context.Context, l *repoLoader) (*content, error) {
	w := l.want(repomdName)
	w.SHA256 = l.repo.Repomd
	if err := l.data.openAs(ctx, w); err != nil {
		return nil, err
	}
	return l.data.read(ctx)
}

// fetch is a Fetch that takes a repository's files from what is locked. They
// are hashed: they have to be what the lock says, and what repomd.xml says.
func (p *replayer) fetch(at *place) Fetch {
	files := make(map[string]*Input)
	for in := range p.l.inputs() {
		if in.Kind == KindRepodata && in.Repo == at.repo.ID && in.serves(at.repo.Arch) {
			files[at.want(in.URL).URL] = in
		}
	}
	return func(_ context.Context, w Want) (Blob, error) {
		in := files[w.URL]
		if in == nil {
			return Blob{}, &notLockedError{w.URL}
		}
		if !w.SHA256.IsZero() && w.SHA256 != in.SHA256 {
			return Blob{}, fmt.Errorf("%s %s: the lock has %s, and its repository %s", in.Kind, in.Name, in.SHA256, w.SHA256)
		}
		name, err := p.open(in.SHA256)
		if err != nil {
			return Blob{}, fmt.Errorf("%s %s: %w", in.Kind, in.Name, err)
		}
		got, size, err := digestFile(name)
		if err == nil && got != in.SHA256 {
			err = fmt.Errorf("got %s, want %s", got, in.SHA256)
		}
		if err != nil {
			return Blob{}, fmt.Errorf("%s %s: %w", in.Kind, in.Name, err)
		}
		return Blob{Path: name, SHA256: got, Size: size}, nil
	}
}

// replaySet chooses the packages of a set: as if there were no lock, and where
// that gives others, with those of the lock preferred.
func (p *replayer) replaySet(ctx context.Context, pool *solve.Pool, arch string, set Set) error {
	locked := make(map[string]*Input)
	var prefer []string
	for _, in := range p.l.Of(arch, set.Name) {
		if in.Kind == KindRPM {
			locked[in.Name] = in
			prefer = append(prefer, in.Name)
		}
	}
	fresh, err := p.choose(ctx, pool, arch, set, locked, nil)
	if err != nil {
		return err
	}
	p.out.Packages += len(locked)
	if len(fresh) == 0 {
		return nil
	}
	kept, err := p.choose(ctx, pool, arch, set, locked, prefer)
	if err != nil {
		return err
	}
	if len(kept) == 0 {
		p.out.Kept = append(p.out.Kept, fresh...)
		return nil
	}
	p.out.Different = append(p.out.Different, kept...)
	for _, d := range kept {
		p.out.Packages -= len(d.Locked)
		if d.Name == "" {
			p.out.Packages -= len(locked)
		}
	}
	return nil
}

// choose chooses the packages of a set and tells how that differs.
func (p *replayer) choose(ctx context.Context, pool *solve.Pool, arch string, set Set, locked map[string]*Input, prefer []string) ([]ReplayDifference, error) {
	got, err := p.r.choose(ctx, pool, arch, set, prefer)
	var problem *solve.Problem
	var lacking *notLockedError
	if errors.As(err, &problem) || errors.As(err, &lacking) {
		return []ReplayDifference{{Arch: arch, Set: set.Name, Reason: err.Error()}}, nil
	}
	if err != nil {
		return nil, err
	}
	return differences(arch, set.Name, locked, got), nil
}

// differences compares what is locked with what was chosen, by name.
func differences(arch, set string, locked map[string]*Input, chosen []Input) []ReplayDifference {
	byName := make(map[string]*ReplayDifference)
	at := func(in *Input) *ReplayDifference {
		d := byName[in.RPM.Name]
		if d == nil {
			d = &ReplayDifference{Arch: arch, Set: set, Name: in.RPM.Name}
			byName[in.RPM.Name] = d
		}
		return d
	}
	seen := make(map[string]bool)
	for i := range chosen {
		in := &chosen[i]
		seen[in.Name] = true
		old, ok := locked[in.Name]
		switch {
		case !ok:
			at(in).Fresh = append(at(in).Fresh, in.Name)
		case old.SHA256 != in.SHA256:
			d := at(in)
			d.Locked, d.Fresh = append(d.Locked, in.Name), append(d.Fresh, in.Name)
			d.Reason = fmt.Sprintf("the lock has %s, and the repository %s", old.SHA256, in.SHA256)
		}
	}
	for name, in := range locked {
		if !seen[name] {
			at(in).Locked = append(at(in).Locked, name)
		}
	}
	var out []ReplayDifference
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		d := *byName[name]
		slices.Sort(d.Locked)
		slices.Sort(d.Fresh)
		out = append(out, d)
	}
	return out
}

// replaySources looks the source packages of what is locked up again.
func (p *replayer) replaySources(arch string, repos []solve.Repo) error {
	found, lacking, err := p.r.findSources(arch, repos, builtFrom(p.l.inputs(), arch))
	if err != nil {
		return err
	}
	maps.Copy(p.lacking, lacking)
	locked := make(map[string]*Input)
	for _, in := range p.l.Of(arch, SetSource) {
		if in.Kind == KindRPM {
			locked[in.Name] = in
		}
	}
	diff := differences(arch, SetSource, locked, found)
	p.out.Different = append(p.out.Different, diff...)
	p.out.Packages += len(locked)
	for _, d := range diff {
		p.out.Packages -= len(d.Locked)
	}
	return nil
}

// sources compares the source packages that no arch's repositories have.
func (p *replayer) sources() {
	for in := range p.l.inputs() {
		if in.Kind == KindRPM && in.RPM.IsSource() {
			delete(p.lacking, in.RPM.file())
		}
	}
	if names := slices.Sorted(maps.Keys(p.lacking)); !slices.Equal(names, p.l.MissingSources) {
		p.out.Different = append(p.out.Different, ReplayDifference{
			Set: SetSource, Reason: "missing are " + orNone(names) + "; the lock says " + orNone(p.l.MissingSources),
		})
	}
}

package hermeto

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// repository is the git repository that a folder is in; nil for none.
type repository struct {
	repo   *git.Repository
	root   string // of the worktree
	origin string // empty where there is no remote of that name
	commit plumbing.Hash
	when   time.Time
	tags   map[string]plumbing.Hash // the commits, by the names
	// merged are the tags of the commit and of those before it; nil as long as
	// nobody asked.
	merged map[string]bool
}

// readGit looks at the git repository that dir is in; one of known, which are
// by their roots, is not read again.
func readGit(dir string, known map[string]*repository) (*repository, error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the git repository of %s: %w", dir, err)
	}
	tree, err := repo.Worktree()
	if err != nil {
		return nil, fmt.Errorf("reading the git repository of %s: %w", dir, err)
	}
	if r := known[tree.Filesystem.Root()]; r != nil {
		return r, nil
	}
	head, err := repo.Head()
	if errors.Is(err, plumbing.ErrReferenceNotFound) { // no commit yet
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the git repository of %s: %w", dir, err)
	}
	commit, err := repo.CommitObject(head.Hash())
	if err != nil {
		return nil, fmt.Errorf("reading the commit %s: %w", head.Hash(), err)
	}
	r := &repository{repo: repo, root: tree.Filesystem.Root(), commit: commit.Hash, when: commit.Committer.When, tags: map[string]plumbing.Hash{}}
	if remote, err := repo.Remote("origin"); err == nil && len(remote.Config().URLs) > 0 {
		r.origin = canonicalOrigin(remote.Config().URLs[0])
	}
	refs, err := repo.Tags()
	if err != nil {
		return nil, fmt.Errorf("reading the tags: %w", err)
	}
	err = refs.ForEach(func(ref *plumbing.Reference) error {
		h := ref.Hash()
		if tag, err := repo.TagObject(h); err == nil {
			h = tag.Target
		}
		r.tags[ref.Name().Short()] = h
		return nil
	})
	return r, err
}

// canonicalOrigin writes an scp-style address (git-clone(1), "GIT URLS") as
// ssh://, and leaves out names and passwords: those of the web are somebody's,
// and may be tokens.
func canonicalOrigin(s string) string {
	if u, err := url.Parse(s); err == nil && u.Scheme != "" && u.Host != "" {
		if _, ok := u.User.Password(); ok || u.Scheme == "https" || u.Scheme == "http" {
			u.User = nil
		}
		return u.String()
	}
	host, rest, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(host, "/") || strings.HasPrefix(rest, "//") {
		return s
	}
	return "ssh://" + host + "/" + strings.TrimLeft(rest, "/")
}

// Commit is when the commit was made that the source folder is at, in seconds
// since 1970; 0 outside git.
func Commit(source string) (int64, error) {
	r, err := readGit(source, nil)
	if err != nil || r == nil {
		return 0, err
	}
	return r.when.Unix(), nil
}

// vcsURL is the qualifier of that name (purl-spec, "Known qualifiers"), empty
// where nobody knows where the source is from.
func (r *repository) vcsURL() string {
	if r == nil || r.origin == "" {
		return ""
	}
	return "git+" + r.origin + "@" + r.commit.String()
}

// name is the host and the path of the repository's origin, as go's import
// paths have them; empty where it has none.
func (r *repository) name() string {
	if r == nil {
		return ""
	}
	u, err := url.Parse(r.origin)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	return strings.ToLower(u.Hostname()) + strings.TrimSuffix(strings.TrimRight(u.Path, "/"), ".git")
}

// rel is a folder's path in the repository, "." for its top.
func (r *repository) rel(dir string) (string, error) {
	real, err := filepath.Abs(dir)
	if err == nil {
		real, err = filepath.EvalSymlinks(real)
	}
	if err != nil {
		return "", err
	}
	root, err := filepath.EvalSymlinks(r.root)
	if err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, real)
	return filepath.ToSlash(rel), err
}

// goVersion is the version of a module in a folder of the repository, as the
// go command would call it: the highest tag of its commit, or a pseudo-version
// (go.dev/ref/mod) that is based on the highest tag before it. Tags count that
// are in the clone, and commits.
func (r *repository) goVersion(mod, dir string) (string, error) {
	_, major, ok := module.SplitPathVersion(mod)
	if r == nil || !ok {
		return "", nil
	}
	major = strings.TrimLeft(major, "/.")
	prefix := ""
	if dir != "." && path.Base(dir) == major {
		dir = path.Dir(dir)
	}
	if dir != "." {
		prefix = dir + "/"
	}
	versions := map[string]string{} // by tag
	for tag := range r.tags {
		v, ok := strings.CutPrefix(tag, prefix)
		if !ok || !semver.IsValid(v) || semver.Canonical(v) != v {
			continue
		}
		if m := semver.Major(v); m == major || major == "" && (m == "v0" || m == "v1") {
			versions[tag] = v
		}
	}
	if v := highest(versions, func(tag string) bool { return r.tags[tag] == r.commit }); v != "" {
		return v, nil
	}
	older := ""
	if len(versions) > 0 {
		if err := r.merge(); err != nil {
			return "", err
		}
		older = highest(versions, func(tag string) bool { return r.merged[tag] })
	}
	return module.PseudoVersion(major, older, r.when.UTC(), r.commit.String()[:12]), nil
}

// highest is the highest of the versions of these tags.
func highest(versions map[string]string, ok func(tag string) bool) string {
	best := ""
	for tag, v := range versions {
		if ok(tag) && (best == "" || semver.Compare(v, best) > 0) {
			best = v
		}
	}
	return best
}

// merge finds the tags of the commits before the repository's. A shallow clone
// ends where it was cut.
func (r *repository) merge() error {
	if r.merged != nil {
		return nil
	}
	shallow, err := r.repo.Storer.Shallow()
	if err != nil {
		return fmt.Errorf("reading where the clone was cut: %w", err)
	}
	byCommit := map[plumbing.Hash][]string{}
	for tag, h := range r.tags {
		byCommit[h] = append(byCommit[h], tag)
	}
	merged := map[string]bool{}
	seen := map[plumbing.Hash]bool{r.commit: true}
	for queue := []plumbing.Hash{r.commit}; len(queue) > 0 && len(merged) < len(r.tags); {
		h := queue[0]
		queue = queue[1:]
		for _, tag := range byCommit[h] {
			merged[tag] = true
		}
		if slices.Contains(shallow, h) {
			continue
		}
		c, err := r.repo.CommitObject(h)
		if err != nil {
			return fmt.Errorf("reading the commit %s: %w", h, err)
		}
		for _, p := range c.ParentHashes {
			if !seen[p] {
				seen[p] = true
				queue = append(queue, p)
			}
		}
	}
	r.merged = merged
	return nil
}

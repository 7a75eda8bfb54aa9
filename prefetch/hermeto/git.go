package hermeto

import (
	"errors"
	"fmt"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// repository is the git repository that a source is in; nil for none.
type repository struct {
	origin string // empty where there is no remote of that name
	commit string // in hex
	when   time.Time
	tags   []string // of the commit
}

// readGit looks at the git repository that dir is in.
func readGit(dir string) (*repository, error) {
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{DetectDotGit: true, EnableDotGitCommonDir: true})
	if errors.Is(err, git.ErrRepositoryNotExists) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading the git repository of %s: %w", dir, err)
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
	r := &repository{commit: commit.Hash.String(), when: commit.Committer.When}
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
		if h == commit.Hash {
			r.tags = append(r.tags, ref.Name().Short())
		}
		return nil
	})
	return r, err
}

// canonicalOrigin writes an scp-style address (git-clone(1), "GIT URLS") as
// ssh://, and leaves out a password.
func canonicalOrigin(s string) string {
	if u, err := url.Parse(s); err == nil && u.Scheme != "" && u.Host != "" {
		if _, ok := u.User.Password(); ok {
			u.User = nil
		}
		return u.String()
	}
	host, rest, ok := strings.Cut(s, ":")
	if !ok || strings.Contains(host, "/") || strings.HasPrefix(rest, "//") {
		return s
	}
	return "ssh://" + host + "/" + strings.TrimPrefix(rest, "/")
}

// Commit is when the commit was made that the source folder is at, in seconds
// since 1970; 0 outside git.
func Commit(source string) (int64, error) {
	r, err := readGit(source)
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
	return "git+" + r.origin + "@" + r.commit
}

// goVersion is the version of a module in a folder of the repository: the
// highest tag of its commit, or a pseudo-version (go.dev/ref/mod) without an
// earlier one.
func (r *repository) goVersion(mod, dir string) string {
	_, major, ok := module.SplitPathVersion(mod)
	if r == nil || !ok {
		return ""
	}
	major = strings.TrimLeft(major, "/.")
	prefix := ""
	if dir != "." && path.Base(dir) == major {
		dir = path.Dir(dir)
	}
	if dir != "." {
		prefix = dir + "/"
	}
	best := ""
	for _, tag := range r.tags {
		v, ok := strings.CutPrefix(tag, prefix)
		if !ok || !semver.IsValid(v) || semver.Canonical(v) != v {
			continue
		}
		if m := semver.Major(v); m != major && (major != "" || m != "v0" && m != "v1") {
			continue
		}
		if best == "" || semver.Compare(v, best) > 0 {
			best = v
		}
	}
	if best != "" {
		return best
	}
	return module.PseudoVersion(major, "", r.when.UTC(), r.commit[:12])
}

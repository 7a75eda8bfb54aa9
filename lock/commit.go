package lock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// CheckCommit tells, with no network, whether what a lock is made of is as it is
// in a commit of the git repository that dir, the manifest's folder, is in: nil,
// or all that is not. It looks at the named files beside the manifest, and at the
// lock's own: sources, keys, files and folders, those in submodules too. A url
// other than "" has to be the one that the repository was cloned from, where it
// says that.
func CheckCommit(l *Lock, dir, url, commit string, beside ...string) error {
	top, prefix := gitRoot(dir)
	if top == "" {
		return fmt.Errorf("%s is in no git repository, so it cannot be told to be commit %s", dir, commit)
	}
	c := checkout{top: top}
	if err := c.open(url, commit); err != nil {
		return err
	}
	for _, s := range l.Sources {
		if !isURL(s.Name) && !strings.HasPrefix(s.Name, imageSource) {
			beside = append(beside, s.Name)
		}
	}
	var wrong []error
	for i := range l.Inputs {
		switch in := &l.Inputs[i]; {
		case isURL(in.URL):
		case in.Kind == KindKey, in.Kind == KindFile:
			beside = append(beside, in.URL)
		case in.Kind == KindTree:
			wrong = append(wrong, c.folder(path.Join(append(slices.Clone(prefix), in.URL)...)))
			if owners := in.URL + OwnersSuffix; exists(filepath.Join(dir, owners)) {
				beside = append(beside, owners)
			}
		}
	}
	slices.Sort(beside)
	for _, name := range slices.Compact(beside) {
		wrong = append(wrong, c.file(path.Join(append(slices.Clone(prefix), filepath.ToSlash(name))...)))
	}
	return errors.Join(wrong...)
}

// checkout is a work tree and what its commit has.
type checkout struct {
	top    string
	real   string // top without symbolic links
	commit string
	files  map[string]object.TreeEntry // by path; those of submodules too
}

// open reads the commit at which the repository has to be.
func (c *checkout) open(url, commit string) error {
	repo, err := git.PlainOpenWithOptions(c.top, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return fmt.Errorf("reading the git repository %s: %w", c.top, err)
	}
	if remote, err := repo.Remote(git.DefaultRemoteName); err == nil && url != "" && len(remote.Config().URLs) > 0 {
		if from := remote.Config().URLs[0]; plainURL(from) != plainURL(url) {
			return fmt.Errorf("the source was cloned from %s, not from %s", plainURL(from), plainURL(url))
		}
	}
	head, err := repo.Head()
	if err != nil {
		return fmt.Errorf("reading the git repository %s: %w", c.top, err)
	}
	if got := head.Hash().String(); got != commit {
		return fmt.Errorf("the source is at commit %s, not at %s", got, commit)
	}
	if c.real, err = filepath.EvalSymlinks(c.top); err != nil {
		return err
	}
	c.commit, c.files = commit, map[string]object.TreeEntry{}
	return c.read("", head.Hash())
}

// plainURL is a repository's address without what may differ: who asks, and how
// its end is written.
func plainURL(s string) string {
	if scheme, rest, ok := strings.Cut(s, "://"); ok {
		host, at, _ := strings.Cut(rest, "/")
		s = scheme + "://" + host[strings.LastIndexByte(host, '@')+1:] + "/" + at
	}
	return strings.TrimSuffix(strings.TrimRight(s, "/"), ".git")
}

// read takes in a commit of the repository at a path.
func (c *checkout) read(at string, id plumbing.Hash) error {
	dir := filepath.Join(c.top, filepath.FromSlash(at))
	repo, err := git.PlainOpenWithOptions(dir, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return fmt.Errorf("reading the git repository %s: %w", dir, err)
	}
	if at != "" {
		head, err := repo.Head()
		if err != nil {
			return fmt.Errorf("reading the git repository %s: %w", dir, err)
		}
		if head.Hash() != id {
			return fmt.Errorf("the submodule %s is at commit %s, not at %s", at, head.Hash(), id)
		}
	}
	o, err := whole(repo, plumbing.CommitObject, id)
	if err != nil {
		return err
	}
	commit, err := object.DecodeCommit(repo.Storer, o)
	if err != nil {
		return fmt.Errorf("reading commit %s: %w", id, err)
	}
	return c.walk(repo, at, commit.TreeHash, 0)
}

// maxDepth is how deep the folders of a commit may lie.
const maxDepth = 200

// walk takes in a folder of a commit. All that is named by an id is there and has
// it: what is left out of a repository cannot hide that a file is gone.
func (c *checkout) walk(repo *git.Repository, at string, id plumbing.Hash, depth int) error {
	o, err := whole(repo, plumbing.TreeObject, id)
	if err != nil {
		return err
	}
	tree, err := object.DecodeTree(repo.Storer, o)
	if err != nil {
		return fmt.Errorf("reading the git object %s: %w", id, err)
	}
	for _, e := range tree.Entries {
		name := path.Join(at, e.Name)
		switch {
		case !filepath.IsLocal(name) || strings.Contains(e.Name, "/") || depth > maxDepth:
			return fmt.Errorf("the git object %s has a name that is none: %q", id, e.Name)
		case e.Mode == filemode.Dir:
			err = c.walk(repo, name, e.Hash, depth+1)
		case e.Mode != filemode.Submodule:
			c.files[name] = e
		case exists(filepath.Join(c.top, filepath.FromSlash(name), ".git")): // else it was not fetched, and is empty
			err = c.read(name, e.Hash)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// whole reads an object and proves that it has its id.
func whole(repo *git.Repository, kind plumbing.ObjectType, id plumbing.Hash) (plumbing.EncodedObject, error) {
	o, err := repo.Storer.EncodedObject(kind, id)
	if err != nil {
		return nil, fmt.Errorf("reading the git object %s: %w", id, err)
	}
	r, err := o.Reader()
	if err != nil {
		return nil, fmt.Errorf("reading the git object %s: %w", id, err)
	}
	defer r.Close()
	h := plumbing.NewHasher(kind, o.Size())
	if _, err := io.Copy(h, r); err != nil {
		return nil, fmt.Errorf("reading the git object %s: %w", id, err)
	}
	if h.Sum() != id {
		return nil, fmt.Errorf("the git object %s is damaged: it has the id %s", id, h.Sum())
	}
	return o, nil
}

func exists(name string) bool {
	_, err := os.Lstat(name)
	return err == nil
}

// file compares a file with the commit's. A link counts as what it leads to: that
// is what the lock has.
func (c *checkout) file(name string) error {
	full, err := filepath.EvalSymlinks(filepath.Join(c.top, filepath.FromSlash(name)))
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(c.real, full)
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s is outside of the source", name)
	}
	st, err := os.Stat(full)
	if err != nil {
		return err
	}
	return c.compare(filepath.Dir(full), packed{name: filepath.Base(full), size: st.Size(), exec: st.Mode()&0o100 != 0}, filepath.ToSlash(rel))
}

// folder compares what Pack takes of a folder with what the commit has there.
func (c *checkout) folder(name string) error {
	dir := filepath.Join(c.top, filepath.FromSlash(name))
	files, ignored, err := listFiles(dir)
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, f := range files {
		have[f.name] = true
		if err := c.compare(dir, f, path.Join(name, f.name)); err != nil {
			return err
		}
	}
	var gone []string
	for at := range c.files {
		rel, below := strings.CutPrefix(at, name+"/")
		if name == "." {
			rel, below = at, true
		}
		if below && !have[rel] && !leftOut(path.Base(rel)) && checkIgnored(ignored, dir, rel) == nil {
			gone = append(gone, at)
		}
	}
	if len(gone) > 0 {
		return fmt.Errorf("%s is in commit %s, and not in the source", slices.Min(gone), c.commit)
	}
	return nil
}

// compare compares a file of dir with what the commit has under a name.
func (c *checkout) compare(dir string, f packed, name string) error {
	e, ok := c.files[name]
	if !ok {
		return fmt.Errorf("%s is not in commit %s", name, c.commit)
	}
	if f.exec != (e.Mode == filemode.Executable) || (f.target != "") != (e.Mode == filemode.Symlink) {
		return fmt.Errorf("%s has another mode than in commit %s", name, c.commit)
	}
	h, err := blobHash(dir, f)
	if err == nil && h != e.Hash {
		err = fmt.Errorf("%s is not as in commit %s", name, c.commit)
	}
	return err
}

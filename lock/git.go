package lock

import (
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// treeInfo says which commit a folder is at and whether what Pack takes of it
// differs from that commit. Outside git, and before the first commit, it is
// nil: a commit is a courtesy to the reader, the digest is what pins. The
// only error is a committed file that Pack leaves out: a source without it is
// not what its author committed.
func treeInfo(dir string) (*Tree, error) {
	commit, prefix := headOf(dir)
	if commit == nil {
		return nil, nil
	}
	t := &Tree{Commit: commit.Hash.String(), Dirty: true}
	tree, err := commit.Tree()
	if err == nil && len(prefix) > 0 {
		tree, err = tree.Tree(strings.Join(prefix, "/"))
	}
	if err != nil {
		return t, nil // the folder is not in the commit
	}
	t.Dirty, err = differs(tree, dir)
	return t, err
}

// headOf is the commit that dir's repository is at, and dir's path in it; nil
// where there is none, or none that go-git can read.
func headOf(dir string) (*object.Commit, []string) {
	root, prefix := gitRoot(dir)
	if root == "" {
		return nil, nil
	}
	repo, err := git.PlainOpenWithOptions(root, &git.PlainOpenOptions{EnableDotGitCommonDir: true})
	if err != nil {
		return nil, nil
	}
	head, err := repo.Head()
	if err != nil {
		return nil, nil
	}
	commit, err := repo.CommitObject(head.Hash())
	if err != nil {
		return nil, nil
	}
	return commit, prefix
}

// differs compares what Pack takes of dir with a commit's tree.
func differs(tree *object.Tree, dir string) (bool, error) {
	files, ignored, err := listFiles(dir)
	if err != nil {
		return false, err
	}
	have := make(map[string]packed, len(files))
	for _, f := range files {
		have[f.name] = f
	}
	same, gone := 0, false
	err = tree.Files().ForEach(func(f *object.File) error {
		p, ok := have[f.Name]
		switch {
		case ok && unchanged(dir, p, f):
			same++
		case ok || leftOut(path.Base(f.Name)):
		default:
			gone = true
			return checkIgnored(ignored, dir, f.Name)
		}
		return nil
	})
	var lost *ignoredError
	if errors.As(err, &lost) {
		return true, err
	}
	return err != nil || gone || same != len(files), nil
}

// ignoredError says that a committed file is named by a .gitignore.
type ignoredError struct{ dir, name string }

func (e *ignoredError) Error() string {
	return fmt.Sprintf("%s: %s is committed, but a .gitignore names it and so it is left out; change the .gitignore, or take the file out of git",
		e.dir, e.name)
}

// checkIgnored tells a file that is left out from one that is gone.
func checkIgnored(ignored map[string]bool, dir, name string) error {
	for at := name; at != "."; at = path.Dir(at) {
		if ignored[at] {
			return &ignoredError{dir, name}
		}
	}
	return nil
}

// unchanged tells whether a file is as it was committed.
func unchanged(dir string, p packed, f *object.File) bool {
	if p.exec != (f.Mode == filemode.Executable) || (p.target != "") != (f.Mode == filemode.Symlink) {
		return false
	}
	h, err := blobHash(dir, p)
	return err == nil && h == f.Hash
}

// blobHash is the git hash of a file's content.
func blobHash(dir string, p packed) (plumbing.Hash, error) {
	if p.target != "" {
		return plumbing.ComputeHash(plumbing.BlobObject, []byte(p.target)), nil
	}
	h := plumbing.NewHasher(plumbing.BlobObject, p.size)
	if err := copyFile(h, filepath.Join(dir, filepath.FromSlash(p.name)), p.size); err != nil {
		return plumbing.Hash{}, err
	}
	return h.Sum(), nil
}

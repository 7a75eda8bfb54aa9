package lock

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
)

// treeInfo says which commit a folder is at and whether what Pack takes of it
// differs from that commit. Outside git, and before the first commit, it is
// empty: a commit is a courtesy to the reader, the digest is what pins.
func treeInfo(dir string) *Tree {
	root, prefix := gitRoot(dir)
	if root == "" {
		return nil
	}
	repo, err := git.PlainOpen(root)
	if err != nil {
		return nil
	}
	head, err := repo.Head()
	if err != nil {
		return nil
	}
	commit, err := repo.CommitObject(head.Hash())
	if err != nil {
		return nil
	}
	t := &Tree{Commit: head.Hash().String(), Dirty: true}
	tree, err := commit.Tree()
	if err == nil && len(prefix) > 0 {
		tree, err = tree.Tree(strings.Join(prefix, "/"))
	}
	if err == nil {
		t.Dirty = differs(tree, dir)
	}
	return t
}

func differs(tree *object.Tree, dir string) bool {
	files, err := listFiles(dir)
	if err != nil {
		return true
	}
	want := map[string]plumbing.Hash{}
	exec := map[string]bool{}
	err = tree.Files().ForEach(func(f *object.File) error {
		want[f.Name] = f.Hash
		exec[f.Name] = f.Mode == filemode.Executable
		return nil
	})
	if err != nil || len(want) != len(files) {
		return true
	}
	for _, f := range files {
		content := []byte(f.target)
		if f.target == "" {
			if content, err = os.ReadFile(filepath.Join(dir, f.name)); err != nil {
				return true
			}
		}
		h, ok := want[f.name]
		if !ok || exec[f.name] != f.exec || plumbing.ComputeHash(plumbing.BlobObject, content) != h {
			return true
		}
	}
	return false
}

package build

import (
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/gittree"
)

// gitTree is a git input's files, laid out once for all run steps.
type gitTree struct {
	in    *lock.Input
	dir   string // outside the sandbox
	files map[digest.Digest]bool
}

// putRepositories lays the git inputs out, each as NAME in a step's folder,
// with the submodules that were locked. It returns what steps read of them and
// how they get there: read-only, so that no step sees what another did.
func (b *builder) putRepositories(in string) ([]*lock.Input, []sandbox.Mount, error) {
	if b.repositories == nil {
		for i := range b.Lock.Inputs {
			g := &b.Lock.Inputs[i]
			if !g.IsGitInput() {
				continue
			}
			t, err := b.unpackGit(g)
			if err != nil {
				return nil, nil, fmt.Errorf("unpacking %s: %w", ref(g), err)
			}
			b.repositories = append(b.repositories, t)
		}
	}
	var inputs []*lock.Input
	var mounts []sandbox.Mount
	for _, t := range b.repositories {
		if err := makeDir(filepath.Join(in, t.in.Name)); err != nil {
			return nil, nil, err
		}
		inputs = append(inputs, t.in)
		mounts = append(mounts, sandbox.Mount{Source: t.dir, Target: "/in/" + t.in.Name})
	}
	return inputs, mounts, nil
}

// unpackGit lays a git input out in a folder of its own. Extract reads it to
// its end, and so compares it with the locked digest.
func (b *builder) unpackGit(in *lock.Input) (gitTree, error) {
	t := gitTree{in: in, dir: filepath.Join(b.work, "git-"+in.Name), files: map[digest.Digest]bool{}}
	r, err := b.open(in)
	if err != nil {
		return t, err
	}
	defer r.Close()
	info, err := gittree.Extract(t.dir, r)
	if err != nil {
		return t, err
	}
	if info.Commit != in.Git.Commit {
		return t, fmt.Errorf("got the commit %s, want %s", info.Commit, in.Git.Commit)
	}
	return t, t.hash()
}

// hash makes the digests of the files that have something in them.
func (t *gitTree) hash() error {
	return filepath.WalkDir(t.dir, func(full string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.Open(full)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if n, err := io.Copy(h, f); err != nil || n == 0 {
			return err
		}
		t.files[digest.Digest(h.Sum(nil))] = true
		return nil
	})
}

// gitFile is the git input that has a file that a step put into its place, or
// nil. An empty file is nobody's.
func (b *builder) gitFile(f *File) *lock.Input {
	for _, t := range b.repositories {
		if t.files[*f.SHA256] && slices.Contains(f.Inputs, ref(t.in)) {
			return t.in
		}
	}
	return nil
}

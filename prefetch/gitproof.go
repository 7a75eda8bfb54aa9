package prefetch

import (
	"fmt"
	"io"
	"strings"

	"caisson/lock"
	"caisson/lock/gittree"
)

// gitProof is the key for: this file is this commit.
func gitProof(in *lock.Input) string {
	return strings.Join([]string{"proof-1 git", in.SHA256.Hex(), in.Git.Commit, in.Git.Tree, in.Git.Tag}, "\x00")
}

// proveGit makes the ids of commit, tree and tag anew and compares them.
func proveGit(in *lock.Input, c content) error {
	info, err := gittree.Check(io.NewSectionReader(c, 0, c.Size()))
	if err != nil {
		return err
	}
	for _, id := range []struct{ what, got, want string }{
		{"commit", info.Commit, in.Git.Commit}, {"tree", info.Tree, in.Git.Tree}, {"tag", info.Tag, in.Git.Tag},
	} {
		if id.got != id.want {
			return fmt.Errorf("%s: got %q, want %q", id.what, id.got, id.want)
		}
	}
	return nil
}

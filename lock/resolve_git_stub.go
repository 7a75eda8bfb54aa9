package lock

import (
	"context"
	"os"
	"path"

	"caisson/lock/gittree"
)

// pinGit is a stand-in until package lock's own is merged.
func (r *resolver) pinGit(ctx context.Context, w Want, use Use) (*Input, error) {
	blob, err := r.Fetch(ctx, w)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(blob.Path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := gittree.Check(f)
	if err != nil {
		return nil, err
	}
	in := Input{
		Kind: KindGit, Name: path.Base(w.URL) + "-" + info.Commit, URL: w.URL, SHA256: blob.SHA256, Size: blob.Size,
		Git: &Git{Ref: w.Ref, Commit: info.Commit, Tree: info.Tree, Submodules: w.Submodules}, For: []Use{use},
	}
	return &in, r.add(in)
}

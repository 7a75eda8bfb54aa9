package lock

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"

	"caisson/lock/gittree"
)

// gitSet is the set that a git repository of the manifest is for.
func gitSet(name string) string { return "git:" + name }

// IsGitInput tells whether an input is a git repository that the manifest
// names, which run steps are given.
func (in *Input) IsGitInput() bool {
	return in.Kind == KindGit && slices.ContainsFunc(in.For, func(u Use) bool { return u.Set == gitSet(in.Name) })
}

// gits pins the git repositories that the manifest names.
func (r *resolver) gits(ctx context.Context) error {
	for _, g := range r.m.Inputs.Git {
		if err := r.gitInput(ctx, g); err != nil {
			return fmt.Errorf("inputs.git: %s: %w", g.Name, err)
		}
	}
	return nil
}

func (r *resolver) gitInput(ctx context.Context, g ManifestGit) error {
	w := Want{Kind: KindGit, URL: g.URL, Mirrors: g.Mirrors, Ref: g.Ref, Submodules: g.Submodules, Auth: g.Auth}
	in, err := r.pinGitAs(ctx, g.Name, w, Use{Set: gitSet(g.Name), By: "inputs.git " + g.Name})
	if err != nil {
		return err
	}
	if g.Verify != nil {
		if in.Verified, err = r.verifyGit(ctx, in, g.Verify.Key); err != nil {
			return err
		}
	}
	return r.add(*in)
}

// pinGit pins a git repository at what a ref names, for other inputs that
// need one. It is called after its address and its commit, and is not among
// the inputs before add.
func (r *resolver) pinGit(ctx context.Context, w Want, use Use) (*Input, error) {
	return r.pinGitAs(ctx, "", w, use)
}

// pinGitAs pins a repository under a name. What the lock there was says of
// the same address and ref holds, unless it is to be updated.
func (r *resolver) pinGitAs(ctx context.Context, name string, w Want, use Use) (*Input, error) {
	in := &Input{Kind: KindGit, URL: w.URL, Mirrors: w.Mirrors, Auth: w.Auth, For: []Use{use}}
	if old := r.oldGit(name, w); old != nil {
		in.Git, in.SHA256, in.Size = old.Git, old.SHA256, old.Size
	} else if err := r.fetchGit(ctx, w, in); err != nil {
		return nil, err
	}
	if in.Name = name; name == "" {
		in.Name = gitName(w.URL) + "@" + in.Git.Commit
	}
	in.PURL = gitPURL(w.URL, in.Git.Commit)
	return in, nil
}

// oldGit is the input of the lock there was for the same address and ref.
func (r *resolver) oldGit(name string, w Want) *Input {
	for _, in := range r.chosen {
		if in.Kind == KindGit && in.URL == w.URL && in.Git.Ref == w.Ref && in.Git.Submodules == w.Submodules &&
			(name == "" || in.Name == name) && !slices.Contains(r.Update, in.Name) {
			return in
		}
	}
	return nil
}

func (r *resolver) fetchGit(ctx context.Context, w Want, in *Input) error {
	r.say("fetching the git repository %s", w.URL)
	blob, err := r.Fetch(ctx, w)
	if err != nil {
		return err
	}
	info, err := checkGitFile(blob.Path)
	if err != nil {
		return fmt.Errorf("%s: %w", w.URL, err)
	}
	if gittree.IsID(w.Ref) && info.Commit != w.Ref && info.Tag != w.Ref {
		return fmt.Errorf("%s: got the commit %s, want %s", w.URL, info.Commit, w.Ref)
	}
	in.SHA256, in.Size = blob.SHA256, blob.Size
	in.Git = &Git{Ref: w.Ref, Commit: info.Commit, Tree: info.Tree, Tag: info.Tag, Submodules: w.Submodules}
	return nil
}

func checkGitFile(name string) (*gittree.Info, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return gittree.Check(f)
}

// gitName is the last element of a repository's address.
func gitName(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "repository"
	}
	return strings.TrimSuffix(path.Base(u.Path), ".git")
}

// gitPURL is a repository's package URL at a commit (purl-spec: types github
// and bitbucket are in lower case; elsewhere generic with a vcs_url, in the
// form of SPDX 2.3, section 7.7).
func gitPURL(address, commit string) string {
	u, err := url.Parse(address)
	if err == nil {
		owner, repo, ok := strings.Cut(strings.TrimSuffix(strings.Trim(u.Path, "/"), ".git"), "/")
		types := map[string]string{"github.com": packageurl.TypeGithub, "bitbucket.org": packageurl.TypeBitbucket}
		if typ := types[strings.ToLower(u.Host)]; typ != "" && ok && !strings.Contains(repo, "/") {
			return packageurl.NewPackageURL(typ, strings.ToLower(owner), strings.ToLower(repo), commit, nil, "").ToString()
		}
	}
	q := packageurl.QualifiersFromMap(map[string]string{"vcs_url": "git+" + address + "@" + commit})
	return packageurl.NewPackageURL(packageurl.TypeGeneric, "", gitName(address), commit, q, "").ToString()
}

// Package gitfetch brings the objects of a git repository at one commit into
// a folder, without git.
//
// It speaks to servers by HTTP(S), SSH and git's own protocol, and reads
// repositories of this machine by file:// addresses. Of a server it asks, by
// version 2 of git's protocol, for the refs that are meant and the one commit,
// without its history; where a server knows version 0 only, and gives no
// commits but those that it names, for all branches and tags. What comes is
// written to a pack on disk and indexed there: package objects reads it in
// memory that does not follow the sizes of files. That objects are what their
// ids say is proved by who reads them: see package gittree.
//
// # Limits
//
// A transfer that is cut begins again: git has no way to go on with one. No
// bundles, no "dumb" HTTP, no Git LFS: a file that LFS keeps is what git keeps
// of it, a pointer. 32 MiB of refs; a million objects. An idle server is given
// up on, a slow one is not. Of SSH, the agent's keys and key files without a
// passphrase are used, of ~/.ssh/config a host's name and port, and a server's
// key has to be among the known hosts.
package gitfetch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"caisson/lock/gittree"
)

// Options are how servers are reached.
type Options struct {
	// HTTP is the client for http and https.
	HTTP *http.Client
	SSH  SSH
	// Idle is how long a server may say nothing.
	Idle time.Duration
	// Alive is called when something has come; it may be nil.
	Alive func()
	// Max is the most bytes that a server may send in one answer, and that an
	// object may have.
	Max int64
}

// RefError says that a repository has no such tag, branch or commit.
type RefError struct {
	Ref  string
	Hint string // what may be meant; empty for nothing
}

func (e *RefError) Error() string {
	s := fmt.Sprintf("it has no tag, branch or commit %q", e.Ref)
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Is makes a RefError a fs.ErrNotExist.
func (e *RefError) Is(target error) bool { return target == fs.ErrNotExist }

// Remote is a repository that has been asked for its branches and tags.
type Remote struct {
	opts Options
	url  *url.URL
	server
	refs  refs
	local *Repo // where it is of this machine
}

// refs are branches and tags.
type refs struct {
	all    bool              // the repository has no others
	ids    map[string]string // by their names, in full
	peeled map[string]string // the commits of annotated tags
	head   string            // what HEAD is; empty for nothing
}

func newRefs() refs { return refs{ids: make(map[string]string), peeled: make(map[string]string)} }

// Open asks a repository for what refs name, or, without any, for all its
// branches and tags. ssh and https are authenticated; who opens another
// address has to know the commit.
func Open(ctx context.Context, u *url.URL, o Options, refs ...string) (*Remote, error) {
	r := &Remote{opts: o, url: u, refs: newRefs()}
	if u.Scheme == "file" {
		return r, r.openLocal()
	}
	return r, r.list(ctx, refs)
}

// Close frees what a repository of this machine needs.
func (r *Remote) Close() error {
	if r.local != nil {
		return r.local.Close()
	}
	return nil
}

// places are the names that a ref may have in full, in the order in which
// git looks for them (gitrevisions(7)).
func places(ref string) []string {
	return []string{ref, "refs/" + ref, "refs/tags/" + ref, "refs/heads/" + ref}
}

func isHEAD(ref string) bool { return ref == "" || ref == "HEAD" }

// Resolve is the id of a tag, a branch or a commit: of the annotated tag
// where it is one. An empty ref is HEAD. A tag goes before a branch of the
// same name, as everywhere in git.
func (r *Remote) Resolve(ref string) (id string, err error) {
	if isHEAD(ref) {
		if r.refs.head == "" {
			return "", &RefError{Ref: "HEAD", Hint: "name a tag, a branch or a commit"}
		}
		return r.refs.head, nil
	}
	if gittree.IsID(ref) {
		return ref, nil
	}
	for _, name := range places(ref) {
		if id, ok := r.refs.ids[name]; ok {
			return id, nil
		}
	}
	e := &RefError{Ref: ref}
	if isHex(ref) {
		e.Hint = fmt.Sprintf("a commit has to be named by all %d digits", r.hexLen)
	}
	return "", e
}

// isHex tells what could be the beginning of a commit's id.
func isHex(s string) bool {
	return len(s) >= 4 && len(s) <= 64 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// tip is a commit that a tag or branch names whose id begins so; empty where
// there is none.
func (r *Remote) tip(prefix string) string {
	for _, ids := range []map[string]string{r.refs.peeled, r.refs.ids} {
		for _, name := range slices.Sorted(maps.Keys(ids)) {
			_, tag := r.refs.peeled[name]
			if id := ids[name]; strings.HasPrefix(id, prefix) && (!tag || id == r.refs.peeled[name]) {
				return id
			}
		}
	}
	return ""
}

// Fetch brings the object, a commit or an annotated tag, and all that it
// needs into a new folder in dir. Close the Repo before dir is removed.
func (r *Remote) Fetch(ctx context.Context, id, dir string) (*Repo, error) {
	if r.local != nil {
		return r.local.open(id)
	}
	if len(id) != r.hexLen {
		return nil, &RefError{Ref: id, Hint: fmt.Sprintf("its ids have %d digits", r.hexLen)}
	}
	if r.isTip(id) || r.givesAny() {
		repo, err := r.fetch(ctx, dir, request{wants: []string{id}, shallow: true})
		var temp *TemporaryError
		if err == nil || r.isTip(id) || errors.As(err, &temp) || ctx.Err() != nil {
			return repo, err
		}
	}
	if !r.refs.all {
		if err := r.list(ctx, nil); err != nil {
			return nil, err
		}
	}
	for name, peeled := range r.refs.peeled {
		if peeled == id { // the tag brings its commit
			return r.fetch(ctx, dir, request{wants: []string{r.refs.ids[name]}, shallow: true})
		}
	}
	repo, err := r.history(ctx, dir, false)
	if err != nil {
		return nil, err
	}
	if err := repo.has(id); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

// FetchPrefix is Fetch of the commit whose id begins with so many hex digits,
// an even number. It looks among what the branches and tags name, then in all
// that leads to that: Open has to have asked for all of them.
func (r *Remote) FetchPrefix(ctx context.Context, prefix, dir string) (repo *Repo, id string, err error) {
	if r.local != nil {
		if id, err = r.local.find(prefix); err != nil {
			return nil, "", err
		}
		return r.local, id, nil
	}
	if id = r.tip(prefix); id == "" {
		bare := r.supports("filter")
		if repo, err = r.history(ctx, dir, bare); err != nil {
			return nil, "", err
		}
		if id, err = repo.find(prefix); err != nil {
			return nil, "", errors.Join(err, repo.Close())
		}
		if !bare {
			return repo, id, nil
		}
		if err := repo.Close(); err != nil {
			return nil, "", err
		}
	}
	repo, err = r.Fetch(ctx, id, dir)
	return repo, id, err
}

// history brings all that branches and tags lead to, or of that the commits
// and tags alone.
func (r *Remote) history(ctx context.Context, dir string, commits bool) (*Repo, error) {
	all := slices.Compact(slices.Sorted(maps.Values(r.refs.ids)))
	if len(all) == 0 {
		return nil, &RefError{Ref: "HEAD"}
	}
	return r.fetch(ctx, dir, request{wants: all, commits: commits})
}

// isTip tells whether a server has to give an object: one that it names.
func (r *Remote) isTip(id string) bool {
	if id == r.refs.head {
		return true
	}
	for _, have := range r.refs.ids {
		if have == id {
			return true
		}
	}
	return false
}

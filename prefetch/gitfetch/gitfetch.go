// Package gitfetch brings the objects of a git repository at one commit into
// a folder, without git.
//
// It speaks to servers by HTTP(S), SSH and git's own protocol, and reads
// repositories of this machine by file:// addresses. Of a server it asks for
// the one commit, without its history, where the server gives that; else for
// all branches and tags. Objects lie in a pack on disk, never all in memory.
// That they are what their ids say is proved by who reads them: see package
// gittree.
//
// # Limits
//
// Repositories whose object ids are SHA-1, by version 0 or 1 of git's
// protocol; no bundles, no "dumb" HTTP, no Git LFS: a file that LFS keeps is
// what git keeps of it, a pointer. No file of more than 512 MiB: one at a time
// is in memory, perhaps with the one that it is a change of. An idle server is given up on, a slow one
// is not. Of SSH, the agent's keys and key files without a passphrase are
// used, a server's key has to be among the known hosts.
package gitfetch

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/filemode"
	"github.com/go-git/go-git/v5/plumbing/object"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/storer"
	"github.com/go-git/go-git/v5/plumbing/transport"

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
	// Max is the most bytes that a server may send in one answer.
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

// Remote is a repository whose branches and tags are known.
type Remote struct {
	opts   Options
	url    *url.URL
	refs   map[string]string // ids by the names of tags and branches, in full
	peeled map[string]string // the commits of annotated tags
	head   string            // what HEAD is; empty for nothing
	caps   *capability.List  // nil for a repository of this machine
	local  *Repo
}

// Open asks a repository for its branches and tags. ssh and https are
// authenticated; who opens another address has to know the commit.
func Open(ctx context.Context, u *url.URL, o Options) (*Remote, error) {
	r := &Remote{opts: o, url: u, refs: make(map[string]string), peeled: make(map[string]string)}
	if u.Scheme == "file" {
		return r, r.openLocal()
	}
	err := r.session(ctx, func(ctx context.Context, s transport.UploadPackSession, _ *watch) error {
		adv, err := s.AdvertisedReferencesContext(ctx)
		if err == nil {
			r.advertised(adv)
		}
		return err
	})
	return r, err
}

// advertised keeps what a server says that it has.
func (r *Remote) advertised(adv *packp.AdvRefs) {
	r.caps = adv.Capabilities
	for name, id := range adv.References {
		r.refs[name] = id.String()
	}
	for name, id := range adv.Peeled {
		r.peeled[name] = id.String()
	}
	if adv.Head != nil {
		r.head = adv.Head.String()
	}
	delete(r.refs, "HEAD")
}

// Resolve is the id of a tag, a branch or a commit: of the annotated tag
// where it is one. An empty ref is HEAD. A tag goes before a branch of the
// same name, as everywhere in git.
func (r *Remote) Resolve(ref string) (id string, err error) {
	if ref == "" || ref == "HEAD" {
		if r.head == "" {
			return "", &RefError{Ref: "HEAD", Hint: "name a tag, a branch or a commit"}
		}
		return r.head, nil
	}
	if gittree.IsID(ref) {
		return ref, nil
	}
	for _, name := range []string{ref, "refs/" + ref, "refs/tags/" + ref, "refs/heads/" + ref} {
		if id, ok := r.refs[name]; ok {
			return id, nil
		}
	}
	e := &RefError{Ref: ref}
	if isHex(ref) {
		e.Hint = "a commit has to be named by all 40 digits"
	}
	return "", e
}

// isHex tells what could be the beginning of a commit's id.
func isHex(s string) bool {
	return len(s) >= 4 && len(s) <= 64 && strings.Trim(strings.ToLower(s), "0123456789abcdef") == ""
}

// FindTip is a commit that a tag or branch names whose id begins so; empty
// where there is none.
func (r *Remote) FindTip(prefix string) string {
	for _, ids := range []map[string]string{r.peeled, r.refs} {
		for _, name := range slices.Sorted(maps.Keys(ids)) {
			_, tag := r.peeled[name]
			if id := ids[name]; strings.HasPrefix(id, prefix) && (!tag || id == r.peeled[name]) {
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
		return r.local, r.local.has(id)
	}
	if len(id) != 40 {
		return nil, &RefError{Ref: id, Hint: "repositories with SHA-256 ids cannot be fetched"}
	}
	if r.isTip(id) || r.givesAny() {
		repo, err := r.fetch(ctx, dir, []string{id}, r.caps.Supports(capability.Shallow))
		var temp *TemporaryError
		if err == nil || r.isTip(id) || errors.As(err, &temp) || ctx.Err() != nil {
			return repo, err
		}
	}
	for name, peeled := range r.peeled {
		if peeled == id { // the tag brings its commit
			return r.fetch(ctx, dir, []string{r.refs[name]}, r.caps.Supports(capability.Shallow))
		}
	}
	all := slices.Compact(slices.Sorted(maps.Values(r.refs)))
	if len(all) == 0 {
		return nil, &RefError{Ref: id}
	}
	repo, err := r.fetch(ctx, dir, all, false)
	if err != nil {
		return nil, err
	}
	if err := repo.has(id); err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

// History is Fetch with all that leads to the commit, and all tags.
func (r *Remote) History(ctx context.Context, dir string) (*Repo, error) {
	if r.local != nil {
		return r.local, nil
	}
	all := slices.Compact(slices.Sorted(maps.Values(r.refs)))
	if len(all) == 0 {
		return nil, &RefError{Ref: "HEAD"}
	}
	return r.fetch(ctx, dir, all, false)
}

// isTip tells whether a server has to give an object: one that it names.
func (r *Remote) isTip(id string) bool {
	if id == r.head {
		return true
	}
	for _, have := range r.refs {
		if have == id {
			return true
		}
	}
	return false
}

// givesAny tells whether the server gives commits that it does not name.
func (r *Remote) givesAny() bool {
	return r.caps.Supports(capability.AllowReachableSHA1InWant) || r.caps.Supports(capability.AllowTipSHA1InWant) ||
		r.caps.Supports(capability.Capability("allow-any-sha1-in-want"))
}

// fetch asks for objects, alone or with their history.
func (r *Remote) fetch(ctx context.Context, dir string, ids []string, shallow bool) (*Repo, error) {
	req, err := r.request(ids, shallow)
	if err != nil {
		return nil, err
	}
	repo, err := newRepo(dir)
	if err != nil {
		return nil, err
	}
	err = r.session(ctx, func(ctx context.Context, s transport.UploadPackSession, w *watch) error {
		if _, err := s.AdvertisedReferencesContext(ctx); err != nil {
			return err
		}
		answer, err := s.UploadPack(ctx, req)
		if err != nil {
			return err
		}
		defer answer.Close()
		return repo.receive(demux(req.Capabilities, answer), w, r.opts.Max)
	})
	if err != nil {
		return nil, errors.Join(err, repo.Close())
	}
	return repo, nil
}

// request asks for objects (gitprotocol-pack).
func (r *Remote) request(ids []string, shallow bool) (*packp.UploadPackRequest, error) {
	req := packp.NewUploadPackRequest()
	for _, c := range []capability.Capability{capability.OFSDelta, capability.NoProgress} {
		if r.caps.Supports(c) {
			if err := req.Capabilities.Set(c); err != nil {
				return nil, err
			}
		}
	}
	switch {
	case r.caps.Supports(capability.Sideband64k):
		if err := req.Capabilities.Set(capability.Sideband64k); err != nil {
			return nil, err
		}
	case r.caps.Supports(capability.Sideband):
		if err := req.Capabilities.Set(capability.Sideband); err != nil {
			return nil, err
		}
	}
	if shallow {
		if err := req.Capabilities.Set(capability.Shallow); err != nil {
			return nil, err
		}
		req.Depth = packp.DepthCommits(1)
	}
	for _, id := range ids {
		req.Wants = append(req.Wants, plumbing.NewHash(id))
	}
	return req, nil
}

// Repo is objects in a folder.
type Repo struct {
	packs string // the folder of packs; empty where nothing is added
	store objects
}

// Open opens an object.
func (p *Repo) Open(id string) (*gittree.Object, error) {
	if len(id) != 40 {
		return nil, fs.ErrNotExist
	}
	o, err := p.store.EncodedObject(plumbing.AnyObject, plumbing.NewHash(id))
	if errors.Is(err, plumbing.ErrObjectNotFound) {
		return nil, fmt.Errorf("the repository does not have it: %w", fs.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	r, err := o.Reader()
	if err != nil {
		return nil, err
	}
	return &gittree.Object{Type: o.Type().String(), Size: o.Size(), ReadCloser: r}, nil
}

// Close frees what Open needs.
func (p *Repo) Close() error { return p.store.Close() }

// has looks for an object.
func (p *Repo) has(id string) error {
	o, err := p.Open(id)
	if errors.Is(err, fs.ErrNotExist) {
		return &RefError{Ref: id}
	}
	if err != nil {
		return err
	}
	return o.Close()
}

// File is a file of a commit.
type File struct {
	Path string
	Mode fs.FileMode // 0644, 0755, or fs.ModeSymlink
	ID   string      // of the blob
	Size int64       // bytes
}

// Files lists the files of a commit, or of the commit of an annotated tag, in
// the order of git, without submodules.
func (p *Repo) Files(id string) ([]File, error) {
	h := plumbing.NewHash(id)
	for range maxTags {
		tag, err := object.GetTag(p.store, h)
		if err != nil {
			break
		}
		h = tag.Target
	}
	c, err := object.GetCommit(p.store, h)
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	tree, err := c.Tree()
	if err != nil {
		return nil, fmt.Errorf("commit %s: %w", h, err)
	}
	walk := object.NewTreeWalker(tree, true, nil)
	defer walk.Close()
	var out []File
	for {
		name, e, err := walk.Next()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("commit %s: %w", h, err)
		}
		f := File{Path: name, ID: e.Hash.String(), Mode: 0o644}
		switch e.Mode {
		case filemode.Dir, filemode.Submodule:
			continue
		case filemode.Executable:
			f.Mode = 0o755
		case filemode.Symlink:
			f.Mode = fs.ModeSymlink
		}
		if f.Size, err = p.store.EncodedObjectSize(e.Hash); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, f)
	}
}

// maxTags is how many tags may be of each other.
const maxTags = 8

// Find is the commit whose id begins with so many hex digits, an even number.
func (p *Repo) Find(prefix string) (string, error) {
	b, err := hex.DecodeString(prefix)
	if err != nil {
		return "", &RefError{Ref: prefix}
	}
	all, err := p.store.HashesWithPrefix(b)
	if err != nil {
		return "", err
	}
	found := ""
	for _, h := range all {
		if _, err := object.GetCommit(p.store, h); err != nil {
			continue
		}
		if found != "" && found != h.String() {
			return "", &RefError{Ref: prefix, Hint: "it is the beginning of several"}
		}
		found = h.String()
	}
	if found == "" {
		return "", &RefError{Ref: prefix}
	}
	return found, nil
}

// objects is where objects are kept.
type objects interface {
	storer.EncodedObjectStorer
	HashesWithPrefix(prefix []byte) ([]plumbing.Hash, error)
	Close() error
}

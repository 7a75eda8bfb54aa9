package gitfetch

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/format/config"
	"github.com/go-git/go-git/v5/plumbing/transport"

	"caisson/lock/gittree"
	"caisson/prefetch/gitfetch/objects"
)

// openLocal reads a repository of this machine (gitrepository-layout).
func (r *Remote) openLocal() error {
	if r.url.Host != "" && r.url.Host != "localhost" {
		return fmt.Errorf("a file address of another machine: %q", r.url.Host)
	}
	l, err := findLocal(r.url.Path)
	if err == nil {
		err = r.readLocal(l)
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", r.url.Path, err)
	}
	return nil
}

// localRepo is where the parts of a repository are.
type localRepo struct {
	own    string // HEAD; another folder than common in a work tree that was added
	common string // objects, refs and config
}

// findLocal looks for a repository where git does.
func findLocal(path string) (localRepo, error) {
	for _, dir := range []string{path + "/.git", path, path + ".git/.git", path + ".git"} {
		if b, err := os.ReadFile(dir); err == nil { // a file that leads there
			to, ok := strings.CutPrefix(strings.TrimSpace(string(b[:min(len(b), maxLine)])), "gitdir: ")
			if !ok {
				continue
			}
			if dir = to; !filepath.IsAbs(to) {
				dir = filepath.Join(path, to)
			}
		}
		l := localRepo{own: dir, common: dir}
		if b, err := os.ReadFile(filepath.Join(dir, "commondir")); err == nil {
			if l.common = strings.TrimSpace(string(b)); !filepath.IsAbs(l.common) {
				l.common = filepath.Join(dir, l.common)
			}
		}
		if isFolder(filepath.Join(l.common, "objects")) && isFolder(filepath.Join(l.common, "refs")) {
			return l, nil
		}
	}
	return localRepo{}, fmt.Errorf("it is no git repository: %w", fs.ErrNotExist)
}

// maxLine is how much is read of a file that has one line, in bytes.
const maxLine = 8 << 10

func isFolder(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

// readLocal reads a repository's refs, and opens its objects.
func (r *Remote) readLocal(l localRepo) error {
	r.server = server{caps: make(map[string]string), hexLen: 40}
	if err := r.readFormat(l); err != nil {
		return err
	}
	store, err := objects.Open(filepath.Join(l.common, "objects"), r.hexLen, "")
	if err != nil {
		return err
	}
	r.local = &Repo{hexLen: r.hexLen, store: store}
	r.refs.all = true
	if err := r.readRefs(l); err != nil {
		return errors.Join(err, r.local.Close())
	}
	return nil
}

// readFormat reads how a repository keeps things.
func (r *Remote) readFormat(l localRepo) error {
	f, err := os.Open(filepath.Join(l.common, "config"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	c := config.New()
	if err := config.NewDecoder(io.LimitReader(f, maxRefs)).Decode(c); err != nil {
		return fmt.Errorf("its config: %w", err)
	}
	ext := c.Section("extensions")
	if s := ext.Option("refStorage"); s != "" && s != "files" {
		return fmt.Errorf("its refs are kept in the form %q, which is not read", s)
	}
	if format := ext.Option("objectFormat"); format != "" {
		return r.cap("object-format=" + format)
	}
	return nil
}

// readRefs reads packed refs, those that are files, and HEAD.
func (r *Remote) readRefs(l localRepo) error {
	if err := r.readPacked(filepath.Join(l.common, "packed-refs")); err != nil {
		return err
	}
	for _, below := range []string{"refs/heads", "refs/tags"} {
		err := filepath.WalkDir(filepath.Join(l.common, below), func(name string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			rel, err := filepath.Rel(l.common, name)
			if err != nil {
				return err
			}
			if id := readLine(name); gittree.IsID(id) {
				delete(r.refs.peeled, rel)
				return r.ref(id, rel)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	head := readLine(filepath.Join(l.own, "HEAD"))
	if name, ok := strings.CutPrefix(head, "ref: "); ok {
		head = r.refs.ids[name]
	}
	r.refs.head = head
	r.peel()
	return nil
}

// readLine is the first line of a file; empty where there is none.
func readLine(name string) string {
	f, err := os.Open(name)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, _ := io.ReadAll(io.LimitReader(f, maxLine))
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

// readPacked reads packed-refs: lines of an id and a name, and beginning with
// "^" what the tag before is of.
func (r *Remote) readPacked(name string) error {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	lines := bufio.NewScanner(io.LimitReader(f, maxRefs))
	last := ""
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line == "", line[0] == '#':
			continue
		case line[0] == '^':
			err = r.ref(line[1:], last+"^{}")
		default:
			var id string
			id, last, _ = strings.Cut(line, " ")
			err = r.ref(id, last)
		}
		if err != nil {
			return err
		}
	}
	return lines.Err()
}

// peel finds the commits of the tags of which it is not known.
func (r *Remote) peel() {
	for name, id := range r.refs.ids {
		if !strings.HasPrefix(name, "refs/tags/") || r.refs.peeled[name] != "" {
			continue
		}
		commit, err := gittree.Peel(&gittree.Source{ID: id, Open: r.local.Open})
		if err == nil && commit != id {
			r.refs.peeled[name] = commit
		}
	}
}

// open is the repository, where it has an object.
func (p *Repo) open(id string) (*Repo, error) {
	if err := p.has(id); err != nil {
		return nil, err
	}
	return p, nil
}

// Parse reads the address of a repository: a URL, or ssh's short form
// user@host:path, which only .gitmodules may have.
func Parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err == nil && u.Scheme != "" && (u.Host != "" || u.Scheme == "file") {
		return u, nil
	}
	ep, err := transport.NewEndpoint(raw)
	if err != nil || ep.Protocol != "ssh" || strings.Contains(raw, "::") || strings.HasPrefix(raw, "-") {
		return nil, fmt.Errorf("%q is no address of a repository", raw)
	}
	out := &url.URL{Scheme: "ssh", Host: ep.Host, Path: "/" + ep.Path}
	if ep.Path != "" && ep.Path[0] == '/' {
		out.Path = ep.Path
	}
	if ep.User != "" {
		out.User = url.User(ep.User)
	}
	return out, nil
}

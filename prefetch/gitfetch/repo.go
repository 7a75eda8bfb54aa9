package gitfetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"caisson/lock/gittree"
	"caisson/prefetch/gitfetch/objects"
)

// Repo is objects in a folder.
type Repo struct {
	dir    string // of the objects; what is below "pack" is its own
	hexLen int
	store  *objects.Store // nil before there is something
}

// newRepo makes a folder for objects in dir.
func newRepo(dir string, hexLen int) (*Repo, error) {
	dir, err := os.MkdirTemp(dir, "git-")
	if err != nil {
		return nil, err
	}
	return &Repo{dir: dir, hexLen: hexLen}, os.Mkdir(filepath.Join(dir, "pack"), 0o700)
}

// inflation is how many bytes the objects of a pack may have for each of its
// own: a repository's whole history has some sixty.
const (
	inflation = 1000
	atLeast   = 1 << 30
)

// receive writes a pack that comes and indexes it: its objects get the ids
// that they have. limit is the most bytes that an object may have.
func (p *Repo) receive(ctx context.Context, pack io.Reader, w *watch, limit int64) error {
	f, err := os.Create(filepath.Join(p.dir, "pack", "incoming"))
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, pack)
	w.stop() // what follows is our own work
	if err == nil && n == 0 {
		err = errors.New("the server has sent nothing")
	}
	if err != nil {
		return err
	}
	if err := objects.Index(ctx, f, p.hexLen, objects.Limits{Object: limit, Total: atLeast + inflation*n}); err != nil {
		return fmt.Errorf("indexing the pack: %w", err)
	}
	p.store, err = objects.Open(p.dir, p.hexLen, p.dir)
	return err
}

// Open opens an object.
func (p *Repo) Open(id string) (*gittree.Object, error) { return p.store.Open(id) }

// Close frees what Open needs.
func (p *Repo) Close() error {
	if p.store == nil {
		return nil
	}
	return p.store.Close()
}

// has looks for an object.
func (p *Repo) has(id string) error {
	_, err := p.store.Size(id)
	if errors.Is(err, fs.ErrNotExist) {
		return &RefError{Ref: id}
	}
	return err
}

// find is the commit whose id begins with so many hex digits, an even number.
func (p *Repo) find(prefix string) (string, error) {
	all, err := p.store.Find(prefix)
	if err != nil {
		return "", err
	}
	found := ""
	for _, id := range all {
		o, err := p.Open(id)
		if err != nil {
			return "", err
		}
		if err := o.Close(); err != nil {
			return "", err
		}
		if o.Type != "commit" {
			continue
		}
		if found != "" {
			return "", &RefError{Ref: prefix, Hint: "it is the beginning of several"}
		}
		found = id
	}
	if found == "" {
		return "", &RefError{Ref: prefix}
	}
	return found, nil
}

// File is a file of a commit.
type File struct {
	Path string
	Mode fs.FileMode // 0644, 0755, or fs.ModeSymlink
	ID   string      // of the blob
	Size int64       // bytes
}

// maxFiles is how many files of a commit are listed.
const maxFiles = 300_000

// Files lists the files of a commit, or of the commit of an annotated tag, in
// the order of git, without submodules.
func (p *Repo) Files(id string) ([]File, error) {
	var out []File
	err := gittree.Walk(&gittree.Source{ID: id, Open: p.Open}, func(e gittree.Entry) error {
		f := File{Path: e.Path, ID: e.ID}
		switch e.Mode {
		case gittree.ModeFile, gittree.ModeGroup:
			f.Mode = 0o644
		case gittree.ModeExec:
			f.Mode = 0o755
		case gittree.ModeLink:
			f.Mode = fs.ModeSymlink
		default:
			return nil
		}
		if len(out) == maxFiles {
			return fmt.Errorf("more than %d files", maxFiles)
		}
		var err error
		f.Size, err = p.store.Size(e.ID)
		out = append(out, f)
		return err
	})
	return out, err
}

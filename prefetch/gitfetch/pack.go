package gitfetch

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/cache"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
	"github.com/go-git/go-git/v5/storage/filesystem"
)

const (
	// largeObject is above which size an object is read from disk in pieces
	// where it can be.
	largeObject = 16 << 20
	// maxObject is the largest object, in bytes.
	maxObject = 512 << 20
	// maxObjects is how many there may be in a pack.
	maxObjects = 20_000_000
)

// newRepo makes a folder for objects in dir.
func newRepo(dir string) (*Repo, error) {
	dir, err := os.MkdirTemp(dir, "git-")
	if err != nil {
		return nil, err
	}
	packs := filepath.Join(dir, "objects", "pack")
	if err := os.MkdirAll(packs, 0o700); err != nil {
		return nil, err
	}
	o := filesystem.Options{KeepDescriptors: true, LargeObjectThreshold: largeObject}
	return &Repo{packs: packs, store: filesystem.NewStorageWithOptions(osfs.New(dir, osfs.WithBoundOS()), cache.NewObjectLRU(32*cache.MiByte), o)}, nil
}

// receive writes a pack that comes and indexes it: its objects get the ids
// that they have.
func (p *Repo) receive(pack io.Reader, w *watch, limit int64) error {
	f, err := os.Create(filepath.Join(p.packs, "incoming"))
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(f, &watchedBody{ReadCloser: io.NopCloser(pack), w: w, left: limit})
	w.stop() // what follows is our own work
	if err == nil && n == 0 {
		err = errors.New("the server has sent nothing")
	}
	if err != nil {
		return err
	}
	if err := checkPack(f); err != nil {
		return fmt.Errorf("reading the pack: %w", err)
	}
	if err := p.index(f); err != nil {
		return fmt.Errorf("indexing the pack: %w", err)
	}
	return nil
}

// checkPack reads a pack and refuses one whose objects could not be kept in
// memory one at a time.
func checkPack(f io.ReadSeeker) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	s := packfile.NewScanner(f)
	_, n, err := s.Header()
	if err != nil {
		return err
	}
	if n > maxObjects {
		return fmt.Errorf("it has %d objects, want %d at most", n, maxObjects)
	}
	for range n {
		h, err := s.NextObjectHeader()
		if err != nil {
			return err
		}
		if h.Type == 5 { // reserved
			return errors.New("it has an object of no type")
		}
		size := h.Length
		if size <= maxObject {
			var head deltaHead
			if _, _, err := s.NextObject(&head); err != nil {
				return err
			}
			if h.Type == plumbing.OFSDeltaObject || h.Type == plumbing.REFDeltaObject {
				size = head.target()
			}
		}
		if size > maxObject {
			return fmt.Errorf("it has an object of %d bytes, want %d at most", size, maxObject)
		}
	}
	return nil
}

// deltaHead keeps the beginning of a delta: the sizes of what it is a change
// of, and of what it makes of that (gitformat-pack, "Deltified
// representation").
type deltaHead struct{ b []byte }

// Write keeps what it needs.
func (d *deltaHead) Write(p []byte) (int, error) {
	if more := 2*binary.MaxVarintLen64 - len(d.b); more > 0 {
		d.b = append(d.b, p[:min(more, len(p))]...)
	}
	return len(p), nil
}

// target is the size of what the delta makes; too large where it has none.
func (d *deltaHead) target() int64 {
	r := bytes.NewReader(d.b)
	if _, err := binary.ReadUvarint(r); err != nil {
		return maxObject + 1
	}
	n, err := binary.ReadUvarint(r)
	if err != nil || n > maxObject {
		return maxObject + 1
	}
	return int64(n) //nolint:gosec // small enough
}

// index gives a pack its name and its index.
func (p *Repo) index(f *os.File) error {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	w := new(idxfile.Writer)
	parser, err := packfile.NewParser(packfile.NewScanner(f), w)
	if err != nil {
		return err
	}
	sum, err := parser.Parse()
	if err != nil {
		return err
	}
	index, err := w.Index()
	if err != nil {
		return err
	}
	base := filepath.Join(p.packs, "pack-"+sum.String())
	out, err := os.Create(base + ".idx")
	if err != nil {
		return err
	}
	_, err = idxfile.NewEncoder(out).Encode(index)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), base+".pack")
}

package rootfs

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Scan reads a folder that the calling user owns. Owners are left at 0:0. A
// file that its own mode keeps from being read is made readable on the disk,
// after its mode has been taken down: it is the tree's mode that counts.
// Several names of one file become one entry and hard links to it.
func Scan(ctx context.Context, dir string) (*Tree, error) {
	s := scanner{dir: dir, tree: New(), first: map[[2]uint64]string{}}
	if err := s.dirEntry(""); err != nil {
		return nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	for _, e := range s.closed { // not before all names of a file have been seen
		if err := os.Chmod(e.Source, os.FileMode(e.Mode&0o777|0o400)); err != nil {
			return nil, fmt.Errorf("reading %s: %w", dir, err)
		}
	}
	for _, e := range s.tree.Entries() { // sorted, so that the first name of a file does not depend on the disk
		if e.Is(unix.S_IFREG) {
			s.link(e)
		}
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for _, e := range s.tree.Entries() {
		if e.Is(unix.S_IFREG) && e.HardLink == "" {
			g.Go(func() error {
				if err := ctx.Err(); err != nil {
					return err
				}
				return e.Hash()
			})
		}
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	for _, e := range s.tree.Entries() {
		if e.HardLink != "" {
			o := s.tree.Get(e.HardLink)
			e.Size, e.SHA256, e.SHA1 = o.Size, o.SHA256, o.SHA1
		}
	}
	return s.tree, nil
}

type scanner struct {
	dir    string
	tree   *Tree
	first  map[[2]uint64]string
	closed []*Entry // files that their owner may not read
}

// link makes e a hard link where its file has been seen under another name.
func (s *scanner) link(e *Entry) {
	id := [2]uint64{e.Dev, e.Ino}
	if p, ok := s.first[id]; ok {
		e.HardLink, e.Source = p, ""
		s.tree.link(e)
		return
	}
	s.first[id] = e.Path
}

func (s *scanner) dirEntry(rel string) error {
	full := filepath.Join(s.dir, rel)
	e, err := s.lstat(rel)
	if err != nil {
		return err
	}
	s.tree.entries[rel] = e
	if e.Mode&0o700 != 0o700 {
		if err := os.Chmod(full, 0o700); err != nil {
			return err
		}
	}
	names, err := os.ReadDir(full)
	if err != nil {
		return err
	}
	for _, n := range names {
		p := path.Join(rel, n.Name())
		if n.IsDir() {
			err = s.dirEntry(p)
		} else {
			err = s.fileEntry(p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *scanner) fileEntry(rel string) error {
	e, err := s.lstat(rel)
	if err != nil {
		return err
	}
	full := filepath.Join(s.dir, rel)
	switch {
	case e.Is(unix.S_IFLNK):
		if e.Target, err = os.Readlink(full); err != nil {
			return err
		}
	case e.Is(unix.S_IFREG):
		e.Source = full
		if e.Mode&0o400 == 0 {
			s.closed = append(s.closed, e)
		}
	}
	s.tree.entries[rel] = e
	return nil
}

func (s *scanner) lstat(rel string) (*Entry, error) {
	var st unix.Stat_t
	full := filepath.Join(s.dir, rel)
	if err := unix.Lstat(full, &st); err != nil {
		return nil, &os.PathError{Op: "lstat", Path: full, Err: err}
	}
	e := &Entry{Path: rel, Mode: st.Mode, Dev: st.Dev, Ino: st.Ino}
	if e.Is(unix.S_IFCHR) || e.Is(unix.S_IFBLK) {
		e.Rdev = uint32(st.Rdev) //nolint:gosec // Linux device numbers that are in use have 32 bits
	}
	return e, nil
}

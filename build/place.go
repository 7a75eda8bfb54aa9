package build

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/gittree"
)

// unpackTree lays a KindTree input out in a new folder.
func (b *builder) unpackTree(in *lock.Input, dir string) error {
	_, err := b.unpackOwned(in, dir)
	return err
}

// unpackOwned is unpackTree. It returns the archive's headers of what has
// another mode or owner than packing gives of itself: what is in the folder
// has neither.
func (b *builder) unpackOwned(in *lock.Input, dir string) (owned []*tar.Header, err error) {
	r, err := b.open(in)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	if err := makeDir(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	b.mu.Lock()
	b.given[in] = true
	b.mu.Unlock()
	tr := tar.NewReader(r)
	for {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			_, err = io.Copy(io.Discard, r)
			return owned, err
		}
		if err == nil {
			err = untarOne(root, h, tr)
		}
		if err != nil {
			return nil, fmt.Errorf("unpacking %s: %w", ref(in), err)
		}
		if isOwned(h) {
			owned = append(owned, h)
		}
	}
}

// isOwned tells whether an owners file gave the entry anything. A folder is
// in the archive only then.
func isOwned(h *tar.Header) bool {
	perm := h.Mode
	return h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeReg && perm != 0o644 && perm != 0o755 ||
		h.Uid != 0 || h.Gid != 0 || h.Uname != "" || h.Gname != "" || h.PAXRecords[lock.CapabilityRecord] != ""
}

func untarOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if err := gittree.MakeDirs(root, path.Dir(name)); err != nil {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeDir:
		return gittree.MakeDirs(root, name)
	case tar.TypeReg:
		perm := fs.FileMode(0o644)
		if h.Mode&0o100 != 0 {
			perm = 0o755
		}
		f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
		if err != nil {
			return err
		}
		if _, err := io.Copy(f, r); err != nil {
			f.Close()
			return err
		}
		if err := f.Chmod(perm); err != nil { // whatever the umask is
			f.Close()
			return err
		}
		return f.Close()
	}
	return fmt.Errorf("%s: unexpected type %q in a packed folder", h.Name, h.Typeflag)
}

// place copies the files below from into a root and enters in its ledger how
// they came to be. No link in the root leads out of it: an absolute one begins
// at the root. Folders are made where they are missing.
func place(root *installed, from string, how func(p string) origin) error {
	dst, err := os.OpenRoot(root.dir)
	if err != nil {
		return err
	}
	defer dst.Close()
	return filepath.WalkDir(from, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, full)
		if err != nil || rel == "." {
			return err
		}
		if err := placeOne(root, dst, full, rel, d, how(rel)); err != nil {
			return fmt.Errorf("placing /%s: %w", rel, err)
		}
		return nil
	})
}

func placeOne(root *installed, dst *os.Root, full, rel string, d fs.DirEntry, how origin) error {
	at, err := rootfs.RealPath(dst, rel)
	if err != nil {
		return err
	}
	if d.IsDir() {
		made, err := placeDir(dst, at, d)
		if made {
			root.ledger.set(at, how)
		}
		return err
	}
	if up := path.Dir(at); up != "." { // missing where a link leads to nowhere
		made, err := makeDirs(root.dir, up)
		if err != nil {
			return err
		}
		for _, p := range made {
			root.ledger.set(p, how)
		}
	}
	if err := placeFile(dst, at, full, d); err != nil {
		return err
	}
	// A new file may have the number of one that a step knew and that is gone.
	st, err := dst.Lstat(at)
	if err != nil {
		return err
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		delete(root.seen, sandbox.FileID{Dev: sys.Dev, Ino: sys.Ino})
	}
	root.ledger.set(at, how)
	delete(root.asked, at)
	return nil
}

// placeDir makes a folder unless it, or a link to one, is there.
func placeDir(dst *os.Root, at string, d fs.DirEntry) (made bool, err error) {
	st, err := d.Info()
	if err != nil {
		return false, err
	}
	err = dst.Mkdir(at, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, dst.Chmod(at, st.Mode()&modeBits)
}

func placeFile(dst *os.Root, at, full string, d fs.DirEntry) error {
	if st, err := dst.Lstat(at); err == nil && st.IsDir() {
		return errors.New("there is a folder")
	}
	if err := dst.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if d.Type()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(full)
		if err != nil {
			return err
		}
		return dst.Symlink(target, at)
	}
	if !d.Type().IsRegular() {
		return errors.New("neither a file nor a symbolic link")
	}
	src, err := os.Open(full)
	if err != nil {
		return err
	}
	defer src.Close()
	st, err := src.Stat()
	if err != nil {
		return err
	}
	f, err := dst.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, src); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(st.Mode() & modeBits); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// devices turns the files that stand for device nodes into such nodes.
func devices(t *rootfs.Tree, seen map[sandbox.FileID]sandbox.Recorded) error {
	for _, e := range t.Entries() {
		r, ok := seen[sandbox.FileID{Dev: e.Dev, Ino: e.Ino}]
		if !ok || r.Device == nil || !e.Is(unix.S_IFREG) {
			continue
		}
		typ := uint32(unix.S_IFCHR)
		if r.Device.Block {
			typ = unix.S_IFBLK
		}
		n := &rootfs.Entry{
			Path: e.Path, Mode: typ | e.Mode&0o7777, UID: e.UID, GID: e.GID, Xattrs: e.Xattrs,
			Rdev: uint32(unix.Mkdev(r.Device.Major, r.Device.Minor)), //nolint:gosec // Linux device numbers that are in use have 32 bits
		}
		if err := t.Put(n); err != nil {
			return err
		}
	}
	return nil
}

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
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/build/sandbox"
	"caisson/lock"
)

// unpackTree lays a KindTree input out in a new folder.
func (b *builder) unpackTree(in *lock.Input, dir string) error {
	r, err := b.open(in)
	if err != nil {
		return err
	}
	defer r.Close()
	if err := makeDir(dir); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
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
			return err
		}
		if err == nil {
			err = untarOne(root, h, tr)
		}
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", ref(in), err)
		}
	}
}

func untarOne(root *os.Root, h *tar.Header, r io.Reader) error {
	name := path.Clean(h.Name)
	if dir := path.Dir(name); dir != "." {
		if err := root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return root.Symlink(h.Linkname, name)
	case tar.TypeReg:
		perm := fs.FileMode(h.Mode & 0o777) //nolint:gosec // nine bits
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

// place moves the files below from into the root and keeps account of them.
// No link in the root leads out of it. Folders are made where they are missing.
func (b *builder) place(root *installed, from string, how func(p string) placing) error {
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
		at, err := realPath(dst, rel)
		if err != nil {
			return fmt.Errorf("placing /%s: %w", rel, err)
		}
		if d.IsDir() {
			return placeDir(dst, at)
		}
		if err := placeFile(dst, at, full, d); err != nil {
			return fmt.Errorf("placing /%s: %w", rel, err)
		}
		b.placed[at] = how(rel)
		return nil
	})
}

// realPath is rel with the links of its folders followed inside root, so that
// /lib/x is accounted for as /usr/lib/x where /lib is a link.
func realPath(root *os.Root, rel string) (string, error) {
	at := ""
	parts := strings.Split(rel, "/")
	for i, part := range parts {
		next := path.Join(at, part)
		st, err := root.Lstat(next)
		if err != nil || st.Mode()&fs.ModeSymlink == 0 || i == len(parts)-1 {
			at = next
			continue
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = strings.TrimPrefix(path.Clean(target), "/")
		} else {
			at = path.Join(at, target)
		}
		if st, err := root.Lstat(at); err != nil || !st.IsDir() {
			return "", fmt.Errorf("/%s leads to /%s, which is not a folder", next, at)
		}
	}
	return at, nil
}

func placeDir(dst *os.Root, at string) error {
	err := dst.Mkdir(at, 0o755)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return dst.Chmod(at, 0o755)
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
	if err := f.Chmod(st.Mode().Perm()); err != nil {
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

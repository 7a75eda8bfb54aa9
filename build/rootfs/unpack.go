package rootfs

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
)

// RPM is a package to unpack: Open gives the bytes of the .rpm file, read to
// its end so that a reader which verifies a digest gets to say so.
type RPM struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// Unpack lays the payloads of packages out in dir without running anything:
// that is enough for a root whose programs are only to be run. No path, by
// whatever links a package brings, leads out of dir. Owners, set-id bits,
// devices and pipes are left out. Packages with links in the root folder (the
// ones that merge /bin into /usr/bin) come first.
func Unpack(ctx context.Context, dir string, packages []RPM) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	var first, rest []RPM
	for _, p := range packages {
		links, err := hasRootLinks(p)
		if err != nil {
			return fmt.Errorf("unpacking %s: %w", p.Name, err)
		}
		if links {
			first = append(first, p)
		} else {
			rest = append(rest, p)
		}
	}
	for _, some := range [][]RPM{first, rest} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(4)
		for _, p := range some {
			g.Go(func() error {
				if err := unpackOne(ctx, root, p); err != nil {
					return fmt.Errorf("unpacking %s: %w", p.Name, err)
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
	return nil
}

func hasRootLinks(p RPM) (bool, error) {
	r, err := p.Open()
	if err != nil {
		return false, err
	}
	defer r.Close()
	pkg, err := ReadPackage(bufio.NewReader(r))
	if err != nil {
		return false, err
	}
	for _, f := range pkg.Files {
		if f.Mode&unix.S_IFMT == unix.S_IFLNK && path.Dir(f.Path) == "/" {
			return true, nil
		}
	}
	return false, nil
}

func unpackOne(ctx context.Context, root *os.Root, p RPM) error {
	r, err := p.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	br := bufio.NewReaderSize(r, 1<<16)
	pkg, err := ReadPackage(br)
	if err != nil {
		return err
	}
	payload, err := pkg.Payload(br)
	if err != nil {
		return err
	}
	defer payload.Close()
	u := unpacker{root: root, pkg: pkg, links: map[uint32][]string{}}
	if err := u.all(ctx, cpio.NewReader(payload)); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, br)
	return err
}

type unpacker struct {
	root *os.Root
	pkg  *Package
	// links are the names of hard-linked files whose content is still to
	// come, by inode: an RPM carries it with the last name only.
	links map[uint32][]string
}

func (u *unpacker) all(ctx context.Context, cr *cpio.Reader) error {
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := cr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := u.entry(h, cr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	for _, names := range u.links { // files without content that have several names
		if err := u.file(names, 0o644, strings.NewReader("")); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) entry(h *cpio.Header, r io.Reader) error {
	name := strings.TrimPrefix(path.Clean("/"+h.Name), "/")
	if name == "" {
		return nil
	}
	switch h.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return u.root.MkdirAll(name, 0o755)
	case unix.S_IFLNK:
		return u.symlink(name, h.Size, r)
	case unix.S_IFREG:
		names := append(u.links[h.Ino], name)
		if h.Nlink > 1 && h.Size == 0 {
			u.links[h.Ino] = names
			return nil
		}
		if h.Nlink <= 1 {
			names = []string{name}
		} else {
			delete(u.links, h.Ino)
		}
		return u.file(names, fs.FileMode(h.Mode&0o777), r)
	}
	return nil
}

func (u *unpacker) symlink(name string, size int64, r io.Reader) error {
	if size > unix.PathMax {
		return fmt.Errorf("a symbolic link of %d bytes", size)
	}
	target, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if err := u.place(name); err != nil {
		return err
	}
	return u.root.Symlink(string(target), name)
}

// place makes room for name: its folder, and no file of that name.
func (u *unpacker) place(name string) error {
	if dir := path.Dir(name); dir != "." {
		if err := u.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (u *unpacker) file(names []string, perm fs.FileMode, r io.Reader) error {
	for _, n := range names {
		if err := u.place(n); err != nil {
			return err
		}
	}
	f, err := u.root.OpenFile(names[0], os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm|0o600)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, r); err != nil {
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, n := range names[1:] {
		if err := u.root.Link(names[0], n); err != nil {
			return err
		}
	}
	return nil
}

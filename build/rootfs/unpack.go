package rootfs

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// RPM is a package to unpack: Open gives the bytes of the .rpm file, read to
// its end so that a reader which verifies a digest gets to say so.
type RPM struct {
	Name string
	Open func() (io.ReadCloser, error)
}

// unpackers is how many packages are unpacked at a time; each may need
// maxWindow bytes.
const unpackers = 3

// Unpack lays the payloads of packages out in dir without running anything:
// that is enough for a root whose programs are only to be run. No path, by
// whatever links a package brings, leads out of dir: an absolute link is one
// below dir. Owners, set-id bits, devices and pipes are left out. Of a file
// that several packages have, the first one's is taken, so that the result
// depends on their order alone. Packages with links in the root folder (the
// ones that merge /bin into /usr/bin) are unpacked before the others.
func Unpack(ctx context.Context, dir string, packages []RPM) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	p, err := plan(ctx, packages)
	if err != nil {
		return err
	}
	for _, some := range [][]int{p.first, p.rest} {
		g, ctx := errgroup.WithContext(ctx)
		g.SetLimit(unpackers)
		for _, i := range some {
			g.Go(func() error {
				u := unpacker{root: root, plan: p, index: i}
				if err := u.run(ctx, packages[i]); err != nil {
					return fmt.Errorf("unpacking %s: %w", packages[i].Name, err)
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

// unpacking is what the headers of all packages say together.
type unpacking struct {
	first, rest []int             // the order of the packages
	links       map[string]string // links in the root folder, by name
	taken       map[string]int    // the package that a path's file is taken from
}

// plan reads all headers. Which package a path is taken from must not depend
// on which of them is unpacked first.
func plan(ctx context.Context, packages []RPM) (*unpacking, error) {
	headers := make([]*Package, len(packages))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(unpackers)
	for i, rpm := range packages {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			r, err := rpm.Open()
			if err != nil {
				return fmt.Errorf("unpacking %s: %w", rpm.Name, err)
			}
			defer r.Close()
			if headers[i], err = ReadPackage(bufio.NewReader(r)); err != nil {
				return fmt.Errorf("unpacking %s: %w", rpm.Name, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	p := &unpacking{links: map[string]string{}, taken: map[string]int{}}
	for i, h := range headers {
		if p.rootLinks(h) {
			p.first = append(p.first, i)
		} else {
			p.rest = append(p.rest, i)
		}
	}
	for i, h := range headers {
		for j := range h.Files {
			f := &h.Files[j]
			if f.Ghost || f.Mode&unix.S_IFMT == unix.S_IFDIR {
				continue
			}
			at := p.at(f.Path)
			if _, ok := p.taken[at]; !ok {
				p.taken[at] = i
			}
		}
	}
	return p, nil
}

// rootLinks notes a package's links in the root folder.
func (p *unpacking) rootLinks(h *Package) bool {
	found := false
	for _, f := range h.Files {
		if f.Mode&unix.S_IFMT == unix.S_IFLNK && path.Dir(f.Path) == "/" && !f.Ghost {
			p.links[f.Path] = path.Join("/", f.Target)
			found = true
		}
	}
	return found
}

// at is where a path lies once the links of the root folder are followed.
func (p *unpacking) at(name string) string {
	if i := strings.IndexByte(name[1:], '/') + 1; i > 0 {
		if target, ok := p.links[name[:i]]; ok {
			return target + name[i:]
		}
	}
	return name
}

// unpacker unpacks one package.
type unpacker struct {
	root  *os.Root
	plan  *unpacking
	index int
}

func (u *unpacker) run(ctx context.Context, rpm RPM) error {
	r, err := rpm.Open()
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
	err = pkg.walkPayload(payload, func(it item) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return u.item(it)
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, br)
	return err
}

func (u *unpacker) item(it item) error {
	if it.names[0] == "/" {
		return nil
	}
	if it.mode&unix.S_IFMT == unix.S_IFDIR {
		at, err := RealPath(u.root, it.names[0][1:])
		if err != nil {
			return err
		}
		if st, err := u.root.Lstat(at); err == nil && st.Mode()&fs.ModeSymlink != 0 {
			return nil // another package has it as a link
		}
		return u.mkdirAll(at)
	}
	var mine []string
	for _, name := range it.names {
		if u.plan.taken[u.plan.at(name)] == u.index {
			mine = append(mine, name)
		}
	}
	if len(mine) == 0 {
		return nil
	}
	switch it.mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return u.symlink(mine[0], it)
	case unix.S_IFREG:
		return u.file(mine, it)
	}
	return nil
}

// mkdirAll makes folders that everybody may enter, whatever the umask is.
func (u *unpacker) mkdirAll(dir string) error {
	if dir == "." || dir == "" {
		return nil
	}
	err := u.root.Mkdir(dir, 0o755)
	if errors.Is(err, fs.ErrNotExist) {
		if err := u.mkdirAll(path.Dir(dir)); err != nil {
			return err
		}
		err = u.root.Mkdir(dir, 0o755)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return u.root.Chmod(dir, 0o755)
}

func (u *unpacker) symlink(name string, it item) error {
	if it.size > unix.PathMax {
		return fmt.Errorf("a symbolic link of %d bytes", it.size)
	}
	target, err := io.ReadAll(it.r)
	if err != nil {
		return err
	}
	at, err := u.place(name)
	if err != nil {
		return err
	}
	return u.root.Symlink(string(target), at)
}

// place makes room for a name and says where it is: its folder, links
// followed, and no file of that name.
func (u *unpacker) place(name string) (string, error) {
	at, err := RealPath(u.root, name[1:])
	if err != nil {
		return "", err
	}
	if err := u.mkdirAll(path.Dir(at)); err != nil {
		return "", err
	}
	if err := u.root.Remove(at); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return at, nil
}

func (u *unpacker) file(names []string, it item) error {
	at, err := u.place(names[0])
	if err != nil {
		return err
	}
	f, err := u.root.OpenFile(at, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, h), it.r)
	if err == nil {
		err = it.check(h.Sum(nil))
	}
	if err == nil {
		err = f.Chmod(fs.FileMode(it.mode&0o777) | 0o600)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	for _, n := range names[1:] {
		also, err := u.place(n)
		if err != nil {
			return err
		}
		if err := u.root.Link(at, also); err != nil {
			return err
		}
	}
	return nil
}

// maxLinks is how many symbolic links one path may lead through; Linux's own
// limit (path_resolution(7)).
const maxLinks = 40

// RealPath is rel with the links of its folders followed, as a process that
// has root as its / would follow them: an absolute one begins at root, and no
// ".." leads out of it. The last part is not followed, and what does not
// exist is taken as it is.
func RealPath(root *os.Root, rel string) (string, error) {
	at, rest := ".", strings.Split(path.Clean("/" + rel)[1:], "/")
	for links := 0; len(rest) > 1; {
		part := rest[0]
		rest = rest[1:]
		next := path.Join("/", at, part)[1:]
		st, err := root.Lstat(next)
		if err != nil || st.Mode()&fs.ModeSymlink == 0 {
			at = next
			continue
		}
		if links++; links > maxLinks {
			return "", fmt.Errorf("/%s leads through too many symbolic links", rel)
		}
		target, err := root.Readlink(next)
		if err != nil {
			return "", err
		}
		if path.IsAbs(target) {
			at = "."
		}
		var parts []string
		for part := range strings.SplitSeq(target, "/") {
			if part != "" && part != "." {
				parts = append(parts, part)
			}
		}
		rest = append(parts, rest...)
	}
	return path.Join("/", at, rest[0])[1:], nil
}

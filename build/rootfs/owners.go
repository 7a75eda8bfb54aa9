package rootfs

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/lock/filecap"
)

// Seen is what a process asked for and was told it got, for one file: the
// last request counts.
type Seen struct {
	UID, GID *uint32
	Xattrs   map[string][]byte
}

// Claim is a package's word about a path.
type Claim struct {
	Package *Package
	File    *PackageFile
}

// Owners gives every entry the owner and the capabilities that its package's
// header names; names become numbers by the tree's own passwd and group. What seen knows of
// a file, by device and inode, goes before the header. Entries that neither
// knows belong to 0:0. The result says for each path which packages name it.
func (t *Tree) Owners(packages []*Package, seen func(dev, ino uint64) (Seen, bool)) (map[string][]Claim, error) {
	users, err := t.IDs("etc/passwd")
	if err != nil {
		return nil, err
	}
	groups, err := t.IDs("etc/group")
	if err != nil {
		return nil, err
	}
	claims := map[string][]Claim{}
	for _, p := range packages {
		for i := range p.Files {
			f := &p.Files[i]
			at := t.place(f.Path)
			claims[at] = append(claims[at], Claim{Package: p, File: f})
			e := t.entries[at]
			// What a package leaves to others to make, rpm does not touch either.
			if e == nil || f.Ghost || e.Mode&unix.S_IFMT != f.Mode&unix.S_IFMT {
				continue
			}
			if err := t.applyHeader(e, p, f, users, groups); err != nil {
				return nil, err
			}
		}
	}
	if seen != nil {
		for _, e := range t.entries {
			if s, ok := seen(e.Dev, e.Ino); ok {
				t.applySeen(e, s)
			}
		}
	}
	return claims, nil
}

func (t *Tree) applyHeader(e *Entry, p *Package, f *PackageFile, users, groups map[string]uint32) error {
	uid, ok := users[f.User]
	if !ok {
		return fmt.Errorf("%s: %s belongs to user %q, whom the root's /etc/passwd does not have", p.NEVRA, f.Path, f.User)
	}
	gid, ok := groups[f.Group]
	if !ok {
		return fmt.Errorf("%s: %s belongs to group %q, which the root's /etc/group does not have", p.NEVRA, f.Path, f.Group)
	}
	e.UID, e.GID = uid, gid
	if f.Caps != "" && e.Is(unix.S_IFREG) {
		v, err := filecap.Parse(f.Caps)
		if err != nil {
			return fmt.Errorf("%s: %s: %w", p.NEVRA, f.Path, err)
		}
		e.Xattrs = map[string][]byte{filecap.Xattr: v}
	}
	return nil
}

func (t *Tree) applySeen(e *Entry, s Seen) {
	if s.UID != nil {
		e.UID = *s.UID
	}
	if s.GID != nil {
		e.GID = *s.GID
	}
	for name, v := range s.Xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string][]byte{}
		}
		e.Xattrs[name] = v
	}
}

// place is the path at which a package's absolute path lies in the tree: its
// folder's links followed, its own not.
func (t *Tree) place(p string) string {
	p = strings.TrimPrefix(path.Clean(p), "/")
	dir, base := path.Split(p)
	if d := t.Resolve(dir); d != nil {
		return path.Join(d.Path, base)
	}
	return p
}

// IDs reads a passwd or group file: names to numbers. A tree without one
// knows root alone.
func (t *Tree) IDs(name string) (map[string]uint32, error) {
	ids := map[string]uint32{"root": 0}
	if t.Resolve(name) == nil {
		return ids, nil
	}
	b, err := t.ReadFile(name)
	if err != nil {
		return nil, err
	}
	for i, line := range strings.Split(string(b), "\n") {
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, ":")
		if len(f) < 3 {
			return nil, fmt.Errorf("/%s:%d: %q has fewer than three fields", name, i+1, line)
		}
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil {
			return nil, fmt.Errorf("/%s:%d: id %q: %w", name, i+1, f[2], err)
		}
		ids[f[0]] = uint32(id)
	}
	return ids, nil
}

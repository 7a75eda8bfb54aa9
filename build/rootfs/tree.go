// Package rootfs is the content of a file system before it has a format: an
// ordered tree of entries, read from a folder that rpm filled, normalised,
// and handed to the writers of build/image.
//
// A folder belongs to one user whatever its files should belong to, so owners
// do not come from the disk: they come from what the sandbox saw a process
// ask for, else from the packages (see Owners). Extended attributes of the
// host's file system are never taken over.
package rootfs

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // SPDX 2.3 section 8.4 demands SHA-1 beside SHA-256
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
)

// Entry is one name in the tree.
type Entry struct {
	// Path is slash-separated, without a leading slash; "" is the root.
	Path string
	// Mode is the type and the permissions as stat has them.
	Mode     uint32
	UID, GID uint32
	Size     int64  // of a regular file, in bytes
	Target   string // of a symbolic link
	// HardLink is the path of the entry that this is another name of.
	HardLink string
	Rdev     uint32
	Xattrs   map[string][]byte
	// SHA256 and SHA1 are of a regular file's content.
	SHA256 digest.Digest
	SHA1   string

	// Source is the file that holds the content, unless Content does.
	Source  string
	Content []byte
	// Dev and Ino are the file's on the disk it was read from.
	Dev, Ino uint64
}

// Is tells whether the entry is of a type: unix.S_IFREG, S_IFDIR, ...
func (e *Entry) Is(typ uint32) bool { return e.Mode&unix.S_IFMT == typ }

// Open returns the content of a regular file.
func (e *Entry) Open() (io.ReadCloser, error) {
	if e.Source == "" {
		return io.NopCloser(bytes.NewReader(e.Content)), nil
	}
	return os.Open(e.Source)
}

// Tree is a set of entries by path.
type Tree struct {
	entries map[string]*Entry
	names   map[string][]string // the other names of a file, sorted, by its first
}

// New is a tree with a root folder only.
func New() *Tree {
	return &Tree{entries: map[string]*Entry{"": {Mode: unix.S_IFDIR | 0o755}}, names: map[string][]string{}}
}

// Get returns the entry at a path, following no link; nil if there is none.
func (t *Tree) Get(p string) *Entry { return t.entries[p] }

// Entries are all entries in the order of their paths, parents first.
func (t *Tree) Entries() []*Entry {
	out := make([]*Entry, 0, len(t.entries))
	for _, p := range slices.Sorted(maps.Keys(t.entries)) {
		out = append(out, t.entries[p])
	}
	return out
}

// Len is the number of entries.
func (t *Tree) Len() int { return len(t.entries) }

// Put adds or replaces an entry; its parents are made where they are missing,
// with mode 0755. A folder is not replaced by another type, nor the other
// way round.
func (t *Tree) Put(e *Entry) error {
	if e.Path != "" {
		if err := t.parents(e.Path); err != nil {
			return err
		}
	}
	if old := t.entries[e.Path]; old != nil && old.Is(unix.S_IFDIR) != e.Is(unix.S_IFDIR) {
		return fmt.Errorf("/%s is a folder and something else at once", e.Path)
	} else if old != nil {
		t.unlink(old)
	}
	t.entries[e.Path] = e
	if e.HardLink != "" {
		t.link(e)
	}
	return nil
}

// link notes e among the names of the file that it is a hard link to.
func (t *Tree) link(e *Entry) {
	all := t.names[e.HardLink]
	i, _ := slices.BinarySearch(all, e.Path)
	t.names[e.HardLink] = slices.Insert(all, i, e.Path)
}

func (t *Tree) parents(p string) error {
	dir := path.Dir(p)
	if dir == "." {
		return nil
	}
	if d := t.entries[dir]; d != nil {
		if !d.Is(unix.S_IFDIR) {
			return fmt.Errorf("/%s: /%s is not a folder", p, dir)
		}
		return nil
	}
	if err := t.parents(dir); err != nil {
		return err
	}
	t.entries[dir] = &Entry{Path: dir, Mode: unix.S_IFDIR | 0o755}
	return nil
}

// PutFile adds a regular file with that content, owned by 0:0.
func (t *Tree) PutFile(p string, perm uint32, content []byte) error {
	s1 := sha1.Sum(content) //nolint:gosec // see above
	return t.Put(&Entry{
		Path: p, Mode: unix.S_IFREG | perm, Size: int64(len(content)), Content: content,
		SHA256: digest.Of(content), SHA1: hex.EncodeToString(s1[:]),
	})
}

// PutLink adds a symbolic link.
func (t *Tree) PutLink(p, target string) error {
	return t.Put(&Entry{Path: p, Mode: unix.S_IFLNK | 0o777, Target: target})
}

// PutDir adds a folder unless it is there.
func (t *Tree) PutDir(p string, perm uint32) error {
	if e := t.entries[p]; e != nil && e.Is(unix.S_IFDIR) {
		return nil
	}
	return t.Put(&Entry{Path: p, Mode: unix.S_IFDIR | perm})
}

// Remove takes an entry and all below it out of the tree and says how many
// there were. A hard link whose first name goes becomes the first itself.
func (t *Tree) Remove(p string) int {
	e := t.entries[p]
	if e == nil {
		return 0
	}
	n := 1
	if e.Is(unix.S_IFDIR) {
		for q, below := range t.entries {
			if strings.HasPrefix(q, p+"/") {
				t.drop(below, q)
				n++
			}
		}
	}
	t.drop(e, p)
	return n
}

// drop takes one entry out of the tree.
func (t *Tree) drop(e *Entry, p string) {
	t.unlink(e)
	delete(t.entries, p)
}

// unlink takes an entry out of the names of its file. Where it was the first,
// the next one has the content from now on.
func (t *Tree) unlink(e *Entry) {
	if e.HardLink != "" {
		all := t.names[e.HardLink]
		if i, ok := slices.BinarySearch(all, e.Path); ok {
			t.names[e.HardLink] = slices.Delete(all, i, i+1)
		}
		return
	}
	others := t.names[e.Path]
	delete(t.names, e.Path)
	if len(others) == 0 {
		return
	}
	heir := t.entries[others[0]]
	heir.HardLink, heir.Source, heir.Content = "", e.Source, e.Content
	heir.Size, heir.SHA256, heir.SHA1 = e.Size, e.SHA256, e.SHA1
	for _, p := range others[1:] {
		t.entries[p].HardLink = heir.Path
	}
	if len(others) > 1 {
		t.names[heir.Path] = others[1:]
	}
}

// Resolve follows symbolic links inside the tree, as a process that has the
// tree as its root would, and returns the entry; nil where there is none or a
// loop.
func (t *Tree) Resolve(p string) *Entry {
	for range 40 {
		p = strings.TrimPrefix(path.Clean("/"+p), "/")
		link := t.firstLink(p)
		if link == nil {
			return t.entries[p]
		}
		rest := strings.TrimPrefix(p[len(link.Path):], "/")
		if path.IsAbs(link.Target) {
			p = path.Join(link.Target, rest)
		} else {
			p = path.Join(path.Dir(link.Path), link.Target, rest)
		}
	}
	return nil
}

// firstLink is the first symbolic link on the way to p, p included.
func (t *Tree) firstLink(p string) *Entry {
	for i := 0; i <= len(p); i++ {
		if i == len(p) || p[i] == '/' {
			if e := t.entries[p[:i]]; e != nil && e.Is(unix.S_IFLNK) {
				return e
			}
		}
	}
	return nil
}

// ReadFile is the content of the regular file at p, links followed.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	e := t.Resolve(p)
	if e == nil || !e.Is(unix.S_IFREG) {
		return nil, fmt.Errorf("/%s: no such file", p)
	}
	if e.HardLink != "" {
		e = t.entries[e.HardLink]
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	return io.ReadAll(r)
}

// Hash fills in the entry's digests and size from its content.
func (e *Entry) Hash() error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	return e.Read(r)
}

// Read fills in the digests and the size of the content that r has.
func (e *Entry) Read(r io.Reader) error {
	h2, h1 := sha256.New(), sha1.New() //nolint:gosec // see above
	n, err := io.Copy(io.MultiWriter(h2, h1), r)
	if err != nil {
		return err
	}
	e.Size, e.SHA256, e.SHA1 = n, digest.Digest(h2.Sum(nil)), hex.EncodeToString(h1.Sum(nil))
	return nil
}

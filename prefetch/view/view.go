// Package view lays out the inputs of a lock, which lie in the store by
// digest, as folders that other tools read: a Go module cache and proxy, cargo
// registries, RPM repositories.
//
// # Files
//
// What has a digest is linked from the store: hard links where the file
// system and the owner allow it, else reflinks, else copies (see
// cas.Store.Link). All files are read-only, and a hard link is the store's own
// file: who makes one writable and writes to it damages the store, which the
// next build notices and the next prefetch mends. Folders may be written to, as
// go does with a module cache. What is not in the store (indexes, repodata) is
// made here, and is a function of the lock and of the packages; short files of
// the same bytes are links to one.
//
// # Folder
//
// A view is written under a temporary name beside its folder, which is then
// renamed, or exchanged for the view that was there. So a reader sees the old
// view or the new one; and one that is what it should be, to the last file, is
// left alone. Where the folder is a mount point, or nobody may write beside it,
// its entries are exchanged one after the other. At its top lies
// .caisson-view, by which the next run knows that it may replace the folder;
// any other folder that is not empty is refused.
//
// # Limits
//
// The bytes that are linked are not read again: Fill proves them, and a copy
// is verified while it is made. Nothing is synced to disk: a view can be made
// again at any time.
package view

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// Tree is a view that is being put together: which file lies where.
type Tree struct {
	store   *cas.Store
	entries map[string]entry
	folders []folder
}

// folder is made by a function, when all files are there.
type folder struct {
	name string
	make func(dir string) error
}

// entry is one file: of the store, or with these bytes.
type entry struct {
	digest digest.Digest // of the store's file; zero where there are bytes
	what   string        // the input's name, for errors
	data   []byte        // not nil where there is no digest
}

func (e entry) equal(o entry) bool { return e.digest == o.digest && bytes.Equal(e.data, o.data) }

// New is an empty view of what a store has.
func New(s *cas.Store) *Tree { return &Tree{store: s, entries: make(map[string]entry)} }

// Len is the number of files.
func (t *Tree) Len() int { return len(t.entries) }

// Link puts an input at a slash-separated path.
func (t *Tree) Link(name string, in *lock.Input) error {
	return t.add(name, entry{digest: in.SHA256, what: in.Kind + " " + in.Name})
}

// File puts these bytes, which may not change from now on, at a slash-separated
// path.
func (t *Tree) File(name string, b []byte) error {
	if b == nil {
		b = []byte{}
	}
	return t.add(name, entry{what: path.Base(name), data: b})
}

// add refuses two files under one name, and names that leave the view.
func (t *Tree) add(name string, e entry) error {
	if !fs.ValidPath(name) || name == "." || strings.ContainsAny(name, "\\\x00\n") || path.Base(name) == marker {
		return fmt.Errorf("laying out a view: %s cannot be called %q", e.what, name)
	}
	if old, ok := t.entries[name]; ok && !old.equal(e) {
		return fmt.Errorf("laying out a view: %s and %s would both be %s", old.what, e.what, name)
	}
	t.entries[name] = e
	return nil
}

// remember keeps bytes in the store, where recall finds them by the key. That
// it cannot is no error: they are made again the next time.
func (t *Tree) remember(key string, b []byte) {
	if d, ok := t.keep(b); ok {
		_ = t.store.Remember(key, d)
	}
}

// keep puts bytes into the store; false where that may not be written to.
func (t *Tree) keep(b []byte) (digest.Digest, bool) {
	d, _, err := t.store.Put(bytes.NewReader(b), digest.Of(b))
	return d, err == nil
}

// recall is the digest of what was remembered, if the store still has it.
func (t *Tree) recall(key string) (digest.Digest, bool) {
	d, ok := t.store.Lookup(key)
	return d, ok && t.store.Has(d)
}

// read is a file of the store, verified.
func (t *Tree) read(d digest.Digest) ([]byte, error) {
	f, err := t.store.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(f)
}

// Package fsimage reads the file systems that a root can be in.
package fsimage

import (
	"errors"
	"io"

	"caisson/build/image/erofs"
	"caisson/build/image/ext4"
	"caisson/build/image/squashfs"
)

// Kinds of file systems.
const (
	EROFS    = "erofs"
	Squashfs = "squashfs"
	Ext4     = "ext4" // and ext2 and ext3
)

// Entry is a name in a file system, and what it is the name of.
type Entry = erofs.Entry

// FS is a file system in an image.
type FS interface {
	// Walk calls fn for every entry, as [erofs.FS.Walk] does.
	Walk(fn func(e Entry) error) error
	// Size is the size of the image in bytes.
	Size() int64
}

// Kind tells by its magic number what an image holds; "" where it is none of
// these.
func Kind(r io.ReaderAt) string {
	for _, k := range []struct {
		kind, magic string
		at          int64
	}{{EROFS, "\xe2\xe1\xf5\xe0", 1024}, {Squashfs, "hsqs", 0}, {Ext4, "\x53\xef", 1024 + 56}} {
		b := make([]byte, len(k.magic))
		if n, _ := r.ReadAt(b, k.at); n == len(b) && string(b) == k.magic {
			return k.kind
		}
	}
	return ""
}

// Open reads the superblock of an image that r has from its beginning.
func Open(r io.ReaderAt) (FS, error) { return OpenKind(r, Kind(r)) }

// OpenKind is Open of what is, or should be, of a kind.
func OpenKind(r io.ReaderAt, kind string) (FS, error) {
	switch kind {
	case EROFS:
		return erofs.Open(r)
	case Squashfs:
		f, err := squashfs.Open(r)
		return squashed{f}, err
	case Ext4:
		f, err := ext4.Open(r)
		return extended{f}, err
	}
	return nil, errors.New("neither EROFS, squashfs nor ext4")
}

// extended gives an ext4's entries in the common form.
type extended struct{ *ext4.FS }

func (e extended) Walk(fn func(e Entry) error) error {
	return e.FS.Walk(func(e ext4.Entry) error { return fn(Entry(e)) })
}

// squashed gives a squashfs's entries in the common form.
type squashed struct{ *squashfs.FS }

func (s squashed) Walk(fn func(e Entry) error) error {
	return s.FS.Walk(func(e squashfs.Entry) error { return fn(Entry(e)) })
}

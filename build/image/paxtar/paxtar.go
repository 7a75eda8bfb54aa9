// Package paxtar writes a file system as a tar archive of the form that POSIX.1
// calls pax: what containers' layers and most programs that unpack take.
//
// Entries are in the order of their paths, folders with a slash behind their
// names, none for the root itself. Owners are numbers, without names; all times
// are one, given; extended attributes are the records SCHILY.xattr.NAME (file
// capabilities among them, as security.capability), and what does not fit into
// the header of 512 bytes is in further records, sorted by key. Of the names
// of one file the first in order has the content, the others are links to it. A
// file with holes is written out.
//
// Sockets have no form in tar. The same entries give the same bytes.
package paxtar

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Entry is one name.
type Entry struct {
	// Path is slash-separated, without a slash in front. The one of the root,
	// "", is left out.
	Path string
	// Mode is the type (S_IFMT) and the permissions.
	Mode     uint32
	UID, GID uint32
	Size     int64  // of a regular file, in bytes
	Target   string // of a symbolic link
	// HardLink is the path of the entry that this is another name of: which is
	// none itself.
	HardLink string
	Rdev     uint32
	Xattrs   map[string][]byte
	// Open is the content of a regular file that is no HardLink.
	Open func() (io.ReadCloser, error)
}

// xattrRecord begins the key of an extended attribute's record.
const xattrRecord = "SCHILY.xattr."

// types are those of tar.
var types = map[uint32]byte{
	unix.S_IFREG: tar.TypeReg, unix.S_IFDIR: tar.TypeDir, unix.S_IFLNK: tar.TypeSymlink,
	unix.S_IFCHR: tar.TypeChar, unix.S_IFBLK: tar.TypeBlock, unix.S_IFIFO: tar.TypeFifo,
}

// Write writes entries, whose times are mtime, in seconds since 1970. Their
// order does not matter.
func Write(w io.Writer, entries []Entry, mtime int64) error {
	sorted := slices.Clone(entries)
	slices.SortFunc(sorted, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	byPath := make(map[string]*Entry, len(sorted))
	for i := range sorted {
		byPath[sorted[i].Path] = &sorted[i]
	}
	tw := tar.NewWriter(w)
	first := map[string]string{} // the name under which a file was written, by its own
	for i := range sorted {
		e := &sorted[i]
		if e.Path == "" {
			continue
		}
		file := e
		if e.HardLink != "" {
			if file = byPath[e.HardLink]; file == nil || file.HardLink != "" {
				return fmt.Errorf("%s: it is a link to %q, which is no file", e.Path, e.HardLink)
			}
		}
		as, again := first[file.Path]
		if !again {
			first[file.Path] = e.Path
		}
		if err := write(tw, e.Path, file, as, mtime); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return tw.Close()
}

// write writes a file under a name, or a link to the name that it was written
// under before.
func write(tw *tar.Writer, name string, e *Entry, as string, mtime int64) error {
	h := &tar.Header{
		Name: name, Mode: int64(e.Mode & 0o7777), Uid: int(e.UID), Gid: int(e.GID), ModTime: time.Unix(mtime, 0), Format: tar.FormatPAX,
	}
	var ok bool
	if h.Typeflag, ok = types[e.Mode&unix.S_IFMT]; !ok {
		return fmt.Errorf("a file of mode %#o has no form in a tar archive", e.Mode)
	}
	if as != "" {
		h.Typeflag, h.Linkname = tar.TypeLink, as
		return tw.WriteHeader(h)
	}
	switch h.Typeflag {
	case tar.TypeReg:
		h.Size = e.Size
	case tar.TypeDir:
		h.Name += "/"
	case tar.TypeSymlink:
		h.Linkname = e.Target
	case tar.TypeChar, tar.TypeBlock:
		h.Devmajor, h.Devminor = int64(unix.Major(uint64(e.Rdev))), int64(unix.Minor(uint64(e.Rdev)))
	}
	if len(e.Xattrs) > 0 {
		h.PAXRecords = map[string]string{}
		for k, v := range e.Xattrs {
			h.PAXRecords[xattrRecord+k] = string(v)
		}
	}
	if err := tw.WriteHeader(h); err != nil || h.Typeflag != tar.TypeReg {
		return err
	}
	return copyContent(tw, e)
}

func copyContent(w io.Writer, e *Entry) error {
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	n, err := io.Copy(w, io.LimitReader(r, e.Size))
	if err != nil {
		return err
	}
	if more, _ := r.Read(make([]byte, 1)); n != e.Size || more != 0 {
		return errors.New("its content has another size than it is said to have")
	}
	return nil
}

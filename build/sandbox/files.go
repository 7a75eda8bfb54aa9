package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// maxRecorded bounds the files with recorded ownership; a call for one more fails
// with EDQUOT, because to forget one would make a wrong image.
const maxRecorded = 1 << 19

// maxXattrBytes bounds all attributes that are set, in bytes, likewise.
const maxXattrBytes = 64 << 20

// fileTable holds what was recorded for each file. An inode number can be given to
// another file when the first is gone, so each entry has the file's handle too,
// which holds a generation.
type fileTable struct {
	files      map[FileID]*Recorded
	xattrBytes int
}

// newFileTable goes on from what earlier runs recorded.
func newFileTable(earlier map[FileID]Recorded) *fileTable {
	t := &fileTable{files: make(map[FileID]*Recorded, len(earlier))}
	for id, r := range earlier {
		r.Xattrs = maps.Clone(r.Xattrs)
		t.files[id] = &r
	}
	return t
}

// identity is the file handle behind fd, or where its file system has none, the
// file's time of birth, or if that is not known either, "".
func identity(fd int) string {
	if h, _, err := unix.NameToHandleAt(fd, "", unix.AT_EMPTY_PATH); err == nil {
		return fmt.Sprintf("%d:%x", h.Type(), h.Bytes())
	}
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_BTIME, &st); err == nil && st.Mask&unix.STATX_BTIME != 0 {
		return fmt.Sprintf("%d.%d", st.Btime.Sec, st.Btime.Nsec)
	}
	return ""
}

// update changes the record of the file that fd is open on.
func (t *fileTable) update(fd int, st *unix.Stat_t, change func(*Recorded)) answer {
	id, ident := FileID{st.Dev, st.Ino}, identity(fd)
	e := t.files[id]
	if e == nil && len(t.files) == maxRecorded {
		return fail(unix.EDQUOT)
	}
	if e == nil || e.identity != ident {
		e = &Recorded{identity: ident}
		t.files[id] = e
	}
	if p, err := readlink(fmt.Sprint("/proc/self/fd/", fd)); err == nil {
		e.Path = p
	}
	change(e)
	return succeed()
}

// setXattr records an attribute of the file that fd is open on.
func (t *fileTable) setXattr(fd int, st *unix.Stat_t, name string, value []byte) answer {
	if t.xattrBytes += len(name) + len(value); t.xattrBytes > maxXattrBytes {
		return fail(unix.EDQUOT)
	}
	return t.update(fd, st, func(f *Recorded) {
		if f.Xattrs == nil {
			f.Xattrs = map[string][]byte{}
		}
		f.Xattrs[name] = value
	})
}

func (t *fileTable) hasXattr(fd int, st *unix.Stat_t, name string) bool {
	e := t.files[FileID{st.Dev, st.Ino}]
	if e == nil || e.identity != identity(fd) {
		return false
	}
	_, ok := e.Xattrs[name]
	return ok
}

// settle walks what the command could write to and returns the records of the
// files that are there, with the paths that they have now. Where a folder cannot
// be read, records of files that were not found are kept as they are.
func (t *fileTable) settle(s Spec) (map[FileID]Recorded, error) {
	settled := map[FileID]Recorded{}
	if len(t.files) == 0 {
		return settled, nil
	}
	unread := false
	places := []Mount{}
	if s.RootWritable {
		places = append(places, Mount{Source: s.Root, Target: "/"})
	}
	for _, m := range s.Mounts {
		if m.Writable {
			places = append(places, m)
		}
	}
	for _, m := range places {
		err := filepath.WalkDir(m.Source, func(name string, _ fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrPermission) {
				unread = true
				return nil
			}
			if err != nil {
				return err
			}
			target := path.Join(m.Target, strings.TrimPrefix(name, m.Source))
			return t.found(name, target, settled)
		})
		if err != nil {
			return settled, fmt.Errorf("looking for the files with recorded owners: %w", err)
		}
	}
	if unread {
		for id, e := range t.files {
			if _, ok := settled[id]; !ok {
				settled[id] = *e
			}
		}
	}
	return settled, nil
}

// found adds the record of the file at name, if it has one, to settled.
func (t *fileTable) found(name, target string, settled map[FileID]Recorded) error {
	var st unix.Stat_t
	if err := unix.Lstat(name, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: name, Err: err}
	}
	id := FileID{st.Dev, st.Ino}
	e := t.files[id]
	if e == nil {
		return nil
	}
	if _, ok := settled[id]; ok {
		return nil // another name of a file that was found
	}
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	if identity(fd) == e.identity {
		r := *e
		r.Path = target
		settled[id] = r
	}
	return nil
}

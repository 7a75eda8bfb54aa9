package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
)

// Linked says how a file of the store got another name.
type Linked string

// The ways in which Link gives a file another name, in the order in which it
// tries them.
const (
	HardLink Linked = "hard link" // the same file: to write to it is to damage the store
	Reflink  Linked = "reflink"   // a copy that shares the blocks
	Copy     Linked = "copy"
)

// Link gives the file of that digest a further name, which must not exist,
// below an open folder: a hard link where the file system and the file's owner
// allow it (see protected_hardlinks in proc(5)), else a reflink, else a copy
// that is verified while it is made. What is linked is not looked at before:
// neither what kind of file it is, nor its bytes. The file under the name is
// read-only. The error is a *MissingError where the store has no such file.
func (s *Store) Link(d digest.Digest, dir *os.File, name string) (Linked, error) {
	s.lease.pin(s.dir, d)
	err := s.linkTo(d, dir, name)
	for _, l := range s.lower {
		if !errors.Is(err, fs.ErrNotExist) {
			break
		}
		err = l.linkTo(d, dir, name)
	}
	switch {
	case err == nil:
		return HardLink, nil
	case errors.Is(err, fs.ErrNotExist):
		if _, _, ok := s.find(d); !ok {
			return "", &MissingError{Digest: d}
		}
		fallthrough // it is the folder of the name that there is not
	case errors.Is(err, fs.ErrExist):
		return "", fmt.Errorf("linking %s from the store: %w", filepath.Join(dir.Name(), name), err)
	}
	// Any reason that is not the new name's own ends in a copy: file systems
	// have many errors for what they cannot do.
	how, err := s.copyTo(d, dir, name)
	if err != nil {
		return "", fmt.Errorf("copying %s from the store: %w", filepath.Join(dir.Name(), name), err)
	}
	return how, nil
}

// linkTo makes a hard link to a file of this layer.
func (s *Store) linkTo(d digest.Digest, dir *os.File, name string) error {
	return unix.Linkat(unix.AT_FDCWD, s.path(d), int(dir.Fd()), name, 0)
}

func (s *Store) copyTo(d digest.Digest, dir *os.File, name string) (how Linked, err error) {
	from, err := s.open(d)
	if err != nil {
		return "", err
	}
	defer from.Close()
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_CLOEXEC, 0o444)
	if err != nil {
		return "", err
	}
	to := os.NewFile(uintptr(fd), name)
	how = Reflink
	if unix.IoctlFileClone(fd, int(from.f.Fd())) != nil {
		how = Copy
		_, err = io.Copy(to, from)
	}
	if err = errors.Join(err, to.Chmod(0o444), to.Close()); err != nil {
		return "", errors.Join(err, unix.Unlinkat(int(dir.Fd()), name, 0))
	}
	return how, nil
}

// Package cas is the content-addressed store: files by the SHA-256 of their
// bytes, shared by every process that is given the same folder.
//
// # Layout
//
//	DIR/sha256/ab/abcd…   a file; the name is its digest's 64 hex digits; mode 0444
//	DIR/tmp/NAME          being written; locked (flock) by the process that writes it
//	DIR/index/ab/abcd…    what is remembered under a key; the name is the key's SHA-256
//
// # Promise
//
// A file is written in DIR/tmp, hashed while it is written, synced, and only
// then renamed to its digest. So a final name never holds other bytes than
// were hashed, whatever is killed and whenever; what a disk does to them
// later is found when they are read. A file is never changed: one that was
// damaged is replaced by a rename, and readers of the old one keep it. The
// folder's own entries are not synced: after a loss of power a file may be
// absent, never wrong.
//
// A temporary file whose writer has died is no longer locked; the next Open
// removes it.
//
// # Limits
//
// The folder has to be on a file system with flock and rename; the store
// protects against accidents, not against somebody who may write to it. It
// grows without bound.
package cas

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"caisson/lock/digest"
)

// Store is a folder of files by digest. Its methods may be called from many
// goroutines.
type Store struct {
	dir string
}

// MissingError says that the store does not have a file.
type MissingError struct {
	Digest digest.Digest
	// Name is what the file is for, where the caller knew; else empty.
	Name string
}

func (e *MissingError) Error() string {
	if e.Name != "" {
		return fmt.Sprintf("%s: not in the store (%s)", e.Name, e.Digest)
	}
	return fmt.Sprintf("%s is not in the store", e.Digest)
}

// Is makes a MissingError a fs.ErrNotExist.
func (e *MissingError) Is(target error) bool { return target == fs.ErrNotExist }

// DamagedError says that the bytes under a digest's name are not the digest's.
type DamagedError struct {
	Digest digest.Digest
	Path   string
	// Got is the digest of what is there; zero where only the size was looked
	// at or the file is not a regular one.
	Got digest.Digest
	// Name is what the file is for, where the caller knew; else empty.
	Name string
}

func (e *DamagedError) Error() string {
	what := e.Path
	if e.Name != "" {
		what = e.Name + ": " + e.Path
	}
	if e.Got.IsZero() {
		return fmt.Sprintf("%s is damaged: not the file or the size of %s", what, e.Digest)
	}
	return fmt.Sprintf("%s is damaged: got %s, want %s", what, e.Got, e.Digest)
}

// MismatchError says that bytes on their way into the store were not those
// asked for.
type MismatchError struct {
	Got, Want digest.Digest
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("got %s, want %s", e.Got, e.Want)
}

// Open opens the store in dir and creates the folder where it is absent.
// Temporary files of processes that no longer run are removed. A store that
// may only be read can be opened.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if err := os.MkdirAll(abs, 0o777); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	s := &Store{dir: abs}
	s.removeStale()
	return s, nil
}

// Dir is the store's folder, an absolute path.
func (s *Store) Dir() string { return s.dir }

// Path is where the file of that digest is, or would be.
func (s *Store) Path(d digest.Digest) string {
	h := d.Hex()
	return filepath.Join(s.dir, "sha256", h[:2], h)
}

// Has tells whether there is a file of that digest, without reading it.
func (s *Store) Has(d digest.Digest) bool {
	_, ok := s.Size(d)
	return ok
}

// Size is the length in bytes of the file of that digest, and false where
// there is no regular file under its name.
func (s *Store) Size(d digest.Digest) (int64, bool) {
	fi, err := os.Lstat(s.Path(d))
	if err != nil || !fi.Mode().IsRegular() {
		return 0, false
	}
	return fi.Size(), true
}

// Put copies r into the store and returns its digest and its length in
// bytes. Where want is not zero and the bytes are others, nothing is stored
// and the error is a *MismatchError. A damaged file under the digest's name
// is replaced; to learn whether it was, use Create and Commit.
func (s *Store) Put(r io.Reader, want digest.Digest) (digest.Digest, int64, error) {
	t, err := s.Create()
	if err != nil {
		return digest.Digest{}, 0, err
	}
	defer t.Discard()
	n, err := io.Copy(t, r)
	if err != nil {
		return digest.Digest{}, n, fmt.Errorf("writing to the store: %w", err)
	}
	d := t.Sum()
	if !want.IsZero() && d != want {
		return d, n, &MismatchError{Got: d, Want: want}
	}
	if _, err := t.Commit(d); err != nil {
		return d, n, err
	}
	return d, n, nil
}

// Verify reads the whole file and compares it with its digest. The error is
// a *MissingError, a *DamagedError, or why it could not be read.
func (s *Store) Verify(d digest.Digest) error {
	f, err := s.Open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(io.Discard, f)
	return err
}

// Open opens the file of that digest for reading. The error is a
// *MissingError where there is none.
func (s *Store) Open(d digest.Digest) (*File, error) {
	path := s.Path(d)
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{Digest: d}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	if !fi.Mode().IsRegular() {
		return nil, &DamagedError{Digest: d, Path: path}
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &MissingError{Digest: d}
	}
	if err != nil {
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	if fi, err = f.Stat(); err != nil {
		f.Close()
		return nil, fmt.Errorf("reading the store: %w", err)
	}
	return newFile(f, d, fi.Size()), nil
}

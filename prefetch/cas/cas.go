// Package cas is the content-addressed store: files by the SHA-256 of their
// bytes, shared by every process that is given the same folder.
//
// # Layout
//
//	DIR/sha256/ab/abcd…      a file; the name is its digest's 64 hex digits; mode 0444
//	DIR/tmp/NAME             being written; locked (flock) by the process that writes it
//	DIR/partial/DIGEST-FROM  a transfer that can be gone on with; locked while somebody does
//	DIR/damaged/DIGEST       an empty file: who has read that digest's found it damaged
//	DIR/index/ab/abcd…       what is remembered under a key; the name is the key's SHA-256
//	DIR/leases/NAME          the digests, 32 bytes each, that one process has asked for
//	DIR/lock                 locked while a digest is added to a lease, or files are removed
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
// Who reads a file to its end and finds it damaged marks it, if he may write to
// the store. So the next prefetch, which else looks at sizes only, replaces it;
// with that, or when it is found to be sound, the mark is gone.
//
// A temporary file whose writer has died is no longer locked; the next Open
// removes it. What Temp.Keep was called for is kept for a week, with the
// validator (RFC 9110, section 8.8) that the server named it by, and hashed
// again from its first byte by who goes on with it.
//
// # Layers
//
// Below a store there can be others, which are only read: a share, or what an
// image of the machine came with. A file is looked for from the top down; all
// that is written goes to the top. So a copy above stands for a damaged one
// below.
//
// # Collection
//
// GC removes what nobody is known to want, and may run at any time:
//
//   - Whatever a process asks for (Reserve, Open, Verify, Size, Has, Path) or commits is
//     first written into its lease, under a shared lock of DIR/lock, and then
//     looked for. GC removes files under the exclusive lock, a few hundred at a
//     time, and reads all leases anew each time. So a file is either seen in a
//     lease and stays, or is gone before the process looks and then is
//     missing, which the process handles. It is never lost in between.
//   - A lease holds as long as its process lives, which the flock on it tells,
//     and for the grace period after it was last added to: between the
//     prefetch and the build of another lock nothing gets lost.
//   - A file that was written within the grace period stays.
//   - Who may not write to the store has no lease, and holds the shared lock
//     instead until it ends. As long as there is such a reader GC removes
//     nothing and says so.
//
// Check and Walk ask for nothing in this sense: looking after a store does not
// keep what is in it.
//
// # Limits
//
// The folder has to be on a file system with flock and rename; without hard
// links no transfer is kept. Processes on other machines are seen as far as
// the file system shares locks (NFSv4 does). The store protects against
// accidents, not against somebody who may write to it. It grows until GC is
// called. Symbolic links into the store keep nothing.
package cas

import (
	"context"
	"crypto/sha256"
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
	dir   string
	lower []*Store
	lease lease
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

// Open opens the store in dir and creates the folder where it is absent, with
// those in lower, which have to exist, below it. What processes that no longer
// run have left is removed. A store that may only be read can be opened.
func Open(dir string, lower ...string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	if err := os.MkdirAll(abs, 0o777); err != nil {
		return nil, fmt.Errorf("opening the store: %w", err)
	}
	s := &Store{dir: abs}
	for _, l := range lower {
		below, err := openLower(l)
		if err != nil {
			return nil, err
		}
		s.lower = append(s.lower, below)
	}
	s.removeStale()
	s.removeStalePartials()
	s.removeStaleLeases()
	return s, nil
}

// openLower opens a store that is only read.
func openLower(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("opening the store below: %w", err)
	}
	fi, err := os.Stat(abs)
	if err != nil {
		return nil, fmt.Errorf("opening the store below: %w", err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("opening the store below: %s is not a folder", abs)
	}
	s := &Store{dir: abs}
	s.lease.hold(abs)
	return s, nil
}

// Dir is the store's folder, an absolute path: the top one's.
func (s *Store) Dir() string { return s.dir }

// Dirs are the folders of all layers, the top one first.
func (s *Store) Dirs() []string {
	dirs := []string{s.dir}
	for _, l := range s.lower {
		dirs = append(dirs, l.dir)
	}
	return dirs
}

// Path is where the file of that digest is, in whichever layer, or would be.
func (s *Store) Path(d digest.Digest) string {
	s.lease.pin(s.dir, d)
	if l, _, ok := s.find(d); ok {
		return l.path(d)
	}
	return s.path(d)
}

// path is the file's name in this layer.
func (s *Store) path(d digest.Digest) string {
	h := d.Hex()
	return filepath.Join(s.dir, "sha256", h[:2], h)
}

// find looks for a regular file of that name from the top down.
func (s *Store) find(d digest.Digest) (layer *Store, size int64, ok bool) {
	if fi, err := os.Lstat(s.path(d)); err == nil && fi.Mode().IsRegular() {
		return s, fi.Size(), true
	}
	for _, l := range s.lower {
		if layer, size, ok := l.find(d); ok {
			return layer, size, true
		}
	}
	return nil, 0, false
}

// Reserve asks for many files at once, which Has and Size do one by one, and
// less quickly: no GC removes them from now on.
func (s *Store) Reserve(ds []digest.Digest) { s.lease.pin(s.dir, ds...) }

// Has tells whether there is a file of that digest, without reading it.
func (s *Store) Has(d digest.Digest) bool {
	_, ok := s.Size(d)
	return ok
}

// Size is the length in bytes of the file of that digest, and false where
// there is no regular file under its name.
func (s *Store) Size(d digest.Digest) (int64, bool) {
	s.lease.pin(s.dir, d)
	_, size, ok := s.find(d)
	return size, ok
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
	s.lease.pin(s.dir, d)
	return s.Check(context.Background(), d, nil)
}

// Check is Verify by somebody who does not want the file: it keeps no GC from
// removing it. It tells progress, which may be nil, of bytes as they are read.
func (s *Store) Check(ctx context.Context, d digest.Digest, progress func(n int64)) error {
	f, err := s.open(d)
	if err != nil {
		return err
	}
	defer f.Close()
	// What the processor's first cache holds is read and hashed in two thirds of the time.
	buf := make([]byte, min(32<<10, f.Size()+1))
	for {
		n, err := f.Read(buf)
		if progress != nil {
			progress(int64(n))
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// Open opens the file of that digest for reading. The error is a
// *MissingError where there is none.
func (s *Store) Open(d digest.Digest) (*File, error) {
	s.lease.pin(s.dir, d)
	return s.open(d)
}

func (s *Store) open(d digest.Digest) (*File, error) {
	f, err := s.openLayer(d)
	var missing *MissingError
	for _, l := range s.lower {
		if !errors.As(err, &missing) {
			break
		}
		f, err = l.open(d)
	}
	if err == nil {
		f.s = s
	}
	return f, err
}

// openLayer opens a file of this layer.
func (s *Store) openLayer(d digest.Digest) (*File, error) {
	path := s.path(d)
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
	return &File{f: f, want: d, size: fi.Size(), h: sha256.New()}, nil
}

package cas

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"caisson/lock/digest"
)

// Temp is a file on its way into the store: written and hashed, read back by
// whoever has to prove something about it, then committed or discarded. One
// goroutine may use it at a time.
type Temp struct {
	s    *Store
	f    *os.File
	path string
	h    hash.Hash
	size int64
	// begun is up to where the disk has been told to write.
	begun int64
	kept  bool // path is below DIR/partial, with a validator beside it
	done  bool
}

// Create starts a file. Call Discard when done with it; after Commit that
// does nothing.
func (s *Store) Create() (*Temp, error) {
	f, err := createLocked(filepath.Join(s.dir, "tmp"), 0o600)
	if err != nil {
		return nil, fmt.Errorf("writing to the store: %w", err)
	}
	return &Temp{s: s, f: f, path: f.Name(), h: sha256.New()}, nil
}

// createLocked makes a file with a new name and locks it.
func createLocked(dir string, mode fs.FileMode) (*os.File, error) {
	for {
		f, err := os.OpenFile(newName(dir), os.O_RDWR|os.O_CREATE|os.O_EXCL, mode)
		if errors.Is(err, fs.ErrNotExist) {
			if err = os.MkdirAll(dir, 0o777); err == nil {
				continue
			}
		}
		if err != nil {
			return nil, err
		}
		kept, err := claim(f)
		if err != nil {
			f.Close()
			os.Remove(f.Name())
			return nil, err
		}
		if kept {
			return f, nil
		}
		f.Close()
	}
}

// newName is a name that nobody else comes up with.
func newName(dir string) string {
	var id [12]byte
	rand.Read(id[:])
	return filepath.Join(dir, hex.EncodeToString(id[:]))
}

// claim locks a new temporary file. It is false where somebody who looked for
// stale ones came in between and has removed it.
func claim(f *os.File) (bool, error) {
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return false, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return false, fmt.Errorf("locking %s: %w", f.Name(), err)
	}
	return st.Nlink > 0, nil
}

// removeStale removes the temporary files that nobody has locked. That it
// cannot is no error: they only take room.
func (s *Store) removeStale() {
	dir := filepath.Join(s.dir, "tmp")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeStaleDir(filepath.Join(dir, e.Name()))
			continue
		}
		if !e.Type().IsRegular() {
			continue
		}
		if f := lockNamed(filepath.Join(dir, e.Name()), os.O_RDONLY); f != nil { // one killed in Commit is read-only
			os.Remove(f.Name())
			f.Close()
		}
	}
}

// worthAThread is how many bytes take longer to hash than to hand to another
// thread.
const worthAThread = 64 << 10

// writeback is after how many bytes the disk is told to write what has come:
// then there is little left for Commit to wait for.
const writeback = 8 << 20

// Write appends p.
func (t *Temp) Write(p []byte) (int, error) {
	if len(p) < worthAThread {
		n, err := t.f.Write(p)
		t.h.Write(p[:n])
		t.size += int64(n)
		return n, err
	}
	hashed := make(chan struct{})
	go func() {
		t.h.Write(p)
		close(hashed)
	}()
	n, err := t.f.Write(p)
	<-hashed
	t.size += int64(n)
	if n < len(p) {
		err = errors.Join(err, t.rehash())
	}
	if t.size-t.begun >= writeback {
		// Only a beginning: Commit syncs, whatever comes of this.
		_ = unix.SyncFileRange(int(t.f.Fd()), t.begun, t.size-t.begun, unix.SYNC_FILE_RANGE_WRITE)
		t.begun = t.size
	}
	return n, err
}

// rehash makes the hash that of what has been written.
func (t *Temp) rehash() error {
	t.h.Reset()
	_, err := io.Copy(t.h, io.NewSectionReader(t.f, 0, t.size))
	return err
}

// ReadAt reads what has been written.
func (t *Temp) ReadAt(p []byte, off int64) (int, error) { return t.f.ReadAt(p, off) }

// Name is the file's temporary path, for as long as it is neither committed
// nor discarded.
func (t *Temp) Name() string { return t.path }

// Size is the number of bytes written.
func (t *Temp) Size() int64 { return t.size }

// Sum is the digest of what has been written.
func (t *Temp) Sum() digest.Digest { return digest.Digest(t.h.Sum(nil)) }

// Restart drops what has been written, kept or not.
func (t *Temp) Restart() error {
	if err := t.unkeep(); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	if err := t.f.Truncate(0); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	if _, err := t.f.Seek(0, io.SeekStart); err != nil {
		return fmt.Errorf("writing to the store: %w", err)
	}
	t.h.Reset()
	t.size, t.begun = 0, 0
	return nil
}

// Commit gives the file its final name, which is want's. It tells whether a
// damaged file was there and has been replaced. Where the bytes are not
// want's, nothing is stored and the error is a *MismatchError.
func (t *Temp) Commit(want digest.Digest) (replaced bool, err error) {
	if t.done {
		return false, fmt.Errorf("committing %s: %w", want, fs.ErrClosed)
	}
	if got := t.Sum(); got != want {
		return false, &MismatchError{Got: got, Want: want}
	}
	damaged := new(DamagedError)
	switch err := t.s.Verify(want); {
	case err == nil: // somebody else was faster
		t.Drop()
		return false, nil
	case errors.As(err, &damaged):
		replaced = true
	}
	path := t.s.path(want)
	if err := t.f.Chmod(0o444); err != nil {
		return false, fmt.Errorf("writing to the store: %w", err)
	}
	if err := t.f.Sync(); err != nil {
		return false, fmt.Errorf("writing to the store: %w", err)
	}
	if err := replace(t.path, path); err != nil {
		return false, fmt.Errorf("writing to the store: %w", err)
	}
	if t.kept {
		os.Remove(t.path + validatorSuffix)
	}
	t.s.trust(want)
	t.done = true
	return replaced, t.f.Close()
}

// replace renames old to path, where something that is no file may be in the
// way, or there is no folder yet.
func replace(old, path string) error {
	err := os.Rename(old, path)
	if err == nil {
		return nil
	}
	if fi, e := os.Lstat(path); e == nil && fi.IsDir() {
		if err := os.RemoveAll(path); err != nil {
			return err
		}
	} else if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
		return err
	}
	return os.Rename(old, path)
}

// Discard removes the file, unless it has been committed, or Keep was called
// for it: then a later run can go on from there.
func (t *Temp) Discard() {
	if t.done || !t.kept {
		t.Drop()
		return
	}
	t.done = true
	t.f.Close()
}

// Drop removes the file, kept or not, unless it has been committed.
func (t *Temp) Drop() {
	if t.done {
		return
	}
	t.done = true
	if t.kept {
		os.Remove(t.path + validatorSuffix)
	}
	os.Remove(t.path)
	t.f.Close()
}

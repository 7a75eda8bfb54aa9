package cas

import (
	"errors"
	"hash"
	"io"
	"os"

	"caisson/lock/digest"
)

// File is an open file of the store.
//
// Read hashes what it returns: when a file has been read from its first byte
// to its last, in order, and the bytes are not the digest's, the last Read
// returns a *DamagedError instead of io.EOF. ReadAt does not hash, and a Seek
// that leaves bytes out ends the hashing; who reads so calls Verify first.
// Seek back over what has been read is harmless.
//
// Read and Seek may not be called at the same time; ReadAt may, at any time.
type File struct {
	s      *Store // the top layer
	f      *os.File
	want   digest.Digest
	size   int64
	pos    int64 // of the next Read
	hashed int64 // bytes from the start that h has seen
	h      hash.Hash
}

// judge compares what has been hashed, which is all.
func (f *File) judge() error {
	if got := digest.Digest(f.h.Sum(nil)); got != f.want {
		f.s.doubt(f.want)
		return &DamagedError{Digest: f.want, Path: f.f.Name(), Got: got}
	}
	f.s.trust(f.want)
	return nil
}

// Size is the file's length in bytes when it was opened.
func (f *File) Size() int64 { return f.size }

// Name is the file's path.
func (f *File) Name() string { return f.f.Name() }

// Read reads the next bytes.
func (f *File) Read(p []byte) (int, error) {
	n, err := f.f.Read(p)
	if n > 0 {
		// What is new to the hash, where this read reaches or overlaps its end.
		if skip := f.hashed - f.pos; skip >= 0 && skip < int64(n) {
			f.h.Write(p[skip:n])
			f.hashed = f.pos + int64(n)
		}
		f.pos += int64(n)
	}
	if err == io.EOF && f.hashed == f.pos {
		if err := f.judge(); err != nil {
			return n, err
		}
	}
	return n, err
}

// ReadAt reads bytes at an offset, unverified.
func (f *File) ReadAt(p []byte, off int64) (int, error) { return f.f.ReadAt(p, off) }

// Seek sets the offset of the next Read.
func (f *File) Seek(offset int64, whence int) (int64, error) {
	pos, err := f.f.Seek(offset, whence)
	if err == nil {
		f.pos = pos
	}
	return pos, err
}

// Verify hashes the rest of the file, from wherever sequential reading got
// to, and leaves the offset of the next Read alone.
func (f *File) Verify() error {
	if f.hashed < f.size {
		n, err := io.Copy(f.h, io.NewSectionReader(f.f, f.hashed, f.size-f.hashed))
		f.hashed += n
		if err != nil {
			return err
		}
	}
	return f.judge()
}

// Close closes the file. Closing it again is no error.
func (f *File) Close() error {
	if err := f.f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return err
	}
	return nil
}

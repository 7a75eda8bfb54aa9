package objects

import (
	"hash"
	"hash/crc32"
	"io"
)

// packReader reads a pack byte by byte: what inflates takes no more than it
// needs. It hashes what has been read, all of it and each object's.
type packReader struct {
	r     io.Reader
	h     hash.Hash
	buf   [64 << 10]byte
	i, n  int // what of buf has been read, and what there is
	done  int // what of buf has been hashed
	at    int64
	start int64 // of the object
	check uint32
}

func newPackReader(r io.Reader, h hash.Hash) *packReader { return &packReader{r: r, h: h} }

// flush hashes what has been read.
func (r *packReader) flush() {
	r.h.Write(r.buf[r.done:r.i])
	r.check = crc32.Update(r.check, crc32.IEEETable, r.buf[r.done:r.i])
	r.done = r.i
}

// fill reads more.
func (r *packReader) fill() error {
	r.flush()
	n, err := r.r.Read(r.buf[:])
	if r.i, r.done, r.n = 0, 0, n; n > 0 {
		return nil
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// begin begins an object.
func (r *packReader) begin() {
	r.flush()
	r.start, r.check = r.at, 0
}

// crc is the CRC-32 of the object so far.
func (r *packReader) crc() uint32 {
	r.flush()
	return r.check
}

// sum is the hash of all that has been read.
func (r *packReader) sum() []byte {
	r.flush()
	return r.h.Sum(nil)
}

// ReadByte reads a byte.
func (r *packReader) ReadByte() (byte, error) {
	if r.i == r.n {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	r.i++
	r.at++
	return r.buf[r.i-1], nil
}

// Read reads some.
func (r *packReader) Read(p []byte) (int, error) {
	if r.i == r.n {
		if err := r.fill(); err != nil {
			return 0, err
		}
	}
	n := copy(p, r.buf[r.i:r.n])
	r.i += n
	r.at += int64(n)
	return n, nil
}

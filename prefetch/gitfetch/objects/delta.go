package objects

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// delta is what a change makes of its base (gitformat-pack, "Deltified
// representation"): a reader of the outcome.
type delta struct {
	base     io.ReaderAt
	baseSize int64
	src      *bufio.Reader
	left     int64 // bytes of the outcome that are still to come
	from     int64 // where in the base
	n        int64 // bytes of the instruction at hand
	insert   bool  // it takes them from src
}

var errDelta = errors.New("a change that cannot be applied")

// deltaSizes reads the sizes that a change begins with.
func deltaSizes(src *bufio.Reader) (base, target int64, err error) {
	var sizes [2]int64
	for i := range sizes {
		n, err := binary.ReadUvarint(src)
		if err != nil {
			return 0, 0, noEOF(err)
		}
		if sizes[i] = int64(n); n > 1<<62 { //nolint:gosec // checked here
			return 0, 0, errDelta
		}
	}
	return sizes[0], sizes[1], nil
}

// newDelta begins to apply a change, and returns the size of the outcome.
func newDelta(base content, src *bufio.Reader) (*delta, int64, error) {
	from, to, err := deltaSizes(src)
	if err != nil {
		return nil, 0, err
	}
	if from != base.size {
		return nil, 0, fmt.Errorf("%w: of something of %d bytes, got %d", errDelta, from, base.size)
	}
	return &delta{base: base, baseSize: base.size, src: src, left: to}, to, nil
}

// Read reads the outcome; what is left of the change at the end is an error.
func (d *delta) Read(p []byte) (int, error) {
	if d.left == 0 {
		if _, err := d.src.ReadByte(); !errors.Is(err, io.EOF) {
			return 0, errors.Join(errDelta, err)
		}
		return 0, io.EOF
	}
	if d.n == 0 {
		if err := d.next(); err != nil {
			return 0, err
		}
	}
	p = p[:min(int64(len(p)), d.n)]
	var n int
	var err error
	if d.insert {
		n, err = d.src.Read(p)
	} else {
		n, err = d.base.ReadAt(p, d.from)
		d.from += int64(n)
		if n == len(p) {
			err = nil
		}
	}
	d.n -= int64(n)
	d.left -= int64(n)
	return n, noEOF(err)
}

// next reads an instruction.
func (d *delta) next() error {
	c, err := d.src.ReadByte()
	if err != nil {
		return noEOF(err)
	}
	if d.insert = c&0x80 == 0; d.insert {
		d.n = int64(c)
	} else if err := d.copying(c); err != nil {
		return err
	}
	if d.n == 0 || d.n > d.left || !d.insert && d.from+d.n > d.baseSize {
		return errDelta
	}
	return nil
}

// copying reads where from and how much is copied: c tells which bytes of
// these numbers are there.
func (d *delta) copying(c byte) error {
	d.from, d.n = 0, 0
	for i := range 7 {
		if c&(1<<i) == 0 {
			continue
		}
		b, err := d.src.ReadByte()
		if err != nil {
			return noEOF(err)
		}
		if i < 4 {
			d.from |= int64(b) << (8 * i)
		} else {
			d.n |= int64(b) << (8 * (i - 4))
		}
	}
	if d.n == 0 {
		d.n = 0x10000
	}
	return nil
}

// content is a whole object that others are changes of.
type content struct {
	io.ReaderAt
	size int64
	mem  []byte // it, where it is in memory
}

const (
	// maxInMemory is the largest content that is kept in memory, in bytes,
	maxInMemory = 1 << 20
	// allInMemory is the most that all have there that are kept together.
	allInMemory = 24 << 20
)

// stack keeps contents, those that are too much for memory in one file. What
// was kept last is dropped first.
type stack struct {
	dir string // for the file
	f   *os.File
	top int64 // of the file
	mem int64
}

// keep keeps what a reader gives, which is of that size.
func (s *stack) keep(r io.Reader, size int64) (content, error) {
	if size <= maxInMemory && s.mem+size <= allInMemory {
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			return content{}, noEOF(err)
		}
		s.mem += size
		return inMemory(b), atEnd(r)
	}
	if s.f == nil {
		var err error
		if s.f, err = os.CreateTemp(s.dir, "base-"); err != nil {
			return content{}, err
		}
	}
	n, err := io.Copy(io.NewOffsetWriter(s.f, s.top), r)
	if err == nil && n != size {
		err = fmt.Errorf("got %d bytes, want %d", n, size)
	}
	c := content{ReaderAt: io.NewSectionReader(s.f, s.top, size), size: size}
	s.top += size
	return c, err
}

// atEnd reads what should be nothing: so a reader finds what is wrong there.
func atEnd(r io.Reader) error {
	n, err := io.Copy(io.Discard, r)
	if err == nil && n > 0 {
		err = errors.New("it is longer than it says")
	}
	return err
}

// drop forgets the content that was kept last.
func (s *stack) drop(c content) {
	if c.mem != nil {
		s.mem -= c.size
	} else {
		s.top -= c.size
	}
}

// close removes the file.
func (s *stack) close() error {
	if s.f == nil {
		return nil
	}
	return errors.Join(s.f.Close(), os.Remove(s.f.Name()))
}

func inMemory(b []byte) content {
	return content{ReaderAt: byteReaderAt(b), size: int64(len(b)), mem: b}
}

// byteReaderAt is a slice as a io.ReaderAt.
type byteReaderAt []byte

// ReadAt reads from an offset.
func (b byteReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(b)) {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

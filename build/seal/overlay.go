package seal

import (
	"errors"
	"io"
)

const pageSize = 4096

// overlay is a disk that is changed without being written to: what is written
// is kept in memory, page by page, and what was laid over it read from
// elsewhere.
type overlay struct {
	base     io.ReaderAt
	baseSize int64
	size     int64
	layers   []layer
	pages    map[int64]*[pageSize]byte
}

// layer is a part of the disk that is read from elsewhere: length bytes, and
// zeros up to its end.
type layer struct {
	start, end int64
	r          io.ReaderAt
	length     int64
}

func newOverlay(base io.ReaderAt, size int64) *overlay {
	return &overlay{base: base, baseSize: size, size: size, pages: map[int64]*[pageSize]byte{}}
}

// ReadAt reads from the disk as it has become. Several goroutines may read
// at a time when nothing is written.
func (o *overlay) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, errors.New("negative offset")
	}
	if off >= o.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > o.size-off {
		p, end = p[:o.size-off], io.EOF
	}
	if err := readZeros(o.base, o.baseSize, p, off); err != nil {
		return 0, err
	}
	for _, l := range o.layers {
		from, to := max(off, l.start), min(off+int64(len(p)), l.end)
		if from >= to {
			continue
		}
		if err := readZeros(l.r, l.length, p[from-off:to-off], from-l.start); err != nil {
			return 0, err
		}
	}
	if len(o.pages) > 0 {
		for n := off / pageSize; n*pageSize < off+int64(len(p)); n++ {
			if page := o.pages[n]; page != nil {
				from, to := max(off, n*pageSize), min(off+int64(len(p)), (n+1)*pageSize)
				copy(p[from-off:to-off], page[from-n*pageSize:])
			}
		}
	}
	return len(p), end
}

// readZeros reads from a source of length bytes, behind which there are zeros.
func readZeros(r io.ReaderAt, length int64, p []byte, off int64) error {
	n := min(max(length-off, 0), int64(len(p)))
	clear(p[n:])
	if n == 0 {
		return nil
	}
	got, err := r.ReadAt(p[:n], off)
	switch {
	case int64(got) == n:
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// WriteAt changes the disk.
func (o *overlay) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > o.size {
		return 0, io.ErrShortWrite
	}
	for done := int64(0); done < int64(len(p)); {
		n := (off + done) / pageSize
		page := o.pages[n]
		if page == nil {
			page = new([pageSize]byte)
			if got, err := o.ReadAt(page[:], n*pageSize); err != nil && err != io.EOF {
				return int(done), err
			} else if err == nil && got < pageSize {
				return int(done), io.ErrUnexpectedEOF
			}
			o.pages[n] = page
		}
		done += int64(copy(page[off+done-n*pageSize:], p[done:]))
	}
	return len(p), nil
}

// part is a part of the disk as a disk of its own.
type part struct {
	o           *overlay
	start, size int64
}

func (p part) ReadAt(b []byte, off int64) (int, error) {
	return io.NewSectionReader(p.o, p.start, p.size).ReadAt(b, off)
}

func (p part) WriteAt(b []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(b)) > p.size {
		return 0, io.ErrShortWrite
	}
	return p.o.WriteAt(b, p.start+off)
}

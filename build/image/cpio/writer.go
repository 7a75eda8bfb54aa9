package cpio

import (
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
)

// Writer writes an archive: for each entry a header, then its data.
type Writer struct {
	// BlockSize is what [Writer.Close] fills the archive up to a multiple of,
	// in bytes. Linux needs none; GNU cpio has 512.
	BlockSize int

	w      io.Writer
	n      int64 // bytes written
	left   int64 // of the data of the entry
	name   string
	closed bool
}

// NewWriter returns a writer of an archive to w, to which it makes several
// small writes for each entry.
func NewWriter(w io.Writer) *Writer { return &Writer{w: w} }

// WriteHeader begins an entry. It fails where the data of the entry before is
// not complete, and where h cannot be said in the format.
func (w *Writer) WriteHeader(h Header) error {
	if h.Name == trailer {
		return fmt.Errorf("name %q marks the end of a cpio archive", h.Name)
	}
	return w.writeHeader(h)
}

func (w *Writer) writeHeader(h Header) error {
	if err := w.finish(); err != nil {
		return err
	}
	if err := check(h); err != nil {
		return err
	}
	f := fields{
		fIno: h.Ino, fMode: h.Mode, fUID: h.UID, fGID: h.GID, fNlink: h.Nlink,
		fMtime: uint32(h.Mtime), fSize: uint32(h.Size),
		fDevMajor: h.DevMajor, fDevMinor: h.DevMinor, fRdevMajor: h.RdevMajor, fRdevMinor: h.RdevMinor,
		fNameSize: uint32(len(h.Name) + 1),
	}
	b := make([]byte, 0, headerSize+len(h.Name)+align)
	b = append(b, magic...)
	for _, v := range f {
		b = fmt.Appendf(b, "%08x", v)
	}
	b = append(append(b, h.Name...), 0)
	b = append(b, make([]byte, padding(int64(len(b))))...)
	w.name, w.left = h.Name, h.Size
	return w.write(b)
}

// check says why a header cannot be written.
func check(h Header) error {
	switch {
	case h.Name == "":
		return errors.New("cpio entry without a name")
	case strings.IndexByte(h.Name, 0) >= 0:
		return fmt.Errorf("name %q has a NUL in it", h.Name)
	case len(h.Name) >= maxName:
		return fmt.Errorf("name %.40q… has %d bytes, more than %d", h.Name, len(h.Name), maxName-1)
	case h.Mtime < 0 || h.Mtime > math.MaxUint32:
		return fmt.Errorf("%q: mtime %d is not between 0 and %d", h.Name, h.Mtime, uint32(math.MaxUint32))
	case h.Size < 0 || h.Size > math.MaxUint32:
		return fmt.Errorf("%q: size %d is not between 0 and %d", h.Name, h.Size, uint32(math.MaxUint32))
	case h.Mode&typeMask == typeSymlink && h.Size >= maxName:
		return fmt.Errorf("%q: the target of the link has %d bytes, more than %d", h.Name, h.Size, maxName-1)
	}
	return nil
}

// Write writes data of the entry that WriteHeader began. It fails, having
// written nothing, where that is more than the header's size.
func (w *Writer) Write(p []byte) (int, error) {
	if int64(len(p)) > w.left {
		return 0, fmt.Errorf("%q: %d bytes more than the size in its header", w.name, int64(len(p))-w.left)
	}
	n, err := w.w.Write(p)
	w.n += int64(n)
	w.left -= int64(n)
	return n, err
}

// Close ends the archive. It does not close the underlying writer.
func (w *Writer) Close() error {
	if w.closed {
		return nil
	}
	if err := w.writeHeader(Header{Name: trailer, Nlink: 1}); err != nil {
		return err
	}
	w.closed = true
	if w.BlockSize > 1 {
		if rest := w.n % int64(w.BlockSize); rest != 0 {
			return w.write(make([]byte, int64(w.BlockSize)-rest))
		}
	}
	return nil
}

// finish pads the data of an entry.
func (w *Writer) finish() error {
	if w.closed {
		return errors.New("the cpio archive is complete")
	}
	if w.left > 0 {
		return fmt.Errorf("%q: %d bytes less than the size in its header", w.name, w.left)
	}
	return w.write(make([]byte, padding(w.n)))
}

func (w *Writer) write(b []byte) error {
	if len(b) == 0 {
		return nil
	}
	n, err := w.w.Write(b)
	w.n += int64(n)
	return err
}

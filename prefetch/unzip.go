package prefetch

import (
	"archive/zip"
	"bufio"
	"io"

	"github.com/klauspost/compress/flate"
)

// unzipper is what the files of a zip are read with, one after the other. To
// hash them is most of what it costs to fill a store with Go modules: hence
// another decompressor than the standard library's, and one buffer for all.
type unzipper struct {
	in  *bufio.Reader
	r   io.ReadCloser // nil before the first
	out []byte
}

func newUnzipper() *unzipper {
	return &unzipper{in: bufio.NewReaderSize(nil, 64<<10), out: make([]byte, 64<<10)}
}

// inflate is a zip.Decompressor.
func (u *unzipper) inflate(r io.Reader) io.ReadCloser {
	u.in.Reset(r)
	if again, ok := u.r.(flate.Resetter); !ok || again.Reset(u.in, nil) != nil {
		u.r = flate.NewReader(u.in)
	}
	return u.r
}

// open opens a file, after the one before has been closed.
func (u *unzipper) open(f *zip.File) (io.ReadCloser, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	return &unzipped{ReadCloser: r, buf: u.out}, nil
}

// unzipped is one file of a zip.
type unzipped struct {
	io.ReadCloser
	buf []byte
}

// WriteTo is what io.Copy calls, so that it makes no buffer for each file.
func (f *unzipped) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, f.ReadCloser, f.buf)
}

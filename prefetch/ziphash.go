package prefetch

import (
	"archive/zip"
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/flate"
	"golang.org/x/mod/sumdb/dirhash"
)

// maxUnpacked is how many bytes the files of a Go zip may have together. Go
// itself refuses zips above 500 MiB.
const maxUnpacked = 4 << 30

// hashZip is the h1 of a zip's files (golang.org/x/mod/sumdb/dirhash). It is
// most of what filling a store with Go modules costs: hence another
// decompressor than the standard library's, and one buffer for all files. They
// may have so many bytes together.
func hashZip(c content, most int64) (string, error) {
	z, err := zip.NewReader(c, c.Size())
	if err != nil {
		return "", fmt.Errorf("reading the zip: %w", err)
	}
	u := &unzipper{in: bufio.NewReaderSize(nil, 64<<10), out: make([]byte, 64<<10), left: most}
	z.RegisterDecompressor(zip.Deflate, u.inflate)
	files := make(map[string]*zip.File, len(z.File))
	names := make([]string, 0, len(z.File))
	for _, f := range z.File {
		if files[f.Name] != nil {
			return "", fmt.Errorf("reading the zip: it has %q twice", f.Name)
		}
		files[f.Name] = f
		names = append(names, f.Name)
	}
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) {
		r, err := files[name].Open()
		if err != nil {
			return nil, err
		}
		return &unzipped{ReadCloser: r, u: u}, nil
	})
}

// unzipper is what the files of a zip are read with, one after the other.
type unzipper struct {
	in   *bufio.Reader
	r    io.ReadCloser // nil before the first
	out  []byte
	left int64 // how many bytes more they may have
}

func (u *unzipper) inflate(r io.Reader) io.ReadCloser {
	u.in.Reset(r)
	if again, ok := u.r.(flate.Resetter); !ok || again.Reset(u.in, nil) != nil {
		u.r = flate.NewReader(u.in)
	}
	return u.r
}

// unzipped is one file. Reading ends in an error when all of them have more
// bytes than are left.
type unzipped struct {
	io.ReadCloser
	u *unzipper
}

func (f *unzipped) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	if f.u.left -= int64(n); f.u.left < 0 {
		return n, errors.New("the zip unpacks to too much")
	}
	return n, err
}

// WriteTo is what io.Copy calls, so that it makes no buffer for each file.
func (f *unzipped) WriteTo(w io.Writer) (int64, error) {
	return io.CopyBuffer(w, struct{ io.Reader }{f}, f.u.out)
}

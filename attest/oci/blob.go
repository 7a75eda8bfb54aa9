package oci

import (
	"bytes"
	"fmt"
	"io"
	"os"

	"caisson/lock/digest"
)

// blob is something that a registry keeps, and where its bytes are: in memory,
// in a file that is in a tar archive, or a part of a file.
type blob struct {
	descriptor
	memory []byte
	file   *tarFile
	part   *filePart
}

func inMemory(mediaType string, b []byte) blob {
	return blob{descriptor: descriptor{MediaType: mediaType, Digest: digest.Of(b), Size: int64(len(b))}, memory: b}
}

// open reads a blob from an offset on.
func (b *blob) open(offset int64) (io.ReadCloser, error) {
	switch {
	case b.file != nil:
		return b.file.open(offset)
	case b.part != nil:
		return b.part.open(offset)
	}
	return io.NopCloser(bytes.NewReader(b.memory[min(offset, int64(len(b.memory))):])), nil
}

// openSame opens a file that has so many bytes.
func openSame(name string, size int64) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && st.Size() != size {
		err = fmt.Errorf("%s has changed meanwhile: got %d bytes, want %d", name, st.Size(), size)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// tarFile is a tar archive of one file that is not in it yet.
type tarFile struct {
	head []byte
	path string
	size int64 // of the file
	tail int64 // zeros behind it
}

// setTail computes the padding to 512 bytes and the two blocks at the end
// (pax, ustar Interchange Format).
func (t *tarFile) setTail() { t.tail = -t.size&511 + 1024 }

func (t *tarFile) total() int64 { return int64(len(t.head)) + t.size + t.tail }

func (t *tarFile) open(offset int64) (io.ReadCloser, error) {
	f, err := openSame(t.path, t.size)
	if err != nil {
		return nil, err
	}
	n := int64(len(t.head))
	parts := []*io.SectionReader{
		io.NewSectionReader(bytes.NewReader(t.head), 0, n),
		io.NewSectionReader(f, 0, t.size),
		io.NewSectionReader(zeros{}, 0, t.tail),
	}
	var all []io.Reader
	for _, p := range parts {
		skip := min(max(offset, 0), p.Size())
		offset -= p.Size()
		all = append(all, io.NewSectionReader(p, skip, p.Size()-skip))
	}
	return struct {
		io.Reader
		io.Closer
	}{io.MultiReader(all...), f}, nil
}

// zeros is an endless ReaderAt.
type zeros struct{}

func (zeros) ReadAt(b []byte, _ int64) (int, error) {
	clear(b)
	return len(b), nil
}

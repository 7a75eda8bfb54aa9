package rpmmd

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"fmt"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"caisson/lock/rpmmd/xz"
)

// maxWindow bounds the memory of one zstd or xz decoder. zstd -19 --long=27, the
// most that anyone compresses metadata with, needs 128 MiB.
const maxWindow = 128 << 20

// Decompress returns the plain bytes of r, which is gzip, zstd, xz, bzip2 or
// already plain, told by its magic. Reading more than limit bytes is an error
// that says so. Close releases the decoder, not r.
func Decompress(r io.Reader, limit int64) (io.ReadCloser, error) {
	br := bufio.NewReaderSize(r, 64<<10)
	magic, err := br.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(br)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", err)
		}
		return &limited{z, "gzip", limit, limit, z.Close}, nil
	case bytes.HasPrefix(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}):
		z, err := zstd.NewReader(br, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return &limited{z, "zstd", limit, limit, func() error { z.Close(); return nil }}, nil
	case bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X', 'Z', 0}):
		return &limited{xz.NewReader(br, maxWindow), "", limit, limit, nil}, nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return &limited{bzip2.NewReader(br), "bzip2", limit, limit, nil}, nil
	}
	return &limited{br, "", limit, limit, nil}, nil
}

// limited reads at most left bytes, and reports more as an error instead of
// cutting them off.
type limited struct {
	r     io.Reader
	kind  string
	left  int64
	limit int64
	close func() error
}

func (l *limited) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if int64(len(p)) > l.left+1 {
		p = p[:l.left+1]
	}
	n, err := l.r.Read(p)
	if int64(n) > l.left {
		return int(l.left), fmt.Errorf("more than %d bytes", l.limit)
	}
	l.left -= int64(n)
	if err != nil && err != io.EOF && l.kind != "" {
		err = fmt.Errorf("%s: %w", l.kind, err)
	}
	return n, err
}

func (l *limited) Close() error {
	if l.close == nil {
		return nil
	}
	return l.close()
}

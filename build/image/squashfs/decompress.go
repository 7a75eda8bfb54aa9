package squashfs

import (
	"bufio"
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"

	"caisson/lock/rpmmd/xz"
)

// decompressor decompresses blocks of one of the format's algorithms.
type decompressor struct {
	name   string
	decode func(b []byte, most int) ([]byte, error)
}

// decompress is the content of a block, of at most so many bytes.
func (d *decompressor) decompress(b []byte, most int) ([]byte, error) {
	out, err := d.decode(b, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.name, err)
	}
	return out, nil
}

// errLong is what a block is that holds more than it may.
var errLong = errors.New("more than a block holds")

// newDecompressor is that of a superblock's number.
func newDecompressor(number uint16) (decompressor, error) {
	switch number {
	case 1:
		return decompressor{"gzip", func(b []byte, most int) ([]byte, error) {
			z, err := zlib.NewReader(bytes.NewReader(b))
			if err != nil {
				return nil, err
			}
			return readAtMost(z, most)
		}}, nil
	case 2, 3:
		return decompressor{}, fmt.Errorf("compression by %s is not read", map[uint16]string{2: "lzma", 3: "lzo"}[number])
	case 4:
		return decompressor{"xz", func(b []byte, most int) ([]byte, error) {
			// A dictionary is no larger than what it is for, or the smallest there is.
			return readAtMost(xz.NewReader(bufio.NewReader(bytes.NewReader(b)), maxBlock), most)
		}}, nil
	case 5:
		return decompressor{"lz4", func(b []byte, most int) ([]byte, error) {
			out := make([]byte, most)
			n, err := lz4.UncompressBlock(b, out)
			if err != nil {
				return nil, err
			}
			return out[:n], nil
		}}, nil
	case 6:
		z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxBlock), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return decompressor{}, err
		}
		return decompressor{"zstd", func(b []byte, most int) ([]byte, error) {
			out, err := z.DecodeAll(b, nil)
			if err == nil && len(out) > most {
				err = errLong
			}
			return out, err
		}}, nil
	}
	return decompressor{}, fmt.Errorf("compression %d is not known", number)
}

func readAtMost(r io.Reader, most int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, int64(most)+1))
	if err == nil && len(b) > most {
		err = errLong
	}
	return b, err
}

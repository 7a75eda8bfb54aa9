// Package xz decompresses .xz files (The .xz File Format 1.1.0) in bounded
// memory: the library that decodes the blocks allocates whatever dictionary a
// block asks for, up to 4 GiB, and this package refuses more than the caller
// allows.
//
// Limits: LZMA2 is the only filter. The checks behind the blocks, and what the
// index says, are passed over: what is read here is known by a digest of all
// its bytes.
package xz

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// NewReader returns the plain bytes of all streams of r. A block that needs a
// dictionary of more than maxDictionary bytes is an error.
func NewReader(r *bufio.Reader, maxDictionary int64) io.Reader {
	return &reader{r: &counter{Reader: r}, maxDictionary: maxDictionary}
}

type reader struct {
	r             *counter
	maxDictionary int64
	check         int64     // bytes of the check behind each block
	block         io.Reader // the block being read, or nil
	start         int64     // where its compressed data began
	inStream      bool
	err           error
}

// counter counts what is read.
type counter struct {
	*bufio.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.n += int64(n)
	return n, err
}

func (c *counter) ReadByte() (byte, error) {
	b, err := c.Reader.ReadByte()
	if err == nil {
		c.n++
	}
	return b, err
}

func (x *reader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			if x.err = x.next(); x.err != nil {
				break
			}
			continue
		}
		n, err := x.block.Read(p)
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			x.block = nil
			x.err = x.skipBlockEnd()
		case err != nil:
			x.err = fmt.Errorf("xz: %w", err)
		}
		if n > 0 || len(p) == 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next goes to the next block; io.EOF where there is none.
func (x *reader) next() error {
	if !x.inStream {
		began := x.r.n > 0
		err := x.streamHeader(began)
		if err == io.EOF && began {
			return err
		}
		if err != nil {
			return fmt.Errorf("xz: %w", early(err))
		}
		x.inStream = true
	}
	if err := x.blockHeader(); err != nil {
		return fmt.Errorf("xz: %w", early(err))
	}
	return nil
}

// blockHeader reads the header of a block; where the index comes instead, the
// stream ends, and there is no block.
func (x *reader) blockHeader() error {
	size, err := x.r.ReadByte()
	if err != nil {
		return err
	}
	if size == 0 {
		x.inStream = false
		return x.skipIndex()
	}
	h := make([]byte, (int(size)+1)*4-1)
	if _, err := io.ReadFull(x.r, h); err != nil {
		return err
	}
	capacity, err := x.dictionary(h)
	if err != nil {
		return err
	}
	x.start = x.r.n
	x.block, err = lzma.Reader2Config{DictCap: capacity}.NewReader2(x.r)
	return err
}

// skipIndex skips what follows the index's first byte (section 4), and the
// stream's footer (section 2.1.2).
func (x *reader) skipIndex() error {
	start := x.r.n - 1
	records, err := x.number()
	for ; err == nil && records > 0; records-- {
		if _, err = x.number(); err == nil {
			_, err = x.number()
		}
	}
	if err != nil {
		return err
	}
	const crc, footer = 4, 12
	_, err = io.CopyN(io.Discard, x.r, (start-x.r.n)&3+crc+footer)
	return err
}

// number reads a number of several bytes (section 1.2).
func (x *reader) number() (uint64, error) {
	var n uint64
	for shift := 0; shift < 63; shift += 7 {
		b, err := x.r.ReadByte()
		if err != nil {
			return 0, err
		}
		n |= uint64(b&0x7f) << shift
		if b&0x80 == 0 {
			return n, nil
		}
	}
	return 0, errors.New("a number of the index does not end")
}

// streamHeader reads magic, flags and a CRC (section 2.1.1); between streams
// also the padding, four zeros each (section 2.2), and io.EOF is a good end.
func (x *reader) streamHeader(padded bool) error {
	var h [12]byte
	for {
		if _, err := io.ReadFull(x.r, h[:4]); err != nil {
			return err
		}
		if !padded || h[0]|h[1]|h[2]|h[3] != 0 {
			break
		}
	}
	if _, err := io.ReadFull(x.r, h[4:]); err != nil {
		return early(err)
	}
	if string(h[:6]) != "\xfd7zXZ\x00" || h[6] != 0 || h[7] > 15 {
		return fmt.Errorf("it begins with %x", h[:8])
	}
	// Section 2.1.1.2: the size of the check by its id.
	x.check = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[h[7]]
	return nil
}

// dictionary is the size of the dictionary that a block needs, by its
// header (section 3.1) without the first byte. LZMA2 has to be its only filter.
func (x *reader) dictionary(h []byte) (int, error) {
	flags, h := h[0], h[1:]
	for _, sized := range []byte{0x40, 0x80} { // compressed and uncompressed size
		if flags&sized == 0 {
			continue
		}
		i := 0
		for i < len(h) && h[i]&0x80 != 0 {
			i++
		}
		if i >= min(len(h), 9) {
			return 0, errors.New("a block's size does not end")
		}
		h = h[i+1:]
	}
	if flags&0x3f != 0 || len(h) < 3 || h[0] != 0x21 || h[1] != 1 {
		return 0, errors.New("a block with other filters than LZMA2")
	}
	capacity, err := lzma.DecodeDictCap(h[2])
	if err != nil {
		return 0, err
	}
	if capacity > x.maxDictionary {
		return 0, fmt.Errorf("a block with a dictionary of %d bytes; at most %d are read", capacity, x.maxDictionary)
	}
	return int(capacity), nil
}

// skipBlockEnd skips the padding to a multiple of four and the check.
func (x *reader) skipBlockEnd() error {
	n := -(x.r.n-x.start)&3 + x.check
	if _, err := io.CopyN(io.Discard, x.r, n); err != nil {
		return fmt.Errorf("xz: %w", early(err))
	}
	return nil
}

// early calls the end of a file in the middle of something what it is.
func early(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

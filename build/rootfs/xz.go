package rootfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// xzReader reads the first stream of an .xz file (The .xz File Format 1.1.0).
// The xz library allocates whatever dictionary a block asks for, up to 4 GiB;
// this one refuses more than maxWindow. The checks behind the blocks are left
// out: an RPM is known by a digest of all its bytes.
type xzReader struct {
	r     *counter
	check int64     // bytes of the check behind each block
	block io.Reader // the block being read, or nil
	start int64     // where its compressed data began
	began bool
	err   error
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

func newXZReader(r *bufio.Reader) io.Reader { return &xzReader{r: &counter{Reader: r}} }

func (x *xzReader) Read(p []byte) (int, error) {
	for x.err == nil {
		if x.block == nil {
			if x.err = x.next(); x.err != nil {
				break
			}
		}
		n, err := x.block.Read(p)
		switch {
		case errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF):
			x.block = nil
			x.err = x.skipBlockEnd()
		case err != nil:
			x.err = fmt.Errorf("xz: %w", err)
		}
		if n > 0 {
			return n, nil
		}
	}
	return 0, x.err
}

// next reads the header of the next block; io.EOF where the index comes.
func (x *xzReader) next() error {
	if !x.began {
		if err := x.streamHeader(); err != nil {
			return fmt.Errorf("xz: %w", early(err))
		}
		x.began = true
	}
	size, err := x.r.ReadByte()
	if err != nil {
		return fmt.Errorf("xz: %w", early(err))
	}
	if size == 0 { // the index (section 4.1)
		return io.EOF
	}
	h := make([]byte, (int(size)+1)*4-1)
	if _, err := io.ReadFull(x.r, h); err != nil {
		return fmt.Errorf("xz: %w", early(err))
	}
	capacity, err := blockDictionary(h)
	if err != nil {
		return fmt.Errorf("xz: %w", err)
	}
	x.start = x.r.n
	x.block, err = lzma.Reader2Config{DictCap: capacity}.NewReader2(x.r)
	return err
}

// streamHeader reads magic, flags and a CRC (section 2.1.1).
func (x *xzReader) streamHeader() error {
	var h [12]byte
	if _, err := io.ReadFull(x.r, h[:]); err != nil {
		return err
	}
	if string(h[:6]) != "\xfd7zXZ\x00" || h[6] != 0 || h[7] > 15 {
		return fmt.Errorf("it begins with %x", h[:8])
	}
	// Section 2.1.1.2: the size of the check by its id.
	x.check = [16]int64{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}[h[7]]
	return nil
}

// blockDictionary is the size of the dictionary that a block needs, by its
// header (section 3.1) without the first byte. LZMA2 has to be its only filter.
func blockDictionary(h []byte) (int, error) {
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
	if capacity > maxWindow {
		return 0, fmt.Errorf("a block with a dictionary of %d bytes; at most %d are read", capacity, maxWindow)
	}
	return int(capacity), nil
}

// skipBlockEnd skips the padding to a multiple of four and the check.
func (x *xzReader) skipBlockEnd() error {
	n := -(x.r.n-x.start)&3 + x.check
	if _, err := io.CopyN(io.Discard, x.r, n); err != nil {
		return fmt.Errorf("xz: %w", early(err))
	}
	return nil
}

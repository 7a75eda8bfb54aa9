package vhd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Image is an image that is being read. Its methods may be called from
// several goroutines at a time.
type Image struct {
	r     io.ReaderAt
	size  int64
	fixed bool

	table     int64 // offset of the block allocation table
	blocks    int64 // entries of it
	blockSize int64
	bitmap    int64 // length of a block's bitmap in bytes
}

// Offsets within the header of a dynamic image ("Dynamic Disk Header Format").
const (
	headerSize     = 1024
	headerCookie   = "cxsparse"
	hdrTable       = 16 // u64
	hdrVersion     = 24 // u32: 1.0
	hdrEntries     = 28 // u32
	hdrBlockSize   = 32 // u32
	hdrChecksum    = 36 // u32
	unusedBlock    = 0xffffffff
	maxBlockSize   = 256 << 20
	supportedMajor = 0x0001
)

// Is tells whether a file of size bytes ends in a footer.
func Is(r io.ReaderAt, size int64) bool {
	b := make([]byte, len(cookie))
	if size < footerSize {
		return false
	}
	n, _ := r.ReadAt(b, size-footerSize)
	return string(b[:n]) == cookie
}

// Open reads the footer of an image of size bytes, and the header of a
// dynamic one.
func Open(r io.ReaderAt, size int64) (*Image, error) {
	if !Is(r, size) {
		return nil, errNoImage
	}
	b := make([]byte, footerSize)
	if err := readAt(r, b, size-footerSize); err != nil {
		return nil, fmt.Errorf("vhd: reading the footer: %w", err)
	}
	be := binary.BigEndian
	if got, want := be.Uint32(b[ftChecksum:]), checksum(b, ftChecksum); got != want {
		return nil, fmt.Errorf("vhd: the footer has the checksum %08x, it says %08x", want, got)
	}
	current := be.Uint64(b[ftCurrent:])
	switch {
	case be.Uint32(b[ftVersion:])>>16 != supportedMajor:
		return nil, fmt.Errorf("vhd: version %#x is not supported", be.Uint32(b[ftVersion:]))
	case current > MaxSize || current%sectorSize != 0:
		return nil, fmt.Errorf("vhd: disk has %d bytes, want a multiple of %d up to %d", current, sectorSize, int64(MaxSize))
	}
	img := &Image{r: r, size: int64(current)}
	switch kind := be.Uint32(b[ftType:]); kind {
	case typeFixed:
		img.fixed = true
		if size-footerSize < img.size {
			return nil, fmt.Errorf("vhd: the footer says that the disk has %d bytes, the file has %d", img.size, size-footerSize)
		}
		return img, nil
	case typeDynamic:
		return img, img.readHeader(be.Uint64(b[ftDataOffset:]), size)
	case typeDifferencing:
		return nil, errors.New("vhd: differencing images, which have a parent, are not supported")
	default:
		return nil, fmt.Errorf("vhd: images of type %d are not supported, only fixed and dynamic ones", kind)
	}
}

// readHeader reads the header of a dynamic image.
func (img *Image) readHeader(at uint64, size int64) error {
	if at > uint64(size) {
		return fmt.Errorf("vhd: header at %d of a file of %d bytes", at, size)
	}
	b := make([]byte, headerSize)
	if err := readAt(img.r, b, int64(at)); err != nil {
		return fmt.Errorf("vhd: reading the header: %w", err)
	}
	be := binary.BigEndian
	if string(b[:8]) != headerCookie {
		return fmt.Errorf("vhd: header begins with %q, want %q", b[:8], headerCookie)
	}
	if got, want := be.Uint32(b[hdrChecksum:]), checksum(b, hdrChecksum); got != want {
		return fmt.Errorf("vhd: the header has the checksum %08x, it says %08x", want, got)
	}
	table := be.Uint64(b[hdrTable:])
	img.blocks, img.blockSize = int64(be.Uint32(b[hdrEntries:])), int64(be.Uint32(b[hdrBlockSize:]))
	switch {
	case be.Uint32(b[hdrVersion:])>>16 != supportedMajor:
		return fmt.Errorf("vhd: header of version %#x is not supported", be.Uint32(b[hdrVersion:]))
	case img.blockSize < sectorSize || img.blockSize > maxBlockSize || img.blockSize&(img.blockSize-1) != 0:
		return fmt.Errorf("vhd: blocks of %d bytes are not supported", img.blockSize)
	case img.blocks < (img.size+img.blockSize-1)/img.blockSize:
		return fmt.Errorf("vhd: %d blocks of %d bytes are too few for %d bytes", img.blocks, img.blockSize, img.size)
	case table > uint64(size):
		return fmt.Errorf("vhd: table at %d of a file of %d bytes", table, size)
	}
	img.table = int64(table)
	bits := img.blockSize / sectorSize
	img.bitmap = (bits/8 + sectorSize - 1) / sectorSize * sectorSize
	if img.bitmap == 0 {
		img.bitmap = sectorSize
	}
	return nil
}

// Size returns the size of the disk in bytes.
func (img *Image) Size() int64 { return img.size }

// ReadAt reads from the disk. See [io.ReaderAt].
func (img *Image) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("vhd: offset %d is negative", off)
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= img.size {
			return n, io.EOF
		}
		part := p[n:]
		part = part[:min(int64(len(part)), img.size-at)]
		if img.fixed {
			err = readAt(img.r, part, at)
		} else {
			part = part[:min(int64(len(part)), img.blockSize-at%img.blockSize)]
			err = img.readBlock(part, at/img.blockSize, at%img.blockSize)
		}
		if err != nil {
			return n, fmt.Errorf("vhd: reading the disk at %d: %w", at, err)
		}
		n += len(part)
	}
	return n, nil
}

// readBlock reads from one block.
func (img *Image) readBlock(p []byte, block, within int64) error {
	var entry [4]byte
	if err := readAt(img.r, entry[:], img.table+4*block); err != nil {
		return fmt.Errorf("reading the block table: %w", err)
	}
	sector := binary.BigEndian.Uint32(entry[:])
	if sector == unusedBlock {
		clear(p)
		return nil
	}
	return readAt(img.r, p, int64(sector)*sectorSize+img.bitmap+within)
}

// readAt fills b: an end before that is io.ErrUnexpectedEOF.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

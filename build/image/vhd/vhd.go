// Package vhd writes and reads the disk images of Virtual PC and Hyper-V:
// Microsoft's "Virtual Hard Disk Image Format Specification" of 2006.
//
// Limits first: Write makes fixed images only, which is what Azure takes: the
// disk as it is and a footer of 512 bytes behind it. The disk has a multiple
// of 1 MiB and at most [MaxSize] bytes. Open reads fixed and dynamic images,
// not differencing ones; the size of a disk is the footer's current size, as
// for Hyper-V and Azure, and not what its geometry comes to, as for Virtual
// PC. It does not look at the bitmaps of a dynamic image's blocks: what is not
// written in a block is zero in it.
//
// Where the format asks for a time and a unique id, Write takes the time from
// the caller and the id from the disk's content, so the same disk gives the
// same bytes.
package vhd

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

const (
	// MaxSize is the largest size in bytes of a disk, 2040 GiB.
	MaxSize = 2040 << 30
	// Align is what the size in bytes of a disk that is written is a multiple
	// of: Azure refuses others.
	Align = 1 << 20

	cookie     = "conectix"
	footerSize = 512
	sectorSize = 512
	copySize   = 1 << 20 // what is read at once
	pieceSize  = 1 << 16 // what is left out where it is zeros

	typeFixed        = 2
	typeDynamic      = 3
	typeDifferencing = 4
)

// Offsets within the footer ("Hard Disk Footer Format").
const (
	ftFeatures   = 8  // u32: 2, which is always set
	ftVersion    = 12 // u32: 1.0
	ftDataOffset = 16 // u64: of the header; all ones in a fixed image
	ftTime       = 24 // u32: seconds since 2000
	ftCreator    = 28 // 4 bytes
	ftCreatorVer = 32 // u32
	ftHost       = 36 // 4 bytes
	ftOriginal   = 40 // u64, bytes
	ftCurrent    = 48 // u64, bytes
	ftGeometry   = 56 // u16 cylinders, u8 heads, u8 sectors of a track
	ftType       = 60 // u32
	ftChecksum   = 64 // u32
	ftID         = 68 // 16 bytes
)

// epoch is 2000-01-01 in seconds since 1970.
const epoch = 946684800

// creator is the program that the footer names: readers such as QEMU take the
// size from the footer only for those they know, and Hyper-V is one.
const creator = "win "

// Options is how an image is written.
type Options struct {
	// Time is the image's, in seconds since 1970; it is clamped to what the
	// format knows, the years 2000 to 2136.
	Time int64
}

// Write writes a disk of size bytes as a fixed image to w, from its beginning.
// It expects a w that reads as zeros, a new file: parts of the disk that are
// zeros are not written, so that w can stay sparse.
func Write(w io.WriterAt, disk io.ReaderAt, size int64, o Options) error {
	if size <= 0 || size%Align != 0 || size > MaxSize {
		return fmt.Errorf("vhd: disk has %d bytes, want a multiple of %d up to %d", size, Align, int64(MaxSize))
	}
	id := sha256.New()
	b := make([]byte, copySize)
	for at := int64(0); at < size; at += copySize {
		if n, err := disk.ReadAt(b, at); n < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("vhd: reading %d bytes of the disk at %d: %w", len(b), at, err)
		}
		for off := 0; off < len(b); off += pieceSize {
			piece := b[off : off+pieceSize]
			if isZero(piece) {
				continue
			}
			_ = binary.Write(id, binary.LittleEndian, at+int64(off)) // a hash takes all
			id.Write(piece)
			if _, err := w.WriteAt(piece, at+int64(off)); err != nil {
				return fmt.Errorf("vhd: writing %d bytes at %d: %w", len(piece), at+int64(off), err)
			}
		}
	}
	if _, err := w.WriteAt(newFooter(size, o.Time, [16]byte(id.Sum(nil))), size); err != nil {
		return fmt.Errorf("vhd: writing the footer: %w", err)
	}
	return nil
}

func isZero(b []byte) bool {
	for len(b) > 0 {
		if [64]byte(b) != [64]byte{} {
			return false
		}
		b = b[64:]
	}
	return true
}

// newFooter makes the footer of a fixed image.
func newFooter(size, time int64, id [16]byte) []byte {
	b := make([]byte, footerSize)
	be := binary.BigEndian
	copy(b, cookie)
	be.PutUint32(b[ftFeatures:], 2)
	be.PutUint32(b[ftVersion:], 0x00010000)
	be.PutUint64(b[ftDataOffset:], math.MaxUint64)
	be.PutUint32(b[ftTime:], uint32(min(max(time-epoch, 0), math.MaxUint32)))
	copy(b[ftCreator:], creator)
	be.PutUint32(b[ftCreatorVer:], 0x00060001)
	copy(b[ftHost:], "Wi2k") // Windows; the other one that there is is Macintosh
	be.PutUint64(b[ftOriginal:], uint64(size))
	be.PutUint64(b[ftCurrent:], uint64(size))
	cylinders, heads, sectors := geometry(size / sectorSize)
	be.PutUint16(b[ftGeometry:], uint16(cylinders))
	b[ftGeometry+2], b[ftGeometry+3] = byte(heads), byte(sectors)
	be.PutUint32(b[ftType:], typeFixed)
	id[6] = id[6]&0x0f | 0x80 // RFC 9562 section 5.8: a UUID of version 8
	id[8] = id[8]&0x3f | 0x80
	copy(b[ftID:], id[:])
	be.PutUint32(b[ftChecksum:], checksum(b, ftChecksum))
	return b
}

// checksum is the one's complement of the sum of the bytes but for those of
// the checksum itself, which is at the given offset.
func checksum(b []byte, at int) uint32 {
	sum := uint32(0)
	for i, c := range b {
		if i < at || i >= at+4 {
			sum += uint32(c)
		}
	}
	return ^sum
}

// geometry is what the specification has for a number of sectors (appendix
// "CHS Calculation").
func geometry(total int64) (cylinders, heads, sectors int64) {
	total = min(total, 65535*16*255)
	var tracks int64 // cylinders times heads
	if total >= 65535*16*63 {
		sectors, heads = 255, 16
		tracks = total / sectors
	} else {
		sectors = 17
		tracks = total / sectors
		heads = max((tracks+1023)/1024, 4)
		if tracks >= heads*1024 || heads > 16 {
			sectors, heads = 31, 16
			tracks = total / sectors
		}
		if tracks >= heads*1024 {
			sectors, heads = 63, 16
			tracks = total / sectors
		}
	}
	return tracks / heads, heads, sectors
}

var errNoImage = errors.New("vhd: no footer: the last 512 bytes do not begin with \"conectix\"")

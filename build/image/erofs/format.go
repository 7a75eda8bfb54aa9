// Package erofs writes EROFS file systems, uncompressed, of blocks of 4096
// bytes, which Linux 5.4 and erofs-utils 1.0 and later read, and reads these and
// compressed ones.
//
// An image has at most 16 TiB, a name 255 bytes, the target of a symbolic
// link 4095, the name of an extended attribute 255 behind its prefix and its
// value 65535. Times are whole seconds. [Open] refuses chunk-based files, other
// block sizes, and every incompatible feature but those of compressed files. Of
// these it gives the content where it is compressed by LZ4, and lies neither
// behind inodes nor in fragments.
//
// [Write] lays an image out so:
//
//	byte 1024  the superblock, 128 bytes
//	byte 1152  inodes, each with its extended attributes and, where both fit
//	           into one block, the last part of its data, which is what would
//	           not fill a block
//	…          extended attributes that more than two inodes have
//	…          directories, in whole blocks
//	…          files, in whole blocks
//
// Inodes and data are in the order of their paths, but for inodes that fill
// gaps in blocks before. The first inode is the root's. An inode has 32 bytes
// where its time is the image's and its owner, group, links and size are
// small enough, and 64 otherwise. An inode that has several names is stored
// once, at the place of the first of them.
//
// See Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux.
package erofs

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strings"
)

// BlockSize is the size of blocks in bytes.
const BlockSize = 4096

const (
	slotSize     = 32 // inodes begin at a multiple of it; nids count it
	slotsInBlock = BlockSize / slotSize

	superOffset = 1024
	superSize   = 128
	superMagic  = 0xE0F5E1E2

	maxName    = 255
	maxTarget  = 4095 // PATH_MAX without the NUL
	maxLabel   = 15   // volume_name without a NUL
	maxBlocks  = 1<<32 - 1
	compactMax = 1<<16 - 1 // owner, group and links of a compact inode
)

// Features (EROFS_FEATURE_*).
const (
	compatChecksum       = 1 << 0
	compatMtime          = 1 << 1
	incompatZeroPadding  = 1 << 0 // these say something of compressed files only
	incompatBigClusters  = 1 << 1
	supportedIncompat    = incompatZeroPadding | incompatBigClusters
	blockSizeBits        = 12
	inodeCompactSize     = 32
	inodeExtendedSize    = 64
	formatExtended       = 1 << 0 // i_format
	formatLayoutShift    = 1
	formatLayoutMask     = 7
	formatKnown          = formatExtended | formatLayoutMask<<formatLayoutShift
	layoutPlain          = 0 // all data in blocks
	layoutCompressedFull = 1
	layoutInline         = 2 // the last part behind the inode
	layoutCompressed     = 3
	layoutChunked        = 4
)

// File types, in [Entry.Mode].
const (
	typeMask    = 0o170000
	typeFIFO    = 0o010000
	typeChar    = 0o020000
	typeDir     = 0o040000
	typeBlock   = 0o060000
	typeRegular = 0o100000
	typeSymlink = 0o120000
	typeSocket  = 0o140000
)

// direntType returns the file type as directories have it (EROFS_FT_*), 0 for
// a mode that has none.
func direntType(mode uint32) byte {
	switch mode & typeMask {
	case typeRegular:
		return 1
	case typeDir:
		return 2
	case typeChar:
		return 3
	case typeBlock:
		return 4
	case typeFIFO:
		return 5
	case typeSocket:
		return 6
	case typeSymlink:
		return 7
	}
	return 0
}

// Options is what an image says of itself.
type Options struct {
	// UUID names the file system. The bytes are in the order of its text form.
	UUID [16]byte
	// BuildTime is in seconds since 1970. Inodes of that time are smaller.
	BuildTime int64
	// Label is the volume's name, of 0 to 15 bytes.
	Label string
}

func (o Options) check() error {
	if len(o.Label) > maxLabel || strings.IndexByte(o.Label, 0) >= 0 {
		return fmt.Errorf("label %q: want 0 to %d bytes without a NUL", o.Label, maxLabel)
	}
	return nil
}

// super is a superblock (struct erofs_super_block).
type super struct {
	Options
	rootNid   uint16
	inodes    uint64
	blocks    uint32
	metaBlock uint32 // where nid 0 is
	xattrs    uint32 // block where shared extended attributes begin
	// zeroPadded is set where compressed bytes stand at the end of their blocks.
	zeroPadded bool
}

// Offsets within the superblock.
const (
	sbMagic       = 0  // u32
	sbChecksum    = 4  // u32
	sbCompat      = 8  // u32
	sbBlockBits   = 12 // u8
	sbRootNid     = 14 // u16
	sbInodes      = 16 // u64
	sbBuildTime   = 24 // u64, then u32 nanoseconds
	sbBlocks      = 36 // u32
	sbMetaBlock   = 40 // u32
	sbXattrBlock  = 44 // u32
	sbUUID        = 48 // 16 bytes
	sbLabel       = 64 // 16 bytes
	sbIncompat    = 80 // u32
	sbDevices     = 86 // u16
	sbDirBits     = 90 // u8
	sbPrefixCount = 91 // u8
)

// put writes the superblock into block 0, which must be complete otherwise:
// the checksum is of all of it from the superblock on.
func (s super) put(block []byte) {
	b := block[superOffset:][:superSize]
	le := binary.LittleEndian
	le.PutUint32(b[sbMagic:], superMagic)
	le.PutUint32(b[sbCompat:], compatChecksum|compatMtime)
	b[sbBlockBits] = blockSizeBits
	le.PutUint16(b[sbRootNid:], s.rootNid)
	le.PutUint64(b[sbInodes:], s.inodes)
	le.PutUint64(b[sbBuildTime:], uint64(s.BuildTime))
	le.PutUint32(b[sbBlocks:], s.blocks)
	le.PutUint32(b[sbMetaBlock:], s.metaBlock)
	le.PutUint32(b[sbXattrBlock:], s.xattrs)
	copy(b[sbUUID:], s.UUID[:])
	copy(b[sbLabel:], s.Label)
	le.PutUint32(b[sbChecksum:], checksum(block))
}

// checksum returns the CRC-32C of block 0 from the superblock on, with its
// bits not inverted at the end. The checksum's own place must hold zeros.
func checksum(block []byte) uint32 {
	return ^crc32.Checksum(block[superOffset:], crc32.MakeTable(crc32.Castagnoli))
}

// parseSuper reads the superblock in block 0, which it changes.
func parseSuper(block []byte) (super, error) {
	b := block[superOffset:][:superSize]
	le := binary.LittleEndian
	if got := le.Uint32(b[sbMagic:]); got != superMagic {
		return super{}, fmt.Errorf("no EROFS superblock: magic is %#x, want %#x", got, uint32(superMagic))
	}
	if got := b[sbBlockBits]; got != blockSizeBits {
		return super{}, fmt.Errorf("erofs: blocks of 2^%d bytes are not supported, only of 2^%d", got, blockSizeBits)
	}
	if got := le.Uint32(b[sbIncompat:]) &^ supportedIncompat; got != 0 {
		return super{}, fmt.Errorf("erofs: incompatible features %#x are not supported", got)
	}
	if n := le.Uint16(b[sbDevices:]); n != 0 {
		return super{}, fmt.Errorf("erofs: %d further devices are not supported", n)
	}
	if b[sbDirBits] != 0 || b[sbPrefixCount] != 0 {
		return super{}, fmt.Errorf("erofs: directory blocks of another size and prefixes of attributes are not supported")
	}
	s := super{
		rootNid:   le.Uint16(b[sbRootNid:]),
		inodes:    le.Uint64(b[sbInodes:]),
		blocks:    le.Uint32(b[sbBlocks:]),
		metaBlock: le.Uint32(b[sbMetaBlock:]),
		xattrs:    le.Uint32(b[sbXattrBlock:]),

		zeroPadded: le.Uint32(b[sbIncompat:])&incompatZeroPadding != 0,
	}
	s.BuildTime = int64(le.Uint64(b[sbBuildTime:]))
	copy(s.UUID[:], b[sbUUID:])
	label, _, _ := bytes.Cut(b[sbLabel:][:maxLabel+1], []byte{0})
	s.Label = string(label)
	if le.Uint32(b[sbCompat:])&compatChecksum != 0 {
		want := le.Uint32(b[sbChecksum:])
		clear(b[sbChecksum:sbCompat])
		if got := checksum(block); got != want {
			return super{}, fmt.Errorf("erofs: checksum of the superblock is %#08x, want %#08x", got, want)
		}
	}
	return s, nil
}

// inode is what an inode says (struct erofs_inode_compact, _extended).
type inode struct {
	extended bool
	layout   int
	xattrs   int64 // bytes of extended attributes
	mode     uint32
	links    uint32
	size     int64
	start    uint32 // first block, or device number
	ino      uint32
	uid, gid uint32
	mtime    int64
}

// headerSize returns the bytes of the inode alone.
func (i *inode) headerSize() int64 {
	if i.extended {
		return inodeExtendedSize
	}
	return inodeCompactSize
}

// append appends the inode alone to b.
func (i *inode) append(b []byte) []byte {
	le := binary.LittleEndian
	format := uint16(i.layout << formatLayoutShift)
	if i.extended {
		format |= formatExtended
	}
	b = le.AppendUint16(b, format)
	b = le.AppendUint16(b, xattrCount(i.xattrs))
	b = le.AppendUint16(b, uint16(i.mode))
	if !i.extended {
		b = le.AppendUint16(b, uint16(i.links))
		b = le.AppendUint32(b, uint32(i.size))
		b = le.AppendUint32(b, 0)
		b = le.AppendUint32(b, i.start)
		b = le.AppendUint32(b, i.ino)
		b = le.AppendUint16(b, uint16(i.uid))
		b = le.AppendUint16(b, uint16(i.gid))
		return le.AppendUint32(b, 0)
	}
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(i.size))
	b = le.AppendUint32(b, i.start)
	b = le.AppendUint32(b, i.ino)
	b = le.AppendUint32(b, i.uid)
	b = le.AppendUint32(b, i.gid)
	b = le.AppendUint64(b, uint64(i.mtime))
	b = le.AppendUint32(b, 0) // nanoseconds
	b = le.AppendUint32(b, i.links)
	return append(b, make([]byte, 16)...)
}

// parseInode reads the inode that b begins with: 64 bytes, or 32 where it is
// compact, the time of which is buildTime.
func parseInode(b []byte, buildTime int64) (inode, error) {
	le := binary.LittleEndian
	format := le.Uint16(b)
	if format&^formatKnown != 0 {
		return inode{}, fmt.Errorf("inode format %#x is not supported", format)
	}
	i := inode{
		extended: format&formatExtended != 0,
		layout:   int(format>>formatLayoutShift) & formatLayoutMask,
		xattrs:   xattrSize(le.Uint16(b[2:])),
		mode:     uint32(le.Uint16(b[4:])),
		start:    le.Uint32(b[16:]),
		ino:      le.Uint32(b[20:]),
	}
	if !i.extended {
		i.links = uint32(le.Uint16(b[6:]))
		i.size = int64(le.Uint32(b[8:]))
		i.uid, i.gid = uint32(le.Uint16(b[24:])), uint32(le.Uint16(b[26:]))
		i.mtime = buildTime
	} else {
		if len(b) < inodeExtendedSize {
			return inode{}, fmt.Errorf("inode has %d bytes, want %d", len(b), inodeExtendedSize)
		}
		i.size = int64(le.Uint64(b[8:]))
		i.uid, i.gid = le.Uint32(b[24:]), le.Uint32(b[28:])
		i.mtime = int64(le.Uint64(b[32:]))
		i.links = le.Uint32(b[44:])
	}
	switch i.layout {
	case layoutPlain, layoutInline, layoutCompressedFull, layoutCompressed:
	case layoutChunked:
		return inode{}, fmt.Errorf("chunk-based data is not supported")
	default:
		return inode{}, fmt.Errorf("data layout %d is not known", i.layout)
	}
	if i.size < 0 {
		return inode{}, fmt.Errorf("size %d is negative", i.size)
	}
	return i, nil
}

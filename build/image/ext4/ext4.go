// Package ext4 reads ext2, ext3 and ext4 file systems, to tell what is in them.
//
// Limits first: compressed and encrypted file systems, those with data in
// their folders' entries, and journals on their own are refused. The journal
// is not replayed, and checksums are not compared: what is there is read as it
// stands. Attributes are given as they are stored, which for access control
// lists is not the form that getxattr has. A walk reads at most maxListing
// bytes of folders, maxEntries names and maxExtents pieces of files, whatever
// an image says; a path has at most maxPath bytes.
//
// An image is divided into groups of blocks:
//
//	byte 1024  the superblock, 1024 bytes
//	…          the group descriptors: where each group's bitmaps and inodes are
//	groups     a bitmap of blocks, a bitmap of inodes, inodes, data; in some a
//	           copy of superblock and descriptors
//
// A file's blocks are found through a tree of extents, or, as in ext2 and ext3,
// through blocks of block numbers; small ones can lie in the inode. See
// Documentation/filesystems/ext4 and fs/ext4/ext4.h of Linux.
package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Limits of what is read, whatever an image says.
const (
	maxEntries = 4 << 20
	maxListing = 1 << 30 // bytes of all folders
	maxExtents = 8 << 20 // pieces of all files
	maxBlocks  = 1 << 28 // block numbers that are looked at for pieces
	maxPath    = 64 << 10
	maxGroups  = 1 << 18
	maxValue   = 64 << 10 // bytes of an extended attribute
)

const (
	superAt   = 1024
	superSize = 1024
	magic     = 0xef53
	rootInode = 2
	journal   = 8 // its inode
)

// Incompatible features (fs/ext4/ext4.h, EXT4_FEATURE_INCOMPAT_*).
const (
	featCompression = 0x1
	featFiletype    = 0x2
	featRecover     = 0x4
	featJournalDev  = 0x8
	featMetaBG      = 0x10
	featExtents     = 0x40
	feat64bit       = 0x80
	featMMP         = 0x100
	featFlexBG      = 0x200
	featEAInode     = 0x400
	featCsumSeed    = 0x2000
	featLargeDir    = 0x4000
	featInlineData  = 0x8000
	featCasefold    = 0x20000

	featKnown = featFiletype | featRecover | featMetaBG | featExtents | feat64bit | featMMP | featFlexBG | featEAInode | featCsumSeed |
		featLargeDir | featInlineData | featCasefold
	featSparseSuper = 0x1 // read-only compatible
)

// FS is a file system in an image.
type FS struct {
	r             io.ReaderAt
	block         int64 // bytes
	blocks        int64
	first         int64 // the block that the first group begins with
	perGroup      int64 // blocks
	inodes        int64
	inodesPer     int64 // of a group
	inodeSize     int64
	incompatible  uint32
	sparse        bool
	groups        []group
	descriptors   []Region
	reservedTable int64 // blocks behind the descriptors
}

// group is what a descriptor says, in blocks.
type group struct{ blockMap, inodeMap, table int64 }

// Region is a part of an image that is no file, in bytes.
type Region struct {
	Name      string
	Off, Size int64
}

// Open reads the superblock and the group descriptors of an image that r has
// from its beginning.
func Open(r io.ReaderAt) (*FS, error) {
	b := make([]byte, superSize)
	if err := readFull(r, b, superAt); err != nil {
		return nil, fmt.Errorf("reading the ext4 superblock: %w", err)
	}
	f := &FS{r: r}
	if err := f.super(b); err != nil {
		return nil, fmt.Errorf("ext4 superblock: %w", err)
	}
	if err := f.readGroups(b); err != nil {
		return nil, err
	}
	return f, nil
}

// super checks a superblock (struct ext4_super_block).
func (f *FS) super(b []byte) error {
	le := binary.LittleEndian
	if got := le.Uint16(b[0x38:]); got != magic {
		return fmt.Errorf("magic %#x, want %#x", got, magic)
	}
	f.incompatible = le.Uint32(b[0x60:])
	if odd := f.incompatible &^ featKnown; odd != 0 {
		return fmt.Errorf("features %#x are not supported", odd)
	}
	shift := le.Uint32(b[0x18:])
	if shift > 6 {
		return fmt.Errorf("blocks of 2^%d KiB", shift)
	}
	f.block = 1024 << shift
	f.blocks = int64(le.Uint32(b[4:]))
	if f.incompatible&feat64bit != 0 {
		f.blocks |= int64(le.Uint32(b[0x150:])&0xffff) << 32
	}
	f.first, f.perGroup = int64(le.Uint32(b[0x14:])), int64(le.Uint32(b[0x20:]))
	f.inodes, f.inodesPer = int64(le.Uint32(b)), int64(le.Uint32(b[0x28:]))
	f.inodeSize = 128
	if le.Uint32(b[0x4c:]) > 0 { // the revision
		f.inodeSize = int64(le.Uint16(b[0x58:]))
	}
	f.sparse = le.Uint32(b[0x64:])&featSparseSuper != 0
	f.reservedTable = int64(le.Uint16(b[0xce:]))
	switch {
	case f.perGroup < 1 || f.perGroup > 8*f.block || f.inodesPer < 1 || f.inodesPer > 8*f.block:
		return fmt.Errorf("groups of %d blocks and %d inodes", f.perGroup, f.inodesPer)
	case f.first > 1 || f.first >= f.blocks:
		return fmt.Errorf("the first of %d blocks is %d", f.blocks, f.first)
	case f.inodeSize < 128 || f.inodeSize > f.block || f.inodeSize&(f.inodeSize-1) != 0:
		return fmt.Errorf("inodes of %d bytes", f.inodeSize)
	}
	return nil
}

// readGroups reads the descriptors (struct ext4_group_desc).
func (f *FS) readGroups(super []byte) error {
	le := binary.LittleEndian
	size := int64(32)
	if f.incompatible&feat64bit != 0 {
		size = int64(le.Uint16(super[0xfe:]))
		if size < 64 || size > f.block || size&(size-1) != 0 {
			return fmt.Errorf("ext4 superblock: group descriptors of %d bytes", size)
		}
	}
	count := (f.blocks - f.first + f.perGroup - 1) / f.perGroup
	if count > maxGroups || f.inodes > count*f.inodesPer {
		return fmt.Errorf("ext4 superblock: %d groups, %d inodes", count, f.inodes)
	}
	perBlock, firstMeta := f.block/size, int64(le.Uint32(super[0x104:]))
	b := make([]byte, f.block)
	for at := int64(0); at < count; at += perBlock {
		where := f.descriptorBlock(at, perBlock, firstMeta)
		if err := f.readBlock(b, where); err != nil {
			return fmt.Errorf("reading the descriptor of group %d: %w", at, err)
		}
		f.descriptors = append(f.descriptors, Region{"group descriptors", where * f.block, f.block})
		for i := at; i < min(at+perBlock, count); i++ {
			d := b[(i-at)*size:]
			g := group{int64(le.Uint32(d)), int64(le.Uint32(d[4:])), int64(le.Uint32(d[8:]))}
			if size >= 64 {
				g.blockMap |= int64(le.Uint16(d[0x20:])) << 32
				g.inodeMap |= int64(le.Uint16(d[0x24:])) << 32
				g.table |= int64(le.Uint16(d[0x28:])) << 32
			}
			f.groups = append(f.groups, g)
		}
	}
	return nil
}

// descriptorBlock is where the descriptors from that of a group on are
// (Documentation/filesystems/ext4/overview.rst, "Meta Block Groups").
func (f *FS) descriptorBlock(from, perBlock, firstMeta int64) int64 {
	n := from / perBlock
	if f.incompatible&featMetaBG == 0 || n < firstMeta {
		return f.first + 1 + n
	}
	at := f.first + from*f.perGroup
	if f.hasCopy(from) {
		at++
	}
	return at
}

// hasCopy tells whether a group has a copy of the superblock.
func (f *FS) hasCopy(group int64) bool {
	if group <= 1 || !f.sparse {
		return true
	}
	for _, base := range []int64{3, 5, 7} {
		p := base
		for p < group {
			p *= base
		}
		if p == group {
			return true
		}
	}
	return false
}

// Size is the size of the image in bytes.
func (f *FS) Size() int64 { return f.blocks * f.block }

// Regions are the parts that are no files, as far as the superblock and the
// descriptors say where they lie; tables of inodes are not among them.
func (f *FS) Regions() []Region {
	list := append([]Region{}, f.descriptors...)
	table := int64(len(f.descriptors))
	for i, g := range f.groups {
		list = append(list, Region{fmt.Sprintf("block bitmap of group %d", i), g.blockMap * f.block, f.block},
			Region{fmt.Sprintf("inode bitmap of group %d", i), g.inodeMap * f.block, f.block})
		if n := int64(i); n > 0 && f.hasCopy(n) {
			at := f.first + n*f.perGroup
			list = append(list, Region{fmt.Sprintf("copy of superblock and descriptors in group %d", i), at * f.block, (1 + table) * f.block})
		}
	}
	if j, err := f.inode(journal); err == nil {
		w := newBudget()
		if pieces, err := f.extents(j, w); err == nil {
			for _, p := range pieces {
				list = append(list, Region{"journal", p.from * f.block, p.count * f.block})
			}
		}
	}
	return list
}

// Inode is where the inode begins that the byte at off belongs to; false where
// there is none.
func (f *FS) Inode(off int64) (start int64, ok bool) {
	length := f.inodesPer * f.inodeSize
	for _, g := range f.groups {
		if table := g.table * f.block; table <= off && off < table+length {
			return off - (off-table)%f.inodeSize, true
		}
	}
	return 0, false
}

func (f *FS) readBlock(b []byte, n int64) error {
	if n <= 0 || n >= f.blocks {
		return fmt.Errorf("block %d of %d", n, f.blocks)
	}
	return readFull(f.r, b, n*f.block)
}

// readFull fills b: io.ReaderAt may end with io.EOF beside the last bytes.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return io.ErrUnexpectedEOF
	}
	return err
}

// Package squashfs reads squashfs file systems, version 4.0: what mksquashfs 4.0
// and later and Linux 2.6.29 and later write and read.
//
// Limits: compression by gzip, xz, lz4 and zstd; images by the older lzma and by
// lzo are refused. Everything is little-endian. A metadata block has at most 8192
// bytes, a data block at most 1 MiB, a folder at most maxListing bytes, an image at
// most maxEntries names.
//
// An image is:
//
//	byte 0    the superblock, 96 bytes
//	…         the compressor's options, if any
//	…         data blocks and fragments, as the inodes and the fragment table say
//	          where
//	tables    of inodes, folders, fragments, the export table, of owners and of
//	          extended attributes, all in metadata blocks: two bytes with their size,
//	          then that many, compressed unless bit 15 is set
//
// An inode is referred to by where its block begins in the inode table (48 bits)
// and where in the block it lies (16 bits). See Documentation/filesystems/
// squashfs.rst and fs/squashfs/squashfs_fs.h of Linux.
package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Bounds of what is read.
const (
	magic        = 0x73717368
	superSize    = 96
	metadataSize = 8192
	maxBlock     = 1 << 20
	maxEntries   = 4 << 20
	maxListing   = 64 << 20
	maxXattrs    = 1 << 20 // bytes of one inode's attributes
	maxTarget    = 4096
	none         = 0xffffffff
	noTable      = 0xffffffffffffffff
)

// Flags of the superblock.
const flagNoXattrs = 1 << 9

// super is struct squashfs_super_block.
type super struct {
	Magic, Inodes, Time, BlockSize, Fragments            uint32
	Compression, BlockLog, Flags, IDs, Major, Minor      uint16
	Root, Size                                           uint64
	IDTable, Xattrs, InodeTable, Folders, FragmentsTable uint64
	Export                                               uint64
}

// FS is a file system in an image.
type FS struct {
	r     io.ReaderAt
	sb    super
	codec decompressor
	ids   []uint32
	cache metadataCache
	// The attributes' values begin at xattrBase; xattrBlocks are where the blocks of
	// the table lie that has an inode's.
	xattrBase   int64
	xattrBlocks []int64
	xattrCount  uint32
	// fragmentBlocks are those of the fragment table.
	fragmentBlocks []int64
}

// Open reads the superblock of an image that r has from its beginning, and the
// tables of owners and attributes.
func Open(r io.ReaderAt) (*FS, error) {
	f := &FS{r: r}
	if err := binary.Read(io.NewSectionReader(r, 0, superSize), binary.LittleEndian, &f.sb); err != nil {
		return nil, fmt.Errorf("reading the superblock: %w", err)
	}
	if err := f.check(); err != nil {
		return nil, err
	}
	var err error
	if f.codec, err = newDecompressor(f.sb.Compression); err != nil {
		return nil, err
	}
	if err := f.readIDs(); err != nil {
		return nil, fmt.Errorf("the table of owners: %w", err)
	}
	if f.fragmentBlocks, err = f.pointers(f.sb.FragmentsTable, uint64(f.sb.Fragments), fragmentEntry); err != nil {
		return nil, fmt.Errorf("the table of fragments: %w", err)
	}
	if err := f.openXattrs(); err != nil {
		return nil, fmt.Errorf("the table of attributes: %w", err)
	}
	return f, nil
}

func (f *FS) check() error {
	s := &f.sb
	switch {
	case s.Magic != magic:
		return fmt.Errorf("magic %#x, want %#x", s.Magic, uint32(magic))
	case s.Major != 4 || s.Minor != 0:
		return fmt.Errorf("version %d.%d, want 4.0", s.Major, s.Minor)
	case s.BlockSize < 4096 || s.BlockSize > maxBlock || s.BlockLog > 20 || s.BlockSize != 1<<s.BlockLog:
		return fmt.Errorf("blocks of %d bytes (2 to the %d)", s.BlockSize, s.BlockLog)
	case s.Size > 1<<62:
		return fmt.Errorf("an image of %d bytes", s.Size)
	case s.InodeTable >= s.Folders || s.Folders >= s.Size:
		return fmt.Errorf("tables at %d and %d of %d bytes", s.InodeTable, s.Folders, s.Size)
	case s.IDs == 0:
		return errors.New("no owners")
	}
	return nil
}

// Size is the size of the image in bytes, without what fills its last block.
func (f *FS) Size() int64 { return int64(f.sb.Size) }

// Time is when the image was made, in seconds since 1970.
func (f *FS) Time() int64 { return int64(f.sb.Time) }

// pointers reads the addresses of the metadata blocks of a table of n entries
// of that size.
func (f *FS) pointers(at, n uint64, size uint64) ([]int64, error) {
	if n == 0 || at == noTable {
		return nil, nil
	}
	blocks := (n*size + metadataSize - 1) / metadataSize
	if at > f.sb.Size || blocks*8 > f.sb.Size-at {
		return nil, fmt.Errorf("%d entries at %d of an image of %d bytes", n, at, f.sb.Size)
	}
	b := make([]byte, 8*blocks)
	if err := f.readFull(b, int64(at)); err != nil {
		return nil, err
	}
	out := make([]int64, blocks)
	for i := range out {
		p := binary.LittleEndian.Uint64(b[8*i:])
		if p >= f.sb.Size {
			return nil, fmt.Errorf("block %d at %d of an image of %d bytes", i, p, f.sb.Size)
		}
		out[i] = int64(p)
	}
	return out, nil
}

func (f *FS) readIDs() error {
	blocks, err := f.pointers(f.sb.IDTable, uint64(f.sb.IDs), 4)
	if err != nil {
		return err
	}
	for i := range int(f.sb.IDs) {
		b, err := f.entry(blocks, i, 4)
		if err != nil {
			return err
		}
		f.ids = append(f.ids, binary.LittleEndian.Uint32(b))
	}
	return nil
}

// entry is entry i of a table.
func (f *FS) entry(blocks []int64, i, size int) ([]byte, error) {
	at := i * size
	if at/metadataSize >= len(blocks) {
		return nil, fmt.Errorf("no entry %d", i)
	}
	b, _, err := f.metadata(blocks[at/metadataSize])
	if err != nil {
		return nil, err
	}
	if at %= metadataSize; at+size > len(b) {
		return nil, fmt.Errorf("no entry %d", i)
	}
	return b[at : at+size], nil
}

func (f *FS) readFull(b []byte, at int64) error {
	n, err := f.r.ReadAt(b, at)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("reading %d bytes at %d: %w", len(b), at, err)
}

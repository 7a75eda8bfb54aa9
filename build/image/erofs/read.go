package erofs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// FS is a file system in an image.
type FS struct {
	r     io.ReaderAt
	super super
}

// Open reads the superblock of an image that r has from its beginning.
func Open(r io.ReaderAt) (*FS, error) {
	block := make([]byte, BlockSize)
	if err := readFull(r, block, 0); err != nil {
		return nil, fmt.Errorf("erofs: reading the superblock: %w", err)
	}
	s, err := parseSuper(block)
	if err != nil {
		return nil, err
	}
	return &FS{r: r, super: s}, nil
}

// Options returns what the image says of itself.
func (f *FS) Options() Options { return f.super.Options }

// Size returns the size of the image in bytes.
func (f *FS) Size() int64 { return int64(f.super.blocks) * BlockSize }

// readFull is ReadAt of the whole of b: an end before that is
// io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		return io.ErrUnexpectedEOF
	}
	return err
}

// read reads n bytes at an offset that the image itself gives.
func (f *FS) read(off, n int64) ([]byte, error) {
	if err := f.check(off, n); err != nil {
		return nil, err
	}
	b := make([]byte, n)
	if err := readFull(f.r, b, off); err != nil {
		return nil, fmt.Errorf("reading %d bytes at %d: %w", n, off, err)
	}
	return b, nil
}

// check says whether so many bytes at an offset are in the image.
func (f *FS) check(off, n int64) error {
	if size := f.Size(); off < 0 || n < 0 || off > size || n > size-off {
		return fmt.Errorf("%d bytes at %d are not within the %d bytes of the image", n, off, size)
	}
	return nil
}

// file is an inode and where it is.
type file struct {
	inode
	nid uint64
	at  int64
}

// readInode reads the inode with a number that a directory gives.
func (f *FS) readInode(nid uint64) (*file, error) {
	if nid > uint64(f.Size()/slotSize) {
		return nil, fmt.Errorf("inode %d is not within the %d bytes of the image", nid, f.Size())
	}
	at := int64(f.super.metaBlock)*BlockSize + int64(nid)*slotSize
	b, err := f.read(at, inodeCompactSize)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", nid, err)
	}
	if b[0]&formatExtended != 0 {
		if b, err = f.read(at, inodeExtendedSize); err != nil {
			return nil, fmt.Errorf("inode %d: %w", nid, err)
		}
	}
	i, err := parseInode(b, f.super.BuildTime)
	if err != nil {
		return nil, fmt.Errorf("inode %d: %w", nid, err)
	}
	if direntType(i.mode) == 0 {
		return nil, fmt.Errorf("inode %d: mode %#o is not one of a file", nid, i.mode)
	}
	return &file{inode: i, nid: nid, at: at}, nil
}

// isCompressed tells whether a file's data is compressed.
func (i *inode) isCompressed() bool {
	return i.layout == layoutCompressed || i.layout == layoutCompressedFull
}

// extents returns where the data of a file is that is not compressed: in blocks, and behind its
// inode. Both are within the image.
func (f *FS) extents(i *file) (blocks, tail *io.SectionReader, err error) {
	start := int64(i.start) * BlockSize
	var inline int64
	if i.layout == layoutInline {
		// All of the last block, also a full one, is behind the inode.
		inline = min((i.size-1)%BlockSize+1, i.size)
	}
	inBlocks := i.size - inline
	behind := i.at + i.headerSize() + i.inode.xattrs
	if inBlocks == 0 {
		start = 0
	}
	if err := errors.Join(f.check(start, inBlocks), f.check(behind, inline)); err != nil {
		return nil, nil, err
	}
	if behind%BlockSize+inline > BlockSize {
		return nil, nil, fmt.Errorf("%d bytes of data at %d cross the end of a block", inline, behind)
	}
	return io.NewSectionReader(f.r, start, inBlocks), io.NewSectionReader(f.r, behind, inline), nil
}

// content returns a reader of a file's data, which fails where that is cut
// off.
func (f *FS) content(i *file) (io.Reader, error) {
	if i.isCompressed() {
		r, err := f.decompressed(i)
		return &exactReader{r: r, left: i.size}, err
	}
	blocks, tail, err := f.extents(i)
	if err != nil {
		return nil, err
	}
	return &exactReader{r: io.MultiReader(blocks, tail), left: i.size}, nil
}

// exactReader is an end before so many bytes turned into an error.
type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = fmt.Errorf("%d bytes are missing: %w", e.left, io.ErrUnexpectedEOF)
	}
	return n, err
}

// readTarget returns what a symbolic link points to.
func (f *FS) readTarget(i *file) (string, error) {
	if i.size < 1 || i.size > maxTarget {
		return "", fmt.Errorf("target has %d bytes, want 1 to %d", i.size, maxTarget)
	}
	r, err := f.content(i)
	if err != nil {
		return "", err
	}
	b := make([]byte, i.size)
	if _, err := io.ReadFull(r, b); err != nil {
		return "", fmt.Errorf("reading the target: %w", err)
	}
	if bytes.IndexByte(b, 0) >= 0 {
		return "", fmt.Errorf("target %.80q has a NUL in it", b)
	}
	return string(b), nil
}

// readXattrs returns the extended attributes of a file, nil where it has
// none.
func (f *FS) readXattrs(i *file) (map[string][]byte, error) {
	if i.inode.xattrs == 0 {
		return nil, nil
	}
	b, err := f.read(i.at+i.headerSize(), i.inode.xattrs)
	if err != nil {
		return nil, err
	}
	m := make(map[string][]byte)
	add := func(b []byte) (int, error) {
		name, value, size, err := parseXattr(b)
		if err != nil {
			return 0, err
		}
		if _, ok := m[name]; ok {
			return 0, fmt.Errorf("extended attribute %q is there twice", name)
		}
		m[name] = value
		return size, nil
	}
	shared := int(b[4])
	b = b[xattrHeaderSize:]
	if shared*xattrAlign > len(b) {
		return nil, fmt.Errorf("%d shared extended attributes in %d bytes", shared, len(b))
	}
	for range shared {
		e, err := f.readShared(binary.LittleEndian.Uint32(b))
		if err != nil {
			return nil, err
		}
		if _, err := add(e); err != nil {
			return nil, err
		}
		b = b[xattrAlign:]
	}
	for len(b) > 0 {
		size, err := add(b)
		if err != nil {
			return nil, err
		}
		b = b[size:]
	}
	return m, nil
}

// readShared reads the entry of a shared extended attribute.
func (f *FS) readShared(id uint32) ([]byte, error) {
	at := int64(f.super.xattrs)*BlockSize + int64(id)*xattrAlign
	b, err := f.read(at, xattrEntrySize)
	if err != nil {
		return nil, err
	}
	return f.read(at, xattrEntrySize+int64(b[0])+int64(binary.LittleEndian.Uint16(b[2:])))
}

package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
)

// fragmentEntry is the size of an entry of the fragment table.
const fragmentEntry = 16

// plainBlock marks the size of a data block that is not compressed.
const plainBlock = 1 << 24

// stored is a block where it lies; one of no bytes is all zeros.
type stored struct {
	at    int64
	size  int64
	plain bool
}

func (f *FS) stored(at int64, size uint32) (stored, error) {
	s := stored{at, int64(size &^ plainBlock), size&plainBlock != 0}
	if s.size > int64(f.sb.BlockSize) || at < 0 || uint64(at)+uint64(s.size) > f.sb.Size {
		return s, fmt.Errorf("a block of %d bytes at %d of an image of %d", s.size, at, f.sb.Size)
	}
	return s, nil
}

// places are where a file's blocks lie, and the fragment that its end is in, if
// any.
func (f *FS) places(i *inode) (blocks []stored, fragment *stored, err error) {
	at := i.start
	for _, size := range i.blocks {
		s, err := f.stored(at, size)
		if err != nil {
			return nil, nil, err
		}
		at += s.size
		blocks = append(blocks, s)
	}
	if i.fragment == none {
		return blocks, nil, nil
	}
	if i.fragment >= f.sb.Fragments {
		return nil, nil, fmt.Errorf("fragment %d of %d", i.fragment, f.sb.Fragments)
	}
	e, err := f.entry(f.fragmentBlocks, int(i.fragment), fragmentEntry)
	if err != nil {
		return nil, nil, err
	}
	s, err := f.stored(int64(binary.LittleEndian.Uint64(e)), binary.LittleEndian.Uint32(e[8:]))
	return blocks, &s, err
}

// extents are the bytes of the image that a file's content is in.
func (f *FS) extents(i *inode) ([][2]int64, error) {
	blocks, fragment, err := f.places(i)
	if err != nil {
		return nil, err
	}
	if fragment != nil {
		blocks = append(blocks, *fragment)
	}
	var out [][2]int64
	for _, s := range blocks {
		if s.size == 0 {
			continue
		}
		if n := len(out); n > 0 && out[n-1][0]+out[n-1][1] == s.at {
			out[n-1][1] += s.size
			continue
		}
		out = append(out, [2]int64{s.at, s.size})
	}
	return out, nil
}

// block is the content of a block.
func (f *FS) block(s stored) ([]byte, error) {
	if s.size == 0 {
		return make([]byte, f.sb.BlockSize), nil
	}
	b := make([]byte, s.size)
	if err := f.readFull(b, s.at); err != nil || s.plain {
		return b, err
	}
	b, err := f.codec.decompress(b, int(f.sb.BlockSize))
	if err != nil {
		return nil, fmt.Errorf("the block at %d: %w", s.at, err)
	}
	return b, nil
}

// file reads a file's content.
type file struct {
	f        *FS
	blocks   []stored
	fragment *stored
	from     uint32
	left     uint64
	data     []byte
}

func (f *FS) open(i *inode) (io.ReadCloser, error) {
	blocks, fragment, err := f.places(i)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(&file{f: f, blocks: blocks, fragment: fragment, from: i.fragmentFrom, left: i.size}), nil
}

// Read reads on, block by block.
func (x *file) Read(p []byte) (int, error) {
	for len(x.data) == 0 {
		if x.left == 0 {
			return 0, io.EOF
		}
		if err := x.next(); err != nil {
			return 0, err
		}
	}
	n := copy(p, x.data)
	x.data = x.data[n:]
	return n, nil
}

// next decompresses the next block, or the fragment.
func (x *file) next() error {
	want := min(x.left, uint64(x.f.sb.BlockSize))
	s := x.fragment
	if len(x.blocks) > 0 {
		s, x.blocks = &x.blocks[0], x.blocks[1:]
	}
	b, err := x.f.block(*s)
	if err != nil {
		return err
	}
	if s == x.fragment {
		if uint64(x.from)+want > uint64(len(b)) {
			return fmt.Errorf("bytes %d to %d of a fragment of %d", x.from, uint64(x.from)+want, len(b))
		}
		b = b[x.from:]
	} else if uint64(len(b)) < want {
		return fmt.Errorf("a block of %d bytes, want %d", len(b), want)
	}
	x.data, x.left = b[:want], x.left-want
	return nil
}

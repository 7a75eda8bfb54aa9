package squashfs

import (
	"encoding/binary"
	"fmt"
	"io"
)

// cachedBlocks is how many metadata blocks are kept: inodes and folders are
// read in their order, mostly.
const cachedBlocks = 64

// metadataCache keeps the blocks that were read last, by their address.
type metadataCache struct {
	blocks map[int64]metadataBlock
	order  []int64
}

type metadataBlock struct {
	data []byte
	next int64 // the address of the block behind it
}

// metadata is the block at an address, and the address of the next.
func (f *FS) metadata(at int64) (data []byte, next int64, err error) {
	if b, ok := f.cache.blocks[at]; ok {
		return b.data, b.next, nil
	}
	var head [2]byte
	if err := f.readFull(head[:], at); err != nil {
		return nil, 0, err
	}
	h := binary.LittleEndian.Uint16(head[:])
	size := int64(h & 0x7fff)
	if size == 0 || size > metadataSize {
		return nil, 0, fmt.Errorf("a metadata block of %d bytes at %d", size, at)
	}
	raw := make([]byte, size)
	if err := f.readFull(raw, at+2); err != nil {
		return nil, 0, err
	}
	b := metadataBlock{data: raw, next: at + 2 + size}
	if h&0x8000 == 0 {
		if b.data, err = f.codec.decompress(raw, metadataSize); err != nil {
			return nil, 0, fmt.Errorf("the metadata block at %d: %w", at, err)
		}
	}
	if f.cache.blocks == nil {
		f.cache.blocks = map[int64]metadataBlock{}
	}
	if len(f.cache.order) == cachedBlocks {
		delete(f.cache.blocks, f.cache.order[0])
		f.cache.order = f.cache.order[1:]
	}
	f.cache.blocks[at] = b
	f.cache.order = append(f.cache.order, at)
	return b.data, b.next, nil
}

// stream reads on from block to block.
type stream struct {
	f    *FS
	data []byte
	next int64
	end  int64 // no block begins there or behind
}

// stream begins in the block at an address, at an offset in it.
func (f *FS) stream(at int64, offset int, end int64) (*stream, error) {
	if at < 0 || at >= end {
		return nil, fmt.Errorf("a metadata block at %d, behind its table's end at %d", at, end)
	}
	data, next, err := f.metadata(at)
	if err != nil {
		return nil, err
	}
	if offset > len(data) {
		return nil, fmt.Errorf("byte %d of a metadata block of %d", offset, len(data))
	}
	return &stream{f, data[offset:], next, end}, nil
}

// Read reads from the stream.
func (s *stream) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(s.data) == 0 {
		if s.next >= s.end {
			return 0, io.EOF
		}
		var err error
		if s.data, s.next, err = s.f.metadata(s.next); err != nil {
			return 0, err
		}
	}
	n := copy(p, s.data)
	s.data = s.data[n:]
	return n, nil
}

// bytes are the next n.
func (s *stream) bytes(n int) ([]byte, error) {
	b := make([]byte, n)
	if _, err := io.ReadFull(s, b); err != nil {
		return nil, err
	}
	return b, nil
}

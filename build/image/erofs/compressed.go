package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/pierrec/lz4/v4"
)

// A compressed file is cut into logical clusters of one block or more. Each has
// an index entry behind the inode, which says that a compressed extent begins in
// the cluster (a head, with the offset in the cluster and where the extent's
// bytes are), or that one goes on there. An extent ends where the next begins.
// See "struct z_erofs_map_header" and what follows it in fs/erofs/erofs_fs.h,
// and fs/erofs/zmap.c, of Linux.

// Bits of h_advise.
const (
	adviseCompact2B  = 1 << 0 // an index entry takes two bytes, on average
	adviseBig1       = 1 << 1 // extents of several blocks
	adviseBig2       = 1 << 2
	adviseInline     = 1 << 3 // the last extent is behind the index
	adviseInterlaced = 1 << 4 // of uncompressed blocks, which then lie at their place in a block
	adviseFragment   = 1 << 5 // the file's end is in another inode
	adviseKnown      = adviseCompact2B | adviseBig1 | adviseBig2 | adviseInterlaced
)

// Types of logical clusters.
const (
	clusterPlain = iota
	clusterHead1
	clusterNonHead
	clusterHead2
)

const (
	mapHeaderSize = 8
	// blockCountMark marks a non-head entry that has the number of an extent's
	// blocks in place of the distance to its head.
	blockCountMark = 1 << 11
	maxClusterBits = 14
	// maxClusters bounds the index that is held: of a file of 16 GiB.
	maxClusters = 1 << 22
	// maxDecoded bounds an extent's content, in bytes: more than any compressor
	// makes of the 1 MiB that an extent may have.
	maxDecoded = 64 << 20
	algorithm4 = 0 // LZ4
)

// compressedExtent is a part of a file that was compressed in one go.
type compressedExtent struct {
	from, to int64 // in the file
	at, size int64 // in the image
	plain    bool  // not compressed after all
}

// compressedMap is what the index of a compressed file says.
type compressedMap struct {
	advise      uint16
	algorithms  byte
	clusterBits uint
	entries     []clusterEntry
}

// clusterEntry is an index entry.
type clusterEntry struct {
	typ    int
	offset int64  // of a head in its cluster
	block  uint32 // of a head
	blocks uint32 // that a non-head entry gives its head; else 0
}

// compressed returns the extents of a compressed file, in their order.
func (f *FS) compressed(i *file) ([]compressedExtent, error) {
	m, err := f.compressedMap(i)
	if err != nil {
		return nil, err
	}
	var out []compressedExtent
	for n, e := range m.entries {
		if e.typ == clusterNonHead {
			if e.blocks > 0 && len(out) > 0 {
				out[len(out)-1].size = int64(e.blocks) * BlockSize
			}
			continue
		}
		from := int64(n)<<m.clusterBits | e.offset
		if from == i.size {
			break // it marks the end
		}
		if len(out) > 0 {
			out[len(out)-1].to = from
		}
		out = append(out, compressedExtent{from: from, to: i.size, at: int64(e.block) * BlockSize, size: BlockSize, plain: e.typ == clusterPlain})
	}
	end := int64(0)
	for _, x := range out {
		if x.from != end || x.to <= x.from || x.to > i.size || x.to-x.from > maxDecoded || x.plain && x.to-x.from > x.size {
			return nil, fmt.Errorf("a compressed extent of bytes %d to %d of %d", x.from, x.to, i.size)
		}
		if err := f.check(x.at, x.size); err != nil {
			return nil, err
		}
		end = x.to
	}
	if end != i.size {
		return nil, fmt.Errorf("compressed extents end at byte %d of %d", end, i.size)
	}
	return out, nil
}

// compressedMap reads the index.
func (f *FS) compressedMap(i *file) (*compressedMap, error) {
	at := (i.at + i.headerSize() + i.inode.xattrs + 7) &^ 7
	h, err := f.read(at, mapHeaderSize)
	if err != nil {
		return nil, err
	}
	m := &compressedMap{advise: binary.LittleEndian.Uint16(h[4:]), algorithms: h[6], clusterBits: blockSizeBits + uint(h[7]&7)}
	switch {
	case h[7]&0x80 != 0 || m.advise&adviseFragment != 0:
		return nil, errors.New("compressed data in fragments is not supported")
	case m.advise&adviseInline != 0:
		return nil, errors.New("compressed data behind inodes is not supported")
	case m.advise&^adviseKnown != 0:
		return nil, fmt.Errorf("compressed data of kind %#x is not supported", m.advise)
	case i.layout == layoutCompressedFull || !f.super.zeroPadded:
		return nil, errors.New("compressed data as Linux before 5.3 had it is not supported")
	case m.clusterBits > maxClusterBits:
		return nil, fmt.Errorf("clusters of %d bytes", 1<<m.clusterBits)
	}
	n := (i.size + 1<<m.clusterBits - 1) >> m.clusterBits
	if n > maxClusters {
		return nil, fmt.Errorf("a compressed file of %d bytes is not supported", i.size)
	}
	return m, f.compactIndex(m, at+mapHeaderSize, int(n))
}

// add takes an entry, which must be possible.
func (m *compressedMap) add(e clusterEntry) error {
	switch {
	case e.offset >= 1<<m.clusterBits:
		return fmt.Errorf("an extent at byte %d of a cluster", e.offset)
	case len(m.entries) == 0 && (e.typ == clusterNonHead || e.offset != 0):
		return errors.New("a compressed file without a beginning")
	}
	m.entries = append(m.entries, e)
	return nil
}

// compactIndex reads packs of entries: some of 4 bytes an entry until the next
// multiple of 32, where 2-byte ones may follow, and 4-byte ones again.
func (f *FS) compactIndex(m *compressedMap, at int64, n int) error {
	first := int((32 - at%32) / 4 % 8)
	narrow := 0
	if m.advise&adviseCompact2B != 0 && first < n {
		narrow = (n - first) &^ 15
	}
	first = min(first, n)
	for _, part := range []struct{ n, each, bytes int }{{first, 2, 8}, {narrow, 16, 32}, {n - first - narrow, 2, 8}} {
		for left := part.n; left > 0; left -= part.each {
			pack, err := f.read(at, int64(part.bytes))
			if err != nil {
				return err
			}
			if err := m.unpack(pack, part.each, min(part.each, left)); err != nil {
				return err
			}
			at += int64(part.bytes)
		}
	}
	return nil
}

// unpack takes the first so many entries of a pack: numbers of the same width,
// with two bits of type above the low bits, and at the end the block that the
// pack's first head follows or, where extents have several blocks, is.
func (m *compressedMap) unpack(pack []byte, each, n int) error {
	lowBits := max(m.clusterBits, 12)
	width := (len(pack) - 4) * 8 / each
	block := binary.LittleEndian.Uint32(pack[len(pack)-4:])
	big, inPack := m.advise&(adviseBig1|adviseBig2) != 0, false
	for i := range n {
		bit := i * width
		v := binary.LittleEndian.Uint32(pack[bit/8:]) >> (bit % 8)
		low, e := v&(1<<lowBits-1), clusterEntry{typ: int(v >> lowBits & 3)}
		switch {
		case e.typ != clusterNonHead:
			if !big {
				block++ // the pack's own is the one in front of its first
			}
			e.offset, e.block, inPack = int64(low), block, true
			if big {
				block++
			}
		case low&blockCountMark != 0:
			if !big {
				return errors.New("an extent of several blocks in a file that has none")
			}
			e.blocks = low &^ blockCountMark
			if e.blocks == 0 {
				return errors.New("an extent of no blocks")
			}
			if block += e.blocks; inPack {
				block-- // which was counted with its head
			}
		}
		if err := m.add(e); err != nil {
			return err
		}
	}
	return nil
}

// decompressed is a reader of a compressed file's data.
func (f *FS) decompressed(i *file) (io.Reader, error) {
	m, err := f.compressedMap(i)
	if err != nil {
		return nil, err
	}
	if m.algorithms&15 != algorithm4 || m.algorithms>>4 != algorithm4 {
		return nil, fmt.Errorf("data compressed by algorithm %d is not supported, only LZ4", max(m.algorithms&15, m.algorithms>>4))
	}
	extents, err := f.compressed(i)
	if err != nil {
		return nil, err
	}
	return &decompressor{f: f, extents: extents, interlaced: m.advise&adviseInterlaced != 0}, nil
}

// decompressor reads a file extent by extent.
type decompressor struct {
	f          *FS
	extents    []compressedExtent
	interlaced bool
	data       []byte
}

func (d *decompressor) Read(p []byte) (int, error) {
	if len(d.data) == 0 {
		if len(d.extents) == 0 {
			return 0, io.EOF
		}
		var err error
		if d.data, err = d.decode(d.extents[0]); err != nil {
			return 0, err
		}
		d.extents = d.extents[1:]
	}
	n := copy(p, d.data)
	d.data = d.data[n:]
	return n, nil
}

func (d *decompressor) decode(x compressedExtent) ([]byte, error) {
	b, err := d.f.read(x.at, x.size)
	if err != nil {
		return nil, err
	}
	want := x.to - x.from
	if x.plain {
		if d.interlaced {
			turn := x.from % BlockSize
			b = append(b[turn:BlockSize:BlockSize], b[:turn]...)
		}
		return b[:want], nil
	}
	for len(b) > 0 && b[0] == 0 {
		b = b[1:] // the compressed bytes stand at the end
	}
	out := make([]byte, want)
	n, err := lz4.UncompressBlock(b, out)
	if err == nil && int64(n) != want {
		err = fmt.Errorf("%d bytes, want %d", n, want)
	}
	if err != nil {
		return nil, fmt.Errorf("the LZ4 block at %d: %w", x.at, err)
	}
	return out, nil
}

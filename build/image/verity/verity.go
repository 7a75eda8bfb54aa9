// Package verity writes and checks dm-verity hash trees.
//
// It knows one variant of the format and refuses the others: on-disk version
// 1, hash type 1 (the salt goes before the block), SHA-256, data and hash
// hash blocks of 4096 bytes, data blocks of 512 to 4096, a superblock in front
// of the tree, no forward error correction. The data may have at most
// [MaxDataSize] bytes, and a whole number of blocks, at least one.
//
// The hash area is
//
//	block 0      the superblock, 512 bytes and zeros
//	block 1      the topmost level of the tree: one block
//	…            the levels below it, from the top to the bottom
//
// A level holds the digests of the blocks of the level below, 128 a block,
// the last block filled up with zeros; the lowest level holds the digests of
// the data blocks. The root hash is the digest of the topmost block. Data of
// one block has no tree: its digest is the root hash. The bytes are those of
// `veritysetup format` for the same data, salt and UUID.
//
// See https://docs.kernel.org/admin-guide/device-mapper/verity.html and
// https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity.
package verity

import (
	"fmt"
	"io"
)

// BlockSize is the size of hash blocks in bytes, and of data blocks unless said
// otherwise.
const BlockSize = 4096

// MaxDataSize is the largest size of the data, in bytes: 4 TiB. What is kept
// in memory grows with the data, 64 MiB for each TiB, eight times that with
// data blocks of 512 bytes.
const MaxDataSize = 4 << 40

const (
	digestSize   = 32
	perBlock     = BlockSize / digestSize // digests in a hash block
	minDataBlock = 512
)

// Params is what may vary for the same data.
type Params struct {
	// UUID names the hash device. The bytes are in the order of its text form.
	UUID [16]byte
	// Salt goes before every block that is hashed: 0 to 256 bytes.
	Salt []byte
	// DataBlock is the size of data blocks in bytes: 512, 1024, 2048, or
	// BlockSize, which 0 is too. It is the sector size of the device that the
	// kernel makes, so the blocks of a file system must not be smaller.
	DataBlock int
}

// layout says where the levels of a tree lie. Level 0 is the lowest.
type layout struct {
	dataBlock  int64 // bytes
	dataBlocks int64
	blocks     []int64 // of each level
	start      []int64 // first block of each level in the hash area
	total      int64   // blocks of the hash area, the superblock's included
}

// newLayout fails where dataSize is not one that the format allows.
func newLayout(dataSize int64, dataBlock int) (layout, error) {
	if dataBlock == 0 {
		dataBlock = BlockSize
	}
	if !isDataBlock(dataBlock) {
		return layout{}, fmt.Errorf("data blocks have %d bytes, want 512, 1024, 2048 or %d", dataBlock, BlockSize)
	}
	if dataSize <= 0 || dataSize%int64(dataBlock) != 0 {
		return layout{}, fmt.Errorf("data has %d bytes, want one or more blocks of %d", dataSize, dataBlock)
	}
	if dataSize > MaxDataSize {
		return layout{}, fmt.Errorf("data has %d bytes, more than %d", dataSize, int64(MaxDataSize))
	}
	l := layout{dataBlock: int64(dataBlock), dataBlocks: dataSize / int64(dataBlock), total: 1}
	for n := l.dataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		l.blocks = append(l.blocks, n)
	}
	l.start = make([]int64, len(l.blocks))
	for i := len(l.blocks) - 1; i >= 0; i-- {
		l.start[i] = l.total
		l.total += l.blocks[i]
	}
	return l, nil
}

func isDataBlock(n int) bool { return n >= minDataBlock && n <= BlockSize && n&(n-1) == 0 }

// chunk is how much data is below one hash block, in bytes.
func (l layout) chunk() int64 { return perBlock * l.dataBlock }

// HashSize returns the size in bytes of the hash area of dataSize bytes of
// data in blocks of [BlockSize], superblock and tree. It is 0 for sizes that
// [Write] refuses.
func HashSize(dataSize int64) int64 { return Params{}.HashSize(dataSize) }

// HashSize is the function of that name for data blocks of another size.
func (p Params) HashSize(dataSize int64) int64 {
	l, err := newLayout(dataSize, p.DataBlock)
	if err != nil {
		return 0
	}
	return l.total * BlockSize
}

// Write reads dataSize bytes of data and writes their superblock and hash
// tree to the first [HashSize] bytes of hash. It returns the root hash. It
// works on several blocks at a time, so data and hash must allow calls from
// several goroutines; the bytes do not depend on it.
func Write(data io.ReaderAt, dataSize int64, hash io.WriterAt, p Params) (root [32]byte, err error) {
	l, err := newLayout(dataSize, p.DataBlock)
	if err != nil {
		return root, err
	}
	sb, err := Superblock{UUID: p.UUID, Salt: p.Salt, DataBlock: int(l.dataBlock), DataBlocks: l.dataBlocks}.encode()
	if err != nil {
		return root, err
	}
	if _, err := hash.WriteAt(sb, 0); err != nil {
		return root, fmt.Errorf("writing the superblock: %w", err)
	}
	return build(data, l, p.Salt, hash)
}

// Root returns the root hash of dataSize bytes of data. It does not depend on
// the UUID.
func Root(data io.ReaderAt, dataSize int64, p Params) ([32]byte, error) {
	l, err := newLayout(dataSize, p.DataBlock)
	if err != nil {
		return [32]byte{}, err
	}
	if len(p.Salt) > maxSalt {
		return [32]byte{}, fmt.Errorf("salt has %d bytes, more than %d", len(p.Salt), maxSalt)
	}
	return build(data, l, p.Salt, discard{})
}

type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// build writes the tree, without the superblock, and returns the root hash.
// The lowest level, which is 127 parts of 128 of the work, is made in
// parallel; of it only the digests of its blocks are kept.
func build(data io.ReaderAt, l layout, salt []byte, hash io.WriterAt) (root [32]byte, err error) {
	if len(l.blocks) == 0 {
		h := newHasher(salt)
		block, err := h.readData(data, l, 0, 1)
		if err != nil {
			return root, err
		}
		return h.sum(block), nil
	}
	digests := make([]byte, l.blocks[0]*digestSize)
	err = parallel(l.blocks[0], salt, func(h *hasher, i int64) error {
		block, err := h.hashChunk(data, l, i)
		if err != nil {
			return err
		}
		d := h.sum(block)
		copy(digests[i*digestSize:], d[:])
		return writeBlock(hash, block, l.start[0]+i)
	})
	if err != nil {
		return root, err
	}
	h := newHasher(salt)
	for level := 1; level < len(l.blocks); level++ {
		if digests, err = h.hashLevel(hash, digests, l.start[level]); err != nil {
			return root, err
		}
	}
	copy(root[:], digests)
	return root, nil
}

// hashLevel writes digests as the blocks of a level and returns the digests
// of these blocks.
func (h *hasher) hashLevel(hash io.WriterAt, digests []byte, at int64) ([]byte, error) {
	var next []byte
	for ; len(digests) > 0; at++ {
		n := copy(h.tree, digests)
		clear(h.tree[n:])
		digests = digests[n:]
		d := h.sum(h.tree)
		next = append(next, d[:]...)
		if err := writeBlock(hash, h.tree, at); err != nil {
			return nil, err
		}
	}
	return next, nil
}

func writeBlock(w io.WriterAt, block []byte, at int64) error {
	if _, err := w.WriteAt(block, at*BlockSize); err != nil {
		return fmt.Errorf("writing hash block %d: %w", at, err)
	}
	return nil
}

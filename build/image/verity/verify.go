package verity

import (
	"fmt"
	"io"
)

// CorruptError says which block does not have the digest that the tree, or
// for the topmost block the root hash, has for it.
type CorruptError struct {
	// Area is "data" or "hash".
	Area string
	// Block is the number of the block in its area. Hash block 0 is the
	// superblock.
	Block     int64
	Got, Want [32]byte
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s block %d is corrupted: got sha256:%x, want sha256:%x", e.Area, e.Block, e.Got, e.Want)
}

// Verify checks dataSize bytes of data against the hash area and the root
// hash, from the root hash down as the kernel does, so that a block is only
// compared with a digest that is itself right. Salt and size come from the
// superblock, which nothing protects: a wrong salt shows as corruption of the
// topmost block, a wrong size is an error. For the first bad block of the
// highest level that has one the error is a [*CorruptError]; the lowest level
// of the tree and the data count as one level, a hash block before the data
// below it. What is behind the digests in the last block of a level has to be
// zeros, as in what [Write] writes: so the root hash is the one that [Root] has
// for the data.
func Verify(data io.ReaderAt, dataSize int64, hash io.ReaderAt, root [32]byte) error {
	sb, err := ReadSuperblock(hash)
	if err != nil {
		return err
	}
	l, err := newLayout(dataSize, sb.DataBlock)
	if err != nil {
		return err
	}
	if sb.DataBlocks != l.dataBlocks {
		return fmt.Errorf("verity superblock: %d data blocks, but the data has %d", sb.DataBlocks, l.dataBlocks)
	}
	h := newHasher(sb.Salt)
	if len(l.blocks) == 0 {
		block, err := h.readData(data, l, 0, 1)
		if err != nil {
			return err
		}
		return h.check("data", block, 0, root[:])
	}
	digests := root[:]
	for level := len(l.blocks) - 1; level > 0; level-- {
		if digests, err = h.verifyLevel(hash, l, level, digests); err != nil {
			return err
		}
	}
	return parallel(l.blocks[0], sb.Salt, func(h *hasher, i int64) error {
		if err := h.readTree(hash, l.start[0]+i, digests[i*digestSize:]); err != nil {
			return err
		}
		b, err := h.readChunk(data, l, i)
		if err != nil {
			return err
		}
		if err := h.checkRest(l.start[0]+i, int64(len(b))/l.dataBlock); err != nil {
			return err
		}
		for n := range int64(len(b)) / l.dataBlock {
			if err := h.check("data", b[n*l.dataBlock:][:l.dataBlock], i*perBlock+n, h.tree[n*digestSize:]); err != nil {
				return err
			}
		}
		return nil
	})
}

// verifyLevel checks the blocks of a level against their digests and returns
// the digests that they hold.
func (h *hasher) verifyLevel(hash io.ReaderAt, l layout, level int, digests []byte) ([]byte, error) {
	var held []byte
	for i := range l.blocks[level] {
		if err := h.readTree(hash, l.start[level]+i, digests[i*digestSize:]); err != nil {
			return nil, err
		}
		if err := h.checkRest(l.start[level]+i, min(perBlock, l.blocks[level-1]-i*perBlock)); err != nil {
			return nil, err
		}
		held = append(held, h.tree...)
	}
	return held[:l.blocks[level-1]*digestSize], nil
}

// readTree reads a hash block into h.tree and checks it.
func (h *hasher) readTree(hash io.ReaderAt, at int64, want []byte) error {
	if err := readFull(hash, h.tree, at*BlockSize); err != nil {
		return fmt.Errorf("reading hash block %d: %w", at, err)
	}
	return h.check("hash", h.tree, at, want)
}

// checkRest checks that the block in h.tree has zeros behind so many digests.
func (h *hasher) checkRest(at, digests int64) error {
	if !isZero(h.tree[digests*digestSize:]) {
		return fmt.Errorf("hash block %d: not zeros behind its %d digests", at, digests)
	}
	return nil
}

func (h *hasher) check(area string, block []byte, number int64, want []byte) error {
	w := [digestSize]byte(want)
	if got := h.sum(block); got != w {
		return &CorruptError{Area: area, Block: number, Got: got, Want: w}
	}
	return nil
}

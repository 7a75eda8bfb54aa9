package diff

import (
	"fmt"
	"io"

	"caisson/build/image/verity"
)

const veritySuper = 512 // bytes, struct verity_sb of cryptsetup

// verity compares two hash areas.
func (d *differ) verity(n *Node, v volume) {
	sbA, errA := verity.ReadSuperblock(v.a)
	sbB, errB := verity.ReadSuperblock(v.b)
	d.failed(n, errA, errB)
	x, y := readUpTo(v.a, 0, veritySuper), readUpTo(v.b, 0, veritySuper)
	if v.changed.touches(span{0, veritySuper}) {
		s := d.child(n, beside(v.prefix(), "superblock"))
		s.comment("in no PCR, nor in the root hash but for the salt and the size: only a comparison of the whole disk sees it")
		d.fields(s, x, y, 0, verityFields(len(sbA.Salt)))
	}
	sound, err := sbA, errA
	if err != nil {
		sound, err = sbB, errB
	}
	tree := span{verity.BlockSize, v.a.Size()}
	if err == nil {
		tree.end = min(tree.end, sound.HashSize())
	}
	if inside := v.changed.and(spans{tree}); len(inside) > 0 {
		s := d.child(n, beside(v.prefix(), "hash tree"))
		s.comment(inTree)
		blocks := map[int64]bool{}
		for _, w := range inside {
			for b := w.off / verity.BlockSize; b <= (w.end-1)/verity.BlockSize; b++ {
				blocks[b] = true
			}
		}
		s.comment(fmt.Sprintf("%d of %d hash blocks differ", len(blocks), (tree.end-tree.off)/verity.BlockSize))
		d.raw(s, v.a, v.b, 0, inside, level(sound.DataBlocks))
	}
	left := v.changed.minus(spans{{0, veritySuper}, tree})
	if len(left) > 0 {
		s := d.child(n, beside(v.prefix(), "around the hash tree"))
		s.comment(inNoPCR)
		d.raw(s, io.ReaderAt(v.a), v.b, 0, left, nil)
	}
}

// level names the level of the tree, 0 for the lowest, that an offset is in.
func level(dataBlocks int64) func(off int64) string {
	const perBlock = verity.BlockSize / 32 // digests of SHA-256
	var sizes []int64
	for n := dataBlocks; n > 1; {
		n = (n + perBlock - 1) / perBlock
		sizes = append(sizes, n)
	}
	return func(off int64) string {
		start := int64(1)
		for i := len(sizes) - 1; i >= 0; i-- {
			if block := off / verity.BlockSize; block < start+sizes[i] {
				return fmt.Sprintf("level %d of the tree", i)
			}
			start += sizes[i]
		}
		return ""
	}
}

// verityFields are those of struct verity_sb in cryptsetup, with a salt of
// so many bytes.
func verityFields(salt int) []field {
	return []field{
		{"signature", 0, 8, quoted}, {"version", 8, 4, decimal}, {"hash type", 12, 4, decimal}, {"uuid", 16, 16, uuid},
		{"algorithm", 32, 32, quoted}, {"data block size", 64, 4, decimal}, {"hash block size", 68, 4, decimal},
		{"data blocks", 72, 8, decimal}, {"salt size", 80, 2, decimal}, {"salt", 88, salt, hexText},
	}
}

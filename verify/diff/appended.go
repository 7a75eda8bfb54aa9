package diff

import (
	"io"

	"caisson/build/image/gpt"
	"caisson/build/image/verity"
)

// tailRoom is how far from the end of a partition, beside the length of its
// hash tree, the tree is looked for.
const tailRoom = 4 << 20

// appendedTree finds the hash tree behind the data in a root's partition: where
// it begins, 0 if there is none. It is the last superblock whose data are what
// is before it.
func appendedTree(p part, r *io.SectionReader) int64 {
	if p.Type != gpt.TypeRootX86_64 && p.Type != gpt.TypeRootARM64 {
		return 0
	}
	size := r.Size() / verity.BlockSize * verity.BlockSize
	limit := max(size-verity.Params{DataBlock: 512}.HashSize(size)-tailRoom, verity.BlockSize)
	for off := size - verity.BlockSize; off >= limit; off -= verity.BlockSize {
		if string(readUpTo(r, off, 8)) != "verity\x00\x00" {
			continue
		}
		sb, err := verity.ReadSuperblock(io.NewSectionReader(r, off, size-off))
		if err == nil && sb.DataSize() <= off && off+sb.HashSize() <= size {
			return off
		}
	}
	return 0
}

// split compares the hash tree at the end of a partition, and returns what is
// before it, and whether a tree was found. Where the trees do not begin at the same place, or one has none,
// the volume is left whole.
func (d *differ) split(n *Node, v volume, a, b part) (volume, bool) {
	at := appendedTree(a, v.a)
	if at == 0 || at != appendedTree(b, v.b) {
		return v, at > 0
	}
	cut := func(r *io.SectionReader) *io.SectionReader { return io.NewSectionReader(r, at, r.Size()-at) }
	tree := volume{name: v.name + " hash tree", a: cut(v.a), b: cut(v.b), changed: v.changed.within(span{at, max(v.a.Size(), v.b.Size())})}
	if len(tree.changed) > 0 {
		d.verity(n, tree)
	}
	v.a, v.b, v.changed = io.NewSectionReader(v.a, 0, at), io.NewSectionReader(v.b, 0, at), v.changed.within(span{0, at})
	return v, true
}

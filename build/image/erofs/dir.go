package erofs

import (
	"cmp"
	"encoding/binary"
	"slices"
)

const direntSize = 12 // struct erofs_dirent

// dirEntries returns what is in a directory, itself and its parent included,
// sorted by name.
func dirEntries(n *node) []child {
	all := append([]child{{".", n}, {"..", n.parent}}, n.children...)
	slices.SortFunc(all, func(a, b child) int { return cmp.Compare(a.name, b.name) })
	return all
}

// dirBlocks divides the entries of a directory into those of each block, and
// returns the bytes of the directory: what the last block has is not filled
// up.
func dirBlocks(entries []child) (blocks [][]child, size int64) {
	var used int64
	start := 0
	for i, c := range entries {
		need := int64(direntSize + len(c.name))
		if used+need > BlockSize {
			blocks = append(blocks, entries[start:i])
			start, used = i, 0
		}
		used += need
	}
	blocks = append(blocks, entries[start:])
	return blocks, int64(len(blocks)-1)*BlockSize + used
}

// encodeDir returns the data of a directory.
func encodeDir(n *node) []byte {
	blocks, size := dirBlocks(dirEntries(n))
	b := make([]byte, size)
	for i, entries := range blocks {
		block := b[i*BlockSize:]
		name := len(entries) * direntSize
		for j, c := range entries {
			d := block[j*direntSize:]
			binary.LittleEndian.PutUint64(d, c.node.nid())
			binary.LittleEndian.PutUint16(d[8:], uint16(name))
			d[10] = direntType(c.node.entry.Mode)
			name += copy(block[name:], c.name)
		}
	}
	return b
}

package erofs

import (
	"fmt"
	"math"
)

// layout says where everything is. All of it follows from the entries'
// metadata and sizes, before any content is read.
type layout struct {
	nodes  []*node
	shared []string          // extended attributes, in their order
	ids    map[string]uint32 // and their places, in units of 4 bytes
	xattrs uint32            // their first block, 0 where there are none
	blocks uint32            // of the image
}

func newLayout(nodes []*node, buildTime int64) (*layout, error) {
	l := &layout{nodes: nodes, shared: shareXattrs(nodes), ids: make(map[string]uint32)}
	p := newPlacer()
	for _, n := range nodes {
		n.describe(buildTime)
		p.place(n)
	}
	p.finish()
	next := p.blocks
	take := func(bytes int64) uint32 {
		at := next
		next += (bytes + BlockSize - 1) / BlockSize
		return uint32(at)
	}

	var size int64
	for _, e := range l.shared {
		l.ids[e] = uint32(size / xattrAlign)
		size += int64(len(e))
	}
	if size > 0 {
		l.xattrs = take(size)
	}
	for _, dirs := range []bool{true, false} {
		for _, n := range nodes {
			if data := n.size - n.tail; data > 0 && n.isDir() == dirs {
				n.start = take(data)
			}
		}
	}
	if next > maxBlocks {
		return nil, fmt.Errorf("image has %d blocks, more than %d", next, int64(maxBlocks))
	}
	l.blocks = uint32(next)
	return l, nil
}

// describe fills in the inode, but for the place of its data.
func (n *node) describe(buildTime int64) {
	e := n.entry
	n.inode = inode{
		xattrs: n.xattrs.size(), mode: e.Mode, links: n.names, ino: n.ino,
		uid: e.UID, gid: e.GID, mtime: e.Mtime,
	}
	switch e.Mode & typeMask {
	case typeDir:
		n.links = 2 + n.subdirs
		_, n.size = dirBlocks(dirEntries(n))
	case typeRegular:
		n.size = e.Size
	case typeSymlink:
		n.size = int64(len(e.Target))
	case typeChar, typeBlock:
		n.start = e.Rdev
	}
	n.extended = n.mtime != buildTime || n.size > math.MaxUint32 ||
		n.uid > compactMax || n.gid > compactMax || n.links > compactMax
	if tail := n.size % BlockSize; tail > 0 && n.headerSize()+n.inode.xattrs+tail <= BlockSize {
		n.tail, n.layout = tail, layoutInline
	}
}

// placer gives inodes their places, in blocks from the first of the image on.
// An inode goes where it fits best, and to the newest of these blocks, which
// keeps what is in one directory near to each other.
type placer struct {
	blocks int64
	free   [slotsInBlock][]int64 // blocks by the number of their free slots
	last   map[int64]*node       // in each block that has free slots
}

func newPlacer() *placer {
	p := &placer{blocks: 1, last: make(map[int64]*node)}
	p.setFree(0, slotsInBlock-(superOffset+superSize)/slotSize, nil)
	return p
}

// setFree notes that a block has free slots at its end, behind the last node.
func (p *placer) setFree(block, slots int64, last *node) {
	if slots > 0 {
		p.free[slots] = append(p.free[slots], block)
		p.last[block] = last
	}
}

func (p *placer) place(n *node) {
	size := n.headerSize() + n.inode.xattrs + n.tail
	need := (size + slotSize - 1) / slotSize
	n.room = need * slotSize
	for slots := need; slots < slotsInBlock; slots++ {
		list := p.free[slots]
		if len(list) == 0 {
			continue
		}
		block := list[len(list)-1]
		p.free[slots] = list[:len(list)-1]
		delete(p.last, block)
		n.at = (block+1)*BlockSize - slots*slotSize
		p.setFree(block, slots-need, n)
		return
	}
	n.at = p.blocks * BlockSize
	p.blocks += (n.room + BlockSize - 1) / BlockSize
	p.setFree(p.blocks-1, p.blocks*slotsInBlock-n.at/slotSize-need, n)
}

// finish gives the room that is left over at the end of a block to the last
// node in it.
func (p *placer) finish() {
	for block, n := range p.last {
		if n != nil {
			n.room = (block+1)*BlockSize - n.at
		}
	}
}

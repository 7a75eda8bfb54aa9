package seal

import (
	"encoding/binary"
	"fmt"
	"io"
)

// fileSystem is what the superblock of a root says.
type fileSystem struct {
	name string // "" where it is not known
	size int64  // bytes; 0 where it is not known
	// block is the smallest that it reads and writes, in bytes: it cannot be
	// mounted from a device with larger sectors. 0 where it is not known.
	block int64
	// dirty says why the file system cannot be mounted from a device that
	// cannot be written, as the root of a sealed disk is: "" where it can.
	dirty   string
	warning string
}

// Where the superblocks lie, in bytes. The offsets within them are those of
// Linux' ext4.h (struct ext4_super_block), xfs_format.h (struct xfs_dsb) and
// btrfs_tree.h (struct btrfs_super_block).
const (
	extSuper   = 1024
	btrfsSuper = 64 << 10
	probeSize  = btrfsSuper + 4096
)

// probe reads what a partition holds. What can be no root file system of its
// own is an error.
func probe(r io.ReaderAt, size int64) (*fileSystem, error) {
	b := make([]byte, probeSize)
	n, err := r.ReadAt(b[:min(size, probeSize)], 0)
	if err != nil && err != io.EOF {
		return nil, fmt.Errorf("reading the root partition: %w", err)
	}
	clear(b[n:])
	has := func(at int, magic string) bool { return string(b[at:at+len(magic)]) == magic }
	for _, no := range []struct {
		at          int
		magic, what string
	}{
		{0, "LUKS\xba\xbe", "an encrypted volume (LUKS)"},
		{3, "-FVE-FS-", "an encrypted volume (BitLocker)"},
		{0, "LABELONE", "a physical volume of LVM"},
		{512, "LABELONE", "a physical volume of LVM"},
		{1024, "LABELONE", "a physical volume of LVM"},
		{1536, "LABELONE", "a physical volume of LVM"},
		{4096, "\xfc\x4e\x2b\xa9", "a member of a RAID"},
		{4086, "SWAPSPACE2", "swap space"},
	} {
		if has(no.at, no.magic) {
			return nil, fmt.Errorf("it is %s: want a file system in a partition of its own", no.what)
		}
	}
	switch {
	case has(extSuper+56, "\x53\xef"):
		return probeExt(b[extSuper:])
	case has(0, "XFSB"):
		return probeXFS(r, size, b)
	case has(btrfsSuper+64, "_BHRfS_M"):
		return probeBtrfs(b[btrfsSuper:])
	case has(1024, "\xe2\xe1\xf5\xe0"):
		return &fileSystem{name: "erofs"}, nil
	case has(0, "hsqs"):
		return &fileSystem{name: "squashfs"}, nil
	}
	return &fileSystem{warning: "the root's file system is not known: whether it has to be recovered before it can be mounted read-only was not looked at"}, nil
}

// Features of ext4.
const (
	extHasJournal = 0x0004 // compatible
	extRecover    = 0x0004 // incompatible
	extJournalDev = 0x0008
	extExtents    = 0x0040
	ext64bit      = 0x0080
	extValid      = 0x0001 // state
	extErrors     = 0x0002
)

func probeExt(b []byte) (*fileSystem, error) {
	le := binary.LittleEndian
	state, compatible, incompatible := le.Uint16(b[58:]), le.Uint32(b[92:]), le.Uint32(b[96:])
	if incompatible&extJournalDev != 0 {
		return nil, fmt.Errorf("it is an ext4 journal: want a file system")
	}
	shift := le.Uint32(b[24:])
	if shift > 6 { // 64 KiB
		return nil, fmt.Errorf("ext4 blocks of 2^%d KiB: the file system is damaged", shift)
	}
	blocks := uint64(le.Uint32(b[4:]))
	if incompatible&ext64bit != 0 {
		blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	f := &fileSystem{name: "ext2", block: 1 << (10 + shift), size: int64(min(blocks, 1<<40) << (10 + shift))} //nolint:gosec // below 2^56
	switch {
	case incompatible&(extExtents|ext64bit) != 0:
		f.name = "ext4"
	case compatible&extHasJournal != 0:
		f.name = "ext3"
	}
	switch {
	case incompatible&extRecover != 0:
		f.dirty = "its journal has to be replayed"
	case state&extValid == 0 && compatible&extHasJournal == 0:
		f.dirty = "it was not unmounted"
	case state&extErrors != 0:
		f.warning = "the root's file system is marked as having errors: run fsck on it"
	}
	return f, nil
}

func probeBtrfs(b []byte) (*fileSystem, error) {
	le := binary.LittleEndian
	if n := le.Uint64(b[136:]); n != 1 {
		return nil, fmt.Errorf("it is one of %d devices of a btrfs: want a file system in one partition", n)
	}
	f := &fileSystem{name: "btrfs", size: int64(min(le.Uint64(b[112:]), 1<<60))} //nolint:gosec // below 2^63
	if le.Uint64(b[96:]) != 0 {
		f.dirty = "its log tree has to be replayed"
	}
	return f, nil
}

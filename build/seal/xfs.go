package seal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The log of an XFS, in basic blocks of 512 bytes: xfs_log_format.h, struct
// xlog_rec_header and xlog_op_header.
const (
	xfsBlock        = 512
	xfsLogMagic     = 0xfeedbabe
	xfsLogVersion2  = 2
	xfsCyclePerHead = 32 << 10 // bytes of a record that one block of header is for
	xfsUnmount      = 0x20     // of xlog_op_header.oh_flags
	xfsNeedsRepair  = 0x10     // of the incompatible features of version 5
	xfsMaxLog       = 2 << 30
)

// xfsRecord is a record of the log.
type xfsRecord struct {
	lsn     uint64 // cycle and block
	size    uint32
	version uint32
	ops     uint32
}

func probeXFS(r io.ReaderAt, size int64, b []byte) (*fileSystem, error) {
	be := binary.BigEndian
	blockSize, blocks := int64(be.Uint32(b[4:])), be.Uint64(b[8:])
	logStart, logBlocks := be.Uint64(b[48:]), int64(be.Uint32(b[96:]))
	agBlocks, agShift, sector := uint64(be.Uint32(b[84:])), b[124], int64(be.Uint16(b[102:]))
	if sector < 512 || sector&(sector-1) != 0 || blockSize < 512 || blockSize > 64<<10 || blockSize&(blockSize-1) != 0 || agShift > 31 || blocks > 1<<44 {
		return nil, errors.New("its XFS superblock makes no sense: the file system is damaged")
	}
	f := &fileSystem{name: "xfs", block: sector, size: int64(blocks) * blockSize} //nolint:gosec // below 2^60
	version5 := be.Uint16(b[100:])&0xf == 5
	switch {
	case b[126] != 0:
		f.dirty = "mkfs.xfs did not finish"
		return f, nil
	case version5 && be.Uint32(b[216:])&xfsNeedsRepair != 0:
		f.dirty = "it is marked as in need of repair"
		return f, nil
	case logStart == 0:
		return nil, errors.New("its XFS log is on another device")
	case logBlocks*blockSize > xfsMaxLog:
		return nil, fmt.Errorf("its XFS log has %d bytes, more than %d", logBlocks*blockSize, xfsMaxLog)
	}
	at := int64((logStart>>agShift)*agBlocks+logStart&(1<<agShift-1)) * blockSize //nolint:gosec // checked next
	if at < 0 || at > size-logBlocks*blockSize {
		return nil, errors.New("its XFS log leaves the partition")
	}
	clean, err := xfsClean(io.NewSectionReader(r, at, logBlocks*blockSize))
	if err != nil {
		return nil, fmt.Errorf("reading the XFS log: %w", err)
	}
	if !clean {
		f.dirty = "its log has to be replayed"
	}
	return f, nil
}

// xfsClean tells whether the last record of a log is the one that unmounting
// writes.
func xfsClean(log *io.SectionReader) (bool, error) {
	blocks := log.Size() / xfsBlock
	last, err := lastRecord(log, blocks)
	if err != nil || last.ops != 1 {
		return false, err
	}
	heads := int64(1)
	if last.version&xfsLogVersion2 != 0 && last.size > xfsCyclePerHead {
		heads = (int64(last.size) + xfsCyclePerHead - 1) / xfsCyclePerHead
	}
	op := make([]byte, 12)
	if _, err := log.ReadAt(op, (int64(uint32(last.lsn))+heads)%blocks*xfsBlock); err != nil {
		return false, err
	}
	return op[9]&xfsUnmount != 0, nil
}

// lastRecord finds the record with the highest number. The first four bytes
// of a block that is no header are the number of a cycle, never the magic.
func lastRecord(log *io.SectionReader, blocks int64) (last xfsRecord, err error) {
	be := binary.BigEndian
	b := make([]byte, 1<<20)
	for at := int64(0); at < blocks; {
		n, err := log.ReadAt(b[:min(int64(len(b)), (blocks-at)*xfsBlock)], at*xfsBlock)
		if err != nil && (err != io.EOF || n < xfsBlock) {
			return last, err
		}
		for h := b[:n]; len(h) >= xfsBlock; h, at = h[xfsBlock:], at+1 {
			lsn := be.Uint64(h[16:])
			if be.Uint32(h) != xfsLogMagic || lsn != uint64(be.Uint32(h[4:]))<<32|uint64(at) || lsn < last.lsn { //nolint:gosec // at is below 2^22
				continue
			}
			last = xfsRecord{lsn: lsn, size: be.Uint32(h[320:]), version: be.Uint32(h[8:]), ops: be.Uint32(h[40:])}
		}
	}
	if last.ops == 0 {
		return last, errors.New("it has no record")
	}
	return last, nil
}

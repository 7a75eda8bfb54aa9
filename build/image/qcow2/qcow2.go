// Package qcow2 writes and reads the disk images of QEMU.
//
// It writes version 3, with clusters of 64 KiB, references of 16 bits, and
// data as it is or compressed with Zstandard, each cluster a frame; clusters
// of zeros are left out. A disk may have up to [MaxSize] bytes, a multiple
// of 512. It reads versions 2 and 3 with clusters of any size, uncompressed,
// compressed with Deflate or Zstandard, or zero, and what lies in a backing
// file where the caller has that opened. It refuses images that have
// encryption, an external data file, snapshots, subclusters, or the mark of
// being corrupt; it does not look at reference counts.
//
// A written image is
//
//	cluster 0  the header
//	…          the data in its order, and behind each 512 MiB of it that are
//	           not all zeros the L2 table of these
//	…          the L1 table, the reference table, the reference blocks
//
// Compressed clusters lie byte by byte behind each other, across the borders
// of clusters. A cluster that compression does not make smaller is stored as
// it is, in a cluster of its own; the place that is left over in front of it
// is used by the next compressed cluster that fits.
//
// See docs/interop/qcow2.txt of QEMU.
package qcow2

const (
	magic       = "QFI\xfb"
	clusterBits = 16
	clusterSize = 1 << clusterBits
	l2Entries   = clusterSize / 8
	l2Covers    = l2Entries * clusterSize // bytes of the disk
	sectorSize  = 512

	// MaxSize is the largest size in bytes of a disk that is written, 2 PiB:
	// an L1 table has at most 32 MiB, as in QEMU.
	MaxSize = maxL1 * l2Covers
	maxL1   = 32 << 20 / 8 // entries
)

// Offsets within the header (version 2 ends at hdrV2).
const (
	hdrVersion       = 4   // u32
	hdrBackingOffset = 8   // u64
	hdrBackingLength = 16  // u32
	hdrClusterBits   = 20  // u32
	hdrSize          = 24  // u64
	hdrCrypt         = 32  // u32
	hdrL1Size        = 36  // u32, entries
	hdrL1Offset      = 40  // u64
	hdrRefTable      = 48  // u64
	hdrRefTableSize  = 56  // u32, clusters
	hdrSnapshots     = 60  // u32
	hdrV2            = 72  // the rest is of version 3
	hdrIncompatible  = 72  // u64
	hdrRefOrder      = 96  // u32, log2 of the bits of a reference count
	hdrLength        = 100 // u32
	hdrV3            = 104 // where hdrLength says that there is more:
	hdrCompression   = 104 // u8
	hdrWritten       = 112
)

// Incompatible features.
const (
	featureDirty       = 1 << 0 // reference counts may be wrong
	featureCorrupt     = 1 << 1
	featureDataFile    = 1 << 2
	featureCompression = 1 << 3 // the compression type is not Deflate
	featureSubclusters = 1 << 4
)

// Header extensions: a type and a length of 32 bits each, then the data,
// padded to 8 bytes.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	maxBackingName         = 1023 // bytes
)

// Compression types.
const (
	compressionDeflate = 0
	compressionZstd    = 1
)

// Bits of entries of L1 and L2 tables.
const (
	entryCopied     = 1 << 63 // the reference count is 1
	entryCompressed = 1 << 62
	entryZero       = 1 << 0
	entryOffset     = 1<<56 - 1<<9
)

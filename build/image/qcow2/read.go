package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Image is an image that is being read. Its methods may be called from
// several goroutines at a time.
type Image struct {
	r           io.ReaderAt
	header      header
	clusterSize int64
	unpack      func(dst, src []byte) error // a compressed cluster
	cache       cache
	backing     Disk // of what the image has nothing of; nil for zeros
}

// Disk is the content of a disk.
type Disk interface {
	io.ReaderAt
	Size() int64 // bytes
}

// header is what a header says of how the disk is read.
type header struct {
	version     uint32
	clusterBits int
	size        int64
	l1Entries   int64
	l1          int64 // offset
	compression byte
	// backing is the name of the backing file, "" for none.
	backing, backingFormat string
}

// Open reads the header of an image, which has no backing file.
func Open(r io.ReaderAt) (*Image, error) {
	return OpenBacked(r, func(string, string) (Disk, error) {
		return nil, errors.New("images with a backing file are not supported")
	})
}

// OpenBacked reads the header of an image. If it has a backing file, open is
// asked for the disk in it. The name is as the image has it: whoever made the
// image chose it, so open decides whether that file may be read. The format is
// that of the backing file, such as "raw"; "" where the image does not say.
func OpenBacked(r io.ReaderAt, open func(name, format string) (Disk, error)) (*Image, error) {
	h, err := readHeader(r)
	if err != nil {
		return nil, fmt.Errorf("qcow2: %w", err)
	}
	img := &Image{r: r, header: h, clusterSize: 1 << h.clusterBits}
	switch h.compression {
	case compressionDeflate:
		img.unpack = unpackDeflate
	case compressionZstd:
		if img.unpack, err = newUnpackZstd(int(img.clusterSize)); err != nil {
			return nil, fmt.Errorf("qcow2: %w", err)
		}
	}
	if h.backing != "" {
		if img.backing, err = open(h.backing, h.backingFormat); err != nil {
			return nil, fmt.Errorf("qcow2: backing file %q: %w", h.backing, err)
		}
	}
	return img, nil
}

// Size returns the size of the disk in bytes.
func (img *Image) Size() int64 { return img.header.size }

func readHeader(r io.ReaderAt) (header, error) {
	b := make([]byte, hdrWritten)
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return header{}, fmt.Errorf("reading the header: %w", err)
	}
	if n < hdrV2 {
		return header{}, fmt.Errorf("reading the header: %w", io.ErrUnexpectedEOF)
	}
	if string(b[:len(magic)]) != magic {
		return header{}, fmt.Errorf("magic is %q, want %q", b[:len(magic)], magic)
	}
	be := binary.BigEndian
	h := header{version: be.Uint32(b[hdrVersion:])}
	switch h.version {
	case 2:
	case 3:
		if n < hdrV3 {
			return header{}, fmt.Errorf("reading the header: %w", io.ErrUnexpectedEOF)
		}
		if h.compression, err = readFeatures(b[:n]); err != nil {
			return header{}, err
		}
	default:
		return header{}, fmt.Errorf("version %d is not supported, only 2 and 3", h.version)
	}
	if method := be.Uint32(b[hdrCrypt:]); method != 0 {
		return header{}, fmt.Errorf("encrypted images are not supported (method %d)", method)
	}
	if n := be.Uint32(b[hdrSnapshots:]); n != 0 {
		return header{}, fmt.Errorf("images with snapshots are not supported: there are %d", n)
	}
	if err := h.readGeometry(b); err != nil {
		return header{}, err
	}
	return h, h.readBacking(r, b)
}

// readFeatures reads what only version 3 has.
func readFeatures(b []byte) (compression byte, err error) {
	be := binary.BigEndian
	length := be.Uint32(b[hdrLength:])
	if length < hdrV3 || length%8 != 0 {
		return 0, fmt.Errorf("header has %d bytes, want %d or more, a multiple of 8", length, hdrV3)
	}
	features := be.Uint64(b[hdrIncompatible:])
	switch {
	case features&featureCorrupt != 0:
		return 0, errors.New("the image is marked as corrupt")
	case features&featureDataFile != 0:
		return 0, errors.New("images with an external data file are not supported")
	case features&featureSubclusters != 0:
		return 0, errors.New("images with subclusters (extended_l2) are not supported")
	case features&^(featureDirty|featureCompression) != 0:
		return 0, fmt.Errorf("incompatible features %#x are not supported", features)
	case features&featureCompression == 0:
		return compressionDeflate, nil
	}
	if length <= hdrCompression || len(b) <= hdrCompression {
		return 0, fmt.Errorf("header of %d bytes lacks the compression type", length)
	}
	if compression = b[hdrCompression]; compression > compressionZstd {
		return 0, fmt.Errorf("compression type %d is not supported", compression)
	}
	return compression, nil
}

func (h *header) readGeometry(b []byte) error {
	be := binary.BigEndian
	bits := be.Uint32(b[hdrClusterBits:])
	if bits < 9 || bits > 21 { // MIN_CLUSTER_BITS, MAX_CLUSTER_BITS of QEMU
		return fmt.Errorf("clusters of 2^%d bytes are not supported, only of 2^9 to 2^21", bits)
	}
	h.clusterBits = int(bits)
	size := be.Uint64(b[hdrSize:])
	if size > math.MaxInt64-1<<21 {
		return fmt.Errorf("disk has %d bytes, more than are supported", size)
	}
	h.size = int64(size)
	h.l1Entries = int64(be.Uint32(b[hdrL1Size:]))
	if h.l1Entries > maxL1 {
		return fmt.Errorf("the L1 table has %d entries, more than %d", h.l1Entries, maxL1)
	}
	covers := int64(1) << (2*bits - 3) // by an entry of the L1 table
	if want := (h.size-1)/covers + 1; h.size > 0 && h.l1Entries < want {
		return fmt.Errorf("the L1 table has %d entries, want %d for %d bytes", h.l1Entries, want, h.size)
	}
	l1 := be.Uint64(b[hdrL1Offset:])
	if l1 > entryOffset || l1&uint64(1<<bits-1) != 0 {
		return fmt.Errorf("the L1 table is at %#x, not at a cluster", l1)
	}
	h.l1 = int64(l1)
	return nil
}

// ReadAt reads from the disk. See [io.ReaderAt].
func (img *Image) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("qcow2: offset %d is negative", off)
	}
	for n < len(p) {
		at := off + int64(n)
		if at >= img.header.size {
			return n, io.EOF
		}
		within := at & (img.clusterSize - 1)
		part := p[n:]
		part = part[:min(int64(len(part)), img.clusterSize-within, img.header.size-at)]
		if err := img.readPart(part, at-within, within); err != nil {
			return n, fmt.Errorf("qcow2: reading the disk at %d: %w", at, err)
		}
		n += len(part)
	}
	return n, nil
}

// readPart reads from one cluster, which begins at the given offset of the
// disk.
func (img *Image) readPart(p []byte, cluster, within int64) error {
	entry, err := img.lookup(cluster)
	if err != nil {
		return err
	}
	if entry&entryCompressed != 0 {
		return img.readCompressed(p, entry, within)
	}
	if bad := entry &^ (entryCopied | entryOffset | entryZero); bad != 0 {
		return fmt.Errorf("L2 entry %#x has reserved bits set", entry)
	}
	at := int64(entry & entryOffset)
	if at&(img.clusterSize-1) != 0 {
		return fmt.Errorf("L2 entry %#x is not at a cluster", entry)
	}
	switch {
	case entry&entryZero != 0 && img.header.version < 3:
		return fmt.Errorf("L2 entry %#x has reserved bits set", entry)
	case entry&entryZero != 0:
		clear(p)
		return nil
	case at == 0:
		return img.readBacking(p, cluster+within)
	}
	return img.readFull(p, at+within)
}

// readBacking reads what the image has nothing of.
func (img *Image) readBacking(p []byte, off int64) error {
	n := int64(0)
	if img.backing != nil && off < img.backing.Size() {
		n = min(int64(len(p)), img.backing.Size()-off)
		if got, err := img.backing.ReadAt(p[:n], off); int64(got) < n {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("backing file %q: %w", img.header.backing, err)
		}
	}
	clear(p[n:])
	return nil
}

// lookup returns the L2 entry of a cluster, 0 where there is no L2 table.
func (img *Image) lookup(cluster int64) (uint64, error) {
	number := cluster >> img.header.clusterBits
	entries := img.clusterSize / 8
	l1, err := img.readEntry(img.header.l1 + number/entries*8)
	if err != nil {
		return 0, fmt.Errorf("reading the L1 table: %w", err)
	}
	table := int64(l1 & entryOffset)
	if l1&^(entryCopied|entryOffset) != 0 || table&(img.clusterSize-1) != 0 {
		return 0, fmt.Errorf("L1 entry %#x is not at a cluster, or has reserved bits set", l1)
	}
	if table == 0 {
		return 0, nil
	}
	entry, err := img.readEntry(table + number%entries*8)
	if err != nil {
		return 0, fmt.Errorf("reading an L2 table: %w", err)
	}
	return entry, nil
}

func (img *Image) readEntry(at int64) (uint64, error) {
	var b [8]byte
	err := img.readFull(b[:], at)
	return binary.BigEndian.Uint64(b[:]), err
}

// readFull reads from the image. An end before that of b is
// io.ErrUnexpectedEOF.
func (img *Image) readFull(b []byte, at int64) error {
	n, err := img.r.ReadAt(b, at)
	switch {
	case n == len(b):
		return nil
	case err == nil || err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	return fmt.Errorf("%d bytes of the image at %d: %w", len(b), at, err)
}

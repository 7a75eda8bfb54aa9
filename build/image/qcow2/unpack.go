package qcow2

import (
	"bytes"
	"compress/flate"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// readCompressed reads from a compressed cluster.
func (img *Image) readCompressed(p []byte, entry uint64, within int64) error {
	if entry&entryCopied != 0 {
		return fmt.Errorf("L2 entry %#x has reserved bits set", entry)
	}
	if b := img.cache.get(entry); b != nil {
		copy(p, b[within:])
		return nil
	}
	shift := sectorsShift(img.header.clusterBits)
	at := int64(entry & (1<<shift - 1))
	sectors := int64(entry&^entryCompressed>>shift) + 1
	src := make([]byte, sectors*sectorSize-at%sectorSize)
	n, err := img.r.ReadAt(src, at)
	if err != nil && err != io.EOF {
		return fmt.Errorf("%d bytes of the image at %d: %w", len(src), at, err)
	}
	// The image may end with the data, before the end of the last sector.
	dst := make([]byte, img.clusterSize)
	if err := img.unpack(dst, src[:n]); err != nil {
		return fmt.Errorf("compressed cluster at %d: %w", at, err)
	}
	img.cache.put(entry, dst)
	copy(p, dst[within:])
	return nil
}

// cacheSize is the number of clusters that are kept for those who read a
// cluster in small parts: at most 16 MiB.
const cacheSize = 8

// cache holds the clusters that were uncompressed last.
type cache struct {
	mu      sync.Mutex
	next    int
	entries [cacheSize]uint64
	data    [cacheSize][]byte
}

func (c *cache) get(entry uint64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, e := range c.entries {
		if e == entry {
			return c.data[i]
		}
	}
	return nil
}

func (c *cache) put(entry uint64, data []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.entries[c.next], c.data[c.next] = entry, data
	c.next = (c.next + 1) % cacheSize
}

// unpackDeflate fills dst from Deflate data, behind which may be other data.
func unpackDeflate(dst, src []byte) error {
	_, err := io.ReadFull(flate.NewReader(bytes.NewReader(src)), dst)
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// newUnpackZstd returns a function that fills dst, of so many bytes, from a
// frame of Zstandard, behind which may be other data.
func newUnpackZstd(size int) (func(dst, src []byte) error, error) {
	// The limit holds for windows too, and the smallest window is 1 KiB.
	limit := uint64(max(size, 1<<10))
	dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecoderMaxMemory(limit))
	if err != nil {
		return nil, err
	}
	return func(dst, src []byte) error {
		n, err := frameSize(src)
		if err != nil {
			return err
		}
		got, err := dec.DecodeAll(src[:n], dst[:0:len(dst)])
		if err != nil {
			return err
		}
		if len(got) != len(dst) {
			return fmt.Errorf("frame has %d bytes of data, want %d", len(got), len(dst))
		}
		copy(dst, got) // where the decoder took memory of its own
		return nil
	}, nil
}

const (
	zstdBlockHeader = 3 // bytes (RFC 8878, section 3.1.1.2)
	zstdBlockRLE    = 1
	zstdChecksum    = 4 // bytes at the end of a frame
)

// frameSize returns the size of the frame that b begins with (RFC 8878,
// section 3.1.1).
func frameSize(b []byte) (int, error) {
	var h zstd.Header
	if err := h.Decode(b); err != nil {
		return 0, err
	}
	if h.Skippable {
		return 0, errors.New("skippable frame instead of data")
	}
	at := h.HeaderSize
	for last := false; !last; {
		if len(b)-at < zstdBlockHeader {
			return 0, io.ErrUnexpectedEOF
		}
		v := int(b[at]) | int(b[at+1])<<8 | int(b[at+2])<<16
		at += zstdBlockHeader
		last = v&1 != 0
		if v>>1&3 == zstdBlockRLE {
			at++
		} else {
			at += v >> 3
		}
	}
	if h.HasCheckSum {
		at += zstdChecksum
	}
	if at > len(b) {
		return 0, io.ErrUnexpectedEOF
	}
	return at, nil
}

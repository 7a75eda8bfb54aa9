package rpmdb

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
)

// Sizes of ndb's Packages.db (rpm's lib/backend/ndb/rpmpkg.c); its numbers
// are little endian.
const (
	ndbPage      = 4096
	ndbBlock     = 16 // of blob offsets and counts
	ndbSlot      = 16
	ndbHeader    = 32 // the first two slots' room
	ndbBlobHead  = 16
	ndbBlobTail  = 12
	ndbMaxPages  = 1 << 16
	ndbSlotMagic = 'S' | 'l'<<8 | 'o'<<16 | 't'<<24
	ndbBlobMagic = 'B' | 'l'<<8 | 'b'<<16 | 'S'<<24
	ndbTailMagic = 'B' | 'l'<<8 | 'b'<<16 | 'E'<<24
)

// readNDB reads the packages of a Packages.db in the order of its slots.
func readNDB(ctx context.Context, r io.ReaderAt, size int64, f visit) error {
	var head [ndbHeader]byte
	if _, err := r.ReadAt(head[:], 0); err != nil {
		return err
	}
	if v := binary.LittleEndian.Uint32(head[4:]); v != 0 {
		return fmt.Errorf("ndb of version %d; want 0", v)
	}
	pages := int64(binary.LittleEndian.Uint32(head[12:]))
	if pages == 0 || pages > ndbMaxPages || pages*ndbPage > size {
		return fmt.Errorf("ndb with %d pages of slots in %d bytes", pages, size)
	}
	page := make([]byte, ndbPage)
	for n := range pages {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := r.ReadAt(page, n*ndbPage); err != nil {
			return err
		}
		slots := page
		if n == 0 {
			slots = page[ndbHeader:]
		}
		for ; len(slots) > 0; slots = slots[ndbSlot:] {
			if m := binary.LittleEndian.Uint32(slots); m != ndbSlotMagic {
				return fmt.Errorf("page %d: a slot begins with %#x", n, m)
			}
			pkg := binary.LittleEndian.Uint32(slots[4:])
			if pkg == 0 {
				continue
			}
			at, count := int64(binary.LittleEndian.Uint32(slots[8:]))*ndbBlock, int64(binary.LittleEndian.Uint32(slots[12:]))*ndbBlock
			blob, err := ndbBlob(r, size, pkg, at, count)
			if err != nil {
				return fmt.Errorf("package %d at %d: %w", pkg, at, err)
			}
			if err := f(pkg, blob); err != nil {
				return err
			}
		}
	}
	return nil
}

// ndbBlob reads a package's header, which lies between a head and a tail and
// has a checksum.
func ndbBlob(r io.ReaderAt, size int64, pkg uint32, at, count int64) ([]byte, error) {
	if count < ndbBlobHead+ndbBlobTail || count > maxHeader || at+count > size {
		return nil, fmt.Errorf("%d bytes in a file of %d", count, size)
	}
	b := make([]byte, count)
	if _, err := r.ReadAt(b, at); err != nil {
		return nil, err
	}
	tail := b[count-ndbBlobTail:]
	length := int64(binary.LittleEndian.Uint32(b[12:]))
	switch {
	case binary.LittleEndian.Uint32(b) != ndbBlobMagic, binary.LittleEndian.Uint32(tail[8:]) != ndbTailMagic:
		return nil, errors.New("no package where one should be")
	case binary.LittleEndian.Uint32(b[4:]) != pkg:
		return nil, fmt.Errorf("package %d is there", binary.LittleEndian.Uint32(b[4:]))
	case length > count-ndbBlobHead-ndbBlobTail || int64(binary.LittleEndian.Uint32(tail[4:])) != length:
		return nil, fmt.Errorf("its header has %d bytes of %d", length, count)
	}
	if got, want := adler32.Checksum(b[:count-ndbBlobTail]), binary.LittleEndian.Uint32(tail); got != want {
		return nil, fmt.Errorf("checksum mismatch: got %08x, want %08x", got, want)
	}
	return b[ndbBlobHead:][:length], nil
}

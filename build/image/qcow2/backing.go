package qcow2

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// readBacking reads the name of the backing file, if there is one, and its
// format. Both are in the first cluster.
func (h *header) readBacking(r io.ReaderAt, b []byte) error {
	be := binary.BigEndian
	at, length := be.Uint64(b[hdrBackingOffset:]), be.Uint32(b[hdrBackingLength:])
	if at == 0 {
		return nil
	}
	cluster := uint64(1) << h.clusterBits
	if length == 0 || length > maxBackingName || at > cluster || at+uint64(length) > cluster {
		return fmt.Errorf("the name of the backing file has %d bytes at %d of the first cluster", length, at)
	}
	first := make([]byte, at+uint64(length))
	if n, err := r.ReadAt(first, 0); n < len(first) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return fmt.Errorf("reading the name of the backing file: %w", err)
	}
	h.backing = string(first[at:])
	if strings.ContainsRune(h.backing, 0) {
		return fmt.Errorf("the name of the backing file %q has a NUL in it", h.backing)
	}
	start := uint64(hdrV2)
	if h.version > 2 {
		start = uint64(be.Uint32(b[hdrLength:]))
	}
	for start+8 <= at {
		kind, n := be.Uint32(first[start:]), uint64(be.Uint32(first[start+4:]))
		if start += 8; kind == extensionEnd || start+n > at {
			break
		}
		if kind == extensionBackingFormat {
			h.backingFormat = string(first[start : start+n])
		}
		start += (n + 7) &^ 7
	}
	return nil
}

package rootfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Sizes of an RPM's parts, and limits: of rpm's own (lib/header.c) the number
// of entries, and less than its 256 MiB of data.
const (
	leadSize      = 96
	introSize     = 16 // magic, reserved, number of entries, size of data
	entrySize     = 16
	maxEntries    = 0xffff
	maxSigData    = 16 << 20
	maxHeaderData = 32 << 20
)

// Types of a header's entries (rpm's rpmtag.h).
const (
	typeInt16       = 3
	typeInt32       = 4
	typeInt64       = 5
	typeString      = 6
	typeStringArray = 8
	typeI18NString  = 9
)

// header is an RPM's main header. Nothing of it is decoded before it is asked
// for, and nothing is allocated by what it says of itself.
type header struct {
	entries map[uint32]headerEntry
	data    string
}

type headerEntry struct{ typ, offset, count uint32 }

// readHeader reads lead, signature header and main header and leaves r at the
// payload.
func readHeader(r io.Reader) (*header, error) {
	var lead [leadSize]byte
	if _, err := io.ReadFull(r, lead[:]); err != nil {
		return nil, early(err)
	}
	if !bytes.Equal(lead[:4], []byte{0xed, 0xab, 0xee, 0xdb}) {
		return nil, fmt.Errorf("no RPM: it begins with %x", lead[:4])
	}
	_, size, err := readIndex(r, maxSigData)
	if err == nil {
		_, err = io.CopyN(io.Discard, r, (size+7)&^7)
	}
	if err != nil {
		return nil, fmt.Errorf("signature header: %w", early(err))
	}
	entries, size, err := readIndex(r, maxHeaderData)
	if err != nil {
		return nil, err
	}
	h := &header{entries: entries}
	var data strings.Builder // grows with what there is, not with what is claimed
	if _, err := io.CopyN(&data, r, size); err != nil {
		return nil, early(err)
	}
	h.data = data.String()
	return h, nil
}

// early calls the end of a file in the middle of something what it is.
func early(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// readIndex reads a header's intro and index; size is that of the data behind.
func readIndex(r io.Reader, maxData uint32) (entries map[uint32]headerEntry, size int64, err error) {
	var intro [introSize]byte
	if _, err := io.ReadFull(r, intro[:]); err != nil {
		return nil, 0, early(err)
	}
	if !bytes.Equal(intro[:4], []byte{0x8e, 0xad, 0xe8, 0x01}) {
		return nil, 0, fmt.Errorf("header begins with %x", intro[:4])
	}
	n, data := binary.BigEndian.Uint32(intro[8:]), binary.BigEndian.Uint32(intro[12:])
	if n > maxEntries {
		return nil, 0, fmt.Errorf("header with %d entries; at most %d are read", n, maxEntries)
	}
	if data > maxData {
		return nil, 0, fmt.Errorf("header with %d bytes of data; at most %d are read", data, maxData)
	}
	index := make([]byte, int64(n)*entrySize)
	if _, err := io.ReadFull(r, index); err != nil {
		return nil, 0, early(err)
	}
	entries = make(map[uint32]headerEntry, n)
	for ; len(index) > 0; index = index[entrySize:] {
		tag := binary.BigEndian.Uint32(index)
		if _, twice := entries[tag]; twice {
			return nil, 0, fmt.Errorf("header has tag %d twice", tag)
		}
		entries[tag] = headerEntry{
			typ: binary.BigEndian.Uint32(index[4:]), offset: binary.BigEndian.Uint32(index[8:]), count: binary.BigEndian.Uint32(index[12:]),
		}
	}
	return entries, int64(data), nil
}

// count is how many values a tag says it has; 0 where it is absent.
func (h *header) count(tag uint32) int { return int(h.entries[tag].count) }

// at is the data from a tag's first value on.
func (h *header) at(tag uint32) (headerEntry, string, error) {
	e := h.entries[tag]
	if int64(e.offset) > int64(len(h.data)) {
		return e, "", fmt.Errorf("tag %d begins at %d of %d bytes", tag, e.offset, len(h.data))
	}
	return e, h.data[e.offset:], nil
}

// strings is the texts of a tag, nil where it is absent. They share the
// header's memory.
func (h *header) strings(tag uint32) ([]string, error) {
	e, data, err := h.at(tag)
	if err != nil || e.count == 0 {
		return nil, err
	}
	if e.typ != typeString && e.typ != typeStringArray && e.typ != typeI18NString {
		return nil, fmt.Errorf("tag %d has type %d, which is no text", tag, e.typ)
	}
	if int64(e.count) > int64(len(data)) {
		return nil, fmt.Errorf("tag %d has %d texts in %d bytes", tag, e.count, len(data))
	}
	out := make([]string, e.count)
	for i := range out {
		s, rest, ok := strings.Cut(data, "\x00")
		if !ok {
			return nil, fmt.Errorf("tag %d: a text does not end", tag)
		}
		out[i], data = s, rest
	}
	return out, nil
}

// str is the first text of a tag, empty where it is absent.
func (h *header) str(tag uint32) (string, error) {
	all, err := h.strings(tag)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return strings.Clone(all[0]), nil
}

// numbers is the values of a tag that is a list of numbers.
type numbers struct {
	data  string
	width int // of one, in bytes
	n     int
}

func (h *header) numbers(tag uint32) (numbers, error) {
	e, data, err := h.at(tag)
	if err != nil || e.count == 0 {
		return numbers{}, err
	}
	width, ok := map[uint32]int{typeInt16: 2, typeInt32: 4, typeInt64: 8}[e.typ]
	if !ok {
		return numbers{}, fmt.Errorf("tag %d has type %d, which is no number", tag, e.typ)
	}
	if int64(e.count)*int64(width) > int64(len(data)) {
		return numbers{}, fmt.Errorf("tag %d has %d numbers of %d bytes in %d bytes", tag, e.count, width, len(data))
	}
	return numbers{data: data, width: width, n: int(e.count)}, nil
}

// at is the number at index i, or 0 where there is none.
func (n numbers) at(i int) uint64 {
	if i >= n.n {
		return 0
	}
	var v uint64
	for _, b := range []byte(n.data[i*n.width : (i+1)*n.width]) {
		v = v<<8 | uint64(b)
	}
	return v
}

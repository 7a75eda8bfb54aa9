package rpmsig

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

// Numeric types of an entry; rpm's rpmTagType.
const (
	typeInt8  = 2
	typeInt16 = 3
	typeInt64 = 5
)

// Strings is all strings of a tag of the main header, nil where it is absent.
// Of a translated text the first is the one of the C locale.
func (p *Package) Strings(tag uint32) ([]string, error) {
	e, ok := p.main.entries[tag]
	if !ok {
		return nil, nil
	}
	if e.typ != typeString && e.typ != typeStringArray && e.typ != typeI18NString {
		return nil, fmt.Errorf("tag %d: type %d is no string", tag, e.typ)
	}
	// A string has at least the byte that ends it.
	if room := e.limit - e.offset; int64(e.count) > room {
		return nil, fmt.Errorf("tag %d: %d strings in %d bytes", tag, e.count, room)
	}
	data, err := p.tagData(e)
	if err != nil {
		return nil, err
	}
	out := make([]string, 0, e.count)
	for range e.count {
		s, rest, ok := bytes.Cut(data, []byte{0})
		if !ok {
			return nil, fmt.Errorf("tag %d: a string does not end", tag)
		}
		out, data = append(out, string(s)), rest
	}
	return out, nil
}

// Numbers is all numbers of a tag of the main header, of whichever width, nil
// where it is absent.
func (p *Package) Numbers(tag uint32) ([]uint64, error) {
	e, ok := p.main.entries[tag]
	if !ok {
		return nil, nil
	}
	width, err := e.width(tag)
	if err != nil {
		return nil, err
	}
	if room := e.limit - e.offset; int64(e.count)*width > room {
		return nil, fmt.Errorf("tag %d: %d numbers of %d bytes in %d bytes", tag, e.count, width, room)
	}
	e.limit = e.offset + int64(e.count)*width
	data, err := p.tagData(e)
	if err != nil {
		return nil, err
	}
	out := make([]uint64, 0, e.count)
	for ; len(data) > 0; data = data[width:] {
		var b [8]byte
		copy(b[8-width:], data[:width])
		out = append(out, binary.BigEndian.Uint64(b[:]))
	}
	return out, nil
}

// width is how many bytes a number of the entry has.
func (e entry) width(tag uint32) (int64, error) {
	width, ok := map[uint32]int64{typeInt8: 1, typeInt16: 2, typeInt32: 4, typeInt64: 8}[e.typ]
	if !ok {
		return 0, fmt.Errorf("tag %d: type %d is no number", tag, e.typ)
	}
	return width, nil
}

// ArchiveSize is the length of the unpacked payload in bytes, as the signature
// header has it: no key signs that. It is 0 where nothing is said.
func (p *Package) ArchiveSize() (uint64, error) {
	for _, tag := range []uint32{271, 1007} { // RPMTAG_LONGARCHIVESIZE, RPMSIGTAG_PAYLOADSIZE
		e, ok := p.sig.entries[tag]
		if !ok || e.count == 0 {
			continue
		}
		width, err := e.width(tag)
		if err != nil {
			return 0, err
		}
		var b [8]byte
		err = readAt(p.r, b[8-width:], e.offset, e.limit)
		return binary.BigEndian.Uint64(b[:]), err
	}
	return 0, nil
}

// tagData is what lies from an entry to the end of the data.
func (p *Package) tagData(e entry) ([]byte, error) {
	if p.data == nil {
		// The whole header at once: it is read tag by tag otherwise.
		data := make([]byte, p.main.end-p.main.start)
		if err := readAt(p.r, data, p.main.start, p.size); err != nil {
			return nil, err
		}
		p.data = data
	}
	return p.data[e.offset-p.main.start : e.limit-p.main.start], nil
}

// HeaderRange is where the main header begins and ends in the file, in bytes.
func (p *Package) HeaderRange() (start, end int64) { return p.main.start, p.main.end }

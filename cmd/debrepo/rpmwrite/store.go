package rpmwrite

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sort"
)

// The types of values in a header (rpm's docs/manual/format.md, "Header format").
const (
	typeInt16       = 3
	typeInt32       = 4
	typeString      = 6
	typeBin         = 7
	typeStringArray = 8
	typeI18NString  = 9
)

type entry struct {
	tag, typ, count uint32
	data            []byte
}

// store collects the values of a header. Empty arrays are left out, as rpm has no value without content.
type store struct {
	entries []entry
	err     error
}

func (s *store) add(tag, typ uint32, count int, data []byte) {
	if count == 0 {
		return
	}
	s.entries = append(s.entries, entry{tag, typ, uint32(count), data})
}

func (s *store) text(tag uint32, v string) {
	if v == "" {
		return
	}
	s.checkText(tag, v)
	s.add(tag, typeString, 1, append([]byte(v), 0))
}

func (s *store) i18n(tag uint32, v string) {
	s.checkText(tag, v)
	s.add(tag, typeI18NString, 1, append([]byte(v), 0))
}

func (s *store) texts(tag uint32, v []string) {
	var b []byte
	for _, t := range v {
		s.checkText(tag, t)
		b = append(append(b, t...), 0)
	}
	s.add(tag, typeStringArray, len(v), b)
}

func (s *store) checkText(tag uint32, v string) {
	if bytes.IndexByte([]byte(v), 0) >= 0 && s.err == nil {
		s.err = fmt.Errorf("the value of tag %d, %q, has a zero byte", tag, v)
	}
}

func (s *store) bin(tag uint32, v []byte) { s.add(tag, typeBin, len(v), v) }

func (s *store) int32s(tag uint32, v ...uint32) {
	var b []byte
	for _, n := range v {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	s.add(tag, typeInt32, len(v), b)
}

func (s *store) int16s(tag uint32, v ...uint16) {
	var b []byte
	for _, n := range v {
		b = binary.BigEndian.AppendUint16(b, n)
	}
	s.add(tag, typeInt16, len(v), b)
}

// bytes lays the header out: magic, counts, index, data. The whole is one immutable region, named by regionTag, whose index
// entry comes first and whose trailer ends the data (docs/manual/format.md, "Immutable regions").
func (s *store) bytes(regionTag uint32) ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}
	entries := append([]entry(nil), s.entries...)
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].tag < entries[j].tag })
	var index, data []byte
	for i, e := range entries {
		if i > 0 && entries[i-1].tag == e.tag {
			return nil, fmt.Errorf("tag %d is set twice", e.tag)
		}
		switch e.typ { // alignment
		case typeInt16:
			data = append(data, make([]byte, -len(data)&1)...)
		case typeInt32:
			data = append(data, make([]byte, -len(data)&3)...)
		}
		index = appendIndex(index, e.tag, e.typ, uint32(len(data)), e.count)
		data = append(data, e.data...)
	}
	n := uint32(len(entries) + 1)
	region := appendIndex(nil, regionTag, typeBin, uint32(len(data)), 16)
	data = appendIndex(data, regionTag, typeBin, -(n * 16), 16)

	out := []byte{0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0} // magic, version 1, reserved
	out = binary.BigEndian.AppendUint32(out, n)
	out = binary.BigEndian.AppendUint32(out, uint32(len(data)))
	out = append(append(out, region...), index...)
	return append(out, data...), nil
}

func appendIndex(b []byte, tag, typ, offset, count uint32) []byte {
	for _, v := range []uint32{tag, typ, offset, count} {
		b = binary.BigEndian.AppendUint32(b, v)
	}
	return b
}

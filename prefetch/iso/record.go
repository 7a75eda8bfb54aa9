package iso

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
)

// Flags of a directory record (ECMA-119, section 9.1.6).
const (
	flagDirectory  = 0x02
	flagAssociated = 0x04
	flagMore       = 0x80 // the file goes on in the next record
)

// maxAreas is how many continuation areas one record may have, and maxArea
// how many bytes one of them.
const (
	maxAreas = 32
	maxArea  = 8 << 10
)

// record is a directory record.
type record struct {
	node
	id    []byte // as it stands there
	flags byte
	use   []byte // the system use area
}

// parseRecord reads a directory record (ECMA-119, section 9.1), which b
// begins with.
func (i *Image) parseRecord(b []byte) (*record, error) {
	const fixed = 33
	if len(b) < fixed+1 || int(b[0]) < fixed+1 || int(b[0]) > len(b) {
		return nil, errors.New("a record is cut off")
	}
	b = b[:b[0]]
	end := fixed + int(b[32])
	if end > len(b) {
		return nil, errors.New("a name is longer than its record")
	}
	r := &record{id: b[fixed:end], flags: b[25]}
	r.dir = r.flags&flagDirectory != 0
	if b[32]%2 == 0 { // a byte of padding
		end++
	}
	if end < len(b) {
		r.use = b[end:]
	}
	start := (int64(binary.LittleEndian.Uint32(b[2:])) + int64(b[1])) * i.block
	size := int64(binary.LittleEndian.Uint32(b[10:]))
	if size > 0 && start > i.size-size {
		return nil, fmt.Errorf("%q ends at byte %d, the image at %d", r.id, start+size, i.size)
	}
	r.extents = []extent{{start, size}}
	if b[26] != 0 || b[27] != 0 {
		r.problem = "it is interleaved, which is not supported"
	}
	return r, nil
}

// list reads a directory.
func (i *Image) list(at extent) (map[string]node, error) {
	nodes := make(map[string]node)
	var last *record // one that goes on
	count := 0
	err := i.records(at, func(r *record) error {
		if count++; count > maxRecords {
			return fmt.Errorf("more than %d records", maxRecords)
		}
		if len(r.id) == 1 && r.id[0] <= 1 || r.flags&flagAssociated != 0 { // "." and ".."
			return nil
		}
		if last != nil {
			if string(last.id) != string(r.id) {
				return fmt.Errorf("%q goes on in %q", last.id, r.id)
			}
			r.extents = append(last.extents, r.extents...)
		}
		if last = nil; r.flags&flagMore != 0 {
			last = r
			return nil
		}
		name, err := i.name(r)
		if err != nil {
			return fmt.Errorf("%q: %w", r.id, err)
		}
		if _, twice := nodes[name]; name != "" && !twice {
			nodes[name] = r.node
		}
		return nil
	})
	if err == nil && last != nil {
		err = fmt.Errorf("%q does not end", last.id)
	}
	return nodes, err
}

// records calls f for each record of a directory. A record lies in one sector
// (section 6.8.1.1).
func (i *Image) records(at extent, f func(*record) error) error {
	if at.size > maxDirectory {
		return fmt.Errorf("%d bytes, want at most %d", at.size, maxDirectory)
	}
	buf := make([]byte, sectorSize)
	for off := int64(0); off < at.size; off += sectorSize {
		b := buf[:min(sectorSize, at.size-off)]
		if err := i.readAt(b, at.start+off); err != nil {
			return err
		}
		for len(b) > 0 && b[0] != 0 {
			r, err := i.parseRecord(b)
			if err != nil {
				return err
			}
			b = b[b[0]:]
			r.id, r.use = slices.Clone(r.id), slices.Clone(r.use)
			if err := f(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// name is the name by which a record's file is asked for; empty for what is
// not to be found here.
func (i *Image) name(r *record) (string, error) {
	switch i.names {
	case rockRidge:
		return i.rockRidge(r)
	case joliet:
		return withoutVersion(ucs2(r.id)), nil
	}
	return i.fold(strings.TrimSuffix(withoutVersion(string(r.id)), ".")), nil
}

func withoutVersion(s string) string {
	if k := strings.LastIndexByte(s, ';'); k > 0 {
		return s[:k]
	}
	return s
}

func ucs2(b []byte) string {
	u := make([]uint16, len(b)/2)
	for k := range u {
		u[k] = binary.BigEndian.Uint16(b[2*k:])
	}
	return string(utf16.Decode(u))
}

// sharing looks at the root's own record for the mark of the System Use
// Sharing Protocol (SUSP, section 5.3), on which Rock Ridge rests.
func (i *Image) sharing() (skip int, ok bool, err error) {
	first := true
	at := i.root.extents[0]
	err = i.records(extent{at.start, min(at.size, sectorSize)}, func(r *record) error {
		if u := r.use; first && len(u) >= 7 && string(u[:2]) == "SP" && u[4] == 0xBE && u[5] == 0xEF {
			skip, ok = int(u[6]), true
		}
		first = false
		return nil
	})
	return skip, ok, err
}

// rockRidge reads the entries of a record's system use area (RRIP 1.12,
// section 4), and returns the alternate name.
func (i *Image) rockRidge(r *record) (string, error) {
	if len(r.use) < i.skip {
		return "", errors.New("the system use area is cut off")
	}
	var name strings.Builder
	moved := false
	err := i.entries(r.use[i.skip:], func(sig string, data []byte) error {
		switch sig {
		case "NM":
			if len(data) > 1 && data[0]&^1 == 0 {
				name.Write(data[1:])
			}
		case "SL":
			r.problem = "it is a symbolic link"
		case "ZF":
			r.problem = "it is compressed by zisofs, which is not supported"
		case "CL": // the directory is elsewhere
			if len(data) < 4 {
				return errors.New("a child link is cut off")
			}
			return i.follow(r, int64(binary.LittleEndian.Uint32(data))*i.block)
		case "RE": // it is found by a child link
			moved = true
		}
		return nil
	})
	switch {
	case err != nil || moved:
		return "", err
	case name.Len() == 0: // as Linux has it
		return strings.ToLower(strings.TrimSuffix(withoutVersion(string(r.id)), ".")), nil
	}
	return name.String(), nil
}

// follow makes a record that of the directory which begins there.
func (i *Image) follow(r *record, start int64) error {
	b := make([]byte, min(sectorSize, max(0, i.size-start)))
	if err := i.readAt(b, start); err != nil {
		return err
	}
	own, err := i.parseRecord(b)
	if err != nil {
		return err
	}
	if !own.dir || own.extents[0].start != start {
		return errors.New("a child link leads to no directory")
	}
	r.node = own.node
	return nil
}

// entries calls f for each entry of a system use area and of those in which
// it goes on (SUSP, sections 4 and 5.1), with the bytes after the version.
func (i *Image) entries(area []byte, f func(sig string, data []byte) error) error {
	for range maxAreas {
		var next *extent
		for len(area) >= 4 && area[2] >= 4 && int(area[2]) <= len(area) { // else padding
			sig, data := string(area[:2]), area[4:area[2]]
			area = area[area[2]:]
			switch {
			case sig == "ST":
				area = nil
			case sig == "CE" && len(data) >= 24:
				next = &extent{
					int64(binary.LittleEndian.Uint32(data))*i.block + int64(binary.LittleEndian.Uint32(data[8:])),
					int64(binary.LittleEndian.Uint32(data[16:])),
				}
			default:
				if err := f(sig, data); err != nil {
					return err
				}
			}
		}
		if next == nil {
			return nil
		}
		if next.size > maxArea {
			return fmt.Errorf("a continuation area of %d bytes, want at most %d", next.size, maxArea)
		}
		area = make([]byte, next.size)
		if err := i.readAt(area, next.start); err != nil {
			return err
		}
	}
	return fmt.Errorf("more than %d continuation areas", maxAreas)
}

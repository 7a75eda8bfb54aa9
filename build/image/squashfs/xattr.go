package squashfs

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// xattrEntry is the size of an entry of the table that has an inode's
// attributes.
const xattrEntry = 16

// outOfLine marks a value that lies elsewhere: what stands in its place is where.
const outOfLine = 0x100

var xattrPrefixes = map[uint16]string{0: "user.", 1: "trusted.", 2: "security."}

func (f *FS) openXattrs() error {
	if f.sb.Xattrs == noTable || f.sb.Flags&flagNoXattrs != 0 {
		return nil
	}
	if f.sb.Xattrs > f.sb.Size {
		return fmt.Errorf("at %d of an image of %d bytes", f.sb.Xattrs, f.sb.Size)
	}
	var head [16]byte
	if err := f.readFull(head[:], int64(f.sb.Xattrs)); err != nil {
		return err
	}
	base := binary.LittleEndian.Uint64(head[:])
	if base > f.sb.Xattrs {
		return fmt.Errorf("values at %d, behind their table at %d", base, f.sb.Xattrs)
	}
	f.xattrBase, f.xattrCount = int64(base), binary.LittleEndian.Uint32(head[8:])
	var err error
	f.xattrBlocks, err = f.pointers(f.sb.Xattrs+16, uint64(f.xattrCount), xattrEntry)
	return err
}

// xattrs are the attributes of an inode.
func (f *FS) xattrs(index uint32) (map[string][]byte, error) {
	if index == none {
		return nil, nil
	}
	if index >= f.xattrCount {
		return nil, fmt.Errorf("attributes %d of %d", index, f.xattrCount)
	}
	e, err := f.entry(f.xattrBlocks, int(index), xattrEntry)
	if err != nil {
		return nil, err
	}
	ref, count, size := binary.LittleEndian.Uint64(e), binary.LittleEndian.Uint32(e[8:]), binary.LittleEndian.Uint32(e[12:])
	if size > maxXattrs {
		return nil, fmt.Errorf("attributes of %d bytes", size)
	}
	r, err := f.xattrFields(ref)
	if err != nil {
		return nil, err
	}
	out, total := map[string][]byte{}, 0
	for range count {
		name, value, err := f.xattr(r)
		if err != nil {
			return nil, err
		}
		if _, ok := out[name]; ok {
			return nil, fmt.Errorf("the attribute %q is there twice", name)
		}
		if total += len(name) + len(value); total > maxXattrs {
			return nil, errors.New("too many attributes")
		}
		out[name] = value
	}
	return out, nil
}

func (f *FS) xattrFields(ref uint64) (*fields, error) {
	s, err := f.stream(f.xattrBase+int64(ref>>16), int(ref&0xffff), int64(f.sb.Xattrs))
	return &fields{s: s}, err
}

// xattr reads a name and its value.
func (f *FS) xattr(r *fields) (name string, value []byte, err error) {
	var typ, length uint16
	r.u16(&typ, &length)
	prefix, ok := xattrPrefixes[typ&^outOfLine]
	if r.err == nil && !ok {
		return "", nil, fmt.Errorf("an attribute of type %#x", typ)
	}
	name = prefix + string(r.bytes(int(length)))
	if typ&outOfLine != 0 {
		var size uint32
		var ref uint64
		r.u32(&size)
		r.u64(&ref)
		if r.err != nil {
			return "", nil, r.err
		}
		if r, err = f.xattrFields(ref); err != nil {
			return "", nil, err
		}
	}
	var size uint32
	r.u32(&size)
	if r.err == nil && size > maxXattrs {
		return "", nil, fmt.Errorf("an attribute of %d bytes", size)
	}
	value = r.bytes(int(size))
	return name, value, r.err
}

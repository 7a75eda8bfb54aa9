package ext4

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// xattrMagic begins attributes, in a block and behind an inode's fields
// (Documentation/filesystems/ext4/attributes.rst).
const xattrMagic = 0xea020000

// inlineData is the attribute that has what does not fit into i_block.
const inlineData = "system.data"

func xattrPrefix(index byte) (string, bool) {
	names := [...]string{"", "user.", "system.posix_acl_access", "system.posix_acl_default", "trusted.", "", "security.", "system.", "system.richacl"}
	if int(index) >= len(names) || index == 5 {
		return "", false
	}
	return names[index], true
}

// attributes reads those in the inode and those in its block.
func (f *FS) attributes(i *inode) error {
	le := binary.LittleEndian
	if at := inodeBase + i.extra(); i.extra() > 0 && at+4 <= len(i.raw) && le.Uint32(i.raw[at:]) == xattrMagic {
		area := i.raw[at+4:]
		if err := f.addAttributes(i, area, area); err != nil {
			return fmt.Errorf("inode %d: attributes: %w", i.number, err)
		}
	}
	if i.acl != 0 {
		b := make([]byte, f.block)
		if err := f.readBlock(b, i.acl); err != nil {
			return fmt.Errorf("inode %d: attributes: %w", i.number, err)
		}
		if le.Uint32(b) != xattrMagic {
			return fmt.Errorf("inode %d: attributes begin with %x", i.number, b[:4])
		}
		if err := f.addAttributes(i, b[32:], b); err != nil {
			return fmt.Errorf("inode %d: attributes: %w", i.number, err)
		}
	}
	if v, ok := i.xattrs[inlineData]; ok && i.flags&flagInline != 0 {
		i.inline = v
		delete(i.xattrs, inlineData)
	}
	return nil
}

// addAttributes reads entries (struct ext4_xattr_entry); their values are in
// area.
func (f *FS) addAttributes(i *inode, entries, area []byte) error {
	le := binary.LittleEndian
	for len(entries) >= 4 && le.Uint32(entries) != 0 {
		if len(entries) < 16 {
			return errors.New("an entry is cut off")
		}
		length, index := int(entries[0]), entries[1]
		at, number, size := int(le.Uint16(entries[2:])), int64(le.Uint32(entries[4:])), int64(le.Uint32(entries[8:]))
		if 16+length > len(entries) {
			return errors.New("a name is cut off")
		}
		prefix, ok := xattrPrefix(index)
		if !ok {
			return fmt.Errorf("a name of kind %d", index)
		}
		name := prefix + string(entries[16:16+length])
		value, err := f.value(area, at, size, number)
		if err != nil {
			return fmt.Errorf("%q: %w", name, err)
		}
		if i.xattrs == nil {
			i.xattrs = map[string][]byte{}
		}
		if _, ok := i.xattrs[name]; ok {
			return fmt.Errorf("%q is there twice", name)
		}
		i.xattrs[name] = value
		entries = entries[min(len(entries), (16+length+3)&^3):]
	}
	return nil
}

// value is that of an attribute: in the area, or in an inode of its own.
func (f *FS) value(area []byte, at int, size, number int64) ([]byte, error) {
	if number == 0 {
		if size > int64(len(area)) || at > len(area)-int(size) {
			return nil, fmt.Errorf("%d bytes at %d of %d", size, at, len(area))
		}
		return area[at : at+int(size)], nil
	}
	if f.incompatible&featEAInode == 0 || number > f.inodes {
		return nil, fmt.Errorf("a value in inode %d", number)
	}
	v, err := f.fields(number) // it has no attributes that count
	if err != nil {
		return nil, err
	}
	return f.small(v, maxValue, newBudget())
}

package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

const (
	xattrHeaderSize = 12 // struct erofs_xattr_ibody_header
	xattrEntrySize  = 4  // struct erofs_xattr_entry, then name and value
	xattrAlign      = 4
	maxXattrValue   = 1<<16 - 1
	maxXattrs       = xattrHeaderSize + xattrAlign*(1<<16-2) // of one inode
	maxShared       = 255                                    // ids of one inode
)

// xattrPrefixes are the beginnings of names that are stored as a number, the
// index; no other names can be stored.
var xattrPrefixes = [...]string{
	1: "user.",
	2: "system.posix_acl_access",
	3: "system.posix_acl_default",
	4: "trusted.",
	6: "security.",
}

// xattrCount is i_xattr_icount for so many bytes of extended attributes.
func xattrCount(size int64) uint16 {
	if size == 0 {
		return 0
	}
	return uint16((size-xattrHeaderSize)/xattrAlign + 1)
}

// xattrSize is the reverse of xattrCount.
func xattrSize(count uint16) int64 {
	if count == 0 {
		return 0
	}
	return xattrHeaderSize + xattrAlign*(int64(count)-1)
}

// encodeXattrs returns the entries of m, sorted by name, each as it is stored.
func encodeXattrs(m map[string][]byte) ([]string, error) {
	var entries []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		index, suffix, err := splitXattr(name)
		if err != nil {
			return nil, err
		}
		value := m[name]
		if len(value) > maxXattrValue {
			return nil, fmt.Errorf("attribute %q has %d bytes, more than %d", name, len(value), maxXattrValue)
		}
		b := []byte{byte(len(suffix)), index}
		b = binary.LittleEndian.AppendUint16(b, uint16(len(value)))
		b = append(append(b, suffix...), value...)
		entries = append(entries, string(append(b, make([]byte, -len(b)&(xattrAlign-1))...)))
	}
	return entries, nil
}

// splitXattr returns the index of the prefix of an attribute's name, and what
// follows the prefix.
func splitXattr(name string) (index byte, suffix string, err error) {
	for i, prefix := range xattrPrefixes {
		suffix, ok := strings.CutPrefix(name, prefix)
		if prefix == "" || !ok {
			continue
		}
		// A prefix is followed by something, but for the two whole names.
		if whole := !strings.HasSuffix(prefix, "."); whole != (suffix == "") {
			continue
		}
		if len(suffix) > maxName || strings.IndexByte(suffix, 0) >= 0 {
			return 0, "", fmt.Errorf("attribute %.40q: want a name of at most %d bytes without a NUL", name, maxName)
		}
		return byte(i), suffix, nil
	}
	return 0, "", fmt.Errorf("attribute %.40q cannot be stored: only user, trusted, security and POSIX ACLs can", name)
}

// xattrBody is the attributes of an inode: ids of shared ones and entries of
// its own.
type xattrBody struct {
	shared []string // entries, replaced by their ids when it is written
	own    []string
}

// size returns the bytes of the body, 0 where there are no attributes.
func (x *xattrBody) size() int64 {
	if len(x.shared)+len(x.own) == 0 {
		return 0
	}
	n := int64(xattrHeaderSize + xattrAlign*len(x.shared))
	for _, e := range x.own {
		n += int64(len(e))
	}
	return n
}

// append appends the body to b.
func (x *xattrBody) append(b []byte, ids map[string]uint32) []byte {
	if x.size() == 0 {
		return b
	}
	b = append(b, 0, 0, 0, 0, byte(len(x.shared)), 0, 0, 0, 0, 0, 0, 0)
	for _, e := range x.shared {
		b = binary.LittleEndian.AppendUint32(b, ids[e])
	}
	for _, e := range x.own {
		b = append(b, e...)
	}
	return b
}

// shareXattrs moves entries that more than two inodes have from the inodes to
// a list of their own, which it returns in the order of the bytes.
func shareXattrs(nodes []*node) []string {
	count := make(map[string]int)
	for _, n := range nodes {
		for _, e := range n.xattrs.own {
			count[e]++
		}
	}
	used := make(map[string]bool)
	for _, n := range nodes {
		var own []string
		for _, e := range n.xattrs.own {
			if count[e] > 2 && len(n.xattrs.shared) < maxShared {
				n.xattrs.shared = append(n.xattrs.shared, e)
				used[e] = true
			} else {
				own = append(own, e)
			}
		}
		n.xattrs.own = own
	}
	return slices.Sorted(maps.Keys(used))
}

// parseXattr reads the entry that b begins with. It returns its length with
// the zeros that fill it up to a multiple of 4.
func parseXattr(b []byte) (name string, value []byte, size int, err error) {
	if len(b) < xattrEntrySize {
		return "", nil, 0, errors.New("extended attribute is cut off")
	}
	nameLen, index := int(b[0]), int(b[1])
	valueLen := int(binary.LittleEndian.Uint16(b[2:]))
	end := xattrEntrySize + nameLen + valueLen
	if end > len(b) {
		return "", nil, 0, fmt.Errorf("extended attribute of %d bytes is cut off at %d", end, len(b))
	}
	if index >= len(xattrPrefixes) || xattrPrefixes[index] == "" {
		return "", nil, 0, fmt.Errorf("extended attribute has the prefix %d, which is not supported", index)
	}
	name = xattrPrefixes[index] + string(b[xattrEntrySize:][:nameLen])
	if _, _, err := splitXattr(name); err != nil {
		return "", nil, 0, err
	}
	value = slices.Clone(b[xattrEntrySize+nameLen : end])
	return name, value, min(end+-end&(xattrAlign-1), len(b)), nil
}

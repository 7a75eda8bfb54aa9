package fat

import "encoding/binary"

// endFrom is the lowest entry of a table with so many bits an entry that ends
// a chain ("FAT Entry Values").
func endFrom(bits int64) int64 {
	switch bits {
	case 12:
		return 0xff8
	case 16:
		return 0xfff8
	}
	return 0x0ffffff8
}

// decodeEntry is the entry of a cluster, which b begins with. Two entries of
// 12 bits share three bytes: those of even clusters have the lower half of
// the second, those of odd ones the upper. The upper four bits of one of 32
// bits are reserved.
func decodeEntry(b []byte, cluster, bits int64) int64 {
	switch bits {
	case 12:
		v := int64(binary.LittleEndian.Uint16(b))
		if cluster%2 != 0 {
			return v >> 4
		}
		return v & 0xfff
	case 16:
		return int64(binary.LittleEndian.Uint16(b))
	}
	return int64(binary.LittleEndian.Uint32(b) & 0x0fffffff)
}

// encodeEntry puts an entry where decodeEntry finds it, and leaves what is
// not its own as it is.
func encodeEntry(b []byte, cluster, bits, value int64) {
	le := binary.LittleEndian
	switch bits {
	case 12:
		old := le.Uint16(b)
		if cluster%2 != 0 {
			le.PutUint16(b, old&0x000f|uint16(value)<<4)
		} else {
			le.PutUint16(b, old&0xf000|uint16(value))
		}
	case 16:
		le.PutUint16(b, uint16(value))
	default:
		le.PutUint32(b, le.Uint32(b)&0xf0000000|uint32(value))
	}
}

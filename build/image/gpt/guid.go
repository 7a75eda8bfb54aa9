package gpt

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strings"
)

// GUID is a globally unique identifier as it lies on the disk: its first
// three fields little-endian, the rest in order (UEFI 2.10, appendix A).
type GUID [16]byte

// The partition types of the Discoverable Partitions Specification that an
// image with a verity-protected root needs, and the EFI system partition's
// (UEFI 2.10, table 5.7).
var (
	TypeESP              = GUID{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	TypeRootX86_64       = GUID{0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8, 0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca, 0xf9, 0x84, 0xb7, 0x09}
	TypeRootVerityX86_64 = GUID{0xed, 0x57, 0x73, 0x2c, 0xd2, 0xeb, 0xd9, 0x46, 0xae, 0xc1, 0x23, 0xd4, 0x37, 0xec, 0x2b, 0xf5}
	TypeRootARM64        = GUID{0x45, 0xb0, 0x21, 0xb9, 0xf0, 0x1d, 0xc3, 0x41, 0xaf, 0x44, 0x4c, 0x6f, 0x28, 0x0d, 0x3f, 0xae}
	TypeRootVerityARM64  = GUID{0xce, 0x00, 0x33, 0xdf, 0x9f, 0xd6, 0x92, 0x4c, 0x97, 0x8c, 0x9b, 0xfb, 0x0f, 0x38, 0xd8, 0x20}
)

// Attribute bits of the Discoverable Partitions Specification, section
// "Partition Attribute Bits".
const (
	AttrGrowFS   uint64 = 1 << 59
	AttrReadOnly uint64 = 1 << 60
	AttrNoAuto   uint64 = 1 << 63
)

// ParseGUID reads the text form, 8-4-4-4-12 hex digits in either case.
func ParseGUID(s string) (GUID, error) {
	var g GUID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return g, fmt.Errorf("guid %q: want 8-4-4-4-12 hex digits", s)
	}
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != len(g) {
		return g, fmt.Errorf("guid %q: want 8-4-4-4-12 hex digits", s)
	}
	return FromBytes([16]byte(b)), nil
}

// FromBytes is the GUID whose text form shows b in its order: the form in
// which the halves of a root hash become partition ids.
func FromBytes(b [16]byte) GUID {
	var g GUID
	binary.LittleEndian.PutUint32(g[0:], binary.BigEndian.Uint32(b[0:]))
	binary.LittleEndian.PutUint16(g[4:], binary.BigEndian.Uint16(b[4:]))
	binary.LittleEndian.PutUint16(g[6:], binary.BigEndian.Uint16(b[6:]))
	copy(g[8:], b[8:])
	return g
}

// String is the text form in lower case.
func (g GUID) String() string {
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(g[0:]),
		binary.LittleEndian.Uint16(g[4:]), binary.LittleEndian.Uint16(g[6:]), g[8:10], g[10:])
}

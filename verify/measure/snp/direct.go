package snp

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"caisson/build/image/gpt"
	"caisson/verify/measure/ovmf"
)

// The table of hashes of what a machine starts directly, as QEMU writes it
// (target/i386/sev.c, SevHashTable): a header and three entries, padded to 16
// bytes. Header and entries are a GUID and their size; entries have a hash.
const (
	hashesHeader = 18
	hashesEntry  = hashesHeader + sha256.Size
	hashesSize   = (hashesHeader + 3*hashesEntry + 15) / 16 * 16
)

func hashesArea() gpt.GUID {
	return gpt.GUID{0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54}
}

// table is the table of hashes.
func (d *Direct) table() []byte {
	b := make([]byte, 0, hashesSize)
	header := gpt.GUID{0x06, 0xd6, 0x38, 0x94, 0x22, 0x4f, 0xc9, 0x4c, 0xb4, 0x79, 0xa7, 0x93, 0xd4, 0x11, 0xfd, 0x21}
	b = append(b, header[:]...)
	b = binary.LittleEndian.AppendUint16(b, hashesHeader+3*hashesEntry)
	for _, e := range []struct {
		id   gpt.GUID
		hash [sha256.Size]byte
	}{
		{gpt.GUID{0xd8, 0x2d, 0xd0, 0x97, 0x20, 0xbd, 0x94, 0x4c, 0xaa, 0x78, 0xe7, 0x71, 0x4d, 0x36, 0xab, 0x2a}, sha256.Sum256([]byte(d.Cmdline + "\x00"))},
		{gpt.GUID{0x31, 0xf7, 0xba, 0x44, 0x2f, 0x3a, 0xd7, 0x4b, 0x9a, 0xf1, 0x41, 0xe2, 0x91, 0x69, 0x78, 0x1d}, d.Initrd},
		{gpt.GUID{0x37, 0x94, 0xe7, 0x4d, 0xd2, 0xab, 0x7f, 0x42, 0xb8, 0x35, 0xd5, 0xb1, 0x72, 0xd2, 0x04, 0x5b}, d.Kernel},
	} {
		b = append(b, e.id[:]...)
		b = binary.LittleEndian.AppendUint16(b, hashesEntry)
		b = append(b, e.hash[:]...)
	}
	return b[:hashesSize]
}

// page is the page of the section with the table where the firmware looks for
// it.
func (d *Direct) page(f *ovmf.Firmware, s section) ([]byte, error) {
	at, ok := f.Number(hashesArea())
	if !ok || at == 0 {
		return nil, errors.New("it does not say where it looks for the hashes of a kernel")
	}
	if at < s.address || uint64(at)+hashesSize > uint64(s.address)+uint64(s.size) {
		return nil, fmt.Errorf("it looks for the hashes of a kernel at %#x, their page is at %#x", at, s.address)
	}
	b := make([]byte, s.size)
	copy(b[at-s.address:], d.table())
	return b, nil
}

package uki

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"io"
	"slices"
)

// Authenticode is the SHA-256 of an image as Microsoft's "Windows
// Authenticode Portable Executable Signature Format" computes it under
// "Calculating the PE Image Hash", and as firmware measures it into PCR 4:
// the headers without checksum and entry of the certificate table, the
// sections in the order of the file, and what is behind them but for the
// certificate table. Signing an image therefore does not change it, as long
// as the image is a multiple of 8 bytes long: signing tools pad the others.
func Authenticode(r io.ReaderAt, size int64) ([32]byte, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return [32]byte{}, err
	}
	sum := sha256.New()
	checksum := h.opt + optCheckSum
	sum.Write(h.raw[:checksum])
	if h.dirs > dirSecurity {
		entry := h.opt + optionalFixed + 8*dirSecurity
		sum.Write(h.raw[checksum+4 : entry])
		sum.Write(h.raw[entry+8:])
	} else {
		sum.Write(h.raw[checksum+4:])
	}
	sorted := slices.Clone(h.sections)
	slices.SortStableFunc(sorted, func(a, b sectionHeader) int { return cmp.Compare(a.Offset, b.Offset) })
	hashed := int64(len(h.raw))
	for _, s := range sorted {
		if _, err := io.Copy(sum, io.NewSectionReader(r, int64(s.Offset), int64(s.SizeOfRawData))); err != nil {
			return [32]byte{}, fmt.Errorf("reading section %q: %w", s.Name, err)
		}
		hashed += int64(s.SizeOfRawData)
	}
	at, certificates := h.directory(dirSecurity)
	if certificates > 0 && int64(at)+int64(certificates) != size {
		return [32]byte{}, fmt.Errorf("certificate table has bytes %d to %d, not the last ones of a file of %d", at, int64(at)+int64(certificates), size)
	}
	rest := size - hashed - int64(certificates)
	if rest < 0 {
		return [32]byte{}, fmt.Errorf("headers, sections and certificates have %d bytes more than the file", -rest)
	}
	if _, err := io.Copy(sum, io.NewSectionReader(r, hashed, rest)); err != nil {
		return [32]byte{}, fmt.Errorf("reading what follows the sections: %w", err)
	}
	return [32]byte(sum.Sum(nil)), nil
}

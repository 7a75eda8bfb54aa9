package uki

import (
	"bytes"
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
	sum := sha256.New()
	if err := WriteHashed(sum, r, size); err != nil {
		return [32]byte{}, err
	}
	return [32]byte(sum.Sum(nil)), nil
}

// WriteHashed writes to w, a hash, what Authenticode is the SHA-256 of.
func WriteHashed(w io.Writer, r io.ReaderAt, size int64) error {
	h, err := readHeaders(r, size)
	if err != nil {
		return err
	}
	checksum := h.opt + optCheckSum
	head := bytes.Clone(h.raw[:checksum])
	if h.dirs > dirSecurity {
		entry := h.opt + optionalFixed + 8*dirSecurity
		head = append(append(head, h.raw[checksum+4:entry]...), h.raw[entry+8:]...)
	} else {
		head = append(head, h.raw[checksum+4:]...)
	}
	if _, err := w.Write(head); err != nil {
		return fmt.Errorf("hashing the headers: %w", err)
	}
	sorted := slices.Clone(h.sections)
	slices.SortStableFunc(sorted, func(a, b sectionHeader) int { return cmp.Compare(a.Offset, b.Offset) })
	hashed := int64(len(h.raw))
	for _, s := range sorted {
		if _, err := io.Copy(w, io.NewSectionReader(r, int64(s.Offset), int64(s.SizeOfRawData))); err != nil {
			return fmt.Errorf("reading section %q: %w", s.Name, err)
		}
		hashed += int64(s.SizeOfRawData)
	}
	at, certificates := h.directory(dirSecurity)
	if certificates > 0 && int64(at)+int64(certificates) != size {
		return fmt.Errorf("certificate table has bytes %d to %d, not the last ones of a file of %d", at, int64(at)+int64(certificates), size)
	}
	rest := size - hashed - int64(certificates)
	if rest < 0 {
		return fmt.Errorf("headers, sections and certificates have %d bytes more than the file", -rest)
	}
	if _, err := io.Copy(w, io.NewSectionReader(r, hashed, rest)); err != nil {
		return fmt.Errorf("reading what follows the sections: %w", err)
	}
	return nil
}

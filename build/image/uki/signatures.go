package uki

import (
	"encoding/binary"
	"fmt"
	"io"
)

const (
	maxCertificates = 1 << 20
	certificatePKCS = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
	certificateHead = 8      // dwLength, wRevision, wCertificateType
)

// Signatures are the Authenticode signatures of an image of size bytes, each
// a PKCS #7 SignedData in DER, perhaps with padding behind it; none if it is
// not signed ("PE Format", section "The Attribute Certificate Table"). An entry
// of another type is an error.
func Signatures(r io.ReaderAt, size int64) ([][]byte, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return nil, err
	}
	at, length := h.directory(dirSecurity)
	if length > maxCertificates {
		return nil, fmt.Errorf("certificate table of %d bytes, more than %d", length, maxCertificates)
	}
	table := make([]byte, length)
	if err := readAt(r, size, table, int64(at)); err != nil {
		return nil, fmt.Errorf("reading the certificate table: %w", err)
	}
	var all [][]byte
	for len(table) > 0 {
		if len(table) < certificateHead {
			return nil, fmt.Errorf("certificate table has %d bytes behind its last entry", len(table))
		}
		n, kind := binary.LittleEndian.Uint32(table), binary.LittleEndian.Uint16(table[6:])
		if n < certificateHead || int64(n) > int64(len(table)) {
			return nil, fmt.Errorf("certificate of %d bytes in a table that has %d left", n, len(table))
		}
		if kind != certificatePKCS {
			return nil, fmt.Errorf("certificate of type %#x, only %#x is known", kind, certificatePKCS)
		}
		all = append(all, table[certificateHead:n])
		table = table[min(alignUp(int64(n), 8), int64(len(table))):]
	}
	return all, nil
}

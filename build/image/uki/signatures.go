package uki

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

const (
	maxCertificates = 1 << 20
	certificatePKCS = 0x0002 // WIN_CERT_TYPE_PKCS_SIGNED_DATA
	certificateRev2 = 0x0200 // WIN_CERT_REVISION_2_0
	certificateHead = 8      // dwLength, wRevision, wCertificateType
	certificateUnit = 8      // what entries are aligned to
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
	return h.signatures(r, size)
}

func (h *headers) signatures(r io.ReaderAt, size int64) ([][]byte, error) {
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
		table = table[min(alignUp(int64(n), certificateUnit), int64(len(table))):]
	}
	return all, nil
}

// Program is an image apart from its signatures.
type Program struct {
	// Size is its length in bytes without signatures, a multiple of 8: with
	// the padding that goes before them.
	Size       int64
	Signatures [][]byte

	r    io.ReaderAt
	head []byte // the headers, without a certificate table
	end  int64  // of what is taken of r
}

// Split takes an image of size bytes apart. A certificate table that is not the
// last thing in the file is an error.
func Split(r io.ReaderAt, size int64) (*Program, error) {
	h, err := readHeaders(r, size)
	if err != nil {
		return nil, err
	}
	if h.dirs <= dirSecurity {
		return nil, fmt.Errorf("its headers have %d data directories, and none for certificates", h.dirs)
	}
	p := &Program{r: r, head: bytes.Clone(h.raw), end: size}
	if p.Signatures, err = h.signatures(r, size); err != nil {
		return nil, err
	}
	if at, length := h.directory(dirSecurity); length > 0 {
		if int64(at)+int64(length) != size || at%certificateUnit != 0 || int(at) < len(h.raw) {
			return nil, fmt.Errorf("its signatures, %d bytes at %d, do not end the file of %d", length, at, size)
		}
		p.end = int64(at)
	}
	clear(p.head[h.opt+optionalFixed+8*dirSecurity:][:8])
	p.Size = alignUp(p.end, certificateUnit)
	return p, nil
}

// Unsigned is the image without signatures and with a CheckSum of zero, which
// tools write when they sign: what is the same however it was signed.
func (p *Program) Unsigned() *io.SectionReader {
	head := bytes.Clone(p.head)
	clear(head[optionalHeader(head)+optCheckSum:][:4])
	return p.joined(head, nil)
}

// With is the image with these signatures in place of its own; without any,
// the image before it was signed. Nothing else changes, CheckSum included.
func (p *Program) With(signatures [][]byte) (*io.SectionReader, error) {
	var table []byte
	for _, s := range signatures {
		table = binary.LittleEndian.AppendUint32(table, uint32(certificateHead+len(s)))
		table = binary.LittleEndian.AppendUint16(table, certificateRev2)
		table = binary.LittleEndian.AppendUint16(table, certificatePKCS)
		table = append(table, s...)
		table = append(table, make([]byte, alignUp(int64(len(table)), certificateUnit)-int64(len(table)))...)
	}
	if len(table) > maxCertificates || p.Size+int64(len(table)) > maxImage {
		return nil, errors.New("with its signatures, it is larger than an image can be")
	}
	head := bytes.Clone(p.head)
	if len(table) > 0 {
		entry := head[optionalHeader(head)+optionalFixed+8*dirSecurity:]
		binary.LittleEndian.PutUint32(entry, uint32(p.Size))
		binary.LittleEndian.PutUint32(entry[4:], uint32(len(table)))
	}
	return p.joined(head, table), nil
}

// optionalHeader is its offset in headers that were read.
func optionalHeader(head []byte) int {
	return int(binary.LittleEndian.Uint32(head[60:])) + 4 + coffHeaderSize
}

// joined reads the headers, what lies between, padding, and a certificate table.
func (p *Program) joined(head, table []byte) *io.SectionReader {
	tail := append(make([]byte, p.Size-p.end), table...)
	return io.NewSectionReader(joined{head, p.r, p.end, tail}, 0, p.end+int64(len(tail)))
}

// joined is a file with other bytes at its start and its end.
type joined struct {
	head []byte
	r    io.ReaderAt
	end  int64
	tail []byte
}

func (j joined) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	if off < int64(len(j.head)) {
		n = copy(b, j.head[off:])
	}
	if at := off + int64(n); n < len(b) && at < j.end {
		part := b[n:min(int64(len(b)), int64(n)+j.end-at)]
		got, err := j.r.ReadAt(part, at)
		if n += got; got < len(part) {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return n, err
		}
	}
	if at := off + int64(n) - j.end; n < len(b) && at >= 0 && at < int64(len(j.tail)) {
		n += copy(b[n:], j.tail[at:])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Package rpmsig checks the OpenPGP signatures of RPM packages and of
// repomd.xml.
//
// # What a good RPM signature covers
//
// An RPM file is a lead of 96 bytes that nothing covers and nothing reads, a
// signature header, the main header, and the payload. A signature is over the
// main header alone (tags RSAHEADER, DSAHEADER, OPENPGP) or over the main
// header and the payload (PGP, GPG, PGP5: packages for rpm before 4.14). A
// package is good only when all of main header and payload is covered: by a
// signature over both, or by one over the header, which then has to hold a
// SHA-256, SHA-384 or SHA-512 of the payload that is the payload's. An MD5
// or SHA-1 anywhere proves nothing here, and neither do digests of the
// signature header, which no key signs. Signature.Covers says which it was.
//
// What a package says of itself has to be true all the same: its SHA-256 of the
// main header and its digest of the payload, where it has them, are compared
// whether or not it is signed (CheckDigests).
//
// # What a trusted key is
//
// A signature counts when it was made with a hash of the SHA-2 or SHA-3
// family by a key of the keyring, or by a signing subkey that the key is
// bound to; by RSA with at least 2048 bits, DSA with at least 2048 bits,
// ECDSA, EdDSA or a newer algorithm; and when key and subkey were, at the time
// that the signature names, made, not expired, and not revoked. A revocation that
// says superseded or retired counts from its own time on, any other for ever.
// Signature packets of versions 3 (RSA and DSA), 4 and 6 are read.
//
// # Limits
//
// The signature header may have 16 MiB and the main header 256 MiB, each at
// most 65,535 entries; only what is looked at is held in memory. The time of
// a signature is what its signer wrote. A signature's own expiry is not
// looked at: the file is pinned by a lock, and stays what it was.
package rpmsig

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strconv"
)

// Sizes and limits of the file format; rpm's own are in lib/header.c.
const (
	leadSize       = 96
	introSize      = 16 // magic, reserved, number of entries, size of data
	entrySize      = 16
	maxEntries     = 0xffff
	maxSigData     = 16 << 20
	maxHeaderData  = 256 << 20
	maxStringValue = 64 << 10
)

// Tags of the signature header.
const (
	sigDSAHeader = 267 // OpenPGP signature over the header
	sigRSAHeader = 268
	sigSHA256    = 273  // of the header, in hex
	sigOpenPGP   = 278  // array of base64 signatures over the header
	sigPGP       = 1002 // OpenPGP signature over header and payload
	sigGPG       = 1005
	sigPGP5      = 1006
)

// Tags of the main header.
const (
	tagName              = 1000
	tagVersion           = 1001
	tagRelease           = 1002
	tagEpoch             = 1003
	tagBuildTime         = 1006
	tagArch              = 1022
	tagSourceRPM         = 1044
	tagNoSource          = 1051
	tagNoPatch           = 1052
	tagPayloadDigest     = 5092
	tagPayloadDigestAlgo = 5093
)

// Types of an entry.
const (
	typeInt32       = 4
	typeString      = 6
	typeBin         = 7
	typeStringArray = 8
	typeI18NString  = 9
)

// ErrTruncated says that an RPM ends before its payload begins.
var ErrTruncated = errors.New("the file is truncated")

// entry is one line of a header's index: what it is, and where in the data.
type entry struct {
	typ    uint32
	offset int64 // in the file
	limit  int64 // end of the header's data in the file
	count  uint32
}

// header is a header structure as it lies in the file.
type header struct {
	r          io.ReaderAt
	start, end int64 // in the file, magic included, padding not
	entries    map[uint32]entry
}

// readHeader reads the index of the header that begins at start.
func readHeader(r io.ReaderAt, start, size, maxData int64) (*header, error) {
	var intro [introSize]byte
	if err := readAt(r, intro[:], start, size); err != nil {
		return nil, err
	}
	if !bytes.Equal(intro[:4], []byte{0x8e, 0xad, 0xe8, 0x01}) {
		return nil, fmt.Errorf("no header at offset %d: got magic %x", start, intro[:4])
	}
	n, data := int64(binary.BigEndian.Uint32(intro[8:])), int64(binary.BigEndian.Uint32(intro[12:]))
	if n == 0 || n > maxEntries {
		return nil, fmt.Errorf("header at offset %d: %d entries, want 1 to %d", start, n, maxEntries)
	}
	if data > maxData {
		return nil, fmt.Errorf("header at offset %d: %d bytes of data, want at most %d", start, data, maxData)
	}
	h := &header{r: r, start: start, entries: make(map[uint32]entry)}
	base := start + introSize + n*entrySize
	h.end = base + data
	if h.end > size {
		return nil, fmt.Errorf("header at offset %d: %w: it ends at %d, the file at %d", start, ErrTruncated, h.end, size)
	}
	index := make([]byte, n*entrySize)
	if err := readAt(r, index, start+introSize, size); err != nil {
		return nil, err
	}
	for ; len(index) > 0; index = index[entrySize:] {
		tag, typ := binary.BigEndian.Uint32(index), binary.BigEndian.Uint32(index[4:])
		off, count := binary.BigEndian.Uint32(index[8:]), binary.BigEndian.Uint32(index[12:])
		if int64(off) > data {
			return nil, fmt.Errorf("header at offset %d: tag %d lies outside its data", start, tag)
		}
		if _, twice := h.entries[tag]; twice {
			return nil, fmt.Errorf("header at offset %d: tag %d occurs twice", start, tag)
		}
		h.entries[tag] = entry{typ: typ, offset: base + int64(off), limit: h.end, count: count}
	}
	return h, nil
}

// readAt fills p, and calls an early end what it is.
func readAt(r io.ReaderAt, p []byte, off, size int64) error {
	if off+int64(len(p)) > size {
		return fmt.Errorf("%w: %d bytes at offset %d of %d", ErrTruncated, len(p), off, size)
	}
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if err == nil || err == io.EOF {
		return fmt.Errorf("%w at offset %d", ErrTruncated, off+int64(n))
	}
	return err
}

// has tells whether the header has the tag.
func (h *header) has(tag uint32) bool {
	_, ok := h.entries[tag]
	return ok
}

// str is the first string of a tag, empty where it is absent.
func (h *header) str(tag uint32) (string, error) {
	all, err := h.strs(tag, 1)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0], nil
}

// strs is the strings of a tag, at most limit of them.
func (h *header) strs(tag uint32, limit int) ([]string, error) {
	e, ok := h.entries[tag]
	if !ok {
		return nil, nil
	}
	if e.typ != typeString && e.typ != typeStringArray && e.typ != typeI18NString {
		return nil, fmt.Errorf("tag %d: type %d is no string", tag, e.typ)
	}
	buf := make([]byte, min(maxStringValue, e.limit-e.offset))
	if err := readAt(h.r, buf, e.offset, e.limit); err != nil {
		return nil, err
	}
	var out []string
	for i := 0; i < limit && i < int(min(e.count, maxEntries)); i++ {
		s, rest, ok := bytes.Cut(buf, []byte{0})
		if !ok {
			return nil, fmt.Errorf("tag %d: a string does not end", tag)
		}
		out, buf = append(out, string(s)), rest
	}
	return out, nil
}

// num is the first number of a tag; false where it is absent.
func (h *header) num(tag uint32) (uint32, bool, error) {
	e, ok := h.entries[tag]
	if !ok {
		return 0, false, nil
	}
	if e.typ != typeInt32 || e.count == 0 {
		return 0, false, fmt.Errorf("tag %d: type %d, count %d: want a 32-bit number", tag, e.typ, e.count)
	}
	var b [4]byte
	if err := readAt(h.r, b[:], e.offset, e.limit); err != nil {
		return 0, false, err
	}
	return binary.BigEndian.Uint32(b[:]), true, nil
}

// bin is the bytes of a tag, nil where it is absent.
func (h *header) bin(tag uint32) ([]byte, error) {
	e, ok := h.entries[tag]
	if !ok {
		return nil, nil
	}
	if e.typ != typeBin || e.count == 0 || e.count > maxStringValue {
		return nil, fmt.Errorf("tag %d: type %d, count %d: want 1 to %d bytes", tag, e.typ, e.count, maxStringValue)
	}
	b := make([]byte, e.count)
	return b, readAt(h.r, b, e.offset, e.limit)
}

// Package is an RPM file whose headers have been read, and nothing proved.
type Package struct {
	Name, Version, Release string
	Epoch                  int
	Arch                   string // src or nosrc for a source package
	SourceRPM              string
	BuildTime              int64 // seconds since 1970

	r         io.ReaderAt
	size      int64
	sig, main *header
	data      []byte // the main header, once Strings or Numbers were asked for
}

// Open reads the headers of an RPM file of that many bytes. It accepts any
// content and any reader: what is not a package is an error.
func Open(r io.ReaderAt, size int64) (*Package, error) {
	p := &Package{r: r, size: size}
	if err := p.readHeaders(); err != nil {
		return nil, fmt.Errorf("reading an RPM: %w", err)
	}
	return p, nil
}

func (p *Package) readHeaders() error {
	var lead [4]byte
	if err := readAt(p.r, lead[:], 0, p.size); err != nil {
		return err
	}
	if !bytes.Equal(lead[:], []byte{0xed, 0xab, 0xee, 0xdb}) {
		return fmt.Errorf("no RPM: got magic %x", lead)
	}
	var err error
	if p.sig, err = readHeader(p.r, leadSize, p.size, maxSigData); err != nil {
		return fmt.Errorf("signature header: %w", err)
	}
	start := (p.sig.end + 7) &^ 7 // the signature header is padded to 8 bytes
	if p.main, err = readHeader(p.r, start, p.size, maxHeaderData); err != nil {
		return fmt.Errorf("main header: %w", err)
	}
	return p.readIdentity()
}

func (p *Package) readIdentity() error {
	h := p.main
	for _, f := range []struct {
		tag  uint32
		into *string
		must bool
	}{
		{tagName, &p.Name, true},
		{tagVersion, &p.Version, true},
		{tagRelease, &p.Release, true},
		{tagArch, &p.Arch, true},
		{tagSourceRPM, &p.SourceRPM, false},
	} {
		s, err := h.str(f.tag)
		if err != nil {
			return err
		}
		if f.must && s == "" {
			return fmt.Errorf("tag %d is absent", f.tag)
		}
		*f.into = s
	}
	epoch, _, err := h.num(tagEpoch)
	if err != nil {
		return err
	}
	built, _, err := h.num(tagBuildTime)
	if err != nil {
		return err
	}
	p.Epoch, p.BuildTime = int(epoch), int64(built)
	if !h.has(tagSourceRPM) { // only a source package has none
		p.Arch = "src"
		if h.has(tagNoSource) || h.has(tagNoPatch) {
			p.Arch = "nosrc"
		}
	}
	return nil
}

// NEVRA is name-epoch:version-release.arch, without an epoch of 0.
func (p *Package) NEVRA() string {
	epoch := ""
	if p.Epoch != 0 {
		epoch = strconv.Itoa(p.Epoch) + ":"
	}
	return p.Name + "-" + epoch + p.Version + "-" + p.Release + "." + p.Arch
}

// headerBytes is the main header as signatures cover it: from its magic to
// the end of its data.
func (p *Package) headerBytes() io.Reader {
	return io.NewSectionReader(p.r, p.main.start, p.main.end-p.main.start)
}

// payload is what follows the main header.
func (p *Package) payload() io.Reader {
	return io.NewSectionReader(p.r, p.main.end, p.size-p.main.end)
}

package cpio

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Reader reads an archive, entry by entry. It never holds more of it than a
// header. All of its errors but io.EOF say at which offset of the archive.
type Reader struct {
	// Stripped returns the header that stands for an entry of which the
	// archive says no more than an index. RPMs with a file of 4 GiB or more
	// have such entries ("07070X"): it is the index of the file in the lists
	// of the RPM's header. Of the Header that it returns, Size tells the
	// reader how much data follows, which for a file with several names is 0
	// but for the last name in the archive. While Stripped is nil such
	// entries are an error.
	Stripped func(index uint32) (*Header, error)

	r    io.Reader
	off  int64
	left int64 // of the data of the entry
	err  error // sticky
}

// NewReader returns a reader of the archive that r begins with. It makes
// several small reads for each entry, and none behind the trailer: what
// follows, such as the next archive of an initrd, can be read from r.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Offset returns how many bytes of the archive have been read.
func (r *Reader) Offset() int64 { return r.off }

// Next skips what was not read of the entry before, and returns the header of
// the next entry. At the trailer it returns io.EOF; an archive that ends
// without one is damaged, and an error.
func (r *Reader) Next() (*Header, error) {
	if r.err != nil {
		return nil, r.err
	}
	h, err := r.next()
	if err != nil {
		r.err = err
		return nil, err
	}
	r.left = h.Size
	return h, nil
}

func (r *Reader) next() (*Header, error) {
	if err := r.skip(r.left); err != nil {
		return nil, fmt.Errorf("cpio archive: reading data at offset %d: %w", r.off, err)
	}
	r.left = 0
	if err := r.skip(padding(r.off)); err != nil {
		return nil, fmt.Errorf("cpio archive: reading padding at offset %d: %w", r.off, err)
	}
	start := r.off
	h, err := r.readEntry()
	if err != nil {
		return nil, fmt.Errorf("cpio archive: entry at offset %d: %w", start, err)
	}
	if h.Name != trailer {
		return h, nil
	}
	if h.Size != 0 {
		return nil, fmt.Errorf("cpio archive: entry at offset %d: the trailer has %d bytes of data", start, h.Size)
	}
	return nil, io.EOF
}

// readEntry reads a header and the name after it.
func (r *Reader) readEntry() (*Header, error) {
	var b [headerSize]byte
	if err := r.readFull(b[:strippedSize]); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	switch got := string(b[:len(magic)]); got {
	case magic:
	case magicStripped:
		return r.readStripped(b[len(magic):strippedSize])
	case magicChecksum:
		return nil, fmt.Errorf("magic is %q: archives with checksums are not supported", got)
	default:
		return nil, fmt.Errorf("magic is %q, want %q", got, magic)
	}
	if err := r.readFull(b[strippedSize:]); err != nil {
		return nil, fmt.Errorf("reading the header: %w", err)
	}
	var f fields
	for i := range f {
		at := len(magic) + i*fieldSize
		v, err := parseHex(b[at : at+fieldSize])
		if err != nil {
			return nil, fmt.Errorf("field at byte %d: %w", at, err)
		}
		f[i] = v
	}
	name, err := r.readName(f[fNameSize])
	if err != nil {
		return nil, err
	}
	return &Header{
		Name: name, Mode: f[fMode], UID: f[fUID], GID: f[fGID], Nlink: f[fNlink],
		Mtime: int64(f[fMtime]), Size: int64(f[fSize]), Ino: f[fIno],
		DevMajor: f[fDevMajor], DevMinor: f[fDevMinor], RdevMajor: f[fRdevMajor], RdevMinor: f[fRdevMinor],
	}, nil
}

// readName reads a name of n bytes, its NUL included, and the padding.
func (r *Reader) readName(n uint32) (string, error) {
	if n < 2 || n > maxName {
		return "", fmt.Errorf("name has %d bytes with its NUL, want 2 to %d", n, maxName)
	}
	b := make([]byte, n)
	if err := r.readFull(b); err != nil {
		return "", fmt.Errorf("reading the name: %w", err)
	}
	if i := bytes.IndexByte(b, 0); i != len(b)-1 {
		return "", fmt.Errorf("name %.40q has its NUL not at its end", b)
	}
	if err := r.skip(padding(r.off)); err != nil {
		return "", fmt.Errorf("reading padding: %w", err)
	}
	return string(b[:n-1]), nil
}

// readStripped finds the header of an entry of which the archive has the
// index.
func (r *Reader) readStripped(digits []byte) (*Header, error) {
	index, err := parseHex(digits)
	if err != nil {
		return nil, fmt.Errorf("index of a stripped entry: %w", err)
	}
	if r.Stripped == nil {
		return nil, fmt.Errorf("stripped entry %d outside of an RPM of large files", index)
	}
	if err := r.skip(padding(r.off)); err != nil {
		return nil, fmt.Errorf("reading padding: %w", err)
	}
	h, err := r.Stripped(index)
	switch {
	case err != nil:
		return nil, fmt.Errorf("stripped entry %d: %w", index, err)
	case h == nil || h.Size < 0 || h.Name == trailer:
		return nil, fmt.Errorf("stripped entry %d has no valid header", index)
	}
	return h, nil
}

// parseHex parses digits strictly: no sign, no space, no prefix.
func parseHex(digits []byte) (uint32, error) {
	var v uint32
	for _, c := range digits {
		d := strings.IndexByte("0123456789abcdef", c|('a'-'A')) // '0' to '9' have that bit
		if d < 0 || c < '0' {
			return 0, fmt.Errorf("%q is not a hexadecimal number", digits)
		}
		v = v<<4 | uint32(d)
	}
	return v, nil
}

// Read reads data of the entry that Next returned, up to io.EOF at its end.
func (r *Reader) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if r.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > r.left {
		p = p[:r.left]
	}
	n, err := r.r.Read(p)
	r.off += int64(n)
	r.left -= int64(n)
	switch {
	case err == nil || err == io.EOF && r.left == 0:
		return n, nil
	case err == io.EOF:
		err = io.ErrUnexpectedEOF
	}
	r.err = fmt.Errorf("cpio archive: reading data at offset %d: %w", r.off, err)
	return n, r.err
}

// readFull fills b. An end before that is io.ErrUnexpectedEOF, also where it
// comes before the first byte.
func (r *Reader) readFull(b []byte) error {
	n, err := io.ReadFull(r.r, b)
	r.off += int64(n)
	return unexpected(err)
}

func (r *Reader) skip(n int64) error {
	n, err := io.CopyN(io.Discard, r.r, n)
	r.off += n
	return unexpected(err)
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

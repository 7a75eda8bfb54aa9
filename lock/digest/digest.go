// Package digest is SHA-256 with its text form, "sha256:" and 64 lower-case
// hex digits: the only form in which Caisson writes or reads a digest.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strings"
)

// Size is the length of a digest in bytes.
const Size = sha256.Size

const prefix = "sha256:"

// Digest is a SHA-256. Its zero value means "not known" and is no digest of
// anything.
type Digest [Size]byte

// Parse reads "sha256:HEX". Upper-case digits and every other algorithm are
// errors: a digest has one text form.
func Parse(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return Digest{}, fmt.Errorf("digest %q: want %q and %d hex digits", s, prefix, 2*Size)
	}
	return ParseHex(h)
}

// ParseHex reads the 64 lower-case hex digits alone, as RPM metadata and
// Cargo.lock write them. Only zeros, the zero Digest's form, are an error.
func ParseHex(h string) (Digest, error) {
	var d Digest
	if len(h) != 2*Size || strings.ToLower(h) != h {
		return d, fmt.Errorf("digest %q: want %d lower-case hex digits", h, 2*Size)
	}
	if _, err := hex.Decode(d[:], []byte(h)); err != nil {
		return Digest{}, fmt.Errorf("digest %q: %w", h, err)
	}
	if d.IsZero() {
		return d, fmt.Errorf("digest %q: only zeros stand for no digest", h)
	}
	return d, nil
}

// Of is the digest of b.
func Of(b []byte) Digest { return sha256.Sum256(b) }

// Reader is the digest and the length in bytes of all that r still holds.
func Reader(r io.Reader) (Digest, int64, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	if err != nil {
		return Digest{}, n, err
	}
	return Digest(h.Sum(nil)), n, nil
}

// Hex is the digest's 64 hex digits.
func (d Digest) Hex() string { return hex.EncodeToString(d[:]) }

// String is "sha256:HEX".
func (d Digest) String() string { return prefix + d.Hex() }

// IsZero tells whether the digest is not known.
func (d Digest) IsZero() bool { return d == Digest{} }

// MarshalText writes String, and nothing for a digest that is not known.
func (d Digest) MarshalText() ([]byte, error) {
	if d.IsZero() {
		return nil, nil
	}
	return []byte(d.String()), nil
}

// UnmarshalText reads what MarshalText wrote.
func (d *Digest) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*d = Digest{}
		return nil
	}
	p, err := Parse(string(b))
	if err != nil {
		return err
	}
	*d = p
	return nil
}

package rpmsig

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
)

// maxKeys is the size in bytes above which a key file is refused.
const maxKeys = 16 << 20

const armorBegin = "-----BEGIN PGP PUBLIC KEY BLOCK-----"

// Keyring is a set of public keys, all of them trusted. The zero value trusts
// nobody.
type Keyring struct {
	keys openpgp.EntityList
}

// ReadKeys reads OpenPGP public keys: binary, or one or several armored
// blocks with any text around them, as RPM-GPG-KEY files have it. A key that
// this package cannot use is left out; no usable key at all is an error.
func ReadKeys(b []byte) (Keyring, error) {
	if len(b) > maxKeys {
		return Keyring{}, fmt.Errorf("reading keys: %d bytes, want at most %d", len(b), maxKeys)
	}
	var k Keyring
	var last error
	for _, block := range splitArmor(b) {
		r := io.Reader(bytes.NewReader(block))
		if bytes.HasPrefix(block, []byte(armorBegin)) {
			a, err := armor.Decode(r)
			if err != nil {
				return Keyring{}, fmt.Errorf("reading keys: armor: %w", err)
			}
			r = a.Body
		}
		keys, err := openpgp.ReadKeyRing(r)
		if err != nil {
			last = err
			continue
		}
		k.keys = append(k.keys, keys...)
	}
	if len(k.keys) == 0 {
		if last == nil {
			last = errors.New("there is none")
		}
		return Keyring{}, fmt.Errorf("reading keys: no usable OpenPGP public key: %w", last)
	}
	return k, nil
}

// splitArmor cuts a file at its armored blocks; a file without any is one
// binary block.
func splitArmor(b []byte) [][]byte {
	var blocks [][]byte
	rest := b
	for {
		i := bytes.Index(rest, []byte(armorBegin))
		if i < 0 {
			break
		}
		rest = rest[i:]
		end := bytes.Index(rest[len(armorBegin):], []byte(armorBegin))
		if end < 0 {
			blocks = append(blocks, rest)
			break
		}
		blocks = append(blocks, rest[:len(armorBegin)+end])
		rest = rest[len(armorBegin)+end:]
	}
	if blocks == nil {
		return [][]byte{b}
	}
	return blocks
}

// Fingerprints lists the primary keys' fingerprints, upper-case hex, sorted.
func (k Keyring) Fingerprints() []string {
	var out []string
	for _, e := range k.keys {
		out = append(out, fingerprint(e))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Only is the keys with these fingerprints.
func (k Keyring) Only(fingerprints ...string) Keyring {
	var out Keyring
	for _, e := range k.keys {
		if slices.Contains(fingerprints, fingerprint(e)) {
			out.keys = append(out.keys, e)
		}
	}
	return out
}

// With is the keys of both.
func (k Keyring) With(other Keyring) Keyring {
	return Keyring{keys: slices.Concat(k.keys, other.keys)}
}

func fingerprint(e *openpgp.Entity) string {
	return strings.ToUpper(fmt.Sprintf("%x", e.PrimaryKey.Fingerprint))
}

// userID is the key's user id: the one marked as primary, else the first in
// the order of their bytes, without what a terminal would obey.
func userID(e *openpgp.Entity) string {
	best := ""
	for _, name := range slices.Sorted(maps.Keys(e.Identities)) {
		id := e.Identities[name]
		if len(id.Revocations) > 0 {
			continue
		}
		if best == "" {
			best = name
		}
		if s := id.SelfSignature; s != nil && s.IsPrimaryId != nil && *s.IsPrimaryId {
			best = name
			break
		}
	}
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, best)
}

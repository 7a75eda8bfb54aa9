// Package sshsig checks SSH signatures as ssh-keygen -Y and git make them
// (OpenSSH, PROTOCOL.sshsig), by keys in the forms of authorized_keys and of
// allowed_signers (ssh-keygen(1)).
//
// # Limits
//
// Plain keys only: a line of allowed_signers with cert-authority is refused,
// and so is a signature by a certificate. Whom a line of allowed_signers is
// about does not count, for no identity is asked for. Its times without a Z
// are taken as UTC. SHA-256 and SHA-512; no RSA signature with SHA-1.
package sshsig

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Keys are public keys that are trusted.
type Keys []Key

// Key is a public key and what its line limits it to.
type Key struct {
	key         ssh.PublicKey
	namespaces  []string  // empty for all
	after, till time.Time // zero for no limit
}

// IsSignature tells whether b is an armored SSH signature.
func IsSignature(b []byte) bool {
	return bytes.HasPrefix(b, []byte("-----BEGIN SSH SIGNATURE-----"))
}

// ParseKeys reads a file of public keys: a key a line, before it what
// allowed_signers or authorized_keys have there.
func ParseKeys(b []byte) (Keys, error) {
	var out Keys
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		k, err := parseLine(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, errors.New("no SSH public key")
	}
	return out, nil
}

// parseLine reads "[PRINCIPALS] [OPTIONS] TYPE BASE64 [COMMENT]".
func parseLine(line string) (Key, error) {
	var k Key
	if isKeyType(line) {
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
		k.key = key
		return k, err
	}
	_, rest, ok := strings.Cut(line, " ")
	if !ok {
		return k, errors.New("no SSH public key")
	}
	key, _, options, _, err := ssh.ParseAuthorizedKey([]byte(strings.TrimLeft(rest, " \t")))
	if err != nil {
		return k, err
	}
	k.key = key
	for _, o := range options {
		if err := k.option(o); err != nil {
			return k, err
		}
	}
	return k, nil
}

// isKeyType tells whether a line begins with the type of a key.
func isKeyType(line string) bool {
	word, _, _ := strings.Cut(line, " ")
	return strings.HasPrefix(word, "ssh-") || strings.HasPrefix(word, "ecdsa-sha2-") || strings.HasPrefix(word, "sk-")
}

// option reads one option of allowed_signers.
func (k *Key) option(o string) (err error) {
	name, value, _ := strings.Cut(o, "=")
	value = strings.Trim(value, `"`)
	switch strings.ToLower(name) {
	case "namespaces":
		k.namespaces = strings.Split(value, ",")
	case "valid-after":
		k.after, err = parseTime(value)
	case "valid-before":
		k.till, err = parseTime(value)
	case "cert-authority":
		return errors.New("cert-authority is not supported: name the keys themselves")
	default:
		return fmt.Errorf("option %q is not known", name)
	}
	return err
}

func parseTime(s string) (time.Time, error) {
	s = strings.TrimSuffix(s, "Z")
	for _, layout := range []string{"20060102150405", "200601021504", "20060102"} {
		if len(s) == len(layout) {
			return time.Parse(layout, s)
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 20261231Z", s)
}

// Fingerprint is the key's, as ssh-keygen -l prints it.
func (k Key) Fingerprint() string { return ssh.FingerprintSHA256(k.key) }

// signature is the blob inside the armor.
type signature struct {
	Version   uint32
	PublicKey []byte
	Namespace string
	Reserved  string
	Hash      string
	Signature []byte
}

// signed is what is signed.
type signed struct {
	Namespace string
	Reserved  string
	Hash      string
	Sum       []byte
}

const magic = "SSHSIG"

// Check finds the key that has made a signature over a message, at that time,
// for that namespace ("git" for git's).
func (ks Keys) Check(message, armored []byte, namespace string, at time.Time) (Key, error) {
	block, _ := pem.Decode(armored)
	if block == nil || block.Type != "SSH SIGNATURE" || !bytes.HasPrefix(block.Bytes, []byte(magic)) {
		return Key{}, errors.New("no SSH signature")
	}
	var s signature
	if err := ssh.Unmarshal(block.Bytes[len(magic):], &s); err != nil {
		return Key{}, fmt.Errorf("reading the SSH signature: %w", err)
	}
	if s.Version != 1 {
		return Key{}, fmt.Errorf("an SSH signature of version %d, want 1", s.Version)
	}
	if s.Namespace != namespace {
		return Key{}, fmt.Errorf("an SSH signature for %q, want %q", s.Namespace, namespace)
	}
	key, err := ssh.ParsePublicKey(s.PublicKey)
	if err != nil {
		return Key{}, fmt.Errorf("reading the SSH signature: %w", err)
	}
	if err := verify(key, s, message); err != nil {
		return Key{}, err
	}
	why := errors.New("it is not trusted")
	for _, k := range ks {
		if !bytes.Equal(k.key.Marshal(), key.Marshal()) {
			continue
		}
		if why = k.allows(namespace, at); why == nil {
			return k, nil
		}
	}
	return Key{}, fmt.Errorf("the signature is by the key %s: %w", ssh.FingerprintSHA256(key), why)
}

// verify checks the signature itself.
func verify(key ssh.PublicKey, s signature, message []byte) error {
	var sum []byte
	switch s.Hash {
	case "sha256":
		h := sha256.Sum256(message)
		sum = h[:]
	case "sha512":
		h := sha512.Sum512(message)
		sum = h[:]
	default:
		return fmt.Errorf("an SSH signature with the hash %q, want sha256 or sha512", s.Hash)
	}
	var sig ssh.Signature
	if err := ssh.Unmarshal(s.Signature, &sig); err != nil {
		return fmt.Errorf("reading the SSH signature: %w", err)
	}
	if sig.Format == ssh.KeyAlgoRSA {
		return errors.New("an RSA signature with SHA-1")
	}
	blob := append([]byte(magic), ssh.Marshal(signed{s.Namespace, s.Reserved, s.Hash, sum})...)
	if err := key.Verify(blob, &sig); err != nil {
		return errors.New("the SSH signature is not over this")
	}
	return nil
}

// allows tells what the key's line has against its use.
func (k Key) allows(namespace string, at time.Time) error {
	switch {
	case len(k.namespaces) > 0 && !slices.Contains(k.namespaces, namespace):
		return fmt.Errorf("it is trusted for %s, not for %s", strings.Join(k.namespaces, ", "), namespace)
	case !k.after.IsZero() && at.Before(k.after), !k.till.IsZero() && !at.Before(k.till):
		return fmt.Errorf("it is not trusted at the time of the signature, %s", at.Format(time.RFC3339))
	}
	return nil
}

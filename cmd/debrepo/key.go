package main

import (
	"bytes"
	"crypto"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// The key is RSA with SHA-256 in version 4 packets, which every rpm verifies. Signatures carry the time of what they sign, so
// the key claims to be from before any of it.
const keyBits = 3072

var keyTime = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// key is the repository's signing key.
type key struct{ entity *openpgp.Entity }

func config(at time.Time) *packet.Config {
	if at.Before(keyTime) {
		at = keyTime
	}
	deterministic := false
	return &packet.Config{
		Algorithm: packet.PubKeyAlgoRSA, RSABits: keyBits, DefaultHash: crypto.SHA256,
		Time:                                  func() time.Time { return at },
		NonDeterministicSignaturesViaNotation: &deterministic,
	}
}

// openKey reads the key of a repository, or makes it. Only its owner can read the file.
func openKey(dir string) (*key, error) {
	name := filepath.Join(dir, ".key")
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		if b, err = makeKey(); err == nil {
			err = writeFile(name, b, 0o600)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("signing key: %w", err)
	}
	ring, err := openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if len(ring) != 1 || ring[0].PrivateKey == nil {
		return nil, fmt.Errorf("%s holds no private key", name)
	}
	return &key{ring[0]}, nil
}

func makeKey() ([]byte, error) {
	c := config(keyTime)
	e, err := openpgp.NewEntity("debrepo", "signs one repository", "debrepo@localhost", c)
	if err != nil {
		return nil, err
	}
	e.Subkeys = nil // for encryption; nothing is encrypted
	return armored(openpgp.PrivateKeyType, func(w io.Writer) error { return e.SerializePrivateWithoutSigning(w, c) })
}

func armored(kind string, write func(io.Writer) error) ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.Encode(&b, kind, nil)
	if err != nil {
		return nil, err
	}
	if err := write(w); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// public is the armoured public key.
func (k *key) public() ([]byte, error) { return armored(openpgp.PublicKeyType, k.entity.Serialize) }

func (k *key) fingerprint() string { return hex.EncodeToString(k.entity.PrimaryKey.Fingerprint) }

// sign makes a detached binary signature.
func (k *key) sign(message io.Reader, at time.Time) ([]byte, error) {
	var b bytes.Buffer
	err := openpgp.DetachSign(&b, k.entity, message, config(at))
	return b.Bytes(), err
}

// signArmored makes a detached armoured signature.
func (k *key) signArmored(message io.Reader, at time.Time) ([]byte, error) {
	return armored(openpgp.SignatureType, func(w io.Writer) error {
		sig, err := k.sign(message, at)
		if err != nil {
			return err
		}
		_, err = w.Write(sig)
		return err
	})
}

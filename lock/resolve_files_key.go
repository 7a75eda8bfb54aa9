package lock

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"

	"caisson/lock/digest"
)

// sumsKey is a key by which checksums are signed: one of the two.
type sumsKey struct {
	openPGP     []byte           // a file of OpenPGP keys
	public      crypto.PublicKey // cosign's
	fingerprint string           // as Verified.Key is
}

// pemPublicKey is how the PEM form of a public key begins.
const pemPublicKey = "-----BEGIN PUBLIC KEY-----"

func (r *resolver) readSumsKey(rel string) (*sumsKey, error) {
	b, err := r.readTrustedKey(rel)
	if err != nil {
		return nil, err
	}
	k := &sumsKey{}
	if strings.Contains(string(b), pemPublicKey) {
		if k.public, err = parsePublicKey(b); err == nil {
			k.fingerprint, err = publicKeyFingerprint(b)
		}
	} else {
		var all []string
		if all, err = r.Fingerprints(b); err == nil && len(all) == 0 {
			err = errors.New("it has no key")
		}
		k.openPGP, k.fingerprint = b, strings.Join(all, ",")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rel, err)
	}
	return k, nil
}

// parsePublicKey reads a public key in PEM (RFC 7468, section 13).
func parsePublicKey(b []byte) (crypto.PublicKey, error) {
	block, _ := pem.Decode(b)
	if block == nil || block.Type != "PUBLIC KEY" {
		return nil, fmt.Errorf("not a public key: want PEM that begins with %s", pemPublicKey)
	}
	return x509.ParsePKIXPublicKey(block.Bytes)
}

// publicKeyFingerprint is the SHA-256 of a public key's PKIX form.
func publicKeyFingerprint(b []byte) (string, error) {
	key, err := parsePublicKey(b)
	if err != nil {
		return "", err
	}
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	return digest.Of(der).String(), nil
}

// ErrSignature says that checksums are not signed by the key that the manifest
// names.
var ErrSignature = errors.New("it is not by the key, or what is signed was altered")

// check checks a signature as `cosign sign-blob` prints it: base64, over the
// SHA-256 (RSA PKCS #1 v1.5, or ECDSA in ASN.1), or with Ed25519 over the text
// or its SHA-512.
func (k *sumsKey) check(text, signature []byte) error {
	sig, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(signature)))
	if err != nil {
		return fmt.Errorf("it is not in base64: %w", err)
	}
	sum := sha256.Sum256(text)
	switch key := k.public.(type) {
	case *ecdsa.PublicKey:
		if ecdsa.VerifyASN1(key, sum[:], sig) {
			return nil
		}
	case *rsa.PublicKey:
		if rsa.VerifyPKCS1v15(key, crypto.SHA256, sum[:], sig) == nil {
			return nil
		}
	case ed25519.PublicKey:
		long := sha512.Sum512(text)
		if ed25519.Verify(key, text, sig) || ed25519.VerifyWithOptions(key, long[:], sig, &ed25519.Options{Hash: crypto.SHA512}) == nil {
			return nil
		}
	default:
		return fmt.Errorf("a key of type %T cannot be used", key)
	}
	return ErrSignature
}

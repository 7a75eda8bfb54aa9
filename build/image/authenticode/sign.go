package authenticode

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// minBits is the shortest RSA key that is used: what UEFI firmware wants.
const minBits = 2048

func oidContentType() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 3}
}
func oidPEImage() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 15}
}
func oidRSA() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
}

// Certificates are a signer's certificate, and those that lead from it to one
// that machines know.
type Certificates []*x509.Certificate

// ParseCertificates reads certificates in PEM, the signer's first, or that one
// alone in DER. The signer's key must be one that firmware can verify with.
func ParseCertificates(b []byte) (Certificates, error) {
	var certs Certificates
	if !bytes.Contains(b, []byte("-----BEGIN")) {
		c, err := x509.ParseCertificate(b)
		if err != nil {
			return nil, fmt.Errorf("neither PEM nor a certificate in DER: %w", err)
		}
		certs = Certificates{c}
	}
	for rest := b; len(certs) == 0 || len(rest) < len(b); {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("there is no certificate in it")
	}
	_, err := certs.key()
	return certs, err
}

// key is the signer's public key.
func (c Certificates) key() (*rsa.PublicKey, error) {
	key, ok := c[0].PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, fmt.Errorf("the certificate of %q has a key of type %s: firmware and shim verify RSA alone", c[0].Subject, c[0].PublicKeyAlgorithm)
	}
	if n := key.N.BitLen(); n < minBits {
		return nil, fmt.Errorf("the certificate of %q has an RSA key of %d bits: want %d or more", c[0].Subject, n, minBits)
	}
	return key, nil
}

// Key signs images.
type Key struct {
	Certificates Certificates
	private      *rsa.PrivateKey
}

// ParseKey reads a private key in PEM (PKCS #8, PKCS #1) that is not encrypted.
// It must be that of the signer's certificate.
func ParseKey(b []byte, certs Certificates) (*Key, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("there is no private key in PEM in it")
	}
	var parsed any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		parsed, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		parsed, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	default:
		return nil, fmt.Errorf("it has a %q: want a PRIVATE KEY that is not encrypted and is RSA, which firmware and shim verify alone", block.Type)
	}
	if err != nil {
		return nil, errors.New("its private key cannot be read") // what x509 says may quote it
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it has a %T: firmware and shim verify RSA alone", parsed)
	}
	public, err := certs.key()
	if err != nil {
		return nil, err
	}
	if !private.PublicKey.Equal(public) {
		return nil, fmt.Errorf("it is not the key of the certificate of %q", certs[0].Subject)
	}
	return &Key{Certificates: certs, private: private}, nil
}

// Sign makes the signature over an image with the hash. The same key,
// certificates and hash give the same bytes.
func (k *Key) Sign(hash [32]byte) ([]byte, error) {
	attributes, err := Attributes(hash)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(attributes)
	raw, err := rsa.SignPKCS1v15(nil, k.private, crypto.SHA256, sum[:])
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	return Assemble(hash, k.Certificates, raw)
}

// Attributes is what a signature of an image with the hash signs: the DER of a
// set of attributes (RFC 2315, section 9.3). It does not depend on the signer.
func Attributes(hash [32]byte) ([]byte, error) {
	content, err := indirect(hash)
	if err != nil {
		return nil, err
	}
	return build(func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { addAttributes(b, content) })
	})
}

// Assemble makes a signature of what the signer's key made elsewhere: the
// RSA signature, with PKCS #1 v1.5 padding, over the SHA-256 of Attributes. It
// fails where that is not the key of the first certificate.
func Assemble(hash [32]byte, certs Certificates, raw []byte) ([]byte, error) {
	content, err := indirect(hash)
	if err != nil {
		return nil, err
	}
	der, err := build(func(b *cryptobyte.Builder) { addSigned(b, content, certs, raw) })
	if err != nil {
		return nil, err
	}
	if _, err := Open(der, hash[:]); err != nil {
		return nil, fmt.Errorf("it is not by the key of the certificate of %q: %w", certs[0].Subject, err)
	}
	return der, nil
}

func build(f func(*cryptobyte.Builder)) ([]byte, error) {
	var b cryptobyte.Builder
	f(&b)
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("writing a signature: %w", err)
	}
	return der, nil
}

// indirect is the content of an SpcIndirectDataContent: the kind of image, and
// its hash. What is hashed for a signature is this, without the tag around it.
func indirect(hash [32]byte) ([]byte, error) {
	return build(func(b *cryptobyte.Builder) {
		sequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(oidPEImage())
			sequence(b, func(b *cryptobyte.Builder) { // SpcPeImageData
				b.AddASN1(cbasn1.BIT_STRING, func(b *cryptobyte.Builder) { b.AddUint8(0) })
				explicit(b, 0, func(b *cryptobyte.Builder) { // file
					explicit(b, 2, func(b *cryptobyte.Builder) { // SpcLink.file
						b.AddASN1(cbasn1.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { // SpcString.unicode
							for _, c := range "<<<Obsolete>>>" {
								b.AddUint16(uint16(c))
							}
						})
					})
				})
			})
		})
		sequence(b, func(b *cryptobyte.Builder) { // DigestInfo
			algorithm(b, oidSHA256())
			b.AddASN1OctetString(hash[:])
		})
	})
}

// addAttributes adds the attributes, in the order that DER wants.
func addAttributes(b *cryptobyte.Builder, content []byte) {
	sequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oidContentType())
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oidIndirectData()) })
	})
	sequence(b, func(b *cryptobyte.Builder) {
		sum := sha256.Sum256(content)
		b.AddASN1ObjectIdentifier(oidMessageDigest())
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { b.AddASN1OctetString(sum[:]) })
	})
}

// addSigned adds the ContentInfo of a SignedData (RFC 2315, sections 7 and 9).
func addSigned(b *cryptobyte.Builder, content []byte, certs Certificates, raw []byte) {
	contentInfo := func(b *cryptobyte.Builder, kind asn1.ObjectIdentifier, f cryptobyte.BuilderContinuation) {
		sequence(b, func(b *cryptobyte.Builder) {
			b.AddASN1ObjectIdentifier(kind)
			explicit(b, 0, func(b *cryptobyte.Builder) { sequence(b, f) })
		})
	}
	contentInfo(b, oidSignedData(), func(b *cryptobyte.Builder) {
		b.AddASN1Int64(1)
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) { algorithm(b, oidSHA256()) })
		contentInfo(b, oidIndirectData(), func(b *cryptobyte.Builder) { b.AddBytes(content) })
		explicit(b, 0, func(b *cryptobyte.Builder) {
			for _, c := range certs {
				b.AddBytes(c.Raw)
			}
		})
		b.AddASN1(cbasn1.SET, func(b *cryptobyte.Builder) {
			sequence(b, func(b *cryptobyte.Builder) { // SignerInfo
				b.AddASN1Int64(1)
				sequence(b, func(b *cryptobyte.Builder) {
					b.AddBytes(certs[0].RawIssuer)
					b.AddASN1BigInt(certs[0].SerialNumber)
				})
				algorithm(b, oidSHA256())
				explicit(b, 0, func(b *cryptobyte.Builder) { addAttributes(b, content) })
				algorithm(b, oidRSA())
				b.AddASN1OctetString(raw)
			})
		})
	})
}

func sequence(b *cryptobyte.Builder, f cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.SEQUENCE, f)
}

func explicit(b *cryptobyte.Builder, tag uint8, f cryptobyte.BuilderContinuation) {
	b.AddASN1(cbasn1.Tag(tag).ContextSpecific().Constructed(), f)
}

func algorithm(b *cryptobyte.Builder, oid asn1.ObjectIdentifier) {
	sequence(b, func(b *cryptobyte.Builder) {
		b.AddASN1ObjectIdentifier(oid)
		b.AddASN1NULL()
	})
}

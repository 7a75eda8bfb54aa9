// Package authenticode makes and checks the signatures of EFI programs that
// Secure Boot wants: PKCS #7 SignedData (RFC 2315) over the hash of a PE image
// (Microsoft's "Windows Authenticode Portable Executable Signature Format").
// Where they lie in an image is package uki's to know.
//
// Limits first: SHA-256, RSA with PKCS #1 v1.5 padding, one signer. That is what
// every firmware and shim verify; ECDSA is not, and is refused. There are no
// countersignatures, and no signing time: firmware has no clock to hold one
// against, and without it the same key and image give the same bytes. Who is
// trusted, and until when a certificate is valid, is not looked at.
package authenticode

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
)

// Structures of PKCS #7 (RFC 2315, section 9) and of Microsoft's "Windows
// Authenticode Portable Executable Signature Format".
type (
	contentInfo struct {
		Type    asn1.ObjectIdentifier
		Content asn1.RawValue `asn1:"explicit,tag:0"`
	}
	signedData struct {
		Version      int
		Digests      []pkix.AlgorithmIdentifier `asn1:"set"`
		Content      contentInfo
		Certificates asn1.RawValue `asn1:"optional,tag:0"`
		Revoked      asn1.RawValue `asn1:"optional,tag:1"`
		Signers      []signerInfo  `asn1:"set"`
	}
	signerInfo struct {
		Version    int
		Issuer     issuerSerial
		Digest     pkix.AlgorithmIdentifier
		Attributes asn1.RawValue `asn1:"optional,tag:0"`
		Encryption pkix.AlgorithmIdentifier
		Signature  []byte
		Unsigned   asn1.RawValue `asn1:"optional,tag:1"`
	}
	issuerSerial struct {
		Name   asn1.RawValue
		Serial *big.Int
	}
	attribute struct {
		Type   asn1.ObjectIdentifier
		Values asn1.RawValue `asn1:"set"`
	}
	indirectData struct {
		Data   asn1.RawValue
		Digest struct {
			Algorithm pkix.AlgorithmIdentifier
			Digest    []byte
		}
	}
)

func oidSignedData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
}
func oidIndirectData() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 2, 1, 4}
}
func oidMessageDigest() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 4}
}
func oidSHA256() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
}

// Signature is a signature that was found to be over an image.
type Signature struct {
	Signer *x509.Certificate
	// Others are the further certificates that it has.
	Others []*x509.Certificate
}

// Open reads a PKCS #7 SignedData, and checks that it is an Authenticode
// signature of the image with the SHA-256 hash, by its own signer's
// certificate. Whether anybody trusts that one is not looked at. There may be
// padding behind it.
func Open(der, hash []byte) (*Signature, error) {
	var outer contentInfo
	if _, err := asn1.Unmarshal(der, &outer); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	var sd signedData
	if !outer.Type.Equal(oidSignedData()) {
		return nil, fmt.Errorf("signature has the type %v, want %v", outer.Type, oidSignedData())
	}
	if _, err := asn1.Unmarshal(outer.Content.Bytes, &sd); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if len(sd.Signers) != 1 || !sd.Content.Type.Equal(oidIndirectData()) {
		return nil, fmt.Errorf("signature with %d signers over %v, want one over %v", len(sd.Signers), sd.Content.Type, oidIndirectData())
	}
	var signed asn1.RawValue // what is hashed is its content
	if _, err := asn1.Unmarshal(sd.Content.Content.Bytes, &signed); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	var over indirectData
	if _, err := asn1.Unmarshal(sd.Content.Content.Bytes, &over); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	if !over.Digest.Algorithm.Algorithm.Equal(oidSHA256()) {
		return nil, fmt.Errorf("signature over a digest of the algorithm %v, only SHA-256 is known", over.Digest.Algorithm.Algorithm)
	}
	if !bytes.Equal(over.Digest.Digest, hash) {
		return nil, fmt.Errorf("signature over the image hash %x, the image has %x", over.Digest.Digest, hash)
	}
	certs, err := x509.ParseCertificates(sd.Certificates.Bytes)
	if err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return sd.Signers[0].check(signed.Bytes, certs)
}

// check checks the signature over the content, by one of the certificates.
func (s *signerInfo) check(content []byte, certs []*x509.Certificate) (*Signature, error) {
	if !s.Digest.Algorithm.Equal(oidSHA256()) {
		return nil, fmt.Errorf("signature with the digest algorithm %v, only SHA-256 is known", s.Digest.Algorithm)
	}
	if len(s.Attributes.FullBytes) == 0 {
		return nil, errors.New("signature without attributes")
	}
	text := bytes.Clone(s.Attributes.FullBytes)
	text[0] = 0x31 // they are signed as a SET (RFC 2315, section 9.3)
	var attributes []attribute
	if _, err := asn1.UnmarshalWithParams(text, &attributes, "set"); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	want := sha256.Sum256(content)
	var digest []byte
	for _, a := range attributes {
		if a.Type.Equal(oidMessageDigest()) {
			if _, err := asn1.Unmarshal(a.Values.Bytes, &digest); err != nil {
				return nil, fmt.Errorf("signature: %w", err)
			}
		}
	}
	if !bytes.Equal(digest, want[:]) {
		return nil, fmt.Errorf("signature over a content with the digest %x, it has %x", digest, want)
	}
	found := &Signature{}
	for _, c := range certs {
		if found.Signer == nil && bytes.Equal(c.RawIssuer, s.Issuer.Name.FullBytes) && c.SerialNumber.Cmp(s.Issuer.Serial) == 0 {
			found.Signer = c
		} else {
			found.Others = append(found.Others, c)
		}
	}
	if found.Signer == nil {
		return nil, errors.New("signature without its signer's certificate")
	}
	if err := found.Signer.CheckSignature(x509.SHA256WithRSA, text, s.Signature); err != nil {
		return nil, fmt.Errorf("signature: %w", err)
	}
	return found, nil
}

// TrustedBy tells whether the signer is the certificate, or has a chain of
// certificates to it. Times are not looked at: firmware has no clock to trust.
func (s *Signature) TrustedBy(anchor *x509.Certificate) bool {
	at := s.Signer
	for range len(s.Others) + 1 {
		if bytes.Equal(at.Raw, anchor.Raw) || issued(anchor, at) {
			return true
		}
		next := at
		for _, c := range s.Others {
			if issued(c, at) {
				next = c
				break
			}
		}
		if next == at {
			return false
		}
		at = next
	}
	return false
}

func issued(parent, child *x509.Certificate) bool {
	return bytes.Equal(parent.RawSubject, child.RawIssuer) &&
		parent.CheckSignature(child.SignatureAlgorithm, child.RawTBSCertificate, child.Signature) == nil
}

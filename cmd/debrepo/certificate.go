package main

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"time"

	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
)

// certificate is of the repository's key, for machines with Secure Boot: the same bytes each time.
func (k *key) certificate() ([]byte, *rsa.PrivateKey, error) {
	private, ok := k.entity.PrivateKey.PrivateKey.(*rsa.PrivateKey)
	if !ok {
		return nil, nil, errors.New("the signing key is not RSA: remove it, and it is made anew")
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "debrepo"}, SignatureAlgorithm: x509.SHA256WithRSA,
		NotBefore: keyTime, NotAfter: time.Date(2049, 12, 31, 0, 0, 0, 0, time.UTC),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true, IsCA: true,
	}
	der, err := x509.CreateCertificate(nil, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), private, nil
}

// signProgram is an EFI program with the key's signature.
func (k *key) signProgram(program io.ReaderAt, size int64) ([]byte, error) {
	text, private, err := k.certificate()
	if err != nil {
		return nil, err
	}
	certs, err := authenticode.ParseCertificates(text)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, err
	}
	signer, err := authenticode.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), certs)
	if err != nil {
		return nil, err
	}
	p, err := uki.Split(program, size)
	if err != nil {
		return nil, err
	}
	unsigned := p.Unsigned()
	hash, err := uki.Authenticode(unsigned, unsigned.Size())
	if err != nil {
		return nil, err
	}
	signature, err := signer.Sign(hash)
	if err != nil {
		return nil, err
	}
	signed, err := p.With([][]byte{signature})
	if err != nil {
		return nil, err
	}
	return io.ReadAll(signed)
}

package boot

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"testing"
	"time"

	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
)

// signer is a key that the machine trusts.
type signer struct {
	key  *authenticode.Key
	cert []byte // DER
}

func newSigner(t *testing.T) *signer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Caisson's chains"},
		NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0), IsCA: true, BasicConstraintsValid: true,
	}
	s := &signer{}
	if s.cert, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	certs, err := authenticode.ParseCertificates(s.cert)
	if err != nil {
		t.Fatal(err)
	}
	s.key, err = authenticode.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), certs)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sign signs an image as sign-boot does.
func (s *signer) sign(t *testing.T, image []byte) []byte {
	t.Helper()
	p, err := uki.Split(bytes.NewReader(image), int64(len(image)))
	if err != nil {
		t.Fatal(err)
	}
	hash, err := esp.Hash(p)
	if err != nil {
		t.Fatal(err)
	}
	der, err := s.key.Sign(hash)
	if err != nil {
		t.Fatal(err)
	}
	r, err := p.With(append(p.Signatures, der))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

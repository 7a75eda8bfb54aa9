package boot

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"caisson/build/image/gpt"
	"caisson/verify/measure"
)

// Debian's firmware with Secure Boot, and variables without keys for it.
const (
	secureFirmware = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
	emptyVariables = "/usr/share/OVMF/OVMF_VARS_4M.fd"
)

// signer is a key that the machine trusts.
type signer struct {
	dir  string
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
	s := &signer{dir: t.TempDir()}
	if s.cert, err = x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}, "cert.pem": {Type: "CERTIFICATE", Bytes: s.cert}} {
		if err := os.WriteFile(filepath.Join(s.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// sign has sbsign sign an image.
func (s *signer) sign(t *testing.T, image []byte) []byte {
	t.Helper()
	in, out := filepath.Join(s.dir, "in"), filepath.Join(s.dir, "out")
	if err := os.WriteFile(in, image, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sbsign", "--key", "key.pem", "--cert", "cert.pem", "--output", out, in)
	cmd.Dir = s.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// platform has the signer's certificate as PK, KEK and db, and one hash of
// nothing as dbx.
func (s *signer) platform() measure.Platform {
	owner := gpt.GUID{0xca, 0x15}
	list := func(kind gpt.GUID, data []byte) []byte {
		b := append([]byte(nil), kind[:]...)
		for _, n := range []int{28 + 16 + len(data), 0, 16 + len(data)} {
			b = binary.LittleEndian.AppendUint32(b, uint32(n))
		}
		return append(append(b, owner[:]...), data...)
	}
	x509 := gpt.GUID{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	sha256 := gpt.GUID{0x26, 0x16, 0xc4, 0xc1, 0x4c, 0x50, 0x92, 0x40, 0xac, 0xa9, 0x41, 0xf9, 0x36, 0x93, 0x43, 0x28}
	certs := list(x509, s.cert)
	return measure.Platform{SecureBoot: true, PK: certs, KEK: certs, DB: certs, DBX: list(sha256, bytes.Repeat([]byte{1}, 32))}
}

// vars is a file of variables for OVMF with the platform's keys: an
// authenticated variable store of EDK II behind the header of its volume.
func (s *signer) vars(t *testing.T, p measure.Platform) []byte {
	t.Helper()
	b, err := os.ReadFile(emptyVariables)
	if err != nil {
		t.Fatal(err)
	}
	at := 0x48 + 28
	global := gpt.GUID{0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0x00, 0xe0, 0x98, 0x03, 0x2b, 0x8c}
	security := gpt.GUID{0xcb, 0xb2, 0x19, 0xd7, 0x3a, 0x3d, 0x96, 0x45, 0xa3, 0xbc, 0xda, 0xd0, 0x0e, 0x67, 0x65, 0x6f}
	enable := gpt.GUID{0xc7, 0x0b, 0xa3, 0xf0, 0x08, 0xaf, 0x56, 0x45, 0x99, 0xc4, 0x00, 0x10, 0x09, 0xc9, 0x3a, 0x44}
	const signed = 0x27 // non-volatile, boot service, runtime, time-based authentication
	for _, v := range []struct {
		guid       gpt.GUID
		name       string
		attributes uint32
		data       []byte
	}{
		{global, "PK", signed, p.PK},
		{global, "KEK", signed, p.KEK},
		{security, "db", signed, p.DB},
		{security, "dbx", signed, p.DBX},
		{enable, "SecureBootEnable", 3, []byte{1}},
	} {
		name := append(utf16Text(v.name), 0, 0)
		h := []byte{0xaa, 0x55, 0x3f, 0}
		h = binary.LittleEndian.AppendUint32(h, v.attributes)
		h = append(h, make([]byte, 8+16+4)...)
		h = binary.LittleEndian.AppendUint32(h, uint32(len(name)))
		h = binary.LittleEndian.AppendUint32(h, uint32(len(v.data)))
		h = append(append(append(h, v.guid[:]...), name...), v.data...)
		at = (at + 3) &^ 3
		at += copy(b[at:], h)
	}
	return b
}

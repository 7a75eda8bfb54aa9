package authenticode_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
)

// authority issues the certificates of the tests.
type authority struct {
	private *rsa.PrivateKey
	cert    *x509.Certificate
}

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// newKey makes an RSA key and its certificate, issued by the authority, or by
// itself where that is nil. Both are in PEM.
func newKey(t *testing.T, name string, by *authority) (*authority, []byte, []byte) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(0x1234567), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(4e9, 0),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	}
	parent, signer := template, private
	if by != nil {
		parent, signer = by.cert, by.private
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, private.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{private, cert}, pemOf("PRIVATE KEY", pkcs8), pemOf("CERTIFICATE", der)
}

func parse(t *testing.T, key, certs []byte) *authenticode.Key {
	t.Helper()
	c, err := authenticode.ParseCertificates(certs)
	if err != nil {
		t.Fatal(err)
	}
	k, err := authenticode.ParseKey(key, c)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// program is the one that CAISSON_STUB names, systemd's stub where the machine
// has it, or the test's own.
func program(t *testing.T) []byte {
	t.Helper()
	for _, name := range []string{os.Getenv("CAISSON_STUB"), "/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "testdata/program.efi"} {
		if b, err := os.ReadFile(name); err == nil {
			return b
		}
	}
	t.Fatal("there is no EFI program")
	return nil
}

func split(t *testing.T, b []byte) *uki.Program {
	t.Helper()
	p, err := uki.Split(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func hashOf(t *testing.T, b []byte) [32]byte {
	t.Helper()
	h, err := esp.Hash(split(t, b))
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// signed is the program with one more signature by each key.
func signed(t *testing.T, b []byte, keys ...*authenticode.Key) []byte {
	t.Helper()
	p := split(t, b)
	for _, k := range keys {
		der, err := k.Sign(hashOf(t, b))
		if err != nil {
			t.Fatal(err)
		}
		p.Signatures = append(p.Signatures, der)
	}
	r, err := p.With(p.Signatures)
	if err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// run runs a tool that the machine may not have.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	return string(out), err
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestTools has the tools that people trust read a program with two signatures,
// one of them by a certificate that another issued.
func TestTools(t *testing.T) {
	root, _, rootCert := newKey(t, "root", nil)
	_, leafKey, leafCert := newKey(t, "leaf", root)
	_, otherKey, otherCert := newKey(t, "other", nil)
	_, _, strangerCert := newKey(t, "stranger", nil)
	plain := program(t)
	leaf, other := parse(t, leafKey, append(bytes.Clone(leafCert), rootCert...)), parse(t, otherKey, otherCert)
	twice := signed(t, plain, leaf, other)
	if again := signed(t, signed(t, plain, leaf), other); !bytes.Equal(again, twice) {
		t.Error("signing twice is not signing with two keys")
	}
	dir := t.TempDir()
	file := write(t, dir, "signed.efi", twice)
	hash := hashOf(t, plain)

	t.Run("sbverify", func(t *testing.T) {
		for name, c := range map[string][]byte{"root": rootCert, "other": otherCert} {
			if out, err := run(t, "sbverify", "--cert", write(t, dir, name+".pem", c), file); err != nil || !strings.Contains(out, "Signature verification OK") {
				t.Errorf("%s: %v\n%s", name, err, out)
			}
		}
		if out, err := run(t, "sbverify", "--cert", write(t, dir, "stranger.pem", strangerCert), file); err == nil {
			t.Errorf("a stranger's certificate passes:\n%s", out)
		}
		changed := bytes.Clone(twice)
		changed[len(plain)/2] ^= 1
		if out, err := run(t, "sbverify", "--cert", filepath.Join(dir, "root.pem"), write(t, dir, "changed.efi", changed)); err == nil {
			t.Errorf("a changed program passes:\n%s", out)
		}
	})
	t.Run("osslsigncode", func(t *testing.T) {
		single := write(t, dir, "single.efi", signed(t, plain, leaf))
		out, err := run(t, "osslsigncode", "verify", "-CAfile", write(t, dir, "ca.pem", rootCert), "-in", single)
		want := strings.ToUpper(hex.EncodeToString(hash[:]))
		if err != nil || strings.Count(out, want) != 2 || !strings.Contains(out, "Signature verification: ok") {
			t.Errorf("%v, want the digest %s twice:\n%s", err, want, out)
		}
	})
	t.Run("pesign", func(t *testing.T) {
		for _, f := range []string{file, write(t, dir, "plain.efi", plain)} {
			out, err := run(t, "pesign", "-h", "-d", "sha256", "-i", f)
			if err != nil || !strings.Contains(out, hex.EncodeToString(hash[:])) {
				t.Errorf("%s: %v, want %x:\n%s", f, err, hash, out)
			}
		}
		if out, err := run(t, "pesign", "-S", "-i", file); err != nil || !strings.Contains(out, "common name is leaf") && !strings.Contains(out, "leaf") {
			t.Errorf("%v\n%s", err, out)
		}
	})
	t.Run("sbattach", func(t *testing.T) {
		bare := write(t, dir, "bare.efi", twice)
		for range 2 {
			if out, err := run(t, "sbattach", "--remove", bare); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		}
		b, err := os.ReadFile(bare)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := unsigned(t, b), unsigned(t, plain); !bytes.Equal(got, want) {
			t.Error("without its signatures, the program is not what it was")
		}
	})
}

func unsigned(t *testing.T, b []byte) []byte {
	t.Helper()
	out, err := io.ReadAll(split(t, b).Unsigned())
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestSbsign reads what sbsign made, and takes it off again.
func TestSbsign(t *testing.T) {
	_, key, cert := newKey(t, "sbsign", nil)
	plain, dir := program(t), t.TempDir()
	out := filepath.Join(dir, "out.efi")
	if text, err := run(t, "sbsign", "--key", write(t, dir, "key", key), "--cert", write(t, dir, "cert", cert), "--output", out, write(t, dir, "in", plain)); err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	hash := hashOf(t, plain)
	s, err := authenticode.Open(split(t, b).Signatures[0], hash[:])
	if err != nil || s.Signer.Subject.CommonName != "sbsign" {
		t.Errorf("got %+v, %v", s, err)
	}
	if !bytes.Equal(unsigned(t, b), unsigned(t, plain)) {
		t.Error("without its signature, the program is not what it was")
	}
}

// TestElsewhere has openssl sign what a signature signs.
func TestElsewhere(t *testing.T) {
	_, key, cert := newKey(t, "hsm", nil)
	hash, dir := sha256.Sum256([]byte("program")), t.TempDir()
	attributes, err := authenticode.Attributes(hash)
	if err != nil {
		t.Fatal(err)
	}
	raw := filepath.Join(dir, "raw")
	if out, err := run(t, "openssl", "dgst", "-sha256", "-sign", write(t, dir, "key", key), "-out", raw, write(t, dir, "attributes", attributes)); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := authenticode.ParseCertificates(cert)
	if err != nil {
		t.Fatal(err)
	}
	got, err := authenticode.Assemble(hash, certs, b)
	if err != nil {
		t.Fatal(err)
	}
	want, err := parse(t, key, cert).Sign(hash)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("made elsewhere it is another signature: %v", err)
	}
	b[7] ^= 1
	if _, err := authenticode.Assemble(hash, certs, b); err == nil || !strings.Contains(err.Error(), `it is not by the key of the certificate of "CN=hsm"`) {
		t.Errorf("a damaged signature: got %v", err)
	}
	// RFC 2315, section 9.3: the bytes that openssl reads are what was signed.
	out, err := run(t, "openssl", "asn1parse", "-inform", "DER", "-in", write(t, dir, "sig", got))
	for _, want := range []string{"pkcs7-signedData", "1.3.6.1.4.1.311.2.1.4", "1.3.6.1.4.1.311.2.1.15", "messageDigest", "contentType"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("%v, nothing says %s:\n%s", err, want, out)
		}
	}
	if strings.Contains(out, "signingTime") {
		t.Errorf("it has a time:\n%s", out)
	}
}

func TestRefused(t *testing.T) {
	_, key, cert := newKey(t, "ours", nil)
	_, otherKey, _ := newKey(t, "other", nil)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecKey, err := x509.MarshalPKCS8PrivateKey(ec)
	if err != nil {
		t.Fatal(err)
	}
	self := func(public crypto.PublicKey, private crypto.Signer) []byte {
		template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "small"}}
		der, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
		if err != nil {
			t.Fatal(err)
		}
		return pemOf("CERTIFICATE", der)
	}
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	encrypted := pemOf("ENCRYPTED PRIVATE KEY", []byte("x"))
	for _, tt := range []struct {
		name      string
		key, cert []byte
		want      string
	}{
		{"another key", otherKey, cert, `it is not the key of the certificate of "CN=ours"`},
		{"no key", cert, cert, `it has a "CERTIFICATE": want a PRIVATE KEY that is not encrypted and is RSA, which firmware and shim verify alone`},
		{"encrypted", encrypted, cert, `it has a "ENCRYPTED PRIVATE KEY": want a PRIVATE KEY that is not encrypted and is RSA, which firmware and shim verify alone`},
		{"damaged", pemOf("PRIVATE KEY", []byte("x")), cert, "its private key cannot be read"},
		{"nothing", nil, cert, "there is no private key in PEM in it"},
		{"ECDSA", pemOf("PRIVATE KEY", ecKey), cert, "it has a *ecdsa.PrivateKey: firmware and shim verify RSA alone"},
		{"an ECDSA certificate", key, self(ec.Public(), ec), `the certificate of "CN=small" has a key of type ECDSA: firmware and shim verify RSA alone`},
		{"a short key", key, self(short.Public(), short), `the certificate of "CN=small" has an RSA key of 1024 bits: want 2048 or more`},
		{"no certificate", key, key, "there is no certificate in it"},
		{"not even PEM", key, []byte("x"), "neither PEM nor a certificate in DER: x509: malformed certificate"},
	} {
		certs, err := authenticode.ParseCertificates(tt.cert)
		if err == nil {
			_, err = authenticode.ParseKey(tt.key, certs)
		}
		if fmt.Sprint(err) != tt.want {
			t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
		}
	}
	block, _ := pem.Decode(cert)
	if _, err := authenticode.ParseCertificates(block.Bytes); err != nil {
		t.Errorf("a certificate in DER: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	for _, name := range []string{"testdata/signature.der"} {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	hash := sha256.Sum256([]byte("program"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := authenticode.Open(b, hash[:]); err == nil && s.Signer == nil {
			t.Error("a signature without a signer")
		}
		_, _ = authenticode.ParseCertificates(b)
	})
}

// TestAlwaysTheSame signs with a key that is written down: the bytes of the
// signature are, too.
func TestAlwaysTheSame(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	got, err := parse(t, read("key.pem"), read("cert.pem")).Sign(sha256.Sum256([]byte("program")))
	if err != nil || !bytes.Equal(got, read("signature.der")) {
		t.Errorf("it is another signature: %v", err)
	}
}

package measure

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"caisson/build/image/authenticode"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// keys are a key that signs, and its certificate, which another issued.
type keys struct {
	dir          string
	leaf, issuer []byte // DER
	tbs          []byte // of the leaf
}

func newKeys(t *testing.T) *keys {
	t.Helper()
	k := &keys{dir: t.TempDir()}
	make := func(serial int64, name string, parent *x509.Certificate, by *rsa.PrivateKey) (*x509.Certificate, *rsa.PrivateKey) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		template := &x509.Certificate{
			SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
			NotBefore: time.Unix(1e9, 0), NotAfter: time.Unix(1e9+1, 0), // the firmware does not look at it
		}
		if parent == nil {
			parent, by = template, key
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c, key
	}
	issuer, by := make(1, "issuer", nil, nil)
	leaf, key := make(2, "leaf", issuer, by)
	k.issuer, k.leaf, k.tbs = issuer.Raw, leaf.Raw, leaf.RawTBSCertificate
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"key.pem": {Type: "PRIVATE KEY", Bytes: pkcs8}, "cert.pem": {Type: "CERTIFICATE", Bytes: k.leaf}} {
		if err := os.WriteFile(filepath.Join(k.dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return k
}

// sign has sbsign sign a program.
func (k *keys) sign(t *testing.T, program []byte) []byte {
	t.Helper()
	sbsign, err := exec.LookPath("sbsign")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("sbsign is not installed")
	}
	in, out := filepath.Join(k.dir, "in"), filepath.Join(k.dir, "out")
	if err := os.WriteFile(in, program, 0o600); err != nil {
		t.Fatal(err)
	}
	if text, err := exec.Command(sbsign, "--key", k.dir+"/key.pem", "--cert", k.dir+"/cert.pem", "--output", out, in).CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v\n%s", err, text)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func list(kind gpt.GUID, data string) []byte { return signatureList(kind, gpt.GUID{7}, []byte(data)) }

func TestSecureBoot(t *testing.T) {
	k := newKeys(t)
	disk := newDisk(withLoader(t, "254"), func(d *testDisk) {
		d.sign = func(b []byte) []byte { return k.sign(t, b) }
	}).write(t)
	unsigned := newDisk().write(t)
	issuer, leaf := list(certX509(), string(k.issuer)), list(certX509(), string(k.leaf))
	k2 := newKeys(t)
	other := list(certX509(), string(k2.leaf))
	twice := newDisk(func(d *testDisk) {
		d.sign = func(b []byte) []byte { return k.sign(t, k2.sign(t, b)) }
	}).write(t)
	plain, err := Disk(bytes.NewReader(unsigned), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	ukiHash := string(hexBytes(t, digests(plain.Events, 4)[2]))
	for _, c := range []struct {
		name string
		p    Platform
		disk memory
		want string // the entry of db, or an error
	}{
		{"signer", Platform{DB: append(bytes.Clone(other), leaf...)}, disk, string(leaf[listHeader:])},
		{"issuer", Platform{DB: issuer, DBX: list(certSHA256(), strings.Repeat("x", 32))}, disk, string(issuer[listHeader:])},
		{"hash", Platform{DB: list(certSHA256(), ukiHash)}, unsigned, string(list(certSHA256(), ukiHash)[listHeader:])},
		{"second of two", Platform{DB: leaf}, twice, string(leaf[listHeader:])},
		{"first of two", Platform{DB: append(bytes.Clone(leaf), other...)}, twice, string(other[listHeader:])},
		{"second of two forbidden", Platform{DB: other, DBX: leaf}, twice, "error: dbx forbids the certificate of \"CN=leaf\""},
		{"nobody", Platform{DB: other}, disk, "error: nothing in db allows it"},
		{"unsigned", Platform{DB: leaf}, unsigned, "error: nothing in db allows it"},
		{"hash forbidden", Platform{DB: list(certSHA256(), ukiHash), DBX: list(certSHA256(), ukiHash)}, unsigned, "error: dbx forbids the image hash"},
		{"issuer forbidden", Platform{DB: leaf, DBX: issuer}, disk, "error: dbx forbids the certificate of \"CN=issuer\""},
		{"certificate's hash forbidden", Platform{DB: leaf, DBX: list(revokedSHA256(), string(hexBytes(t, shaOf(string(k.tbs))))+strings.Repeat("\x00", 16))}, disk, "error: dbx forbids the certificate of \"CN=leaf\""},
		{"dbx of another type", Platform{DB: leaf, DBX: list(gpt.GUID{9}, "x")}, disk, "error: entries of the type"},
		{"broken db", Platform{DB: leaf[:40]}, disk, "error: db: signature list of"},
		{"broken dbx", Platform{DB: leaf, DBX: leaf[:20]}, disk, "error: dbx: 20 bytes behind"},
		{"broken certificate", Platform{DB: list(certX509(), "x")}, disk, "error: db: x509"},
	} {
		c.p.SecureBoot, c.p.PK = true, leaf
		r, err := DiskOn(c.p, bytes.NewReader(c.disk), diskSize)
		if want, ok := strings.CutPrefix(c.want, "error: "); ok {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: got %v, want an error with %q", c.name, err, want)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		seven := digests(r.Events, 7)
		if len(seven) != 7 || seven[6] != hexOf([32]byte(variable(securityDatabase(), "db", []byte(c.want))[0])) {
			t.Errorf("%s: PCR 7 has %q", c.name, seven)
		}
		if seven[0] != "ccfc4bb32888a345bc8aeadaba552b627d99348c767681ab3141f5b01e40a40e" {
			t.Errorf("%s: SecureBoot is %s", c.name, seven[0])
		}
		for _, e := range r.Events {
			if e.Description == ".linux" && e.PCR == 4 {
				t.Errorf("%s: the kernel is in PCR 4, which the stub starts past the firmware", c.name)
			}
		}
	}
}

// TestSecureShim has shim allow the UKI, by db.
func TestSecureShim(t *testing.T) {
	k := newKeys(t)
	disk := func(change func(*testDisk)) memory {
		return newDisk(func(d *testDisk) {
			d.stub, d.path, d.sign = "257", "EFI/BOOT/grubx64.efi", func(b []byte) []byte { return k.sign(t, b) }
			d.files["EFI/BOOT/BOOTX64.EFI"] = testShim(t, "16.1")
			change(d)
		}).write(t)
	}
	leaf := list(certX509(), string(k.leaf))
	p := Platform{SecureBoot: true, DB: leaf}
	r, err := DiskOn(p, bytes.NewReader(disk(func(*testDisk) {})), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	entry := hexOf([32]byte(variable(securityDatabase(), "db", leaf[listHeader:])[0]))
	level := hexOf([32]byte(variable(shimLock(), "SbatLevel", []byte(testLevel))[0]))
	if got := digests(r.Events, 7); !slices.Equal(got[6:], []string{entry, level, entry}) {
		t.Errorf("PCR 7 has %q, want it to end with %s, %s and the first again", got, entry, level)
	}
	for want, change := range map[string]func(*testDisk){
		"2 signatures: by which of them shim": func(d *testDisk) {
			d.sign = func(b []byte) []byte { return k.sign(t, newKeys(t).sign(t, b)) }
		},
		"no section \".sbat\"": func(d *testDisk) { d.sections[".sbat"] = "" },
		"no section \".sbatlevel\"": func(d *testDisk) {
			d.files["EFI/BOOT/BOOTX64.EFI"] = strings.Replace(testShim(t, "16.1"), "sbat,1,2025", "sbat,2,2025", 1)
		},
	} {
		if _, err := DiskOn(p, bytes.NewReader(disk(change)), diskSize); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestSignature changes bytes of a signature.
func TestSignature(t *testing.T) {
	k := newKeys(t)
	program := pe(".sdmagic", "x")
	hash, err := uki.Authenticode(bytes.NewReader(program), int64(len(program)))
	if err != nil {
		t.Fatal(err)
	}
	signed := k.sign(t, program)
	ders, err := uki.Signatures(bytes.NewReader(signed), int64(len(signed)))
	if err != nil || len(ders) != 1 {
		t.Fatalf("got %d signatures, %v", len(ders), err)
	}
	leaf, err := x509.ParseCertificate(k.leaf)
	if err != nil {
		t.Fatal(err)
	}
	if s, err := authenticode.Open(ders[0], hash[:]); err != nil || !s.TrustedBy(leaf) {
		t.Fatalf("the signature itself: %v", err)
	}
	var whole asn1.RawValue // without the padding behind it
	if _, err := asn1.Unmarshal(ders[0], &whole); err != nil {
		t.Fatal(err)
	}
	der := whole.FullBytes
	spc := bytes.Index(der, hash[:])
	for _, at := range []int{0, 5, spc, spc + 31, bytes.Index(der, k.tbs) + 20, len(der) - 1, len(der) - 200, len(der) - 300} {
		b := bytes.Clone(der)
		b[at] ^= 1
		if s, err := authenticode.Open(b, hash[:]); err == nil && s.TrustedBy(leaf) {
			t.Errorf("byte %d of %d may change", at, len(der))
		}
	}
	if _, err := authenticode.Open(der, make([]byte, 32)); err == nil || !strings.Contains(err.Error(), "signature over the image hash") {
		t.Errorf("another image: got %v", err)
	}
}

func hexBytes(t *testing.T, s string) []byte {
	t.Helper()
	var b []byte
	for i := 0; i < len(s); i += 2 {
		n, ok := new(big.Int).SetString(s[i:i+2], 16)
		if !ok {
			t.Fatalf("%q is not hex", s)
		}
		b = append(b, byte(n.Int64()))
	}
	return b
}

// volume is a file of variables as OVMF has it.
func volume(variables ...func([]byte) []byte) []byte {
	b := make([]byte, 0x48+storeHeader, 4096)
	copy(b[40:], "_FVH")
	b[48] = 0x48
	id := authenticatedStore()
	copy(b[0x48:], id[:])
	for _, v := range variables {
		b = append(b, make([]byte, -(len(b)-0x48-storeHeader)&3)...)
		b = v(b)
	}
	for len(b) < 4096 {
		b = append(b, 0xff)
	}
	binary.LittleEndian.PutUint32(b[0x48+16:], uint32(len(b)-0x48))
	return b
}

func stored(state byte, guid gpt.GUID, name, data string) func([]byte) []byte {
	return func(b []byte) []byte {
		h := make([]byte, variableHeader)
		h[0], h[1], h[2] = 0xaa, 0x55, state
		binary.LittleEndian.PutUint32(h[36:], uint32(len(wide(name))))
		binary.LittleEndian.PutUint32(h[40:], uint32(len(data)))
		copy(h[44:], guid[:])
		return append(append(append(b, h...), wide(name)...), data...)
	}
}

func TestReadVariables(t *testing.T) {
	on := stored(stateAdded, secureBootEnable(), "SecureBootEnable", "\x01")
	off := stored(stateAdded, secureBootEnable(), "SecureBootEnable", "\x00")
	pk := stored(stateAdded, globalVariable(), "PK", "pk")
	for _, c := range []struct {
		name string
		vars []func([]byte) []byte
		want Platform
	}{
		{"empty", nil, Platform{}},
		{"on", []func([]byte) []byte{on, pk, stored(stateAdded, securityDatabase(), "db", "db!"), stored(stateAdded, globalVariable(), "KEK", "k")}, Platform{SecureBoot: true, PK: []byte("pk"), KEK: []byte("k"), DB: []byte("db!")}},
		{"off", []func([]byte) []byte{off, pk}, Platform{PK: []byte("pk")}},
		{"no PK", []func([]byte) []byte{on}, Platform{}},
		{"deleted", []func([]byte) []byte{pk, stored(0x3c, securityDatabase(), "dbx", "x")}, Platform{SecureBoot: true, PK: []byte("pk")}},
		{"replaced", []func([]byte) []byte{stored(stateReplacing, globalVariable(), "PK", "old"), pk}, Platform{SecureBoot: true, PK: []byte("pk")}},
		{"being replaced", []func([]byte) []byte{pk, stored(stateReplacing, globalVariable(), "PK", "old")}, Platform{SecureBoot: true, PK: []byte("pk")}},
	} {
		got, err := ReadVariables(iotest.HalfReader(bytes.NewReader(volume(c.vars...))))
		if err != nil || got.SecureBoot != c.want.SecureBoot || !bytes.Equal(got.PK, c.want.PK) || !bytes.Equal(got.KEK, c.want.KEK) ||
			!bytes.Equal(got.DB, c.want.DB) || !bytes.Equal(got.DBX, c.want.DBX) {
			t.Errorf("%s: got %+v, %v, want %+v", c.name, got, err, c.want)
		}
	}
	for want, b := range map[string][]byte{
		"no firmware volume":    []byte("x"),
		"variable store of the": append(append(bytes.Clone(volume()[:0x48]), 1), volume()[0x49:]...),
		"has a header of":       volume()[:0x50],
		"in a volume that has":  volume()[:1000],
		"name of 6 and data of": volume(stored(stateAdded, globalVariable(), "PK", "x"), func(b []byte) []byte { b[0x48+storeHeader+42] = 1; return b }),
	} {
		if _, err := ReadVariables(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestEnroll(t *testing.T) {
	want := Owned([]byte("certificate"))
	b, err := Enroll(volume(), want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := ReadVariables(bytes.NewReader(b))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for text, f := range map[string]func() ([]byte, error){
		"the file of variables has 5, want none":                 func() ([]byte, error) { return Enroll(b, want) },
		"the file of variables has no room for PK of 5044 bytes": func() ([]byte, error) { return Enroll(volume(), Owned(make([]byte, 5000))) },
		"no firmware volume: no signature \"_FVH\" at byte 40":   func() ([]byte, error) { return Enroll(nil, want) },
	} {
		if _, err := f(); err == nil || err.Error() != text {
			t.Errorf("got %v, want %s", err, text)
		}
	}
}

func FuzzReadVariables(f *testing.F) {
	f.Add(volume(stored(stateAdded, globalVariable(), "PK", "pk")))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := ReadVariables(bytes.NewReader(b)); err == nil {
			for _, l := range [][]byte{p.PK, p.DB, b} {
				_, _ = readLists(l)
			}
		}
		_, _ = authenticode.Open(b, nil)
		_, _, _ = csvEntry(b)
	})
}

package verify

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build"
	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/imagefile"
	"caisson/lock"
	"caisson/lock/digest"
)

const (
	testEpoch = 1700000000
	loader    = "EFI/BOOT/BOOTX64.EFI"
	espSize   = 33 << 20
	espStart  = 1 << 20
	diskSize  = espStart + espSize + 2<<20
)

// Places in testPE: of CheckSum, and of the certificate table's entry.
const (
	checkSumAt  = 24 + 64
	certTableAt = 24 + 112 + 4*8
)

// testPE is a PE32+ image of n bytes.
func testPE(n int) []byte {
	b := bytes.Repeat([]byte{0xc3}, n)
	clear(b[:0x400])
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[64+24:], 0x20b)
	binary.LittleEndian.PutUint32(b[64+24+60:], 0x400)
	binary.LittleEndian.PutUint16(b[84:], 112+16*8)
	binary.LittleEndian.PutUint32(b[88+108:], 16)
	return b
}

// signed is a PE image with a certificate table, as the format wants one.
func signed(b []byte) []byte {
	out := bytes.Clone(b)
	for len(out)%8 != 0 {
		out = append(out, 0)
	}
	binary.LittleEndian.PutUint32(out[64+checkSumAt:], 0x1234)
	binary.LittleEndian.PutUint32(out[64+certTableAt:], uint32(len(out)))
	binary.LittleEndian.PutUint32(out[64+certTableAt+4:], 24)
	return append(out, "\x18\x00\x00\x00\x00\x02\x02\x00a signature here"...)
}

// writeDisk makes a disk with an ESP and returns its name.
func writeDisk(t *testing.T, files map[string][]byte, change func(f *os.File)) *Disk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(f.Truncate(diskSize))
	id := gpt.FromBytes([16]byte{1})
	check(gpt.Write(f, diskSize, gpt.Table{DiskID: id, Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, ID: id, Name: "esp", First: espStart / 512, Last: (espStart+espSize)/512 - 1},
	}}))
	var list []esp.File
	for name, b := range files {
		x := esp.Bytes(name, b)
		if p, err := esp.Program(name, x.Content); err == nil {
			x = p
		}
		list = append(list, x)
	}
	check(esp.Write(io.NewOffsetWriter(f, espStart), espSize, list, esp.Options{Serial: 7, Time: testEpoch}))
	if change != nil {
		change(f)
	}
	d, err := OpenDisk(f.Name())
	check(err)
	t.Cleanup(func() { d.Close() })
	return d
}

func testKey(t *testing.T, name string) *authenticode.Key {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	certs, err := authenticode.ParseCertificates(der)
	if err != nil {
		t.Fatal(err)
	}
	key, err := authenticode.ParseKey(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(private)}), certs)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func split(t *testing.T, b []byte) *uki.Program {
	t.Helper()
	p, err := uki.Split(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func with(t *testing.T, b []byte, signatures ...[]byte) []byte {
	t.Helper()
	r, err := split(t, b).With(signatures)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = io.ReadAll(r); err != nil {
		t.Fatal(err)
	}
	return b
}

// signedBy is a program with a signature by each key.
func signedBy(t *testing.T, b []byte, keys ...*authenticode.Key) []byte {
	t.Helper()
	hash, err := esp.Hash(split(t, b))
	if err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, k := range keys {
		der, err := k.Sign(hash)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, der)
	}
	return with(t, b, all...)
}

// moved is the second program with the signatures of the first.
func moved(t *testing.T, from, to []byte) []byte {
	t.Helper()
	return with(t, to, split(t, from).Signatures...)
}

func flipAt(off int64) func(f *os.File) {
	return func(f *os.File) {
		b := make([]byte, 1)
		_, _ = f.ReadAt(b, off)
		b[0] ^= 1
		_, _ = f.WriteAt(b, off)
	}
}

func TestEquivalent(t *testing.T) {
	plain := testPE(20001)
	other := bytes.Clone(plain)
	other[9000] ^= 1
	allowed := []Exception{{Function: SecureBootSignature, Match: "esp:/" + loader, Who: "jane", Why: "signed by us", Until: "2030-01-01"}}
	key, stranger := testKey(t, "ours"), testKey(t, "another")
	named := slices.Clone(allowed)
	named[0].Certificate = digest.Of(key.Certificates[0].Raw).Hex()
	files := func(b []byte) map[string][]byte { return map[string][]byte{loader: b, "EFI/other": []byte("xx")} }
	overlapping := signed(plain)
	binary.LittleEndian.PutUint32(overlapping[64+certTableAt:], 0x4000)
	copy(overlapping[0x4000:], "\x18\x00\x00\x00\x00\x02\x02\x00")
	for _, tt := range []struct {
		name    string
		image   map[string][]byte
		change  func(f *os.File)
		allowed []Exception
		verdict Verdict
		detail  string
	}{
		{"signed", files(signed(plain)), nil, allowed, Equivalent, "secure-boot-signature v2 was applied to esp:/EFI/BOOT/BOOTX64.EFI"},
		{"no exception", files(signed(plain)), nil, nil, Different, "the disks differ"},
		{"for another file", files(signed(plain)), nil, []Exception{{Function: SecureBootSignature, Match: "esp:/EFI/other"}}, Different, "reading the DOS header"},
		{"and something else", files(signed(other)), nil, allowed, Different, "it differs in more than its signature"},
		{"another content", files(other), nil, allowed, Different, "it differs in more than its signature"},
		{"a table in the middle", files(overlapping), nil, allowed, Different, "do not end the file"},
		{"no such file", map[string][]byte{"EFI/other": []byte("xx")}, nil, allowed, Different, "file does not exist"},
		{"one more file", map[string][]byte{loader: signed(plain), "EFI/other": []byte("xx"), "EFI/evil": []byte("yy")}, nil, allowed, Different, "differs in more than the files"},
		{"another file", map[string][]byte{loader: signed(plain), "EFI/other": []byte("yy")}, nil, allowed, Different, "differs in more than the files"},
		{"something in unused clusters", files(signed(plain)), flipAt(espStart + espSize - 100), allowed, Different, "differs in more than the files"},
		{"by the certificate", files(signedBy(t, plain, key)), nil, named, Equivalent, "secure-boot-signature v2 was applied to esp:/EFI/BOOT/BOOTX64.EFI"},
		{"by another certificate", files(signedBy(t, plain, stranger)), nil, named, Different, `it is signed by "CN=another" with the certificate`},
		{"by both", files(signedBy(t, plain, key, stranger)), nil, named, Different, `it is signed by "CN=another" with the certificate`},
		{"by none", files(plain), flipAt(espStart + espSize - 100), named, Different, "it is not signed with the certificate"},
		{"by the certificate, over another program", files(moved(t, signedBy(t, other, key), plain)), nil, named, Different, "signature over the image hash"},
		{"not a signature", files(signed(plain)), nil, named, Different, "signature: asn1"},
		{"outside of the ESP", files(signed(plain)), flipAt(espStart + espSize + 70000), allowed, Different, "outside of the ESP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &verification{
				Options: Options{Lock: &lock.Lock{Epoch: testEpoch}, Allowed: tt.allowed, Image: "image", Rebuild: noBuild},
				disk:    writeDisk(t, tt.image, tt.change), report: &Report{}, rebuildDir: filepath.Join(t.TempDir(), "out"),
			}
			again := writeDisk(t, files(plain), nil)
			v.report.Image = Artifact{SHA256: digest.Of([]byte("a")), Disk: digest.Of([]byte("a"))}
			v.report.Rebuilt = &Artifact{SHA256: digest.Of([]byte("b")), Disk: digest.Of([]byte("b"))}
			if err := v.compare(t.Context(), again); err != nil {
				t.Fatal(err)
			}
			passOthers(v)
			v.decide()
			c := v.report.Checks[0]
			if v.report.Verdict != tt.verdict || !strings.Contains(c.Detail, tt.detail) {
				t.Errorf("got %s (%s), %+v; want %s with %q", v.report.Verdict, v.report.Reason, c, tt.verdict, tt.detail)
			}
			if n := len(v.report.Exceptions); (n == 1) != (tt.verdict == Equivalent) {
				t.Errorf("%d exceptions are in the report", n)
			}
			if len(v.report.Differences) == 0 {
				t.Error("the report does not show what differs")
			}
		})
	}
}

// TestEquivalentContainer has the disk in a qcow2, with and without something
// behind it.
func TestEquivalentContainer(t *testing.T) {
	plain := testPE(20001)
	raw := writeDisk(t, map[string][]byte{loader: signedBy(t, plain, testKey(t, "ours"))}, nil)
	name := filepath.Join(t.TempDir(), "image.qcow2")
	if err := build.WriteImage(t.Context(), name, raw, raw.Size, imagefile.Options{Format: imagefile.Qcow2}); err != nil {
		t.Fatal(err)
	}
	again := writeDisk(t, map[string][]byte{loader: plain}, nil)
	for _, want := range []Verdict{Equivalent, Different} {
		d, err := OpenDisk(name)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		v := &verification{
			Options: Options{Lock: &lock.Lock{}, Image: name, Rebuild: noBuild, Allowed: []Exception{{Function: SecureBootSignature, Match: "esp:/" + loader}}},
			disk:    d, report: &Report{}, rebuildDir: filepath.Join(t.TempDir(), "out"),
		}
		if v.report.Image, err = v.artifact(name, d, nil); err != nil {
			t.Fatal(err)
		}
		v.report.Rebuilt = &Artifact{}
		if err := v.compare(t.Context(), again); err != nil {
			t.Fatal(err)
		}
		passOthers(v)
		if v.decide(); v.report.Verdict != want {
			t.Errorf("got %s (%s), want %s", v.report.Verdict, v.report.Reason, want)
		}
		b, err := os.ReadFile(name) // and now with a byte more
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, append(b, 1), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnsigned takes off what sbsign put on.
func TestUnsigned(t *testing.T) {
	sbsign, err := exec.LookPath("sbsign")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("sbsign is not installed")
	}
	dir := t.TempDir()
	if out, err := exec.Command("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-days", "1",
		"-keyout", dir+"/key", "-out", dir+"/cert").CombinedOutput(); err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("openssl: %v\n%s", err, out)
		}
		t.Skipf("openssl: %v\n%s", err, out)
	}
	plain := sbsignable()
	if err := os.WriteFile(dir+"/in", plain, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(sbsign, "--key", dir+"/key", "--cert", dir+"/cert", "--output", dir+"/out", dir+"/in").CombinedOutput(); err != nil {
		t.Fatalf("sbsign: %v\n%s", err, out)
	}
	b, err := os.ReadFile(dir + "/out")
	if err != nil {
		t.Fatal(err)
	}
	section := func(b []byte) *io.SectionReader { return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))) }
	if bytes.Equal(b, plain) {
		t.Fatal("sbsign changed nothing")
	}
	if err := sameUnsigned(section(b), section(plain), ""); err != nil {
		t.Error(err)
	}
	b[0x500] ^= 1
	if err := sameUnsigned(section(b), section(plain), ""); err == nil {
		t.Error("a changed program passes")
	}
}

// sbsignable is a PE image with a section, as sbsign wants one.
func sbsignable() []byte {
	const headers = 0x400
	b := testPE(headers + 0x205)
	put32 := func(off, v int) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	binary.LittleEndian.PutUint16(b[68:], 0x8664)
	binary.LittleEndian.PutUint16(b[70:], 1)
	binary.LittleEndian.PutUint16(b[84:], 112+16*8)
	binary.LittleEndian.PutUint16(b[86:], 0x206)
	put32(88+32, 0x1000)
	put32(88+36, 0x200)
	put32(88+56, 0x2000)
	put32(88+108, 16)
	e := 88 + 112 + 16*8
	copy(b[e:], ".text")
	put32(e+8, 0x200)
	put32(e+12, 0x1000)
	put32(e+16, 0x200)
	put32(e+20, headers)
	put32(e+36, 0x60000020)
	return b
}

package verify

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
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

// testPE is a PE32+ image of n bytes.
func testPE(n int) []byte {
	b := bytes.Repeat([]byte{0xc3}, n)
	clear(b[:0x400])
	copy(b, "MZ")
	binary.LittleEndian.PutUint32(b[60:], 64)
	copy(b[64:], "PE\x00\x00")
	binary.LittleEndian.PutUint16(b[64+24:], 0x20b)
	binary.LittleEndian.PutUint32(b[64+24+60:], 0x400)
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
	binary.LittleEndian.PutUint32(out[64+certTableAt+4:], 16)
	return append(out, "a signature here"...)
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
	var list []fat.File
	for name, b := range files {
		list = append(list, fat.File{Path: name, Size: int64(len(b)), Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }})
	}
	check(fat.Write(io.NewOffsetWriter(f, espStart), espSize, list, fat.Options{Serial: 7, Label: "ESP", Time: testEpoch}))
	if change != nil {
		change(f)
	}
	d, err := OpenDisk(f.Name())
	check(err)
	t.Cleanup(func() { d.Close() })
	return d
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
	esp := func(b []byte) map[string][]byte { return map[string][]byte{loader: b, "EFI/other": []byte("x")} }
	overlapping := signed(plain)
	binary.LittleEndian.PutUint32(overlapping[64+certTableAt:], 0x4000)
	for _, tt := range []struct {
		name    string
		image   map[string][]byte
		change  func(f *os.File)
		allowed []Exception
		verdict Verdict
		detail  string
	}{
		{"signed", esp(signed(plain)), nil, allowed, Equivalent, "secure-boot-signature v1 was applied to esp:/EFI/BOOT/BOOTX64.EFI"},
		{"no exception", esp(signed(plain)), nil, nil, Different, "the disks differ"},
		{"for another file", esp(signed(plain)), nil, []Exception{{Function: SecureBootSignature, Match: "esp:/EFI/other"}}, Different, "no PE image"},
		{"and something else", esp(signed(other)), nil, allowed, Different, "it differs in more than its signature"},
		{"another content", esp(other), nil, allowed, Different, "it differs in more than its signature"},
		{"a table in the middle", esp(overlapping), nil, allowed, Different, "do not end the file"},
		{"no such file", map[string][]byte{"EFI/other": []byte("x")}, nil, allowed, Different, "file does not exist"},
		{"one more file", map[string][]byte{loader: signed(plain), "EFI/other": []byte("x"), "EFI/evil": []byte("y")}, nil, allowed, Different, "differs in more than the files"},
		{"another file", map[string][]byte{loader: signed(plain), "EFI/other": []byte("y")}, nil, allowed, Different, "differs in more than the files"},
		{"something in unused clusters", esp(signed(plain)), flipAt(espStart + espSize - 100), allowed, Different, "differs in more than the files"},
		{"outside of the ESP", esp(signed(plain)), flipAt(espStart + espSize + 70000), allowed, Different, "outside of the ESP"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := &verification{
				Options: Options{Lock: &lock.Lock{Epoch: testEpoch}, Allowed: tt.allowed, Image: "image", Rebuild: noBuild},
				disk:    writeDisk(t, tt.image, tt.change), report: &Report{}, rebuildDir: filepath.Join(t.TempDir(), "out"),
			}
			again := writeDisk(t, esp(plain), nil)
			v.report.Image = Artifact{SHA256: digest.Of([]byte("a")), Disk: digest.Of([]byte("a"))}
			v.report.Rebuilt = &Artifact{SHA256: digest.Of([]byte("b")), Disk: digest.Of([]byte("b"))}
			if err := v.compare(again); err != nil {
				t.Fatal(err)
			}
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
	if err := sameUnsigned(section(b), section(plain)); err != nil {
		t.Error(err)
	}
	b[0x500] ^= 1
	if err := sameUnsigned(section(b), section(plain)); err == nil {
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

func FuzzUnsigned(f *testing.F) {
	f.Add(testPE(0x500))
	f.Add(signed(testPE(0x601)))
	junk := make([]byte, 100)
	_, _ = rand.Read(junk)
	f.Add(junk)
	f.Fuzz(func(_ *testing.T, b []byte) {
		r, err := unsigned(io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
		if err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
}

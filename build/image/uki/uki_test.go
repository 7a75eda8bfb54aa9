package uki

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

// testStub makes a small PE32+ image of the form of systemd's stub: headers
// of headerSize bytes, code, and .sdmagic.
func testStub(headerSize int) []byte {
	magic := "#### LoaderInfo: systemd-stub 252.39-1~test ####\x00"
	b := make([]byte, headerSize+2*512+7)
	copy(b, "MZ")
	put16 := func(off, v int) { binary.LittleEndian.PutUint16(b[off:], uint16(v)) }
	put32 := func(off, v int) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	put32(60, 64)
	copy(b[64:], "PE\x00\x00")
	coff, opt := 68, 88
	put16(coff, int(MachineAMD64))
	put16(coff+coffSections, 2)
	put32(coff+coffTime, 12345)
	put32(coff+coffSymbols, headerSize+2*512) // 7 bytes behind the sections
	put16(coff+coffOptional, optionalFixed+16*8)
	put16(coff+18, 0x206)
	put16(opt, magicPE32Plus)
	put32(opt+optAlignment, 0x1000)
	put32(opt+optFileAlign, 0x200)
	put32(opt+16, 0x1000) // entry
	put32(opt+optImageSize, 0x3000)
	put32(opt+optHeadersSize, headerSize)
	put32(opt+optCheckSum, 0x1aa6c)
	put16(opt+68, 10) // EFI application
	put32(opt+optDirectories, 16)
	table := opt + optionalFixed + 16*8
	for i, s := range []sectionHeader{
		{".text", 0x1f0, 0x1000, 0x200, uint32(headerSize), 0x60000020},
		{".sdmagic", uint32(len(magic)), 0x2000, 0x200, uint32(headerSize + 512), 0x40000040},
	} {
		e := table + i*sectionHeaderSize
		copy(b[e:e+8], s.Name)
		put32(e+8, int(s.VirtualSize))
		put32(e+12, int(s.VirtualAddress))
		put32(e+16, int(s.SizeOfRawData))
		put32(e+20, int(s.Offset))
		put32(e+36, int(s.Characteristics))
	}
	copy(b[headerSize:], bytes.Repeat([]byte{0xc3}, 0x1f0))
	copy(b[headerSize+512:], magic)
	copy(b[headerSize+1024:], "symbols")
	return b
}

func section(name, data string) Section {
	return Section{Name: name, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(data)), nil
	}}
}

func testSections() []Section {
	return []Section{
		section(".osrel", "ID=test\n"),
		section(".cmdline", "console=ttyS0 roothash=00"),
		section(".initrd", strings.Repeat("initrd", 1000)),
		section(".linux", strings.Repeat("kernel!", 1001)),
	}
}

func write(t *testing.T, stub []byte, sections []Section) []byte {
	t.Helper()
	var b bytes.Buffer
	n, err := Write(&b, bytes.NewReader(stub), int64(len(stub)), sections)
	if err != nil {
		t.Fatal(err)
	}
	if size, err := Size(bytes.NewReader(stub), int64(len(stub)), sections); err != nil || size != n || n != int64(b.Len()) {
		t.Fatalf("Write wrote %d bytes and returned %d, Size says %d, %v", b.Len(), n, size, err)
	}
	return b.Bytes()
}

// stubs are two that are made here, and systemd's where the machine has it or
// CAISSON_STUB names it.
func stubs(t *testing.T) map[string][]byte {
	t.Helper()
	all := map[string][]byte{"made": testStub(0x400), "made, headers full": testStub(0x200)}
	for _, name := range []string{"/usr/lib/systemd/boot/efi/linuxx64.efi.stub", os.Getenv("CAISSON_STUB")} {
		if b, err := os.ReadFile(name); err == nil {
			all[name] = b
		}
	}
	return all
}

func TestWriteIsAlwaysTheSame(t *testing.T) {
	a := write(t, testStub(0x400), testSections())
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("TMPDIR", t.TempDir())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	slow := testSections()
	for i, s := range slow {
		slow[i].Open = func() (io.ReadCloser, error) {
			r, err := s.Open()
			return io.NopCloser(iotest.HalfReader(iotest.DataErrReader(r))), err
		}
	}
	if b := write(t, testStub(0x400), slow); !bytes.Equal(a, b) {
		t.Error("the same sections gave other bytes")
	}
	const golden = "06c0fc5ef1e0c98d057bcb5e56535c5aef9583dc438a2dffbf580979a8f05da9"
	if got := fmt.Sprintf("%x", sha256.Sum256(a)); got != golden {
		t.Errorf("the writer's bytes changed: got sha256:%s, want sha256:%s", got, golden)
	}
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	for name, stub := range stubs(t) {
		t.Run(name, func(t *testing.T) {
			image := write(t, stub, testSections())
			im, err := Read(bytes.NewReader(image), int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			old, err := Read(bytes.NewReader(stub), int64(len(stub)))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range old.Sections {
				got, err := im.Section(want.Name)
				if err != nil || got == nil || got.Address != want.Address {
					t.Fatalf("section %q of the stub: got %+v, %v, want %+v", want.Name, got, err, want)
				}
				if a, b := all(t, got.Open()), all(t, want.Open()); !bytes.Equal(a, b) {
					t.Errorf("section %q of the stub changed", want.Name)
				}
			}
			for _, want := range testSections() {
				got, err := im.Section(want.Name)
				if err != nil || got == nil {
					t.Fatalf("section %q: got %+v, %v", want.Name, got, err)
				}
				r, _ := want.Open()
				if a, b := all(t, got.Open()), all(t, r); !bytes.Equal(a, b) {
					t.Errorf("section %q has %d bytes, want %d", want.Name, len(a), len(b))
				}
				if got.Address%4096 != 0 || got.Offset%512 != 0 {
					t.Errorf("section %q is at address %#x and offset %#x", want.Name, got.Address, got.Offset)
				}
			}
			if v, err := im.StubVersion(); err != nil || !strings.HasPrefix(v, "25") {
				t.Errorf("got version %q, %v", v, err)
			}
			if none, err := im.Section(".none"); none != nil || err != nil {
				t.Errorf("got %v, %v for a section that is not there", none, err)
			}
		})
	}
}

func all(t *testing.T, r io.Reader) []byte {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestObjdump(t *testing.T) {
	objdump := tooltest.Find(t, "objdump")
	for name, stub := range stubs(t) {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "uki.efi")
			if err := os.WriteFile(file, write(t, stub, testSections()), 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(objdump, "-h", "-p", file).CombinedOutput()
			if err != nil {
				t.Fatalf("objdump: %v\n%s", err, out)
			}
			for _, want := range []string{".osrel        00000008", ".initrd       00001770", ".linux        00001b5f", "CheckSum\t\t00000000", "Time/Date\t\tThu Jan  1 00:00:00 1970"} {
				if !strings.Contains(string(out), want) {
					t.Errorf("objdump does not show %q:\n%s", want, out)
				}
			}
		})
	}
}

// TestSbsign signs an image: the digest in the signature is ours, the signed
// image has the same one, and sbverify accepts it.
func TestSbsign(t *testing.T) {
	sbsign, sbverify := tooltest.Find(t, "sbsign"), tooltest.Find(t, "sbverify")
	key, cert := testKey(t)
	for name, stub := range stubs(t) {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file, signed := filepath.Join(dir, "uki.efi"), filepath.Join(dir, "signed.efi")
			image := write(t, stub, testSections())
			if err := os.WriteFile(file, image, 0o600); err != nil {
				t.Fatal(err)
			}
			want, err := Authenticode(bytes.NewReader(image), int64(len(image)))
			if err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(sbsign, "--key", key, "--cert", cert, "--output", signed, file).CombinedOutput(); err != nil {
				t.Fatalf("sbsign: %v\n%s", err, out)
			} else if strings.Contains(string(out), "warning") {
				t.Errorf("sbsign is not content: %s", out)
			}
			b, err := os.ReadFile(signed)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Authenticode(bytes.NewReader(b), int64(len(b)))
			if err != nil || got != want {
				t.Errorf("the signed image has hash %x, %v, want %x", got, err, want)
			}
			if der, err := Signatures(bytes.NewReader(b), int64(len(b))); err != nil || len(der) != 1 || !bytes.Contains(der[0], want[:]) {
				t.Errorf("got %d signatures, %v, want one over %x", len(der), err, want)
			}
			if der, err := Signatures(bytes.NewReader(image), int64(len(image))); err != nil || len(der) != 0 {
				t.Errorf("got %d signatures, %v, of an image without", len(der), err)
			}
			if !bytes.Contains(b[len(image):], want[:]) {
				t.Errorf("the signature is not over %x", want)
			}
			if out, err := exec.Command(sbverify, "--cert", cert, signed).CombinedOutput(); err != nil {
				t.Errorf("sbverify: %v\n%s", err, out)
			}
			again := write(t, b, []Section{section(".x", "y")})
			if at := binary.LittleEndian.Uint32(again[64+4+coffHeaderSize+optionalFixed+8*dirSecurity:]); name == "made" && at != 0 {
				t.Error("the stub's broken signature is still there")
			}
		})
	}
}

func testKey(t *testing.T) (key, cert string) {
	t.Helper()
	priv, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, priv.Public(), priv)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	key, cert = filepath.Join(dir, "key.pem"), filepath.Join(dir, "cert.pem")
	for name, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: pkcs8}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}

func TestWriteRefuses(t *testing.T) {
	broken := Section{Name: ".broken", Size: 5, Open: func() (io.ReadCloser, error) { return io.NopCloser(iotest.ErrReader(io.ErrClosedPipe)), nil }}
	short, long := section(".short", "abc"), section(".long", "abc")
	short.Size, long.Size = 4, 2
	full := make([]Section, 100)
	for i := range full {
		full[i] = section(fmt.Sprintf(".s%d", i), "x")
	}
	for _, c := range []struct {
		want     string
		stub     []byte
		sections []Section
	}{
		{"two sections \".sdmagic\"", testStub(0x400), []Section{section(".sdmagic", "x")}},
		{"two sections \".a\"", testStub(0x400), []Section{section(".a", "x"), section(".a", "x")}},
		{"want a dot", testStub(0x400), []Section{section(".toolongname", "x")}},
		{"want a dot", testStub(0x400), []Section{section("linux", "x")}},
		{"has 0 bytes", testStub(0x400), []Section{section(".linux", "")}},
		{"2 GiB", testStub(0x400), []Section{{Name: ".linux", Size: 1 << 31}}},
		{"got 3 bytes, want 4", testStub(0x400), []Section{short}},
		{"more than 2 bytes", testStub(0x400), []Section{long}},
		{"closed pipe", testStub(0x400), []Section{broken}},
		{"no room for 100 more", testStub(0x400), full},
		{"not a PE image", []byte(strings.Repeat("elf", 100)), nil},
		{"EOF", testStub(0x400)[:100], nil},
	} {
		_, err := Write(io.Discard, bytes.NewReader(c.stub), int64(len(c.stub)), c.sections)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	stub := testStub(0x400)
	if _, err := Write(failing{}, bytes.NewReader(stub), int64(len(stub)), testSections()); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

func TestReadRefuses(t *testing.T) {
	table := 88 + optionalFixed + 16*8
	for _, c := range []struct {
		want   string
		change func([]byte)
	}{
		{"overlaps", func(b []byte) { binary.LittleEndian.PutUint32(b[table+40+12:], 0x1001) }},
		{"of an image of", func(b []byte) { binary.LittleEndian.PutUint32(b[table+40+8:], 1<<31) }},
		{"of a file of", func(b []byte) { binary.LittleEndian.PutUint32(b[table+40+20:], 1<<31) }},
		{"do not fit", func(b []byte) { binary.LittleEndian.PutUint16(b[68+coffSections:], 0xffff) }},
		{"only PE32+", func(b []byte) { b[88] = 0 }},
		{"PE header at", func(b []byte) { b[63] = 0x7f }},
		{"no room for its", func(b []byte) { binary.LittleEndian.PutUint16(b[68+coffOptional:], 112) }},
		{"headers of", func(b []byte) { binary.LittleEndian.PutUint32(b[88+optHeadersSize:], 1<<30) }},
	} {
		b := testStub(0x400)
		c.change(b)
		if _, err := Read(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	b := testStub(0x400)
	binary.LittleEndian.PutUint32(b[88+optionalFixed+8*dirSecurity:], 0x400)
	binary.LittleEndian.PutUint32(b[88+optionalFixed+8*dirSecurity+4:], 8)
	if _, err := Authenticode(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), "certificate table") {
		t.Errorf("certificates inside a section: got %v", err)
	}
}

func TestSectionsLongerThanTheirFile(t *testing.T) {
	b := testStub(0x400)
	table := 88 + optionalFixed + 16*8
	binary.LittleEndian.PutUint32(b[table+40+8:], 0x300) // .sdmagic in memory
	im, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := im.Section(".sdmagic")
	if err != nil {
		t.Fatal(err)
	}
	want := append(bytes.Clone(b[0x600:0x800]), make([]byte, 0x100)...)
	if got := all(t, iotest.OneByteReader(s.Open())); !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, want the file's 512 and 256 zeros", len(got))
	}
	if err := iotest.TestReader(s.Open(), want); err != nil {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add(testStub(0x400))
	var b bytes.Buffer
	stub := testStub(0x200)
	if _, err := Write(&b, bytes.NewReader(stub), int64(len(stub)), testSections()); err != nil {
		f.Fatal(err)
	}
	f.Add(b.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		size := int64(len(b))
		_, hashErr := Authenticode(bytes.NewReader(b), size)
		_, _ = Signatures(bytes.NewReader(b), size)
		if p, err := Split(bytes.NewReader(b), size); err == nil {
			if r, err := p.With(append(p.Signatures, []byte("one more"))); err == nil {
				if n, err := io.Copy(io.Discard, r); err != nil || n != r.Size() || n <= p.Size {
					t.Errorf("with one more signature it has %d bytes of %d: %v", n, r.Size(), err)
				}
			}
		}
		im, err := Read(bytes.NewReader(b), size)
		if err != nil {
			if hashErr == nil {
				t.Errorf("an image that cannot be read has a hash: %v", err)
			}
			return
		}
		if _, err := im.StubVersion(); err != nil {
			t.Skip()
		}
		for _, s := range im.Sections {
			if s.VirtualSize < 1<<20 {
				if n, err := io.Copy(io.Discard, s.Open()); err != nil || n != int64(s.VirtualSize) {
					t.Errorf("section %q gave %d bytes of %d: %v", s.Name, n, s.VirtualSize, err)
				}
			}
		}
		_, _ = Write(io.Discard, bytes.NewReader(b), size, testSections())
	})
}

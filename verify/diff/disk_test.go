package diff

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"caisson/build/image/cpio"
	"caisson/build/image/erofs"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
)

// mem is a disk in memory.
type mem []byte

func (m mem) ReadAt(p []byte, off int64) (int, error) {
	if off >= int64(len(m)) {
		return 0, io.EOF
	}
	n := copy(p, m[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m mem) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// spec is what a test's disk is made of.
type spec struct {
	root               []erofs.Entry
	rootOptions        erofs.Options
	members            []member2
	pack               func(t testing.TB, b []byte) []byte
	cmdline, osrel     string
	extra              []fat.File
	fatOptions         fat.Options
	rootName           string
	diskID             byte
	verityUUID, salt   byte
	stubTime, checksum uint32
	size               int64
	moved              int64 // how far root and hash tree lie behind their place
	appended           bool  // the hash tree is in the root's partition
}

type member2 struct {
	cpio.Header
	data string
}

const (
	mib   = 1 << 20
	epoch = 1700000000
)

func file(path, content string) erofs.Entry {
	return erofs.Entry{
		Path: path, Mode: 0o100644, Mtime: epoch, Size: int64(len(content)),
		Open: func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil },
	}
}

func folder(path string) erofs.Entry { return erofs.Entry{Path: path, Mode: 0o040755, Mtime: epoch} }

const passwd = "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/sbin/nologin\n"

func baseSpec() *spec {
	return &spec{
		root: []erofs.Entry{
			folder(""), folder("etc"), folder("usr"), folder("usr/bin"), folder("var"),
			file("etc/passwd", passwd), file("etc/hostname", "caisson\n"),
			file("usr/bin/bash", strings.Repeat("\x7fELF bash\x00", 1000)), file("usr/bin/big", strings.Repeat("0123456789abcdef", 8192)),
			{Path: "usr/bin/sh", Mode: 0o120777, Mtime: epoch, Target: "bash"},
			{Path: "usr/bin/rbash", HardLink: "usr/bin/bash"},
			{Path: "usr/bin/ping", Mode: 0o100755, Mtime: epoch, Xattrs: map[string][]byte{"security.capability": []byte("\x01\x00\x00\x02\x00\x20\x00\x00")}},
		},
		rootOptions: erofs.Options{UUID: [16]byte{1, 2, 3}, BuildTime: epoch, Label: "root"},
		members: []member2{
			{cpio.Header{Name: ".", Mode: 0o040755, Nlink: 2, Mtime: epoch, Ino: 1}, ""},
			{cpio.Header{Name: "etc", Mode: 0o040755, Nlink: 2, Mtime: epoch, Ino: 2}, ""},
			{cpio.Header{Name: "etc/passwd", Mode: 0o100644, Nlink: 1, Mtime: epoch, Ino: 3}, passwd},
			{cpio.Header{Name: "init", Mode: 0o120777, Nlink: 1, Mtime: epoch, Ino: 4}, "usr/lib/systemd/systemd"},
			{cpio.Header{Name: "big", Mode: 0o100755, Nlink: 1, Mtime: epoch, Ino: 5}, strings.Repeat("big\x00", 40000)},
		},
		cmdline: "console=ttyS0 roothash=00", osrel: "ID=test\nVERSION_ID=1\n",
		extra:      []fat.File{fatFile("loader/readme.txt", "hello\n")},
		fatOptions: fat.Options{Serial: 0x12345678, Label: "ESP", Time: epoch},
		rootName:   "root", size: 40 * mib,
	}
}

// smallSpec has small parts, for fuzzing.
func smallSpec() *spec {
	s := baseSpec()
	s.members = s.members[:4]
	return s
}

func fatFile(path, content string) fat.File {
	return fat.File{Path: path, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// Where the parts of the test's disks lie.
const (
	espAt  = mib
	espLen = 33 * mib
	rootAt = espAt + espLen
	hashAt = rootAt + mib
)

func (s *spec) build(t testing.TB) mem {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	m := make(mem, s.size)
	root, hash := rootAt+s.moved, hashAt+s.moved
	_, err := erofs.Write(io.NewOffsetWriter(m, root), s.root, s.rootOptions)
	check(err)
	_, err = verity.Write(io.NewSectionReader(m, root, mib), mib, io.NewOffsetWriter(m, hash), verity.Params{
		UUID: [16]byte{s.verityUUID}, Salt: bytes.Repeat([]byte{s.salt}, 32),
	})
	check(err)
	image := s.uki(t)
	files := append([]fat.File{fatFile("EFI/BOOT/BOOTX64.EFI", string(image))}, s.extra...)
	check(fat.Write(io.NewOffsetWriter(m, espAt), espLen, files, s.fatOptions))
	part := func(typ gpt.GUID, id byte, name string, at, length int64) gpt.Partition {
		return gpt.Partition{Type: typ, ID: gpt.GUID{id}, Name: name, First: uint64(at / sector), Last: uint64((at+length)/sector - 1)}
	}
	parts := []gpt.Partition{
		part(gpt.TypeESP, 1, "esp", espAt, espLen),
		part(gpt.TypeRootX86_64, 2, s.rootName, root, mib),
		part(gpt.TypeRootVerityX86_64, 3, "root-verity", hash, mib),
	}
	if s.appended {
		parts = parts[:2]
		parts[1] = part(gpt.TypeRootX86_64, 2, s.rootName, root, 2*mib)
	}
	check(gpt.Write(m, s.size, gpt.Table{DiskID: gpt.GUID{9, s.diskID}, Partitions: parts}))
	return m
}

func (s *spec) initrd(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	for _, m := range s.members {
		m.Size = int64(len(m.data))
		if err := w.WriteHeader(m.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, m.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if s.pack != nil {
		return s.pack(t, b.Bytes())
	}
	return b.Bytes()
}

func (s *spec) uki(t testing.TB) []byte {
	t.Helper()
	section := func(name, data string) uki.Section {
		return uki.Section{Name: name, Size: int64(len(data)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(data)), nil
		}}
	}
	stub := testStub()
	var b bytes.Buffer
	_, err := uki.Write(&b, bytes.NewReader(stub), int64(len(stub)), []uki.Section{
		section(".osrel", s.osrel), section(".cmdline", s.cmdline), section(".uname", "6.1.0"),
		section(".initrd", string(s.initrd(t))), section(".linux", strings.Repeat("kernel!", 1001)),
	})
	if err != nil {
		t.Fatal(err)
	}
	image := b.Bytes()
	binary.LittleEndian.PutUint32(image[64+8:], s.stubTime)
	binary.LittleEndian.PutUint32(image[64+24+64:], s.checksum)
	return image
}

// testStub makes a small PE32+ image of the form of systemd's stub.
func testStub() []byte {
	const headers, coff, opt = 0x400, 68, 88
	b := make([]byte, headers+0x200)
	put16 := func(off, v int) { binary.LittleEndian.PutUint16(b[off:], uint16(v)) }
	put32 := func(off, v int) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	copy(b, "MZ")
	put32(60, 64)
	copy(b[64:], "PE\x00\x00")
	put16(coff, int(uki.MachineAMD64))
	put16(coff+2, 1)
	put16(coff+16, 112+16*8)
	put16(coff+18, 0x206)
	put16(opt, 0x20b)
	put32(opt+32, 0x1000)
	put32(opt+36, 0x200)
	put32(opt+16, 0x1000)
	put32(opt+56, 0x2000)
	put32(opt+60, headers)
	put16(opt+68, 10)
	put32(opt+108, 16)
	e := opt + 112 + 16*8
	copy(b[e:], ".text")
	put32(e+8, 0x1f0)
	put32(e+12, 0x1000)
	put32(e+16, 0x200)
	put32(e+20, headers)
	put32(e+36, 0x60000020)
	copy(b[headers:], bytes.Repeat([]byte{0xc3}, 0x1f0))
	return b
}

// owner is what the test's files are made of.
func owner(part, path string) string {
	switch part + ":" + path {
	case "root:/usr/bin/bash":
		return "rpm/bash-5.2-1.x86_64"
	case "root:/etc/passwd", "initrd:/etc/passwd":
		return "scriptlets"
	case "esp:/EFI/BOOT/BOOTX64.EFI":
		return "assembly"
	}
	return ""
}

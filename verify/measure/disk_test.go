package measure

import (
	"bytes"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
)

// testDisk is what a disk for the tests is made of.
type testDisk struct {
	stub     string // version
	sections map[string]string
	files    map[string]string // beside the UKI
	cmdline  string            // before the root hash
	tail     string            // behind it
	change   func(*gpt.Table)
	loader   func([]byte) // changes the UKI
	path     string       // of the UKI
	// more are files that know the root hash.
	more  func(root string) map[string]string
	sign  func([]byte) []byte // signs every program
	fixed string              // a file that is read-only
}

const (
	espStart  = 1 << 20
	rootStart = espStart + 33<<20
	rootSize  = 1 << 20
	treeStart = rootStart + rootSize
	treeSize  = 1 << 20
	diskSize  = treeStart + treeSize + 1<<20
)

// pe makes a small PE32+ image: code, and a section .sdmagic or another.
func pe(name, content string) []byte {
	b := make([]byte, 0x400+2*512)
	put16 := func(off, v int) { binary.LittleEndian.PutUint16(b[off:], uint16(v)) }
	put32 := func(off, v int) { binary.LittleEndian.PutUint32(b[off:], uint32(v)) }
	copy(b, "MZ")
	put32(60, 64)
	copy(b[64:], "PE\x00\x00")
	put16(68, int(uki.MachineAMD64))
	put16(70, 2)
	put16(84, 112+16*8)
	put16(88, 0x20b)
	put32(88+32, 0x1000)
	put32(88+36, 0x200)
	put32(88+56, 0x3000)
	put32(88+60, 0x400)
	put32(88+108, 16)
	for i, s := range []struct {
		name string
		size int
	}{{".text", 16}, {name, len(content)}} {
		e := 88 + 112 + 16*8 + 40*i
		copy(b[e:e+8], s.name)
		put32(e+8, s.size)
		put32(e+12, 0x1000*(i+1))
		put32(e+16, 512)
		put32(e+20, 0x400+512*i)
	}
	copy(b[0x600:], content)
	return b
}

// kernel is a PE image with the setup header of an x86 kernel.
func kernel() string {
	b := pe(".setup", "")
	copy(b[0x202:], "HdrS")
	binary.LittleEndian.PutUint16(b[0x20e:], 0x500)
	copy(b[0x700:], "6.1.0-test (builder@host) #1\x00")
	return string(b)
}

// newDisk is a sound disk; opts change it.
func newDisk(opts ...func(*testDisk)) *testDisk {
	d := &testDisk{
		stub:    "252.39-1~test",
		cmdline: "console=ttyS0 roothash=",
		sections: map[string]string{
			".osrel": "ID=test\n", ".uname": "6.1.0-test", ".sbat": "sbat,1\n",
			".initrd": "an initrd of odd length", ".linux": kernel(),
		},
		files: map[string]string{},
		path:  "EFI/BOOT/BOOTX64.EFI",
	}
	for _, o := range opts {
		o(d)
	}
	return d
}

func opener(b []byte) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
}

// uki makes the unified kernel image.
func (d *testDisk) uki(t testing.TB, root [32]byte) []byte {
	t.Helper()
	d.sections[".cmdline"] = strings.ReplaceAll(d.cmdline+"HASH"+d.tail, "HASH", hexOf(root))
	if d.more != nil {
		d.sections[".cmdline"] = d.cmdline
	}
	var sections []uki.Section
	for name, content := range d.sections {
		if content != "" {
			sections = append(sections, uki.Section{Name: name, Size: int64(len(content)), Open: opener([]byte(content))})
		}
	}
	slices.SortFunc(sections, func(a, b uki.Section) int { return strings.Compare(a.Name, b.Name) })
	stub := pe(".sdmagic", "#### LoaderInfo: systemd-stub "+d.stub+" ####\x00")
	var b bytes.Buffer
	if _, err := uki.Write(&b, bytes.NewReader(stub), int64(len(stub)), sections); err != nil {
		t.Fatal(err)
	}
	if d.loader != nil {
		d.loader(b.Bytes())
	}
	return b.Bytes()
}

// write makes the disk.
func (d *testDisk) write(t testing.TB) memory {
	t.Helper()
	m := make(memory, diskSize)
	for i := range rootSize {
		m[rootStart+i] = byte(i >> 12)
	}
	root, err := verity.Write(bytes.NewReader(m[rootStart:treeStart]), rootSize, io.NewOffsetWriter(m, treeStart), verity.Params{Salt: []byte("salt")})
	if err != nil {
		t.Fatal(err)
	}
	image := d.uki(t, root)
	all := map[string]string{d.path: string(image)}
	maps.Copy(all, d.files)
	if d.more != nil {
		maps.Copy(all, d.more(hexOf(root)))
	}
	var files []fat.File
	for path, content := range all {
		if d.sign != nil && strings.HasPrefix(content, "MZ") {
			content = string(d.sign([]byte(content)))
		}
		files = append(files, fat.File{Path: path, Size: int64(len(content)), ReadOnly: path == d.fixed, Open: opener([]byte(content))})
	}
	if err := fat.Write(io.NewOffsetWriter(m, espStart), rootStart-espStart, files, fat.Options{}); err != nil {
		t.Fatal(err)
	}
	table := gpt.Table{DiskID: gpt.GUID{1}, Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, ID: gpt.GUID{2}, Name: "esp", First: espStart / 512, Last: rootStart/512 - 1},
		{Type: gpt.TypeRootX86_64, ID: gpt.FromBytes([16]byte(root[:16])), Name: "root", First: rootStart / 512, Last: treeStart/512 - 1},
		{Type: gpt.TypeRootVerityX86_64, ID: gpt.FromBytes([16]byte(root[16:])), Name: "root-verity", First: treeStart / 512, Last: (treeStart+treeSize)/512 - 1},
	}}
	if d.change != nil {
		d.change(&table)
	}
	if err := gpt.Write(m, diskSize, table); err != nil {
		t.Fatal(err)
	}
	return m
}

// memory is a disk in memory.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

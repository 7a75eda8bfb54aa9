package vhd

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// testDisk has data, zeros, and data again.
func testDisk(mib int) []byte {
	b := make([]byte, mib<<20)
	for i := 0; i < len(b); i += 4096 {
		if i>>20%3 != 1 {
			d := sha256.Sum256(fmt.Append(nil, i))
			copy(b[i:], bytes.Repeat(d[:], 128))
		}
	}
	return b
}

func write(t *testing.T, disk []byte, time int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk.vhd")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := Write(f, bytes.NewReader(disk), int64(len(disk)), Options{Time: time}); err != nil {
		t.Fatal(err)
	}
	return name
}

// TestGolden holds the footer's bytes; see the specification, "Hard Disk
// Footer Format".
func TestGolden(t *testing.T) {
	b, err := os.ReadFile(write(t, testDisk(3), 1700000000))
	if err != nil {
		t.Fatal(err)
	}
	const want = "636f6e6563746978" + "00000002" + "00010000" + "ffffffffffffffff" + "2ce6ad80" + "77696e20" + "00060001" + "5769326b" +
		"0000000000300000" + "0000000000300000" + "005a" + "04" + "11" + "00000002"
	if got := fmt.Sprintf("%x", b[3<<20:3<<20+64]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != "e9aef5c914477a9810a669095ad2da73fa7e0e2833039be5658138566e321402" {
		t.Errorf("got digest %s", got)
	}
}

// TestQEMU has qemu-img read what was written.
func TestQEMU(t *testing.T) {
	for _, mib := range []int{1, 3, 40} {
		disk := testDisk(mib)
		name := write(t, disk, 1700000000)
		raw := filepath.Join(t.TempDir(), "raw")
		if err := os.WriteFile(raw, disk, 0o600); err != nil {
			t.Fatal(err)
		}
		var info struct {
			VirtualSize int64  `json:"virtual-size"`
			Format      string `json:"format"`
		}
		if err := json.Unmarshal([]byte(run(t, "qemu-img", "info", "--output=json", name)), &info); err != nil {
			t.Fatal(err)
		}
		// A fixed image has no magic number at its start, so qemu-img takes it
		// for a raw one, footer and all, until it is told.
		if info.Format == "vpc" && info.VirtualSize != int64(len(disk)) {
			t.Errorf("qemu-img info: %d bytes", info.VirtualSize)
		}
		run(t, "qemu-img", "compare", "-f", "vpc", "-F", "raw", name, raw)
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		// Azure's rules for a disk that is uploaded: fixed, and a multiple of
		// 1 MiB beside the footer.
		if st.Size() != int64(len(disk))+512 || st.Size()%Align != 512 {
			t.Errorf("the file has %d bytes", st.Size())
		}
	}
}

// TestReadsOthers reads what qemu-img wrote.
func TestReadsOthers(t *testing.T) {
	disk := testDisk(7)
	dir := t.TempDir()
	raw, image := filepath.Join(dir, "raw"), filepath.Join(dir, "image")
	if err := os.WriteFile(raw, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"fixed", "dynamic"} {
		run(t, "qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on,subformat="+kind, raw, image)
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != int64(len(disk)) {
			t.Fatalf("%s: %d bytes, want %d", kind, img.Size(), len(disk))
		}
		if err := iotest.TestReader(io.NewSectionReader(img, 0, 10000), disk[:10000]); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
		got := make([]byte, len(disk))
		if n, err := img.ReadAt(got, 0); n != len(got) || err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: read %d bytes, %v, or other data", kind, n, err)
		}
		if _, err := img.ReadAt(got, 1); err != io.EOF {
			t.Errorf("%s: got %v, want io.EOF", kind, err)
		}
		if _, err := img.ReadAt(got, -1); err == nil {
			t.Errorf("%s: read at -1", kind)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	disk := testDisk(3)
	b, err := os.ReadFile(write(t, disk, 0))
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := iotest.TestReader(io.NewSectionReader(img, 0, img.Size()), disk); err != nil {
		t.Error(err)
	}
	other := testDisk(3)
	other[0] ^= 1
	c, err := os.ReadFile(write(t, other, 0))
	if err != nil {
		t.Fatal(err)
	}
	id := func(b []byte) []byte { return b[3<<20+ftID:][:16] }
	if bytes.Equal(id(b), id(c)) {
		t.Error("two disks have one id")
	}
}

// TestGeometry has values that qemu-img computes for the same sizes.
func TestGeometry(t *testing.T) {
	for _, size := range []int64{1 << 20, 17 << 20, 100 << 20, 1 << 30, 8 << 30, 40 << 30, 127 << 30, 200 << 30, 2040 << 30} {
		name := filepath.Join(t.TempDir(), "disk")
		run(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic", name, fmt.Sprint(size))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		// It rounds the size up until the geometry has all of it.
		be := binary.BigEndian
		sectors := int64(be.Uint64(b[ftCurrent:])) / sectorSize
		c, h, s := geometry(sectors)
		if got, want := fmt.Sprint(c, h, s), fmt.Sprint(be.Uint16(b[ftGeometry:]), b[ftGeometry+2], b[ftGeometry+3]); got != want {
			t.Errorf("%d bytes: got %s, want %s", size, got, want)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, size := range []int64{0, -1, 512, 1<<20 + 512, MaxSize + Align} {
		if err := Write(nil, nil, size, Options{}); err == nil {
			t.Errorf("%d bytes were written", size)
		}
	}
	disk := bytes.NewReader(make([]byte, 1<<20))
	if err := Write(failing{}, disk, 1<<20, Options{}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v", err)
	}
	if err := Write(failing{}, disk, 2<<20, Options{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v", err)
	}
}

type failing struct{}

func (failing) WriteAt([]byte, int64) (int, error) { return 0, iotest.ErrTimeout }

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	run(t, "qemu-img", "create", "-q", "-f", "vpc", "-o", "subformat=dynamic", filepath.Join(dir, "dynamic"), "8M")
	dynamic, err := os.ReadFile(filepath.Join(dir, "dynamic"))
	if err != nil {
		t.Fatal(err)
	}
	fixed, err := os.ReadFile(write(t, testDisk(1), 0))
	if err != nil {
		t.Fatal(err)
	}
	be := binary.BigEndian
	footer := func(change func(b []byte)) func([]byte) []byte {
		return func(b []byte) []byte {
			f := b[len(b)-footerSize:]
			change(f)
			be.PutUint32(f[ftChecksum:], checksum(f, ftChecksum))
			return b
		}
	}
	header := func(change func(b []byte)) func([]byte) []byte {
		return func(b []byte) []byte {
			h := b[footerSize:][:headerSize]
			change(h)
			be.PutUint32(h[hdrChecksum:], checksum(h, hdrChecksum))
			return b
		}
	}
	for _, c := range []struct {
		want   string
		image  []byte
		change func([]byte) []byte
	}{
		{"no footer", fixed, func(b []byte) []byte { return b[:100] }},
		{"no footer", fixed, func(b []byte) []byte { return b[:len(b)-1] }},
		{"checksum", fixed, func(b []byte) []byte { b[len(b)-1] ^= 1; return b }},
		{"version", fixed, footer(func(f []byte) { f[ftVersion+1] = 2 })},
		{"the file has", fixed, footer(func(f []byte) { be.PutUint64(f[ftCurrent:], 2<<20) })},
		{"want a multiple", fixed, footer(func(f []byte) { be.PutUint64(f[ftCurrent:], 1<<20+1) })},
		{"want a multiple", fixed, footer(func(f []byte) { be.PutUint64(f[ftCurrent:], 1<<63) })},
		{"have a parent", fixed, footer(func(f []byte) { f[ftType+3] = typeDifferencing })},
		{"type 9", fixed, footer(func(f []byte) { f[ftType+3] = 9 })},
		{"header at", dynamic, footer(func(f []byte) { f[ftDataOffset] = 1 })},
		{"begins with", dynamic, header(func(h []byte) { h[0] = 'x' })},
		{"checksum", dynamic, func(b []byte) []byte { b[footerSize+1000] = 1; return b }},
		{"version", dynamic, header(func(h []byte) { h[hdrVersion+1] = 9 })},
		{"blocks of 3 bytes", dynamic, header(func(h []byte) { be.PutUint32(h[hdrBlockSize:], 3) })},
		{"too few", dynamic, header(func(h []byte) { be.PutUint32(h[hdrEntries:], 1) })},
		{"table at", dynamic, header(func(h []byte) { h[hdrTable] = 1 })},
	} {
		b := c.change(bytes.Clone(c.image))
		if _, err := Open(bytes.NewReader(b), int64(len(b))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

// FuzzOpen reads whatever the bytes are.
func FuzzOpen(f *testing.F) {
	f.Add(append(make([]byte, 1024), newFooter(1024, 0, [16]byte{})...))
	dynamic := newFooter(4096, 0, [16]byte{})
	be := binary.BigEndian
	dynamic[ftType+3] = typeDynamic
	be.PutUint64(dynamic[ftDataOffset:], footerSize)
	be.PutUint32(dynamic[ftChecksum:], checksum(dynamic, ftChecksum))
	header := make([]byte, headerSize)
	copy(header, headerCookie)
	be.PutUint64(header[hdrTable:], footerSize+headerSize)
	be.PutUint32(header[hdrVersion:], 0x10000)
	be.PutUint32(header[hdrEntries:], 2)
	be.PutUint32(header[hdrBlockSize:], 2048)
	be.PutUint32(header[hdrChecksum:], checksum(header, hdrChecksum))
	table := append(make([]byte, 0, 512), 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 4)
	f.Add(bytes.Join([][]byte{dynamic, header, table[:512], make([]byte, 512+2048), dynamic}, nil))
	f.Fuzz(func(_ *testing.T, b []byte) {
		img, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		p := make([]byte, 5000)
		_, _ = img.ReadAt(p, 0)
		_, _ = img.ReadAt(p, img.Size()-100)
	})
}

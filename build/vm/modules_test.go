package vm

import (
	"bytes"
	"encoding/binary"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// ko is a kernel module as far as dependencies reads one: an ELF file (System V ABI,
// chapter 4) with a section .modinfo.
func ko(info ...string) []byte {
	text := strings.Join(info, "\x00") + "\x00"
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	b := make([]byte, header)
	copy(b, "\x7fELF\x02\x01\x01")
	le := binary.LittleEndian
	le.PutUint16(b[16:], 1)  // relocatable
	le.PutUint16(b[18:], 62) // x86-64
	le.PutUint32(b[20:], 1)
	le.PutUint64(b[40:], uint64(header+len(text)+len(names)))
	le.PutUint16(b[52:], header)
	le.PutUint16(b[58:], section)
	le.PutUint16(b[60:], 3)
	le.PutUint16(b[62:], 2)
	b = append(b, text+names...)
	b = append(b, make([]byte, section)...)
	for _, s := range []struct{ name, kind, off, size int }{{1, 1, header, len(text)}, {10, 3, header + len(text), len(names)}} {
		e := make([]byte, section)
		le.PutUint32(e, uint32(s.name))
		le.PutUint32(e[4:], uint32(s.kind))
		le.PutUint64(e[24:], uint64(s.off))
		le.PutUint64(e[32:], uint64(s.size))
		le.PutUint64(e[48:], 1)
		b = append(b, e...)
	}
	return b
}

func packed(t *testing.T, ending string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var err error
	switch ending {
	case ".gz":
		w := gzip.NewWriter(&out)
		_, err = w.Write(b)
		w.Close()
	case ".xz":
		w, _ := xz.NewWriter(&out)
		_, err = w.Write(b)
		w.Close()
	case ".zst":
		w, _ := zstd.NewWriter(&out)
		_, err = w.Write(b)
		w.Close()
	default:
		out.Write(b)
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestModuleOrder(t *testing.T) {
	all := map[string][]byte{
		"kernel/drivers/virtio/virtio_pci.ko":     ko("name=virtio_pci", "depends=virtio,virtio_ring", "license=GPL"),
		"kernel/drivers/virtio/virtio.ko.xz":      packed(t, ".xz", ko("depends=")),
		"kernel/drivers/virtio/virtio_ring.ko.gz": packed(t, ".gz", ko("depends=virtio")),
		"kernel/drivers/block/virtio-blk.ko.zst":  packed(t, ".zst", ko("depends=virtio,virtio_ring", "softdep=pre: crc-any nowhere post: later")),
		"kernel/lib/crc-any.ko":                   ko(),
		"kernel/drivers/block/later.ko":           ko(),
		"kernel/drivers/char/a.ko":                ko("depends=b"),
		"kernel/drivers/char/b.ko":                ko("depends=a"),
		"kernel/drivers/char/no-elf.ko":           bytes.Repeat([]byte("no ELF"), 20),
		"kernel/drivers/char/lacks.ko":            ko("depends=gone"),
		"kernel/drivers/char/damaged.ko.xz":       packed(t, ".xz", ko())[:40],
		"kernel/drivers/char/bomb.ko.zst":         packed(t, ".zst", make([]byte, maxModule+1)),
		"modules.builtin":                         []byte("kernel/drivers/char/virtio_console.ko\n"),
		"build/README":                            nil,
	}
	folder := fstest.MapFS{}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		folder[name] = &fstest.MapFile{Data: all[name]}
	}
	x, err := readModules(folder)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x.order(neededModules())
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range got {
		names = append(names, m.name)
		if _, _, err := dependencies(m.content); err != nil {
			t.Errorf("%s was not uncompressed: %v", m.name, err)
		}
	}
	if want := []string{"virtio", "virtio_ring", "virtio_pci", "crc_any", "virtio_blk"}; !slices.Equal(names, want) {
		t.Errorf("got %q, want %q", names, want)
	}
	for name, want := range map[string]string{
		"virtio_mmio": "there is no virtio_mmio", "a": "depends on itself", "no_elf": "bad magic number", "lacks": "there is no gone",
		"damaged": "damaged.ko.xz: ", "bomb": "bomb.ko.zst: ",
	} {
		if _, err := x.order([]string{name}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
}

func FuzzDependencies(f *testing.F) {
	f.Add(ko("depends=a,b", "softdep=pre: c"))
	f.Add([]byte("no ELF"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _, _ = dependencies(b) })
}

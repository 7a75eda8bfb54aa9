package seal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/seal/vendortest"
)

// guid reads the text form.
func guid(t testing.TB, s string) gpt.GUID {
	t.Helper()
	g, err := gpt.ParseGUID(s)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// part is a partition of a MiB that begins with something.
func filled(kind gpt.GUID, name string, at int, magic string) vendortest.Part {
	b := make([]byte, 1<<20)
	copy(b[at:], magic)
	return vendortest.Part{Type: kind, Name: name, Content: b}
}

// TestRefuses seals what cannot be sealed.
func TestRefuses(t *testing.T) {
	root := filled(gpt.TypeRootX86_64, "root", 1024, "\xe2\xe1\xf5\xe0")
	typed := func(text string) vendortest.Part { return filled(guid(t, text), "pv", 0, "") }
	kernels := func(more ...string) vendortest.Part {
		files := map[string][]byte{}
		for i := 0; i < len(more); i += 3 {
			files[more[i]] = vendortest.UKI(t, more[i+1], more[i+2])
		}
		return vendortest.ESP(t, files)
	}
	good := kernels("EFI/Linux/a.efi", "257", "quiet")
	addon := vendortest.ESP(t, map[string][]byte{
		"EFI/Linux/a.efi": vendortest.UKI(t, "257", "quiet"), "EFI/Linux/a.efi.extra.d/verity.addon.efi": []byte("old"),
	})
	hashed := vendortest.ESP(t, map[string][]byte{
		"EFI/Linux/a.efi": vendortest.UKI(t, "257", "quiet"), "loader/addons/x.addon.efi": vendortest.UKI(t, "257", "a roothash=00"),
	})
	free := int(binary.LittleEndian.Uint32(good.Content[512+488:])) // clusters of 512 bytes
	full := vendortest.ESP(t, map[string][]byte{"EFI/Linux/a.efi": vendortest.UKI(t, "257", "quiet"), "fill": make([]byte, 512*(free-5))})
	arm, err := uki.AddonStub(uki.MachineARM64)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		want  string
		o     Options
		parts []vendortest.Part
	}{
		{"no EFI system partition: there is 1 \"root\"", Options{}, []vendortest.Part{root}},
		{"more than one EFI system partition", Options{}, []vendortest.Part{good, good, root}},
		{"no partition of a root's type: say which", Options{}, []vendortest.Part{good}},
		{"more than one root partition: 2 \"root\"", Options{}, []vendortest.Part{good, root, root}},
		{"more than one partition \"root\"", Options{Root: "root"}, []vendortest.Part{good, root, root}},
		{"no partition \"7\"", Options{Root: "7"}, []vendortest.Part{good, root}},
		{"is the EFI system partition", Options{Root: "1"}, []vendortest.Part{good, root}},
		{"no root partition, but one for LVM", Options{}, []vendortest.Part{good, typed("e6d6d379-f507-44c2-a23c-238f2a3df928")}},
		{"partition 2 is for LVM", Options{Root: "2"}, []vendortest.Part{good, typed("e6d6d379-f507-44c2-a23c-238f2a3df928")}},
		{"no root partition, but one for LUKS", Options{}, []vendortest.Part{good, typed("ca7d7ccb-63ed-4c53-861c-1742536059cc")}},
		{"an encrypted volume (LUKS)", Options{}, []vendortest.Part{good, filled(gpt.TypeRootX86_64, "root", 0, "LUKS\xba\xbe")}},
		{"a physical volume of LVM", Options{}, []vendortest.Part{good, filled(gpt.TypeRootX86_64, "root", 512, "LABELONE")}},
		{"a member of a RAID", Options{}, []vendortest.Part{good, filled(gpt.TypeRootX86_64, "root", 4096, "\xfc\x4e\x2b\xa9")}},
		{"swap space", Options{}, []vendortest.Part{good, filled(gpt.TypeRootX86_64, "root", 4086, "SWAPSPACE2")}},
		{"sealed already: partition 3 \"v\" has the type root-x86-64-verity", Options{}, []vendortest.Part{good, root, filled(gpt.TypeRootVerityX86_64, "v", 0, "")}},
		{"sealed already: partition 3 \"v\" has the type root-arm64-verity", Options{}, []vendortest.Part{good, root, filled(gpt.TypeRootVerityARM64, "v", 0, "")}},
		{"sealed already: EFI/Linux/a.efi has a root hash", Options{}, []vendortest.Part{kernels("EFI/Linux/a.efi", "257", "roothash=11 quiet"), root}},
		{"sealed already: loader/addons/x.addon.efi has a root hash", Options{}, []vendortest.Part{hashed, root}},
		{"sealed already: there is an addon EFI/Linux/a.efi.extra.d/verity.addon.efi", Options{}, []vendortest.Part{addon, root}},
		{"has no room for the addon", Options{}, []vendortest.Part{full, root}},
		{"no unified kernel image in EFI/Linux", Options{}, []vendortest.Part{vendortest.ESP(t, nil), root}},
		{"more than one kernel image: EFI/Linux/a.efi, EFI/Linux/b.efi; say where", Options{}, []vendortest.Part{kernels("EFI/Linux/a.efi", "257", "x", "EFI/Linux/b.efi", "257", "x"), root}},
		{"is not where a kernel image looks", Options{AddonPath: "EFI/x.addon.efi"}, []vendortest.Part{good, root}},
		{"is not where a kernel image looks", Options{AddonPath: "loader/addons/x.efi"}, []vendortest.Part{good, root}},
		{"is not where a kernel image looks", Options{AddonPath: "/loader/addons/x.addon.efi"}, []vendortest.Part{good, root}},
		{"there is no unified kernel image EFI/Linux/b.efi", Options{AddonPath: "EFI/Linux/b.efi.extra.d/x.addon.efi"}, []vendortest.Part{good, root}},
		{"systemd-stub 252.39-1~deb12u2 reads no addons", Options{}, []vendortest.Part{kernels("EFI/Linux/a.efi", "252.39-1~deb12u2", "x"), root}},
		{"systemd-stub 251.el9 reads no addons", Options{}, []vendortest.Part{kernels("EFI/Linux/a.efi", "251.el9", "x"), root}},
		{"switches verity off (rd.systemd.verity=0)", Options{}, []vendortest.Part{kernels("EFI/Linux/a.efi", "257", "rd.systemd.verity=0"), root}},
		{"is for machine type 0x8664, the root partition for arm64", Options{}, []vendortest.Part{good, filled(gpt.TypeRootARM64, "root", 1024, "\xe2\xe1\xf5\xe0")}},
		{"the addon's stub is for machine type 0xaa64", Options{AddonStub: arm}, []vendortest.Part{good, root}},
		{"reading the addon's stub", Options{AddonStub: []byte("no program")}, []vendortest.Part{good, root}},
		{"has a root hash already", Options{Cmdline: "a roothash=00"}, []vendortest.Part{good, root}},
		{"give it a root's type", Options{Root: "1", NoAddon: true}, []vendortest.Part{filled(guid(t, "0fc63daf-8483-4772-8e79-3d69d8477de4"), "x", 0, "hsqs")}},
		{"want 0 or more, and at most 256", Options{Free: -1}, []vendortest.Part{good, root}},
		{"want 0 or more, and at most 256", Options{Salt: make([]byte, 257)}, []vendortest.Part{good, root}},
		{"EFI system partition: no FAT file system", Options{}, []vendortest.Part{filled(gpt.TypeESP, "esp", 0, ""), root}},
	} {
		_, err := sealed(t, vendortest.Disk(t, 0, c.parts...), c.o)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
		if got := errors.As(err, new(*SealedError)); got != strings.HasPrefix(c.want, "sealed already") {
			t.Errorf("%v: SealedError is %t", err, got)
		}
	}
}

// TestTables seals disks without the table that is wanted.
func TestTables(t *testing.T) {
	disk := func(change func(b []byte)) string {
		name := filepath.Join(t.TempDir(), "disk")
		b := make([]byte, 4<<20)
		change(b)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	mbr := func(b []byte) { b[446+4], b[510], b[511] = 0x83, 0x55, 0xaa }
	for want, change := range map[string]func(b []byte){
		"no partition table":                 func([]byte) {},
		"no GUID partition table but an MBR": mbr,
		"sectors of 4096 bytes":              func(b []byte) { mbr(b); copy(b[4096:], "EFI PART") },
		"partition table: primary":           func(b []byte) { b[446+4], b[446+8], b[510], b[511] = 0xee, 1, 0x55, 0xaa; copy(b[512:], "EFI PART") },
	} {
		if _, err := sealed(t, disk(change), Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// mounted mounts a file system, writes to it, and returns it as it is in the
// middle of that and after it is unmounted. It is false where it cannot.
func mounted(t *testing.T, fs string, part vendortest.Part) (during, after []byte, ok bool) {
	t.Helper()
	dir := t.TempDir()
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	if err := errors.Join(os.WriteFile(image, part.Content, 0o600), os.Mkdir(at, 0o755)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", fs, "-o", "loop", image, at).CombinedOutput(); err != nil {
		t.Logf("mounting %s: %v %s", fs, err, out)
		return nil, nil, false
	}
	f, err := os.Create(filepath.Join(at, "new"))
	if err == nil {
		_, err = f.Write(make([]byte, 1<<20))
		err = errors.Join(err, f.Sync(), f.Close())
	}
	during = read(t, image)
	// Unmounting alone is not enough where another mount namespace has it too.
	for _, cmd := range [][]string{{"mount", "-o", "remount,ro", at}, {"umount", at}} {
		if out, cmdErr := exec.Command(cmd[0], cmd[1:]...).CombinedOutput(); cmdErr != nil {
			err = errors.Join(err, fmt.Errorf("%q: %w %s", cmd, cmdErr, out))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return during, read(t, image), true
}

// TestDirty tells file systems that were not unmounted from those that were,
// on what the kernel writes.
func TestDirty(t *testing.T) {
	esp := vendorESP(t)
	for fs, size := range map[string]int{"ext4": 20, "xfs": 310, "btrfs": 120} {
		t.Run(fs, func(t *testing.T) {
			root := vendortest.Root(t, fs, size)
			during, after, ok := mounted(t, fs, root)
			if !ok {
				t.Skip("file systems cannot be mounted here")
			}
			root.Content = during
			dirty := vendortest.Disk(t, 0, esp, root)
			_, err := sealed(t, dirty, Options{})
			if !errors.As(err, new(*DirtyError)) || !strings.Contains(err.Error(), fs) {
				t.Errorf("got %v, want *DirtyError", err)
			}
			if d := mustSeal(t, dirty, Options{Dirty: true}); len(d.Result.Warnings) != 1 {
				t.Errorf("warnings %q", d.Result.Warnings)
			}
			root.Content = after
			if d := mustSeal(t, vendortest.Disk(t, 0, esp, root), Options{}); len(d.Result.Warnings) != 0 {
				t.Errorf("warnings %q", d.Result.Warnings)
			}
		})
	}
}

// super is the start of a partition with a superblock that is changed.
func super(t *testing.T, content []byte, change func(b []byte)) (*fileSystem, error) {
	t.Helper()
	b := bytes.Clone(content)
	change(b)
	return probe(bytes.NewReader(b), int64(len(b)))
}

// TestProbe changes superblocks.
func TestProbe(t *testing.T) {
	le, be := binary.LittleEndian, binary.BigEndian
	ext, xfs, btrfs := vendortest.Root(t, "ext4", 10).Content, vendortest.Root(t, "xfs", 310).Content, vendortest.Root(t, "btrfs", 120).Content
	logAt := int64(be.Uint64(xfs[48:])>>xfs[124])*int64(be.Uint32(xfs[84:]))*4096 + int64(be.Uint64(xfs[48:])&(1<<xfs[124]-1))*4096
	for _, c := range []struct {
		name, dirty, warning, err string
		content                   []byte
		change                    func(b []byte)
	}{
		{name: "ext4", content: ext, change: func([]byte) {}},
		{name: "xfs", content: xfs, change: func([]byte) {}},
		{name: "btrfs", content: btrfs, change: func([]byte) {}},
		{name: "ext4", dirty: "journal", content: ext, change: func(b []byte) { b[extSuper+96] |= extRecover }},
		{name: "ext4", warning: "errors", content: ext, change: func(b []byte) { b[extSuper+58] |= extErrors }},
		{name: "ext4", dirty: "not unmounted", content: ext, change: func(b []byte) { b[extSuper+58], b[extSuper+92] = 0, 0 }},
		{name: "ext3", content: ext, change: func(b []byte) { le.PutUint32(b[extSuper+96:], 2) }},
		{name: "ext2", content: ext, change: func(b []byte) { le.PutUint32(b[extSuper+96:], 2); b[extSuper+92] = 0 }},
		{err: "ext4 journal", content: ext, change: func(b []byte) { b[extSuper+96] |= extJournalDev }},
		{err: "damaged", content: ext, change: func(b []byte) { b[extSuper+24] = 9 }},
		{name: "xfs", dirty: "did not finish", content: xfs, change: func(b []byte) { b[126] = 1 }},
		{name: "xfs", dirty: "repair", content: xfs, change: func(b []byte) { b[219] |= xfsNeedsRepair }},
		{name: "xfs", dirty: "log has to be replayed", content: xfs, change: func(b []byte) {
			// The last record's operation is not the one of unmounting.
			at := bytes.Index(b[logAt:], []byte{0xfe, 0xed, 0xba, 0xbe})
			b[logAt+int64(at)+512+9] = 0
		}},
		{err: "on another device", content: xfs, change: func(b []byte) { clear(b[48:56]) }},
		{err: "more than", content: xfs, change: func(b []byte) { be.PutUint32(b[96:], 1<<31) }},
		{err: "leaves the partition", content: xfs, change: func(b []byte) { be.PutUint64(b[48:], 1<<40) }},
		{err: "makes no sense", content: xfs, change: func(b []byte) { be.PutUint32(b[4:], 3) }},
		{err: "has no record", content: xfs, change: func(b []byte) { clear(b[logAt:][:64<<20]) }},
		{name: "btrfs", dirty: "log tree", content: btrfs, change: func(b []byte) { b[btrfsSuper+96] = 1 }},
		{err: "2 devices", content: btrfs, change: func(b []byte) { b[btrfsSuper+136] = 2 }},
		{name: "squashfs", content: make([]byte, 1<<20), change: func(b []byte) { copy(b, "hsqs") }},
		{warning: "not known", content: make([]byte, 1<<20), change: func([]byte) {}},
		{warning: "not known", content: make([]byte, 512), change: func([]byte) {}},
	} {
		f, err := super(t, c.content, c.change)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("got %v, want an error with %q", err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if f.name != c.name || !strings.Contains(f.dirty, c.dirty) || (c.dirty == "") != (f.dirty == "") || !strings.Contains(f.warning, c.warning) {
			t.Errorf("got %+v, want %s, dirty %q, warning %q", f, c.name, c.dirty, c.warning)
		}
	}
	// A file system that is longer than its partition.
	root := vendortest.Root(t, "ext4", 10)
	root.Content = root.Content[:9<<20]
	if _, err := sealed(t, vendortest.Disk(t, 0, vendorESP(t), root), Options{}); err == nil || !strings.Contains(err.Error(), "has 10485760 bytes, more than the 9437184") {
		t.Errorf("got %v", err)
	}
}

// FuzzProbe reads whatever the bytes are as the start of a partition.
func FuzzProbe(f *testing.F) {
	xfs := make([]byte, 4096)
	copy(xfs, "XFSB")
	be := binary.BigEndian
	be.PutUint32(xfs[4:], 512)
	be.PutUint64(xfs[48:], 1)
	be.PutUint32(xfs[84:], 100)
	be.PutUint32(xfs[96:], 6)
	xfs[124] = 8
	be.PutUint32(xfs[512:], xfsLogMagic)
	be.PutUint32(xfs[516:], 1)
	be.PutUint64(xfs[528:], 1<<32)
	xfs[512+43], xfs[1024+9] = 1, xfsUnmount
	f.Add(xfs)
	ext := make([]byte, 2048)
	copy(ext[extSuper+56:], "\x53\xef")
	f.Add(ext)
	btrfs := make([]byte, probeSize)
	copy(btrfs[btrfsSuper+64:], "_BHRfS_M")
	f.Add(btrfs)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = probe(bytes.NewReader(b), int64(len(b)))
	})
}

// TestOverlay compares an overlay with a disk that is written to.
func TestOverlay(t *testing.T) {
	base := bytes.Repeat([]byte("0123456789abcde"), 1000)
	o := newOverlay(bytes.NewReader(base), int64(len(base)))
	o.size = 40000
	want := append(bytes.Clone(base), make([]byte, 25000)...)
	o.layers = []layer{{start: 14000, end: 16000}, {start: 20000, end: 30000, r: bytes.NewReader(base), length: 5000}}
	clear(want[14000:16000])
	copy(want[20000:25000], base)
	for _, w := range []struct{ off, n int }{{0, 1}, {4095, 2}, {14999, 3}, {19990, 9000}, {39999, 1}, {8000, 0}} {
		b := bytes.Repeat([]byte("W"), w.n)
		copy(want[w.off:], b)
		if n, err := o.WriteAt(b, int64(w.off)); n != w.n || err != nil {
			t.Fatalf("wrote %d bytes, %v", n, err)
		}
	}
	for _, n := range []int{1, 7, 511, 4096, 40000} {
		got := make([]byte, 0, len(want))
		b := make([]byte, n)
		for at := int64(0); ; {
			n, err := o.ReadAt(b, at)
			got, at = append(got, b[:n]...), at+int64(n)
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("read in pieces of %d bytes: other data", n)
		}
	}
	if _, err := o.WriteAt([]byte("ab"), 39999); err == nil {
		t.Error("wrote behind the end")
	}
	if _, err := (part{o, 100, 10}).WriteAt([]byte("ab"), 9); err == nil {
		t.Error("wrote behind the end of a part")
	}
}

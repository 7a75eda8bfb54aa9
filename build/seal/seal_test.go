package seal

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/imagefile"
	"caisson/build/seal/vendortest"
)

const vendorUKI = "EFI/Linux/vendor-6.12.efi"

// vendorESP is one with systemd-boot's place taken, and one kernel image.
func vendorESP(t testing.TB) vendortest.Part {
	return vendortest.ESP(t, map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": vendortest.Stub(t, "none"), vendorUKI: vendortest.UKI(t, "257.13-1", "console=ttyS0 quiet"),
		"loader/loader.conf": []byte("timeout 0\n"),
	})
}

func vendorDisk(t testing.TB, fs string, size int) string {
	return vendortest.Disk(t, 0, vendorESP(t), vendortest.Root(t, fs, size))
}

func open(t testing.TB, name string) *imagefile.Disk {
	t.Helper()
	d, err := imagefile.OpenBacked(name, filepath.Dir(name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// sealed seals a disk as the options say.
func sealed(t testing.TB, name string, o Options) (*Disk, error) {
	t.Helper()
	d := open(t, name)
	tree, err := os.CreateTemp(t.TempDir(), "tree")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tree.Close() })
	o.Disk, o.Size, o.Tree = d, d.Size(), tree
	if o.Cmdline == "" {
		o.Cmdline = DefaultCmdline
	}
	return Seal(context.Background(), o)
}

func mustSeal(t testing.TB, name string, o Options) *Disk {
	t.Helper()
	d, err := sealed(t, name, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// written writes a sealed disk.
func written(t testing.TB, d *Disk, format string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "sealed."+format)
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := imagefile.Write(context.Background(), f, d, d.Size(), imagefile.Options{Format: format}); err != nil {
		t.Fatal(err)
	}
	return name
}

// cut copies a part of a file to one of its own.
func cut(t testing.TB, name string, start, size int64) string {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out, err := os.Create(filepath.Join(t.TempDir(), "part"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	if _, err := io.Copy(out, io.NewSectionReader(f, start, size)); err != nil {
		t.Fatal(err)
	}
	return out.Name()
}

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSeal seals disks with roots of several file systems, and has every tool
// that there is look at what came out: the root and all else is as before,
// the tree is veritysetup's, the tables and the ESP are sound.
func TestSeal(t *testing.T) {
	for _, c := range []struct {
		fs          string
		size, block int
	}{{"ext4", 40, 1024}, {"ext4", 520, 4096}, {"xfs", 310, 512}, {"btrfs", 120, 4096}} {
		t.Run(fmt.Sprint(c.fs, c.size), func(t *testing.T) {
			esp, root := vendorESP(t), vendortest.Root(t, c.fs, c.size)
			esp.Number, root.Number = 1, 2
			vendor := vendortest.Disk(t, 0, esp, root)
			d := mustSeal(t, vendor, Options{Free: 10 << 20})
			r := d.Result
			if r.FileSystem != c.fs || len(r.Warnings) > 0 || r.BlockSize != c.block {
				t.Errorf("file system %q with blocks of %d bytes, warnings %q", r.FileSystem, r.BlockSize, r.Warnings)
			}
			image := written(t, d, imagefile.Qcow2)
			vendortest.Run(t, "qemu-img", "check", image)
			raw := filepath.Join(t.TempDir(), "raw")
			vendortest.Run(t, "qemu-img", "convert", "-O", "raw", image, raw)
			if out := vendortest.Run(t, "sgdisk", "-v", raw); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk: %s", out)
			}
			before, after := read(t, vendor), read(t, raw)
			checkUnchanged(t, before, after, r)
			checkTree(t, raw, r)
			checkESP(t, raw, r)
		})
	}
}

// checkUnchanged compares what must be as before: all but the tables, the ESP
// and the hash tree.
func checkUnchanged(t *testing.T, before, after []byte, r Result) {
	t.Helper()
	if !bytes.Equal(before[r.Root.Start:][:r.Root.Size], after[r.Root.Start:][:r.Root.Size]) {
		t.Error("the root partition has changed")
	}
	if !bytes.Equal(before[:440], after[:440]) {
		t.Error("the boot code has changed")
	}
	if free := int64(len(after)) - (r.Verity.Start + r.Verity.Size); free < 11<<20 || free > 12<<20 {
		t.Errorf("%d bytes are free behind the hash tree", free)
	}
	tail := after[r.Verity.Start+r.Verity.Size : len(after)-33*512]
	if len(bytes.Trim(tail, "\x00")) > 0 {
		t.Error("there is something between the hash tree and the table: what the old disk ended in")
	}
}

// checkTree has veritysetup verify the tree, and make it again.
func checkTree(t *testing.T, raw string, r Result) {
	t.Helper()
	root, tree := cut(t, raw, r.Root.Start, r.Root.Size), cut(t, raw, r.Verity.Start, r.Verity.Size)
	vendortest.Run(t, "veritysetup", "verify", root, tree, r.RootHash)
	b := read(t, tree)
	again := filepath.Join(t.TempDir(), "again")
	if err := os.WriteFile(again, make([]byte, len(b)), 0o600); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprintf("%x-%x-%x-%x-%x", b[16:20], b[20:22], b[22:24], b[24:26], b[26:32])
	out := vendortest.Run(t, "veritysetup", "format", "--salt="+r.Salt, "--uuid="+id, fmt.Sprintf("--data-block-size=%d", r.BlockSize), root, again)
	if !strings.Contains(out, r.RootHash) {
		t.Errorf("the root hash is %s, veritysetup's: %s", r.RootHash, out)
	}
	if !bytes.Equal(b, read(t, again)) {
		t.Error("the hash tree is not veritysetup's")
	}
}

// checkESP has fsck.vfat and mtools read the ESP, and objdump the addon.
func checkESP(t *testing.T, raw string, r Result) {
	t.Helper()
	esp := cut(t, raw, 1<<20, 33<<20)
	if out := vendortest.Run(t, "fsck.vfat", "-n", "-v", esp); strings.Contains(out, "wrong") || strings.Contains(out, "ould be") {
		t.Errorf("fsck.vfat: %s", out)
	}
	got := vendortest.Run(t, "mtype", "-i", esp, "::"+vendorUKI)
	if got != string(vendortest.UKI(t, "257.13-1", "console=ttyS0 quiet")) {
		t.Error("the kernel image has changed")
	}
	addon := filepath.Join(t.TempDir(), "addon.efi")
	vendortest.Run(t, "mcopy", "-i", esp, "::"+r.Addon.Path, addon)
	b := read(t, addon)
	if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != r.Addon.SHA256 || int64(len(b)) != r.Addon.Size {
		t.Errorf("the addon has %d bytes and the digest %s", len(b), got)
	}
	if r.Addon.Path != vendorUKI+".extra.d/verity.addon.efi" || r.Addon.Kernel != vendorUKI {
		t.Errorf("the addon is %s for %s", r.Addon.Path, r.Addon.Kernel)
	}
	im, err := uki.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	cmdline, err := section(im, ".cmdline")
	if want := "roothash=" + r.RootHash + " systemd.volatile=overlay"; err != nil || cmdline != want || r.Cmdline != want {
		t.Errorf("the addon says %q, the result %q, want %q", cmdline, r.Cmdline, want)
	}
	if sbat, err := section(im, ".sbat"); err != nil || !strings.HasPrefix(sbat, "sbat,1,") {
		t.Errorf("the addon has the revocation levels %q, %v", sbat, err)
	}
	if out := vendortest.Run(t, "objdump", "-h", addon); !strings.Contains(out, ".cmdline") {
		t.Errorf("objdump: %s", out)
	}
}

// TestAsRepart has systemd-repart seal the same disk by the definitions of the
// pipeline that this replaces: types, labels, attributes and ids come out the
// same way. Its salt, and so its root hash, is by chance.
func TestAsRepart(t *testing.T) {
	repart := vendortest.Tool(t, "systemd-repart")
	vendor := vendorDisk(t, "ext4", 40)
	ours := mustSeal(t, vendor, Options{})
	theirs := filepath.Join(t.TempDir(), "theirs")
	if err := os.WriteFile(theirs, read(t, vendor), 0o600); err != nil {
		t.Fatal(err)
	}
	defs := t.TempDir()
	for name, text := range map[string]string{
		"root.conf":   "[Partition]\nType=root\nVerity=data\nVerityMatchKey=root\nSizeMaxBytes=40M\n",
		"verity.conf": "[Partition]\nType=root-verity\nVerity=hash\nVerityMatchKey=root\nPaddingWeight=1\nSizeMinBytes=64M\nSizeMaxBytes=64M\n",
	} {
		if err := os.WriteFile(filepath.Join(defs, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(repart, theirs, "--dry-run=no", "--definitions="+defs, "--no-pager", "--json=short", "--size=200M")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("systemd-repart cannot work here: %v", err)
	}
	var report []struct{ Type, RootHash string }
	if err := json.Unmarshal(out, &report); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	hash := report[slices.IndexFunc(report, func(r struct{ Type, RootHash string }) bool { return r.Type == "root-x86-64-verity" })].RootHash
	if len(hash) != 64 {
		t.Skipf("systemd-repart gives no root hash: %s", out)
	}
	got := shape(t, ours, ours.Size(), ours.Result.RootHash)
	f := open(t, theirs)
	if want := shape(t, f, f.Size(), hash); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

// shape is what a sealed disk's table says but for sizes, with the halves of
// the root hash by name.
func shape(t *testing.T, r io.ReaderAt, size int64, hash string) string {
	t.Helper()
	table, err := gpt.Read(r, size)
	if err != nil {
		t.Fatal(err)
	}
	var sb strings.Builder
	fmt.Fprintln(&sb, table.DiskID)
	for _, p := range table.Partitions {
		id := strings.ReplaceAll(p.ID.String(), "-", "")
		id = strings.Replace(id, hash[:32], "first half", 1)
		id = strings.Replace(id, hash[32:], "second half", 1)
		fmt.Fprintln(&sb, p.Type, p.Name, fmt.Sprintf("%x", p.Attrs), id)
	}
	return sb.String()
}

// TestFormats seals one disk in all formats that can be read, of versions and
// with backing files, and writes all: the disk is the same.
func TestFormats(t *testing.T) {
	raw := vendorDisk(t, "ext4", 40)
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	convert := func(name string, args ...string) {
		vendortest.Run(t, "qemu-img", append(append([]string{"convert", "-f", "raw"}, args...), raw, at(name))...)
	}
	convert("v2.qcow2", "-O", "qcow2", "-o", "compat=0.10", "-c")
	convert("v3.qcow2", "-O", "qcow2", "-o", "compression_type=zstd", "-c")
	convert("plain.qcow2", "-O", "qcow2", "-o", "cluster_size=2M")
	convert("fixed.vhd", "-O", "vpc", "-o", "subformat=fixed,force_size=on")
	convert("dynamic.vhd", "-O", "vpc", "-o", "subformat=dynamic,force_size=on")
	vendortest.Run(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "v3.qcow2", "-F", "qcow2", at("backed.qcow2"))
	want := mustSeal(t, raw, Options{Time: 1700000000}).Result
	var disk string
	for _, name := range []string{"v2.qcow2", "v3.qcow2", "plain.qcow2", "fixed.vhd", "dynamic.vhd", "backed.qcow2"} {
		d := mustSeal(t, at(name), Options{Time: 1700000000})
		if d.Result.RootHash != want.RootHash || *d.Result.Addon != *want.Addon || d.Result.DiskSize != want.DiskSize {
			t.Errorf("%s: sealed otherwise than the raw disk", name)
		}
		h := sha256.New()
		if _, err := io.Copy(h, io.NewSectionReader(d, 0, d.Size())); err != nil {
			t.Fatal(err)
		}
		if sum := hex.EncodeToString(h.Sum(nil)); disk == "" {
			disk = sum
		} else if disk != sum {
			t.Errorf("%s: another disk", name)
		}
	}
	d := mustSeal(t, at("v2.qcow2"), Options{Time: 1700000000})
	images := map[string]string{"qcow2": written(t, d, "qcow2"), "vpc": written(t, d, "vhd"), "raw": written(t, d, "raw")}
	for _, f := range []string{"qcow2", "vpc"} {
		vendortest.Run(t, "qemu-img", "compare", "-f", f, "-F", "raw", images[f], images["raw"])
	}
}

// TestIsAlwaysTheSame seals twice, under other conditions: the same bytes.
func TestIsAlwaysTheSame(t *testing.T) {
	vendor := vendorDisk(t, "ext4", 40)
	first := sha256.Sum256(read(t, written(t, mustSeal(t, vendor, Options{Time: 1700000000}), "qcow2")))
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("TMPDIR", t.TempDir())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	second := sha256.Sum256(read(t, written(t, mustSeal(t, vendor, Options{Time: 1700000000}), "qcow2")))
	if first != second {
		t.Error("other bytes the second time")
	}
	// Two roots that differ have other salts where their file systems have
	// other ids, and a salt that is given is taken.
	if r := mustSeal(t, vendor, Options{Salt: []byte{1, 2, 3}}).Result; r.Salt != "010203" {
		t.Errorf("the salt is %s", r.Salt)
	}
}

// TestRootSomewhere has roots that are not the last partition, with numbers
// out of order, on a disk with room enough and with an odd length.
func TestRootSomewhere(t *testing.T) {
	root := vendortest.Root(t, "ext4", 40)
	root.Number, root.Content = 1, append(root.Content, make([]byte, 1536)...)
	esp := vendorESP(t)
	esp.Number = 15
	data := vendortest.Part{Number: 14, Type: gpt.GUID{1, 2, 3}, Name: "data", Content: bytes.Repeat([]byte("data"), 1<<18)}
	vendor := vendortest.Disk(t, 20<<20, esp, root, data)
	before := read(t, vendor)
	for _, which := range []string{"", "1", "root", "00000000-0000-4000-8000-000000000001"} {
		d := mustSeal(t, vendor, Options{Root: which, Free: 1 << 20})
		if d.Size() != int64(len(before)) {
			t.Errorf("the disk has %d bytes, had %d, and room enough", d.Size(), len(before))
		}
		table, err := gpt.OpenEdit(d, d.Size())
		if err != nil {
			t.Fatal(err)
		}
		parts := table.Partitions()
		if len(parts) != 4 || parts[1].Number != 2 || parts[1].Type != gpt.TypeRootVerityX86_64 || parts[1].First <= parts[2].Last {
			t.Errorf("got %+v", parts)
		}
		raw := written(t, d, "raw")
		vendortest.Run(t, "veritysetup", "verify", cut(t, raw, d.Result.Root.Start, d.Result.Root.Size), cut(t, raw, d.Result.Verity.Start, d.Result.Verity.Size), d.Result.RootHash)
		if out := vendortest.Run(t, "sgdisk", "-v", raw); !strings.Contains(out, "No problems found") {
			t.Errorf("sgdisk: %s", out)
		}
	}
	// A root without a root's type gets it.
	root.Type = gpt.FromBytes([16]byte{0x0f, 0xc6, 0x3d, 0xaf, 0x84, 0x83, 0x47, 0x72, 0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4})
	d := mustSeal(t, vendortest.Disk(t, 0, esp, root), Options{Root: "1"})
	if d.Result.Root.Type != gpt.TypeRootX86_64.String() {
		t.Errorf("the root has the type %s", d.Result.Root.Type)
	}
}

// TestAddonPlaces puts addons elsewhere, or nowhere.
func TestAddonPlaces(t *testing.T) {
	root := vendortest.Root(t, "ext4", 10)
	two := vendortest.ESP(t, map[string][]byte{
		"EFI/Linux/a.efi": vendortest.UKI(t, "254.1", "quiet"), "EFI/Linux/b.efi": vendortest.UKI(t, "252-46.el9", "quiet root=UUID=1"),
	})
	loader := vendortest.ESP(t, map[string][]byte{"EFI/BOOT/BOOTX64.EFI": vendortest.UKI(t, "257", "root=/dev/mapper/root quiet")})
	stub := bytes.Replace(vendortest.Stub(t, "257"), []byte("systemd-stub 257"), []byte("systemd-addon 25"), 1)
	for _, c := range []struct {
		esp     vendortest.Part
		o       Options
		path    string
		kernel  string
		cmdline string
	}{
		{loader, Options{}, "EFI/BOOT/BOOTX64.EFI.extra.d/verity.addon.efi", "EFI/BOOT/BOOTX64.EFI", "systemd.volatile=overlay"},
		{loader, Options{AddonStub: stub, Cmdline: "a  b"}, "EFI/BOOT/BOOTX64.EFI.extra.d/verity.addon.efi", "EFI/BOOT/BOOTX64.EFI", "a b"},
		{two, Options{AddonPath: "EFI/Linux/a.efi.extra.d/x.addon.efi"}, "EFI/Linux/a.efi.extra.d/x.addon.efi", "EFI/Linux/a.efi", "systemd.volatile=overlay"},
		{two, Options{AddonPath: "efi/linux/B.EFI.extra.d/x.addon.efi"}, "efi/linux/B.EFI.extra.d/x.addon.efi", "EFI/Linux/b.efi", "systemd.volatile=overlay root=/dev/mapper/root"},
		{two, Options{AddonPath: "loader/addons/x.addon.efi"}, "loader/addons/x.addon.efi", "", "systemd.volatile=overlay"},
	} {
		d := mustSeal(t, vendortest.Disk(t, 0, c.esp, root), c.o)
		r := d.Result
		if r.Addon.Path != c.path || r.Addon.Kernel != c.kernel || r.Cmdline != "roothash="+r.RootHash+" "+c.cmdline {
			t.Errorf("got %+v with %q, want %s for %s with %q", r.Addon, r.Cmdline, c.path, c.kernel, c.cmdline)
		}
		fsys, err := fat.Open(io.NewSectionReader(d, 1<<20, 33<<20), 33<<20)
		if err != nil {
			t.Fatal(err)
		}
		f, err := fsys.Lookup(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if hash, err := uki.Authenticode(f, f.Size()); err != nil || hex.EncodeToString(hash[:]) != r.Addon.Authenticode {
			t.Errorf("the addon has the hash %x, %v, want %s", hash, err, r.Addon.Authenticode)
		}
	}
	// Without an addon, the ESP is as before, and need not be there.
	for _, parts := range [][]vendortest.Part{{two, root}, {root}} {
		vendor := vendortest.Disk(t, 0, parts...)
		d := mustSeal(t, vendor, Options{NoAddon: true})
		if d.Result.Addon != nil || d.Result.Cmdline != "roothash="+d.Result.RootHash+" systemd.volatile=overlay" {
			t.Errorf("got %+v", d.Result)
		}
		got := make([]byte, 5<<20)
		if _, err := d.ReadAt(got, 1<<20); err != nil || !bytes.Equal(got, read(t, vendor)[1<<20:6<<20]) {
			t.Error("the first partition has changed")
		}
	}
}

// TestSparse seals a disk that is large and has little: nothing is kept of
// what is zeros, in memory neither.
func TestSparse(t *testing.T) {
	name := vendorDisk(t, "ext4", 40)
	const more = 3 << 30
	if err := os.Truncate(name, 76<<20+more); err != nil {
		t.Fatal(err)
	}
	vendortest.Run(t, "sgdisk", "-e", "-d2", "-n2:69632:0", "-t2:8304", name)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d := mustSeal(t, name, Options{})
	if d.Result.Root.Size < more {
		t.Fatalf("the root has %d bytes", d.Result.Root.Size)
	}
	image := written(t, d, "qcow2")
	runtime.ReadMemStats(&after)
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 8<<20 {
		t.Errorf("the image has %d bytes", st.Size())
	}
	if n := after.Sys - before.Sys; n > 200<<20 {
		t.Errorf("%d bytes of memory", n)
	}
}

// countedReader counts what is read of a disk.
type countedReader struct {
	io.ReaderAt
	n chan int
}

func (c countedReader) ReadAt(p []byte, off int64) (int, error) {
	c.n <- len(p)
	return c.ReaderAt.ReadAt(p, off)
}

// TestGrowth counts what is read of disks of which one is twice as large.
func TestGrowth(t *testing.T) {
	amount := func(size int) (total int) {
		d := open(t, vendorDisk(t, "ext4", size))
		n := make(chan int)
		done := make(chan int)
		go func() {
			sum := 0
			for v := range n {
				sum += v
			}
			done <- sum
		}()
		tree, err := os.CreateTemp(t.TempDir(), "tree")
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		s, err := Seal(context.Background(), Options{Disk: countedReader{d, n}, Size: d.Size(), Tree: tree})
		if err != nil {
			t.Fatal(err)
		}
		written(t, s, "qcow2")
		close(n)
		return <-done
	}
	small, large := amount(100), amount(200)
	if large > 2*small {
		t.Errorf("%d bytes are read of a disk, %d of one twice as large", small, large)
	}
}

func TestInterrupted(t *testing.T) {
	d := open(t, vendorDisk(t, "ext4", 10))
	ctx, cancel := context.WithCancel(context.Background())
	tree, err := os.CreateTemp(t.TempDir(), "tree")
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	o := Options{Disk: d, Size: d.Size(), Tree: tree, Progress: func(string) { cancel() }}
	if _, err := Seal(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

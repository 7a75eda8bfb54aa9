package diff

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/rpmpack"

	"caisson/build/image/erofs"
	"caisson/build/image/gpt"
	"caisson/lock/tooltest"
)

// TestMBR compares disks that have no GUID table.
func TestMBR(t *testing.T) {
	dir := put(t, t.TempDir(), map[string]string{"etc/one": "first\n"})
	disk := func(label string) []byte {
		b := make([]byte, 8<<20)
		copy(b[1<<20:], mke2fs(t, dir))
		at := filepath.Join(put(t, t.TempDir(), map[string]string{"disk": string(b)}), "disk")
		cmd := exec.Command(tooltest.Find(t, "sfdisk"), "-q", at)
		cmd.Stdin = strings.NewReader("label: dos\nlabel-id: " + label + "\nstart=2048, size=8192, type=83\nstart=12288, size=2048, type=ef\n")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return read(t, at)
	}
	a := disk("0x1")
	put(t, dir, map[string]string{"etc/one": "other\n"})
	b := disk("0x2")
	b[6<<20+3] = 1
	got := compareFiles(t, "x.raw", a, b)
	wantLines(t, got, "* MBR", "disk signature", "* partition-1 (partition 1)", "* partition-1:/etc/one", "-first", "+other", "* esp (partition 2)")
}

// TestLimits shows what is not looked into as such, and never as the same.
func TestLimits(t *testing.T) {
	bomb := func(last byte) []byte { // 64 MiB in some kilobytes, in some bytes
		b := make([]byte, 64<<20)
		b[len(b)-1] = last
		return packGzip(t, packGzip(t, b))
	}
	a, b := bomb(1), bomb(2)
	contents := func(change func(d *differ)) string {
		d := newDiffer(t.Context(), Source{Name: "a"}, Source{Name: "b"}, Options{})
		change(d)
		top := &Node{}
		at := spot{depth: 0}
		d.contents(d.child(top, "bomb"), at, io.NewSectionReader(mem(a), 0, int64(len(a))), io.NewSectionReader(mem(b), 0, int64(len(b))))
		return text(t, top.Details)
	}
	wantLines(t, contents(func(*differ) {}), "* unpacked → unpacked", "1 byte differs, the first at byte 67108863")
	got := contents(func(d *differ) { d.held = 1 << 20 })
	wantLines(t, got, notFurther+"more than 1048576 bytes", "the first difference is at byte")
	got = contents(func(d *differ) { d.work = 32 << 20 })
	wantLines(t, got, notFurther+"enough has been unpacked", "the first difference is at byte")
	files := contents(func(d *differ) { d.memory = 1000 })
	wantLines(t, files, "1 byte differs, the first at byte 67108863")
	a, b = packGzip(t, []byte("one")), packGzip(t, []byte("two"))
	for range maxDepth {
		a, b = packGzip(t, a), packGzip(t, b)
	}
	wantLines(t, contents(func(*differ) {}), fmt.Sprintf("%scompressed with gzip, and %d other things are around it", notFurther, maxDepth))
}

// FuzzContents compares any bytes with files of each kind.
func FuzzContents(f *testing.F) {
	dir := put(f, f.TempDir(), map[string]string{"x.c": "int x = 1; int y(int z) { return z + x; }\n", "f": "text\n"})
	run(f, dir, "gcc", "-c", "-O1", "-g0", "x.c")
	sh := "tar -cf f.tar f; gzip -kn f; xz -k f; zstd -q -k f; bzip2 -k f; ar rcD f.a f; zip -q f.zip f; echo f | cpio -o -H newc --quiet > f.cpio; mksquashfs f f.squashfs -quiet -no-progress"
	run(f, dir, "bash", "-c", sh)
	var seeds [][]byte
	for _, name := range []string{"x.o", "f.tar", "f.gz", "f.xz", "f.zst", "f.bz2", "f.a", "f.zip", "f.cpio", "f.squashfs"} {
		seeds = append(seeds, read(f, dir, name))
	}
	seeds = append(seeds, pack(f, func(*rpmpack.RPM, *rpmpack.RPMMetaData) {}),
		[]byte("\xde\x12\x04\x95\x00\x00\x00\x00\x01\x00\x00\x00\x1c\x00\x00\x00\x24\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x2c\x00\x00\x00\x01\x00\x00\x00\x2e\x00\x00\x00a\x00b\x00"),
		[]byte(`{"a":[1]}`), []byte("\xa7\x0d\r\n\x00\x00\x00\x00\x01\x02\x03\x04\x05\x00\x00\x00code"))
	for i, s := range seeds {
		f.Add(i, s)
		f.Add(i, append(bytes.Clone(s[:len(s)/2]), bytes.ToUpper(s[len(s)/2:])...))
	}
	f.Fuzz(func(t *testing.T, i int, other []byte) {
		if i < 0 || i >= len(seeds) || len(other) > 1<<20 {
			return
		}
		d := newDiffer(t.Context(), Source{Name: "a.pyc", Disk: mem(seeds[i]), Size: int64(len(seeds[i]))}, Source{Name: "b.pyc", Disk: mem(other), Size: int64(len(other))}, Options{})
		d.held, d.work = 4<<20, 32<<20
		top := &Node{}
		changed, err := compare(t.Context(), d.a.Disk, d.b.Disk, min(d.a.Size, d.b.Size))
		if err != nil {
			t.Fatal(err)
		}
		if len(changed) > 0 || d.a.Size != d.b.Size {
			d.file(top, changed)
		}
		prune(top)
		if equal := bytes.Equal(seeds[i], other); equal != (len(top.Details) == 0) {
			t.Errorf("equal: %v, nodes: %d", equal, len(top.Details))
		}
		var b strings.Builder
		if err := JSON(&b, "a", "b", top.Details); err != nil {
			t.Error(err)
		}
	})
}

// TestOpaque says of file systems that they were not looked into.
func TestOpaque(t *testing.T) {
	a := make([]byte, 8<<20)
	copy(a, "XFSB")
	b := bytes.Clone(a)
	b[5000] = 1
	got := compareFiles(t, "x.img", a, b)
	wantLines(t, got, notFurther+"it is an XFS file system", "1 byte differs, the first at byte 5000")
	disk := func(root []byte) mem {
		m := make(mem, 16*mib)
		copy(m[mib:], root)
		if err := gpt.Write(m, int64(len(m)), gpt.Table{Partitions: []gpt.Partition{{Type: gpt.TypeRootX86_64, ID: gpt.GUID{1}, First: mib / sector, Last: 9*mib/sector - 1}}}); err != nil {
			t.Fatal(err)
		}
		return m
	}
	nodes := compareDisks(t, disk(a), disk(b), Options{})
	wantLines(t, text(t, nodes), "in no PCR: the disk has no hash tree for it", notFurther+"it holds an XFS file system")
	if left := NotCompared(nodes); len(left) != 1 || !strings.HasPrefix(left[0], "root (partition 1): "+notFurther) {
		t.Errorf("got %q", left)
	}
}

// BenchmarkDisks is the speed at which disks that are equal are compared, and
// at which one is that has one file changed.
func BenchmarkDisks(b *testing.B) {
	dir := b.TempDir()
	content := make([]byte, 4<<20)
	rand.NewChaCha8([32]byte{}).Read(content)
	for i := range 60 {
		put(b, dir, map[string]string{fmt.Sprint("file-", i): string(content)})
	}
	at := filepath.Join(b.TempDir(), "image")
	run(b, dir, "mke2fs", "-q", "-t", "ext4", "-d", dir, at, "320M")
	image := mem(read(b, at))
	other := mem(bytes.Clone(image))
	other[bytes.LastIndex(other, content[:4096])+99] ^= 1
	for name, second := range map[string]mem{"equal": image, "one-file": other} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(image)))
			for b.Loop() {
				if _, err := Disks(b.Context(), Source{Disk: image, Size: int64(len(image))}, Source{Disk: second, Size: int64(len(second))}, Options{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestProgram compares EFI programs that are files of their own, and one with
// itself signed.
func TestProgram(t *testing.T) {
	tooltest.Find(t, "sbsign")
	a, b := smallSpec(), smallSpec()
	b.cmdline = "quiet"
	got := compareFiles(t, "x.efi", a.uki(t), b.uki(t))
	wantLines(t, got, "changes PCR 4, into which", "* .cmdline\n", "changes PCR 4, 9 and 11", "+quiet")
	a.members[2].data = "root:x\n"
	wantLines(t, compareFiles(t, "x.efi", a.uki(t), b.uki(t)), "* .initrd → /etc/passwd")
	dir := put(t, t.TempDir(), map[string]string{"a": string(a.uki(t))})
	for _, name := range []string{"one", "two"} {
		run(t, dir, "openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN="+name, "-keyout", name+".key", "-out", name+".crt")
		run(t, dir, "sbsign", "--key", name+".key", "--cert", name+".crt", "--output", name, "a")
	}
	got = compareFiles(t, "x.efi", read(t, dir, "one"), read(t, dir, "two"))
	wantLines(t, got, "the hash that is measured and signed is the same, sha256:", "* signatures", "1 and 1 signatures")
	wantNo(t, got, "changes PCR 4, into which", "* padding")
	got = compareFiles(t, "x.efi", read(t, dir, "a"), read(t, dir, "two"))
	wantLines(t, got, "* signatures", "0 and 1 signatures")
}

// TestMany leaves most of many differences out, and says how many.
func TestMany(t *testing.T) {
	image := func(text string) []byte {
		entries := []erofs.Entry{folder("")}
		for i := range 10000 {
			entries = append(entries, file(fmt.Sprintf("file-%05d", i), text))
		}
		b := make(mem, 64<<20)
		n, err := erofs.Write(b, entries, erofs.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return b[:n]
	}
	got := compareFiles(t, "x", image("first\n"), image("other\n"))
	wantLines(t, got, "9501 more differences are not shown here", "* /file-00498")
	if n := strings.Count(got, "\n"); n > 5000 {
		t.Errorf("%d lines", n)
	}
}

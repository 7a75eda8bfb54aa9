package diff

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"caisson/build/image/cpio"
	"caisson/build/image/erofs"
)

var update = flag.Bool("update", false, "write the golden files")

// base is the disk that others are compared with.
var base = sync.OnceValue(func() mem { return baseSpec().build(&testing.T{}) })

func find(entries []erofs.Entry, path string) *erofs.Entry {
	for i := range entries {
		if entries[i].Path == path {
			return &entries[i]
		}
	}
	return nil
}

// at flips a bit of the byte at off.
func at(off int64) func(m mem) mem {
	return func(m mem) mem {
		m[off] ^= 1
		return m
	}
}

func cases() []struct {
	name   string
	change func(s *spec)
	bytes  func(m mem) mem
	want   []string // in the text
} {
	return []struct {
		name   string
		change func(s *spec)
		bytes  func(m mem) mem
		want   []string
	}{
		{"text-file", func(s *spec) {
			*find(s.root, "etc/passwd") = file("etc/passwd", strings.Replace(passwd, "bash", "zsh!", 1))
		}, nil,
			[]string{"root:/etc/passwd", "from scriptlets", "-root:x:0:0:root:/root:/bin/bash", "changes the root hash"}},
		{"binary-file", func(s *spec) {
			*find(s.root, "usr/bin/bash") = file("usr/bin/bash", strings.Repeat("\x7fELF bash\x00", 999)+"\x7fELF bush\x00")
		}, nil, []string{"root:/usr/bin/bash", "from rpm/bash-5.2-1.x86_64", "1 byte differs, the first at byte 9996"}},
		{"large-file", func(s *spec) {
			*find(s.root, "usr/bin/big") = file("usr/bin/big", strings.Repeat("0123456789abcdef", 8191)+"0123456789abcdeF")
		}, nil, []string{"root:/usr/bin/big", "byte 131071 (0x1ffff)"}},
		{"longer-file", func(s *spec) { *find(s.root, "etc/hostname") = file("etc/hostname", strings.Repeat("longer\n", 2000)) }, nil,
			[]string{"root:/etc/hostname", "size: 8 and 14000 bytes"}},
		{"mode", func(s *spec) { find(s.root, "usr/bin/bash").Mode = 0o104755 }, nil, []string{"root:/usr/bin/bash", "-mode: 0644", "+mode: 04755"}},
		{"owner", func(s *spec) { find(s.root, "usr/bin/big").UID = 70000 }, nil, []string{"root:/usr/bin/big", "+owner: 70000:0"}},
		{"mtime", func(s *spec) { find(s.root, "etc/passwd").Mtime = epoch + 5 }, nil, []string{"root:/etc/passwd", "+modified: 1700000005 (2023-11-14 22:13:25 UTC)"}},
		{"build-time", func(s *spec) {
			s.rootOptions.BuildTime++
			for i := range s.root {
				s.root[i].Mtime++
			}
		}, nil, []string{"root: superblock", "+build time: 1700000001", "the times of all files differ alike"}},
		{"xattr", func(s *spec) { find(s.root, "usr/bin/ping").Xattrs["security.capability"][4] = 1 }, nil, []string{"root:/usr/bin/ping", "xattr security.capability"}},
		{"link-target", func(s *spec) { find(s.root, "usr/bin/sh").Target = "dash" }, nil, []string{"root:/usr/bin/sh", "-target: bash", "+target: dash"}},
		{"hard-link", func(s *spec) { find(s.root, "usr/bin/rbash").HardLink = "usr/bin/big" }, nil, []string{"hard link to"}},
		{"file-type", func(s *spec) { *find(s.root, "etc/hostname") = folder("etc/hostname") }, nil, []string{"root:/etc/hostname", "-type: file", "+type: folder"}},
		{"added-file", func(s *spec) { s.root = append(s.root, file("etc/new", "new\n")) }, nil, []string{"+ root:/etc/new", "only in rebuild"}},
		{"removed-file", func(s *spec) {
			s.root = slices.DeleteFunc(s.root, func(e erofs.Entry) bool { return e.Path == "etc/hostname" })
		}, nil, []string{"- root:/etc/hostname", "only in image"}},
		{"root-uuid", func(s *spec) { s.rootOptions.UUID[0] = 0xff }, nil, []string{"root: superblock", "+uuid: ff020300-"}},
		{"cmdline", func(s *spec) { s.cmdline += " debug" }, nil,
			[]string{"esp:/EFI/BOOT/BOOTX64.EFI → .cmdline", "+console=ttyS0 roothash=00 debug", "changes PCR 4, 9 and 11", "from assembly"}},
		{"osrel", func(s *spec) { s.osrel = "ID=test\nVERSION_ID=2\n" }, nil, []string{"→ .osrel", "+VERSION_ID=2", "changes PCR 4 and 11"}},
		{"pe-time", func(s *spec) { s.stubTime = 12345 }, nil, []string{"→ headers", "+TimeDateStamp: 12345"}},
		{"pe-checksum", func(s *spec) { s.checksum = 0x1aa6c }, nil, []string{"→ headers", "+CheckSum: 0x0001aa6c"}},
		{"initrd-content", func(s *spec) { s.members[2].data = strings.Replace(passwd, "bash", "zsh!", 1) }, nil,
			[]string{"→ .initrd → /etc/passwd", "from scriptlets", "+root:x:0:0:root:/root:/bin/zsh!"}},
		{"initrd-large", func(s *spec) { s.members[4].data = strings.Repeat("big\x00", 39999) + "BIG\x00" }, nil,
			[]string{"→ .initrd → /big", "the first at byte 159996"}},
		{"initrd-mode", func(s *spec) { s.members[2].Mode = 0o100600 }, nil, []string{"→ .initrd → /etc/passwd", "+mode: 0600"}},
		{"initrd-link", func(s *spec) { s.members[3].data = "usr/lib/systemd/systemd-init" }, nil, []string{"→ .initrd → /init", "+target: usr/lib/systemd/systemd-init"}},
		{"initrd-added", func(s *spec) {
			s.members = append(s.members, member2{cpio.Header{Name: "extra", Mode: 0o100644, Nlink: 1, Mtime: epoch, Ino: 6}, "x"})
		}, nil, []string{"+ esp:/EFI/BOOT/BOOTX64.EFI → .initrd → /extra"}},
		{"initrd-order", func(s *spec) { s.members[3], s.members[4] = s.members[4], s.members[3] }, nil, []string{"the members are the same, in another order"}},
		{"initrd-inode", func(s *spec) { s.members[4].Ino = 77 }, nil, []string{"-/big: inode 5"}},
		{"esp-file", func(s *spec) { s.extra[0] = fatFile("loader/readme.txt", "hallo\n") }, nil, []string{"esp:/loader/readme.txt", "-hello", "+hallo"}},
		{"esp-added", func(s *spec) { s.extra = append(s.extra, fatFile("loader/addon.efi", "x")) }, nil, []string{"+ esp:/loader/addon.efi"}},
		{"fat-serial", func(s *spec) { s.fatOptions.Serial++ }, nil, []string{"esp: boot sector", "+serial: 0x12345679"}},
		{"fat-time", func(s *spec) { s.fatOptions.Time += 86400 }, nil, []string{"esp: folder entry", "+written, date: 2023-11-15"}},
		{"gpt-name", func(s *spec) { s.rootName = "root2" }, nil, []string{"primary entry 2", `+name: "root2"`, "changes PCR 5", "backup entry 2"}},
		{"gpt-disk-id", func(s *spec) { s.diskID = 7 }, nil, []string{"primary header", "disk id", "backup header"}},
		{"verity-uuid", func(s *spec) { s.verityUUID = 7 }, nil, []string{"root-verity: superblock", "+uuid: 07000000-"}},
		{"verity-salt", func(s *spec) { s.salt = 7 }, nil, []string{"+salt: 0707", "root-verity: hash tree", "3 of 3 hash blocks differ"}},
		{"moved", func(s *spec) { s.moved = mib }, nil, []string{"primary entry 2", "+first sector: 71680"}},
		{"larger", func(s *spec) { s.size += mib }, nil, []string{"size: 41943040 and 42991616 bytes"}},

		{"flip-mbr", nil, at(100), []string{"protective MBR", "boot code differs"}},
		{"flip-gpt-header", nil, at(512 + 56), []string{"rebuild: primary partition table: header has CRC", "disk id"}},
		{"flip-gpt-signature", nil, at(512), []string{"rebuild: primary partition table: no header"}},
		{"flip-gpt-entry", nil, at(1024 + 128 + 32), []string{"primary entry 2", "first sector"}},
		{"flip-gpt-unused", nil, at(1024 + 50*128 + 60), []string{"primary entry 51", "not in use"}},
		{"flip-gap", nil, at(mib - 5), []string{"outside of the partitions", "between the partition table and esp (partition 1)", "byte 1048571"}},
		{"flip-gap-end", nil, at(38 * mib), []string{"between root-verity (partition 3) and the end of the disk"}},
		{"flip-backup-header", nil, at(40*mib - 512 + 57), []string{"backup header", "backup partition table: header has CRC", "disk id"}},
		{"flip-backup-entry", nil, at(40*mib - 33*512 + 60), []string{"backup entry 1", "name"}},
		{"flip-fat-boot", nil, at(espAt + 510), []string{"rebuild: no FAT file system", "esp: boot sector", "signature"}},
		{"flip-fat-1", nil, at(espAt + 32*512 + 40), []string{"esp: allocation table 1 of 2"}},
		{"flip-fat-2", nil, func(m mem) mem { return at(espAt + (32+int64(fatSectors(m)))*512 + 40)(m) }, []string{"esp: allocation table 2 of 2", "in no PCR: only"}},
		{"flip-esp-free", nil, at(espAt + espLen - 1000), []string{"esp: between the files", "belongs to no file", "in no PCR"}},
		{"flip-esp-slack", nil, func(m mem) mem { i := bytes.Index(m, []byte("hello\n")); return at(int64(i) + 100)(m) },
			[]string{"esp: between the files"}},
		{"flip-uki-padding", nil, func(m mem) mem { i := bytes.Index(m, []byte("VERSION_ID=1\n")); return at(int64(i) + 100)(m) },
			[]string{"BOOTX64.EFI → padding"}},
		{"flip-uki-magic", nil, func(m mem) mem { i := bytes.Index(m, []byte("PE\x00\x00")); return at(int64(i))(m) },
			[]string{"rebuild: not a PE image"}},
		{"flip-initrd", nil, func(m mem) mem { i := bytes.Index(m, []byte("070701")); return at(int64(i) + 115)(m) },
			[]string{"→ .initrd", "rebuild: damaged behind /"}},
		{"flip-root-before", nil, at(rootAt + 10), []string{"root: between the files"}},
		{"flip-root-magic", nil, at(rootAt + 1024), []string{"rebuild: no EROFS superblock", "root: superblock", "+magic"}},
		{"flip-root-inode", nil, at(rootAt + 1152 + 6), []string{"rebuild: erofs: checksum", "the inode or the folder of /"}},
		{"flip-root-data", nil, func(m mem) mem { return at(rootAt + int64(bytes.Index(m[rootAt:], []byte("0123456789abcdef"))))(m) },
			[]string{"root:/usr/bin/big", "the first at byte 0"}},
		{"flip-root-slack", nil, at(hashAt - 1), []string{"root: between the files", "byte 1048575"}},
		{"flip-verity-magic", nil, at(hashAt), []string{"rebuild: no verity superblock"}},
		{"flip-hash-tree", nil, at(hashAt + 4096 + 3), []string{"root-verity: hash tree", "level 1 of the tree"}},
		{"flip-hash-slack", nil, at(hashAt + mib - 3), []string{"root-verity: around the hash tree"}},
		{"cut", nil, func(m mem) mem { return m[:39*mib] }, []string{"size: 41943040 and 40894464 bytes", "one is the beginning of the other"}},
		{"nothing", nil, func(mem) mem { return nil }, []string{"size: 41943040 and 0 bytes"}},
		{"zeros", nil, func(m mem) mem { return make(mem, len(m)) }, []string{"rebuild: no protective MBR", "root (partition 2)"}},
	}
}

func fatSectors(m mem) uint32 { return binary.LittleEndian.Uint32(m[espAt+36:]) }

func compareDisks(t testing.TB, a, b mem, o Options) []*Node {
	t.Helper()
	nodes, err := Disks(t.Context(), Source{"image", a, int64(len(a)), owner}, Source{"rebuild", b, int64(len(b)), owner}, o)
	if err != nil {
		t.Fatal(err)
	}
	return nodes
}

func text(t testing.TB, nodes []*Node) string {
	t.Helper()
	var sb strings.Builder
	if err := Text(&sb, nodes); err != nil {
		t.Fatal(err)
	}
	return sb.String()
}

func TestDisks(t *testing.T) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			s := baseSpec()
			if c.change != nil {
				c.change(s)
			}
			b := s.build(t)
			if c.bytes != nil {
				b = c.bytes(b)
			}
			got := text(t, compareDisks(t, base(), b, Options{}))
			for _, w := range c.want {
				if !strings.Contains(got, w) {
					t.Errorf("no %q in\n%s", w, got)
				}
			}
			golden(t, c.name, got)
			// The other way round the same is found.
			back := text(t, compareDisks(t, b, base(), Options{}))
			if strings.Count(back, "* ") == 0 && strings.Count(back, "+ ") == 0 && strings.Count(back, "- ") == 0 {
				t.Errorf("the other way round nothing differs")
			}
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name+".txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestEqual(t *testing.T) {
	if nodes := compareDisks(t, base(), baseSpec().build(t), Options{}); nodes != nil {
		t.Errorf("equal disks differ:\n%s", text(t, nodes))
	}
	if nodes := compareDisks(t, nil, nil, Options{}); nodes != nil {
		t.Errorf("empty disks differ:\n%s", text(t, nodes))
	}
}

// TestCompressedInitrd changes a member of initrds of each compression, and
// damages them.
func TestCompressedInitrd(t *testing.T) {
	early := func(t testing.TB, b []byte) []byte { // an archive as it is in front of another
		s := baseSpec()
		s.members = s.members[:3]
		return slices.Concat(s.initrd(t), make([]byte, 512), packZstd(t, b))
	}
	for name, pack := range map[string]func(t testing.TB, b []byte) []byte{"zstd": packZstd, "gzip": packGzip, "xz": packXz, "early": early} {
		t.Run(name, func(t *testing.T) {
			a, b := baseSpec(), baseSpec()
			a.pack, b.pack = pack, pack
			b.members[4].data += "more"
			got := text(t, compareDisks(t, a.build(t), b.build(t), Options{}))
			if !strings.Contains(got, "→ .initrd → /big") || !strings.Contains(got, "size: 160000 and 160004 bytes") {
				t.Errorf("got\n%s", got)
			}
			x, y := a.build(t), a.build(t)
			i := bytes.Index(y, a.initrd(t))
			y[i+len(a.initrd(t))/2] ^= 0xff
			if got := text(t, compareDisks(t, x, y, Options{})); !strings.Contains(got, "→ .initrd") {
				t.Errorf("damaged: got\n%s", got)
			}
		})
	}
}

func packZstd(t testing.TB, b []byte) []byte {
	w, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return w.EncodeAll(b, nil)
}

func packGzip(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func packXz(t testing.TB, b []byte) []byte {
	var out bytes.Buffer
	w, err := xz.NewWriter(&out)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestBounds(t *testing.T) {
	s := baseSpec()
	for i := range 300 {
		name := "etc/" + strings.Repeat("n", 60) + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		s.root = append(s.root, file(name, "new\n"))
	}
	b := s.build(t)
	nodes := compareDisks(t, base(), b, Options{MaxNodes: 100, MaxBytes: 3000})
	count, bytes := 0, 0
	var walk func(n *Node)
	walk = func(n *Node) {
		count++
		if n.UnifiedDiff != nil {
			bytes += len(*n.UnifiedDiff)
		}
		for _, c := range n.Details {
			walk(c)
		}
	}
	for _, n := range nodes {
		walk(n)
	}
	if count > 100+regionNodes || bytes > 3000 {
		t.Errorf("%d nodes with %d bytes", count, bytes)
	}
	got := text(t, nodes)
	if !strings.Contains(got, "more differences are not shown here") || !strings.Contains(got, "the report is long enough") {
		t.Errorf("what was left out is not said:\n%s", got)
	}
}

// failing cannot be read behind an offset.
type failing struct {
	mem
	from int64
}

var errDisk = errors.New("disk on fire")

func (f failing) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.from {
		return 0, errDisk
	}
	return f.mem.ReadAt(p, off)
}

func TestReadError(t *testing.T) {
	a := base()
	_, err := Disks(t.Context(), Source{Disk: a, Size: int64(len(a))}, Source{Disk: failing{a, 5 * mib}, Size: int64(len(a))}, Options{})
	if !errors.Is(err, errDisk) {
		t.Errorf("got %v", err)
	}
}

func TestJSON(t *testing.T) {
	x, y := baseSpec(), baseSpec()
	x.members[4].data, y.members[4].data = string(packGzip(t, []byte("one\n"))), string(packGzip(t, []byte("two\n")))
	b := at(rootAt + 1024)(y.build(t))
	var out bytes.Buffer
	if err := JSON(&out, "image.raw", "rebuild.raw", compareDisks(t, x.build(t), b, Options{})); err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatal(err)
	}
	if v["diffoscope-json-version"] != 1.0 || v["source1"] != "image.raw" || v["unified_diff"] != nil {
		t.Errorf("got %s", out.String())
	}
	tool, err := exec.LookPath("diffoscope")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("diffoscope is not installed")
	}
	name := filepath.Join(t.TempDir(), "diff.json")
	if err := os.WriteFile(name, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := exec.Command(tool, "--text", "-", "--load-existing-diff", name).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() != 1 { // 1: there are differences
		t.Fatalf("diffoscope: %v\n%s", err, exit.Stderr)
	}
	for _, w := range []string{"root: superblock", "magic: 0xe0f5e1e2", "→ .initrd → /big → unpacked", "+two"} {
		if !strings.Contains(string(got), w) {
			t.Errorf("diffoscope shows no %q:\n%s", w, got)
		}
	}
}

// FuzzDisks flips bytes: each 5 bytes are an offset and what to change.
func FuzzDisks(f *testing.F) {
	for _, off := range []uint32{0, 100, 520, 1100, mib - 1, espAt + 11, espAt + 510, espAt + 32*512 + 4, rootAt + 1030, rootAt + 1160, rootAt + 5000, hashAt + 70, hashAt + 5000, 40*mib - 10} {
		f.Add(binary.BigEndian.AppendUint32([]byte{1}, off))
	}
	f.Add([]byte("some bytes at many places of the disk"))
	f.Fuzz(func(t *testing.T, flips []byte) {
		b := bytes.Clone(base())
		for ; len(flips) >= 5; flips = flips[5:] {
			off := binary.BigEndian.Uint32(flips[1:]) % uint32(len(b))
			if flips[0]&1 == 1 { // most of the disk is empty: rather where there is something
				off = off % (64 << 10)
				switch flips[0] >> 6 {
				case 1:
					off += espAt
				case 2:
					off += rootAt
				case 3:
					off += hashAt
				}
			}
			b[off] ^= flips[0]
		}
		nodes := compareDisks(t, base(), b, Options{})
		if equal := bytes.Equal(b, base()); equal != (len(nodes) == 0) {
			t.Errorf("disks are equal: %v, nodes: %d", equal, len(nodes))
		}
		for _, n := range nodes {
			if len(n.Comments) == 0 && len(n.Details) == 0 && n.UnifiedDiff == nil {
				t.Errorf("node %q says nothing", n.Path())
			}
		}
	})
}

// FuzzInitrd compares initrds of any bytes.
func FuzzInitrd(f *testing.F) {
	b := smallSpec().initrd(f)
	for _, seed := range [][]byte{b, b[:200], packZstd(f, b), packGzip(f, b), packXz(f, b), slices.Concat(b, b)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, other []byte) {
		d := newDiffer(t.Context(), Source{Name: "a"}, Source{Name: "b"}, Options{})
		n := &Node{}
		open := func(b []byte) func() io.Reader { return func() io.Reader { return bytes.NewReader(b) } }
		d.initrd(n, spot{path: ".initrd"}, open(b), open(other))
		d.finish(n)
	})
}

// FuzzPE compares PE images of any bytes.
func FuzzPE(f *testing.F) {
	image := smallSpec().uki(f)
	f.Add(image)
	f.Add(image[:0x500])
	f.Add(testStub())
	f.Fuzz(func(t *testing.T, other []byte) {
		d := newDiffer(t.Context(), Source{Name: "a"}, Source{Name: "b"}, Options{})
		n := &Node{}
		section := func(b []byte) *io.SectionReader { return io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))) }
		if d.pe(n, spot{path: "x.efi"}, section(image), section(other)); !bytes.Equal(image, other) && len(n.Details) == 0 && len(n.Comments) == 0 {
			t.Error("nothing is said")
		}
	})
}

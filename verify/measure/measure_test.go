package measure

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/build/image/gpt"
)

func hexOf(b [32]byte) string { return hex.EncodeToString(b[:]) }

func shaOf(b string) string { return hexOf(sha256.Sum256([]byte(b))) }

func measured(t *testing.T, d *testDisk) *Result {
	t.Helper()
	r, err := Disk(bytes.NewReader(d.write(t)), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestConstants compares with what OVMF was seen to measure.
func TestConstants(t *testing.T) {
	r := measured(t, newDisk())
	for got, want := range map[string]string{
		r.PCRs[Bank]["7"]:            "65caf8dd1e0ea7a6347b635d2b379c93b9a1351edc2afc3ecda700e534eb3068",
		Replay(digests(r.Events, 3)): "3d458cfe55cc03ea1f443f1562beec8df51c75e14a9fcf9a7234a13f198e7969",
		r.PCRs[Bank]["12"]:           strings.Repeat("0", 64),
		digests(r.Events, 4)[0]:      "3d6772b4f84ed47595d72a2c4c5ffd15f5bb72c7507fe26f2aaee2c69d5633ba",
		digests(r.Events, 4)[1]:      "df3f619804a92fdb4057192dc43dd748ea778adc52bc498ce80524c014b81119",
		digests(r.Events, 5)[2]:      "d8043d6b7b85ad358eb3b6ae6a873ab7ef23a26352c5dc4faa5aeedacf5eb41b",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if r.Kernel != "6.1.0-test" || r.Stub != "252.39-1~test" || !strings.HasSuffix(r.Cmdline, "roothash="+r.RootHash) {
		t.Errorf("got kernel %q, stub %q, command line %q, root hash %s", r.Kernel, r.Stub, r.Cmdline, r.RootHash)
	}
	if len(r.Partitions) != 3 || r.Partitions[1].Type != "root-x86-64" || r.Partitions[0].Type != "esp" || r.Partitions[2].Start != treeStart {
		t.Errorf("got partitions %+v", r.Partitions)
	}
	if len(r.Assumptions) == 0 {
		t.Error("the result does not say what it takes for granted")
	}
}

// TestStubs has the events of each known stub, by the kind of what differs.
func TestStubs(t *testing.T) {
	const initrd = "an initrd of odd length"
	cpio := func(file, content string) string {
		return string(stubArchive(file, []byte(content)))
	}
	for _, c := range []struct {
		stub    string
		pcrsig  bool
		names   []string
		initrd  string
		cmdline string
	}{
		{"252.39-1~deb12u2", false, []string{".linux", ".osrel", ".cmdline", ".initrd"}, initrd, ""},
		{"252", true, []string{".linux", ".osrel", ".cmdline", ".initrd", ".pcrpkey"}, initrd + "\x00" + cpio("tpm2-pcr-signature.json", "{}") + cpio("tpm2-pcr-public-key.pem", "key"), ""},
		{"254.26", false, []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}, initrd, ""},
		{"254.26", true, []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".pcrpkey"}, initrd + "\x00" + cpio("tpm2-pcr-signature.json", "{}") + cpio("tpm2-pcr-public-key.pem", "key"), ""},
		{"257.13-1~deb13u1", false, []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat"}, initrd + "\x00" + cpio("os-release", "ID=test\n"), ""},
		{"257.9-2.el10", true, []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname", ".sbat", ".pcrpkey"}, initrd + "\x00" + cpio("tpm2-pcr-signature.json", "{}") + cpio("tpm2-pcr-public-key.pem", "key") + cpio("os-release", "ID=test\n"), ""},
	} {
		d := newDisk(func(d *testDisk) {
			d.stub = c.stub
			if c.pcrsig {
				d.sections[".pcrsig"], d.sections[".pcrpkey"] = "{}", "key"
			}
		})
		r := measured(t, d)
		var want []string
		for _, name := range c.names {
			want = append(want, shaOf(name+"\x00"), shaOf(d.sections[name]))
		}
		if got := digests(r.Events, 11); !slices.Equal(got, want) {
			t.Errorf("%s: PCR 11 has %q, want %q", c.stub, got, want)
		}
		if got := digests(r.Events, 9); len(got) != 2 || got[0] != shaOf(string(wide(r.Cmdline))) || got[1] != shaOf(c.initrd) {
			t.Errorf("%s: PCR 9 has %q, want %s for the initrd", c.stub, got, shaOf(c.initrd))
		}
		if got := digests(r.Events, 4); len(got) != 4 {
			t.Errorf("%s: PCR 4 has %d events, want 4", c.stub, len(got))
		}
	}
}

func TestCmdline(t *testing.T) {
	for in, want := range map[string]string{
		"a b":          "a b",
		"a\tb \n":      "a b",
		"a b\x00junk":  "a b",
		"a  b \x00":    "a  b",
		"":             "error",
		" a":           "error",
		"\na":          "error",
		"ä":            "error",
		"a\x7f":        "error",
		"\x00roothash": "error",
	} {
		got, err := passedCmdline([]byte(in))
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%q: got %q, %v, want %q", in, got, err, want)
		}
	}
}

// TestStubArchive has cpio read the archive.
func TestStubArchive(t *testing.T) {
	cpio, err := exec.LookPath("cpio")
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip("cpio is not installed")
	}
	b := stubArchive("os-release", []byte("ID=test\n"))
	cmd := exec.Command(cpio, "-t", "-v", "--quiet", "--numeric-uid-gid")
	cmd.Stdin = bytes.NewReader(b)
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C"}
	out, err := cmd.CombinedOutput()
	if err != nil || len(b)%4 != 0 {
		t.Fatalf("cpio: %v\n%s", err, out)
	}
	want := "dr-xr-xr-x   1 0        0               0 Jan  1  1970 .extra\n-r--r--r--   1 0        0               8 Jan  1  1970 .extra/os-release\n"
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

func TestDiskRefuses(t *testing.T) {
	section := func(name, content string) func(*testDisk) {
		return func(d *testDisk) { d.sections[name] = content }
	}
	stub := func(version string) func(*testDisk) { return func(d *testDisk) { d.stub = version } }
	file := func(path string) func(*testDisk) { return func(d *testDisk) { d.files[path] = "x" } }
	table := func(f func(*gpt.Table)) func(*testDisk) { return func(d *testDisk) { d.change = f } }
	for want, opt := range map[string]func(*testDisk){
		`systemd-stub "253.1" measures is not known; known are 252, 254, 257, 262`: stub("253.1"),
		`systemd-stub "2520" measures`:                                             stub("2520"),
		`systemd-stub "252-25.el9" measures`:                                       stub("252-25.el9"),
		`section ".profile" is not supported`:                                      section(".profile", "ID=a"),
		`section ".ucode" is not supported`:                                        section(".ucode", "u"),
		`no section ".initrd"`:                                                     section(".initrd", ""),
		`no section ".linux"`:                                                      section(".linux", ""),
		`section ".linux": not a PE image`:                                         section(".linux", strings.Repeat("x", 100)),
		"systemd-stub 252 reads no addons":                                         file("EFI/BOOT/BOOTX64.EFI.extra.d/verity.addon.efi"),
		"beside addons, nothing is supported there":                                file("loader/addons/a.cred"),
		`"loader/credentials/a.cred": credentials`:                                 file("loader/credentials/a.cred"),
		"no EFI system partition":                                                  table(func(t *gpt.Table) { t.Partitions[0].Type = gpt.GUID{9} }),
		"no root partition":                                                        table(func(t *gpt.Table) { t.Partitions[1].Type = gpt.GUID{9} }),
		"no root-verity partition":                                                 table(func(t *gpt.Table) { t.Partitions[2].Type = gpt.GUID{9} }),
		"two EFI system partitions":                                                table(func(t *gpt.Table) { t.Partitions[1].Type = gpt.TypeESP }),
		"the root partition has the id":                                            table(func(t *gpt.Table) { t.Partitions[1].ID[0]++ }),
		"the root-verity partition has the id":                                     table(func(t *gpt.Table) { t.Partitions[2].ID[0]++ }),
		"two root hashes":                                                          func(d *testDisk) { d.tail = " roothash=00" },
		"want roothash= and 64 hex digits":                                         func(d *testDisk) { d.cmdline = "verity=" },
		"the command line says 00":                                                 func(d *testDisk) { d.cmdline, d.tail = "roothash="+strings.Repeat("0", 64)+" x=", "" },
		"machine type 0xaa64":                                                      func(d *testDisk) { d.loader = func(b []byte) { b[68], b[69] = 0x64, 0xaa } },
		"no kernel image in EFI/Linux":                                             func(d *testDisk) { d.loader = func(b []byte) { copy(b[0x600:], "#### LoaderInfo: systemd-boot") } },
	} {
		if _, err := Disk(bytes.NewReader(newDisk(opt).write(t)), diskSize); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := Disk(bytes.NewReader(nil), 0); err == nil {
		t.Error("an empty disk has no error")
	}
}

// TestFlippedByte changes one byte of each part of a disk: there is an error,
// or another measurement, or at least another digest of a partition.
func TestFlippedByte(t *testing.T) {
	disk := newDisk().write(t)
	before, err := Disk(bytes.NewReader(disk), diskSize)
	if err != nil {
		t.Fatal(err)
	}
	uki := int64(bytes.Index(disk[espStart:], []byte("systemd-stub 252.39"))) + espStart
	for _, c := range []struct {
		part string
		at   int64
		want string // in the error, or the PCRs that change
	}{
		{"protective MBR", 450, "protective MBR"},
		{"GPT", 512 + 60, "primary partition table"},
		{"GPT entries", 1024 + 20, "primary partition table"},
		{"backup GPT", diskSize - 512 + 60, "backup partition table"},
		{"root", rootStart + 5000, "root partition has the root hash"},
		{"last byte of root", treeStart - 1, "root partition has the root hash"},
		{"superblock's salt", treeStart + 88, "root partition has the root hash"},
		{"hash tree", treeStart + 4096 + 3, "hash block 1 is corrupted"},
		{"code of the stub", uki - 512, "4"},
		{"initrd", int64(bytes.Index(disk, []byte("an initrd of odd"))), "4 9 11"},
		{"os-release", int64(bytes.Index(disk, []byte("ID=test"))), "4 11"},
		{".sbat", int64(bytes.Index(disk, []byte("sbat,1"))), "4"},
		{"free cluster", rootStart - 10, ""},
	} {
		changed := bytes.Clone(disk)
		changed[c.at] ^= 1
		after, err := Disk(bytes.NewReader(changed), diskSize)
		if err != nil {
			if c.want == "" || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want an error with %q", c.part, err, c.want)
			}
			continue
		}
		var pcrs []string
		for _, pcr := range predicted() {
			if n := fmt.Sprint(pcr); before.PCRs[Bank][n] != after.PCRs[Bank][n] {
				pcrs = append(pcrs, n)
			}
		}
		if got := strings.Join(pcrs, " "); got != c.want {
			t.Errorf("%s: changes PCR %q, want %q", c.part, got, c.want)
		}
		if before.Partitions[0].SHA256 == after.Partitions[0].SHA256 {
			t.Errorf("%s: the partition has the same digest", c.part)
		}
	}
}

func TestPhasesAndJSON(t *testing.T) {
	r := measured(t, newDisk())
	login := r.AtLogin([]string{"enter-initrd", "leave-initrd"})
	want := Replay(append(digests(r.Events, 11), shaOf("enter-initrd"), shaOf("leave-initrd")))
	if got := login.PCRs[Bank]["11"]; got != want || got == r.PCRs[Bank]["11"] || got != r.Phases["leave-initrd"][Bank]["11"] {
		t.Errorf("got %s after two phases, want %s; by phase %v", got, want, r.Phases)
	}
	if len(r.Phases) != 4 {
		t.Errorf("got phases %v", r.Phases)
	}
	b, err := r.MeasurementsJSON([]string{"enter-initrd", "leave-initrd"})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(b), fmt.Sprintf(`{"measurements":{"sha256":{"pcr03":"%s","pcr09":"%s","pcr11":"%s","pcr12":"%s"}}}`+"\n",
		Replay(digests(r.Events, 3)), r.PCRs[Bank]["9"], want, r.PCRs[Bank]["12"]); got != want {
		t.Errorf("got  %swant %s", got, want)
	}
	one, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	two, err := json.Marshal(measured(t, newDisk()))
	if err != nil || !bytes.Equal(one, two) {
		t.Errorf("the same disk gave another result: %v", err)
	}
}

func TestCompare(t *testing.T) {
	r := measured(t, newDisk())
	all := map[int][]string{0: {shaOf("firmware")}, 10: {shaOf("ima")}}
	for _, e := range r.Events {
		all[e.PCR] = append(all[e.PCR], e.Digest)
	}
	if got := Compare(r, all); len(got) != 0 {
		t.Errorf("got %v for what was predicted", got)
	}
	all[4] = slices.Insert(all[4], 1, shaOf("another boot option"))
	all[9][1] = shaOf("another initrd")
	all[11] = all[11][:7]
	all[12] = []string{shaOf("an addon")}
	var got []string
	for _, m := range Compare(r, all) {
		got = append(got, m.String())
	}
	text := strings.Join(got, "\n")
	for _, want := range []string{
		"PCR 4, event 1, separator: predicted df3f6198",
		"PCR 4, event 4: measured",
		"PCR 9, event 1, Linux initrd: predicted",
		"PCR 11, event 7, .initrd: predicted",
		"nothing was measured",
		"PCR 12, event 0: measured " + shaOf("an addon") + ", nothing was predicted",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if Replay([]string{"00"}) != "" {
		t.Error("a digest that is none has a value")
	}
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

// TestReadersThatFail fails reads of every part of the disk.
func TestReadersThatFail(t *testing.T) {
	disk := newDisk().write(t)
	for off := int64(0); off < diskSize; off += 1 << 19 {
		r := readerAtFunc(func(p []byte, at int64) (int, error) {
			if at <= off && off < at+int64(len(p)) {
				return 0, iotest.ErrTimeout
			}
			n := copy(p, disk[at:])
			if at+int64(n) == diskSize {
				return n, io.EOF
			}
			return n, nil
		})
		_, err := Disk(r, diskSize)
		if err != nil && !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("byte %d cannot be read: got %v", off, err)
		}
		if err == nil && off >= espStart && off < treeStart+treeSize {
			t.Errorf("byte %d cannot be read: got no error", off)
		}
	}
}

// FuzzDisk changes a sound disk: five bytes of the input are an offset, and
// what is written there.
func FuzzDisk(f *testing.F) {
	disk := newDisk().write(f)
	uki := uint32(bytes.Index(disk[espStart:], []byte("MZ"))) + espStart
	for _, at := range []uint32{0, 512 + 80, espStart + 13, espStart + 0x4000, uki + 60, uki + 0x100, uki + 0x158, treeStart + 72} {
		f.Add(append(binary.BigEndian.AppendUint32(nil, at), 0xff))
	}
	f.Fuzz(func(t *testing.T, patches []byte) {
		over := map[int64]byte{}
		for p := range slices.Chunk(patches[:min(len(patches), 500)], 5) {
			if len(p) == 5 {
				over[int64(binary.BigEndian.Uint32(p))%diskSize] = p[4]
			}
		}
		r := readerAtFunc(func(p []byte, at int64) (int, error) {
			n, err := bytes.NewReader(disk).ReadAt(p, at)
			for off, b := range over {
				if off >= at && off < at+int64(n) {
					p[off-at] = b
				}
			}
			return n, err
		})
		if res, err := Disk(r, diskSize); err == nil && len(res.RootHash) != 64 {
			t.Errorf("got the root hash %q", res.RootHash)
		}
	})
}

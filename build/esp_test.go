package build

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
	"caisson/build/imagefile"
	"caisson/lock"
)

// calledProgram is a program that says it is one of systemd's.
func calledProgram(name string) string {
	return strings.Replace(string(pe()), "systemd-stub 252.39-1~test", fmt.Sprintf("%-26.26s", name+" 257.13-1~test"), 1)
}

const systemdBoot = "usr/lib/systemd/boot/efi/"

// toolPrograms are what a tools set has for every way to boot.
func toolPrograms() []file {
	return []file{
		{path: testStub, mode: 0o644, content: calledProgram("systemd-stub")},
		{path: systemdBoot + "addonx64.efi.stub", mode: 0o644, content: calledProgram("systemd-addon")},
		{path: systemdBoot + "systemd-bootx64.efi", mode: 0o644, content: calledProgram("systemd-boot") + "odd"},
		{path: "usr/lib/shim/shimx64.efi", mode: 0o644, content: string(pe()) + "unsigned"},
		{path: "usr/lib/shim/shimx64.efi.signed", mode: 0o644, content: string(pe()) + "signed"},
		{path: "boot/efi/EFI/BOOT/fbx64.efi", mode: 0o644, content: string(pe()) + "fallback"},
	}
}

// way is an image to assemble: how it boots, and what its roots have for that.
type way struct {
	boot   lock.Boot
	verity string
	tools  []file
	root   []file // beside rootFiles
	arch   string
	sign   esp.Signer
}

// assembleWay assembles a small image.
func assembleWay(t *testing.T, w way) (*disk, error) {
	t.Helper()
	l := testLock()
	l.Image.Output, l.Image.Verity = []string{"raw"}, w.verity
	if w.boot != (lock.Boot{}) {
		l.Image.Boot = &w.boot
	}
	b, err := testBuilder(t.TempDir(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.log.Close() })
	b.Sign = w.sign
	if err := lay(filepath.Join(b.tools, "usr"), nil, false); err != nil {
		t.Fatal(err)
	}
	for _, f := range w.tools {
		put(t, b.tools, f)
	}
	root, initrd, err := testRoots(b, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range w.root {
		if _, err := os.Lstat(filepath.Join(root.dir, f.path)); err == nil {
			if err := os.Remove(filepath.Join(root.dir, f.path)); err != nil {
				t.Fatal(err)
			}
		}
		put(t, root.dir, f)
		for p := f.path; p != "."; p = path.Dir(p) {
			root.ledger.set(p, origin{account: Placed, by: "overlay"})
		}
	}
	ctx := context.Background()
	if err := finish(ctx, b, root, initrd); err != nil {
		t.Fatal(err)
	}
	if w.boot.UKI == lock.UKIVendor {
		initrd = nil
	}
	if w.arch != "" {
		b.Arch = w.arch
	}
	return b.assemble(ctx, root, initrd)
}

// readESP are the entries of an assembled image's ESP.
func readESP(t *testing.T, d *disk) []esp.File {
	t.Helper()
	f, err := os.Open(filepath.Join(d.work, d.imageName()+".raw"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // the entries are read from it
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	_, files, _, err := ReadESP(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// espOf are the files of an assembled image's ESP.
func espOf(t *testing.T, d *disk) map[string][]byte {
	t.Helper()
	files := readESP(t, d)
	out := map[string][]byte{}
	for _, x := range files {
		b, err := io.ReadAll(x.Content)
		if err != nil {
			t.Fatal(err)
		}
		out[x.Path] = b
	}
	return out
}

// section is a section of a program, without what pads it.
func section(t *testing.T, program []byte, name string) string {
	t.Helper()
	im, err := uki.Read(bytes.NewReader(program), int64(len(program)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := im.Section(name)
	if err != nil || s == nil {
		t.Fatalf("section %s: %v, %v", name, s, err)
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWays assembles every way to boot, on both architectures.
func TestWays(t *testing.T) {
	vendor := []file{{path: kernelDir + "/vmlinuz-virt.efi", mode: 0o644, content: vendorUKI(t)}}
	const own = "console=ttyS0 ro rootfstype=erofs"
	for _, tt := range []struct {
		name      string
		w         way
		programs  map[string]string // on the ESP, to the end of their content
		uki       string
		addon     string // the command line of the addon; the root hash is H
		ukiHas    string
		cmdline   string
		otherFile map[string]string
	}{
		{"the UKI itself", way{}, nil, "EFI/BOOT/BOOTX64.EFI", "", own + " H", own + " H", nil},
		{"the UKI itself, and an addon", way{verity: lock.VerityAddon}, nil, "EFI/BOOT/BOOTX64.EFI", "H", own, own + " H", nil},
		{"an addon of our own stub", way{verity: lock.VerityAddon, tools: slices.DeleteFunc(toolPrograms(), func(f file) bool { return strings.Contains(f.path, "addon") })}, nil, "EFI/BOOT/BOOTX64.EFI", "H", own, own + " H", nil},
		{
			"systemd-boot", way{boot: lock.Boot{Loader: lock.LoaderSystemdBoot}}, map[string]string{"EFI/BOOT/BOOTX64.EFI": "odd"},
			"EFI/Linux/small.efi", "", own + " H", own + " H", map[string]string{"loader/loader.conf": loaderConf},
		},
		{
			"shim", way{boot: lock.Boot{Loader: lock.LoaderShim, NoFallback: true}, verity: lock.VerityAddon},
			map[string]string{"EFI/BOOT/BOOTX64.EFI": "signed"}, "EFI/BOOT/grubx64.efi", "H", own, own + " H", nil,
		},
		{
			"shim with its fallback, a vendor's UKI", way{boot: lock.Boot{Loader: lock.LoaderShim, UKI: lock.UKIVendor}, verity: lock.VerityAddon, root: vendor},
			map[string]string{"EFI/BOOT/BOOTX64.EFI": "signed", "EFI/BOOT/fbx64.efi": "fallback", "EFI/small/shimx64.efi": "signed"},
			"EFI/Linux/small.efi", own + " H", "vendor's own", "vendor's own " + own + " H",
			map[string]string{"EFI/small/BOOTX64.CSV": string(utf16Text("shimx64.efi,small,\\EFI\\Linux\\small.efi ,UKI bootentry\n"))},
		},
		{
			"files given", way{
				boot: lock.Boot{Loader: lock.LoaderSystemdBoot, Files: lock.BootFiles{Loader: "/opt/*.efi", Stub: "/opt/stub"}},
				root: []file{{path: "opt/a.efi", mode: 0o644, content: calledProgram("systemd-boot") + "mine"}, {path: "opt/stub", mode: 0o644, content: calledProgram("systemd-stub")}},
			},
			map[string]string{"EFI/BOOT/BOOTX64.EFI": "mine"}, "EFI/Linux/small.efi", "", own + " H", own + " H", map[string]string{"loader/loader.conf": loaderConf},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.w.verity == "" {
				tt.w.verity = lock.VerityUKI
			}
			if tt.w.tools == nil {
				tt.w.tools = toolPrograms()
			}
			d, err := assembleWay(t, tt.w)
			if err != nil {
				t.Fatal(err)
			}
			h := func(s string) string { return strings.ReplaceAll(s, "H", d.rootHash()) }
			files := espOf(t, d)
			want := 1 + len(tt.programs) + len(tt.otherFile)
			for p, end := range tt.programs {
				if !bytes.HasSuffix(files[p], []byte(end)) {
					t.Errorf("%s: %d bytes, want them to end with %q", p, len(files[p]), end)
				}
			}
			for p, text := range tt.otherFile {
				if string(files[p]) != text {
					t.Errorf("%s: got %q, want %q", p, files[p], text)
				}
			}
			if got := strings.TrimRight(section(t, files[tt.uki], ".cmdline"), "\x00"); got != h(tt.ukiHas) {
				t.Errorf("the UKI's command line is %q, want %q", got, h(tt.ukiHas))
			}
			if tt.addon != "" {
				want++
				if got := section(t, files[tt.uki+".extra.d/verity.addon.efi"], ".cmdline"); got != h(tt.addon) {
					t.Errorf("the addon's command line is %q, want %q", got, h(tt.addon))
				}
			}
			if img := d.describe(); img.Cmdline != h(tt.cmdline) || img.Kernel != "6.1.0-test" {
				t.Errorf("image.json has %q and kernel %q, want %q", img.Cmdline, img.Kernel, h(tt.cmdline))
			}
			if len(files) != want || len(d.sums) != want {
				t.Errorf("%d files on the ESP, %d accounted for, want %d: %v", len(files), len(d.sums), want, d.sums)
			}
		})
	}
}

// vendorUKI is a UKI as a vendor ships it, with a command line of its own.
func vendorUKI(t *testing.T) string {
	t.Helper()
	stub := calledProgram("systemd-stub")
	var b bytes.Buffer
	_, err := uki.Write(&b, strings.NewReader(stub), int64(len(stub)), []uki.Section{
		uki.TextSection(".osrel", "ID=vendor\n"), uki.TextSection(".cmdline", "vendor's own\x00"), uki.TextSection(".uname", "6.1.0-test"),
		uki.TextSection(".initrd", "initrd"), uki.TextSection(".linux", "kernel"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestArm64Names looks for arm64's names, and unpacks its kernel.
func TestArm64Names(t *testing.T) {
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	if _, err := z.Write([]byte(calledProgram("a kernel"))); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	programs := []file{{path: kernelDir + "/vmlinuz", mode: 0o644, content: packed.String()}}
	tools := toolPrograms()
	for i := range tools {
		tools[i].path = strings.ReplaceAll(tools[i].path, "x64", "aa64")
	}
	d, err := assembleWay(t, way{boot: lock.Boot{Loader: lock.LoaderShim}, verity: lock.VerityAddon, tools: tools, root: programs, arch: "aarch64"})
	if err != nil {
		t.Fatal(err)
	}
	files := espOf(t, d)
	for _, p := range []string{
		"EFI/BOOT/BOOTAA64.EFI", "EFI/BOOT/fbaa64.efi", "EFI/small/shimaa64.efi", "EFI/small/BOOTAA64.CSV", "EFI/Linux/small.efi", "EFI/Linux/small.efi.extra.d/verity.addon.efi",
	} {
		if files[p] == nil {
			t.Errorf("there is no %s", p)
		}
	}
	if got := string(files["EFI/small/BOOTAA64.CSV"]); got != string(utf16Text("shimaa64.efi,small,\\EFI\\Linux\\small.efi ,UKI bootentry\n")) {
		t.Errorf("got %q", got)
	}
	if got := section(t, files["EFI/Linux/small.efi"], ".linux"); got != calledProgram("a kernel") {
		t.Errorf("the kernel is not unpacked: %d bytes", len(got))
	}
	if d, err = assembleWay(t, way{boot: lock.Boot{Loader: lock.LoaderShim, NoFallback: true}, verity: lock.VerityAddon, tools: tools, arch: "aarch64"}); err != nil || espOf(t, d)["EFI/BOOT/grubaa64.efi"] == nil {
		t.Errorf("there is no grubaa64.efi: %v", err)
	}
}

func TestWaysErrors(t *testing.T) {
	without := func(names ...string) []file {
		return slices.DeleteFunc(toolPrograms(), func(f file) bool { return slices.Contains(names, path.Base(f.path)) })
	}
	for _, tt := range []struct {
		name string
		w    way
		want string
	}{
		{"no stub", way{tools: without("linuxx64.efi.stub")}, "neither the tools nor the root have /usr/lib/systemd/boot/efi/linuxx64.efi.stub: it is for the EFI stub: add its package"},
		{"no addon stub", way{tools: without("addonx64.efi.stub"), verity: lock.VerityAddon, boot: lock.Boot{Files: lock.BootFiles{Addon: "/a"}}}, "neither the tools nor the root have /a: it is for the EFI stub of addons"},
		{"no shim", way{tools: without("shimx64.efi", "shimx64.efi.signed"), boot: lock.Boot{Loader: lock.LoaderShim}}, "/usr/lib/shim/shimx64.efi: it is for shim: add its package"},
		{"no vendor's UKI", way{tools: toolPrograms(), boot: lock.Boot{UKI: lock.UKIVendor}, verity: lock.VerityAddon}, "/usr/lib/modules/*/*.efi: it is for a vendor's UKI: add its package, such as kernel-uki-virt"},
		{"two of them", way{
			tools: toolPrograms(), boot: lock.Boot{UKI: lock.UKIVendor}, verity: lock.VerityAddon,
			root: []file{{path: "usr/lib/modules/1/a.efi", mode: 0o644, content: "x"}, {path: "usr/lib/modules/1/b.efi", mode: 0o644, content: "x"}},
		}, "the root has several of /usr/lib/modules/*/*.efi (usr/lib/modules/1/a.efi, usr/lib/modules/1/b.efi): image.boot.files says which"},
		{"a link out of the tools", way{tools: append(without("linuxx64.efi.stub"), file{path: testStub, mode: os.ModeSymlink, content: "../../../../../../../../../../etc/passwd"})}, "tools set: /usr/lib/systemd/boot/efi/linuxx64.efi.stub: openat etc/passwd: no such file"},
		{"the stub is none", way{tools: append(without("linuxx64.efi.stub"), file{path: testStub, mode: 0o644, content: "text"})}, "reading the stub: "},
		{"the addon's stub is another", way{tools: append(without("addonx64.efi.stub"), file{path: systemdBoot + "addonx64.efi.stub", mode: 0o644, content: calledProgram("systemd-stub")}), verity: lock.VerityAddon}, `its .sdmagic says "systemd-stub", want "systemd-addon"`},
		{"no kernel", way{tools: toolPrograms(), root: []file{{path: kernelDir + "/vmlinuz", mode: 0o644, content: "no kernel"}}}, "/usr/lib/modules/6.1.0-test/vmlinuz: firmware cannot start it: reading the DOS header"},
		{"a broken archive", way{tools: toolPrograms(), root: []file{{path: kernelDir + "/vmlinuz", mode: 0o644, content: "\x1f\x8bx"}}}, "/usr/lib/modules/6.1.0-test/vmlinuz: unexpected EOF"},
		{"a distribution with a path", way{
			tools: toolPrograms(), boot: lock.Boot{Loader: lock.LoaderShim}, root: []file{{path: "etc/os-release", mode: 0o644, content: "ID=../x\n"}},
		}, `/etc/os-release: ID "../x" cannot be the name of the distribution's folder on the ESP`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.w.verity == "" {
				tt.w.verity = lock.VerityUKI
			}
			if _, err := assembleWay(t, tt.w); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func testKey(t *testing.T) *authenticode.Key {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile("image/authenticode/testdata/" + name)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	certs, err := authenticode.ParseCertificates(read("cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := authenticode.ParseKey(read("key.pem"), certs)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// toSign opens a disk, and a file for what becomes of it.
func toSign(t *testing.T, name string) (disk *os.File, size int64, scratch *os.File) {
	t.Helper()
	disk, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { disk.Close() })
	st, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if scratch, err = os.CreateTemp(t.TempDir(), ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { scratch.Close() })
	return disk, st.Size(), scratch
}

// TestSignedLater has an image signed as it is built, and later: the same bytes
// and accounts. What was signed differs from what was not in the ESP alone.
func TestSignedLater(t *testing.T) {
	w := way{boot: lock.Boot{Loader: lock.LoaderSystemdBoot}, verity: lock.VerityAddon, tools: toolPrograms()}
	plain, err := assembleWay(t, w)
	if err != nil {
		t.Fatal(err)
	}
	w.sign = esp.ByKey(testKey(t), nil)
	at, err := assembleWay(t, w)
	if err != nil {
		t.Fatal(err)
	}
	if len(at.signed) != 3 || len(plain.signed) != 0 {
		t.Fatalf("%d programs are signed, and %d of the plain image; want 3 and none", len(at.signed), len(plain.signed))
	}
	raw := func(d *disk) string { return filepath.Join(d.work, "small.raw") }
	f, size, scratch := toSign(t, raw(plain))
	later, err := SignDisk(f, size, w.sign, scratch)
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"raw", "qcow2"} {
		name := filepath.Join(t.TempDir(), "later")
		if err := later.WriteFile(context.Background(), name, format); err != nil {
			t.Fatal(err)
		}
		want := raw(at)
		if format == "qcow2" {
			want = filepath.Join(t.TempDir(), "want")
			b, err := os.Open(raw(at))
			if err != nil {
				t.Fatal(err)
			}
			defer b.Close()
			if err := WriteImage(context.Background(), want, b, size, imagefile.Options{Format: format}); err != nil {
				t.Fatal(err)
			}
		}
		a, err := describe(name)
		if err != nil {
			t.Fatal(err)
		}
		b, err := describe(want)
		if err != nil || a.SHA256 != b.SHA256 {
			t.Errorf("%s: signed later it is %s, as it was built %s, %v", format, a.SHA256, b.SHA256, err)
		}
	}
	for _, p := range at.partitions {
		i := slices.IndexFunc(plain.partitions, func(q Partition) bool { return q.Name == p.Name })
		if same := p == plain.partitions[i]; same == (p.Name == "esp") {
			t.Errorf("partition %s: the same is %t", p.Name, same)
		}
	}
	files := slices.Clone(plain.sums)
	for i := range files {
		files[i].Account = Vendor
	}
	if err := noteSigned(files, later.files, later.Programs); err != nil {
		t.Fatal(err)
	}
	for i, f := range files {
		signed := strings.HasSuffix(strings.ToLower(f.Path), ".efi")
		if want := at.sums[i]; f.SHA256.Hex() != want.SHA256.Hex() || f.Size != want.Size || f.SHA1 != want.SHA1 || (f.Account == Changed) != signed {
			t.Errorf("%s: got %+v, want %+v", f.Path, f, want)
		}
	}
	// One byte in a cluster that no file has, and it is no longer ours.
	other := patched{f, bytes.NewReader([]byte{1}), at.esp.end() - 1, at.esp.end()}
	if _, err := SignDisk(other, size, w.sign, scratch); !errors.Is(err, esp.ErrOther) {
		t.Errorf("got %v, want %v", err, esp.ErrOther)
	}
}

// TestSignedFolder signs an image in the folder of a build.
func TestSignedFolder(t *testing.T) {
	d, err := assembleWay(t, way{verity: lock.VerityUKI, tools: toolPrograms()})
	if err != nil {
		t.Fatal(err)
	}
	from, image := d.work, filepath.Join(d.work, "small.raw")
	img := d.describe()
	for i := range d.sums {
		d.sums[i].Account = Generated
	}
	if err := writeJSON(filepath.Join(from, "files.json"), d.sums); err != nil {
		t.Fatal(err)
	}
	img.Totals = totals(d.sums)
	for _, name := range []string{"files.json", "small.vmlinuz"} {
		if name != "files.json" {
			if err := os.WriteFile(filepath.Join(from, name), []byte(name), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		o, err := describe(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		img.Files = append(img.Files, o)
	}
	f, size, scratch := toSign(t, image)
	signed, err := SignDisk(f, size, esp.ByKey(testKey(t), nil), scratch)
	if err != nil {
		t.Fatal(err)
	}
	to := t.TempDir()
	if err := os.WriteFile(filepath.Join(to, "image.json"), []byte("of another image"), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := signed.WriteFolder(context.Background(), img, image, to)
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Files) != 3 || got.Files[0].SHA256 == img.Files[0].SHA256 || got.Files[2] != img.Files[2] || len(got.Signed) != 1 || got.Totals[Generated].Bytes <= img.Totals[Generated].Bytes {
		t.Errorf("got %+v", got)
	}
	for _, o := range got.Files {
		if now, err := describe(filepath.Join(to, o.Name)); err != nil || now != o {
			t.Errorf("%s is %+v, %v, described as %+v", o.Name, now, err, o)
		}
	}
	if _, err := os.Lstat(filepath.Join(to, "image.json")); err == nil {
		t.Error("what describes another image is still there")
	}
	for name, want := range map[string]string{"small.vmlinuz": "small.vmlinuz is sha256:", "files.json": "files.json is sha256:", "small.raw": "small.raw is sha256:"} {
		was, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(from, name), append(was[:len(was):len(was)], 'x'), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := signed.WriteFolder(context.Background(), img, image, t.TempDir()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s changed: got %v, want an error with %q", name, err, want)
		}
		if err := os.WriteFile(filepath.Join(from, name), was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestKernelTraits has the kernel say whether the image is marked NX_COMPAT, and
// what its levels of revocation are.
func TestKernelTraits(t *testing.T) {
	marked := []byte(calledProgram("a kernel"))
	binary.LittleEndian.PutUint16(marked[88+70:], 0x100)
	stub := slices.Clone(marked)
	copy(stub[0x400+512:], "#### LoaderInfo: systemd-stub 257.13-1~test ####\x00")
	tools := append([]file{{path: testStub, mode: 0o644, content: string(stub)}}, toolPrograms()[1:]...)
	for _, tt := range []struct {
		kernel []byte
		nx     bool
	}{{marked, true}, {[]byte(calledProgram("a kernel")), false}} {
		d, err := assembleWay(t, way{tools: tools, verity: lock.VerityUKI, root: []file{{path: kernelDir + "/vmlinuz", mode: 0o644, content: string(tt.kernel)}}})
		if err != nil {
			t.Fatal(err)
		}
		b := espOf(t, d)["EFI/BOOT/BOOTX64.EFI"]
		if nx := binary.LittleEndian.Uint16(b[88+70:])&0x100 != 0; nx != tt.nx {
			t.Errorf("the UKI's mark is %t, the kernel's %t", nx, tt.nx)
		}
		if got := section(t, b, ".sbat"); !strings.HasPrefix(got, "sbat,1,") || !strings.Contains(got, "\nuki,1,UKI,") {
			t.Errorf("got %q", got)
		}
	}
}

// TestReadOnlySeed has a stub that would add a secret to the initrd kept from it,
// and one that would not have it left alone.
func TestReadOnlySeed(t *testing.T) {
	for version, want := range map[string]bool{"262-1": true, "257-1": false} {
		stub := []byte(calledProgram("a stub"))
		copy(stub[0x400+512:], "#### LoaderInfo: systemd-stub "+version+" ####\x00")
		tools := append([]file{{path: testStub, mode: 0o644, content: string(stub)}}, toolPrograms()[1:]...)
		d, err := assembleWay(t, way{tools: tools, verity: lock.VerityUKI})
		if err != nil {
			t.Fatal(err)
		}
		files := readESP(t, d)
		i := slices.IndexFunc(files, func(f esp.File) bool { return f.Path == "loader/random-seed" })
		if (i >= 0) != want || want && (!files[i].ReadOnly || files[i].Content.Size() != 0) {
			t.Errorf("%s: got %+v", version, files)
		}
	}
}

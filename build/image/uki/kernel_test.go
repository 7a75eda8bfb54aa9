package uki

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kernelWith is a kernel that firmware could start, with revocation levels.
func kernelWith(t *testing.T, sbat string, nx bool) []byte {
	t.Helper()
	b := testStub(0x400)
	if sbat != "" {
		b = write(t, b, []Section{section(".sbat", sbat)})
	}
	if nx {
		at := 88 + optDLLCharacteristics
		binary.LittleEndian.PutUint16(b[at:], binary.LittleEndian.Uint16(b[at:])|nxCompat)
	}
	return b
}

func sectionText(t *testing.T, b []byte, name string) string {
	t.Helper()
	im, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := im.Section(name)
	if err != nil || s == nil {
		t.Fatalf("section %s: %v, %v", name, s, err)
	}
	return string(all(t, s.Open()))
}

// TestSBAT merges the levels of stub and kernel, and puts them in place of the
// stub's, where there is room and where there is none.
func TestSBAT(t *testing.T) {
	const own, kernels = sbatHeader + "systemd,1,The systemd Developers,systemd,257,https://systemd.io/\n", "sbat,1,SBAT Version,sbat,1,x\nlinux,1,Test,linux,6.16,mailto:x@y.example\n"
	stub := write(t, testStub(0x400), []Section{section(".sbat", own)})
	k, err := ReadKernel(bytes.NewReader(kernelWith(t, kernels+"\x00\x00", true)), int64(len(kernelWith(t, kernels+"\x00\x00", true))))
	if err != nil || !k.NX || k.SBAT != kernels {
		t.Fatalf("got %+v, %v", k, err)
	}
	merged, err := SBAT(bytes.NewReader(stub), int64(len(stub)), k)
	want := own + "linux,1,Test,linux,6.16,mailto:x@y.example\n" + ukiSBAT
	if err != nil || merged != want {
		t.Errorf("got %q, %v, want %q", merged, err, want)
	}
	image := write(t, stub, append(testSections(), section(".sbat", merged)))
	if got := sectionText(t, image, ".sbat"); got != want {
		t.Errorf("the image has %q", got)
	}
	if got := sectionText(t, image, ".oldsbat"); got != own {
		t.Errorf("the stub's was %q, is %q", own, got)
	}
	if _, err := Size(bytes.NewReader(stub), int64(len(stub)), []Section{section(".sbat", "a"), section(".sbat", "b")}); err == nil || err.Error() != `two sections ".sbat"` {
		t.Errorf("two of them: got %v", err)
	}
	plain, err := SBAT(bytes.NewReader(testStub(0x400)), int64(len(testStub(0x400))), Kernel{})
	if err != nil || plain != sbatHeader+ukiSBAT {
		t.Errorf("of a stub and a kernel without: got %q, %v", plain, err)
	}
	if _, err := ReadKernel(strings.NewReader("\x1f\x8b"), 2); err == nil {
		t.Error("an archive passes for a kernel")
	}
}

func TestNX(t *testing.T) {
	marked := kernelWith(t, "", true) // as good as a stub
	linux := section(".linux", "kernel")
	for _, clear := range []bool{false, true} {
		linux.NoNX = clear
		b := write(t, marked, []Section{linux})
		if got := binary.LittleEndian.Uint16(b[88+optDLLCharacteristics:])&nxCompat != 0; got == clear {
			t.Errorf("the kernel has no mark is %t: the image's is %t", clear, got)
		}
	}
}

// TestUkify compares a UKI and an addon with those of systemd's ukify, which
// CAISSON_UKIFY names (the script; it wants python3-pefile), by the stubs that
// CAISSON_STUB and CAISSON_ADDON_STUB name.
func TestUkify(t *testing.T) {
	ukify, stubName, addonName := os.Getenv("CAISSON_UKIFY"), os.Getenv("CAISSON_STUB"), os.Getenv("CAISSON_ADDON_STUB")
	if ukify == "" || stubName == "" || addonName == "" {
		t.Skip("CAISSON_UKIFY, CAISSON_STUB and CAISSON_ADDON_STUB name nothing to compare with")
	}
	dir := t.TempDir()
	file := func(name string, b []byte) string {
		full := filepath.Join(dir, name)
		if err := os.WriteFile(full, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return full
	}
	run := func(args ...string) []byte {
		out := filepath.Join(dir, "out.efi")
		args = append([]string{ukify, "build", "--output=" + out}, args...)
		if text, err := exec.Command("/usr/bin/python3", args...).CombinedOutput(); err != nil {
			t.Fatalf("ukify: %v\n%s", err, text)
		}
		b, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	stub, err := os.ReadFile(stubName)
	if err != nil {
		t.Fatal(err)
	}
	kernel := kernelWith(t, "", false)
	k, err := ReadKernel(bytes.NewReader(kernel), int64(len(kernel)))
	if err != nil {
		t.Fatal(err)
	}
	sbat, err := SBAT(bytes.NewReader(stub), int64(len(stub)), k)
	if err != nil {
		t.Fatal(err)
	}
	linux := section(".linux", string(kernel))
	linux.NoNX = !k.NX
	ours := write(t, stub, []Section{section(".osrel", "ID=x\n"), section(".cmdline", "quiet"), section(".uname", "6.1"), section(".sbat", sbat), section(".initrd", "initrd"), linux})
	theirs := run("--stub="+stubName, "--linux="+file("linux", kernel), "--initrd="+file("initrd", []byte("initrd")), "--os-release=@"+file("osrel", []byte("ID=x\n")), "--cmdline=quiet", "--uname=6.1")
	same := func(ours, theirs []byte, names ...string) {
		t.Helper()
		for _, n := range names {
			a, b := sectionText(t, ours, n), sectionText(t, theirs, n)
			if strings.TrimRight(a, "\n\x00") != strings.TrimRight(b, "\n\x00") {
				t.Errorf("%s: ours is %q, ukify's %q", n, a, b)
			}
		}
		at := 88 - 64 + optDLLCharacteristics
		mark := func(b []byte) uint16 {
			return binary.LittleEndian.Uint16(b[int(binary.LittleEndian.Uint32(b[60:]))+at:]) & nxCompat
		}
		if mark(ours) != mark(theirs) {
			t.Errorf("NX_COMPAT: ours is %x, ukify's %x", mark(ours), mark(theirs))
		}
	}
	same(ours, theirs, ".osrel", ".cmdline", ".uname", ".sbat", ".initrd", ".linux", ".text", ".sdmagic")
	addonStub, err := os.ReadFile(addonName)
	if err != nil {
		t.Fatal(err)
	}
	addon, err := Addon(addonStub, AddonOptions{Cmdline: "roothash=00"})
	if err != nil {
		t.Fatal(err)
	}
	same(addon, run("--stub="+addonName, "--cmdline=roothash=00"), ".cmdline", ".sbat", ".text", ".sdmagic")
}

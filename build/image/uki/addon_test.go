package uki

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// addonStubs are one that is made here, and systemd's where CAISSON_ADDON_STUB
// names it.
func addonStubs(t *testing.T) map[string][]byte {
	t.Helper()
	made := bytes.Replace(testStub(0x400), []byte("systemd-stub 252.39-1~test"), []byte("systemd-addon 257.13-test_"), 1)
	all := map[string][]byte{"made": made}
	if name := os.Getenv("CAISSON_ADDON_STUB"); name != "" {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		all[name] = b
	}
	return all
}

func TestAddon(t *testing.T) {
	for name, stub := range addonStubs(t) {
		t.Run(name, func(t *testing.T) {
			b, err := Addon(stub, AddonOptions{Cmdline: "roothash=00 systemd.volatile=overlay", Uname: "6.1.0"})
			if err != nil {
				t.Fatal(err)
			}
			im, err := Read(bytes.NewReader(b), int64(len(b)))
			if err != nil {
				t.Fatal(err)
			}
			for section, want := range map[string]string{
				".cmdline": "roothash=00 systemd.volatile=overlay", ".uname": "6.1.0", ".sbat": sbatHeader + AddonSBAT,
			} {
				s, err := im.Section(section)
				if err != nil || s == nil {
					t.Fatalf("%s: %v, %v", section, s, err)
				}
				if got, err := io.ReadAll(s.Open()); err != nil || string(got) != want {
					t.Errorf("%s: got %q, %v, want %q", section, got, err, want)
				}
			}
			file := filepath.Join(t.TempDir(), "addon.efi")
			if err := os.WriteFile(file, b, 0o600); err != nil {
				t.Fatal(err)
			}
			out, err := exec.Command(tooltest.Find(t, "objdump"), "-h", file).CombinedOutput()
			if err != nil || !strings.Contains(string(out), ".sbat") {
				t.Errorf("objdump: %v\n%s", err, out)
			}
		})
	}
}

func TestAddonErrors(t *testing.T) {
	good := addonStubs(t)["made"]
	for _, tt := range []struct {
		stub []byte
		o    AddonOptions
		want string
	}{
		{testStub(0x400), AddonOptions{Cmdline: "a"}, `reading the addon's stub: its .sdmagic says "systemd-stub", want "systemd-addon"`},
		{good[:100], AddonOptions{Cmdline: "a"}, "reading the addon's stub: reading the PE header: bytes 64 to 200 of a file of 100: unexpected EOF"},
		{make([]byte, maxAddonStub+1), AddonOptions{Cmdline: "a"}, "reading the addon's stub: 1048577 bytes, more than 1048576"},
		{good, AddonOptions{Cmdline: " "}, "an addon without a command line"},
		{good, AddonOptions{Cmdline: "a\x00b"}, `section ".cmdline" of 3 bytes: want text of at most 65536`},
		{good, AddonOptions{Cmdline: "a", SBAT: strings.Repeat("x", maxAddonText)}, `section ".sbat" of 65612 bytes: want text of at most 65536`},
	} {
		if _, err := Addon(tt.stub, tt.o); err == nil || err.Error() != tt.want {
			t.Errorf("got %v, want %s", err, tt.want)
		}
	}
}

package uki

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock/tooltest"
)

// TestAddonStub has objdump read the code of the stub, which returns
// 0x8000000000000003, and makes an addon of it.
func TestAddonStub(t *testing.T) {
	for _, c := range []struct {
		machine      uint16
		golden, code string
	}{
		{MachineAMD64, "c4a274a203467e5ccf613dffd77d12f0864442a48e1ca0d8004d78c72f342735", "movabs $0x8000000000000003,%rax"},
		{MachineARM64, "875b22701e7d466dc1841141106e8b28c18fde4d5c0bfa33300d9aadae8ba64e", ""},
	} {
		b, err := AddonStub(c.machine)
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(b)); got != c.golden {
			t.Errorf("got digest %s", got)
		}
		im, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil || im.Machine != c.machine {
			t.Fatalf("got %v, %v", im, err)
		}
		if name, version, err := im.LoaderInfo(); !IsAddon(name) || version != "1" || err != nil {
			t.Errorf("got %q %q, %v", name, version, err)
		}
		addon, err := Addon(b, AddonOptions{Cmdline: "roothash=00"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Authenticode(bytes.NewReader(addon), int64(len(addon))); err != nil {
			t.Error(err)
		}
		if c.code == "" {
			continue // objdump of one machine knows no other's code
		}
		file := filepath.Join(t.TempDir(), "stub.efi")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(tooltest.Find(t, "objdump"), "-d", file).CombinedOutput()
		if err != nil || !strings.Contains(string(out), c.code) || !strings.Contains(string(out), "ret") {
			t.Errorf("objdump: %v\n%s", err, out)
		}
	}
	if _, err := AddonStub(0x14c); err == nil {
		t.Error("a stub was made for i386")
	}
}

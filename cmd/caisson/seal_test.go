package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"caisson/build/seal/vendortest"
)

// makeVendor makes a vendor's disk in that folder, for those who test the
// command.
func makeVendor(t *testing.T) string {
	loader := strings.Replace(string(vendortest.Stub(t, "257")), "systemd-stub 257", "systemd-boot 257", 1)
	return vendortest.Disk(t, 0, vendortest.ESP(t, map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": []byte(loader), "EFI/Linux/vendor.efi": vendortest.UKI(t, "257.13-1", "console=ttyS0"),
	}), vendortest.Root(t, "ext4", 20))
}

// TestSeal runs the scripts of testdata/seal on a vendor's disk, $VENDOR.
func TestSeal(t *testing.T) {
	for _, name := range []string{"qemu-img", "mkfs.ext4", "veritysetup"} {
		vendortest.Tool(t, name)
	}
	vendor := makeVendor(t)
	testscript.Run(t, testscript.Params{
		Dir: "testdata/seal",
		Setup: func(e *testscript.Env) error {
			e.Setenv("VENDOR", vendor)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){"exits": cmdExits, "nostdout": cmdNoStdout},
	})
}

// TestSealJSON compares what --json says with what was written.
func TestSealJSON(t *testing.T) {
	vendor := makeVendor(t)
	bin, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	link := filepath.Join(dir, "caisson") // by which testscript.Main knows what to run
	if err := os.Symlink(bin, link); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) []byte {
		cmd := exec.Command(link, args...)
		cmd.Env = append(os.Environ(), "SOURCE_DATE_EPOCH=1700000000")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return out
	}
	image := filepath.Join(dir, "sealed.vhd")
	var s sealed
	if err := json.Unmarshal(run("seal", vendor, "-o", image, "--json", "--free", "1M"), &s); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(image)
	if err != nil {
		t.Fatal(err)
	}
	if s.Output.Format != "vhd" || s.Output.Size != st.Size() || st.Size() != s.DiskSize+512 || len(s.Input.Files) != 1 || s.Input.Format != "raw" {
		t.Errorf("got %+v", s)
	}
	if got := strings.Fields(vendortest.Run(t, "sha256sum", image))[0]; "sha256:"+got != s.Output.SHA256.String() {
		t.Errorf("the digest is %s, --json says %s", got, s.Output.SHA256)
	}
	var m struct {
		RootHash string
		Events   []struct{ Name, Digest string }
		PCRs     map[string]map[string]string
		Cmdline  string
	}
	text := run("measure", image, "--json")
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	if m.RootHash != s.RootHash || !strings.HasSuffix(m.Cmdline, " "+s.Cmdline) {
		t.Errorf("measured %+v, sealed %+v", m, s)
	}
	// The addon's PE hash is one of what the firmware measures.
	if !strings.Contains(string(text), s.Addon.Authenticode) {
		t.Errorf("nothing that is measured has the hash %s", s.Addon.Authenticode)
	}
	if fmt.Sprint(s.Warnings) != "[]" {
		t.Errorf("warnings %q", s.Warnings)
	}
}

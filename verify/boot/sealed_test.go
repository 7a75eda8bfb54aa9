package boot

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"caisson/build/image/gpt"
	"caisson/build/imagefile"
	"caisson/build/seal"
	"caisson/build/seal/vendortest"
	"caisson/verify/measure"
)

// TestSealed boots a vendor's disk that was sealed: firmware and stub find the
// addon in the file system that it was added to, take its command line, and
// measure what is predicted.
func TestSealed(t *testing.T) {
	k := &kit{t: t, parts: packages(t)}
	k.initrd = chainInitrd(t, k.parts["busybox"])
	vendor := vendortest.Disk(t, 0, vendortest.ESP(t, map[string][]byte{
		"EFI/BOOT/BOOTX64.EFI": k.parts["loader 257"], "EFI/Linux/vendor.efi": k.ukiWith("257", consoleArgs+"vendor"),
	}), vendortest.Part{Type: gpt.TypeRootX86_64, Name: "root", Content: []byte(strings.Repeat("root", 1<<18))})
	d, err := imagefile.Open(vendor)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	tree, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer tree.Close()
	s, err := seal.Seal(context.Background(), seal.Options{Disk: d, Size: d.Size(), Tree: tree, Cmdline: seal.DefaultCmdline})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "sealed.vhd"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := imagefile.Write(context.Background(), f, s, s.Size(), imagefile.Options{Format: imagefile.VHD}); err != nil {
		t.Fatal(err)
	}
	predicted, err := measure.Disk(s, s.Size())
	if err != nil {
		t.Fatal(err)
	}
	r, err := Run(context.Background(), Options{Disk: f.Name(), Format: imagefile.VHD, WaitFor: []*regexp.Regexp{regexp.MustCompile("^" + logEnd)}})
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(r.Serial, "roothash="+s.Result.RootHash+" systemd.volatile=overlay") {
		t.Error("the kernel was not given the addon's command line")
	}
	for _, bank := range measure.Banks() {
		for _, m := range measure.CompareBank(predicted, bank, r.Banks[bank].Takeover) {
			t.Errorf("%s: %v", bank, m)
		}
	}
}

package seal

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	espfiles "caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/imagefile"
	"caisson/build/seal/vendortest"
)

// TestSign has the addon signed: its digest is as without, and sbverify takes it.
func TestSign(t *testing.T) {
	const keys = "../image/authenticode/testdata/"
	certs, err := authenticode.ParseCertificates(read(t, keys+"cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := authenticode.ParseKey(read(t, keys+"key.pem"), certs)
	if err != nil {
		t.Fatal(err)
	}
	vendor := vendorDisk(t, "ext4", 40)
	plain := mustSeal(t, vendor, Options{}).Result.Addon
	d := mustSeal(t, vendor, Options{Sign: func(addon []byte) ([]byte, error) {
		return espfiles.SignBytes("the addon", addon, espfiles.ByKey(key, nil))
	}})
	if a := d.Result.Addon; a.Authenticode != plain.Authenticode || a.SHA256 == plain.SHA256 || a.Size <= plain.Size {
		t.Errorf("signed it is %+v, unsigned %+v", a, plain)
	}
	addon := filepath.Join(t.TempDir(), "addon.efi")
	part := cut(t, written(t, d, imagefile.Raw), 1<<20, 33<<20)
	vendortest.Run(t, "mcopy", "-i", part, "::"+d.Result.Addon.Path, addon)
	if _, err := os.Stat(addon); err != nil {
		t.Fatal(err)
	}
	if out := vendortest.Run(t, "sbverify", "--cert", keys+"cert.pem", addon); !strings.Contains(out, "Signature verification OK") {
		t.Errorf("sbverify: %s", out)
	}
	broken := errors.New("no key")
	if _, err := sealed(t, vendor, Options{Sign: func([]byte) ([]byte, error) { return nil, broken }}); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

package boot

import (
	"os"
	"path/filepath"
	"testing"
)

// chainsDir is the folder that CAISSON_BOOT_CHAINS names, which .ci/boot-packages
// has put the files of the packages into that boot chains are made of.
func chainsDir(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("CAISSON_BOOT_CHAINS")
	if dir == "" {
		t.Skip("CAISSON_BOOT_CHAINS names no folder with what boot chains are made of; `make e2e` makes one")
	}
	need(t)
	dir, err := filepath.Abs(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// Stubs by their version; that of Debian's newest release is another one some
// day, which is compared then.
const newest = "newest"

func stubs() []string { return []string{"252", "254", "257", newest} }

// packageFiles are the files of Debian packages, by what the tests call them.
func packageFiles() map[string]string {
	all := map[string]string{
		"kernel":      "linux-image-cloud/boot/vmlinuz-*",
		"busybox":     "busybox-static/bin/busybox",
		"shim":        "shim-unsigned/usr/lib/shim/shimx64.efi",
		"fallback":    "shim-unsigned/usr/lib/shim/fbx64.efi",
		"mokmanager":  "shim-unsigned/usr/lib/shim/mmx64.efi",
		"signed shim": "shim-signed/usr/lib/shim/shimx64.efi.signed",
	}
	for _, v := range stubs() {
		const efi = "/usr/lib/systemd/boot/efi/"
		all["stub "+v] = "systemd-" + v + efi + "linuxx64.efi.stub"
		all["loader "+v] = "systemd-" + v + efi + "systemd-bootx64.efi"
		if v != "252" {
			all["addon stub "+v] = "systemd-" + v + efi + "addonx64.efi.stub"
		}
	}
	return all
}

// packages are the contents of the files.
func packages(t *testing.T) map[string][]byte {
	t.Helper()
	dir := chainsDir(t)
	all := map[string][]byte{}
	for name, pattern := range packageFiles() {
		found, err := filepath.Glob(filepath.Join(dir, "unpacked", pattern))
		if err != nil || len(found) != 1 {
			t.Fatalf("%s: found %q, %v", pattern, found, err)
		}
		if all[name], err = os.ReadFile(found[0]); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

package build

import (
	"fmt"
	"path"
	"strings"

	"caisson/build/rootfs"
	"caisson/lock"
)

// firstAppended is the first version of systemd that looks for a hash tree in
// the partition of the data: its veritysetup has had hash-offset= since then.
const firstAppended = 254

// checkTree refuses a hash tree in the root's partition where the initrd would
// not find it there.
func (d *disk) checkTree(initrd *rootfs.Tree) error {
	if d.image.Tree != lock.TreeAppended {
		return nil
	}
	for _, e := range initrd.Entries() {
		if v, ok := systemdVersion(e.Path); ok && v < firstAppended {
			return oldSystemd("the initrd's systemd", v)
		}
	}
	return nil
}

// systemdVersion is the version of systemd that a file of the initrd is of.
func systemdVersion(name string) (int, bool) {
	version, ok := strings.CutPrefix(path.Base(name), "libsystemd-shared-")
	if !ok {
		return 0, false
	}
	return majorVersion(version)
}

// majorVersion is the number that a version begins with.
func majorVersion(version string) (n int, ok bool) {
	_, err := fmt.Sscanf(version, "%d", &n)
	return n, err == nil
}

// checkVendorTree is checkTree for a vendor's UKI, whose initrd is of the same
// systemd as its stub.
func (d *disk) checkVendorTree(stub string) error {
	if v, ok := majorVersion(stub); d.image.Tree == lock.TreeAppended && ok && v < firstAppended {
		return oldSystemd("the vendor's UKI with systemd", v)
	}
	return nil
}

func oldSystemd(what string, version int) error {
	return fmt.Errorf("%s %d finds no hash tree in the partition of the root, as %d and later do: image.verity.tree has to be partition", what, version, firstAppended)
}

package build

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/rootfs"
	"caisson/lock"
)

// TestAppendedNeedsSystemd tells initrds that find an appended tree from those
// that do not.
func TestAppendedNeedsSystemd(t *testing.T) {
	for name, want := range map[string]bool{
		"usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so": false,
		"usr/lib64/systemd/libsystemd-shared-252-46.el9.so":         false,
		"usr/lib/systemd/libsystemd-shared-254.so":                  true,
		"usr/lib64/systemd/libsystemd-shared-257.7-1.fc42.so":       true,
		"usr/lib/libsystemd.so.0":                                   true,
	} {
		initrd := rootfs.New()
		if err := initrd.PutFile(name, 0o644, nil); err != nil {
			t.Fatal(err)
		}
		l := testLock()
		l.Image.Tree = lock.TreeAppended
		d := &disk{builder: &builder{image: l.Image}}
		if err := d.checkTree(initrd); (err == nil) != want {
			t.Errorf("%s: got %v", name, err)
		}
		d.image.Tree = ""
		if err := d.checkTree(initrd); err != nil {
			t.Errorf("a tree in a partition of its own: %v", err)
		}
	}
	l := testLock()
	l.Image.Tree = lock.TreeAppended
	d := &disk{builder: &builder{image: l.Image}}
	for stub, want := range map[string]bool{"252-46.el9": false, "253": false, "254.1": true, "257": true} {
		if err := d.checkVendorTree(stub); (err == nil) != want {
			t.Errorf("%s: got %v", stub, err)
		}
	}
}

// TestAppended assembles a disk whose hash tree is in the root's partition, and
// has veritysetup verify it there.
func TestAppended(t *testing.T) {
	assembled := func(change func(im *lock.Image)) (*disk, string) {
		t.Helper()
		d, work, err := assembleSized(t, func(im *lock.Image) {
			im.Output, im.Tree = testLock().Image.Output, lock.TreeAppended
			change(im)
		})
		if err != nil {
			t.Fatal(err)
		}
		return d, work
	}
	d, work := assembled(func(im *lock.Image) {
		im.Cmdline = "console=ttyS0 systemd.verity_root_options=panic-on-corruption quiet"
	})
	parts := d.describe().Partitions
	if len(parts) != 2 || parts[1].Name != "root" || parts[1].Size != d.data.size+d.hash.size {
		t.Fatalf("got %+v", parts)
	}
	raw := filepath.Join(work, "small.raw")
	runTool(t, "sgdisk", "-v", raw)
	root := filepath.Join(work, "small.root")
	hash := fmt.Sprintf("%x", d.root)
	runTool(t, "veritysetup", "verify", fmt.Sprintf("--hash-offset=%d", d.data.size), root, root, hash)
	runTool(t, "fsck.erofs", root)
	if _, err := os.Stat(filepath.Join(work, "small.verity")); err == nil {
		t.Error("there is a hash tree by itself")
	}
	id := "PARTUUID=" + hash[:8] + "-" + hash[8:12] + "-" + hash[12:16] + "-" + hash[16:20] + "-" + hash[20:32]
	want := fmt.Sprintf("console=ttyS0 quiet ro rootfstype=erofs roothash=%s systemd.verity_root_data=%s systemd.verity_root_hash=%s systemd.verity_root_options=panic-on-corruption,hash-offset=%d",
		hash, id, id, d.data.size)
	if got := d.describe().Cmdline; got != want {
		t.Errorf("the command line is\n%s, want\n%s", got, want)
	}
	if got, err := os.ReadFile(filepath.Join(work, "small.cmdline")); err != nil || strings.TrimSpace(string(got)) != want {
		t.Errorf("small.cmdline has %q, %v", got, err)
	}
	// The disk is as long, and the data the same, as with a partition of its
	// own for the tree.
	other, otherWork := assembled(func(im *lock.Image) { im.Tree = "" })
	if other.root != d.root || other.hash != d.hash || parts[1].ID != other.describe().Partitions[1].ID {
		t.Errorf("another root hash or place: %x at %+v, %x at %+v", other.root, other.hash, d.root, d.hash)
	}
	runTool(t, "sh", "-c", fmt.Sprintf("cat %[1]s.root %[1]s.verity | cmp - %[2]s", filepath.Join(otherWork, "small"), root))
}

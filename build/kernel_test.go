package build

import (
	"strings"
	"testing"
)

const testModulesDep = `kernel/drivers/md/dm-verity.ko.xz: kernel/drivers/md/dm-bufio.ko.xz kernel/lib/reed_solomon/reed_solomon.ko.xz kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-bufio.ko.xz: kernel/drivers/md/dm-mod.ko.xz
kernel/drivers/md/dm-mod.ko.xz:
kernel/lib/reed_solomon/reed_solomon.ko.xz:
kernel/fs/erofs/erofs.ko: kernel/lib/libcrc32c.ko
kernel/lib/libcrc32c.ko:
kernel/drivers/usb/usb-storage.ko:
kernel/arch/crc-intel.ko:
kernel/a.ko: kernel/b.ko
kernel/b.ko: kernel/a.ko
`

// TestModuleClosure wants the modules named, what they depend on, and no other.
func TestModuleClosure(t *testing.T) {
	for _, tt := range []struct{ names, want string }{
		{"", ""},
		{"dm_verity", "kernel/drivers/md/dm-bufio.ko.xz kernel/drivers/md/dm-mod.ko.xz kernel/drivers/md/dm-verity.ko.xz kernel/lib/reed_solomon/reed_solomon.ko.xz"},
		{"erofs dm-mod erofs", "kernel/drivers/md/dm-mod.ko.xz kernel/fs/erofs/erofs.ko kernel/lib/libcrc32c.ko"},
		{"virtio-blk", ""}, // in the kernel
		{"a", "kernel/a.ko kernel/b.ko"},
		{"usb_storage", "kernel/arch/crc-intel.ko kernel/drivers/usb/usb-storage.ko kernel/lib/libcrc32c.ko"}, // by soft dependencies, one by an alias
	} {
		x := moduleIndex{
			dep: testModulesDep, builtin: "kernel/drivers/block/virtio_blk.ko\n",
			softdep: "# Soft dependencies\nsoftdep usb_storage words pre: crc-any virtio-blk absent post: libcrc32c\nsoftdep b\n",
			alias:   "# Aliases\nalias crc_a* crc_intel\nalias crc-[ broken\nalias usb:v* usb_storage\n",
		}
		got, err := x.closure(strings.Fields(tt.names))
		if err != nil || strings.Join(got, " ") != tt.want {
			t.Errorf("%s: got %s, %v, want %s", tt.names, got, err, tt.want)
		}
	}
	for dep, want := range map[string]string{
		testModulesDep:         `sets.initrd.modules: the kernel has no module "nvme"`,
		"kernel/a.ko kernel\n": `modules.dep: "kernel/a.ko kernel" has no colon`,
	} {
		if _, err := (&moduleIndex{dep: dep}).closure([]string{"nvme"}); err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestUnreadableModules has a depmod that could not read compressed modules.
func TestUnreadableModules(t *testing.T) {
	const dep, alias = "kernel/a.ko.xz:\nkernel/b.ko.xz:\n", "# Aliases\nalias pci:x a\n"
	for _, tt := range []struct {
		name  string
		x     *moduleIndex
		wants string
	}{
		{"well", &moduleIndex{dep: dep, alias: alias}, ""},
		{"no library", &moduleIndex{dep: dep, alias: "# Aliases\n"}, "found nothing in a.ko.xz and the other modules: add the library that its kmod reads .xz files by"},
		{"not compressed", &moduleIndex{dep: "kernel/a.ko:\n"}, ""},
		{"initrd, well", (&moduleIndex{dep: dep, alias: alias}).among([]string{"kernel/a.ko.xz"}, alias), ""},
		{"initrd, no library", (&moduleIndex{dep: dep, alias: alias}).among([]string{"kernel/a.ko.xz"}, ""), "depmod of the set set found nothing in a.ko.xz"},
		{"initrd, nothing to find", (&moduleIndex{dep: dep, alias: alias}).among([]string{"kernel/b.ko.xz"}, ""), ""},
	} {
		err := tt.x.check("set")
		if (err == nil) != (tt.wants == "") || err != nil && !strings.Contains(err.Error(), tt.wants) {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.wants)
		}
	}
}

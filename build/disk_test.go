package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/lock"
	"caisson/lock/tooltest"
)

// assembleSized assembles the small image with the sizes given.
func assembleSized(t *testing.T, change func(im *lock.Image)) (*disk, string, error) {
	t.Helper()
	l := testLock()
	l.Image.Output = []string{"qcow2", "raw"}
	change(&l.Image)
	b, err := testBuilder(t.TempDir(), l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.log.Close() })
	if err := layStub(b); err != nil {
		t.Fatal(err)
	}
	root, initrd, err := testRoots(b, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := finish(context.Background(), b, root, initrd); err != nil {
		t.Fatal(err)
	}
	d, err := b.assemble(context.Background(), root, initrd)
	return d, b.work, err
}

// TestSizes assembles disks with sizes that are given, and has the tools read
// them.
func TestSizes(t *testing.T) {
	for _, tree := range []string{"", lock.TreeAppended} {
		t.Run("tree "+tree, func(t *testing.T) {
			t.Parallel()
			d, work, err := assembleSized(t, func(im *lock.Image) {
				im.Tree, im.Disk = tree, &lock.Disk{Size: 1 << 30, ESP: 264 << 20, Root: 24 << 20}
			})
			if err != nil {
				t.Fatal(err)
			}
			parts := d.describe().Partitions
			if parts[0].Size != 264<<20 || d.data.size != 24<<20 || parts[1].Start != 265<<20 {
				t.Errorf("got %+v, data %+v", parts, d.data)
			}
			base := filepath.Join(work, "small")
			st, err := os.Stat(base + ".raw")
			if err != nil || st.Size() != 1<<30 {
				t.Fatalf("the disk has %d bytes, %v", st.Size(), err)
			}
			if q, err := os.Stat(base + ".qcow2"); err != nil || q.Size() > 2<<20 {
				t.Errorf("the qcow2 has %d bytes, %v: want zeros to take no room", q.Size(), err)
			}
			if out := runTool(t, "sgdisk", "-v", base+".raw"); !strings.Contains(out, "No problems found") {
				t.Errorf("sgdisk says %s", out)
			}
			runTool(t, "qemu-img", "check", base+".qcow2")
			runTool(t, "qemu-img", "compare", base+".qcow2", base+".raw")
			for i, p := range parts {
				name := filepath.Join(work, fmt.Sprintf("part%d", i))
				runTool(t, "dd", "if="+base+".raw", "of="+name, "bs=1M", "conv=sparse", fmt.Sprintf("skip=%d", p.Start>>20), fmt.Sprintf("count=%d", p.Size>>20))
			}
			part := func(i int) string { return filepath.Join(work, fmt.Sprintf("part%d", i)) }
			runTool(t, "fsck.vfat", "-n", part(0))
			runTool(t, "fsck.erofs", part(1))
			hash, offset := part(1), d.data.size
			if tree == "" {
				hash, offset = part(2), 0
			}
			runTool(t, "veritysetup", "verify", fmt.Sprintf("--hash-offset=%d", offset), part(1), hash, fmt.Sprintf("%x", d.root))
		})
	}
}

// TestSizesTooSmall has contents that do not fit in.
func TestSizesTooSmall(t *testing.T) {
	for _, tt := range []struct {
		disk lock.Disk
		want string
	}{
		{lock.Disk{Root: 1 << 20, ESP: 40 << 20}, ""},
		{lock.Disk{ESP: 20 << 20}, "image.disk.esp is 20MiB; the files of the ESP with room for their signatures needs 33MiB"},
		{lock.Disk{Size: 36 << 20}, "image.disk.size is 36MiB; the disk with its partitions needs 37MiB"},
		{lock.Disk{Size: 100 << 20, Root: 90 << 20}, "image.disk.size is 100MiB; the disk with its partitions needs 126MiB"},
	} {
		_, _, err := assembleSized(t, func(im *lock.Image) { im.Disk = &tt.disk })
		if got := fmt.Sprint(err); tt.want == "" && err != nil || tt.want != "" && got != tt.want {
			t.Errorf("%+v: got %s, want %s", tt.disk, got, tt.want)
		}
	}
	if _, err := fit("root", "the root file system", 5<<20, 4<<20); err == nil || err.Error() != "image.disk.root is 4MiB; the root file system needs 5MiB" {
		t.Errorf("got %v", err)
	}
}

// TestScratchOnDisk has systemd-repart plan the scratch space on a disk that
// was built: behind the other partitions, on all that is free.
func TestScratchOnDisk(t *testing.T) {
	repart := tooltest.Find(t, "systemd-repart")
	s := &lock.Scratch{Mount: "/scratch", Size: 512 << 20, Format: lock.ScratchExt4, Encrypt: lock.EncryptKey}
	_, work, err := assembleSized(t, func(im *lock.Image) { im.Disk = &lock.Disk{Size: 1 << 30} })
	if err != nil {
		t.Fatal(err)
	}
	definitions := t.TempDir()
	if err := os.WriteFile(filepath.Join(definitions, "50-scratch.conf"), []byte(scratchDefinition(s)), 0o644); err != nil {
		t.Fatal(err)
	}
	out := runTool(t, "sh", "-c", fmt.Sprintf("exec %s --dry-run=yes --factory-reset=yes --seed=random --json=short --definitions=%s %s 2>/dev/null",
		repart, definitions, filepath.Join(work, "small.raw")))
	var plan []struct {
		Type, Label, Activity string
		Size                  int64 `json:"raw_size"`
	}
	if err := json.Unmarshal([]byte(out), &plan); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	for _, p := range plan {
		if created := p.Activity == "create"; created != (p.Label == scratchLabel) || created && (p.Type != strings.ToLower(scratchType().String()) || p.Size < 980<<20) {
			t.Errorf("got %+v", p)
		}
	}
	if len(plan) != 4 {
		t.Errorf("got %s", out)
	}
}

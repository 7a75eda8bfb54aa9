package build

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/prefetch/cas"
)

// testLayers builds from stores of which the lower is a read-only mount, and
// the upper has nothing, or some of the inputs: the same image as from one
// store, and nothing copied up.
func testLayers(t *testing.T, d *distro) {
	t.Parallel()
	d = d.with(func(d *distro) {
		sum, size, err := d.store.Put(strings.NewReader("a file"), [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		d.lock.Inputs = append(d.lock.Inputs, lock.Input{Kind: lock.KindFile, Name: "one.txt", URL: "one.txt", SHA256: sum, Size: size})
		d.lock.Steps = []lock.Step{{Run: "install -D $IN/one.txt $OUT/usr/share/one.txt"}}
	})
	whole, err := Build(context.Background(), d.options(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	lower := d.store.Dir()
	if dir := t.TempDir(); unix.Mount(lower, dir, "", unix.MS_BIND, "") == nil {
		t.Cleanup(func() {
			if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
				t.Error(err)
			}
		})
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
		lower = dir
	}
	for name, up := range map[string]func(i int) bool{
		"nothing above": func(int) bool { return false },
		"some above":    func(i int) bool { return i%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s, err := cas.Open(dir)
			if err != nil {
				t.Fatal(err)
			}
			above := 0
			for i := range d.lock.Inputs {
				if !up(i) {
					continue
				}
				f, err := d.store.Open(d.lock.Inputs[i].SHA256)
				if err != nil {
					t.Fatal(err)
				}
				if _, _, err := s.Put(f, d.lock.Inputs[i].SHA256); err != nil {
					t.Fatal(err)
				}
				f.Close()
				above++
			}
			o := d.options(t.TempDir())
			if o.Store, err = cas.Open(dir, lower); err != nil {
				t.Fatal(err)
			}
			img, err := Build(context.Background(), o)
			if err != nil {
				t.Fatal(err)
			}
			if img.Files[0] != whole.Files[0] || img.RootHash != whole.RootHash {
				t.Errorf("got %+v, want %+v", img.Files[0], whole.Files[0])
			}
			ev := readEvidence(t, o.Out)
			if ev.Unread != nil {
				t.Errorf("copies were read, and yet it is known that %v were not", *ev.Unread)
			}
			files, err := filepath.Glob(dir + "/sha256/*/*")
			if err != nil || len(files) != above {
				t.Errorf("%d files above, want %d: %v", len(files), above, err)
			}
		})
	}
}

package verify

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"caisson/build/image/erofs"
	"caisson/build/image/gpt"
	"caisson/lock"
)

// benchDisk writes a disk of some 1 GB, the root of which is 128 files; one of
// them is another where it is to differ.
func benchDisk(b *testing.B, name string, differ bool) {
	b.Helper()
	const files, size, start = 128, 8 << 20, 1 << 20
	check := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	entries := []erofs.Entry{{Mode: 0o040755}}
	for i := range files {
		seed := [32]byte{byte(i)}
		if differ && i == files/2 {
			seed[1] = 1
		}
		entries = append(entries, erofs.Entry{Path: fmt.Sprintf("file-%03d", i), Mode: 0o100644, Size: size, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.LimitReader(rand.NewChaCha8(seed), size)), nil
		}})
	}
	f, err := os.Create(name)
	check(err)
	defer f.Close()
	root, err := erofs.Write(io.NewOffsetWriter(f, start), entries, erofs.Options{})
	check(err)
	disk := start + root + start
	check(f.Truncate(disk))
	id := gpt.FromBytes([16]byte{1})
	check(gpt.Write(f, disk, gpt.Table{DiskID: id, Partitions: []gpt.Partition{
		{Type: gpt.TypeRootX86_64, ID: id, Name: "root", First: start / 512, Last: uint64(start+root)/512 - 1},
	}}))
}

// BenchmarkCompare compares two images of 1 GB, as a verification does after a
// rebuild, and as cmp does: equal ones, and such as differ in one file. cmp is given
// all of the first, which is as fast as two files are read and compared.
func BenchmarkCompare(b *testing.B) {
	cmp, err := exec.LookPath("cmp")
	if err != nil {
		b.Skip(err)
	}
	dir := b.TempDir()
	names := map[string]string{}
	for _, what := range []string{"image", "equal", "one-file"} {
		names[what] = filepath.Join(dir, what+".raw")
		benchDisk(b, names[what], what == "one-file")
	}
	st, err := os.Stat(names["image"])
	if err != nil {
		b.Fatal(err)
	}
	image, err := OpenDisk(names["image"])
	if err != nil {
		b.Fatal(err)
	}
	defer image.Close()
	v := &verification{Options: Options{Lock: &lock.Lock{}, Image: names["image"], Rebuild: noBuild}, disk: image, report: &Report{}, rebuildDir: dir}
	like, err := v.artifact(names["image"], image, nil)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("cmp", func(b *testing.B) {
		b.SetBytes(st.Size())
		for b.Loop() {
			if err := exec.Command(cmp, names["image"], names["equal"]).Run(); err != nil {
				b.Fatal(err)
			}
		}
	})
	for _, what := range []string{"equal", "one-file"} {
		b.Run(what, func(b *testing.B) {
			b.SetBytes(st.Size())
			for b.Loop() {
				v.report = &Report{Image: like}
				again, err := OpenDisk(names[what])
				if err != nil {
					b.Fatal(err)
				}
				made, err := v.artifact(names[what], again, &like)
				if err != nil {
					b.Fatal(err)
				}
				v.report.Rebuilt = &made
				if err := v.compare(b.Context(), again); err != nil {
					b.Fatal(err)
				}
				again.Close()
				if same := v.report.Checks[0].Status == Passed; same != (what == "equal") {
					b.Fatalf("got %+v", v.report.Checks)
				}
			}
		})
	}
}

package qcow2

import (
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"caisson/lock/tooltest"
)

// benchDisk writes a disk of 1.25 GiB, the size of an image's root: the
// programs and libraries of this machine, each from a block on, and then
// zeros, of which there are 128 MiB at least.
func benchDisk(b *testing.B, path string) int64 {
	const size = 1280 << 20
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var at int64
	add := func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil
		}
		info, err := d.Info()
		if err != nil || at+info.Size() > size-128<<20 {
			return nil
		}
		src, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer src.Close()
		n, err := io.Copy(io.NewOffsetWriter(f, at), src)
		at = (at + n + 4095) &^ 4095
		return err
	}
	for _, dir := range []string{"/usr/bin", "/usr/sbin", "/usr/lib/x86_64-linux-gnu", "/usr/share", "/usr/lib"} {
		if err := filepath.WalkDir(dir, add); err != nil {
			b.Fatal(err)
		}
	}
	if err := f.Truncate(size); err != nil {
		b.Fatal(err)
	}
	return size
}

// BenchmarkWrite writes a disk as an image with compressed clusters, and has
// qemu-img do so too: the ratios are our wall time by its, and our size by its.
// They hold for a machine with nothing else to do: qemu-img has more threads,
// and so more of a busy one.
func BenchmarkWrite(b *testing.B) {
	qemuImg := tooltest.Find(b, "qemu-img")
	dir := b.TempDir()
	raw, ours, theirs := filepath.Join(dir, "raw"), filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
	size := benchDisk(b, raw)
	disk, err := os.Open(raw)
	if err != nil {
		b.Fatal(err)
	}
	defer disk.Close()
	b.SetBytes(size)
	var elapsed time.Duration
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		args := []string{"convert", "-f", "raw", "-O", "qcow2", "-c", "-o", "compression_type=zstd", raw, theirs}
		if out, err := exec.Command(qemuImg, args...).CombinedOutput(); err != nil {
			b.Fatalf("qemu-img convert: %v\n%s", err, out)
		}
		elapsed += time.Since(start)
		b.StartTimer()
		f, err := os.Create(ours)
		if err != nil {
			b.Fatal(err)
		}
		if err := Write(f, disk, size, Options{Compress: true}); err != nil {
			b.Fatal(err)
		}
		if err := f.Close(); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(b.Elapsed().Seconds()/elapsed.Seconds(), "x-qemu-img")
	b.ReportMetric(float64(fileSize(b, ours))/float64(fileSize(b, theirs)), "x-size")
}

func fileSize(b *testing.B, path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	return info.Size()
}

package verity

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"caisson/lock/tooltest"
)

// BenchmarkWrite makes the hash area of 1.25 GiB, the size of an image's
// root, and has veritysetup make it too: the ratio is our wall time by its.
func BenchmarkWrite(b *testing.B) {
	const size = 1280 << 20
	veritysetup := tooltest.Find(b, "veritysetup")
	dir := b.TempDir()
	dataFile, hashFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
	data, err := os.Create(dataFile)
	if err != nil {
		b.Fatal(err)
	}
	defer data.Close()
	for part := testData(4096); ; {
		if at, _ := data.Seek(0, 1); at == size {
			break
		}
		if _, err := data.Write(part); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(size)
	var theirs time.Duration
	for b.Loop() {
		hash, err := os.Create(filepath.Join(dir, "ours"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := Write(data, size, hash, testParams()); err != nil {
			b.Fatal(err)
		}
		if err := hash.Close(); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		start := time.Now()
		if out, err := exec.Command(veritysetup, formatArgs(dataFile, hashFile, testParams())...).CombinedOutput(); err != nil {
			b.Fatalf("veritysetup format: %v\n%s", err, out)
		}
		theirs += time.Since(start)
		b.StartTimer()
	}
	b.ReportMetric(b.Elapsed().Seconds()/theirs.Seconds(), "x-veritysetup")
}

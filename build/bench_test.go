package build

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"caisson/lock"
)

// rootFilesEach are the files of a package of a large root, and rootPackages
// how many such packages there are: 12,000 files.
const (
	rootFilesEach = 200
	rootPackages  = 60
)

// largePackage makes the nth package of a large root: sizes as roots have them,
// many small files and few large ones, about 22 MB in all, of which a compressor
// saves half.
func (d *distro) largePackage(b *testing.B, n int) {
	b.Helper()
	tree := b.TempDir()
	for i := range rootFilesEach {
		size := 500 + i*7919%6000
		switch {
		case i%12 == 0:
			size *= 40
		case i%100 == 1:
			size *= 4000
		}
		name := filepath.Join(tree, fmt.Sprintf("usr/share/large/%d/%d/%d", n, i%20, i))
		if err := writeHalfNoise(name, uint64(n*rootFilesEach+i), size); err != nil { //nolint:gosec // positive
			b.Fatal(err)
		}
	}
	d.addPacked(b, lock.SetRoot, fmt.Sprintf("large%d", n), tree, "w3.zstdio", "")
	if err := os.RemoveAll(tree); err != nil {
		b.Fatal(err)
	}
}

// writeHalfNoise writes a file, every other block of which is noise.
func writeHalfNoise(name string, seed uint64, size int) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	noise := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	w := bufio.NewWriter(f)
	block, text := make([]byte, 512), []byte(strings.Repeat("text of which a compressor saves all but a little, ", 11)[:512])
	for at := 0; at < size; at += len(block) {
		out := text
		if at/len(block)%2 == 0 {
			out = block
			noise.Read(block)
		}
		if _, err := w.Write(out[:min(len(out), size-at)]); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return f.Close()
}

// buildApart builds in a process of its own, and returns how long that took and
// how much memory the process had at most, in bytes, without the programs that
// ran in the sandbox.
func (d *distro) buildApart(b *testing.B) (took time.Duration, memory int64) {
	b.Helper()
	dir := b.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		b.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(d.childEnv(b, dir), "PATH="+os.Getenv("PATH"), "TMPDIR="+dir, buildIn+"="+out, "CAISSON_TEST_UMASK=022", "CAISSON_TEST_MEMORY=yes")
	var errs strings.Builder
	cmd.Stderr = &errs
	began := time.Now()
	said, err := cmd.Output()
	took = time.Since(began)
	if err != nil {
		b.Fatalf("%v\n%s\n%s", err, said, errs.String())
	}
	_, kib, ok := strings.Cut(string(said), memoryLine)
	if ok {
		memory, err = strconv.ParseInt(strings.TrimSpace(kib), 10, 64)
	}
	if !ok || err != nil {
		b.Fatalf("the build did not say what memory it took: %s", said)
	}
	return took, memory << 10
}

// BenchmarkLargeRoot builds an image with a root of 1.3 GB in 12,000 files, and
// one of twice that: memory is that of the build's own process for the first,
// and x-growth the second's wall time by the first's.
func BenchmarkLargeRoot(b *testing.B) {
	once := newDistro(b)
	for n := range rootPackages {
		once.largePackage(b, n)
	}
	twice := once.with(func(d *distro) {
		for n := range rootPackages {
			d.largePackage(b, rootPackages+n)
		}
	})
	var first, second time.Duration
	var memory, memoryTwice int64
	for b.Loop() {
		took, most := once.buildApart(b)
		first, memory = first+took, max(memory, most)
		took, most = twice.buildApart(b)
		second, memoryTwice = second+took, max(memoryTwice, most)
	}
	b.ReportMetric(first.Seconds()/float64(b.N), "s/1.3GB")
	b.ReportMetric(second.Seconds()/first.Seconds(), "x-growth")
	b.ReportMetric(float64(memory)/1e6, "MB-memory")
	b.ReportMetric(float64(memoryTwice)/1e6, "MB-memory/2.6GB")
}

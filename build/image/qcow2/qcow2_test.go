package qcow2

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

func qemuImg(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(tooltest.Find(t, "qemu-img"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-img %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// noise returns bytes that cannot be compressed.
func noise(seed string, size int) []byte {
	b := make([]byte, 0, size+32)
	for i := 0; len(b) < size; i++ {
		d := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, d[:]...)
	}
	return b[:size]
}

// testDisk returns a disk with clusters of zeros, text, one repeated byte and
// noise in all orders, of which the last is not whole.
func testDisk() []byte {
	var b []byte
	for i := range 150 {
		switch x := i * i % 7; {
		case i >= 60 && i < 90 || x == 0: // a run of zeros
			b = append(b, make([]byte, clusterSize)...)
		case x == 1:
			b = append(b, noise(fmt.Sprint(i), clusterSize)...)
		case x == 2:
			b = append(b, bytes.Repeat([]byte{byte(i)}, clusterSize)...)
		default: // some of it can be compressed
			part := noise(fmt.Sprint(i), i*300)
			b = append(b, part...)
			b = append(b, bytes.Repeat([]byte("compressible "), clusterSize)[:clusterSize-len(part)]...)
		}
	}
	return append(b, noise("end", 512)...)
}

// file is an image in memory, written from several goroutines or one.
type file struct {
	mu sync.Mutex
	b  []byte
}

func (f *file) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if need := int(off) + len(p) - len(f.b); need > 0 {
		f.b = append(f.b, bytes.Repeat([]byte{0xa5}, need)...)
	}
	return copy(f.b[off:], p), nil
}

func write(t testing.TB, disk []byte, o Options) []byte {
	t.Helper()
	var f file
	if err := Write(&f, bytes.NewReader(disk), int64(len(disk)), o); err != nil {
		t.Fatal(err)
	}
	return f.b
}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{}, "44ced230dff53b85f1f900f571b42827168ad7dcc42f43c92b340861677d6d04"},
		{Options{Compress: true}, "b2386bb02772cec90e7a864d8b246a3c6fa6502bea61432948ba8a63092945e6"},
		{Options{Compress: true, Level: 9}, "fe3905a57e908cab4a46b67b724f0b8df3b3f66a53e2e1f7f4228556154adb86"},
	} {
		if got := fmt.Sprintf("%x", sha256.Sum256(write(t, testDisk(), c.o))); got != c.want {
			t.Errorf("%+v: image is sha256:%s, want %s", c.o, got, c.want)
		}
	}
}

func TestSameBytes(t *testing.T) {
	for _, compress := range []bool{false, true} {
		want := write(t, testDisk(), Options{Compress: compress})
		for _, n := range []int{1, 2, 3, 16} {
			old := runtime.GOMAXPROCS(n)
			got := write(t, testDisk(), Options{Compress: compress, Workers: n})
			runtime.GOMAXPROCS(old)
			if !bytes.Equal(got, want) {
				t.Errorf("compress=%t, %d workers: other bytes", compress, n)
			}
		}
	}
}

// holed is a disk whose zeros are not to be read.
type holed struct {
	t    *testing.T
	disk []byte
	told atomic.Int64
}

func (h *holed) Hole(off, n int64) bool {
	if !isZero(h.disk[off : off+n]) {
		return false
	}
	h.told.Add(n)
	return true
}

func (h *holed) ReadAt(p []byte, off int64) (int, error) {
	if isZero(h.disk[off:min(int(off)+len(p), len(h.disk))]) {
		h.t.Errorf("%d bytes at %d were read", len(p), off)
	}
	return bytes.NewReader(h.disk).ReadAt(p, off)
}

// TestHoles: what is known to be zeros is not read, and the image is the same.
func TestHoles(t *testing.T) {
	disk := make([]byte, 40*jobSize+3*512)
	copy(disk[17*jobSize:], testDisk())
	for _, compress := range []bool{false, true} {
		h := &holed{t: t, disk: disk}
		var got file
		if err := Write(&got, h, int64(len(disk)), Options{Compress: compress}); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got.b, write(t, disk, Options{Compress: compress})) {
			t.Errorf("compress=%t: other bytes", compress)
		}
		if h.told.Load() < 30*jobSize {
			t.Errorf("compress=%t: asked of %d bytes only", compress, h.told.Load())
		}
	}
}

// save writes bytes to a file.
func save(t testing.TB, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestQEMUReads(t *testing.T) {
	for name, disk := range map[string][]byte{
		"test":    testDisk(),
		"empty":   nil,
		"zeros":   make([]byte, 10<<20),
		"sector":  noise("s", 512),
		"cluster": noise("c", clusterSize),
		"text":    bytes.Repeat([]byte("text "), 1<<20)[:5<<20],
	} {
		for _, compress := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/compress=%t", name, compress), func(t *testing.T) {
				raw := save(t, "disk.raw", disk)
				image := save(t, "disk.qcow2", write(t, disk, Options{Compress: compress}))
				if out := qemuImg(t, "check", "-f", "qcow2", image); !strings.Contains(out, "No errors were found") || strings.Contains(out, "leak") {
					t.Errorf("qemu-img check says\n%s", out)
				}
				qemuImg(t, "compare", "-f", "qcow2", "-F", "raw", image, raw)
				back := filepath.Join(t.TempDir(), "back.raw")
				qemuImg(t, "convert", "-f", "qcow2", "-O", "raw", image, back)
				if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, disk) {
					t.Errorf("qemu-img convert: %d bytes, %v, want %d others", len(got), err, len(disk))
				}
			})
		}
	}
}

// sparseDisk is a disk that is zeros but for a few places.
type sparseDisk map[int64]string

func (d sparseDisk) ReadAt(p []byte, off int64) (int, error) {
	clear(p)
	for at, s := range d {
		if at >= off && at < off+int64(len(p)) {
			copy(p[at-off:], s)
		}
	}
	return len(p), nil
}

// TestSeveralL2Tables has a disk with an L2 table that is left out.
func TestSeveralL2Tables(t *testing.T) {
	disk := sparseDisk{0: "first", l2Covers - 4: "last", 2 * l2Covers: "third"}
	const size = 2*l2Covers + clusterSize
	for _, compress := range []bool{false, true} {
		var f file
		if err := Write(&f, disk, size, Options{Compress: compress}); err != nil {
			t.Fatal(err)
		}
		image := save(t, "image", f.b)
		if out := qemuImg(t, "check", image); !strings.Contains(out, "No errors were found") {
			t.Errorf("qemu-img check says\n%s", out)
		}
		img, err := Open(bytes.NewReader(f.b))
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range disk {
			got := make([]byte, len(want))
			if _, err := img.ReadAt(got, at); err != nil || string(got) != want {
				t.Errorf("at %d: got %q, %v, want %q", at, got, err, want)
			}
		}
	}
}

func TestRefTables(t *testing.T) {
	for _, used := range []int64{1, 2, 32765, 32766, 32767, 32768, 65535, 1 << 28, 8191 * 32768, 8192 * 32768} {
		table, blocks := refTables(used)
		total := used + table + blocks
		if blocks*refsInBlock < total || table*l2Entries < blocks {
			t.Errorf("%d clusters: %d of table and %d blocks do not count all", used, table, blocks)
		}
		if blocks > 1 && (blocks-2)*refsInBlock >= total {
			t.Errorf("%d clusters: %d blocks are too many", used, blocks)
		}
	}
}

func readAll(r io.ReaderAt, size int64, part int) ([]byte, error) {
	b := make([]byte, size)
	for at := int64(0); at < size; at += int64(part) {
		if _, err := r.ReadAt(b[at:min(size, at+int64(part))], at); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func TestReadBack(t *testing.T) {
	disk := testDisk()
	for _, compress := range []bool{false, true} {
		img, err := Open(bytes.NewReader(write(t, disk, Options{Compress: compress})))
		if err != nil {
			t.Fatal(err)
		}
		if img.Size() != int64(len(disk)) {
			t.Errorf("size is %d, want %d", img.Size(), len(disk))
		}
		for _, part := range []int{1000, 4096, 100000, 1 << 30} {
			got, err := readAll(img, img.Size(), part)
			if err != nil || !bytes.Equal(got, disk) {
				t.Errorf("compress=%t, parts of %d: other data, %v", compress, part, err)
			}
		}
		readerAt(t, img, disk)
		const some = 3*clusterSize + 100
		if err := iotest.TestReader(io.NewSectionReader(img, 0, some), disk[:some]); err != nil {
			t.Error(err)
		}
	}
}

// readerAt tries what io.ReaderAt asks for at the end, and several readers.
func readerAt(t *testing.T, img *Image, disk []byte) {
	size := int64(len(disk))
	b := make([]byte, 100)
	if n, err := img.ReadAt(b, size-10); n != 10 || err != io.EOF || !bytes.Equal(b[:10], disk[size-10:]) {
		t.Errorf("across the end: got %d, %v", n, err)
	}
	if n, err := img.ReadAt(b, size); n != 0 || err != io.EOF {
		t.Errorf("at the end: got %d, %v", n, err)
	}
	if n, err := img.ReadAt(b, -1); n != 0 || err == nil {
		t.Errorf("before the start: got %d, %v", n, err)
	}
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			if got, err := readAll(img, size, 30000+i*7); err != nil || !bytes.Equal(got, disk) {
				t.Errorf("reader %d: other data, %v", i, err)
			}
		})
	}
	wg.Wait()
}

// TestReadsQEMU reads what qemu-img writes, in all its variants.
func TestReadsQEMU(t *testing.T) {
	disk := testDisk()
	raw := save(t, "disk.raw", disk)
	for _, args := range []string{
		"-o compat=0.10",
		"-o compat=0.10 -c",
		"-o compat=1.1",
		"-c -o compression_type=zlib",
		"-c -o compression_type=zstd",
		"-c -o cluster_size=512",
		"-c -o cluster_size=4096,compression_type=zstd",
		"-c -o cluster_size=2M,compression_type=zstd",
		"-o cluster_size=2M",
		"-S 0",
		"-o preallocation=metadata",
		"-o lazy_refcounts=on,refcount_bits=1",
	} {
		image := filepath.Join(t.TempDir(), "image")
		qemuImg(t, append(append([]string{"convert", "-f", "raw", "-O", "qcow2"}, strings.Fields(args)...), raw, image)...)
		b, err := os.ReadFile(image)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", args, err)
			continue
		}
		got, err := readAll(img, img.Size(), 1<<20)
		if err != nil || !bytes.Equal(got, disk) {
			t.Errorf("%s: other data, %v", args, err)
		}
	}
}

// TestZeroClusters reads clusters that a guest has overwritten with zeros.
func TestZeroClusters(t *testing.T) {
	disk := noise("zero", 10*clusterSize)
	image := save(t, "image", write(t, disk, Options{}))
	out, err := exec.Command(tooltest.Find(t, "qemu-io"), "-c", "write -z 65536 65536", "-c", "write -z -u 196608 65536", image).CombinedOutput()
	if err != nil {
		t.Fatalf("qemu-io: %v\n%s", err, out)
	}
	clear(disk[clusterSize : 2*clusterSize])
	clear(disk[3*clusterSize : 4*clusterSize])
	b, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	img, err := Open(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(img, img.Size(), clusterSize); err != nil || !bytes.Equal(got, disk) {
		t.Errorf("other data, %v", err)
	}
}

func TestWriteRefuses(t *testing.T) {
	disk := bytes.NewReader(make([]byte, 4096))
	for _, c := range []struct {
		size int64
		o    Options
		want string
	}{
		{-512, Options{}, "-512 bytes"},
		{511, Options{}, "multiple of 512"},
		{MaxSize + 512, Options{}, "more than"},
		{512, Options{Workers: -1}, "-1 workers"},
		{512, Options{Compress: true, Level: 23}, "level 23"},
		{8192, Options{}, "unexpected EOF"},
	} {
		if err := Write(&file{}, disk, c.size, c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%d bytes, %+v: got %v, want an error with %q", c.size, c.o, err, c.want)
		}
	}
}

// faulty fails at and above an offset.
type faulty struct {
	*bytes.Reader
	*file
	at int64
}

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return f.Reader.ReadAt(p, off)
}

func (f faulty) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return f.file.WriteAt(p, off)
}

func TestFaults(t *testing.T) {
	disk := testDisk()
	for _, compress := range []bool{false, true} {
		size := int64(len(write(t, disk, Options{Compress: compress})))
		for at := int64(0); at < size; at += size / 7 {
			f := faulty{file: &file{}, at: at}
			if err := Write(f, bytes.NewReader(disk), int64(len(disk)), Options{Compress: compress}); !errors.Is(err, iotest.ErrTimeout) {
				t.Errorf("compress=%t, image fails at %d: got %v", compress, at, err)
			}
		}
	}
	for at := int64(0); at < int64(len(disk)); at += 4 * jobSize {
		f := faulty{Reader: bytes.NewReader(disk), at: at}
		if err := Write(&file{}, f, int64(len(disk)), Options{}); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("disk fails at %d: got %v", at, err)
		}
	}
}

package qcow2

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
)

// smallImage returns an image with a cluster of each kind.
func smallImage(t testing.TB) []byte {
	disk := bytes.Repeat([]byte("text "), clusterSize)[:clusterSize]
	disk = append(disk, make([]byte, clusterSize)...)
	disk = append(disk, noise("small", clusterSize)...)
	return write(t, disk, Options{Compress: true})
}

func TestOpenRefuses(t *testing.T) {
	be := binary.BigEndian
	u32 := func(at int, v uint32) func(b []byte) { return func(b []byte) { be.PutUint32(b[at:], v) } }
	u64 := func(at int, v uint64) func(b []byte) { return func(b []byte) { be.PutUint64(b[at:], v) } }
	for _, c := range []struct {
		name   string
		change func(b []byte)
		want   string
	}{
		{"magic", u32(0, 0), `magic is "\x00\x00\x00\x00", want "QFI\xfb"`},
		{"version 1", u32(hdrVersion, 1), "version 1"},
		{"version 4", u32(hdrVersion, 4), "version 4"},
		{"backing file", u64(hdrBackingOffset, 200), "backing file"},
		{"encryption", u32(hdrCrypt, 2), "encrypted images are not supported (method 2)"},
		{"snapshots", u32(hdrSnapshots, 3), "snapshots are not supported: there are 3"},
		{"corrupt", u64(hdrIncompatible, featureCorrupt), "corrupt"},
		{"data file", u64(hdrIncompatible, featureDataFile), "external data file"},
		{"subclusters", u64(hdrIncompatible, featureSubclusters), "subclusters"},
		{"features", u64(hdrIncompatible, 1<<40), "0x10000000000"},
		{"header length", u32(hdrLength, 100), "header has 100 bytes"},
		{"no compression type", u32(hdrLength, 104), "lacks the compression type"},
		{"compression type", func(b []byte) { b[hdrCompression] = 2 }, "compression type 2"},
		{"small clusters", u32(hdrClusterBits, 8), "2^8"},
		{"large clusters", u32(hdrClusterBits, 22), "2^22"},
		{"size", u64(hdrSize, 1<<63), "9223372036854775808 bytes"},
		{"size beyond L1", u64(hdrSize, 1<<40), "1 entries, want 2048"},
		{"L1 size", u32(hdrL1Size, 1<<31), "2147483648 entries"},
		{"no L1", u32(hdrL1Size, 0), "0 entries, want 1"},
		{"L1 offset", u64(hdrL1Offset, 12345), "not at a cluster"},
		{"L1 offset beyond", u64(hdrL1Offset, 1<<60), "not at a cluster"},
	} {
		b := smallImage(t)
		c.change(b)
		if _, err := Open(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	for _, n := range []int{0, 71, 72, 103} {
		if _, err := Open(bytes.NewReader(smallImage(t)[:n])); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("%d bytes: got %v, want %v", n, err, io.ErrUnexpectedEOF)
		}
	}
	if _, err := Open(faulty{Reader: bytes.NewReader(smallImage(t))}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v, want %v", err, iotest.ErrTimeout)
	}
}

// TestQEMURefused are images that qemu-img makes and we do not read.
func TestQEMURefused(t *testing.T) {
	base := save(t, "base", smallImage(t))
	for name, c := range map[string]struct{ args, want string }{
		"backing":     {"-b " + base + " -F qcow2", "backing file"},
		"subclusters": {"-o extended_l2=on", "subclusters"},
		"data file":   {"-o data_file=" + filepath.Join(t.TempDir(), "data"), "external data file"},
		"encrypted":   {"--object secret,id=s,data=x -o encrypt.format=aes,encrypt.key-secret=s", "encrypted"},
	} {
		image := filepath.Join(t.TempDir(), "image")
		qemuImg(t, append(append([]string{"create", "-f", "qcow2"}, strings.Fields(c.args)...), image, "1M")...)
		if err := openFile(t, image); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, c.want)
		}
	}
	qemuImg(t, "snapshot", "-c", "one", base)
	if err := openFile(t, base); err == nil || !strings.Contains(err.Error(), "snapshots") {
		t.Errorf("snapshot: got %v", err)
	}
}

func openFile(t *testing.T, path string) error {
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, err = Open(f)
	return err
}

func TestReadAtRefuses(t *testing.T) {
	good := smallImage(t)
	be := binary.BigEndian
	l1 := be.Uint64(good[hdrL1Offset:])
	l2 := be.Uint64(good[l1:]) & entryOffset
	packed := be.Uint64(good[l2:])
	at := packed & (1<<54 - 1)
	for _, c := range []struct {
		name  string
		at    uint64
		value uint64
		off   int64
		want  string
	}{
		{"L1 not aligned", l1, entryCopied | l2 + 512, 0, "L1 entry"},
		{"L1 reserved", l1, 1<<62 | l2, 0, "L1 entry"},
		{"L1 beyond", l1, 1 << 40, 0, "unexpected EOF"},
		{"L2 not aligned", l2, 512, 0, "not at a cluster"},
		{"L2 reserved", l2, 1 << 60, 0, "reserved bits"},
		{"L2 reserved low", l2, 1<<16 | 2, 0, "reserved bits"},
		{"L2 beyond", l2, 1 << 50, 0, "unexpected EOF"},
		{"compressed and copied", l2, packed | entryCopied, 0, "reserved bits"},
		{"compressed beyond", l2, entryCompressed | 1<<50, 0, "compressed cluster at"},
		{"not a frame", l2, entryCompressed | 200, 0, "compressed cluster at 200"},
		{"frame data", at + 8, 0, 0, "compressed cluster at 65536"},
		{"frame size", at + 4, 0x6000000000000000, 0, "compressed cluster at 65536"},
	} {
		b := bytes.Clone(good)
		be.PutUint64(b[c.at:], c.value)
		img, err := Open(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.ReadAt(make([]byte, 10), c.off); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
}

func TestReadFaults(t *testing.T) {
	good := smallImage(t)
	for at := int64(hdrWritten); at < int64(len(good)); at += clusterSize {
		img, err := Open(faulty{Reader: bytes.NewReader(good), at: at})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := img.ReadAt(make([]byte, 3*clusterSize), 0); err != nil && !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("image fails at %d: got %v", at, err)
		}
	}
}

// TestBomb has frames that hold more or less than a cluster.
func TestBomb(t *testing.T) {
	unpack, err := newUnpackZstd(clusterSize)
	if err != nil {
		t.Fatal(err)
	}
	enc, err := newEncoder(Options{Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	dst := make([]byte, clusterSize)
	for _, size := range []int{0, clusterSize - 1, clusterSize + 1, 100 << 20} {
		if err := unpack(dst, enc.EncodeAll(make([]byte, size), nil)); err == nil {
			t.Errorf("frame of %d bytes: no error", size)
		}
	}
	if err := unpackDeflate(dst, nil); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// TestSeeds reads the small images that qemu-img made for FuzzOpen.
func TestSeeds(t *testing.T) {
	const want = "b837a21e7464ceb26b9b99c4ecf4c0bc0c858264d2b8c19e500193976ed2dee4"
	for _, path := range seeds(t) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		img, err := Open(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		disk, err := readAll(img, img.Size(), 100)
		if got := fmt.Sprintf("%x", sha256.Sum256(disk)); err != nil || got != want {
			t.Errorf("%s: disk is sha256:%s, %v, want %s", path, got, err, want)
		}
	}
}

func seeds(t testing.TB) []string {
	paths, err := filepath.Glob("testdata/*.qcow2")
	if err != nil || len(paths) == 0 {
		t.Fatalf("no seeds: %v", err)
	}
	return paths
}

func FuzzOpen(f *testing.F) {
	for _, path := range seeds(f) {
		b, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		img, err := OpenBacked(bytes.NewReader(b), func(string, string) (Disk, error) { return sized{bytes.NewReader(b)}, nil })
		if err != nil {
			return
		}
		buf := make([]byte, 2000)
		for _, off := range []int64{0, 1000, img.Size() / 2, img.Size() - 5} {
			if off < 0 {
				continue
			}
			n, err := img.ReadAt(buf, off)
			if n < len(buf) && err == nil || n > len(buf) || n > 0 && int64(n) > img.Size()-off {
				t.Errorf("ReadAt at %d of %d: %d, %v", off, img.Size(), n, err)
			}
		}
	})
}

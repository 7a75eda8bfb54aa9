package verity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

// testData returns n blocks, each with other bytes.
func testData(n int64) []byte {
	b := make([]byte, n*BlockSize)
	for i := range n {
		d := sha256.Sum256(fmt.Appendf(nil, "block %d", i))
		for at := b[i*BlockSize:][:BlockSize]; len(at) > 0; at = at[len(d):] {
			copy(at, d[:])
		}
	}
	return b
}

// buffer is an io.ReaderAt and io.WriterAt of fixed size. Blocks are written
// to different places, which needs no lock.
type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > int64(len(b)) {
		return 0, fmt.Errorf("write of %d bytes at %d, beyond %d", len(p), off, len(b))
	}
	return copy(b[off:], p), nil
}

func (b buffer) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(b).ReadAt(p, off)
}

func testParams() Params {
	p := Params{Salt: make([]byte, 32)}
	for i := range p.UUID {
		p.UUID[i] = byte(i * 3)
	}
	for i := range p.Salt {
		p.Salt[i] = byte(0xff - i)
	}
	return p
}

// write returns the hash area of data, in front of which nothing was.
func write(t testing.TB, data []byte, p Params) (buffer, [32]byte) {
	t.Helper()
	hash := make(buffer, p.HashSize(int64(len(data))))
	for i := range hash {
		hash[i] = 0xa5
	}
	root, err := Write(bytes.NewReader(data), int64(len(data)), hash, p)
	if err != nil {
		t.Fatal(err)
	}
	return hash, root
}

// sizes are numbers of blocks around those where the tree gains a block or a
// level.
var sizes = []int64{1, 2, 127, 128, 129, 255, 257, 16384, 16385}

func TestGolden(t *testing.T) {
	for _, c := range []struct {
		blocks     int64
		root, hash string
	}{
		{1, "ce67cf50862d84747c45f8025cdcc65677a139d3288e2fada62c0ff9d4a3897b", "868aa48e5e211cc77b046050bb1c201f7c5f64c368f766d755ab21d62a2ac1a7"},
		{129, "a31e82018609496214ed16256bcadc63e28bae45c3ad59b8acbdeace802e7731", "e92099872f01d3d444866e0bdd55997c8014b03c5e3426e72015185e27673abd"},
		{16385, "1511cad98f62b93ca751e7895b50e2b70cd9ce27a42e33dc764ac4d5647c994b", "109b837dee71593d6b6f24fff047ad75f82410504f19710c91bfd17f4eb8c849"},
	} {
		hash, root := write(t, testData(c.blocks), testParams())
		if got := hex.EncodeToString(root[:]); got != c.root {
			t.Errorf("%d blocks: root hash is %s, want %s", c.blocks, got, c.root)
		}
		if got := fmt.Sprintf("%x", sha256.Sum256(hash)); got != c.hash {
			t.Errorf("%d blocks: hash area is sha256:%s, want %s", c.blocks, got, c.hash)
		}
	}
}

func TestSameBytes(t *testing.T) {
	data := testData(3000)
	want, wantRoot := write(t, data, testParams())
	for _, n := range []int{1, 2, 7} {
		old := runtime.GOMAXPROCS(n)
		got, root := write(t, data, testParams())
		runtime.GOMAXPROCS(old)
		if !bytes.Equal(got, want) || root != wantRoot {
			t.Errorf("GOMAXPROCS=%d changes the bytes", n)
		}
	}
}

// chunkSize is the data below one hash block.
const chunkSize = perBlock * BlockSize

func TestVeritysetup(t *testing.T) {
	veritysetup := tooltest.Find(t, "veritysetup")
	p := testParams()
	for _, n := range sizes {
		t.Run(fmt.Sprintf("blocks=%d", n), func(t *testing.T) {
			compareVeritysetup(t, veritysetup, testData(n), p)
		})
	}
	for _, block := range []int{512, 1024, 2048} {
		for _, n := range []int64{1, 17, 130} {
			t.Run(fmt.Sprintf("data block=%d, blocks=%d", block, n), func(t *testing.T) {
				p := p
				p.DataBlock = block
				data := append(testData(n), make([]byte, 40*BlockSize)...)
				compareVeritysetup(t, veritysetup, data[:len(data)-block], p)
			})
		}
	}
	t.Run("zeros", func(t *testing.T) { // chunks of them, and some with a single byte
		data := make([]byte, 10*chunkSize+BlockSize)
		data[3*chunkSize], data[5*chunkSize-1], data[7*chunkSize+12345] = 1, 2, 3
		compareVeritysetup(t, veritysetup, data, p)
	})
	for _, salt := range [][]byte{nil, p.Salt[:1], bytes.Repeat(p.Salt, 8)} {
		t.Run(fmt.Sprintf("salt=%d", len(salt)), func(t *testing.T) {
			compareVeritysetup(t, veritysetup, testData(130), Params{UUID: p.UUID, Salt: salt})
		})
	}
}

func compareVeritysetup(t *testing.T, veritysetup string, data []byte, p Params) {
	dir := t.TempDir()
	dataFile, hashFile, ourFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash"), filepath.Join(dir, "ours")
	if err := os.WriteFile(dataFile, data, 0o666); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(veritysetup, formatArgs(dataFile, hashFile, p)...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup format: %v\n%s", err, out)
	}
	want, err := os.ReadFile(hashFile)
	if err != nil {
		t.Fatal(err)
	}
	hash, root := write(t, data, p)
	if !bytes.Equal(hash, want) {
		t.Errorf("hash area of %d bytes differs from veritysetup's of %d bytes", len(hash), len(want))
	}
	if text := hex.EncodeToString(root[:]); !strings.Contains(string(out), text) {
		t.Errorf("root hash is %s, veritysetup says\n%s", text, out)
	}
	if err := os.WriteFile(ourFile, hash, 0o666); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command(veritysetup, "verify", dataFile, ourFile, hex.EncodeToString(root[:])).CombinedOutput(); err != nil {
		t.Errorf("veritysetup verify: %v\n%s", err, out)
	}
}

func formatArgs(dataFile, hashFile string, p Params) []string {
	salt := hex.EncodeToString(p.Salt)
	if salt == "" {
		salt = "-"
	}
	u := p.UUID
	uuid := fmt.Sprintf("%x-%x-%x-%x-%x", u[:4], u[4:6], u[6:8], u[8:10], u[10:])
	args := []string{"format", "--salt=" + salt, "--uuid=" + uuid, dataFile, hashFile}
	if p.DataBlock != 0 {
		args = append(args, fmt.Sprintf("--data-block-size=%d", p.DataBlock))
	}
	return args
}

func TestRootAndVerify(t *testing.T) {
	for _, n := range sizes {
		data := testData(n)
		hash, want := write(t, data, testParams())
		got, err := Root(bytes.NewReader(data), int64(len(data)), testParams())
		if err != nil || got != want {
			t.Errorf("%d blocks: Root is %x, %v, want %x", n, got, err, want)
		}
		if err := Verify(bytes.NewReader(data), int64(len(data)), hash, want); err != nil {
			t.Errorf("%d blocks: %v", n, err)
		}
		sb, err := ReadSuperblock(hash)
		if p := testParams(); err != nil || sb.UUID != p.UUID || !bytes.Equal(sb.Salt, p.Salt) || sb.DataBlocks != n {
			t.Errorf("%d blocks: superblock is %+v, %v", n, sb, err)
		}
	}
}

func TestVerifyNamesTheFirstBadBlock(t *testing.T) {
	const n = 20000 // three levels: 1, 2 and 157 blocks
	data := testData(n)
	hash, root := write(t, data, testParams())
	bad := root
	bad[31] ^= 1
	for _, c := range []struct {
		name     string
		inData   []int64 // blocks where a bit is flipped
		inHash   []int64
		root     [32]byte
		wantArea string
		want     int64
	}{
		{"first data block", []int64{0}, nil, root, "data", 0},
		{"last data block", []int64{n - 1}, nil, root, "data", n - 1},
		{"several data blocks", []int64{19000, 40, 41, 7000}, nil, root, "data", 40},
		{"data and its hash block", []int64{40}, []int64{4}, root, "hash", 4},
		{"lowest level", nil, []int64{100, 101}, root, "hash", 100},
		{"middle level", []int64{1}, []int64{3, 5}, root, "hash", 3},
		{"top level", nil, []int64{3, 1}, root, "hash", 1},
		{"root hash", nil, nil, bad, "hash", 1},
	} {
		d, h := bytes.Clone(data), buffer(bytes.Clone(hash))
		for _, b := range c.inData {
			d[b*BlockSize+4095] ^= 0x80
		}
		for _, b := range c.inHash {
			h[b*BlockSize+17] ^= 1
		}
		err := Verify(bytes.NewReader(d), int64(len(d)), h, c.root)
		var corrupt *CorruptError
		if !errors.As(err, &corrupt) || corrupt.Area != c.wantArea || corrupt.Block != c.want {
			t.Errorf("%s: got %v, want %s block %d", c.name, err, c.wantArea, c.want)
		}
	}
}

// TestVerifyWantsZeros has something behind the digests of a level's last
// block, and all that is above is right: the root hash is not the data's.
func TestVerifyWantsZeros(t *testing.T) {
	const n = 130 // blocks 2 and 3 of the hash area are the lowest level, block 1 the topmost
	data, p := testData(n), testParams()
	sound, _ := write(t, data, p)
	h := newHasher(p.Salt)
	for _, bad := range []int64{3*BlockSize + 2*digestSize, 4*BlockSize - 1, BlockSize + 2*digestSize, 2*BlockSize - 1} {
		hash := bytes.Clone(sound)
		hash[bad] = 1
		low := h.sum(hash[3*BlockSize:])
		copy(hash[BlockSize+digestSize:], low[:])
		root := h.sum(hash[BlockSize : 2*BlockSize])
		err := Verify(bytes.NewReader(data), int64(len(data)), buffer(hash), root)
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("hash block %d: not zeros behind its 2 digests", bad/BlockSize)) {
			t.Errorf("byte %d: got %v", bad, err)
		}
		veritysetup, err := exec.LookPath("veritysetup")
		if err != nil {
			continue
		}
		dir := t.TempDir()
		dataFile, hashFile := filepath.Join(dir, "data"), filepath.Join(dir, "hash")
		for name, b := range map[string][]byte{dataFile: data, hashFile: hash} {
			if err := os.WriteFile(name, b, 0o666); err != nil {
				t.Fatal(err)
			}
		}
		if out, err := exec.Command(veritysetup, "verify", dataFile, hashFile, hex.EncodeToString(root[:])).CombinedOutput(); err == nil {
			t.Errorf("byte %d: veritysetup takes it\n%s", bad, out)
		}
	}
}

func TestBadInput(t *testing.T) {
	p := testParams()
	data := testData(300)
	for _, size := range []int64{0, -4096, 1, 4095, 4097, MaxDataSize + BlockSize, 1<<63 - 1} {
		if _, err := Write(bytes.NewReader(data), size, make(buffer, 1<<20), p); err == nil {
			t.Errorf("Write of %d bytes: no error", size)
		}
		if _, err := Root(bytes.NewReader(data), size, Params{}); err == nil {
			t.Errorf("Root of %d bytes: no error", size)
		}
		if got := HashSize(size); got != 0 {
			t.Errorf("HashSize(%d) = %d, want 0", size, got)
		}
	}
	long := make([]byte, 257)
	if _, err := Write(bytes.NewReader(data), 4096, make(buffer, 1<<20), Params{Salt: long}); err == nil {
		t.Error("Write with a salt of 257 bytes: no error")
	}
	if _, err := Root(bytes.NewReader(data), 4096, Params{Salt: long}); err == nil {
		t.Error("Root with a salt of 257 bytes: no error")
	}
	short := int64(len(data)) + BlockSize
	if _, err := Root(bytes.NewReader(data), short, Params{}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Root of short data: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
	hash, root := write(t, data, p)
	if err := Verify(bytes.NewReader(data), int64(len(data))-BlockSize, hash, root); err == nil || !strings.Contains(err.Error(), "299") {
		t.Errorf("Verify with another size: got %v", err)
	}
	if err := Verify(bytes.NewReader(data), int64(len(data)), hash[:3*BlockSize], root); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("Verify of a short hash area: got %v, want %v", err, io.ErrUnexpectedEOF)
	}
}

// faulty fails to read or write at and above an offset.
type faulty struct {
	buffer
	at int64
}

func (f faulty) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return f.buffer.ReadAt(p, off)
}

func (f faulty) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.at {
		return 0, iotest.ErrTimeout
	}
	return f.buffer.WriteAt(p, off)
}

func TestFaults(t *testing.T) {
	data := testData(20000)
	size := int64(len(data))
	hash, root := write(t, data, testParams())
	for _, at := range []int64{0, BlockSize, 2 * BlockSize, 4 * BlockSize, int64(len(hash)) - BlockSize} {
		h := faulty{bytes.Clone(hash), at}
		if _, err := Write(bytes.NewReader(data), size, h, testParams()); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("Write, hash area fails at %d: got %v", at, err)
		}
		if err := Verify(bytes.NewReader(data), size, h, root); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("Verify, hash area fails at %d: got %v", at, err)
		}
	}
	d := faulty{data, size - 1}
	if _, err := Root(d, size, Params{}); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Root, data fails: got %v", err)
	}
	if err := Verify(d, size, hash, root); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("Verify, data fails: got %v", err)
	}
}

func TestReadSuperblockRefuses(t *testing.T) {
	hash, _ := write(t, testData(2), testParams())
	for _, c := range []struct {
		name string
		at   int
		b    byte
		want string
	}{
		{"signature", 0, 'V', "signature"},
		{"version", sbVersion, 2, "version is 2, want 1"},
		{"hash type", sbHashType, 0, "hash type is 0, want 1"},
		{"algorithm", sbAlgorithm + 3, '5', `algorithm is "sha556", want "sha256"`},
		{"data block size", sbDataBlockSize + 1, 3, "data block size is 768, want 512, 1024, 2048 or 4096"},
		{"large data block size", sbDataBlockSize + 1, 32, "data block size is 8192, want"},
		{"hash block size", sbHashBlockSize + 1, 4, "hash block size is 1024, want 4096"},
		{"no data blocks", sbDataBlocks, 0, "0 data blocks"},
		{"data blocks", sbDataBlocks + 7, 0x80, "data blocks"},
		{"salt size", sbSaltSize + 1, 2, "salt has 544 bytes"},
	} {
		b := bytes.Clone(hash)
		b[c.at] = c.b
		if _, err := ReadSuperblock(bytes.NewReader(b)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		}
	}
	if _, err := ReadSuperblock(bytes.NewReader(hash[:511])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("short superblock: got %v", err)
	}
}

func FuzzReadSuperblock(f *testing.F) {
	hash, _ := write(f, testData(2), testParams())
	f.Add([]byte(hash[:superblockSize]))
	f.Add([]byte(hash[:100]))
	f.Fuzz(func(t *testing.T, b []byte) {
		sb, err := ReadSuperblock(bytes.NewReader(b))
		if err != nil {
			return
		}
		again, err := sb.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ReadSuperblock(bytes.NewReader(again))
		if err != nil || got.UUID != sb.UUID || got.DataBlocks != sb.DataBlocks || !bytes.Equal(got.Salt, sb.Salt) {
			t.Errorf("read %+v, encoded and read again %+v, %v", sb, got, err)
		}
	})
}

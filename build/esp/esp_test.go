package esp_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"caisson/build/esp"
	"caisson/build/image/authenticode"
	"caisson/build/image/uki"
)

const (
	testdata = "../image/authenticode/testdata/"
	size     = 33 << 20
	epoch    = 1700000001 // odd: the format's times are even but for the label's
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(testdata + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func testKey(t testing.TB) *authenticode.Key {
	t.Helper()
	certs, err := authenticode.ParseCertificates(read(t, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := authenticode.ParseKey(read(t, "key.pem"), certs)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func program(t testing.TB, path string, b []byte) esp.File {
	t.Helper()
	f, err := esp.Program(path, io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// testFiles are two programs, one of which is not padded for a signature, and
// files before, between and behind them.
func testFiles(t testing.TB) []esp.File {
	b := read(t, "program.efi")
	return []esp.File{
		program(t, "EFI/BOOT/BOOTX64.EFI", b), program(t, "EFI/Linux/small.efi", append(bytes.Clone(b), "odd"...)),
		esp.Bytes("EFI/A/first", bytes.Repeat([]byte("first"), 300)), esp.Bytes("loader/loader.conf", []byte("timeout 0\n")), esp.Bytes("zzz", []byte("last")),
	}
}

func options() esp.Options { return esp.Options{Serial: 0xcafe, Time: epoch} }

func scratch(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func written(t testing.TB, files []esp.File) []byte {
	t.Helper()
	f := scratch(t)
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if err := esp.Write(f, size, files, options()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func content(t *testing.T, f esp.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f.Content, 0, f.Content.Size()))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	image := written(t, testFiles(t))
	got, o, err := esp.Read(bytes.NewReader(image), size)
	if err != nil || o != options() || len(got) != 5 {
		t.Fatalf("got %+v with %+v, %v", got, o, err)
	}
	for _, want := range testFiles(t) {
		i := slices.IndexFunc(got, func(f esp.File) bool { return f.Path == want.Path })
		if i < 0 || got[i].Program != want.Program || !bytes.Equal(content(t, got[i]), content(t, want)) {
			t.Errorf("%s is not what it was", want.Path)
		}
	}
	if err := esp.Check(bytes.NewReader(image), size, got, o, scratch(t)); err != nil {
		t.Error(err)
	}
	for _, at := range []int{3, 40, 512 + 490, 32*512 + 5, len(image) - 1} { // boot sector, serial's neighbour, free clusters, table, unused cluster
		changed := bytes.Clone(image)
		changed[at] ^= 1
		if err := esp.Check(bytes.NewReader(changed), size, got, o, scratch(t)); !errors.Is(err, esp.ErrOther) {
			t.Errorf("byte %d: got %v, want %v", at, err, esp.ErrOther)
		}
	}
	t.Setenv("TZ", "Asia/Tokyo")
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	backwards := testFiles(t)
	slices.Reverse(backwards)
	if !bytes.Equal(written(t, backwards), image) {
		t.Error("in another order, the files are laid out otherwise")
	}
}

// TestSignChangesTheSignatureAlone finds every byte that signing changes.
func TestSignChangesTheSignatureAlone(t *testing.T) {
	key := testKey(t)
	before := written(t, testFiles(t))
	files, o, err := esp.Read(bytes.NewReader(before), size)
	if err != nil {
		t.Fatal(err)
	}
	signed, all, err := esp.Sign(files, esp.ByKey(key, nil))
	if err != nil || len(all) != 2 || !all[0].Added || !all[1].Added || !all[1].By[0].Signer.Equal(key.Certificates[0]) {
		t.Fatalf("got %+v, %v", all, err)
	}
	after := written(t, signed)
	var runs []int // sectors
	for i := 0; i < size; i += 512 {
		if !bytes.Equal(before[i:i+512], after[i:i+512]) {
			runs = append(runs, i/512)
		}
	}
	// Free clusters in both information sectors; the chain of each program in
	// both tables; the size in each folder; each program's header, and the three
	// sectors of its signature.
	table := int(binary.LittleEndian.Uint32(before[36:]))
	data := 32 + 2*table
	if len(runs) != 2+2*2+2+2*(1+3) || !slices.Equal(runs[:6], []int{1, 7, 32, 33, 32 + table, 33 + table}) || runs[6] < data {
		t.Errorf("these sectors changed: %v; the second table begins at %d, the clusters at %d", runs, 32+table, data)
	}
	for i, f := range signed {
		if f.Program == 0 {
			if !bytes.Equal(content(t, f), content(t, files[i])) {
				t.Errorf("%s changed", f.Path)
			}
			continue
		}
		b := content(t, f)
		a, err := uki.Authenticode(bytes.NewReader(b), int64(len(b)))
		if hash, err2 := esp.Hash(split(t, content(t, files[i]))); err != nil || err2 != nil || a != hash {
			t.Errorf("%s: what was signed is %x, its hash %x, %v, %v", f.Path, hash, a, err, err2)
		}
	}
	again, all, err := esp.Sign(signed, esp.ByKey(key, nil))
	if err != nil || all[0].Added || all[1].Added || !bytes.Equal(written(t, again), after) {
		t.Errorf("signing again: got %+v, %v", all, err)
	}
	if again, all, err = esp.Sign(signed, esp.ByKey(key, []string{"EFI/BOOT/BOOTX64.EFI"})); err != nil || all[0].Added || len(all[0].By) != 1 || !bytes.Equal(written(t, again), after) {
		t.Errorf("signing again by name: got %+v, %v", all, err)
	}
	if err := esp.Check(bytes.NewReader(after), size, signed, o, scratch(t)); err != nil {
		t.Error(err)
	}
	tools(t, after)
}

func split(t *testing.T, b []byte) *uki.Program {
	t.Helper()
	p, err := uki.Split(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// tools has fsck.vfat and sbverify read a partition.
func tools(t *testing.T, b []byte) {
	t.Helper()
	dir := t.TempDir()
	image, out := filepath.Join(dir, "esp"), filepath.Join(dir, "out.efi")
	if err := os.WriteFile(image, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range [][]string{
		{"fsck.vfat", "-n", image},
		{"mcopy", "-i", image, "::EFI/Linux/small.efi", out},
		{"sbverify", "--cert", testdata + "cert.pem", out},
	} {
		if _, err := exec.LookPath(c[0]); err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Skipf("%s is not installed", c[0])
		}
		if text, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%v: %v\n%s", c, err, text)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	key := testKey(t)
	other, err := key.Sign([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := esp.Sign(testFiles(t), esp.Attach(map[string][]byte{"EFI/BOOT/BOOTX64.EFI": other})); err == nil || !strings.Contains(err.Error(), "EFI/BOOT/BOOTX64.EFI: signature over the image hash 01") {
		t.Errorf("another program's signature: got %v", err)
	}
	b := read(t, "program.efi")
	p := split(t, b)
	hash, err := esp.Hash(p)
	if err != nil {
		t.Fatal(err)
	}
	der, err := key.Sign(hash)
	if err != nil {
		t.Fatal(err)
	}
	many, err := p.With(slices.Repeat([][]byte{der}, esp.SignatureRoom/len(der)+1))
	if err != nil {
		t.Fatal(err)
	}
	f, err := esp.Program("x.efi", many)
	if err != nil {
		t.Fatal(err)
	}
	if err := esp.Write(scratch(t), size, []esp.File{f}, options()); err == nil || !strings.Contains(err.Error(), "bytes of signatures, and room for 65536") {
		t.Errorf("too many signatures: got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	const sectors = 512 * 1200 // the boot sector, both tables and the first clusters
	key := testKey(f)
	f.Add(written(f, testFiles(f))[:sectors])
	f.Fuzz(func(_ *testing.T, b []byte) {
		image := make([]byte, size)
		copy(image, b)
		files, _, err := esp.Read(bytes.NewReader(image), size)
		if err != nil {
			return
		}
		_, _, _ = esp.Sign(files, esp.ByKey(key, nil))
	})
}

package cpio

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
	"testing"
	"testing/iotest"

	"caisson/lock/tooltest"
)

// entry is a header and its data.
type entry struct {
	Header
	data string
}

// testEntries has every type of file, names and data of all lengths modulo 4,
// two names of one file, and the largest numbers.
func testEntries() []entry {
	const max = 1<<32 - 1
	e := []entry{
		{Header{Name: ".", Mode: 0o40755, Nlink: 2, Ino: 1, Mtime: 1700000000}, ""},
		{Header{Name: "dev/console", Mode: 0o20600, Nlink: 1, Ino: 2, RdevMajor: 5, RdevMinor: 1}, ""},
		{Header{Name: "dev/sda", Mode: 0o60660, GID: 6, Nlink: 1, Ino: 3, RdevMajor: 8}, ""},
		{Header{Name: "fifo", Mode: 0o10644, Nlink: 1, Ino: 4}, ""},
		{Header{Name: "bin", Mode: 0o120777, Nlink: 1, Ino: 5}, "usr/bin"},
		{Header{Name: "su", Mode: 0o104755, Nlink: 2, Ino: 6}, ""},
		{Header{Name: "sudo", Mode: 0o104755, Nlink: 2, Ino: 6}, "setuid"},
		{Header{Name: "größe", Mode: 0o100644, UID: max, GID: max, Nlink: max, Ino: max, Mtime: max, DevMajor: max, DevMinor: max}, "x"},
		{Header{Name: strings.Repeat("d/", 2047) + "n", Mode: 0o100644, Nlink: 1, Ino: 7}, "long"},
	}
	for n := range 9 {
		e = append(e, entry{Header{Name: strings.Repeat("n", n+1), Mode: 0o100600, Nlink: 1, Ino: uint32(n + 8)}, strings.Repeat("d", 9-n)})
	}
	for i := range e {
		e[i].Size = int64(len(e[i].data))
	}
	return e
}

func pack(t testing.TB, entries []entry, blockSize int) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b)
	w.BlockSize = blockSize
	for _, e := range entries {
		if err := w.WriteHeader(e.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func unpack(r io.Reader) ([]entry, error) {
	var entries []entry
	for cr := NewReader(r); ; {
		h, err := cr.Next()
		if err == io.EOF {
			return entries, nil
		}
		if err != nil {
			return entries, err
		}
		data, err := io.ReadAll(cr)
		if err != nil {
			return entries, err
		}
		entries = append(entries, entry{*h, string(data)})
	}
}

func sameEntries(t *testing.T, got, want []entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("entry %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestGolden(t *testing.T) {
	const want = "bf4d995051e2fd559cf835f907dbc0e59a9600d6bee7378814ef72a52e71c38e"
	if got := fmt.Sprintf("%x", sha256.Sum256(pack(t, testEntries(), 0))); got != want {
		t.Errorf("archive is sha256:%s, want %s", got, want)
	}
}

func TestSameBytes(t *testing.T) {
	want := pack(t, testEntries(), 512)
	if len(want)%512 != 0 {
		t.Errorf("archive has %d bytes, not a multiple of 512", len(want))
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if !bytes.Equal(pack(t, testEntries(), 512), want) {
		t.Error("GOMAXPROCS=1 changes the bytes")
	}
}

func TestReadBack(t *testing.T) {
	b := pack(t, testEntries(), 0)
	for name, r := range map[string]io.Reader{
		"whole":    bytes.NewReader(b),
		"half":     iotest.HalfReader(bytes.NewReader(b)),
		"one byte": iotest.OneByteReader(bytes.NewReader(b)),
		"data err": iotest.DataErrReader(bytes.NewReader(b)),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := unpack(r)
			if err != nil {
				t.Fatal(err)
			}
			sameEntries(t, got, testEntries())
		})
	}
}

func TestReaderStopsBehindTheTrailer(t *testing.T) {
	first, second := testEntries()[:4], testEntries()[4:]
	r := bytes.NewReader(append(pack(t, first, 0), pack(t, second, 512)...))
	for _, want := range [][]entry{first, second} {
		got, err := unpack(r)
		if err != nil {
			t.Fatal(err)
		}
		sameEntries(t, got, want)
	}
}

func TestNextSkips(t *testing.T) {
	r := NewReader(bytes.NewReader(pack(t, testEntries(), 0)))
	for _, want := range testEntries() {
		h, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if *h != want.Header {
			t.Errorf("got %+v, want %+v", *h, want.Header)
		}
		if _, err := r.Read(make([]byte, 2)); err != nil && err != io.EOF {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("got %v, want %v", err, io.EOF)
		}
	}
}

func TestCpioLists(t *testing.T) {
	cmd := exec.Command(tooltest.Find(t, "cpio"), "-itv", "--numeric-uid-gid", "--quiet")
	cmd.Env = []string{"TZ=UTC", "LC_ALL=C.UTF-8"}
	cmd.Stdin = bytes.NewReader(pack(t, testEntries(), 512))
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio -itv: %v\n%s", err, out)
	}
	for _, want := range []string{
		"drwxr-xr-x   2 0        0               0 Nov 14  2023 .\n",
		"crw-------   1 0        0          5,   1 Jan  1  1970 dev/console\n",
		"brw-rw----   1 0        6          8,   0 Jan  1  1970 dev/sda\n",
		"prw-r--r--   1 0        0               0 Jan  1  1970 fifo\n",
		"lrwxrwxrwx   1 0        0               7 Jan  1  1970 bin -> usr/bin\n",
		"-rwsr-xr-x   2 0        0               6 Jan  1  1970 sudo\n",
		"-rw-------   1 0        0               9 Jan  1  1970 n\n",
		strings.Repeat("d/", 2047) + "n\n",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("cpio -itv does not list %q, but\n%s", want, out)
		}
	}
}

// TestCpioExtracts has GNU cpio unpack an archive, pack the files, and our
// reader read that.
func TestCpioExtracts(t *testing.T) {
	cpio := tooltest.Find(t, "cpio")
	entries := []entry{
		{Header{Name: "a", Mode: 0o40750, Nlink: 2, Ino: 1}, ""},
		{Header{Name: "a/one", Mode: 0o100640, Nlink: 2, Ino: 2, Mtime: 86400}, ""},
		{Header{Name: "a/two", Mode: 0o100640, Nlink: 2, Ino: 2, Mtime: 86400}, "two names"},
		{Header{Name: "a/link", Mode: 0o120777, Nlink: 1, Ino: 3}, "one"},
		{Header{Name: "a/empty", Mode: 0o100400, Nlink: 1, Ino: 4}, ""},
	}
	for i := range entries {
		entries[i].Size = int64(len(entries[i].data))
		entries[i].UID, entries[i].GID = uint32(os.Getuid()), uint32(os.Getgid())
	}
	dir := t.TempDir()
	cmd := exec.Command(cpio, "-idm", "--quiet")
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(pack(t, entries, 0))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio -idm: %v\n%s", err, out)
	}
	one, err := os.Stat(filepath.Join(dir, "a/one"))
	if err != nil {
		t.Fatal(err)
	}
	if two, err := os.Stat(filepath.Join(dir, "a/two")); err != nil || !os.SameFile(one, two) {
		t.Errorf("a/one and a/two are not one file: %v", err)
	}
	cmd = exec.Command(cpio, "-o", "-H", "newc", "--reproducible", "--quiet")
	cmd.Dir, cmd.Stdin = dir, strings.NewReader("a\na/one\na/two\na/link\na/empty\n")
	b, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := unpack(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	// GNU cpio writes capital digits, we and RPM small ones.
	if again := pack(t, got, 512); !bytes.Equal(bytes.ToLower(again), bytes.ToLower(b)) {
		t.Errorf("GNU cpio's archive of %d bytes, read and written, differs", len(b))
	}
	byName := make(map[string]entry)
	for _, e := range got {
		byName[e.Name] = e
	}
	for _, want := range entries {
		e := byName[want.Name]
		if e.Mode != want.Mode || e.Nlink != want.Nlink || want.Name != "a" && want.Mtime > 0 && e.Mtime != want.Mtime {
			t.Errorf("got %+v, want %+v", e, want)
		}
		if want.Nlink == 1 && e.data != want.data {
			t.Errorf("%s: got %q, want %q", want.Name, e.data, want.data)
		}
	}
	if data := byName["a/one"].data + byName["a/two"].data; data != "two names" {
		t.Errorf("data of the file with two names is %q", data)
	}
}

// TestRPMPayloads reads the payloads of real packages and writes them again.
func TestRPMPayloads(t *testing.T) {
	rpms, err := filepath.Glob(filepath.Join("..", "..", "..", "..", "shared", "data", "rpms", "*.rpm"))
	if err != nil {
		t.Fatal(err)
	}
	if len(rpms) == 0 {
		t.Skip("no packages in ../shared/data/rpms beside the checkout")
	}
	rpm2cpio := tooltest.Find(t, "rpm2cpio")
	for _, rpm := range rpms {
		b, err := exec.Command(rpm2cpio, rpm).Output()
		if err != nil {
			t.Errorf("rpm2cpio %s: %v", rpm, err)
			continue
		}
		got, err := unpack(bytes.NewReader(b))
		if err != nil {
			t.Errorf("%s: %v", rpm, err)
			continue
		}
		if again := pack(t, got, 0); !bytes.Equal(again, b) {
			t.Errorf("%s: %d bytes, read and written %d other bytes", rpm, len(b), len(again))
		}
	}
}

func TestStripped(t *testing.T) {
	var b bytes.Buffer
	for i, data := range []string{"first", "", "three"} {
		fmt.Fprintf(&b, "07070X%08x\x00\x00%s", 0xa0+i, data)
		b.Write(make([]byte, padding(int64(b.Len()))))
	}
	b.Write(pack(t, nil, 0))
	r := NewReader(&b)
	r.Stripped = func(index uint32) (*Header, error) {
		if index > 0xa2 {
			return nil, errors.New("no such file")
		}
		return &Header{Name: fmt.Sprint(index), Size: []int64{5, 0, 5}[index-0xa0]}, nil
	}
	var got []string
	for {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, h.Name, string(data))
	}
	if got, want := strings.Join(got, " "), "160 first 161  162 three"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestStrippedRefuses(t *testing.T) {
	for _, c := range []struct {
		stripped func(uint32) (*Header, error)
		want     string
	}{
		{nil, "stripped entry 7"},
		{func(uint32) (*Header, error) { return nil, errors.New("unknown file") }, "stripped entry 7: unknown file"},
		{func(uint32) (*Header, error) { return nil, nil }, "no valid header"},
		{func(uint32) (*Header, error) { return &Header{Name: "x", Size: -1}, nil }, "no valid header"},
	} {
		r := NewReader(strings.NewReader("07070X00000007\x00\x00"))
		r.Stripped = c.stripped
		if _, err := r.Next(); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

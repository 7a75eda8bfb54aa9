package gpt

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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

const testSize = 16 << 20

func testTable() Table {
	return Table{
		DiskID: FromBytes([16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}),
		Partitions: []Partition{
			{Type: TypeESP, ID: FromBytes([16]byte{0xaa, 15: 1}), Name: "esp", First: 2048, Last: 10239},
			{Type: TypeRootX86_64, ID: FromBytes([16]byte{0xbb, 15: 2}), Name: "root", First: 10240, Last: 20479, Attrs: AttrReadOnly},
			{Type: TypeRootVerityX86_64, ID: FromBytes([16]byte{0xcc, 15: 3}), Name: "root-verity é", First: 20480, Last: 30719, Attrs: AttrReadOnly},
		},
	}
}

// memory is a disk in memory.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func (m memory) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(m).ReadAt(p, off) }

func written(t *testing.T, table Table) memory {
	t.Helper()
	m := make(memory, testSize)
	if err := Write(m, testSize, table); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWriteIsAlwaysTheSame(t *testing.T) {
	a := written(t, testTable())
	t.Setenv("TZ", "Asia/Tokyo")
	t.Setenv("TMPDIR", t.TempDir())
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	if b := written(t, testTable()); !bytes.Equal(a, b) {
		t.Error("the same table gave other bytes")
	}
	const golden = "09ac5a044d784ba27f8fd09bca491255e233a635332806a9117d49b3045cd519"
	if got := fmt.Sprintf("%x", sha256.Sum256(a)); got != golden {
		t.Errorf("the writer's bytes changed: got sha256:%s, want sha256:%s", got, golden)
	}
}

func TestSgdisk(t *testing.T) {
	sgdisk := tooltest.Find(t, "sgdisk")
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, written(t, testTable()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sgdisk, "-v", name).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "No problems found") || strings.Contains(string(out), "Caution") {
		t.Errorf("sgdisk -v: %v\n%s", err, out)
	}
	out, err = exec.Command(sgdisk, "-p", "-i", "3", name).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk -p: %v\n%s", err, out)
	}
	for _, want := range []string{
		"01020304-0506-0708-090A-0B0C0D0E0F10", "CC000000-0000-0000-0000-000000000003",
		"2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5", "Attribute flags: 1000000000000000", "root-verity",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("sgdisk does not show %q:\n%s", want, out)
		}
	}
}

// TestReadSgdisk reads a table that another program wrote.
func TestReadSgdisk(t *testing.T) {
	sgdisk := tooltest.Find(t, "sgdisk")
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, make([]byte, testSize), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(sgdisk, "-n", "5:4096:8191", "-t", "5:ef00", "-c", "5:hello", "-U", "01020304-0506-0708-090A-0B0C0D0E0F10", name).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk: %v\n%s", err, out)
	}
	disk, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	table, err := Read(bytes.NewReader(disk), testSize)
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Partitions) != 1 || table.Partitions[0].Name != "hello" || table.Partitions[0].Type != TypeESP ||
		table.Partitions[0].First != 4096 || table.DiskID != testTable().DiskID {
		t.Errorf("got %+v", table)
	}
}

func TestReadGivesBackWhatWasWritten(t *testing.T) {
	disk := written(t, testTable())
	table, err := Read(bytes.NewReader(disk), testSize)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(table.DiskID, table.Partitions), fmt.Sprint(testTable().DiskID, testTable().Partitions); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if !bytes.Equal(table.Header(), disk[512:512+92]) {
		t.Error("Header is not the primary header")
	}
	if e := table.Entries(); len(e) != 3 || !bytes.Equal(e[2], disk[1024+256:1024+384]) {
		t.Error("Entries are not the entries in use")
	}
	if !bytes.Equal(written(t, *table), disk) {
		t.Error("writing what was read gives other bytes")
	}
}

func TestWriteRefuses(t *testing.T) {
	for _, c := range []struct {
		want   string
		size   int64
		change func(*Table)
	}{
		{"overlaps", testSize, func(t *Table) { t.Partitions[1].First-- }},
		{"usable ones are", testSize, func(t *Table) { t.Partitions[2].Last = LastUsable(testSize) + 1 }},
		{"usable ones are", testSize, func(t *Table) { t.Partitions[0].First = 33 }},
		{"before it starts", testSize, func(t *Table) { t.Partitions[0].Last = 2047 }},
		{"has no id", testSize, func(t *Table) { t.Partitions[0].ID = GUID{} }},
		{"has no type", testSize, func(t *Table) { t.Partitions[0].Type = GUID{} }},
		{"have one id", testSize, func(t *Table) { t.Partitions[0].ID = t.Partitions[1].ID }},
		{"at most 36", testSize, func(t *Table) { t.Partitions[0].Name = strings.Repeat("n", 37) }},
		{"NUL", testSize, func(t *Table) { t.Partitions[0].Name = "a\x00b" }},
		{"at most 128", testSize, func(t *Table) { t.Partitions = make([]Partition, 129) }},
		{"multiple of 512", testSize + 1, func(*Table) {}},
		{"at least", 1024, func(*Table) {}},
	} {
		table := testTable()
		c.change(&table)
		if err := Write(make(memory, testSize), c.size, table); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	resum := func(d memory, lba int) {
		h := d[lba*512:][:92]
		clear(h[16:20])
		binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h))
	}
	for _, c := range []struct {
		want   string
		change func(memory)
	}{
		{"protective MBR", func(d memory) { d[450] = 0x83 }},
		{"primary partition table: no header", func(d memory) { d[512] = 'e' }},
		{"primary partition table: header has CRC", func(d memory) { d[512+56]++ }},
		{"primary partition table: entries have CRC", func(d memory) { d[1024+56]++ }},
		{"backup partition table: header has CRC", func(d memory) { d[testSize-512+56]++ }},
		{"backup partition table: entries have CRC", func(d memory) { d[testSize-33*512+300]++ }},
		{"not a table", func(d memory) { binary.LittleEndian.PutUint32(d[512+80:], 1<<31); resum(d, 1) }},
		{"not a table", func(d memory) { binary.LittleEndian.PutUint32(d[512+84:], 129); resum(d, 1) }},
		{"leave the disk", func(d memory) { binary.LittleEndian.PutUint64(d[512+72:], 1<<63); resum(d, 1) }},
		{"backup partition table: header in sector", func(d memory) { binary.LittleEndian.PutUint64(d[512+32:], 1<<40); resum(d, 1) }},
		{"usable sectors", func(d memory) { binary.LittleEndian.PutUint64(d[512+48:], 1<<40); resum(d, 1) }},
		{"differ in the disk id", func(d memory) { d[512+60]++; resum(d, 1) }},
	} {
		disk := written(t, testTable())
		c.change(disk)
		if _, err := Read(bytes.NewReader(disk), testSize); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	if _, err := Read(bytes.NewReader(nil), 0); err == nil {
		t.Error("an empty disk has no error")
	}
}

type readerAtFunc func(p []byte, off int64) (int, error)

func (f readerAtFunc) ReadAt(p []byte, off int64) (int, error) { return f(p, off) }

func TestReadersThatFail(t *testing.T) {
	disk := written(t, testTable())
	eager := readerAtFunc(func(p []byte, off int64) (int, error) {
		n := copy(p, disk[off:])
		if off+int64(n) == testSize {
			return n, io.EOF
		}
		return n, nil
	})
	if _, err := Read(eager, testSize); err != nil {
		t.Errorf("EOF beside the last bytes: %v", err)
	}
	broken := readerAtFunc(func([]byte, int64) (int, error) { return 0, iotest.ErrTimeout })
	if _, err := Read(broken, testSize); !errors.Is(err, iotest.ErrTimeout) {
		t.Errorf("got %v, want the reader's error", err)
	}
	if _, err := Read(bytes.NewReader(disk[:testSize/2]), testSize); !errors.Is(err, io.ErrUnexpectedEOF) && !strings.Contains(fmt.Sprint(err), "backup") {
		t.Errorf("a disk cut in half: got %v", err)
	}
}

func TestGUID(t *testing.T) {
	for text, want := range map[string]GUID{
		"c12a7328-f81f-11d2-ba4b-00a0c93ec93b": TypeESP,
		"4f68bce3-e8cd-4db1-96e7-fbcaf984b709": TypeRootX86_64,
		"2c7357ed-ebd2-46d9-aec1-23d437ec2bf5": TypeRootVerityX86_64,
		"b921b045-1df0-41c3-af44-4c6f280d3fae": TypeRootARM64,
		"df3300ce-d69f-4c92-978c-9bfb0f38d820": TypeRootVerityARM64,
	} {
		got, err := ParseGUID(strings.ToUpper(text))
		if err != nil || got != want || got.String() != text {
			t.Errorf("%s: got %s, %v", text, got, err)
		}
	}
	for _, bad := range []string{"", "c12a7328", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "c12a7328-f81f-11d2-ba4b-00a0c93ec93g", "c12a7328xf81f-11d2-ba4b-00a0c93ec93b", "c12a-328-f81f-11d2-ba4b-00a0c93ec93b"} {
		if _, err := ParseGUID(bad); err == nil {
			t.Errorf("%q is taken for a GUID", bad)
		}
	}
}

func FuzzRead(f *testing.F) {
	small := make(memory, 128<<10)
	table := testTable()
	table.Partitions = table.Partitions[:1]
	table.Partitions[0].First, table.Partitions[0].Last = 40, 100
	if err := Write(small, int64(len(small)), table); err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(small))
	f.Add([]byte(small[:600]))
	f.Fuzz(func(t *testing.T, b []byte) {
		table, err := Read(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, p := range table.Partitions {
			if p.Size() <= 0 || p.Start()+p.Size() > int64(len(b)) {
				t.Errorf("partition %+v leaves a disk of %d bytes", p, len(b))
			}
		}
		e, err := OpenEdit(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		grown := append(memory(bytes.Clone(b)), make([]byte, 64<<10-len(b)%SectorSize)...)
		if e.Write(grown, int64(len(grown))) != nil {
			return
		}
		again, err := Read(bytes.NewReader(grown), int64(len(grown)))
		if err != nil || len(again.Partitions) != len(table.Partitions) {
			t.Errorf("the table that was written again has %v, %v", again, err)
		}
	})
}

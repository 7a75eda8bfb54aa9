// Package vendortest makes disks such as vendors ship them, for tests: an EFI
// system partition with a unified kernel image, and a root of some file
// system, made by the tools that people make them with.
package vendortest

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// Tool finds a program of the machine, or skips the test.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" { //nolint:forbidigo // a switch of tests
			t.Fatalf("%s is required: %v", name, err)
		}
		t.Skipf("%s is not installed", name)
	}
	return path
}

// Run runs a program of the machine.
func Run(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(Tool(t, name), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// Part is a partition.
type Part struct {
	Number  int // 0 for the next one; where one is given, the table is sgdisk's
	Type    gpt.GUID
	Name    string
	Content []byte // a multiple of 512 bytes
}

const mib = 1 << 20

// Disk writes a disk with these partitions, each from a whole MiB on, and free
// bytes behind them.
func Disk(t testing.TB, free int64, parts ...Part) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "vendor.raw")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := int64(mib)
	args := []string{"-a1", "-U", "11111111-2222-3333-4444-555555555555"}
	table := gpt.Table{DiskID: gpt.GUID{1, 1, 1, 1}}
	byTool := false
	for i, p := range parts {
		if err := writeSparse(f, p.Content, at); err != nil {
			t.Fatal(err)
		}
		n := p.Number
		byTool = byTool || n != 0
		if n == 0 {
			n = i + 1
		}
		id, err := gpt.ParseGUID(fmt.Sprintf("00000000-0000-4000-8000-%012d", n))
		if err != nil {
			t.Fatal(err)
		}
		first, last := at/512, (at+int64(len(p.Content)))/512-1
		args = append(args, fmt.Sprintf("-n%d:%d:%d", n, first, last), fmt.Sprintf("-t%d:%s", n, p.Type), fmt.Sprintf("-c%d:%s", n, p.Name), fmt.Sprintf("-u%d:%s", n, id))
		table.Partitions = append(table.Partitions, gpt.Partition{Type: p.Type, ID: id, Name: p.Name, First: uint64(first), Last: uint64(last)}) //nolint:gosec // positive
		at = (at + int64(len(p.Content)) + mib - 1) / mib * mib
	}
	size := at + mib + free
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	if byTool {
		Run(t, "sgdisk", append(args, name)...)
	} else if err := gpt.Write(f, size, table); err != nil {
		t.Fatal(err)
	}
	return name
}

// writeSparse writes what is not zeros.
func writeSparse(w io.WriterAt, b []byte, at int64) error {
	zeros := make([]byte, 64<<10)
	for len(b) > 0 {
		piece := b[:min(len(b), len(zeros))]
		if !bytes.Equal(piece, zeros[:len(piece)]) {
			if _, err := w.WriteAt(piece, at); err != nil {
				return err
			}
		}
		b, at = b[len(piece):], at+int64(len(piece))
	}
	return nil
}

// Stub is an EFI program that says it is such a version of systemd-stub.
func Stub(t testing.TB, version string) []byte {
	t.Helper()
	b, err := uki.AddonStub(uki.MachineAMD64)
	if err != nil {
		t.Fatal(err)
	}
	im, err := uki.Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	magic := "#### LoaderInfo: systemd-stub " + version + " ####\x00"
	copy(b[im.Sections[1].Offset:], magic)
	at := bytes.Index(b, []byte(".sdmagic"))
	binary.LittleEndian.PutUint32(b[at+8:], uint32(len(magic))) //nolint:gosec // some forty
	return b
}

// UKI is a unified kernel image that cannot be started.
func UKI(t testing.TB, version, cmdline string) []byte {
	t.Helper()
	linux, err := uki.AddonStub(uki.MachineAMD64)
	if err != nil {
		t.Fatal(err)
	}
	stub := Stub(t, version)
	var b bytes.Buffer
	_, err = uki.Write(&b, bytes.NewReader(stub), int64(len(stub)), []uki.Section{
		uki.TextSection(".osrel", "ID=vendor\n"), uki.TextSection(".cmdline", cmdline), uki.TextSection(".uname", "6.12.0"),
		uki.TextSection(".initrd", strings.Repeat("initrd", 1000)), uki.TextSection(".linux", string(linux)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// ESP is an EFI system partition with these files.
func ESP(t testing.TB, files map[string][]byte) Part {
	t.Helper()
	var all []fat.File
	for path, content := range files {
		all = append(all, fat.File{Path: path, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}})
	}
	b := make(memory, 33*mib)
	if err := fat.Write(b, int64(len(b)), all, fat.Options{Serial: 1, Label: "ESP"}); err != nil {
		t.Fatal(err)
	}
	return Part{Type: gpt.TypeESP, Name: "EFI System Partition", Content: b}
}

type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

// Root is a root partition with an ext4, xfs or btrfs of so many MiB.
func Root(t testing.TB, fs string, size int) Part {
	t.Helper()
	name := filepath.Join(t.TempDir(), fs)
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(name, int64(size)*mib); err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(t.TempDir(), "tree")
	if err := os.Mkdir(tree, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(tree, "file"), bytes.Repeat([]byte("content of a file\n"), 50000), 0o600); err != nil {
		t.Fatal(err)
	}
	const id = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"
	switch fs {
	case "ext4":
		Run(t, "mkfs.ext4", "-q", "-U", id, "-E", "hash_seed="+id, "-d", tree, name)
	case "xfs":
		Run(t, "mkfs.xfs", "-q", "-m", "uuid="+id, name)
	case "btrfs":
		Run(t, "mkfs.btrfs", "-q", "-U", id, "-r", tree, name)
	default:
		t.Fatalf("file system %q", fs)
	}
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return Part{Type: gpt.TypeRootX86_64, Name: "root", Content: b}
}

package boot

import (
	"bytes"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"caisson/build/image/cpio"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
)

// What a machine of the chain tests prints: its event log, then that it has
// come to the end.
const (
	logStart = "event log:"
	logEnd   = "caisson: booted"
)

const chainInit = `#!/bin/busybox sh
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t securityfs securityfs /sys/kernel/security
echo "` + logStart + `"
/bin/busybox base64 /sys/kernel/security/tpm0/binary_bios_measurements
echo "` + logEnd + `"
exec /bin/busybox sleep 1000
`

// chainInitrd prints the machine's event log.
func chainInitrd(t *testing.T, busybox []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := cpio.NewWriter(&b)
	entry := func(name string, mode uint32, content string) {
		h := cpio.Header{Name: name, Mode: mode, Nlink: 1, Size: int64(len(content))}
		if name == "dev/console" {
			h.RdevMajor, h.RdevMinor = 5, 1
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "dev", "sys"} {
		entry(dir, 0o040755, "")
	}
	entry("dev/console", 0o020600, "")
	entry("bin/busybox", 0o100755, string(busybox))
	entry("init", 0o100755, chainInit)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// peImage adds sections to a stub.
func peImage(t *testing.T, stub []byte, sections ...string) []byte {
	t.Helper()
	var all []uki.Section
	for i := 0; i < len(sections); i += 2 {
		content := sections[i+1]
		all = append(all, uki.Section{Name: sections[i], Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
			return io.NopCloser(strings.NewReader(content)), nil
		}})
	}
	var b bytes.Buffer
	if _, err := uki.Write(&b, bytes.NewReader(stub), int64(len(stub)), all); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

const (
	chainESPStart  = 1 << 20
	chainRootStart = chainESPStart + 64<<20
	chainPartition = 1 << 20
	chainTreeStart = chainRootStart + chainPartition
	chainDiskSize  = chainTreeStart + 2*chainPartition
)

// chainRoot is a root partition, its hash partition, and its root hash.
func chainRoot(t *testing.T) (root, tree []byte, hash [32]byte) {
	t.Helper()
	root, b := bytes.Repeat([]byte("root"), chainPartition/4), make(buffer, chainPartition)
	hash, err := verity.Write(bytes.NewReader(root), chainPartition, b, verity.Params{Salt: []byte("salt")})
	if err != nil {
		t.Fatal(err)
	}
	return root, b, hash
}

func chainRootHash(t *testing.T) string {
	t.Helper()
	_, _, hash := chainRoot(t)
	return hex.EncodeToString(hash[:])
}

// chainDisk writes a disk with these files on its EFI system partition, and
// returns its name.
func chainDisk(t *testing.T, files map[string][]byte) string {
	t.Helper()
	disk := make(buffer, chainDiskSize)
	root, tree, hash := chainRoot(t)
	copy(disk[chainRootStart:], root)
	copy(disk[chainTreeStart:], tree)
	var all []fat.File
	for path, content := range files {
		all = append(all, fat.File{Path: path, Size: int64(len(content)), ReadOnly: path == seed, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(content)), nil
		}})
	}
	if err := fat.Write(io.NewOffsetWriter(disk, chainESPStart), chainRootStart-chainESPStart, all, fat.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := gpt.Write(disk, chainDiskSize, gpt.Table{DiskID: gpt.GUID{1}, Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, ID: gpt.GUID{2}, Name: "esp", First: chainESPStart / 512, Last: chainRootStart/512 - 1},
		{Type: gpt.TypeRootX86_64, ID: gpt.FromBytes([16]byte(hash[:16])), Name: "root", First: chainRootStart / 512, Last: chainTreeStart/512 - 1},
		{Type: gpt.TypeRootVerityX86_64, ID: gpt.FromBytes([16]byte(hash[16:])), Name: "verity", First: chainTreeStart / 512, Last: (chainTreeStart+chainPartition)/512 - 1},
	}}); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(name, disk, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// buffer is a disk in memory.
type buffer []byte

func (b buffer) WriteAt(p []byte, off int64) (int, error) { return copy(b[off:], p), nil }

package main

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/rogpeppe/go-internal/testscript"

	"caisson/build"
	"caisson/build/esp"
	"caisson/build/image/gpt"
	"caisson/build/imagefile"
)

// bootKeys are where the test's key, its certificate and its program lie.
const bootKeys = "../../build/image/authenticode/testdata"

// cmdMakeBoot makes a disk that has nothing but an EFI system partition, in the
// format of its name, and the key that signs.
func cmdMakeBoot(ts *testscript.TestScript, _ bool, args []string) {
	const start, length, size = 1 << 20, 33 << 20, 36 << 20
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(bootKeys, name))
		ts.Check(err)
		return b
	}
	for _, name := range []string{"key.pem", "cert.pem"} {
		ts.Check(os.WriteFile(ts.MkAbs(name), read(name), 0o600))
	}
	program := func(path string, b []byte) esp.File {
		f, err := esp.Program(path, io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b))))
		ts.Check(err)
		return f
	}
	b := read("program.efi")
	disk, err := os.CreateTemp(ts.MkAbs("."), "disk-")
	ts.Check(err)
	defer os.Remove(disk.Name())
	defer disk.Close()
	ts.Check(disk.Truncate(size))
	ts.Check(gpt.Write(disk, size, gpt.Table{DiskID: gpt.GUID{1}, Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, ID: gpt.GUID{2}, Name: "esp", First: start / 512, Last: (start+length)/512 - 1},
	}}))
	ts.Check(esp.Write(io.NewOffsetWriter(disk, start), length, []esp.File{
		program("EFI/BOOT/BOOTX64.EFI", b), program("EFI/Linux/small.efi", append(bytes.Clone(b), "other"...)), esp.Bytes("loader/loader.conf", []byte("timeout 0\n")),
	}, esp.Options{Time: 1700000000}))
	name := ts.MkAbs(args[0])
	ts.Check(build.WriteImage(context.Background(), name, disk, size, imagefile.Options{Format: strings.TrimPrefix(filepath.Ext(name), ".")}))
}

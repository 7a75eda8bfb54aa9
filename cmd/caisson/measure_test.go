package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"io"
	"os"

	"github.com/rogpeppe/go-internal/testscript"

	"caisson/build/image/cpio"
	"caisson/build/image/erofs"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/build/image/verity"
	"caisson/verify/measure"
	"caisson/verify/measure/ovmf"
	"caisson/verify/measure/ovmf/ovmftest"
	"caisson/verify/measure/tdx"
)

// cmdMakeMeasured makes what measure reads: disk.raw, an image whose kernel
// measures into RTMRs; snp.fd and tdx.fd, firmware; tpm.log and ccel.log, of
// machines that measured what is predicted.
func cmdMakeMeasured(ts *testscript.TestScript, _ bool, _ []string) {
	disk := makeMeasuredDisk(ts)
	r, err := measure.Disk(bytes.NewReader(disk), int64(len(disk)))
	ts.Check(err)
	vars := ovmftest.Variables(4096)
	tdxFirmware := ovmftest.Firmware{Pages: 3, TDX: []ovmftest.TDX{
		{Offset: 4096, Raw: 8192, Address: 1<<32 - 8192, Size: 8192, Extend: 1},
		{Raw: 4096, Address: 1<<32 - 12288, Size: 4096, Kind: 1},
		{Address: 0x809000, Size: 0x2000, Kind: 2},
	}}.Bytes()
	copy(tdxFirmware, vars)
	snpFirmware := ovmftest.Firmware{Pages: 2, Reset: 0x80b004, Hashes: 0x80f000, SEV: []ovmftest.SEV{
		{Address: 0x800000, Size: 0x9000, Kind: 1}, {Address: 0x80f000, Size: 0x1000, Kind: 0x10},
	}}.Bytes()
	for name, b := range map[string][]byte{
		"disk.raw": disk, "vars.fd": vars, "tdx.fd": tdxFirmware, "snp.fd": snpFirmware, "tpm.log": tpmLog(r), "ccel.log": ccelLog(ts, tdxFirmware, r),
	} {
		ts.Check(os.WriteFile(ts.MkAbs(name), b, 0o644))
	}
}

// memoryDisk is a disk in memory.
type memoryDisk []byte

func (m memoryDisk) WriteAt(p []byte, off int64) (int, error) { return copy(m[off:], p), nil }

func makeMeasuredDisk(ts *testscript.TestScript) []byte {
	const espAt, rootAt, treeAt, size = 1 << 20, 34 << 20, 35 << 20, 37 << 20
	m := make(memoryDisk, size)
	_, err := erofs.Write(io.NewOffsetWriter(m, rootAt), []erofs.Entry{{Mode: 0o40755}}, erofs.Options{})
	ts.Check(err)
	root, err := verity.Write(bytes.NewReader(m[rootAt:treeAt]), treeAt-rootAt, io.NewOffsetWriter(m, treeAt), verity.Params{Salt: []byte("salt")})
	ts.Check(err)
	stub, err := uki.AddonStub(uki.MachineAMD64)
	ts.Check(err)
	kernel := bytes.Clone(stub) // an EFI program, with the GUID of the protocol for RTMRs in it
	copy(kernel[len(kernel)-20:], "\x3d\x1a\x75\x96\xf4\x72\xa6\x41\xa7\x94\xed\x5d\x0e\x67\xae\x6b")
	stub = bytes.Replace(stub, []byte("caisson-addon 1 ####\x00"), []byte("systemd-stub 257 ####"), 1)
	var initrd bytes.Buffer
	ts.Check(cpio.NewWriter(&initrd).Close())
	opener := func(b []byte) func() (io.ReadCloser, error) {
		return func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b)), nil }
	}
	var sections []uki.Section
	for _, s := range []struct {
		name string
		b    []byte
	}{
		{".osrel", []byte("ID=test\n")}, {".cmdline", []byte("quiet roothash=" + hex.EncodeToString(root[:]))}, {".uname", []byte("6.12")},
		{".sbat", []byte("sbat,1\n")}, {".initrd", initrd.Bytes()}, {".linux", kernel},
	} {
		sections = append(sections, uki.Section{Name: s.name, Size: int64(len(s.b)), Open: opener(s.b)})
	}
	var image bytes.Buffer
	_, err = uki.Write(&image, bytes.NewReader(stub), int64(len(stub)), sections)
	ts.Check(err)
	ts.Check(fat.Write(io.NewOffsetWriter(m, espAt), rootAt-espAt, []fat.File{
		{Path: "EFI/BOOT/BOOTX64.EFI", Size: int64(image.Len()), Open: opener(image.Bytes())},
	}, fat.Options{}))
	ts.Check(gpt.Write(m, size, gpt.Table{DiskID: gpt.GUID{1}, Partitions: []gpt.Partition{
		{Type: gpt.TypeESP, ID: gpt.GUID{2}, Name: "esp", First: espAt / 512, Last: rootAt/512 - 1},
		{Type: gpt.TypeRootX86_64, ID: gpt.FromBytes([16]byte(root[:16])), Name: "root", First: rootAt / 512, Last: treeAt/512 - 1},
		{Type: gpt.TypeRootVerityX86_64, ID: gpt.FromBytes([16]byte(root[16:])), Name: "verity", First: treeAt / 512, Last: treeAt/512 + 1023},
	}}))
	return m
}

// logHead begins an event log with one bank: TCG_PCR_EVENT, TCG_EfiSpecIDEvent.
func logHead(register uint32, algorithm, size uint16) []byte {
	le := binary.LittleEndian
	spec := append([]byte("Spec ID Event03\x00"), make([]byte, 8)...)
	spec = le.AppendUint16(le.AppendUint16(le.AppendUint32(spec, 1), algorithm), size)
	spec = append(spec, 0)
	b := append(le.AppendUint32(le.AppendUint32(nil, register), 3), make([]byte, 20)...)
	return append(le.AppendUint32(b, uint32(len(spec))), spec...)
}

// logEvent is a TCG_PCR_EVENT2 of a type that is a number.
func logEvent(register, kind uint32, algorithm uint16, digest string) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, register), kind), 1)
	d, err := hex.DecodeString(digest)
	if err != nil {
		panic(err) // what is predicted is hex
	}
	return le.AppendUint32(append(le.AppendUint16(b, algorithm), d...), 0)
}

func tpmLog(r *measure.Result) []byte {
	b := logHead(0, 0x0b, 32)
	for _, e := range r.Events {
		b = append(b, logEvent(uint32(e.PCR), 0xd, 0x0b, e.Digest)...)
	}
	return b
}

func ccelLog(ts *testscript.TestScript, firmware []byte, r *measure.Result) []byte {
	f, err := ovmf.Read(bytes.NewReader(firmware))
	ts.Check(err)
	v, err := tdx.Predict(f, r, tdx.Machine{Memory: 1 << 30})
	ts.Check(err)
	b := logHead(1, 0x0c, 48)
	for _, e := range v.Events {
		kind := map[string]uint32{"EV_PLATFORM_CONFIG_FLAGS": 0xa, "EV_EFI_VARIABLE_BOOT": 0x80000002}[e.Type]
		digest := e.Digest
		if digest == "" {
			digest = v.MRTD // of anything
		}
		b = append(b, logEvent(uint32(e.RTMR+1), kind, 0x0c, digest)...)
	}
	return append(b, bytes.Repeat([]byte{0xff}, 1000)...)
}

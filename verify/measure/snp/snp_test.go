package snp

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"caisson/verify/measure/ovmf"
	"caisson/verify/measure/ovmf/ovmftest"
)

// withHashes is a firmware that checks a kernel, as OVMF for AMD SEV does.
func withHashes() ovmftest.Firmware {
	return ovmftest.Firmware{
		Pages: 3, Reset: 0x80b004, Hashes: 0x80fc00,
		SEV: []ovmftest.SEV{
			{Address: 0x800000, Size: 0x9000, Kind: sectionMemory}, {Address: 0x80d000, Size: 0x1000, Kind: sectionSecrets},
			{Address: 0x80e000, Size: 0x1000, Kind: sectionCPUID}, {Address: 0x810000, Size: 0x1000, Kind: sectionCalling},
			{Address: 0x80f000, Size: 0x1000, Kind: sectionHashes}, {Address: 0x811000, Size: 0xf000, Kind: sectionMemory},
		},
	}
}

func read(t testing.TB, b []byte) *ovmf.Firmware {
	t.Helper()
	f, err := ovmf.Read(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func launch(t testing.TB, f *ovmf.Firmware, m Machine) string {
	t.Helper()
	d, err := Launch(f, m)
	if err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(d[:])
}

func machine(vmm VMM, cpus int, kind string) Machine {
	signature, err := Signature(kind)
	if err != nil {
		panic(err)
	}
	return Machine{VCPUs: cpus, Signature: signature, VMM: vmm, Features: FeatureSNP}
}

// TestGolden has what sev-snp-measure 0.0.13 computes for withHashes:
//
//	sev-snp-measure --mode snp --ovmf F --vcpus N --vcpu-type T --vmm-type V --guest-features G [--kernel K --initrd I --append A]
func TestGolden(t *testing.T) {
	f := read(t, withHashes().Bytes())
	for _, c := range golden() {
		if got := launch(t, f, c.m); got != c.want {
			t.Errorf("%s, %d CPUs: got %s, want %s", c.m.VMM, c.m.VCPUs, got, c.want)
		}
	}
}

func direct(kernel, initrd, cmdline string) *Direct {
	return &Direct{Kernel: sha256.Sum256([]byte(kernel)), Initrd: sha256.Sum256([]byte(initrd)), Cmdline: cmdline}
}

type goldenCase struct {
	m    Machine
	want string
}

func golden() []goldenCase {
	started := machine(QEMU, 4, "EPYC-Milan-v2")
	started.Direct = direct("a kernel", "an initrd", "console=ttyS0")
	features := machine(QEMU, 1, "EPYC-v4")
	features.Features = 0x21
	return []goldenCase{
		{machine(QEMU, 1, "EPYC-v4"), "e81e90e6191fbc19b8cfa6b31510c2af478e62660a3f172d7592c85f7c978684973ffa3d4db092c8fa0ed9041da10193"},
		{machine(EC2, 2, "EPYC"), "d43868345d31cd80e3849b138a0902dcce8036cc5b846e41bcf3df45534c5b0fb3ff62ba89708fa1c9ad6b895abcdd55"},
		{machine(GCE, 3, "EPYC"), "c7ad4f42c3bd08458a0fead9c96ce45727ebb1f1de43a72a1ee19c0ce76be2377b60d47a70a15ab3c3cf33a88052fbf2"},
		{started, "96ede0a577e10081c94688d8dfd4f02e7776bc303a0909870e40e0c3a8d0eb79073ea72db2a040dfdf0a055676f0b214"},
		{features, "37fe5ec92e259dd940df6563cb5fdb7ce8729b1938d2dbbbace24723df15889f341677b25362c5063958868b507f4073"},
	}
}

// measureTool runs sev-snp-measure, which .ci/setup puts beside the programs.
func measureTool(t *testing.T, args ...string) (string, error) {
	t.Helper()
	dir, err := filepath.Abs("../../../bin/sev-snp-measure")
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "sevsnpmeasure"))
	}
	python := "/usr/bin/python3" // the system's: others may be wrappers, which are slow
	if _, found := os.Stat(python); found != nil {
		python, found = exec.LookPath("python3")
		err = errors.Join(err, found)
	}
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skipf("sev-snp-measure is not installed: %v", err)
	}
	cmd := exec.Command(python, append([]string{"-m", "sevsnpmeasure.cli", "--mode", "snp"}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONPATH="+dir, "PYTHONDONTWRITEBYTECODE=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, stderr.String())
	}
	return strings.TrimSpace(string(out)), err
}

// TestOracle compares with sev-snp-measure, for Debian's firmware and our own.
func TestOracle(t *testing.T) {
	dir := t.TempDir()
	files := map[string]string{"own.fd": string(withHashes().Bytes()), "kernel": "a kernel", "initrd": "an initrd"}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	own := filepath.Join(dir, "own.fd")
	for _, name := range []string{own, "/usr/share/ovmf/OVMF.fd", "/usr/share/OVMF/OVMF_CODE.fd"} {
		b, err := os.ReadFile(name)
		if err != nil {
			if os.Getenv("CAISSON_TOOLS") == "required" {
				t.Fatal(err)
			}
			t.Logf("%v: not compared", err)
			continue
		}
		f := read(t, b)
		for v, vmm := range VMMs() {
			for i, kind := range Types() {
				if (i+v)%3 != 0 {
					continue // a third of all pairs: each monitor and each CPU is there
				}
				m := machine(vmm, 1+i, kind)
				m.Features |= uint64(i) << 3
				args := []string{"--ovmf", name, "--vcpus", fmt.Sprint(m.VCPUs), "--vcpu-type", kind, "--vmm-type", string(vmm), "--guest-features", fmt.Sprintf("%#x", m.Features)}
				if name == own && i%2 == 1 {
					m.Direct = direct("a kernel", "", "")
					args = append(args, "--kernel", filepath.Join(dir, "kernel"))
					if i == 3 {
						m.Direct = direct("a kernel", "an initrd", "quiet ro")
						args = append(args, "--initrd", filepath.Join(dir, "initrd"), "--append", "quiet ro")
					}
				}
				want, err := measureTool(t, args...)
				if err != nil {
					t.Fatal(err)
				}
				if got := launch(t, f, m); got != want {
					t.Errorf("%s, %s, %s: got %s, want %s", name, vmm, kind, got, want)
				}
			}
		}
	}
}

func TestRefuses(t *testing.T) {
	with := func(change func(*ovmftest.Firmware)) ovmftest.Firmware {
		f := withHashes()
		f.SEV = slices.Clone(f.SEV)
		change(&f)
		return f
	}
	usual := machine(QEMU, 2, "EPYC")
	started := usual
	started.Direct = direct("", "", "")
	for want, c := range map[string]struct {
		f ovmftest.Firmware
		m Machine
	}{
		"0 virtual CPUs":                 {withHashes(), Machine{VMM: QEMU, Features: 1}},
		"4097 virtual CPUs":              {withHashes(), Machine{VCPUs: 4097, VMM: QEMU, Features: 1}},
		"guest features 0x2":             {withHashes(), Machine{VCPUs: 1, VMM: QEMU, Features: 2}},
		`monitor "xen" is not known`:     {withHashes(), Machine{VCPUs: 1, VMM: "xen", Features: 1}},
		"no metadata for SEV-SNP":        {with(func(f *ovmftest.Firmware) { f.SEV = nil }), usual},
		"section 0: kind 7 is not known": {with(func(f *ovmftest.Firmware) { f.SEV[0].Kind = 7 }), usual},
		"section 0: 36865 bytes at":      {with(func(f *ovmftest.Firmware) { f.SEV[0].Size++ }), usual},
		"section 1 of kind 2: 8192":      {with(func(f *ovmftest.Firmware) { f.SEV[1].Size *= 2 }), usual},
		"more than 1073741824":           {with(func(f *ovmftest.Firmware) { f.SEV[0].Size = 0xfffff000 }), usual},
		"says where CPUs start":          {with(func(f *ovmftest.Firmware) { f.Reset = 0 }), usual},
		"no page for the hashes":         {with(func(f *ovmftest.Firmware) { f.SEV = f.SEV[:4] }), started},
		"does not say where it looks":    {with(func(f *ovmftest.Firmware) { f.Hashes = 0 }), started},
		"of a kernel at 0x80ff51, their": {with(func(f *ovmftest.Firmware) { f.Hashes = 0x80ff51 }), started},
		"of a kernel at 0x80efff, their": {with(func(f *ovmftest.Firmware) { f.Hashes = 0x80efff }), started},
	} {
		if _, err := Launch(read(t, c.f.Bytes()), c.m); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestSignature(t *testing.T) {
	for name, want := range map[string]uint32{"EPYC-v4": 0x800f12, "EPYC-Rome": 0x830f10, "EPYC-Milan-v1": 0xa00f11, "EPYC-Genoa": 0xa10f10, "EPYC-Turin": 0xb00f00} {
		if got, err := Signature(name); err != nil || got != want {
			t.Errorf("%s: got %#x, %v, want %#x", name, got, err, want)
		}
	}
	for _, name := range []string{"", "host", "EPYC-v", "EPYC-v10", "epyc"} {
		if _, err := Signature(name); err == nil || !strings.Contains(err.Error(), "EPYC, EPYC-Genoa") {
			t.Errorf("%q: got %v", name, err)
		}
	}
}

func FuzzLaunch(f *testing.F) {
	f.Add(withHashes().Bytes(), 2)
	if b, err := os.ReadFile("/usr/share/ovmf/OVMF.fd"); err == nil {
		f.Add(b[len(b)-8192:], 1)
	}
	f.Fuzz(func(t *testing.T, b []byte, cpus int) {
		fw, err := ovmf.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		m := machine(QEMU, 1, "EPYC")
		if m.VCPUs = cpus; cpus > 8 {
			return
		}
		if m.Direct = nil; cpus%2 == 0 {
			m.Direct = direct("", "", "")
		}
		first, err := Launch(fw, m)
		again, againErr := Launch(fw, m)
		if first != again || (err == nil) != (againErr == nil) {
			t.Errorf("got %x, %v, then %x, %v", first, err, again, againErr)
		}
	})
}

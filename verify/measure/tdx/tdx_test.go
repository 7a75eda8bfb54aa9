package tdx

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"slices"
	"strings"
	"testing"

	"caisson/verify/measure"
	"caisson/verify/measure/ovmf"
	"caisson/verify/measure/ovmf/ovmftest"
)

// usual is a firmware with the sections of Debian's OVMF.fd 2022.11, and
// pages of code in front of which its variables are.
func usual(vars int) ovmftest.Firmware {
	const code = 3 * 4096
	return ovmftest.Firmware{
		Pages: (vars + code) / 4096,
		TDX: []ovmftest.TDX{
			{Offset: uint32(vars), Raw: code, Address: 1<<32 - code, Size: code, Kind: sectionCode, Extend: attrExtend},
			{Raw: uint32(vars), Address: 1<<32 - code - uint64(vars), Size: uint64(vars), Kind: sectionConfig},
			{Address: 0x810000, Size: 0x10000, Kind: sectionMemory},
			{Address: 0x80b000, Size: 0x2000, Kind: sectionMemory},
			{Address: 0x809000, Size: 0x2000, Kind: sectionHOB},
			{Address: 0x800000, Size: 0x6000, Kind: sectionMemory},
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

// file is a file of Debian's firmware.
func file(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return b
}

// TestMRTD has what dstack-mr of 2026-08 computes, in one pass.
func TestMRTD(t *testing.T) {
	debian := file(t, "/usr/share/ovmf/OVMF.fd")
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"ours":   {usual(2 * 4096).Bytes(), "9324252374ed9a9e45a74edb201941ebc946801ea166bfe50b5bb89f0ec731365120009c2d83ce5960e6afb79643c623"},
		"Debian": {debian, "4c7206f0f483c524f12c366c711e9049030a8d47c471ee5aa9c4999a08de4057fb887fed0744d5631a212967fb231c47"},
	} {
		got, err := MRTD(read(t, c.b))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		const known = "7b456907dd0786d415999e801a1ac4637b8ed4d7cf5378cfc6edbe5e574dd773" // ovmf 2022.11-6+deb12u2
		if sum := sha256.Sum256(c.b); name == "Debian" && hex.EncodeToString(sum[:]) != known {
			t.Logf("another version of ovmf: not compared")
			continue
		}
		if hexOf(got) != c.want {
			t.Errorf("%s: got %x, want %s", name, got, c.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	for want, change := range map[string]func(*ovmftest.Firmware){
		"no metadata for TDX":                    func(f *ovmftest.Firmware) { f.TDX = nil },
		"section 2: 65537 bytes at 0x810000":     func(f *ovmftest.Firmware) { f.TDX[2].Size++ },
		"section 2: 65536 bytes at 0x810001":     func(f *ovmftest.Firmware) { f.TDX[2].Address++ },
		"section 2: 0 bytes":                     func(f *ovmftest.Firmware) { f.TDX[2].Size = 0 },
		"section 2: 18446744073709547520 bytes":  func(f *ovmftest.Firmware) { f.TDX[2].Size = -4096 & (1<<64 - 1) },
		"at 0xfffffffffffff000":                  func(f *ovmftest.Firmware) { f.TDX[2].Address = 1<<64 - 4096 },
		"section 0: 12288 bytes at 8193 of":      func(f *ovmftest.Firmware) { f.TDX[0].Offset++ },
		"section 0: 4294967295 bytes at 8192 of": func(f *ovmftest.Firmware) { f.TDX[0].Raw = 1<<32 - 1 },
		"12287 bytes of the file for 12288":      func(f *ovmftest.Firmware) { f.TDX[0].Raw-- },
		"section 4: kind 2 with 1 bytes":         func(f *ovmftest.Firmware) { f.TDX[4].Raw = 1 },
		"section 4: kind 9 is not known":         func(f *ovmftest.Firmware) { f.TDX[4].Kind = 9 },
		"section 4: attributes 0x3":              func(f *ovmftest.Firmware) { f.TDX[4].Extend = 3 },
		"section 4: attributes 0x4":              func(f *ovmftest.Firmware) { f.TDX[4].Extend = 4 },
		"more than 1073741824 bytes":             func(f *ovmftest.Firmware) { f.TDX[2].Size = maxMemory },
	} {
		f := usual(2 * 4096)
		change(&f)
		if _, err := MRTD(read(t, f.Bytes())); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// result is a prediction of PCRs by hand: each event's digest is that of its
// description.
func result(confidential ...string) *measure.Result {
	r := &measure.Result{
		Chain: []string{"a (shim 16.1)", "b (systemd-boot 257)", "c (systemd-stub 257)"}, Confidential: confidential,
		Assumptions: []string{"PCR 3: x", "PCR 9: y"},
	}
	for _, e := range []measure.Event{
		{PCR: 7, Type: "EV_EFI_VARIABLE_DRIVER_CONFIG", Description: "SecureBoot"},
		{PCR: 4, Type: "EV_EFI_ACTION", Description: "Calling EFI Application from Boot Option"},
		{PCR: 3, Type: evSeparator, Description: "\x00\x00\x00\x00"},
		{PCR: 4, Type: evSeparator, Description: "\x00\x00\x00\x00"},
		{PCR: 5, Type: evSeparator, Description: "\x00\x00\x00\x00"},
		{PCR: 7, Type: evSeparator, Description: "\x00\x00\x00\x00"},
		{PCR: 5, Type: "EV_EFI_GPT_EVENT", Description: "gpt"},
		{PCR: 4, Type: "EV_EFI_BOOT_SERVICES_APPLICATION", Description: "shim"},
		{PCR: 14, Type: "EV_IPL", Description: "MokList"},
		{PCR: 7, Type: "EV_EFI_VARIABLE_AUTHORITY", Description: "SbatLevel"},
		{PCR: 4, Type: "EV_EFI_BOOT_SERVICES_APPLICATION", Description: "systemd-boot"},
		{PCR: 5, Type: evTag, Description: "loader.conf"},
		{PCR: 4, Type: "EV_EFI_BOOT_SERVICES_APPLICATION", Description: "UKI"},
		{PCR: 12, Type: "EV_IPL", Description: "command line passed"},
		{PCR: 11, Type: "EV_IPL", Description: ".linux"},
		{PCR: 12, Type: "EV_IPL", Description: "addons"},
		{PCR: 4, Type: "EV_EFI_BOOT_SERVICES_APPLICATION", Description: ".linux"},
		{PCR: 9, Type: evTag, Description: "options"},
		{PCR: 5, Type: "EV_EFI_ACTION", Description: "Exit Boot Services Invocation"},
	} {
		e.SHA384 = sum(e.Description)
		r.Events = append(r.Events, e)
	}
	return r
}

func withVars(t testing.TB) *ovmf.Firmware {
	vars := file(t, "/usr/share/OVMF/OVMF_VARS_4M.fd")
	b := usual(len(vars)).Bytes()
	copy(b, vars)
	return read(t, b)
}

func TestPredict(t *testing.T) {
	f := withVars(t)
	if p, err := Platform(f); err != nil || p.SecureBoot || p.PK != nil {
		t.Errorf("got %+v, %v", p, err)
	}
	for _, c := range []struct {
		knows    []string
		one, two string // descriptions
	}{
		{[]string{"shim", "systemd-boot", "systemd-stub", "linux"}, "C S gpt shim systemd-boot loader.conf UKI .linux E", "MokList P .linux addons options"},
		{[]string{"shim", "systemd-stub", "linux"}, "C S gpt shim systemd-boot UKI .linux E", "MokList .linux addons options"},
		{[]string{"shim", "linux"}, "C S gpt shim systemd-boot UKI .linux E", "MokList options"},
		{[]string{"shim"}, "C S gpt shim systemd-boot UKI .linux E", "MokList"},
	} {
		v, err := Predict(f, result(c.knows...), Machine{Memory: 8 << 30})
		if err != nil {
			t.Fatal(err)
		}
		long := strings.NewReplacer("C", "Calling EFI Application from Boot Option", "S", "\x00\x00\x00\x00", "E", "Exit Boot Services Invocation", "P", "command line passed")
		for n, want := range map[string]string{"1": c.one, "2": c.two, "3": ""} {
			var all []string
			for _, name := range strings.Fields(want) {
				if len(name) == 1 {
					name = long.Replace(name)
				}
				all = append(all, sum(name))
			}
			if got := v.RTMRs[n]; got != measure.ReplayBank(bank, all) {
				t.Errorf("%v: RTMR %s is %s, want that of %s", c.knows, n, got, want)
			}
		}
		if _, ok := v.RTMRs["0"]; ok || len(v.RTMRs) != 3 {
			t.Errorf("got RTMRs %v, want none for 0: not all of its events are known", v.RTMRs)
		}
		if text := strings.Join(v.Assumptions, "\n"); strings.Contains(text, "PCR 3") || !strings.Contains(text, "PCR 9: y") || strings.Contains(text, "does not measure") != (len(c.knows) < 3) {
			t.Errorf("%v: got assumptions %q", c.knows, v.Assumptions)
		}
	}
	v, err := Predict(f, result("shim"), Machine{Before202411: true})
	var one []string
	for _, name := range []string{"Calling EFI Application from Boot Option", "gpt", "shim", "systemd-boot", "UKI", ".linux", "Exit Boot Services Invocation"} {
		one = append(one, sum(name))
	}
	if err != nil || v.RTMRs["1"] != measure.ReplayBank(bank, one) {
		t.Errorf("of an old firmware: got %+v, %v, want no separator in RTMR 1", v, err)
	}
	for want, err := range map[string]error{
		"shim of the image does not": second(Predict(f, result("linux"), Machine{})),
		"memory of 1 bytes":          second(Predict(f, result("shim"), Machine{Memory: 1})),
		"memory of 9223372036854775": second(Predict(f, result("shim"), Machine{Memory: 1 << 63})),
		"is not in memory that is":   second(Predict(read(t, overlapping().Bytes()), result("shim"), Machine{Memory: 1 << 30})),
		"two sections of variables":  second(Predict(read(t, twice(sectionConfig).Bytes()), result("shim"), Machine{Memory: 1 << 30})),
		"two sections for the desc":  second(Predict(read(t, twice(sectionHOB).Bytes()), result("shim"), Machine{Memory: 1 << 30})),
		"its variables: no firmware": second(Platform(read(t, usual(4096).Bytes()))),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func overlapping() ovmftest.Firmware {
	f := usual(4096)
	f.TDX[3].Address = 0x810000
	return f
}

func twice(kind uint32) ovmftest.Firmware {
	f := usual(4096)
	at := slices.IndexFunc(f.TDX, func(s ovmftest.TDX) bool { return s.Kind == kind })
	s := f.TDX[at]
	s.Address = 0x1000000
	f.TDX = append(f.TDX, s)
	return f
}

func FuzzPredict(f *testing.F) {
	f.Add(usual(2*4096).Bytes(), uint64(8<<30))
	f.Add(overlapping().Bytes(), uint64(1<<30))
	if b, err := os.ReadFile("/usr/share/ovmf/OVMF.fd"); err == nil {
		f.Add(b[len(b)-8192:], uint64(1<<32))
	}
	f.Fuzz(func(t *testing.T, b []byte, memory uint64) {
		fw, err := ovmf.Read(bytes.NewReader(b))
		if err != nil {
			return
		}
		v, err := Predict(fw, result("shim", "linux"), Machine{Memory: memory, Before202411: memory%2 == 1})
		if err != nil {
			return
		}
		if len(v.MRTD) != 96 || len(v.RTMRs) != 3 {
			t.Errorf("got %+v", v)
		}
	})
}

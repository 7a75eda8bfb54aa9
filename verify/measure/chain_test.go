package measure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"

	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// program is one of systemd's programs, with sections.
func program(t testing.TB, info string, sections ...string) string {
	t.Helper()
	return extended(t, pe(".sdmagic", "#### LoaderInfo: "+info+" ####\x00"), sections...)
}

func extended(t testing.TB, stub []byte, sections ...string) string {
	t.Helper()
	var all []uki.Section
	for i := 0; i < len(sections); i += 2 {
		all = append(all, uki.Section{Name: sections[i], Size: int64(len(sections[i+1])), Open: opener([]byte(sections[i+1]))})
	}
	var b bytes.Buffer
	if _, err := uki.Write(&b, bytes.NewReader(stub), int64(len(stub)), all); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

const (
	vendorCert = "0\x82 a certificate"
	testLevel  = "sbat,1,2025\nshim,4\n"
)

// testShim is a program that says it is shim.
func testShim(t testing.TB, version string) string {
	var vendor []byte
	for _, n := range []int{len(vendorCert), 7, 16, 16 + len(vendorCert)} {
		vendor = binary.LittleEndian.AppendUint32(vendor, uint32(n))
	}
	text := extended(t, pe(".ident", "UEFI SHIM\n$Version: "+version+" $\n$Commit: 0 $\n"), ".vendor", string(vendor)+vendorCert+"revoked",
		".level", "\x00\x00\x00\x00\x08\x00\x00\x00\x14\x00\x00\x00"+testLevel+"\x00sbat,1,latest\n\x00")
	return strings.Replace(text, ".ident", "/14\x00\x00\x00", 1) // a name that is too long for the table
}

func wideText(s string) string {
	w := wide(s)
	return "\xff\xfe" + string(w[:len(w)-2])
}

// withLoader puts systemd-boot in front of the UKI.
func withLoader(t testing.TB, version string) func(*testDisk) {
	return func(d *testDisk) {
		d.stub, d.path = version, "EFI/Linux/a.efi"
		d.files["EFI/BOOT/BOOTX64.EFI"] = program(t, "systemd-boot "+version)
		d.files["loader/loader.conf"] = "# a comment\ntimeout 0\ndefault A.*\n"
	}
}

func withAddons(t testing.TB, version, path string) func(*testDisk) {
	return func(d *testDisk) {
		d.stub, d.path, d.cmdline = version, path, "first"
		addon := func(text string) string { return program(t, "systemd-addon "+version, ".cmdline", text) }
		d.more = func(root string) map[string]string {
			return map[string]string{
				path + ".extra.d/b.addon.efi": addon("b roothash=" + root),
				path + ".extra.d/A.addon.efi": addon(" a\t \n"),
				"loader/addons/z.addon.efi":   addon("z"),
			}
		}
	}
}

func withShim(t testing.TB, version string) func(*testDisk) {
	return func(d *testDisk) {
		withAddons(t, "257", "EFI/Linux/a.efi")(d)
		d.files["EFI/BOOT/BOOTX64.EFI"], d.files["EFI/BOOT/fbx64.efi"] = testShim(t, "0"), "anything"
		d.files["EFI/redhat/shimx64.efi"] = testShim(t, version)
		d.files["EFI/redhat/BOOTX64.CSV"] = wideText("shimx64.efi,redhat,\\EFI\\Linux\\a.efi ,UKI bootentry\n")
	}
}

// TestChains has, of each chain, the events that are not those of a UKI alone.
func TestChains(t *testing.T) {
	text := func(s string) string { return shaOf(string(wide(s))) }
	for _, c := range []struct {
		name  string
		disk  *testDisk
		chain string // programs
		four  int    // events of PCR 4
		cmd   []string
		conf  bool
	}{
		{name: "systemd-boot 252", disk: newDisk(withLoader(t, "252")), chain: "systemd-boot systemd-stub", four: 5, cmd: []string{"C", "C"}},
		{name: "systemd-boot 254", disk: newDisk(withLoader(t, "254")), chain: "systemd-boot systemd-stub", four: 5, cmd: []string{"C", "C"}},
		{name: "systemd-boot 257", disk: newDisk(withLoader(t, "257")), chain: "systemd-boot systemd-stub", four: 5, conf: true},
		{name: "addons 254", disk: newDisk(withAddons(t, "254", "EFI/BOOT/BOOTX64.EFI")), four: 7,
			chain: "systemd-stub systemd-addon systemd-addon systemd-addon", cmd: []string{"z", " a    b roothash=H"}},
		{name: "addons 257", disk: newDisk(withAddons(t, "257", "EFI/BOOT/BOOTX64.EFI")), four: 7,
			chain: "systemd-stub systemd-addon systemd-addon systemd-addon", cmd: []string{"z a b roothash=H"}},
		{name: "shim", disk: newDisk(withShim(t, "16.1")), four: 8,
			chain: "shim systemd-stub systemd-addon systemd-addon systemd-addon", cmd: []string{"z a b roothash=H"}},
	} {
		r := measured(t, c.disk)
		var programs, cmd []string
		for _, p := range r.Chain {
			_, p, _ = strings.Cut(p, " (")
			p, _, _ = strings.Cut(p, " ")
			programs = append(programs, p)
		}
		for _, x := range c.cmd {
			cmd = append(cmd, text(strings.NewReplacer("C", r.Cmdline, "H", r.RootHash).Replace(x)))
		}
		if got := strings.Join(programs, " "); got != c.chain || len(digests(r.Events, 4)) != c.four {
			t.Errorf("%s: got chain %q and %d events of PCR 4, want %q and %d", c.name, r.Chain, len(digests(r.Events, 4)), c.chain, c.four)
		}
		if !strings.EqualFold(r.UKI, c.disk.path) {
			t.Errorf("%s: got UKI %q, want %q", c.name, r.UKI, c.disk.path)
		}
		if got := digests(r.Events, 12); !slices.Equal(got, cmd) {
			t.Errorf("%s: PCR 12 has %q, want %q", c.name, got, cmd)
		}
		if got := digests(r.Events, 9)[0]; got != text(r.Cmdline) {
			t.Errorf("%s: PCR 9 has %s, want %s for %q", c.name, got, text(r.Cmdline), r.Cmdline)
		}
		if got := digests(r.Events, 5); len(got) == 5 != c.conf || c.conf && got[2] != shaOf(c.disk.files["loader/loader.conf"]) {
			t.Errorf("%s: PCR 5 has %q", c.name, got)
		}
		var mok []string
		if strings.HasPrefix(c.chain, "shim") {
			mok = []string{shaOf(string(signatureList(certX509(), shimLock(), []byte(vendorCert)))), shaOf("revoked"), shaOf("\x01")}
		}
		if got := digests(r.Events, 14); !slices.Equal(got, mok) || len(digests(r.Events, 7)) != 6+min(len(mok), 1) {
			t.Errorf("%s: PCR 14 has %q, want %q", c.name, got, mok)
		}
	}
}

func TestChainsRefuse(t *testing.T) {
	loader := func(change func(*testDisk)) *testDisk { return newDisk(withLoader(t, "257"), change) }
	addons := func(name, content string) *testDisk {
		return newDisk(withAddons(t, "257", "EFI/BOOT/BOOTX64.EFI"), func(d *testDisk) { d.files[name] = content })
	}
	shim := func(name, content string) *testDisk {
		return newDisk(withShim(t, "16.1"), func(d *testDisk) { d.files[name] = content })
	}
	const csv = "EFI/redhat/BOOTX64.CSV"
	for want, d := range map[string]*testDisk{
		"what systemd-boot \"253\" measures": loader(func(d *testDisk) {
			d.files["EFI/BOOT/BOOTX64.EFI"] = program(t, "systemd-boot 253")
		}),
		"two kernel images":       loader(func(d *testDisk) { d.files["EFI/Linux/b.EFI"] = "" }),
		"names that are counted":  loader(func(d *testDisk) { d.path = "EFI/Linux/a+3.efi" }),
		"boot entries are not":    loader(func(d *testDisk) { d.files["loader/entries/a.conf"] = "" }),
		"default \"b\" is not":    loader(func(d *testDisk) { d.files["loader/loader.conf"] = "default b" }),
		`"secure-boot-enroll yes`: loader(func(d *testDisk) { d.files["loader/loader.conf"] = "secure-boot-enroll yes" }),
		"loader.conf is empty":    loader(func(d *testDisk) { d.files["loader/loader.conf"] = "" }),
		"systemd-addon 257, want systemd-stub": loader(func(d *testDisk) {
			d.path = "EFI/Linux/x"
			d.files["EFI/Linux/a.efi"] = program(t, "systemd-addon 257")
		}),
		"is not what starts a kernel": newDisk(func(d *testDisk) {
			d.path = "x"
			d.files["EFI/BOOT/BOOTX64.EFI"] = program(t, "systemd-addon 257")
		}),
		`no section ".cmdline"`:                 addons("loader/addons/y.addon.efi", program(t, "systemd-addon 257")),
		`section ".dtb" is not supported in`:    addons("loader/addons/y.addon.efi", program(t, "systemd-addon 257", ".dtb", "x", ".cmdline", "x")),
		`section ".uname" is not that`:          addons("loader/addons/y.addon.efi", program(t, "systemd-addon 257", ".uname", "x", ".cmdline", "x")),
		"an empty command line":                 addons("loader/addons/y.addon.efi", program(t, "systemd-addon 257", ".cmdline", " \n")),
		"want systemd-addon":                    addons("loader/addons/y.addon.efi", program(t, "systemd-stub 257", ".cmdline", "x")),
		"two root hashes":                       addons("loader/addons/y.addon.efi", program(t, "systemd-addon 257", ".cmdline", "roothash=0")),
		"shim \"15.8\" measures is not known":   newDisk(withShim(t, "15.8")),
		"revocations of shim":                   shim("EFI/redhat/revocations_sbat.efi", ""),
		"two files of boot options":             shim("EFI/debian/BOOTX64.CSV", ""),
		"not UTF-16":                            shim(csv, "x"),
		"want one line":                         shim(csv, wideText("a,b,c\nd,e,f\n")),
		"want a name in the same folder":        shim(csv, wideText("\\a,b,c\n")),
		"a command line for the kernel image":   shim(csv, wideText("shimx64.efi,b,\\EFI\\Linux\\a.efi quiet,x")),
		"starts with a backslash":               shim(csv, wideText("shimx64.efi,b,a.efi,x")),
		"section \".vendor_cert\" has no certi": shim("EFI/redhat/shimx64.efi", strings.Replace(testShim(t, "16.1"), vendorCert, "x"+vendorCert[1:], 1)),
		"no section \".vendor_cert\"":           shim("EFI/redhat/shimx64.efi", strings.Replace(testShim(t, "16.1"), "\x10\x00\x00\x00"+string(rune(16+len(vendorCert))), "\x11\x00\x00\x00"+string(rune(16+len(vendorCert))), 1)),
	} {
		if _, err := Disk(bytes.NewReader(d.write(t)), diskSize); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// TestBanks compares with what OVMF was seen to measure of "Calling EFI
// Application from Boot Option" and of PCR 7 in the other banks.
func TestBanks(t *testing.T) {
	r := measured(t, newDisk())
	for _, bank := range Banks() {
		if len(r.PCRs[bank]) != len(predicted()) || len(r.PCRs[bank]["4"]) != 2*newHash(bank).Size() || r.Phases["ready"][bank]["11"] == "" {
			t.Errorf("%s: got %v", bank, r.PCRs[bank])
		}
		all := map[int][]string{}
		for _, e := range r.Events {
			all[e.PCR] = append(all[e.PCR], e.In(bank))
		}
		if got := CompareBank(r, bank, all); len(got) != 0 {
			t.Errorf("%s: got %v for what was predicted", bank, got)
		}
	}
	if (Event{}).In("sha1") != "" || ReplayBank("sha1", nil) != "" {
		t.Error("a bank that is not predicted has a value")
	}
}

// TestRecordedLog reads what OVMF logged of shim, its fallback, a UKI and an
// addon, and compares the events that no image but shim itself decides.
func TestRecordedLog(t *testing.T) {
	log, err := ReadLog(bytes.NewReader(recordedLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	r := &Result{}
	(&boot{Result: r}).firmwareEvents(&gpt.Table{})
	(&boot{Result: r}).add(7, evAuthority, "SbatLevel", variable(shimLock(), "SbatLevel", []byte(sbatOriginal)))
	for _, bank := range Banks() {
		got := map[int]Departure{}
		for _, d := range Departures(r, bank, log) {
			got[d.PCR] = d
		}
		for pcr, want := range map[int]string{
			4:  `EV_EFI_BOOT_SERVICES_APPLICATION "\\EFI\\redhat\\shimx64.efi": PCR 4, event 2: measured`,
			5:  `EV_EFI_GPT_EVENT: PCR 5, event 1, partition table: predicted`,
			12: `EV_IPL "roothash=`,
			14: `EV_IPL "MokList": PCR 14, event 0: measured`,
		} {
			if !strings.Contains(got[pcr].String(), want) {
				t.Errorf("%s: got %q, want %q", bank, got[pcr], want)
			}
		}
		for _, pcr := range []int{3, 7} {
			if d, ok := got[pcr]; ok {
				t.Errorf("%s: %v", bank, d)
			}
		}
	}
	if got := Departures(r, Bank, log[:2]); len(got) != 4 || !strings.Contains(got[0].String(), "event 2: PCR 3, event 0, separator: predicted") {
		t.Errorf("a log that ends early: got %v", got)
	}
	text := fmt.Sprint(log)
	for _, want := range []string{`EV_EFI_VARIABLE_AUTHORITY "SbatLevel"`, `EV_EVENT_TAG "Linux initrd"`, `EV_EFI_VARIABLE_DRIVER_CONFIG "dbx"`} {
		if !strings.Contains(text, want) {
			t.Errorf("the log does not say %s", want)
		}
	}
}

package measure

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

const ccGUID = "\x3d\x1a\x75\x96\xf4\x72\xa6\x41\xa7\x94\xed\x5d\x0e\x67\xae\x6b"

// TestConfidential finds the protocol's GUID in programs, whole or in halves,
// and across the pieces that a section is read in.
func TestConfidential(t *testing.T) {
	kernel := func(text string) func(*testDisk) {
		return func(d *testDisk) { d.sections[".linux"] += text }
	}
	halves := ccGUID[:8] + "\x48\xb8" + ccGUID[8:]
	with := func(name, at string) func(*testDisk) {
		return func(d *testDisk) { d.files[at] = program(t, name, ".data", halves) }
	}
	for _, c := range []struct {
		what string
		disk *testDisk
		want string
	}{
		{"none", newDisk(), ""},
		{"the initrd's", newDisk(func(d *testDisk) { d.sections[".initrd"] += ccGUID }), ""},
		{"one half", newDisk(kernel(ccGUID[:8] + ccGUID[:8])), ""},
		{"the kernel", newDisk(kernel(ccGUID)), "linux"},
		{"the kernel, in halves", newDisk(kernel(halves)), "linux"},
		{"the kernel, across", newDisk(kernel(strings.Repeat("x", 1<<16-len(newDisk().sections[".linux"])-3) + halves)), "linux"},
		{"systemd-boot", newDisk(withLoader(t, "257"), with("systemd-boot 257", "EFI/BOOT/BOOTX64.EFI")), "systemd-boot"},
	} {
		if got := strings.Join(measured(t, c.disk).Confidential, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// TestOrder compares the order of events with that of a machine that booted
// the same chain: registers that stand for several PCRs depend on it.
func TestOrder(t *testing.T) {
	log, err := ReadLog(bytes.NewReader(recordedLog(t)))
	if err != nil {
		t.Fatal(err)
	}
	type event struct {
		pcr  int
		kind string
	}
	sequence := func(from, to int, each func(func(int, string))) []event {
		var all []event
		each(func(pcr int, kind string) {
			e := event{pcr, kind}
			if pcr >= from && pcr <= to && kind != evSeparator && (len(all) == 0 || all[len(all)-1] != e) {
				all = append(all, e)
			}
		})
		return all
	}
	r := measured(t, newDisk(withShim(t, "16.1")))
	for _, pcrs := range [][2]int{{2, 6}, {8, 15}} {
		want := sequence(pcrs[0], pcrs[1], func(add func(int, string)) {
			for _, e := range log {
				add(e.PCR, e.Type)
			}
		})
		got := sequence(pcrs[0], pcrs[1], func(add func(int, string)) {
			for _, e := range r.Events {
				add(e.PCR, e.Type)
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("PCR %d to %d: got %v, want %v", pcrs[0], pcrs[1], got, want)
		}
	}
}

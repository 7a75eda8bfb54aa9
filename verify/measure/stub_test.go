package measure

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// TestAsksMachine has a stub that starts the kernel by itself, and adds what
// depends on the machine.
func TestAsksMachine(t *testing.T) {
	newest := func(change func(*testDisk)) *testDisk {
		return newDisk(func(d *testDisk) { d.stub = "262-1" }, change)
	}
	secret := func(r *Result) bool {
		return slices.ContainsFunc(r.Assumptions, func(a string) bool { return strings.Contains(a, "the firmware has no random numbers") })
	}
	r := measured(t, newest(func(*testDisk) {}))
	if !secret(r) || len(digests(r.Events, 4)) != 3 {
		t.Errorf("got the assumptions %q and %d events of PCR 4, want one of random numbers, and no event of the kernel", r.Assumptions, len(digests(r.Events, 4)))
	}
	old := measured(t, newDisk(func(d *testDisk) { d.stub = "257" }))
	if !slices.Equal(digests(old.Events, 11)[:4], digests(r.Events, 11)[:4]) || secret(old) || len(digests(old.Events, 4)) != 4 {
		t.Error("257 differs in more than the kernel's event")
	}
	r = measured(t, newest(func(d *testDisk) { d.files["loader/random-seed"], d.fixed = "", "loader/random-seed" }))
	if secret(r) {
		t.Errorf("with a read-only seed: got the assumptions %q", r.Assumptions)
	}
	r = measured(t, newest(func(d *testDisk) { d.files["loader/random-seed"] = "" }))
	if !secret(r) {
		t.Errorf("with a seed that can be written: got the assumptions %q", r.Assumptions)
	}
	b := newest(func(d *testDisk) { d.cmdline = "quiet roothash=" }).write(t)
	if _, err := Disk(bytes.NewReader(b), diskSize); err == nil || !strings.Contains(err.Error(), "no console=") {
		t.Errorf("without a console: got %v", err)
	}
}

// TestRedHat has the versions of Red Hat's packages.
func TestRedHat(t *testing.T) {
	for version, want := range map[string]string{
		"252-18.el9_3": "252", "252-13.el9": "252", "252-46.el9_5.2": "254", "252-32.el9": "254", "252-55.el9_7.4.alma.1": "254",
		"252-25.el9": "", "252.39-1~deb12u2": "252", "257-9.el10_0.1": "257", "262-1": "262", "262.1-1": "262", "2525": "", "": "",
		"253.1": "", "252-46.el9x": "", "252-46.el8": "",
	} {
		r, assumed, err := findRules(stubName, version)
		if r.major != want || (err == nil) != (want != "") {
			t.Errorf("%s: got %q, %v, want %q", version, r.major, err, want)
		}
		if _, backports := redHat(strings.TrimPrefix(version, "252")); err == nil && (assumed != "") != (backports && strings.HasPrefix(version, "252")) {
			t.Errorf("%s: %q is assumed", version, assumed)
		}
	}
	r := measured(t, newDisk(func(d *testDisk) { d.stub = "252-46.el9" }))
	if !slices.ContainsFunc(r.Assumptions, func(a string) bool {
		return strings.Contains(a, "252-46.el9, with changes of Red Hat's, measures as 254")
	}) {
		t.Errorf("got the assumptions %q", r.Assumptions)
	}
}

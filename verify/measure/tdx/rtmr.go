package tdx

import (
	"crypto/sha512"
	"errors"
	"fmt"
	"slices"
	"strings"

	"caisson/verify/measure"
	"caisson/verify/measure/ovmf"
)

// Types of events (TCG PC Client Platform Firmware Profile, "Event Types").
const (
	evSeparator = "EV_SEPARATOR"
	evFlags     = "EV_PLATFORM_CONFIG_FLAGS"
	evBoot      = "EV_EFI_VARIABLE_BOOT"
	evBlob      = "EV_EFI_PLATFORM_FIRMWARE_BLOB2"
	evHandoff   = "EV_EFI_HANDOFF_TABLES2"
	evTag       = "EV_EVENT_TAG"
)

// Names in measure.Result.Confidential and Chain.
const (
	linux  = "linux"
	stub   = "systemd-stub"
	loader = "systemd-boot"
	shim   = "shim"
)

// registers are how many RTMRs there are.
const registers = 4

// Machine is what is measured beside the firmware file and the image.
type Machine struct {
	Memory uint64 // bytes; 0 where it is not known
	// Before202411 tells that the firmware's code is older than
	// edk2-stable202411: it measures the separator before boot into RTMR 0
	// and not into RTMR 1. The file does not tell.
	Before202411 bool
}

// Predict predicts what a machine with such a firmware measures that boots the
// image of the result, which must be for the firmware's Platform.
func Predict(f *ovmf.Firmware, r *measure.Result, m Machine) (*Values, error) {
	mrtd, err := MRTD(f)
	if err != nil {
		return nil, err
	}
	v := &Values{MRTD: hexOf(mrtd), RTMRs: map[string]string{}, Assumptions: []string{
		"MRTD: QEMU and KVM add the firmware's pages in order, each followed by the measurement of its contents",
		"RTMR 0 has no value: QEMU's ACPI tables and the machine's boot options are not known",
		"RTMR 1 and 2: the machine has no TPM",
	}}
	if m.Before202411 {
		v.Assumptions = append(v.Assumptions, "RTMR 1: the firmware is older than edk2-stable202411, and measures no separator there")
	} else {
		v.Assumptions = append(v.Assumptions, "RTMR 1: the firmware is of edk2-stable202411 or newer, and measures one separator there")
	}
	if m.Memory == 0 {
		v.Assumptions = append(v.Assumptions, "RTMR 0: the machine's memory is not known")
	}
	for _, a := range r.Assumptions { // that hold here too
		for _, register := range []string{"PCR 4", "PCR 5", "PCR 9", "PCR 12", "PCR 14"} {
			if strings.HasPrefix(a, register+":") {
				v.Assumptions = append(v.Assumptions, a)
			}
		}
	}
	if err := v.firmwareEvents(f, r, m); err != nil {
		return nil, err
	}
	if err := v.imageEvents(r, m); err != nil {
		return nil, err
	}
	for n := range registers {
		if value, ok := v.replay(n); ok {
			v.RTMRs[fmt.Sprint(n)] = value
		}
	}
	return v, nil
}

func (v *Values) add(rtmr int, kind, description, digest string) {
	v.Events = append(v.Events, Event{RTMR: rtmr, Type: kind, Description: description, Digest: digest})
}

func sum(s string) string { return hexOf(sha512.Sum384([]byte(s))) }

// firmwareEvents are those of RTMR 0 (OvmfPkg/IntelTdx, OvmfPkg/Tcg/TdTcg2Dxe).
func (v *Values) firmwareEvents(f *ovmf.Firmware, r *measure.Result, m Machine) error {
	all, err := sections(f)
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	vars, err := config(f, all)
	if err != nil {
		return fmt.Errorf("firmware: %w", err)
	}
	blocks := ""
	if m.Memory != 0 {
		if blocks, err = handoff(all, m.Memory); err != nil {
			return err
		}
	}
	v.add(0, evHandoff, "hand-off blocks, QEMU's description of the memory", blocks)
	v.add(0, evBlob, "the firmware's variables", sum(string(vars)))
	var after []measure.Event
	seen := false
	for _, e := range r.Events {
		if e.PCR != 7 {
			continue
		}
		if seen {
			after = append(after, e)
			continue
		}
		v.add(0, e.Type, e.Description, e.In(bank))
		seen = e.Type == evSeparator
	}
	for _, table := range []string{"etc/table-loader", "etc/acpi/rsdp", "etc/acpi/tables"} {
		v.add(0, evFlags, "ACPI tables, "+table, "")
	}
	v.Events = append(v.Events, Event{Type: evBoot, Description: "boot options", Several: true})
	if m.Before202411 {
		v.add(0, evSeparator, "separator", sum("\x00\x00\x00\x00"))
	}
	for _, e := range after {
		v.add(0, e.Type, e.Description, e.In(bank))
	}
	return nil
}

// imageEvents are those of RTMR 1 and 2.
func (v *Values) imageEvents(r *measure.Result, m Machine) error {
	knows := func(program string) bool { return slices.Contains(r.Confidential, program) }
	if started(r, shim) && !knows(shim) {
		return errors.New("shim of the image does not measure into RTMRs: how it notes what it allows is not known")
	}
	if !knows(stub) {
		v.Assumptions = append(v.Assumptions, "RTMR 2: systemd-stub "+r.Stub+" does not measure into RTMRs: this one has no sections of UKIs and no addons, which RTMR 1 has as programs")
	}
	if !knows(linux) {
		v.Assumptions = append(v.Assumptions, "RTMR 2: Linux "+r.Kernel+" does not measure into RTMRs: its command line and initrd are measured as parts of the UKI only, in RTMR 1")
	}
	separated := m.Before202411
	for _, e := range r.Events {
		n := 1
		switch by := program(e); {
		case e.PCR < 2 || e.PCR == 7 || by != "" && !knows(by):
			continue
		case e.PCR >= 8:
			n = 2
		case e.Type == evSeparator && separated:
			continue
		case e.Type == evSeparator:
			separated = true
		}
		v.add(n, e.Type, e.Description, e.In(bank))
	}
	return nil
}

// program is the program that measures an event; none for the firmware's.
func program(e measure.Event) string {
	switch e.PCR {
	case 5:
		if e.Type == evTag { // loader.conf
			return loader
		}
	case 9:
		return linux
	case 11, 12, 13:
		if e.Description == "command line passed" {
			return loader
		}
		return stub
	case 14:
		return shim
	}
	return ""
}

// started tells whether a program is in the chain: a path, and in parentheses
// name and version.
func started(r *measure.Result, name string) bool {
	return slices.ContainsFunc(r.Chain, func(p string) bool { return strings.Contains(p, " ("+name+" ") })
}

// replay is the value of a register; false where an event of it is not known.
func (v *Values) replay(n int) (string, bool) {
	var all []string
	for _, e := range v.Events {
		if e.RTMR == n {
			if e.Digest == "" {
				return "", false
			}
			all = append(all, e.Digest)
		}
	}
	return measure.ReplayBank(bank, all), true
}

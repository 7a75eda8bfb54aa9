// Package measure predicts, from the bytes of a disk, what a machine that
// boots it will measure into its TPM.
//
// Limits first. It knows disks with a GUID partition table, one EFI system
// partition, one root partition and its dm-verity hash partition, from which
// the firmware starts \EFI\BOOT\BOOTX64.EFI, or BOOTAA64.EFI where the root is
// an arm64 one. That may be
//
//   - a unified kernel image (UKI) made with systemd-stub 252, 254, 257 or 262;
//   - systemd-boot 252, 254, 257 or 262, with one UKI in \EFI\Linux;
//   - shim 16.1 with a UKI as its second stage, or with its fallback, of which
//     one BOOTX64.CSV makes the boot option that starts shim again with a UKI.
//
// The UKI may have addons that add to the command line, beside it and in
// \loader\addons. Each of these was compared with booted x86-64 machines. All
// else is refused, because what it adds to the measurements is not known here:
// other versions, boot entries, credentials, extension images, profiles,
// device trees, and with Secure Boot what db does not allow but shim does.
//
// Predicted are PCR 3, 4, 5, 7, 9, 11, 12, 13 and 14, in the banks SHA-256,
// SHA-384 and SHA-512; the others are the firmware's and the machine's own.
// What the prediction takes for granted about them is listed in
// Result.Assumptions. Nothing that a builder says is read: a root hash is
// derived again from the data, and must be that of the kernel's command line,
// of the hash tree and of the partitions' ids.
package measure

import (
	"fmt"
	"io"
	"slices"

	"golang.org/x/sync/errgroup"

	"caisson/build/image/gpt"
)

// Result is what a disk will measure, and what that was derived from.
type Result struct {
	RootHash string `json:"rootHash"` // dm-verity, 64 hex digits
	Stub     string `json:"stub"`     // version of systemd-stub
	Kernel   string `json:"kernel"`   // version, where the kernel says it; else ""
	Cmdline  string `json:"cmdline"`  // as the stub passes it, with that of addons
	// Chain are the programs that are started before the kernel, and the
	// addons, in order: their paths, names and versions.
	Chain []string `json:"chain"`
	UKI   string   `json:"uki"` // its path on the EFI system partition
	// Resets tells whether the machine is reset once on its way, as by shim's
	// fallback; what was measured before is forgotten.
	Resets bool `json:"resets,omitempty"`
	// Confidential are the programs, of Chain and "linux", that measure into
	// the registers of a confidential machine without a TPM too: those that
	// know EFI_CC_MEASUREMENT_PROTOCOL.
	Confidential []string `json:"confidential,omitempty"`
	// PCRs are the values when the kernel takes over: bank, number, hex.
	PCRs map[string]map[string]string `json:"pcrs"`
	// Phases are the values of PCR 11 after each boot phase, by its name, if
	// systemd extends all of them: bank, number, hex.
	Phases      map[string]map[string]map[string]string `json:"phases"`
	Events      []Event                                 `json:"events"`
	Partitions  []Partition                             `json:"partitions"`
	Assumptions []string                                `json:"assumptions"`
}

// Partition is a partition of the disk. Type is the name that the
// Discoverable Partitions Specification gives it, or else its GUID.
type Partition struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	ID     string `json:"id"`
	Start  int64  `json:"start"` // bytes
	Size   int64  `json:"size"`  // bytes
	SHA256 string `json:"sha256"`
}

// predicted are the PCRs of Result.PCRs.
func predicted() []int { return []int{4, 5, 7, 9, 11, 12, 13, 14} }

// phases are the words that systemd-pcrphase extends PCR 11 with, in order,
// up to login.
func phases() []string { return []string{"enter-initrd", "leave-initrd", "sysinit", "ready"} }

// Disk predicts the measurements of the disk of size bytes on a machine
// without Secure Boot. It fails where the disk contradicts itself, and where it
// has something that the package does not know.
func Disk(disk io.ReaderAt, size int64) (*Result, error) {
	return DiskOn(Platform{}, disk, size)
}

// DiskOn is Disk for a machine with such firmware settings. It fails where
// the firmware would refuse to start a program.
func DiskOn(platform Platform, disk io.ReaderAt, size int64) (*Result, error) {
	table, err := gpt.Read(disk, size)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	parts, err := findParts(disk, table)
	if err != nil {
		return nil, err
	}
	r := &Result{Assumptions: assumptions(platform)}
	b := &boot{Result: r, platform: platform, measured: map[string]bool{}}
	if b.esp, err = openESP(parts.esp, parts.arch); err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	b.firmwareEvents(table)
	if err := b.start(); err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	r.exitEvents()
	r.replay()
	var g errgroup.Group
	g.Go(func() (err error) {
		r.RootHash, err = parts.checkRoot(r.Cmdline)
		return err
	})
	g.Go(func() (err error) {
		r.Partitions, err = hashPartitions(disk, table)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r, nil
}

// replay computes the PCRs of the result from its events.
func (r *Result) replay() {
	r.PCRs = values(r.Events)
	r.Phases = map[string]map[string]map[string]string{}
	for i, phase := range phases() {
		at := r.AtLogin(phases()[:i+1])
		r.Phases[phase] = map[string]map[string]string{}
		for _, bank := range Banks() {
			r.Phases[phase][bank] = map[string]string{"11": at.PCRs[bank]["11"]}
		}
	}
}

// AtLogin is the result with the boot phases that the image's systemd
// extends PCR 11 with before a login is possible; PCRs are the values then.
// Which these are is the caller's to know: none where systemd-pcrphase's
// units are masked or libtss2 is missing, and "enter-initrd", "leave-initrd",
// "sysinit", "ready" where they run.
func (r *Result) AtLogin(phases []string) *Result {
	c := *r
	c.Events = slices.Clone(r.Events)
	for _, phase := range phases {
		c.add(11, "phase", phase, sumBytes([]byte(phase)))
	}
	c.PCRs = values(c.Events)
	return &c
}

// Package measure predicts, from the bytes of a disk, what a machine that
// boots it will measure into its TPM.
//
// Limits first. It knows disks with a GUID partition table, one EFI system
// partition, one root partition and its dm-verity hash partition, on which
// the firmware itself starts a unified kernel image made with systemd-stub
// 252, 254 or 257: \EFI\BOOT\BOOTX64.EFI, or BOOTAA64.EFI where the root is
// an arm64 one. Boot loaders, shim, addons, credentials, extension images and
// profiles are refused, because what they add to the measurements is not
// known here. The bank is SHA-256.
//
// Predicted are PCR 3, 4, 5, 7, 9, 11 and 12; the others are the firmware's
// and the machine's own. What the prediction takes for granted about them is
// listed in Result.Assumptions. Nothing that a builder says is read: a root
// hash is derived again from the data, and must be that of the kernel's
// command line, of the hash tree and of the partitions' ids.
package measure

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"

	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
)

// Bank is the name of the PCR bank that is predicted.
const Bank = "sha256"

// Result is what a disk will measure, and what that was derived from.
type Result struct {
	RootHash string `json:"rootHash"` // dm-verity, 64 hex digits
	Stub     string `json:"stub"`     // version of systemd-stub
	Kernel   string `json:"kernel"`   // version, where the kernel says it; else ""
	Cmdline  string `json:"cmdline"`  // as the stub passes it
	// PCRs are the values when the kernel takes over: bank, number, hex.
	PCRs map[string]map[string]string `json:"pcrs"`
	// Phases are the values of PCR 11 after each boot phase, by its name, if
	// systemd extends all of them: bank, number, hex.
	Phases      map[string]map[string]map[string]string `json:"phases"`
	Events      []Event                                 `json:"events"`
	Partitions  []Partition                             `json:"partitions"`
	Assumptions []string                                `json:"assumptions"`
}

// Event is one extension of a PCR. Type is the name that the TCG PC Client
// Platform Firmware Profile gives it, or "phase" for one by systemd.
type Event struct {
	PCR         int    `json:"pcr"`
	Type        string `json:"type"`
	Description string `json:"description"`
	Digest      string `json:"digest"` // what the PCR is extended with, hex
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
func predicted() []int { return []int{4, 5, 7, 9, 11, 12} }

// phases are the words that systemd-pcrphase extends PCR 11 with, in order,
// up to login.
func phases() []string { return []string{"enter-initrd", "leave-initrd", "sysinit", "ready"} }

// Disk predicts the measurements of the disk of size bytes. It fails where
// the disk contradicts itself, and where it has something that the package
// does not know.
func Disk(disk io.ReaderAt, size int64) (*Result, error) {
	table, err := gpt.Read(disk, size)
	if err != nil {
		return nil, fmt.Errorf("reading the partition table: %w", err)
	}
	parts, err := findParts(disk, table)
	if err != nil {
		return nil, err
	}
	image, err := findImage(parts.esp, parts.arch)
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	r := &Result{Assumptions: assumptions()}
	rules, err := r.readImage(image)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", parts.arch.loader, err)
	}
	if r.RootHash, err = parts.checkRoot(r.Cmdline); err != nil {
		return nil, err
	}
	r.firmwareEvents(table, image.hash)
	if err := r.stubEvents(image, rules); err != nil {
		return nil, fmt.Errorf("%s: %w", parts.arch.loader, err)
	}
	r.exitEvents()
	r.replay()
	if r.Partitions, err = hashPartitions(disk, table); err != nil {
		return nil, err
	}
	return r, nil
}

// image is the UKI that the firmware starts.
type image struct {
	*uki.Image
	hash [32]byte // Authenticode
}

// findImage opens the UKI on an EFI system partition.
func findImage(esp *io.SectionReader, arch arch) (*image, error) {
	fsys, err := fat.Open(esp, esp.Size())
	if err != nil {
		return nil, err
	}
	if err := refuseSidecars(fsys, arch); err != nil {
		return nil, err
	}
	file, err := fsys.Lookup(arch.loader)
	if err != nil {
		return nil, err
	}
	im, err := uki.Read(file, file.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arch.loader, err)
	}
	if im.Machine != arch.machine {
		return nil, fmt.Errorf("%s: machine type %#x, want %#x", arch.loader, im.Machine, arch.machine)
	}
	hash, err := uki.Authenticode(file, file.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", arch.loader, err)
	}
	return &image{im, hash}, nil
}

// replay computes the PCRs of the result from its events.
func (r *Result) replay() {
	r.PCRs = values(r.Events)
	r.Phases = map[string]map[string]map[string]string{}
	for i, phase := range phases() {
		at := r.AtLogin(phases()[:i+1])
		r.Phases[phase] = map[string]map[string]string{Bank: {"11": at.PCRs[Bank]["11"]}}
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
		c.add(11, "phase", phase, sha256.Sum256([]byte(phase)))
	}
	c.PCRs = values(c.Events)
	return &c
}

// values are the predicted PCRs after the events.
func values(events []Event) map[string]map[string]string {
	bank := map[string]string{}
	for _, pcr := range predicted() {
		bank[strconv.Itoa(pcr)] = Replay(digests(events, pcr))
	}
	return map[string]map[string]string{Bank: bank}
}

func (r *Result) add(pcr int, kind, description string, digest [32]byte) {
	r.Events = append(r.Events, Event{PCR: pcr, Type: kind, Description: description, Digest: hex.EncodeToString(digest[:])})
}

// digests are the digests of the events of one PCR, in order.
func digests(events []Event, pcr int) []string {
	var all []string
	for _, e := range events {
		if e.PCR == pcr {
			all = append(all, e.Digest)
		}
	}
	return all
}

// Replay is the value of a SHA-256 PCR, in hex, that was zero and is then
// extended with the digests, in hex (TPM 2.0 Library, part 1, "Extend of a
// PCR"). A digest that is not one makes the value "".
func Replay(digests []string) string {
	var value [sha256.Size]byte
	for _, d := range digests {
		b, err := hex.DecodeString(d)
		if err != nil || len(b) != sha256.Size {
			return ""
		}
		value = sha256.Sum256(append(value[:], b...))
	}
	return hex.EncodeToString(value[:])
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"caisson/verify"
	"caisson/verify/measure"
	"caisson/verify/measure/ovmf"
	"caisson/verify/measure/snp"
	"caisson/verify/measure/tdx"
)

// Names of trusted execution environments.
const (
	teeSNP = "snp"
	teeTDX = "tdx"
)

// teeOptions are what of a confidential machine is measured beside the image.
// Their names are those of sev-snp-measure, where it has one.
type teeOptions struct {
	tee, firmware string
	vcpus         int
	vcpuType      string
	vcpuSig       string
	vmm           string
	features      string
	direct        bool
	append        string
	appended      bool // whether that was given
	memory        uint64
	old           bool // firmware
}

func (o *teeOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.tee, "tee", "", "also predict the measurements of a confidential machine: snp or tdx")
	f.StringVar(&o.firmware, "firmware", "", "the machine's firmware, the file that is given to QEMU with -bios")
	f.IntVar(&o.vcpus, "vcpus", 1, "snp: how many virtual CPUs it has")
	f.StringVar(&o.vcpuType, "vcpu-type", "", "snp: their type, as QEMU names it: "+strings.Join(snp.Types(), ", ")+", or one of these with -v1 and so on")
	f.StringVar(&o.vcpuSig, "vcpu-sig", "", "snp: their signature, CPUID Fn0000_0001_EAX, instead of a type")
	f.StringVar(&o.vmm, "vmm-type", string(snp.QEMU), fmt.Sprintf("snp: the virtual machine monitor, one of %v", snp.VMMs()))
	f.StringVar(&o.features, "guest-features", "0x1", "snp: the guest's SEV_FEATURES")
	f.BoolVar(&o.direct, "direct-boot", false, "snp: the machine starts the image's kernel itself (-kernel, -initrd and -append, kernel-hashes=on)")
	f.StringVar(&o.append, "append", "", "snp: with --direct-boot, the text given with -append; the image's own where it is not given")
	f.Uint64Var(&o.memory, "memory", 0, "tdx: its memory in MiB, for the first event of RTMR 0")
	f.BoolVar(&o.old, "edk2-before-202411", false, "tdx: the firmware is older than edk2-stable202411, which has another RTMR 1")
}

// check fails where flags are missing or do not belong together.
func (o *teeOptions) check(f *pflag.FlagSet) error {
	only := map[string][]string{
		teeSNP: {"vcpus", "vcpu-type", "vcpu-sig", "vmm-type", "guest-features", "direct-boot", "append"},
		teeTDX: {"memory", "edk2-before-202411"},
	}
	if _, ok := only[o.tee]; !ok && o.tee != "" {
		return fmt.Errorf("--tee %s: want %s or %s", o.tee, teeSNP, teeTDX)
	}
	for _, tee := range sortedKeys(only) {
		for _, name := range only[tee] {
			if tee != o.tee && f.Changed(name) {
				return fmt.Errorf("--%s needs --tee %s", name, tee)
			}
		}
	}
	switch {
	case (o.tee == "") != (o.firmware == ""):
		return errors.New("--tee and --firmware go together")
	case o.tee == teeTDX && f.Changed("vars"):
		return errors.New("--vars: a TDX machine has the variables that are in --firmware")
	case f.Changed("append") && !o.direct:
		return errors.New("--append needs --direct-boot")
	}
	if o.tee != teeSNP {
		return nil
	}
	o.appended = f.Changed("append")
	_, err := o.machine()
	return err
}

// snpValues is what a SEV-SNP machine measures, and what that is of.
type snpValues struct {
	LaunchDigest  string  `json:"launchDigest"` // SHA-384, hex
	Firmware      string  `json:"firmware"`     // SHA-256 of the file, hex
	VCPUs         int     `json:"vcpus"`
	VCPUSignature uint32  `json:"vcpuSignature"`
	VMM           snp.VMM `json:"vmm"`
	GuestFeatures uint64  `json:"guestFeatures"`
	// DirectCmdline is what the machine starts the image's kernel with; none
	// where the image boots by itself.
	DirectCmdline *string `json:"directCmdline,omitempty"`
}

// tdxValues is what a TDX machine measures, and what that is of.
type tdxValues struct {
	*tdx.Values
	Firmware   string `json:"firmware"`         // SHA-256 of the file, hex
	Memory     uint64 `json:"memory,omitempty"` // bytes
	SecureBoot bool   `json:"secureBoot"`       // by the firmware's variables
}

// measure adds what the machine measures.
func (o *teeOptions) measure(m *measured, image string) error {
	if o.tee == "" {
		return nil
	}
	file, err := os.Open(o.firmware)
	if err != nil {
		return err
	}
	defer file.Close()
	f, err := ovmf.Read(file)
	if err == nil && o.tee == teeSNP {
		err = o.measureSNP(m, f)
	} else if err == nil {
		return o.measureTDX(m, f, image)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", o.firmware, err)
	}
	return nil
}

// machine is the SEV-SNP machine, without what it starts.
func (o *teeOptions) machine() (snp.Machine, error) {
	m := snp.Machine{VCPUs: o.vcpus, VMM: snp.VMM(o.vmm)}
	if !slices.Contains(snp.VMMs(), m.VMM) {
		return m, fmt.Errorf("--vmm-type %s: want one of %v", o.vmm, snp.VMMs())
	}
	if o.vcpus < 1 || o.vcpus > snp.MaxVCPUs {
		return m, fmt.Errorf("--vcpus %d: want 1 to %d", o.vcpus, snp.MaxVCPUs)
	}
	var err error
	if m.Features, err = strconv.ParseUint(o.features, 0, 64); err != nil || m.Features&snp.FeatureSNP == 0 {
		return m, fmt.Errorf("--guest-features %s: want a number with bit 0, SEV-SNP", o.features)
	}
	switch {
	case o.vcpuType != "" && o.vcpuSig != "":
		return m, errors.New("--vcpu-type and --vcpu-sig: want one of them")
	case o.vcpuType != "":
		if m.Signature, err = snp.Signature(o.vcpuType); err != nil {
			return m, fmt.Errorf("--vcpu-type: %w", err)
		}
	case o.vcpuSig != "":
		n, err := strconv.ParseUint(o.vcpuSig, 0, 32)
		if err != nil {
			return m, fmt.Errorf("--vcpu-sig %s: want a number of 32 bits", o.vcpuSig)
		}
		m.Signature = uint32(n)
	case m.VMM == snp.QEMU:
		return m, errors.New("--tee snp needs --vcpu-type or --vcpu-sig: QEMU starts CPUs with their signature")
	}
	return m, nil
}

// measureSNP adds the launch digest.
func (o *teeOptions) measureSNP(m *measured, f *ovmf.Firmware) error {
	machine, err := o.machine()
	if err != nil {
		return usageError{err}
	}
	m.SNP = &snpValues{
		Firmware: sumOf(f), VCPUs: machine.VCPUs, VCPUSignature: machine.Signature, VMM: machine.VMM, GuestFeatures: machine.Features,
	}
	if o.direct {
		cmdline := m.Cmdline
		if o.appended {
			cmdline = o.append
		}
		if machine.Direct, err = directBoot(m.Result, cmdline); err != nil {
			return err
		}
		m.SNP.DirectCmdline = &cmdline
	}
	digest, err := snp.Launch(f, machine)
	m.SNP.LaunchDigest = hex.EncodeToString(digest[:])
	return err
}

func sumOf(f *ovmf.Firmware) string {
	sum := sha256.Sum256(f.Data)
	return hex.EncodeToString(sum[:])
}

// directBoot is the image's kernel and initrd, as its netboot output has them,
// by what the stub measures of a UKI's sections.
func directBoot(r *measure.Result, cmdline string) (*snp.Direct, error) {
	d := &snp.Direct{Cmdline: cmdline}
	for name, to := range map[string]*[sha256.Size]byte{".linux": &d.Kernel, ".initrd": &d.Initrd} {
		at := slices.IndexFunc(r.Events, func(e measure.Event) bool { return e.PCR == 11 && e.Description == name })
		if at < 0 {
			return nil, fmt.Errorf("nothing measures the section %q of the image", name)
		}
		b, err := hex.DecodeString(r.Events[at].Digest)
		if err != nil || len(b) != len(to) {
			return nil, fmt.Errorf("section %q has the digest %q", name, r.Events[at].Digest)
		}
		*to = [sha256.Size]byte(b)
	}
	return d, nil
}

// measureTDX adds MRTD and RTMRs. They are of an image that is started with the
// firmware's own variables.
func (o *teeOptions) measureTDX(m *measured, f *ovmf.Firmware, image string) error {
	platform, err := tdx.Platform(f)
	if err != nil {
		return fmt.Errorf("%s: %w", o.firmware, err)
	}
	r := m.Result
	if platform.SecureBoot || len(platform.PK)+len(platform.KEK)+len(platform.DB)+len(platform.DBX) > 0 {
		if r, err = verify.PredictOn(platform, image); err != nil {
			return fmt.Errorf("with the variables of %s: %w", o.firmware, err)
		}
	}
	memory := o.memory << 20
	if memory>>20 != o.memory {
		memory = tdx.MaxMemory + 1
	}
	v, err := tdx.Predict(f, r, tdx.Machine{Memory: memory, Before202411: o.old})
	if err != nil {
		return fmt.Errorf("%s: %w", o.firmware, err)
	}
	m.TDX = &tdxValues{Values: v, Firmware: sumOf(f), Memory: memory, SecureBoot: platform.SecureBoot}
	return nil
}

// departures says where a TDX machine's log departs from the prediction.
func (v *tdxValues) departures(r io.Reader) ([]string, error) {
	log, err := measure.ReadConfidentialLog(r)
	if err != nil {
		return nil, err
	}
	if len(log) > 0 && log[0].Digests["sha384"] == "" {
		return nil, errors.New("it has no SHA-384 digests: not the log of a TDX machine")
	}
	var all []string
	for _, d := range tdx.Departures(v.Values, log) {
		all = append(all, d.String())
	}
	return all, nil
}

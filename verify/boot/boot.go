// Package boot boots a disk in a virtual machine and reports what its TPM
// measured.
//
// Limits first: x86-64 machines, emulated in software (QEMU, TCG), so that
// neither /dev/kvm nor privileges are needed; UEFI (OVMF), with Secure Boot
// where the firmware that is named has it; a TPM 2.0 (swtpm). The disk is not changed: what the machine writes
// goes into a temporary layer. There is no network. The guest need not help:
// the measurements are the TPM2_PCR_Extend commands that the TPM logs.
//
// A machine takes ten seconds to a minute to boot. When Run returns, both
// processes have ended and its temporary folder is gone, whatever happened.
package boot

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"caisson/build/vm/qemu"
	"caisson/verify/measure"
)

// Options is the machine, and what to wait for.
type Options struct {
	Disk    string        // a file
	Format  string        // "qcow2", "vhd" or "raw"
	Memory  int           // MiB; 0 for 1024
	CPUs    int           // 0 for 2
	Timeout time.Duration // 0 for 5 minutes
	// Code and Vars are the firmware's two files. Where they are empty, the
	// places are searched where distributions have OVMF.
	Code, Vars string
	// Secure are the machine's keys: Secure Boot is on, by firmware that was built
	// with it, whose variables are to be empty ones. nil for a machine without.
	Secure *measure.Platform
	// Resets lets the machine start again where the firmware asks for it, as
	// shim's fallback does; what was measured before is forgotten then, as the
	// TPM forgets it. Else a reset ends the machine.
	Resets bool
	// Serial is given the serial console as it comes; nil for nobody.
	Serial io.Writer
	// WaitFor, at least one, must each match a line of the serial console before the
	// machine is ended. Escape sequences are taken out of the lines; the last
	// line counts before it is complete, as a login prompt is.
	WaitFor []*regexp.Regexp
	// Dir is where the temporary folder is made; "" for the system's place.
	Dir string
}

// Result is what happened.
type Result struct {
	// Takeover and Login are the SHA-256 digests, in hex, that each PCR was
	// extended with, in order: until the firmware handed over to the kernel,
	// and until all of WaitFor had appeared. Takeover is nil if it was not
	// reached.
	Takeover map[int][]string
	Login    map[int][]string
	// PCRs are the values at login of the PCRs that were extended, in hex.
	PCRs map[int]string
	// Banks are the same for every bank of measure.Banks that the TPM has.
	Banks  map[string]Extensions
	Time   time.Duration // from the start of the machine until it was ended
	Serial string        // the end of the serial console's text, at most 1 MiB
	Exit   string        // how the machine ended, in words
	// Attempts is how often the machine was started, mostly once.
	Attempts int
}

// Extensions are what the PCRs of one bank were extended with, as in Result.
type Extensions struct {
	Takeover, Login map[int][]string
	PCRs            map[int]string
}

// An emulated machine has no time of its own: where the host is so busy that
// QEMU's timer comes late, Linux finds it broken, and panics with this text.
const (
	starved     = "IO-APIC + timer doesn't work!"
	maxAttempts = 3
)

// MissingError says that this machine lacks something that booting needs.
type MissingError struct {
	What    string // the program, or the firmware
	Package string // the Debian package that has it
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("%s is not installed (Debian package %s)", e.What, e.Package)
}

// Run boots the disk, waits until all that is waited for has appeared, and
// ends the machine. If it ended by itself before, or the time ran out, there
// is an error, and the result tells how far it came. If ctx is done the
// machine is killed. A machine whose timer the host starved is started again,
// and so is one whose kernel faulted, on another processor.
func Run(ctx context.Context, o Options) (*Result, error) {
	if len(o.WaitFor) == 0 {
		return nil, errors.New("nothing to wait for on the machine's console")
	}
	m, err := newMachine(o)
	if err != nil {
		return nil, err
	}
	for n := 1; ; n++ {
		r, err := m.boot(ctx, o)
		if r == nil {
			return nil, err
		}
		r.Attempts = n
		again := strings.Contains(r.Serial, starved)
		if errors.Is(err, errFault) && m.processor == qemu.Everything {
			again, m.processor = true, qemu.WithoutCX16
		}
		if err == nil || n == maxAttempts || !again {
			return r, err
		}
	}
}

// errFault is of a machine whose kernel does not work any more.
var errFault = errors.New("the machine's kernel faulted")

// boot is one attempt of Run, in a folder of its own.
func (m *machine) boot(ctx context.Context, o Options) (*Result, error) {
	dir, err := os.MkdirTemp(o.Dir, "boot-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if m.dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tpm, err := m.startTPM(ctx)
	if err != nil {
		return nil, err
	}
	defer tpm.Stop()
	console := newConsole(o.Serial, o.WaitFor)
	start := time.Now()
	vm, err := m.startVM(ctx, console)
	if err != nil {
		return nil, err
	}
	defer vm.Stop()
	runErr := m.wait(ctx, vm, console)
	r := &Result{Time: time.Since(start), Serial: console.text(), Exit: "ended by Run"}
	select {
	case <-vm.Done():
		r.Exit = vm.Exit()
	default:
	}
	if err := m.readLog(r); err != nil && runErr == nil {
		runErr = err
	}
	return r, runErr
}

// wait waits for the first of: all has appeared, the machine ended, its kernel
// faulted, the time ran out, ctx is done.
func (m *machine) wait(ctx context.Context, vm *qemu.Process, c *console) error {
	timer := time.NewTimer(m.timeout)
	defer timer.Stop()
	select {
	case <-c.all:
		return nil
	case <-vm.Done():
		return fmt.Errorf("the machine ended (%s) before %s appeared on its console%s", vm.Exit(), c.missing(), c.tail())
	case <-c.fault:
		return fmt.Errorf("%w before %s appeared on its console%s", errFault, c.missing(), c.tail())
	case <-timer.C:
		return fmt.Errorf("after %v %s had not appeared on the machine's console%s", m.timeout, c.missing(), c.tail())
	case <-ctx.Done():
		return ctx.Err()
	}
}

// readLog fills in what the TPM measured.
func (m *machine) readLog(r *Result) error {
	f, err := os.Open(filepath.Join(m.dir, logName))
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("swtpm has written no log")
	} else if err != nil {
		return err
	}
	defer f.Close()
	extends, err := parseLog(f)
	if err != nil {
		return fmt.Errorf("reading swtpm's log: %w", err)
	}
	r.Banks = byBank(extends)
	all := r.Banks[measure.Bank]
	r.Takeover, r.Login, r.PCRs = all.Takeover, all.Login, all.PCRs
	return nil
}

// byBank sorts extensions by bank and PCR. The kernel takes over behind the
// firmware's last event, which is the same one in every bank.
func byBank(extends []extend) map[string]Extensions {
	last := exitBootServices()
	banks := map[string]Extensions{}
	for _, bank := range measure.Banks() {
		login := map[int][]string{}
		var takeover map[int][]string
		for _, e := range extends {
			if e.bank != bank {
				continue
			}
			login[e.pcr] = append(login[e.pcr], e.digest)
			if e.pcr == 5 && e.digest == last[bank] && takeover == nil {
				takeover = map[int][]string{}
				for pcr, digests := range login {
					takeover[pcr] = append([]string(nil), digests...)
				}
			}
		}
		pcrs := map[int]string{}
		for pcr, digests := range login {
			pcrs[pcr] = measure.ReplayBank(bank, digests)
		}
		if len(login) > 0 || bank == measure.Bank {
			banks[bank] = Extensions{Takeover: takeover, Login: login, PCRs: pcrs}
		}
	}
	return banks
}

// exitBootServices is the digest, by bank, of the firmware's last event
// before the kernel takes over.
func exitBootServices() map[string]string {
	text := []byte("Exit Boot Services Returned with Success")
	return map[string]string{
		"sha256": fmt.Sprintf("%x", sha256.Sum256(text)),
		"sha384": fmt.Sprintf("%x", sha512.Sum384(text)),
		"sha512": fmt.Sprintf("%x", sha512.Sum512(text)),
	}
}

// Check tells whether what Run needs is there: the error is a *MissingError.
func Check() error {
	for _, t := range tools() {
		if _, err := t.find(); err != nil {
			return err
		}
	}
	_, err := findFirmware(Options{})
	return err
}

// firmware is a pair of files, where a distribution installs them.
type firmware struct{ code, vars string }

func findFirmware(o Options) (firmware, error) {
	if o.Code != "" || o.Vars != "" {
		if o.Code == "" || o.Vars == "" {
			return firmware{}, fmt.Errorf("firmware: want both files, got code %q and variables %q", o.Code, o.Vars)
		}
		return firmware{o.Code, o.Vars}, nil
	}
	all := []firmware{
		{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},           // Debian
		{"/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"},                 // Debian, older
		{"/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},       // Fedora
		{"/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},   // Arch
		{"/usr/share/qemu/ovmf-x86_64-code.bin", "/usr/share/qemu/ovmf-x86_64-vars.bin"}, // SUSE
	}
	if o.Secure != nil {
		all = []firmware{
			{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"},
			{"/usr/share/OVMF/OVMF_CODE.secboot.fd", "/usr/share/OVMF/OVMF_VARS.fd"},
			{"/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"},
			{"/usr/share/edk2/x64/OVMF_CODE.secboot.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"},
			{"/usr/share/qemu/ovmf-x86_64-smm-code.bin", "/usr/share/qemu/ovmf-x86_64-smm-vars.bin"},
		}
	}
	for _, f := range all {
		_, codeErr := os.Stat(f.code)
		_, varsErr := os.Stat(f.vars)
		if codeErr == nil && varsErr == nil {
			return f, nil
		}
	}
	return firmware{}, &MissingError{What: "UEFI firmware (OVMF)", Package: "ovmf"}
}

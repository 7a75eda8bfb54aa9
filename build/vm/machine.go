package vm

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"caisson/build"
	"caisson/build/vm/qemu"
)

// The ways in which QEMU runs a machine's instructions.
const (
	KVM = "kvm" // by the processor's own means, which /dev/kvm gives
	TCG = "tcg" // in software
)

// Machine is what a build runs in.
type Machine struct {
	build.VM
	program string
	sandbox bool // QEMU can confine itself
}

// Wish is how a machine is to be; the zero value leaves all of it to this package.
type Wish struct {
	Memory      int64 // bytes
	CPUs        int
	Accelerator string
}

// MissingError says that QEMU is not installed.
type MissingError struct{ Program string }

func (e *MissingError) Error() string { return e.Program + " is not installed" }

// minMemory is the least that a machine has: the kernel, and this program, which is in
// it twice.
const minMemory = 1 << 30

// Accelerator is how machines are run here unless it is said otherwise.
func Accelerator() string {
	if qemu.KVM() == nil {
		return KVM
	}
	return TCG
}

// Find tells where QEMU is, for machines of an architecture as RPM calls it. The error
// may be a *MissingError.
func Find(arch string) (string, error) {
	p, err := qemu.Program(arch)
	if errors.Is(err, exec.ErrNotFound) {
		return "", &MissingError{p}
	}
	return p, err
}

// newMachine is a machine by a wish: for a build that needs so much space, where so much
// memory is free.
func newMachine(ctx context.Context, arch string, w Wish, need, free int64) (*Machine, error) {
	m := &Machine{VM: build.VM{Accelerator: w.Accelerator, CPUs: w.CPUs, Memory: w.Memory}}
	var err error
	if m.program, err = Find(arch); err != nil {
		return nil, err
	}
	if m.QEMU, err = qemu.Version(ctx, m.program); err != nil {
		return nil, err
	}
	if m.sandbox, err = qemu.Has(ctx, m.program, "-sandbox "); err != nil {
		return nil, err
	}
	if m.Accelerator == "" {
		m.Accelerator = Accelerator()
	}
	if m.CPUs == 0 {
		m.CPUs = min(runtime.GOMAXPROCS(0), runtime.NumCPU()) //nolint:forbidigo // how fast it is, and no byte of an image
	}
	if m.Memory == 0 {
		// No more than a build can use: its files, compilers, and the kernel.
		m.Memory = min(free/4*3, need+3<<30) &^ (1<<20 - 1)
		if m.Memory < minMemory {
			return nil, fmt.Errorf("a virtual machine needs %d MiB of memory, and of the %d MiB that are free it may have %d", minMemory>>20, free>>20, m.Memory>>20)
		}
	}
	switch arch {
	case "aarch64":
		m.Machine, m.CPU = "virt", "max,pauth-impdef=on" // the architecture's own is slow in software
		if m.Accelerator == TCG {
			break
		}
		m.CPU = "host"
	default:
		m.Machine, m.CPU = "q35", qemu.WithoutREP
		if m.Accelerator == KVM {
			m.CPU = "host"
		}
	}
	return m, nil
}

// commandLine is the kernel's.
func (m *Machine) commandLine() string {
	args := []string{
		"quiet", "loglevel=4",
		"panic=-1", "oops=panic", // the machine ends, and QEMU with it
		"selinux=0",       // an image's labels are written, not looked at
		"mitigations=off", // nobody else is in the machine, and in software they cost much
		"init_on_alloc=0",
		"random.trust_cpu=on",
	}
	switch m.Machine {
	case "virt":
		args = append(args, "console=ttyAMA0")
	default:
		args = append(args, "console=ttyS0")
		if m.Accelerator == TCG {
			// Where the host is busy QEMU's timer comes late, and Linux finds it broken.
			args = append(args, "no_timer_check", "clearcpuid="+qemu.KernelWithoutCX16+","+qemu.KernelWithoutREP)
		}
	}
	return strings.Join(append(args, "--", initArg), " ")
}

// Files of a machine's folder.
const (
	kernelFile    = "vmlinuz"
	initramfsFile = "initramfs"
	consoleFile   = "console.log"
)

// args are QEMU's, whose standard output is the port for messages (of "stdio" the end of
// the input would close it), for a machine with the files of a folder: these devices, and none
// that a configuration or a default adds; no network card.
func (m *Machine) args(dir string) []string {
	machine := m.Machine
	if m.Machine == "q35" {
		machine += ",smm=off,vmport=off"
	}
	accelerator := m.Accelerator
	if accelerator == TCG {
		accelerator += ",thread=multi"
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-nic", "none", "-display", "none", "-no-reboot",
		"-machine", machine, "-accel", accelerator, "-cpu", m.CPU, "-smp", strconv.Itoa(m.CPUs), "-m", strconv.FormatInt(m.Memory>>20, 10),
		"-kernel", kernelFile, "-initrd", initramfsFile, "-append", m.commandLine(),
		"-monitor", "none", "-chardev", "file,id=console,path=" + consoleFile, "-serial", "chardev:console",
		"-chardev", "file,id=port,path=/proc/self/fd/1", "-device", "virtio-serial-pci", "-device", "virtserialport,chardev=port,name=" + portName,
	}
	for _, d := range []struct{ name, how string }{
		{diskInputs, "readonly=on"}, {diskResults, "cache=unsafe"}, {diskSwap, "cache=unsafe,discard=unmap"},
	} {
		args = append(args, "-drive", "if=none,id="+d.name+",format=raw,"+d.how+",file="+qemu.Option(filepath.Join(dir, d.name)),
			"-device", "virtio-blk-pci,drive="+d.name+",serial="+d.name)
	}
	if m.sandbox {
		args = append(args, "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny")
	}
	return args
}

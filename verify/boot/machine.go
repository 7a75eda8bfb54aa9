package boot

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"caisson/build/vm/qemu"
	"caisson/verify/measure"
)

const (
	logName    = "tpm.log"
	socketName = "tpm.sock" // relative: the path of a socket has at most 107 bytes
	varsName   = "vars.fd"

	tpmPatience = 10 * time.Second // for swtpm's socket to appear
)

// machine is the machine that Options ask for, and its folder.
type machine struct {
	qemu, swtpm  string
	firmware     firmware
	disk, format string
	memory, cpus int
	timeout      time.Duration
	secure       *measure.Platform
	resets       bool
	processor    string
	dir          string
}

func newMachine(o Options) (*machine, error) {
	m := &machine{format: o.Format, memory: o.Memory, cpus: o.CPUs, timeout: o.Timeout, secure: o.Secure, resets: o.Resets, processor: qemu.Everything}
	if m.memory == 0 {
		m.memory = 1024
	}
	if m.cpus == 0 {
		m.cpus = 2
	}
	if m.timeout == 0 {
		m.timeout = 5 * time.Minute
	}
	switch m.format {
	case "qcow2", "raw":
	case "vhd":
		m.format = "vpc" // as QEMU calls it
	default:
		return nil, fmt.Errorf("disk format %q: want qcow2, vhd or raw", m.format)
	}
	var err error
	if m.disk, err = filepath.Abs(o.Disk); err != nil {
		return nil, err
	}
	if _, err := os.Stat(m.disk); err != nil {
		return nil, err
	}
	for i, path := range []*string{&m.qemu, &m.swtpm} {
		if *path, err = tools()[i].find(); err != nil {
			return nil, err
		}
	}
	if m.firmware, err = findFirmware(o); err != nil {
		return nil, err
	}
	return m, nil
}

// tool is a program and Debian's package that has it.
type tool struct{ name, debian string }

// tools are QEMU and the TPM.
func tools() [2]tool {
	return [2]tool{{"qemu-system-x86_64", "qemu-system-x86"}, {"swtpm", "swtpm"}}
}

func (t tool) find() (string, error) {
	path, err := exec.LookPath(t.name)
	if err != nil {
		return "", &MissingError{What: t.name, Package: t.debian}
	}
	return filepath.Abs(path)
}

// startTPM starts swtpm and waits for its socket.
func (m *machine) startTPM(ctx context.Context) (*qemu.Process, error) {
	state := filepath.Join(m.dir, "tpm")
	if err := os.Mkdir(state, 0o700); err != nil {
		return nil, err
	}
	p, err := m.start(ctx, nil, m.swtpm, "socket", "--tpm2",
		"--tpmstate", "dir="+state,
		"--ctrl", "type=unixio,path="+socketName,
		"--log", "file="+logName+",level=20",
		"--terminate")
	if err != nil {
		return nil, err
	}
	timer := time.NewTimer(tpmPatience)
	defer timer.Stop()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		if _, err := os.Stat(filepath.Join(m.dir, socketName)); err == nil {
			return p, nil
		}
		select {
		case <-ticker.C:
			continue
		case <-p.Done():
			err = fmt.Errorf("swtpm ended: %s", p.Exit())
		case <-timer.C:
			err = fmt.Errorf("swtpm has not opened its socket within %v", tpmPatience)
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.Stop()
		return nil, err
	}
}

// startVM starts QEMU. No device but those named: a boot option that fails
// before the disk's would be measured into PCR 4.
func (m *machine) startVM(ctx context.Context, console io.Writer) (*qemu.Process, error) {
	vars := filepath.Join(m.dir, varsName)
	if err := m.writeVars(vars); err != nil {
		return nil, fmt.Errorf("copying the firmware's variables: %w", err)
	}
	args := []string{"-machine", "q35,accel=tcg,smm=off"}
	if m.secure != nil { // the firmware protects its variables by SMM
		args = []string{"-machine", "q35,accel=tcg,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"}
	}
	if !m.resets {
		args = append(args, "-no-reboot")
	}
	return m.start(ctx, console, m.qemu, append(args,
		"-nodefaults", "-no-user-config", "-display", "none", "-nic", "none", "-cpu", m.processor,
		"-smp", strconv.Itoa(m.cpus), "-m", strconv.Itoa(m.memory),
		"-drive", "if=pflash,format=raw,readonly=on,file="+qemu.Option(m.firmware.code),
		"-drive", "if=pflash,format=raw,file="+varsName,
		"-drive", "if=none,id=disk,snapshot=on,format="+m.format+",file="+qemu.Option(m.disk),
		"-device", "virtio-blk-pci,drive=disk,bootindex=1",
		"-device", "virtio-rng-pci", // as machines in a cloud have it: firmware and EFI programs use it
		"-chardev", "socket,id=tpm,path="+socketName,
		"-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm",
		"-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial", "-monitor", "none")...)
}

// start runs a program in the machine's folder.
func (m *machine) start(ctx context.Context, stdout io.Writer, name string, args ...string) (*qemu.Process, error) {
	return qemu.Start(ctx, m.dir, stdout, name, args...)
}

// writeVars copies the firmware's variables, with the machine's keys.
func (m *machine) writeVars(to string) error {
	if m.secure == nil {
		return copyFile(to, m.firmware.vars)
	}
	b, err := os.ReadFile(m.firmware.vars)
	if err != nil {
		return err
	}
	if b, err = measure.Enroll(b, *m.secure); err != nil {
		return fmt.Errorf("%s: %w", m.firmware.vars, err)
	}
	return os.WriteFile(to, b, 0o600)
}

func copyFile(to, from string) error {
	r, err := os.Open(from)
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := os.Create(to)
	if err != nil {
		return err
	}
	if _, err := io.Copy(w, r); err != nil {
		w.Close()
		return err
	}
	return w.Close()
}

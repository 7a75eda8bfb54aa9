package boot

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"caisson/verify/measure"
)

const (
	logName    = "tpm.log"
	socketName = "tpm.sock" // relative: the path of a socket has at most 107 bytes
	varsName   = "vars.fd"

	tpmPatience = 10 * time.Second // for swtpm's socket to appear
	endPatience = 5 * time.Second  // for a process to end by itself
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
	m := &machine{format: o.Format, memory: o.Memory, cpus: o.CPUs, timeout: o.Timeout, secure: o.Secure, resets: o.Resets, processor: everything}
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
func (m *machine) startTPM(ctx context.Context) (*process, error) {
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
		case <-p.done:
			err = fmt.Errorf("swtpm ended: %s", p.exit())
		case <-timer.C:
			err = fmt.Errorf("swtpm has not opened its socket within %v", tpmPatience)
		case <-ctx.Done():
			err = ctx.Err()
		}
		p.stop()
		return nil, err
	}
}

// Models of the processor: all that QEMU knows to emulate, which is the fastest;
// and that without an instruction that is wrong in QEMU 7.2, cmpxchg16b without
// a lock. Kernels since 6.5 use it, and fault by it sooner or later. Programs
// for x86-64-v2 want it to be there.
const (
	everything  = "max"
	withoutCX16 = "max,cx16=off"
)

// startVM starts QEMU. No device but those named: a boot option that fails
// before the disk's would be measured into PCR 4.
func (m *machine) startVM(ctx context.Context, console io.Writer) (*process, error) {
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
		"-drive", "if=pflash,format=raw,readonly=on,file="+option(m.firmware.code),
		"-drive", "if=pflash,format=raw,file="+varsName,
		"-drive", "if=none,id=disk,snapshot=on,format="+m.format+",file="+option(m.disk),
		"-device", "virtio-blk-pci,drive=disk,bootindex=1",
		"-device", "virtio-rng-pci", // as machines in a cloud have it: firmware and EFI programs use it
		"-chardev", "socket,id=tpm,path="+socketName,
		"-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm",
		"-chardev", "stdio,id=serial,signal=off", "-serial", "chardev:serial", "-monitor", "none")...)
}

// process is a program that was started. It ends with the program that
// started it.
type process struct {
	cmd    *exec.Cmd
	errors bytes.Buffer
	done   chan struct{} // closed when it has ended
}

// start runs a program in the machine's folder, with an environment that
// does not depend on ours.
func (m *machine) start(ctx context.Context, stdout io.Writer, name string, args ...string) (*process, error) {
	p := &process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Dir = m.dir
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + m.dir}
	p.cmd.Stdout = stdout
	p.cmd.Stderr = &p.errors
	p.cmd.WaitDelay = endPatience
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		runtime.LockOSThread() // Pdeathsig is sent when the thread ends
		defer runtime.UnlockOSThread()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			_ = p.cmd.Wait() // ProcessState has it
			close(p.done)
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", filepath.Base(name), err)
	}
	return p, nil
}

// stop ends the process: first it is asked to, then it is killed.
func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(endPatience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// exit tells how a process ended; it must have.
func (p *process) exit() string {
	text := p.cmd.ProcessState.String()
	if said := strings.TrimSpace(p.errors.String()); said != "" {
		text += ": " + said
	}
	return text
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

// Package qemu starts the programs that virtual machines are made of, so that they
// end with the program that started them, and says what has to be known of QEMU's
// emulation.
//
// A program runs in a folder of its own, with an environment that does not depend
// on the caller's, in a process group of its own: a Ctrl-C of the terminal does not
// reach it, and the caller ends it.
package qemu

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// Models of the processor for an emulated x86-64 machine: all that QEMU knows to
// emulate, which is the fastest; and that without an instruction that is wrong in
// QEMU 7.2, cmpxchg16b without a lock. Kernels since 6.5 use it, and fault by it
// sooner or later. Programs for x86-64-v2 want it to be there.
const (
	Everything  = "max"
	WithoutCX16 = "max,cx16=off"
)

// KernelWithoutCX16 has Linux on an x86-64 machine leave that instruction alone, as one
// of the list that its argument clearcpuid takes; its programs still have it. Linux
// takes names since 5.18.
const KernelWithoutCX16 = "cx16"

// WithoutREP is all that QEMU knows to emulate but the promise that instructions with a
// REP prefix are quick (ERMS): it emulates them a step at a time, and with the promise
// Linux, the C library and Go copy and clear memory by nothing else. Clearing memory
// takes half the time without; Linux's own choice of them is KernelWithoutREP.
const (
	WithoutREP       = "max,erms=off"
	KernelWithoutREP = "rep_good"
)

// Fault is in the line of the console by which Linux says of itself that it cannot go
// on as it should.
const Fault = "] Oops: "

// patience is how long a process may take to end by itself.
const patience = 5 * time.Second

// maxSaid is how much of what a program says on its standard error is kept.
const maxSaid = 64 << 10

// Process is a program that was started.
type Process struct {
	cmd  *exec.Cmd
	said said
	done chan struct{} // closed when it has ended
}

// said is the beginning of what a program says. It embeds no buffer, whose ReadFrom
// would be used in place of Write, and has no bound.
type said struct{ text bytes.Buffer }

func (s *said) Write(b []byte) (int, error) {
	if room := maxSaid - s.text.Len(); room > 0 {
		s.text.Write(b[:min(len(b), room)])
	}
	return len(b), nil
}

// Start runs a program in a folder. When ctx is done, or the caller ends, it is killed.
func Start(ctx context.Context, dir string, stdout io.Writer, name string, args ...string) (*Process, error) {
	p := &Process{cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.Dir = dir
	p.cmd.Env = []string{"PATH=/usr/bin:/bin", "TMPDIR=" + dir}
	p.cmd.Stdout = stdout
	p.cmd.Stderr = &p.said
	p.cmd.WaitDelay = patience
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

// Done is closed when the process has ended and all that it wrote has been taken.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop ends the process: first it is asked to, then it is killed.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		_ = p.cmd.Process.Kill()
		<-p.done
	}
}

// Success tells whether the process, which must have ended, did so without an error.
func (p *Process) Success() bool { return p.cmd.ProcessState.Success() }

// Exit tells in words how the process ended; it must have.
func (p *Process) Exit() string {
	text := p.cmd.ProcessState.String()
	if said := strings.TrimSpace(p.said.text.String()); said != "" {
		text += ": " + said
	}
	return text
}

// Option escapes a value for one of QEMU's, or swtpm's, comma-separated lists.
func Option(value string) string { return strings.ReplaceAll(value, ",", ",,") }

// Program is QEMU's for the machines of an architecture, as RPM calls it, and where it
// is. It is not there: the error is exec.ErrNotFound, and the name is returned all the
// same. Red Hat's has another name and place.
func Program(arch string) (path string, err error) {
	name := "qemu-system-" + arch
	for _, p := range []string{name, "/usr/libexec/qemu-kvm", "qemu-kvm"} {
		if path, err := exec.LookPath(p); err == nil {
			return filepath.Abs(path)
		}
	}
	return name, &exec.Error{Name: name, Err: exec.ErrNotFound}
}

// Version is what a QEMU says of itself in its first line.
func Version(ctx context.Context, program string) (string, error) {
	c := exec.CommandContext(ctx, program, "--version")
	c.Env = []string{"PATH=/usr/bin:/bin"}
	b, err := c.Output()
	if err != nil {
		return "", fmt.Errorf("%s --version: %w", program, err)
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line, nil
}

// KVM tells whether machines can be run by the kernel's own means: the error says why
// not.
func KVM() error {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR|syscall.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	return createMachine(f)
}

// Has tells whether a QEMU has an option, by how it begins a line of its help.
func Has(ctx context.Context, program, option string) (bool, error) {
	c := exec.CommandContext(ctx, program, "-help")
	c.Env = []string{"PATH=/usr/bin:/bin"}
	b, err := c.Output()
	if err != nil {
		return false, fmt.Errorf("%s -help: %w", program, err)
	}
	return strings.Contains(string(b), "\n"+option), nil
}

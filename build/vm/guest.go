package vm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// initArg is what Linux gives the machine's init, so that no other process 1 of that
// name takes itself for one.
const initArg = "caisson-vm"

// heartbeat is how often a machine says that it is alive.
const heartbeat = 10 * time.Second

// maxSaid is how much of what the program writes to its standard error is handed on.
const maxSaid = 1 << 20

// Init is what becomes of this program as the init of a virtual machine that Build
// started, and then does not return: it ends with the machine. Otherwise it returns at
// once. It has to be called at the beginning of main, behind sandbox.Init.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != initPath || os.Args[1] != initArg || unix.Getpid() != 1 {
		return
	}
	signal.Notify(make(chan os.Signal, 1)) // nothing from inside ends process 1
	g := &guest{}
	if err := g.run(); err != nil {
		// Where there is no port yet, the console has it.
		fmt.Fprintf(os.Stderr, "caisson: %v\n", err)
		g.end(exit{Error: err.Error()})
	}
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART) // QEMU ends at a restart as well
	select {}
}

// guest is the machine from inside.
type guest struct {
	mu   sync.Mutex
	port *os.File
}

// say sends a message. A port that nobody reads any more is the machine's end anyway.
func (g *guest) say(m message) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.port != nil {
		_ = send(g.port, m)
	}
}

// note says on the console how far the machine is: an error outside has the end of that.
func (g *guest) note(what string) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now) // it does not fail
	fmt.Fprintf(os.Stderr, "caisson: %d.%03d s: %s\n", now.Sec, now.Nsec/1e6, what)
}

// end sends the last message, and waits until it is out.
func (g *guest) end(e exit) {
	g.say(message{Exit: &e})
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.port != nil {
		g.port.Close()
		g.port = nil
	}
}

func (g *guest) run() error {
	if err := mountKernel(); err != nil {
		return err
	}
	if err := loadModules(modulesPath); err != nil {
		return err
	}
	var err error
	if g.port, err = openPort(); err != nil {
		return err
	}
	go func() {
		for range time.Tick(heartbeat) {
			g.say(message{})
		}
	}()
	g.note("taking over the inputs")
	if err := swapOn(); err != nil {
		return err
	}
	if err := newRoot(); err != nil {
		return err
	}
	j, err := takeInputs()
	if err != nil {
		return fmt.Errorf("taking over the inputs: %w", err)
	}
	g.note("building")
	e, err := g.work(j)
	if err != nil {
		return err
	}
	if e.Code == 0 {
		g.note("handing over the results")
		if e.Result, err = leaveResults(j.Out); err != nil {
			return fmt.Errorf("handing over the results: %w", err)
		}
	}
	g.end(*e)
	return nil
}

// work runs the program under the job's conditions.
func (g *guest) work(j *job) (*exit, error) {
	for _, d := range []string{j.Out, "/tmp", filepath.Join(StorePath, "tmp")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return nil, err
		}
	}
	for _, d := range []string{j.Out, StorePath} {
		err := filepath.WalkDir(d, func(p string, _ os.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return os.Lchown(p, j.UID, j.GID)
		})
		if err != nil {
			return nil, err
		}
	}
	if err := os.Chmod("/tmp", 0o1777); err != nil { //nolint:gosec // as everywhere
		return nil, err
	}
	if err := unix.Sethostname([]byte(j.Hostname)); err != nil {
		return nil, fmt.Errorf("setting the host name: %w", err)
	}
	if _, _, errno := unix.Syscall(unix.SYS_PERSONALITY, uintptr(j.Persona), 0, 0); errno != 0 {
		return nil, fmt.Errorf("setting the personality: %w", errno)
	}
	unix.Umask(j.Umask)
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	var copies sync.WaitGroup
	said := &head{most: maxSaid}
	copies.Go(func() { g.lines(outR) })
	copies.Go(func() { _, _ = io.Copy(said, errR) })
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	pid, err := syscall.ForkExec("/proc/self/exe", append([]string{"caisson"}, j.Args...), &syscall.ProcAttr{
		Dir: "/", Env: append(j.Env, "TMPDIR=/tmp"), Files: []uintptr{null.Fd(), outW.Fd(), errW.Fd()},
		Sys: &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: uint32(j.UID), Gid: uint32(j.GID)}}, //nolint:gosec // numbers of users
	})
	if err != nil {
		return nil, fmt.Errorf("starting the build: %w", err)
	}
	outW.Close()
	errW.Close()
	ws, err := reap(pid)
	if err != nil {
		return nil, err
	}
	copies.Wait()
	e := &exit{Code: ws.ExitStatus(), Said: said.String()}
	if ws.Signaled() {
		e.Error = fmt.Sprintf("the build was ended by a signal: %v", ws.Signal())
	}
	return e, nil
}

// lines sends what the program prints.
func (g *guest) lines(r io.Reader) {
	in := bufio.NewReader(r)
	for {
		line, err := in.ReadString('\n')
		if line = strings.TrimSuffix(line, "\n"); line != "" && len(line) < maxMessage/2 {
			g.say(message{Out: line})
		}
		if err != nil {
			return
		}
	}
}

// reap waits for all children until one of them, and all that it left, have ended.
func reap(pid int) (unix.WaitStatus, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("waiting for the build: %w", err)
		case got == pid && (ws.Exited() || ws.Signaled()):
			// ESRCH: nothing is left.
			if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return 0, fmt.Errorf("ending what the build left: %w", err)
			}
			return ws, nil
		}
	}
}

// head keeps the beginning of what is written to it.
type head struct {
	strings.Builder
	most int
}

func (h *head) Write(b []byte) (int, error) {
	if room := h.most - h.Len(); room > 0 {
		h.Builder.Write(b[:min(room, len(b))])
	}
	return len(b), nil
}

// takeInputs unpacks the disk of the inputs.
func takeInputs() (*job, error) {
	f, err := openDisk(diskInputs, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	j, err := readInputs(bufio.NewReaderSize(f, 1<<20), "/")
	if err != nil {
		return nil, err
	}
	// The disk's pages are not needed any more.
	return j, unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// leaveResults writes the disk of the results.
func leaveResults(dir string) (*written, error) {
	f, err := openDisk(diskResults, os.O_WRONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	w := bufio.NewWriterSize(f, 1<<20)
	sum, err := writeResults(w, dir)
	if err = errors.Join(err, w.Flush(), f.Sync()); err != nil {
		return nil, err
	}
	return &sum, nil
}

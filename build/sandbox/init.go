package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// initName, as the name that the executable was called by, makes it process 1.
const initName = "caisson-sandbox-init"

// Descriptors that process 1 is started with, after the command's three.
const (
	specFD    = 3 // initSpec as JSON, then end of file
	controlFD = 4 // a SOCK_SEQPACKET socket: messages out, acknowledgements in
)

// initSpec is what process 1 is told.
type initSpec struct {
	Root          string
	RootWritable  bool
	Mounts        []Mount
	Tmpfs         []string
	ProcIn, DevIn []string
	Args, Env     []string
	Dir           string
	Terminal      bool // descriptor 0 is one of the command's own
	Features      features
	MaxProcesses  int
	// HostSocket is an abstract UNIX socket that listens in the caller's network.
	HostSocket string
	// HostPID is the caller's process, as its own /proc has it.
	HostPID int
	// LimitPIDs says that kernel.pid_max concerns this namespace alone.
	LimitPIDs bool
	Hostname  string
	Umask     int
}

// message is one step of process 1. Each but the last is acknowledged before it
// goes on.
type message struct {
	// Error ends it; Errno is the number behind it, if any.
	Error string `json:",omitempty"`
	Errno int    `json:",omitempty"`
	// Listener announces the filter's listener, which comes with the message. TID is
	// the filtered thread in its own namespace.
	Listener bool `json:",omitempty"`
	TID      int  `json:",omitempty"`
	// Canaries says that the canaries were tried and the command comes next.
	Canaries []Canary `json:",omitempty"`
	// Processes and SharedProc are Volatile's.
	Processes  string `json:",omitempty"`
	SharedProc bool   `json:",omitempty"`
	// Exited carries the command's wait status.
	Exited bool   `json:",omitempty"`
	Status uint32 `json:",omitempty"`
}

// Init must be the first call of main, and of TestMain, in every executable that
// calls Run: it is what becomes of that executable as process 1 of a sandbox, and
// then does not return. Otherwise it returns at once.
func Init() {
	if len(os.Args) != 1 || os.Args[0] != initName {
		return
	}
	err := errors.New(initName + " is no command: it is started by caisson in a sandbox of its own")
	if unix.Getpid() == 1 {
		err = initMain()
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "caisson: %v\n", err)
		os.Exit(1) //nolint:forbidigo // this is the main function of process 1
	}
	os.Exit(0) //nolint:forbidigo // this is the main function of process 1
}

// control is process 1's end of the socket to Run.
type control struct {
	conn *net.UnixConn
	acks chan struct{}
}

func newControl() (*control, error) {
	f := os.NewFile(controlFD, "control")
	defer f.Close()
	fc, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("opening the control socket: %w", err)
	}
	conn, ok := fc.(*net.UnixConn)
	if !ok {
		return nil, fmt.Errorf("the control socket is a %T", fc)
	}
	c := &control{conn: conn, acks: make(chan struct{}, 8)}
	go func() {
		b := make([]byte, 1)
		for {
			if n, err := conn.Read(b); n != 1 || err != nil {
				os.Exit(1) //nolint:forbidigo // Run is gone: all processes of the sandbox must go too
			}
			c.acks <- struct{}{}
		}
	}()
	return c, nil
}

// send sends m, with descriptor fd unless it is negative, and waits until Run has
// dealt with it.
func (c *control) send(m message, fd int) error {
	b, err := json.Marshal(m)
	if err != nil {
		return err
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	if _, _, err := c.conn.WriteMsgUnix(b, rights, nil); err != nil {
		return fmt.Errorf("sending to the caller: %w", err)
	}
	if m.Error == "" {
		<-c.acks
	}
	return nil
}

// initMain is process 1: it sets up the sandbox, runs the command and reaps.
func initMain() error {
	unix.CloseOnExec(specFD)
	unix.CloseOnExec(controlFD)
	c, err := newControl()
	if err != nil {
		return err
	}
	if err := supervise(c); err != nil {
		m := message{Error: err.Error()}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			m.Errno = int(errno)
		}
		return c.send(m, -1)
	}
	return nil
}

func supervise(c *control) error {
	// Signals from inside must not end process 1; a handler, unlike ignoring them,
	// is not inherited by the command.
	signal.Notify(make(chan os.Signal, 1))
	s, err := readSpec()
	if err != nil {
		return err
	}
	if err := closeInherited(controlFD); err != nil {
		return fmt.Errorf("closing inherited descriptors: %w", err)
	}
	ready, err := prepare(s)
	if err != nil {
		return err
	}
	canaries := namespaceCanaries(s.HostSocket)

	type filtered struct {
		listener, tid int
		err           error
	}
	install, start, started := make(chan filtered), make(chan struct{}), make(chan commandStart)
	// This goroutine keeps the only thread under the filter. Go makes no other thread
	// from a locked one, so the descriptors can be sent from outside the filter.
	go func() {
		runtime.LockOSThread()
		fd, err := confineThread(s.Features, ready.sharedProc)
		install <- filtered{fd, unix.Gettid(), err}
		if err != nil {
			return
		}
		<-start
		caller := 0
		if ready.sharedProc {
			caller = s.HostPID
		}
		canaries = append(canaries, filterCanaries(s.HostSocket, caller)...)
		started <- commandStart{}
		<-start
		started <- startCommand(s)
		select {}
	}()
	f := <-install
	if f.err != nil {
		return f.err
	}
	if err := c.send(message{Listener: true, TID: f.tid, Processes: ready.processes, SharedProc: ready.sharedProc}, f.listener); err != nil {
		return err
	}
	if err := unix.Close(f.listener); err != nil {
		return err
	}
	start <- struct{}{}
	<-started
	if err := c.send(message{Canaries: canaries}, -1); err != nil {
		return err
	}
	start <- struct{}{}
	cmd := <-started
	if cmd.err != nil {
		return cmd.err
	}
	var ws unix.WaitStatus
	if cmd.pid != 0 {
		if ws, err = reap(cmd.pid); err != nil {
			return err
		}
	}
	return c.send(message{Exited: true, Status: uint32(ws)}, -1)
}

func readSpec() (*initSpec, error) {
	f := os.NewFile(specFD, "spec")
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading the sandbox's description: %w", err)
	}
	var s initSpec
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("reading the sandbox's description: %w", err)
	}
	return &s, nil
}

// prepared is how the sandbox turned out on this machine.
type prepared struct {
	processes  string // what bounds the number of processes
	sharedProc bool   // /proc is the caller's
}

// prepare sets what holds for the whole process: name, umask, loopback, mounts,
// limits.
func prepare(s *initSpec) (p prepared, err error) {
	// Not dumpable: no process inside may look into this one.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return p, fmt.Errorf("closing /proc/1: %w", err)
	}
	unix.Umask(s.Umask)
	if err := unix.Sethostname([]byte(s.Hostname)); err != nil {
		return p, fmt.Errorf("setting the host name: %w", err)
	}
	if err := unix.Setdomainname([]byte("(none)")); err != nil {
		return p, fmt.Errorf("setting the domain name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return p, fmt.Errorf("bringing up the loopback: %w", err)
	}
	p.processes = "rlimit"
	if s.LimitPIDs {
		ok, err := limitPIDs(s.MaxProcesses)
		if err != nil {
			return p, err
		}
		if ok {
			p.processes = "pid_max"
		}
	}
	if p.sharedProc, err = buildTree(s); err != nil {
		return p, err
	}
	return p, setLimits(s.MaxProcesses)
}

// loopbackUp brings up lo, which a new network namespace has, down.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

type commandStart struct {
	pid int
	err error
}

// startCommand starts the command as a child of the calling thread. Where there is
// none to start, its number is 0.
func startCommand(s *initSpec) commandStart {
	if len(s.Args) == 0 {
		return commandStart{}
	}
	name, err := lookPath(s.Args[0], s.Dir, s.Env)
	if err == nil {
		var pid int
		attr := &syscall.ProcAttr{Dir: s.Dir, Env: s.Env, Files: []uintptr{0, 1, 2}}
		if s.Terminal {
			attr.Sys = &syscall.SysProcAttr{Setsid: true, Setctty: true}
		}
		pid, err = syscall.ForkExec(name, s.Args, attr)
		if err == nil {
			return commandStart{pid: pid}
		}
	}
	return commandStart{err: fmt.Errorf("starting %q in %s: %w", s.Args[0], s.Dir, err)}
}

// lookPath is where name is, as a shell with environment env in dir would find it.
func lookPath(name, dir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for _, d := range strings.Split(list, ":") {
			p := path.Join(d, name)
			if !path.IsAbs(p) {
				p = path.Join(dir, p)
			}
			var st unix.Stat_t
			if unix.Stat(p, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && unix.Access(p, unix.X_OK) == nil {
				return p, nil
			}
		}
	}
	return "", fmt.Errorf("not found in PATH: %w", unix.ENOENT)
}

// reap waits for children, orphans among them, until the command has ended, then
// kills what is left.
func reap(command int) (ws unix.WaitStatus, err error) {
	for {
		pid, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, fmt.Errorf("waiting for the command: %w", err)
		case pid == command:
			// ESRCH: nothing is left.
			if err := unix.Kill(-1, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return 0, fmt.Errorf("ending what the command left: %w", err)
			}
			return ws, nil
		}
	}
}

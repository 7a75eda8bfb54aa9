package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// child is process 1 of a sandbox and the caller's ends of what connects to it.
type child struct {
	cmd     *exec.Cmd
	spec    *os.File // the write end of its description
	control *net.UnixConn
	copies  sync.WaitGroup // stdout and stderr
	copyErr [2]error
	host    *abstractSocket
}

// run runs a checked spec.
func run(ctx context.Context, s Spec) (*Result, error) {
	began := time.Now() //nolint:forbidigo // how long it took is evidence and no part of an image
	host, err := listenAbstract()
	if err != nil {
		return nil, fmt.Errorf("listening for the canary: %w", err)
	}
	defer host.close()
	c, err := startInit(s)
	if err != nil {
		return nil, err
	}
	c.host = host
	stop := context.AfterFunc(ctx, func() { c.kill() })
	defer stop()

	o := newObserver(s, c.cmd.Process.Pid)
	status, err := c.converse(s, o)
	c.kill()
	waitErr := c.wait()
	o.stopListening()
	o.evidence.Volatile.Seconds = seconds(time.Since(began)) //nolint:forbidigo // as above
	if err == nil {
		err = errors.Join(waitErr, c.copyErr[0], c.copyErr[1])
	}
	r := &Result{Evidence: o.finish()}
	if err != nil {
		return r, err
	}
	r.ExitCode, r.Signal = ended(status)
	r.Evidence.ExitCode, r.Evidence.Signal = r.ExitCode, r.Signal
	r.Files, err = o.files.settle(s)
	return r, err
}

// startInit starts this executable as process 1 of new namespaces.
func startInit(s Spec) (c *child, err error) {
	c = &child{}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
	}()
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	theirs, c.spec = append(theirs, specR), specW
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, errors.Join(err, specW.Close())
	}
	control := os.NewFile(uintptr(pair[1]), "control")
	theirs = append(theirs, control)
	ours := os.NewFile(uintptr(pair[0]), "control")
	defer ours.Close()
	conn, err := net.FileConn(ours)
	if err != nil {
		return nil, errors.Join(err, specW.Close())
	}
	c.control = conn.(*net.UnixConn)
	in, out, errs, err := c.pipes(s, &theirs)
	if err != nil {
		return nil, errors.Join(err, specW.Close(), conn.Close())
	}
	c.cmd = &exec.Cmd{
		Path: "/proc/self/exe", Args: []string{initName}, Env: []string{}, Dir: "/",
		Stdin: in, Stdout: out, Stderr: errs, ExtraFiles: []*os.File{specR, control},
		SysProcAttr: &syscall.SysProcAttr{
			Setsid:     true,
			Cloneflags: newNamespaces,
			UidMappings: []syscall.SysProcIDMap{
				{ContainerID: s.Around.User, HostID: unix.Geteuid(), Size: 1},
			},
			GidMappings: []syscall.SysProcIDMap{
				{ContainerID: s.Around.User, HostID: unix.Getegid(), Size: 1},
			},
			GidMappingsEnableSetgroups: false,
		},
	}
	if s.Around.User != 0 {
		// Another user than 0 loses its capabilities with exec, and process 1 needs them.
		for capability := range uintptr(unix.CAP_LAST_CAP + 1) {
			c.cmd.SysProcAttr.AmbientCaps = append(c.cmd.SysProcAttr.AmbientCaps, capability)
		}
	}
	if err := c.cmd.Start(); err != nil {
		return nil, errors.Join(explain(fmt.Errorf("making namespaces: %w", err), os.ReadFile), specW.Close(), conn.Close())
	}
	return c, nil
}

// pipes connects the command's descriptors 0, 1 and 2. Files of the caller's are
// not handed on: a terminal takes commands, a file can be truncated.
func (c *child) pipes(s Spec, theirs *[]*os.File) (in, out, errs *os.File, err error) {
	if s.Terminal != nil {
		return s.Terminal, s.Terminal, s.Terminal, nil
	}
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, nil, nil, err
	}
	*theirs = append(*theirs, inR)
	if out, err = c.output(0, s.Stdout, theirs); err != nil {
		return nil, nil, nil, errors.Join(err, inW.Close())
	}
	errs = out
	// One pipe for one writer: it keeps the order, and is not written to by two.
	if s.Stderr == nil || !sameWriter(s.Stdout, s.Stderr) {
		if errs, err = c.output(1, s.Stderr, theirs); err != nil {
			return nil, nil, nil, errors.Join(err, inW.Close())
		}
	}
	go func() {
		if s.Stdin != nil {
			// A command that does not read all of it is no error.
			_, _ = io.Copy(inW, s.Stdin)
		}
		inW.Close()
	}()
	return inR, out, errs, nil
}

// sameWriter says whether a and b are one; writers that cannot be compared are two.
func sameWriter(a, b io.Writer) (same bool) {
	defer func() { _ = recover() }()
	return a == b
}

// output is the write end of a pipe whose read end is copied to w, or to nowhere.
func (c *child) output(i int, w io.Writer, theirs *[]*os.File) (*os.File, error) {
	if w == nil {
		w = io.Discard
	}
	from, to, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	*theirs = append(*theirs, to)
	c.copies.Add(1)
	go func() {
		defer c.copies.Done()
		defer from.Close()
		if _, err := io.Copy(w, from); err != nil {
			c.copyErr[i] = fmt.Errorf("copying the command's output: %w", err)
		}
	}()
	return to, nil
}

// converse tells process 1 what to do and takes its messages until the command
// has ended.
func (c *child) converse(s Spec, o *observer) (unix.WaitStatus, error) {
	spec, err := json.Marshal(initSpec{
		Root: s.Root, RootWritable: s.RootWritable, Mounts: s.Mounts, Tmpfs: s.Tmpfs, ProcIn: s.ProcIn, DevIn: s.DevIn,
		Args: s.Args, Env: s.environment(), Dir: s.Dir, Terminal: s.Terminal != nil, Features: s.features(), MaxProcesses: s.MaxProcesses,
		HostSocket: c.host.name, HostPID: os.Getpid(), LimitPIDs: pidMaxPerNamespace(kernelRelease()),
		Hostname: s.Around.hostname(), Umask: s.Around.umask(),
	})
	if err != nil {
		return 0, errors.Join(err, c.spec.Close())
	}
	// A write fails where process 1 has died, which the next read says better.
	_, _ = c.spec.Write(spec)
	c.spec.Close()
	for {
		m, fd, err := c.receive()
		switch {
		case err != nil:
			return 0, err
		case m.Error != "":
			err := remoteError{m.Error, syscall.Errno(m.Errno)}
			if err.errno == unix.EPERM || err.errno == unix.EACCES {
				return 0, explain(err, os.ReadFile)
			}
			return 0, err
		case m.Listener:
			o.evidence.Volatile.Processes, o.evidence.Volatile.SharedProc = m.Processes, m.SharedProc
			err = o.listen(fd)
		case m.Canaries != nil:
			err = o.ready(m.Canaries, c.host)
		case m.Exited:
			err = o.commandEnded()
			return unix.WaitStatus(m.Status), errors.Join(err, c.ack())
		}
		if err != nil {
			return 0, err
		}
		if err := c.ack(); err != nil {
			return 0, err
		}
	}
}

func (c *child) ack() error {
	_, err := c.control.Write([]byte{1})
	return err
}

// receive is the next message and the descriptor that came with it, else -1.
func (c *child) receive() (m message, fd int, err error) {
	b, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := c.control.ReadMsgUnix(b, oob)
	if err != nil || n == 0 {
		return m, -1, errors.New("process 1 of the sandbox ended before the command")
	}
	if err := json.Unmarshal(b[:n], &m); err != nil {
		return m, -1, fmt.Errorf("reading from process 1: %w", err)
	}
	if oobn == 0 {
		return m, -1, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return m, -1, fmt.Errorf("reading a descriptor from process 1: %w", err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return m, -1, fmt.Errorf("reading a descriptor from process 1: %w", err)
	}
	unix.CloseOnExec(fds[0])
	return m, fds[0], nil
}

// kill ends all processes of the sandbox: the kernel ends them with process 1.
func (c *child) kill() {
	// It fails where the process has ended, which is as well.
	_ = c.cmd.Process.Kill()
}

// wait waits until all processes have ended and all output is copied.
func (c *child) wait() error {
	// Its status is Run's own kill.
	_ = c.cmd.Wait()
	c.copies.Wait()
	return c.control.Close()
}

// remoteError is an error of process 1's.
type remoteError struct {
	text  string
	errno syscall.Errno
}

func (e remoteError) Error() string { return e.text }

func (e remoteError) Unwrap() error {
	if e.errno == 0 {
		return nil
	}
	return e.errno
}

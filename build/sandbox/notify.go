package sandbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notification and reply are struct seccomp_notif and seccomp_notif_resp
// (linux/seccomp.h).
type notification struct {
	id    uint64
	pid   uint32
	flags uint32
	nr    int32
	arch  uint32
	ip    uint64
	args  [6]uint64
}

type reply struct {
	id    uint64
	val   int64
	errno int32
	flags uint32
}

// request is a notified call: who, and with what.
type request struct {
	call *call
	pid  int // the thread, in the caller's numbering
	args [6]uint64
	// valid says whether the call still waits: only then what was read of pid
	// belongs to it.
	valid func() bool
}

// arg is argument i where the kernel takes an int.
func (r *request) arg(i int) int32 { return int32(uint32(r.args[i])) }

// answer is what the caller gets: errno, or success, or the call is carried out.
type answer struct {
	errno unix.Errno
	goOn  bool
	value int64 // of a call that succeeds
}

func carryOut() answer { return answer{goOn: true} }
func succeed() answer  { return answer{} }

func fail(e unix.Errno) answer { return answer{errno: e} }

// failWith is err's number, and EIO where it has none.
func failWith(err error) answer {
	var e unix.Errno
	if errors.As(err, &e) && e != 0 {
		return fail(e)
	}
	return fail(unix.EIO)
}

// listener answers the notifications of one filter, one after the other.
type listener struct {
	fd     int
	calls  map[int32]*call
	record *record
	files  *fileTable
	shown  map[FileID]Shown
	told   func(Deed)
	mounts []MountPoint
	cpus   int // Surroundings.CPUs
	initFD int // the root of process 1
	uid    uint32
	gid    uint32

	stop *os.File // closed to end serve
	wake *os.File
	done chan struct{}

	// Processes in the caller's numbering: process 1, the command, and the last
	// program that it started, of so many; 0 until there is one.
	initPID, command, child, started int

	mu     sync.Mutex
	canary bool
	tid    int
}

// notifSetFlags is SECCOMP_IOCTL_NOTIF_SET_FLAGS (linux/seccomp.h).
const notifSetFlags = 0x40082104

func newListener(fd, pid int, f features, rec *record, files *fileTable) (*listener, error) {
	wake, stop, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	l := &listener{
		fd: fd, calls: map[int32]*call{}, record: rec, files: files, stop: stop, wake: wake, done: make(chan struct{}),
		uid: uint32(unix.Geteuid()), gid: uint32(unix.Getegid()), initPID: pid, canary: true,
	}
	for _, c := range f.calls() {
		l.calls[int32(c.nr)] = &c
	}
	// Linux 6.6; where it is refused, it is only slower.
	_, _, _ = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), notifSetFlags, unix.SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP)
	if l.initFD, err = unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the sandbox's root: %w", err), unix.Close(fd), stop.Close(), wake.Close())
	}
	return l, nil
}

// canaryThread is the thread whose canaries were answered, canariesDone the end of
// their time: from now on the calls are the command's.
func (l *listener) canaryThread() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tid
}

func (l *listener) canariesDone(mounts []MountPoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.canary, l.mounts = false, mounts
}

// serve answers until the last filtered process is gone, or close is called.
func (l *listener) serve() {
	defer close(l.done)
	for {
		fds := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}, {Fd: int32(l.wake.Fd()), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != nil {
			if err == unix.EINTR {
				continue
			}
			return
		}
		if fds[0].Revents&unix.POLLIN != 0 {
			if !l.one() {
				return
			}
			continue
		}
		if fds[0].Revents != 0 || fds[1].Revents != 0 {
			return
		}
	}
}

// close ends serve and waits for it. The sandbox's processes are gone by then.
func (l *listener) close() {
	l.stop.Close()
	<-l.done
	l.wake.Close()
	unix.Close(l.fd)
	unix.Close(l.initFD)
}

// one receives and answers one notification. It says whether to go on.
func (l *listener) one() bool {
	var n notification
	if errno := ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&n)); errno != 0 {
		// ENOENT: the process died before it could be received.
		return errno == unix.ENOENT || errno == unix.EINTR
	}
	a := l.decide(&n)
	r := reply{id: n.id, val: a.value, errno: -int32(a.errno)}
	if a.goOn {
		r.flags = unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE
	}
	errno := ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r))
	return errno == 0 || errno == unix.ENOENT || errno == unix.EINTR
}

func ioctl(fd int, req uint, p unsafe.Pointer) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p))
	return errno
}

// decide is the answer to n.
func (l *listener) decide(n *notification) answer {
	c := l.calls[n.nr]
	if c == nil {
		return fail(unix.ENOSYS)
	}
	r := &request{call: c, pid: int(n.pid), args: n.args, valid: func() bool {
		id := n.id
		return ioctl(l.fd, unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&id)) == 0
	}}
	l.mu.Lock()
	canary := l.canary
	if canary {
		l.tid = r.pid
	}
	l.mu.Unlock()
	l.record.muted = canary
	switch {
	case c.decide != nil:
		a := c.decide(l, r)
		if c.targets != nil && (a.goOn || a.errno == unix.EROFS || l.told != nil && a.errno == 0 && c.nr != unix.SYS_FCHOWN) {
			l.noteWrites(r)
		}
		return a
	case c.targets != nil:
		l.noteWrites(r)
		return carryOut()
	}
	l.record.refused(r, c.name, unix.EPERM)
	return fail(unix.EPERM)
}

func (r *request) memoryFile() string { return fmt.Sprintf("/proc/%d/mem", r.pid) }

// memory is up to n bytes of the caller's memory at addr; fewer where less is
// mapped there.
func (r *request) memory(addr uint64, n int) ([]byte, error) {
	if n == 0 {
		return nil, nil
	}
	b := make([]byte, n)
	local := []unix.Iovec{{Base: &b[0]}}
	local[0].SetLen(n)
	// Up to the end of a page, and then what follows: a transfer is of whole parts.
	first := min(n, pageSize-int(addr%pageSize))
	remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: first}}
	for at := first; at < n; at += pageSize {
		remote = append(remote, unix.RemoteIovec{Base: uintptr(addr) + uintptr(at), Len: min(pageSize, n-at)})
	}
	got, err := unix.ProcessVMReadv(r.pid, local, remote, 0)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOSYS) { // a container's own filter may refuse it
		return r.memoryByFile(addr, b)
	}
	if err != nil {
		return nil, err
	}
	if !r.valid() {
		return nil, unix.ENOENT
	}
	return b[:got], nil
}

// memoryByFile reads the caller's memory at addr into b.
func (r *request) memoryByFile(addr uint64, b []byte) ([]byte, error) {
	f, err := os.Open(r.memoryFile())
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if !r.valid() {
		return nil, unix.ENOENT
	}
	got, err := f.ReadAt(b, int64(addr))
	if got == 0 {
		return nil, errors.Join(unix.EFAULT, err)
	}
	return b[:got], nil
}

// pageSize is the smallest size of a page of memory.
const pageSize = 4096

// text is the zero-terminated string at addr, of less than limit bytes.
func (r *request) text(addr uint64, limit int) (string, error) {
	b, err := r.memory(addr, limit)
	if err != nil {
		return "", err
	}
	for i, c := range b {
		if c == 0 {
			return string(b[:i]), nil
		}
	}
	if len(b) < limit {
		return "", unix.EFAULT
	}
	return "", unix.ENAMETOOLONG
}

// words are n 64-bit words at addr.
func (r *request) words(addr uint64, n int) ([]uint64, error) {
	b, err := r.memory(addr, 8*n)
	if err != nil {
		return nil, err
	}
	if len(b) < 8*n {
		return nil, unix.EFAULT
	}
	w := make([]uint64, n)
	for i := range w {
		w[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return w, nil
}

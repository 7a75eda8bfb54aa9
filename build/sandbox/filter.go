package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data, the filter's input (linux/seccomp.h).
const (
	offNr   = 0
	offArch = 4
	offArgs = 16
)

// x32Bit marks the calls of the x32 ABI, which share x86-64's architecture value.
const x32Bit = 0x40000000

const (
	retAllow  = unix.SECCOMP_RET_ALLOW
	retNotify = unix.SECCOMP_RET_USER_NOTIF
	retENOSYS = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// newNamespaces are the flags of clone and unshare that make namespaces.
// CLONE_NEWTIME is not among clone's: there it is part of the exit signal.
const newNamespaces = unix.CLONE_NEWUSER | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
	unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP | unix.CLONE_NEWNET

func stmt(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func jump(code uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | code | unix.BPF_K, K: k, Jt: jt, Jf: jf}
}

func load(off uint32) unix.SockFilter { return stmt(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, off) }
func ret(k uint32) unix.SockFilter    { return stmt(unix.BPF_RET|unix.BPF_K, k) }

// argLow and argHigh are the halves of argument i; both architectures are
// little-endian.
func argLow(i int) unix.SockFilter  { return load(offArgs + 8*uint32(i)) }
func argHigh(i int) unix.SockFilter { return load(offArgs + 8*uint32(i) + 4) }

// notifyAlways, and the rest, are what is done with a call once its number
// matched; each ends in a return.
func notifyAlways() []unix.SockFilter { return []unix.SockFilter{ret(retNotify)} }
func absent() []unix.SockFilter       { return []unix.SockFilter{ret(retENOSYS)} }

// notifyIfBits notifies where one of the bits of argument i is set.
func notifyIfBits(i int, bits uint32) []unix.SockFilter {
	return []unix.SockFilter{argLow(i), jump(unix.BPF_JSET, bits, 0, 1), ret(retNotify), ret(retAllow)}
}

// notifyIfEqual notifies where argument i, an int, is v.
func notifyIfEqual(i int, v uint32) []unix.SockFilter {
	return []unix.SockFilter{argLow(i), jump(unix.BPF_JEQ, v, 0, 1), ret(retNotify), ret(retAllow)}
}

// notifyUnless notifies where the first argument, an int, is not v.
func notifyUnless(v uint32) []unix.SockFilter {
	return []unix.SockFilter{argLow(0), jump(unix.BPF_JEQ, v, 1, 0), ret(retNotify), ret(retAllow)}
}

// notifyIfPointer notifies where argument i is not nil.
func notifyIfPointer(i int) []unix.SockFilter {
	return []unix.SockFilter{
		argLow(i), jump(unix.BPF_JEQ, 0, 0, 2),
		argHigh(i), jump(unix.BPF_JEQ, 0, 1, 0),
		ret(retNotify), ret(retAllow),
	}
}

// filter is the program: another architecture kills, an x32 call does not exist,
// a call with a rule does what the rule says, every other is allowed.
func filter(f features) []unix.SockFilter {
	prog := []unix.SockFilter{
		load(offArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offNr),
	}
	if runtime.GOARCH == "amd64" {
		prog = append(prog, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(retENOSYS))
	}
	for _, c := range f.calls() {
		prog = append(prog, jump(unix.BPF_JEQ, uint32(c.nr), 0, uint8(len(c.rule))))
		prog = append(prog, c.rule...)
	}
	return append(prog, ret(retAllow))
}

// installFilter puts the calling thread, and all that it starts, under the filter
// and returns the filter's listener. It cannot be undone.
func installFilter(f features) (int, error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("setting no_new_privs: %w", err)
	}
	prog := filter(f)
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	// Without WAIT_KILLABLE_RECV (Linux 5.19) a Go program's SIGURG interrupts a
	// notified call, which is then repeated and recorded twice.
	for _, extra := range []uintptr{unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, 0} {
		fd, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
			unix.SECCOMP_FILTER_FLAG_NEW_LISTENER|extra, uintptr(unsafe.Pointer(&fprog)))
		if errno == 0 {
			return int(fd), nil
		}
		if errno != unix.EINVAL || extra == 0 {
			return -1, fmt.Errorf("installing the seccomp filter: %w", errno)
		}
	}
	return -1, unix.EINVAL
}

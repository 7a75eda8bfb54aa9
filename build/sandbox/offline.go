package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// GoOffline puts this process, with all its threads and all that it starts, under
// a filter by which no socket is made but UNIX ones: no network can be reached,
// whatever there is. It is for where namespaces are refused, wants no rights, and
// cannot be undone. UNIX sockets can still be found by whoever shares a file
// system or a network namespace with this process.
func GoOffline() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("setting no_new_privs: %w", err)
	}
	prog := offlineFilter()
	fprog := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	tid, _, errno := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	switch {
	case errno != 0:
		return fmt.Errorf("installing the seccomp filter: %w", errno)
	case tid != 0:
		return fmt.Errorf("installing the seccomp filter: thread %d has another one", tid)
	}
	return nil
}

// offlineFilter is the program: another architecture kills, io_uring, which makes
// sockets of its own, and the x32 ABI do not exist.
func offlineFilter() []unix.SockFilter {
	const retEACCES = unix.SECCOMP_RET_ERRNO | uint32(unix.EACCES)
	prog := []unix.SockFilter{
		load(offArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		ret(unix.SECCOMP_RET_KILL_PROCESS),
		load(offNr),
	}
	if runtime.GOARCH == "amd64" {
		prog = append(prog, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(retENOSYS))
	}
	rules := []struct {
		nr   uint32
		rule []unix.SockFilter
	}{
		{unix.SYS_SOCKET, []unix.SockFilter{argLow(0), jump(unix.BPF_JEQ, unix.AF_UNIX, 1, 0), ret(retEACCES), ret(retAllow)}},
		{unix.SYS_SOCKETPAIR, []unix.SockFilter{argLow(0), jump(unix.BPF_JEQ, unix.AF_UNIX, 1, 0), ret(retEACCES), ret(retAllow)}},
		{unix.SYS_IO_URING_SETUP, absent()},
	}
	for _, r := range rules {
		prog = append(prog, jump(unix.BPF_JEQ, r.nr, 0, uint8(len(r.rule))))
		prog = append(prog, r.rule...)
	}
	return append(prog, ret(retAllow))
}

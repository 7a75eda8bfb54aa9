package sandbox

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// maxProcesses bounds the processes and threads of a sandbox that has no bound of
// its own: more than compilers on a large machine have, less than a machine has.
const maxProcesses = 16384

// minPIDMax is the least that the kernel takes for kernel.pid_max.
const minPIDMax = 301

// maxFiles bounds the open files of a process. Old programs close every number
// below it, one by one.
const maxFiles = 16384

// capabilities are those over its own namespace that a command keeps: what
// unpacking packages and running their scriptlets needs.
func capabilities() []int {
	return []int{
		unix.CAP_CHOWN, unix.CAP_DAC_OVERRIDE, unix.CAP_FOWNER, unix.CAP_FSETID, unix.CAP_KILL, unix.CAP_SETGID,
		unix.CAP_SETUID, unix.CAP_SETPCAP, unix.CAP_NET_BIND_SERVICE, unix.CAP_SYS_CHROOT, unix.CAP_SETFCAP,
	}
}

// pidMaxPerNamespace says whether kernel.pid_max is each pid namespace's own, as
// from Linux 6.14 on. Before, setting it would set the machine's.
func pidMaxPerNamespace(release string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 14
}

// limitPIDs limits the process numbers of this namespace to n, which, unlike the
// resource limit, also holds root. It needs the namespace's own /proc, for a
// moment, on the host's.
func limitPIDs(n int) (bool, error) {
	fd, err := newFS("proc", attrProc)
	if errors.Is(err, unix.EPERM) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer unix.Close(fd)
	f, err := unix.Openat(fd, "sys/kernel/pid_max", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false, nil
	}
	defer unix.Close(f)
	if _, err := unix.Write(f, []byte(strconv.Itoa(max(n, minPIDMax)))); err != nil {
		return false, fmt.Errorf("limiting the number of processes: %w", err)
	}
	return true, nil
}

// setLimits sets the resource limits, none above what the caller has.
func setLimits(processes int) error {
	for _, l := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_NOFILE, maxFiles},
		{unix.RLIMIT_NPROC, uint64(processes)},
	} {
		var old unix.Rlimit
		if err := unix.Getrlimit(l.resource, &old); err != nil {
			return fmt.Errorf("reading resource limit %d: %w", l.resource, err)
		}
		v := min(l.max, old.Max)
		if err := unix.Setrlimit(l.resource, &unix.Rlimit{Cur: v, Max: v}); err != nil {
			return fmt.Errorf("setting resource limit %d: %w", l.resource, err)
		}
	}
	return nil
}

// confineThread takes the capabilities that a command does not keep from the
// calling thread, for good, and installs the filter. The goroutine must be locked
// to its thread. Where /proc is the caller's, what it says of processes outside is
// closed to the thread.
func confineThread(f features, sharedProc bool) (listener int, err error) {
	keep := capabilities()
	for c := 0; c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(keep, c) {
			continue
		}
		// EINVAL: a capability that this kernel does not have yet.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && err != unix.EINVAL {
			return -1, fmt.Errorf("dropping capability %d: %w", c, err)
		}
	}
	// SYS_ADMIN, and with it the right to install a filter, goes last: no_new_privs
	// gives that right to everybody.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("setting no_new_privs: %w", err)
	}
	if sharedProc {
		if err := hideProcesses(); err != nil {
			return -1, err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return -1, fmt.Errorf("clearing the ambient capabilities: %w", err)
	}
	var bits uint32
	for _, c := range keep {
		bits |= 1 << c
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := [2]unix.CapUserData{{Effective: bits, Permitted: bits}}
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return -1, fmt.Errorf("dropping capabilities: %w", err)
	}
	runtime.KeepAlive(&data)
	return installFilter(f)
}

// kernelRelease is the running kernel's, as uname has it.
func kernelRelease() string {
	b, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

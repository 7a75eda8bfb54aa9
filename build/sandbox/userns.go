package sandbox

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// RefusedError says that this machine, or container, lets nobody like the caller make
// the namespaces of a sandbox.
type RefusedError struct {
	// Reason is the short form: a setting of the kernel, or the system's error.
	Reason string
	err    error
}

func (e *RefusedError) Error() string { return e.err.Error() }
func (e *RefusedError) Unwrap() error { return e.err }

// refusals are the errors by which a kernel says no: a security module or a seccomp
// filter, or a limit of no namespaces at all, or that it has none.
func refusals() []syscall.Errno {
	return []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS, unix.ENOSPC, unix.EUSERS, unix.EINVAL}
}

// explain adds to err, a refusal to make namespaces or mounts, the kernel settings
// that forbid them to ordinary users, as far as read finds any. What is no refusal is
// returned as it is.
func explain(err error, read func(name string) ([]byte, error)) error {
	var errno syscall.Errno
	for _, no := range refusals() {
		if errors.Is(err, no) {
			errno = no
		}
	}
	if errno == 0 {
		return err
	}
	for _, s := range []struct{ name, forbids, advice string }{
		{"kernel/unprivileged_userns_clone", "0", "set it to 1"},
		{"user/max_user_namespaces", "0", "set it to 10000 or so"},
		{"kernel/apparmor_restrict_unprivileged_userns", "1", "set it to 0, or give this program an AppArmor profile that allows userns"},
	} {
		b, rerr := read("/proc/sys/" + s.name)
		if rerr == nil && strings.TrimSpace(string(b)) == s.forbids {
			setting := strings.ReplaceAll(s.name, "/", ".") + "=" + s.forbids
			return &RefusedError{setting, fmt.Errorf("%w: this kernel has %s, which forbids user namespaces: %s (sysctl -w)", err, setting, s.advice)}
		}
	}
	if b, rerr := read("/proc/self/status"); rerr == nil && strings.Contains(string(b), "\nSeccomp:\t2\n") {
		return &RefusedError{errno.Error() + ", under a seccomp filter", fmt.Errorf("%w (this process runs under a seccomp filter, as in a container, which can forbid user namespaces: "+
			"the profile, securityContext.seccompProfile of a Kubernetes pod, has to allow unshare, and clone with CLONE_NEWUSER)", err)}
	}
	return &RefusedError{errno.Error(), fmt.Errorf("%w (a container's own capabilities, or a security module, can forbid user namespaces)", err)}
}

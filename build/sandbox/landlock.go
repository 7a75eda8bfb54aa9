package sandbox

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// referABI is the version of Landlock that can allow files to be moved between
// folders (Linux 5.19): an older one forbids it whatever is asked for.
const referABI = 2

// errNoLandlock says that a process of the sandbox could look into others.
var errNoLandlock = errors.New("this machine's /proc is partly covered, as containers do, so that the sandbox has to show it as it is, " +
	"and this kernel has no Landlock (Linux 5.19, enabled by lsm=landlock) to keep other processes' memory and environment out of it")

// hideProcesses puts the calling thread, and what it starts, into a Landlock
// domain of its own. Nothing in the file system is restricted by it; what counts
// is that a process of a domain may not look into one outside (ptrace, and the
// files of /proc that ask for the same right: environ, mem, maps, fd, root).
func hideProcesses() error {
	abi, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 || abi < referABI {
		return errNoLandlock
	}
	// A domain has to restrict something: making block devices, which no process
	// of the sandbox can do. Moving files between folders is forbidden in every
	// domain that does not allow it.
	rules := unix.LandlockRulesetAttr{Handled_access_fs: unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_REFER}
	set, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&rules)), unsafe.Sizeof(rules.Handled_access_fs), 0)
	if errno != 0 {
		return fmt.Errorf("making a Landlock ruleset: %w", errno)
	}
	defer unix.Close(int(set)) //nolint:gosec // a descriptor is a small number
	root, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	below := unix.LandlockPathBeneathAttr{Allowed_access: unix.LANDLOCK_ACCESS_FS_REFER, Parent_fd: int32(root)} //nolint:gosec // as above
	if _, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, set, unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&below)), 0, 0, 0); errno != 0 {
		return fmt.Errorf("adding a Landlock rule: %w", errno)
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, set, 0, 0); errno != 0 {
		return fmt.Errorf("entering a Landlock domain: %w", errno)
	}
	return nil
}

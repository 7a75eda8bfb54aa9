package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archOwnerCalls are the older forms of calls that aarch64 does not have.
func archOwnerCalls() []call {
	return []call{
		owner(unix.SYS_CHOWN, "chown", notifyAlways(), (*listener).chown),
		owner(unix.SYS_LCHOWN, "lchown", notifyAlways(), (*listener).lchown),
		owner(unix.SYS_MKNOD, "mknod", notifyIfDevice(1), (*listener).mknod),
	}
}

func archRefusedCalls() []call {
	return []call{
		refuse(unix.SYS_IOPL, "iopl"),
		refuse(unix.SYS_IOPERM, "ioperm"),
		refuse(unix.SYS_MODIFY_LDT, "modify_ldt"),
		refuse(unix.SYS_USELIB, "uselib"),
	}
}

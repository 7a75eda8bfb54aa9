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

// archShownCalls are those by which programs for this architecture look at files
// besides.
func archShownCalls() []call {
	return []call{
		shown(unix.SYS_STAT, "stat", func(l *listener, r *request) answer { return l.stat(r, unix.AT_FDCWD, r.args[0], 0, r.args[1]) }),
		shown(unix.SYS_LSTAT, "lstat", func(l *listener, r *request) answer {
			return l.stat(r, unix.AT_FDCWD, r.args[0], unix.AT_SYMLINK_NOFOLLOW, r.args[1])
		}),
		shown(unix.SYS_NEWFSTATAT, "newfstatat", (*listener).fstatat),
	}
}

func setLinks(st *unix.Stat_t, n uint32) { st.Nlink = uint64(n) }

func archRefusedCalls() []call {
	return []call{
		refuse(unix.SYS_IOPL, "iopl"),
		refuse(unix.SYS_IOPERM, "ioperm"),
		refuse(unix.SYS_MODIFY_LDT, "modify_ldt"),
		refuse(unix.SYS_USELIB, "uselib"),
	}
}

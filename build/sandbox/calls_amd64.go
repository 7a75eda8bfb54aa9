package sandbox

import "golang.org/x/sys/unix"

const auditArch = unix.AUDIT_ARCH_X86_64

// archOwnerCalls are the older forms of calls that aarch64 does not have.
func archOwnerCalls() []call {
	return []call{
		owner(unix.SYS_CHOWN, "chown", notifyAlways(), (*listener).chown),
		owner(unix.SYS_LCHOWN, "lchown", notifyAlways(), (*listener).lchown),
		owner(unix.SYS_MKNOD, "mknod", notifyAlways(), (*listener).mknod),
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

// archWriteCalls are the older forms of calls that write to files.
func archWriteCalls() []call {
	return []call{
		writing(unix.SYS_OPEN, "open", notifyIfBits(1, toWrite), on(func(r *request) target { return opened(unix.AT_FDCWD, r.args[0], r.args[1]) })),
		writing(unix.SYS_CREAT, "creat", notifyAlways(), on(func(r *request) target { return opened(unix.AT_FDCWD, r.args[0], unix.O_CREAT|unix.O_WRONLY) })),
		writing(unix.SYS_RENAME, "rename", notifyAlways(), func(r *request) []target {
			return []target{{dirfd: unix.AT_FDCWD, addr: r.args[0], manner: moves}, {dirfd: unix.AT_FDCWD, addr: r.args[1], manner: moves}}
		}),
		writing(unix.SYS_LINK, "link", notifyAlways(), named(1, makes, true)),
		writing(unix.SYS_SYMLINK, "symlink", notifyAlways(), named(1, makes, true)),
		writing(unix.SYS_UNLINK, "unlink", notifyAlways(), named(0, removes, true)),
		writing(unix.SYS_RMDIR, "rmdir", notifyAlways(), named(0, removes, true)),
		writing(unix.SYS_MKDIR, "mkdir", notifyAlways(), named(0, makes, true)),
		writing(unix.SYS_MKNOD, "mknod", notifyAlways(), named(0, makes, true)),
		writing(unix.SYS_CHMOD, "chmod", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_CHOWN, "chown", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_LCHOWN, "lchown", notifyAlways(), named(0, changes, true)),
		writing(unix.SYS_UTIME, "utime", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_UTIMES, "utimes", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_FUTIMESAT, "futimesat", notifyAlways(), namedAt(0, changes, -1)),
	}
}

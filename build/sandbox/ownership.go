package sandbox

import (
	"bufio"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// unchanged is the id that leaves an owner or a group as it is (chown(2)).
const unchanged = 0xffffffff

// maxXattr bounds an attribute's value; the kernel's own bound is XATTR_SIZE_MAX.
const maxXattr = 64 << 10

// maxXattrName is XATTR_NAME_MAX and its terminating zero.
const maxXattrName = 256

func (l *listener) chown(r *request) answer {
	return l.chownPath(r, unix.AT_FDCWD, r.args[0], r.args[1], r.args[2], 0)
}

func (l *listener) lchown(r *request) answer {
	return l.chownPath(r, unix.AT_FDCWD, r.args[0], r.args[1], r.args[2], unix.AT_SYMLINK_NOFOLLOW)
}

func (l *listener) fchownat(r *request) answer {
	return l.chownPath(r, r.arg(0), r.args[1], r.args[2], r.args[3], int(r.arg(4)))
}

func (l *listener) fchown(r *request) answer {
	fd, err := r.descriptor(r.arg(0))
	if err != nil {
		return failWith(err)
	}
	defer unix.Close(fd)
	return l.setOwner(r, fd, uint32(r.args[1]), uint32(r.args[2]))
}

func (l *listener) chownPath(r *request, dirfd int32, name, uid, gid uint64, flags int) answer {
	fd, err := l.openArg(r, dirfd, name, flags)
	if err != nil {
		return failWith(err)
	}
	defer unix.Close(fd)
	return l.setOwner(r, fd, uint32(uid), uint32(gid))
}

// openArg opens the file that a call names by a path in its memory and AT_* flags.
func (l *listener) openArg(r *request, dirfd int32, addr uint64, flags int) (int, error) {
	name, err := r.text(addr, unix.PathMax)
	if err != nil {
		return -1, err
	}
	if name == "" && flags&unix.AT_EMPTY_PATH != 0 {
		return r.descriptor(dirfd)
	}
	return l.file(r, dirfd, name, flags&unix.AT_SYMLINK_NOFOLLOW != 0)
}

// setOwner does what a chown by root would do: it records the ids, and leaves to
// the kernel, by a chown to the present owner, what a chown does besides: it fails
// on a read-only file system, takes set-uid and set-gid bits and the capabilities
// away, and sets the time of change.
func (l *listener) setOwner(r *request, fd int, uid, gid uint32) answer {
	st, err := l.own(fd)
	if err != nil {
		return failWith(err)
	}
	touchUID, touchGID := -1, -1
	if uid != unchanged {
		touchUID = int(l.uid)
	}
	if gid != unchanged && st.Gid == l.gid {
		touchGID = int(l.gid)
	}
	if err := unix.Fchownat(fd, "", touchUID, touchGID, unix.AT_EMPTY_PATH); err != nil {
		return failWith(err)
	}
	l.record.fake(r)
	return l.files.update(fd, st, func(f *Recorded) {
		if uid != unchanged {
			f.UID = &uid
		}
		if gid != unchanged {
			f.GID = &gid
		}
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			delete(f.Xattrs, "security.capability")
		}
	})
}

// own is the status of fd, which must belong to the caller's id: on others the
// command has no rights, whatever Run may have.
func (l *listener) own(fd int) (*unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Uid != l.uid {
		return nil, unix.EPERM
	}
	return &st, nil
}

func (l *listener) mknod(r *request) answer {
	return l.makeDevice(r, unix.AT_FDCWD, r.args[0], uint32(r.args[1]), r.args[2])
}

func (l *listener) mknodat(r *request) answer {
	return l.makeDevice(r, r.arg(0), r.args[1], uint32(r.args[2]), r.args[3])
}

// makeDevice, where it is a device node that is asked for, makes an empty regular file where the device node should be, and
// records the device for it.
func (l *listener) makeDevice(r *request, dirfd int32, addr uint64, mode uint32, dev uint64) answer {
	if kind := mode & unix.S_IFMT; kind != unix.S_IFCHR && kind != unix.S_IFBLK {
		return carryOut()
	}
	name, err := r.text(addr, unix.PathMax)
	if err != nil {
		return failWith(err)
	}
	if name == "" {
		return fail(unix.ENOENT)
	}
	folder, last := path.Split(strings.TrimRight(name, "/"))
	if folder == "" {
		folder = "."
	}
	dir, err := l.file(r, dirfd, folder, false)
	if err != nil {
		return failWith(err)
	}
	defer unix.Close(dir)
	if _, err := l.own(dir); err != nil {
		return fail(unix.EACCES)
	}
	if err := unix.Mknodat(dir, last, unix.S_IFREG|0o600, 0); err != nil {
		return failWith(err)
	}
	fd, err := unix.Openat(dir, last, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return failWith(err)
	}
	defer unix.Close(fd)
	st, err := l.own(fd)
	if err != nil {
		return failWith(err)
	}
	if err := unix.Chmod(fmt.Sprint("/proc/self/fd/", fd), mode&0o7777&^umaskOf(r.pid)); err != nil {
		return failWith(err)
	}
	l.record.fake(r)
	return l.files.update(fd, st, func(f *Recorded) {
		d := Device{Block: mode&unix.S_IFMT == unix.S_IFBLK}
		// The kernel takes 32 bits here, whose layout is that of Major and Minor.
		d.Major, d.Minor = unix.Major(dev&0xffffffff), unix.Minor(dev&0xffffffff)
		*f = Recorded{Path: f.Path, Device: &d, identity: f.identity}
	})
}

// umaskOf is a process's umask, 022 if it is gone.
func umaskOf(pid int) uint32 {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0o022
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		if v, ok := strings.CutPrefix(sc.Text(), "Umask:"); ok {
			if m, err := strconv.ParseUint(strings.TrimSpace(v), 8, 32); err == nil {
				return uint32(m)
			}
		}
	}
	return 0o022
}

func (l *listener) setxattr(r *request) answer    { return l.xattr(r, 0, true) }
func (l *listener) lsetxattr(r *request) answer   { return l.xattr(r, unix.AT_SYMLINK_NOFOLLOW, true) }
func (l *listener) fsetxattr(r *request) answer   { return l.xattr(r, unix.AT_EMPTY_PATH, true) }
func (l *listener) removexattr(r *request) answer { return l.xattr(r, 0, false) }
func (l *listener) lremovexattr(r *request) answer {
	return l.xattr(r, unix.AT_SYMLINK_NOFOLLOW, false)
}
func (l *listener) fremovexattr(r *request) answer { return l.xattr(r, unix.AT_EMPTY_PATH, false) }

// xattr records a security.* attribute that is set or removed; others are the
// file system's. With AT_EMPTY_PATH the call names its file by a descriptor.
func (l *listener) xattr(r *request, how int, set bool) answer {
	name, err := r.text(r.args[1], maxXattrName)
	if err != nil || !strings.HasPrefix(name, "security.") {
		return carryOut()
	}
	var value []byte
	if set {
		size := r.args[3]
		if size > maxXattr {
			return fail(unix.E2BIG)
		}
		if value, err = r.memory(r.args[2], int(size)); err != nil || len(value) < int(size) {
			return fail(unix.EFAULT)
		}
	}
	var fd int
	if how == unix.AT_EMPTY_PATH {
		fd, err = r.descriptor(r.arg(0))
	} else {
		fd, err = l.openArg(r, unix.AT_FDCWD, r.args[0], how)
	}
	if err != nil {
		return failWith(err)
	}
	defer unix.Close(fd)
	st, err := l.own(fd)
	if err != nil {
		return failWith(err)
	}
	if set {
		l.record.fake(r)
		return l.files.setXattr(fd, st, name, value)
	}
	if !l.files.hasXattr(fd, st, name) {
		return carryOut()
	}
	l.record.fake(r)
	return l.files.update(fd, st, func(f *Recorded) { delete(f.Xattrs, name) })
}

// pretend answers a change of user, group or capabilities, which one mapped id
// does not allow, with success.
func (l *listener) pretend(r *request) answer {
	l.record.fake(r)
	return succeed()
}

func (l *listener) setIDs2(r *request) answer { return l.setIDs(r, 2) }
func (l *listener) setIDs3(r *request) answer { return l.setIDs(r, 3) }

// setIDs lets the kernel change the first n ids where it can: to 0, or not at all.
func (l *listener) setIDs(r *request, n int) answer {
	for _, a := range r.args[:n] {
		if id := uint32(a); id != 0 && id != unchanged {
			return l.pretend(r)
		}
	}
	return carryOut()
}

func (rec *record) fake(r *request) { rec.faked[r.call.name]++ }

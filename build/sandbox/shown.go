package sandbox

import (
	"os"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Shown is what a file of Spec.Shown looks like to the command, whatever it is on
// the disk.
type Shown struct {
	// Mode is the type and the permissions, as stat has them.
	Mode     uint32
	UID, GID uint32
	// Rdev is a device's number, as stat has it.
	Rdev uint64
	// Links is the number of names, 1 if 0. A folder's is the file system's.
	Links uint32
	// Mtime is the time of the last change, in seconds since 1970; the other times
	// are the same.
	Mtime int64
	// Xattrs are all extended attributes.
	Xattrs map[string][]byte
}

func shown(nr int, name string, decide func(*listener, *request) answer) call {
	return call{nr: nr, name: name, rule: notifyAlways(), decide: decide, when: ifShown}
}

// shownCalls are those by which a program learns what a file is.
func shownCalls() []call {
	return []call{
		shown(unix.SYS_FSTAT, "fstat", (*listener).fstat),
		shown(unix.SYS_STATX, "statx", (*listener).statx),
		shown(unix.SYS_GETXATTR, "getxattr", (*listener).getxattr),
		shown(unix.SYS_LGETXATTR, "lgetxattr", (*listener).lgetxattr),
		shown(unix.SYS_FGETXATTR, "fgetxattr", (*listener).fgetxattr),
		shown(unix.SYS_LISTXATTR, "listxattr", (*listener).listxattr),
		shown(unix.SYS_LLISTXATTR, "llistxattr", (*listener).llistxattr),
		shown(unix.SYS_FLISTXATTR, "flistxattr", (*listener).flistxattr),
		// Linux 6.13. Programs fall back to the calls above.
		{nr: unix.SYS_GETXATTRAT, name: "getxattrat", rule: absent(), when: ifShown},
		{nr: unix.SYS_LISTXATTRAT, name: "listxattrat", rule: absent(), when: ifShown},
	}
}

// look opens the file that a call names and finds what it is to look like: nil
// where that is what it is.
func (l *listener) look(r *request, dirfd int32, addr uint64, flags int) (*Shown, *unix.Stat_t, error) {
	var (
		fd  int
		err error
	)
	if addr == 0 && flags&unix.AT_EMPTY_PATH != 0 {
		fd, err = r.descriptor(dirfd)
	} else {
		fd, err = l.openArg(r, dirfd, addr, flags)
	}
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, nil, err
	}
	if s, ok := l.shown[FileID{st.Dev, st.Ino}]; ok {
		return &s, &st, nil
	}
	return nil, &st, nil
}

func (l *listener) fstat(r *request) answer {
	return l.stat(r, r.arg(0), 0, unix.AT_EMPTY_PATH, r.args[1])
}

func (l *listener) fstatat(r *request) answer {
	return l.stat(r, r.arg(0), r.args[1], int(r.arg(3)), r.args[2])
}

// stat answers with a struct stat at addr.
func (l *listener) stat(r *request, dirfd int32, name uint64, flags int, addr uint64) answer {
	s, st, err := l.look(r, dirfd, name, flags)
	if err != nil || s == nil {
		return carryOut() // the kernel says it, or finds the same fault
	}
	st.Mode, st.Uid, st.Gid, st.Rdev = s.Mode, s.UID, s.GID, s.Rdev
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		setLinks(st, max(s.Links, 1))
	}
	st.Atim, st.Mtim, st.Ctim = unix.Timespec{Sec: s.Mtime}, unix.Timespec{Sec: s.Mtime}, unix.Timespec{Sec: s.Mtime}
	return r.put(addr, bytesOf(st))
}

// statx answers with a struct statx (statx(2)).
func (l *listener) statx(r *request) answer {
	flags := int(r.arg(2))
	s, st, err := l.look(r, r.arg(0), r.args[1], flags)
	if err != nil || s == nil {
		return carryOut()
	}
	at := unix.StatxTimestamp{Sec: s.Mtime}
	x := unix.Statx_t{
		Mask: unix.STATX_BASIC_STATS, Blksize: uint32(st.Blksize), Nlink: uint32(st.Nlink), Uid: s.UID, Gid: s.GID, Mode: uint16(s.Mode),
		Ino: st.Ino, Size: uint64(st.Size), Blocks: uint64(st.Blocks), Atime: at, Ctime: at, Mtime: at,
		Rdev_major: unix.Major(s.Rdev), Rdev_minor: unix.Minor(s.Rdev), Dev_major: unix.Major(st.Dev), Dev_minor: unix.Minor(st.Dev),
	}
	if s.Mode&unix.S_IFMT != unix.S_IFDIR {
		x.Nlink = max(s.Links, 1)
	}
	return r.put(r.args[4], bytesOf(&x))
}

// bytesOf are the bytes of a struct that has the kernel's layout.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}

func (l *listener) getxattr(r *request) answer { return l.readXattr(r, 0) }
func (l *listener) lgetxattr(r *request) answer {
	return l.readXattr(r, unix.AT_SYMLINK_NOFOLLOW)
}
func (l *listener) fgetxattr(r *request) answer { return l.readXattr(r, unix.AT_EMPTY_PATH) }

func (l *listener) listxattr(r *request) answer { return l.listXattrs(r, 0) }
func (l *listener) llistxattr(r *request) answer {
	return l.listXattrs(r, unix.AT_SYMLINK_NOFOLLOW)
}
func (l *listener) flistxattr(r *request) answer { return l.listXattrs(r, unix.AT_EMPTY_PATH) }

// attributes are those that the file of an xattr call shows; false where the
// kernel is to answer.
func (l *listener) attributes(r *request, how int) (map[string][]byte, bool) {
	dirfd, name := int32(unix.AT_FDCWD), r.args[0]
	if how == unix.AT_EMPTY_PATH {
		dirfd, name = r.arg(0), 0
	}
	s, _, err := l.look(r, dirfd, name, how)
	if err != nil || s == nil {
		return nil, false
	}
	return s.Xattrs, true
}

func (l *listener) readXattr(r *request, how int) answer {
	all, ok := l.attributes(r, how)
	if !ok {
		return carryOut()
	}
	name, err := r.text(r.args[1], maxXattrName)
	if err != nil {
		return carryOut()
	}
	value, ok := all[name]
	if !ok {
		return fail(unix.ENODATA)
	}
	return r.putSized(r.args[2], r.args[3], value)
}

func (l *listener) listXattrs(r *request, how int) answer {
	all, ok := l.attributes(r, how)
	if !ok {
		return carryOut()
	}
	var names []string
	for n := range all {
		names = append(names, n+"\x00")
	}
	slices.Sort(names)
	return r.putSized(r.args[1], r.args[2], []byte(strings.Join(names, "")))
}

// putSized answers a call that says how many bytes there are, and writes them
// where they are wanted and have room.
func (r *request) putSized(addr, size uint64, b []byte) answer {
	if size != 0 {
		if size < uint64(len(b)) {
			return fail(unix.ERANGE)
		}
		if a := r.put(addr, b); a.errno != 0 {
			return a
		}
	}
	return answer{value: int64(len(b))}
}

// put writes b into the caller's memory.
func (r *request) put(addr uint64, b []byte) answer {
	if len(b) == 0 {
		return succeed()
	}
	f, err := os.OpenFile(r.memoryFile(), os.O_WRONLY, 0)
	if err != nil {
		return failWith(err)
	}
	defer f.Close()
	if !r.valid() {
		return fail(unix.ENOENT)
	}
	if _, err := f.WriteAt(b, int64(addr)); err != nil {
		return fail(unix.EFAULT)
	}
	return succeed()
}

package sandbox

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// manner is how a call writes to what it names.
type manner int

const (
	// changes: what is there is changed.
	changes manner = iota
	// opens: what is there is opened to be written to.
	opens
	// makes: what is not there is made; what is there is left alone.
	makes
	// moves: the name goes to another file, or from it to another name.
	moves
	// removes: the name is taken away.
	removes
)

// target is a file that a call writes to, or is about to.
type target struct {
	dirfd    int32
	addr     uint64 // of its name; 0 where dirfd is the file itself
	noFollow bool   // a link at the end is meant itself
	manner   manner
	orMakes  bool // opens, and makes it where it is not there
}

// writing is a call whose targets are looked at, and which the kernel then carries
// out, or refuses.
func writing(nr int, name string, rule []unix.SockFilter, targets func(r *request) []target) call {
	return call{nr: nr, name: name, rule: rule, targets: targets}
}

// on makes a function of the targets of calls that have one.
func on(one func(r *request) target) func(r *request) []target {
	return func(r *request) []target { return []target{one(r)} }
}

// named is the target that argument i names, from the working folder.
func named(i int, how manner, noFollow bool) func(r *request) []target {
	return on(func(r *request) target {
		return target{dirfd: unix.AT_FDCWD, addr: r.args[i], manner: how, noFollow: noFollow}
	})
}

// namedAt is the target that argument i+1 names from the folder at argument i; flags
// is the place of the AT_* flags, or -1.
func namedAt(i int, how manner, flags int) func(r *request) []target {
	return on(func(r *request) target {
		t := target{dirfd: r.arg(i), addr: r.args[i+1], manner: how}
		t.noFollow = how >= makes || flags >= 0 && r.arg(flags)&unix.AT_SYMLINK_NOFOLLOW != 0
		return t
	})
}

// descriptorOf is the target that is open at argument i.
func descriptorOf(i int) func(r *request) []target {
	return on(func(r *request) target { return target{dirfd: r.arg(i)} })
}

// toWrite are the flags of open(2) that ask for more than reading.
const toWrite = unix.O_WRONLY | unix.O_RDWR | unix.O_CREAT | unix.O_TRUNC

// opened is what a call with these flags of open(2) opens.
func opened(dirfd int32, addr uint64, flags uint64) target {
	t := target{dirfd: dirfd, addr: addr, manner: opens, noFollow: flags&unix.O_NOFOLLOW != 0, orMakes: flags&unix.O_CREAT != 0}
	if flags&(unix.O_WRONLY|unix.O_RDWR|unix.O_TRUNC) == 0 || flags&unix.O_CREAT != 0 && flags&unix.O_EXCL != 0 {
		t.manner, t.orMakes = makes, false
	}
	return t
}

func openedAt(i int) func(r *request) []target {
	return on(func(r *request) target { return opened(r.arg(i), r.args[i+1], r.args[i+2]) })
}

// openedHow reads the flags of openat2(2) from its struct open_how.
func openedHow(r *request) []target {
	w, err := r.words(r.args[2], 1)
	if err != nil || w[0]&toWrite == 0 {
		return nil
	}
	return []target{opened(r.arg(0), r.args[1], w[0])}
}

func renamedAt(r *request) []target {
	return []target{
		{dirfd: r.arg(0), addr: r.args[1], manner: moves},
		{dirfd: r.arg(2), addr: r.args[3], manner: moves},
	}
}

// writeCalls are those that write to files by name, or change what they are. Bytes
// are written through what open(2) opened. Left out, because it is done to every
// file that is unpacked: to set the time of what is open, and where packages are
// installed its mode.
func writeCalls() []call {
	return []call{
		writing(unix.SYS_OPENAT, "openat", notifyIfBits(2, toWrite), openedAt(0)),
		writing(unix.SYS_OPENAT2, "openat2", notifyAlways(), openedHow),
		writing(unix.SYS_TRUNCATE, "truncate", notifyAlways(), named(0, opens, false)),
		writing(unix.SYS_RENAMEAT, "renameat", notifyAlways(), renamedAt),
		writing(unix.SYS_RENAMEAT2, "renameat2", notifyAlways(), renamedAt),
		writing(unix.SYS_LINKAT, "linkat", notifyAlways(), namedAt(2, makes, -1)),
		writing(unix.SYS_SYMLINKAT, "symlinkat", notifyAlways(), namedAt(1, makes, -1)),
		writing(unix.SYS_UNLINKAT, "unlinkat", notifyAlways(), namedAt(0, removes, -1)),
		writing(unix.SYS_MKDIRAT, "mkdirat", notifyAlways(), namedAt(0, makes, -1)),
		writing(unix.SYS_MKNODAT, "mknodat", notifyAlways(), namedAt(0, makes, -1)),
		{nr: unix.SYS_FCHMOD, name: "fchmod", rule: notifyAlways(), targets: descriptorOf(0), when: unlessFaked},
		writing(unix.SYS_FCHMODAT, "fchmodat", notifyAlways(), namedAt(0, changes, -1)),
		writing(unix.SYS_FCHMODAT2, "fchmodat2", notifyAlways(), namedAt(0, changes, 3)),
		writing(unix.SYS_FCHOWN, "fchown", notifyAlways(), descriptorOf(0)),
		writing(unix.SYS_FCHOWNAT, "fchownat", notifyAlways(), namedAt(0, changes, 4)),
		writing(unix.SYS_UTIMENSAT, "utimensat", notifyIfPointer(1), namedAt(0, changes, 3)),
		writing(unix.SYS_SETXATTR, "setxattr", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_LSETXATTR, "lsetxattr", notifyAlways(), named(0, changes, true)),
		writing(unix.SYS_FSETXATTR, "fsetxattr", notifyAlways(), descriptorOf(0)),
		writing(unix.SYS_REMOVEXATTR, "removexattr", notifyAlways(), named(0, changes, false)),
		writing(unix.SYS_LREMOVEXATTR, "lremovexattr", notifyAlways(), named(0, changes, true)),
		writing(unix.SYS_FREMOVEXATTR, "fremovexattr", notifyAlways(), descriptorOf(0)),
		writing(unix.SYS_IOCTL, "ioctl FS_IOC_SETFLAGS", notifyIfEqual(1, unix.FS_IOC_SETFLAGS), descriptorOf(0)),
		// Linux 6.13 and 6.17. Programs fall back to the calls above.
		{nr: unix.SYS_SETXATTRAT, name: "setxattrat", rule: absent()},
		{nr: unix.SYS_REMOVEXATTRAT, name: "removexattrat", rule: absent()},
		{nr: unix.SYS_FILE_SETATTR, name: "file_setattr", rule: absent()},
	}
}

// noteWrites looks at what a call writes to. What lies on a read-only mount the
// kernel refuses to change: that is recorded. What else changes is told to who
// asked for it.
func (l *listener) noteWrites(r *request) {
	d := Deed{Call: r.call.name, Owner: r.call.decide != nil}
	if l.told != nil {
		d.By = l.by(r)
	}
	targets := r.call.targets(r)
	for i, t := range targets {
		name, readOnly := l.writes(r, t, d.By)
		if readOnly {
			l.record.write(r, name)
			return
		}
		if i+1 < len(targets) {
			d.From = name
		} else if t.manner != removes && (t.manner != changes || d.Owner) {
			d.Path = name
		}
	}
	if d.Path != "" && l.told != nil {
		l.told(d)
	}
}

// writes finds the target of a call, as a path in the sandbox, and whether it lies
// on a read-only mount. The path is empty where the call writes to nothing: what it
// names is not there, or is and is only to be made, or is a device.
func (l *listener) writes(r *request, t target, by int) (name string, readOnly bool) {
	if t.addr == 0 {
		return l.at(r.base(t.dirfd), "")
	}
	text, err := r.text(t.addr, unix.PathMax)
	if err != nil {
		return "", false // the kernel will find the same fault
	}
	// Most are a name in an open folder, by a program of which it need not be known
	// whether something is there already: where that is writable, this is enough.
	if t.dirfd != unix.AT_FDCWD && by == 0 && text != "" && !strings.Contains(text, "/") {
		if name, readOnly = l.at(r.base(t.dirfd), text); !readOnly {
			return name, false
		}
	}
	if t.manner >= moves {
		return l.inFolder(r, t.dirfd, text)
	}
	var fd int
	if text == "" {
		fd, err = r.descriptor(t.dirfd)
	} else {
		fd, err = l.file(r, t.dirfd, text, t.noFollow)
	}
	switch {
	case errors.Is(err, unix.ENOENT) && (t.manner == makes || t.orMakes):
		return l.inFolder(r, t.dirfd, text)
	case err != nil:
		return "", false
	}
	defer unix.Close(fd)
	switch t.manner {
	case makes:
		if r.call.decide == nil { // else it has just been made
			return "", false
		}
	case opens: // a device can be written to wherever its node lies
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			return "", false
		}
	}
	return l.at(fmt.Sprint("/proc/self/fd/", fd), "")
}

// inFolder is a name in the folder that it lies in.
func (l *listener) inFolder(r *request, dirfd int32, name string) (string, bool) {
	folder, last := path.Split(strings.TrimRight(name, "/"))
	if last == "" {
		return "", false
	}
	if folder == "" {
		folder = "."
	}
	fd, err := l.file(r, dirfd, folder, false)
	if err != nil {
		return "", false
	}
	defer unix.Close(fd)
	return l.at(fmt.Sprint("/proc/self/fd/", fd), last)
}

// at is the path that a link of /proc leads to, with last in it, and whether its
// mount is read-only.
func (l *listener) at(link, last string) (name string, readOnly bool) {
	name, err := readlink(link)
	if err != nil || !path.IsAbs(name) { // a pipe, or a socket
		return "", false
	}
	name = path.Join(name, last)
	return name, l.readOnly(name)
}

// readOnly tells whether a path without links lies on a read-only mount.
func (l *listener) readOnly(name string) (is bool) {
	longest := -1
	for _, m := range l.mounts {
		below, ok := strings.CutPrefix(name, strings.TrimSuffix(m.Target, "/"))
		if ok && (below == "" || below[0] == '/') && len(m.Target) >= longest {
			longest, is = len(m.Target), slices.Contains(m.Flags, "ro")
		}
	}
	return is
}

// write records an attempt to change what is on a read-only mount.
func (rec *record) write(r *request, name string) {
	if rec.muted {
		return
	}
	exe, name := exeOf(r.pid), strings.ToValidUTF8(name, "\uFFFD")
	rec.writes.add(exe+"\x00"+r.call.name+"\x00"+name, func() WriteAttempt {
		return WriteAttempt{Exe: exe, Call: r.call.name, Path: name, Errno: errnoName(unix.EROFS)}
	}, func(w *WriteAttempt) { w.Count++ })
}

// A Deed is something that a process of the command's is about to do.
type Deed struct {
	// By says who: 0 the command itself, n the nth program that it started, and all
	// that runs from then on until it starts another.
	By int
	// Args, if not nil, are a program that the command starts now, the By-th.
	Args []string
	// Read reads a file as that program will find it, up to a number of bytes. It
	// may be called as long as the function that is told has not returned.
	Read func(name string, limit int64) ([]byte, error)
	// Call is the system call by which the file at Path is made or opened to be
	// written to; From is its name until now where it is renamed. Both are without
	// symbolic links.
	Call, Path, From string
	// Owner says that what the call sets is what Spec.FakeOwnership records.
	Owner bool
}

// execCalls are those that start a program, where Spec.Told wants to know.
func execCalls() []call {
	return []call{
		{nr: unix.SYS_EXECVE, name: "execve", rule: notifyAlways(), decide: (*listener).execve, when: ifTold},
		{nr: unix.SYS_EXECVEAT, name: "execveat", rule: notifyAlways(), decide: (*listener).execve, when: ifTold},
	}
}

// maxArgs is how many arguments of a program are told, and maxArg how many bytes
// of each.
const maxArgs, maxArg = 64, 4096

// execve tells of a program that the command starts. It is carried out.
func (l *listener) execve(r *request) answer {
	process, parent, err := familyOf(r.pid)
	switch {
	case err != nil:
	case l.command == 0 && parent == l.initPID:
		l.command = process
	case parent == l.command && process != l.child: // and not one after another in the same process
		l.child = process
		l.started++
		l.told(Deed{
			By: l.started, Args: r.execArgs(), Call: r.call.name,
			Read: func(name string, limit int64) ([]byte, error) { return l.read(r, name, limit) },
		})
	}
	return carryOut()
}

// execArgs are the arguments of a program that is to be started.
func (r *request) execArgs() []string {
	array := r.args[1]
	if r.call.nr == unix.SYS_EXECVEAT {
		array = r.args[2]
	}
	args := []string{}
	for i := range uint64(maxArgs) {
		w, err := r.words(array+8*i, 1)
		if err != nil || w[0] == 0 {
			break
		}
		arg, err := r.text(w[0], maxArg)
		if err != nil {
			break
		}
		args = append(args, arg)
	}
	return args
}

// read reads a file that a process could open by its name.
func (l *listener) read(r *request, name string, limit int64) ([]byte, error) {
	fd, err := l.file(r, unix.AT_FDCWD, name, true)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, unix.EINVAL
	}
	f, err := os.Open(fmt.Sprint("/proc/self/fd/", fd))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// by says who makes a call, as Deed.By has it.
func (l *listener) by(r *request) int {
	if r.pid == l.command || unix.Access(fmt.Sprintf("/proc/%d/task/%d", l.command, r.pid), unix.F_OK) == nil {
		return 0
	}
	return l.started
}

// familyOf is the process that a thread belongs to, and that one's parent.
func familyOf(tid int) (process, parent int, err error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", tid))
	if err != nil {
		return 0, 0, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		key, value, _ := strings.Cut(sc.Text(), ":")
		switch key {
		case "Tgid":
			process, err = strconv.Atoi(strings.TrimSpace(value))
		case "PPid":
			parent, err = strconv.Atoi(strings.TrimSpace(value))
		}
		if err != nil {
			return 0, 0, err
		}
	}
	return process, parent, sc.Err()
}

package sandbox

import (
	"errors"
	"fmt"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// resolveAttempts is how often a lookup is repeated that a rename disturbed.
const resolveAttempts = 16

// base is where names relative to dirfd begin, as a path that leads there.
func (r *request) base(dirfd int32) string {
	if dirfd == unix.AT_FDCWD {
		return fmt.Sprintf("/proc/%d/cwd", r.pid)
	}
	return fmt.Sprintf("/proc/%d/fd/%d", r.pid, dirfd)
}

// descriptor opens what descriptor fd of the caller's is open on.
func (r *request) descriptor(fd int32) (int, error) {
	got, err := unix.Open(r.base(fd), unix.O_PATH|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, unix.EBADF
	}
	if err == nil && !r.valid() {
		unix.Close(got)
		return -1, unix.ENOENT
	}
	return got, err
}

// file opens, as O_PATH, the file that the caller means by dirfd and name. With
// noFollow a link at the end is meant itself.
func (l *listener) file(r *request, dirfd int32, name string, noFollow bool) (int, error) {
	if name == "" {
		return -1, unix.ENOENT
	}
	// A descriptor in disguise, which only the caller itself could follow.
	if fd, rest, ok := cutDescriptor(name); ok {
		if rest == "" {
			return r.descriptor(fd)
		}
		dirfd, name = fd, rest
	}
	flags := uint64(unix.O_PATH | unix.O_CLOEXEC)
	if noFollow {
		flags |= unix.O_NOFOLLOW
	}
	root, name, err := l.inRoot(r, dirfd, name)
	if err != nil {
		return -1, err
	}
	defer unix.Close(root)
	if !r.valid() {
		return -1, unix.ENOENT
	}
	how := &unix.OpenHow{Flags: flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	for range resolveAttempts {
		var fd int
		if fd, err = unix.Openat2(root, name, how); err != unix.EAGAIN {
			return fd, err
		}
	}
	return -1, err
}

// inRoot opens the caller's root, which a chroot may have changed, and makes name
// start there.
func (l *listener) inRoot(r *request, dirfd int32, name string) (root int, abs string, err error) {
	rootLink := fmt.Sprintf("/proc/%d/root", r.pid)
	if root, err = unix.Open(rootLink, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return -1, "", err
	}
	if path.IsAbs(name) {
		return root, name, nil
	}
	// Both as seen from the root of the sandbox, where the mount namespace ends.
	rootPath, err1 := readlink(rootLink)
	dir, err2 := readlink(r.base(dirfd))
	if err := errors.Join(err1, err2); err != nil {
		unix.Close(root)
		return -1, "", unix.EBADF
	}
	if rootPath == "/" {
		return root, dir + "/" + name, nil
	}
	if rest, ok := strings.CutPrefix(dir, rootPath); ok && (rest == "" || rest[0] == '/') {
		return root, rest + "/" + name, nil
	}
	// A folder outside its chroot, from before it: look from the sandbox's root.
	unix.Close(root)
	root, err = unix.FcntlInt(uintptr(l.initFD), unix.F_DUPFD_CLOEXEC, 0)
	return root, dir + "/" + name, err
}

// cutDescriptor takes "/proc/self/fd/N", its other names, or "/proc/self/cwd" off
// the front of name.
func cutDescriptor(name string) (fd int32, rest string, ok bool) {
	for _, prefix := range []string{"/proc/self/cwd", "/proc/thread-self/cwd"} {
		if after, found := strings.CutPrefix(name, prefix); found && (after == "" || after[0] == '/') {
			return unix.AT_FDCWD, strings.TrimLeft(after, "/"), true
		}
	}
	for _, prefix := range []string{"/proc/self/fd/", "/proc/thread-self/fd/", "/dev/fd/"} {
		after, found := strings.CutPrefix(name, prefix)
		if !found {
			continue
		}
		number, rest, _ := strings.Cut(after, "/")
		n, err := strconv.ParseInt(number, 10, 32)
		return int32(n), strings.TrimLeft(rest, "/"), err == nil && n >= 0
	}
	return 0, "", false
}

// readlink is unix.Readlink with a buffer for any path.
func readlink(name string) (string, error) {
	b := make([]byte, unix.PathMax+1)
	n, err := unix.Readlink(name, b)
	if err != nil {
		return "", err
	}
	return string(b[:n]), nil
}

package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	attrReadOnly = unix.MOUNT_ATTR_RDONLY
	attrFiles    = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	attrDevice   = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC
	attrProc     = attrFiles | unix.MOUNT_ATTR_NOEXEC
)

// devices are the whole /dev, besides links to /proc/self/fd and shm.
func devices() []string { return []string{"full", "null", "random", "tty", "urandom", "zero"} }

// kernelSettings are the places of /proc that the owner of the machine's files
// could write to, namespace or not.
func kernelSettings() []string {
	return []string{"sys", "sysrq-trigger", "irq", "bus", "fs", "scsi", "acpi", "asound", "mtrr", "driver", "dynamic_debug"}
}

// hiddenFiles are the files of /proc that tell of the machine's other processes,
// keys and memory.
func hiddenFiles() []string {
	return []string{"kcore", "keys", "key-users", "kmsg", "kallsyms", "kpagecount", "kpageflags", "kpagecgroup",
		"latency_stats", "modules", "sched_debug", "timer_list", "vmallocinfo"}
}

// tree is the file system that the command will see, as it is put together.
type tree struct {
	root int            // an O_PATH descriptor of the new root
	dev  map[string]int // detached mounts of the host's devices
	// procs are detached mounts of the caller's /proc, one for each place that
	// needs it, where the kernel allows no new one; else nil.
	procs []int
}

// cloneTree is a detached mount of the folder or file at name.
func cloneTree(name string, attr uint64) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if errors.Is(err, unix.EINVAL) {
		return -1, fmt.Errorf("%q: a file system is mounted below it: %w", name, err)
	}
	if err != nil {
		return -1, fmt.Errorf("%q: %w", name, err)
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: attr}); err != nil {
		return -1, fmt.Errorf("%q: restricting the mount: %w", name, err)
	}
	return fd, nil
}

// newFS is a detached mount of a new file system; options are name and value.
func newFS(kind string, attr int, options ...[2]string) (int, error) {
	fs, err := unix.Fsopen(kind, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("opening a new %s: %w", kind, err)
	}
	defer unix.Close(fs)
	for _, o := range options {
		if err := unix.FsconfigSetString(fs, o[0], o[1]); err != nil {
			return -1, fmt.Errorf("new %s: %s=%s: %w", kind, o[0], o[1], err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fmt.Errorf("making a new %s: %w", kind, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, attr)
	if err != nil {
		return -1, fmt.Errorf("mounting a new %s: %w", kind, err)
	}
	return fd, nil
}

// attach puts the detached mount fd on the file that at is open on.
func attach(fd, at int) error {
	return unix.MoveMount(fd, "", at, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}

// buildTree makes s's file system and moves the process into it. The process is
// process 1 of new namespaces; afterwards nothing of the host's tree is reachable
// but what s names, and where shared is true the caller's /proc.
func buildTree(s *initSpec) (shared bool, err error) {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return false, fmt.Errorf("making the mounts private: %w", err)
	}
	t := &tree{dev: map[string]int{}}
	if err := t.takeProc(len(s.ProcIn) + 1); err != nil {
		return false, err
	}
	return t.procs != nil, t.build(s)
}

func (t *tree) build(s *initSpec) error {
	// All sources are taken while the host's tree is still as the caller sees it.
	sources := make([]int, len(s.Mounts))
	for i, m := range s.Mounts {
		attr := uint64(attrFiles)
		if !m.Writable {
			attr |= attrReadOnly
		}
		var err error
		if sources[i], err = cloneTree(m.Source, attr); err != nil {
			return fmt.Errorf("mounting on %s: %w", m.Target, err)
		}
	}
	if err := t.takeDevices(len(s.DevIn) + 1); err != nil {
		return err
	}
	if err := t.enter(s); err != nil {
		return err
	}
	if err := t.fill(s, sources); err != nil {
		return err
	}
	return t.pivot()
}

// takeProc finds out whether a new /proc can be had, which is not so where parts
// of the caller's are covered, as container runtimes do; then it takes n detached
// mounts of that one, its covers included and all of it read-only.
func (t *tree) takeProc(n int) error {
	fd, err := newFS("proc", attrProc)
	if err == nil {
		return unix.Close(fd)
	}
	if !errors.Is(err, unix.EPERM) {
		return err
	}
	for range n {
		fd, err := unix.OpenTree(unix.AT_FDCWD, "/proc", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return fmt.Errorf("taking the caller's /proc: %w", err)
		}
		attr := unix.MountAttr{Attr_set: attrProc | attrReadOnly}
		if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
			return fmt.Errorf("restricting the caller's /proc: %w", err)
		}
		t.procs = append(t.procs, fd)
	}
	return nil
}

// takeDevices takes detached mounts of the host's devices, n of each.
func (t *tree) takeDevices(n int) error {
	for _, name := range devices() {
		for i := range n {
			// Read-only concerns the node, not what is written to the device.
			fd, err := cloneTree("/dev/"+name, attrDevice|attrReadOnly)
			if err != nil {
				return fmt.Errorf("taking a device: %w", err)
			}
			var st unix.Stat_t
			if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFCHR {
				return fmt.Errorf("/dev/%s is no character device", name)
			}
			t.dev[fmt.Sprint(name, i)] = fd
		}
	}
	return nil
}

// enter attaches the new root and makes it the working directory.
func (t *tree) enter(s *initSpec) error {
	attr := uint64(attrFiles)
	if !s.RootWritable {
		attr |= attrReadOnly
	}
	var err error
	if t.root, err = cloneTree(s.Root, attr); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	at, err := unix.Open(s.Root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root %q: %w", s.Root, err)
	}
	defer unix.Close(at)
	if err := attach(t.root, at); err != nil {
		return fmt.Errorf("root %q: %w", s.Root, err)
	}
	return unix.Fchdir(t.root)
}

// fill attaches everything else, the caller's mounts after the fixed ones.
func (t *tree) fill(s *initSpec, sources []int) error {
	if err := t.proc("/proc"); err != nil {
		return err
	}
	if err := t.devs("/dev", 0); err != nil {
		return err
	}
	for _, target := range slices.Concat([]string{"/tmp"}, s.Tmpfs) {
		fd, err := newFS("tmpfs", attrFiles, [2]string{"mode", "1777"})
		if err != nil {
			return err
		}
		if err := t.mount(fd, target, true); err != nil {
			return err
		}
	}
	for i, m := range s.Mounts {
		var st unix.Stat_t
		if err := unix.Fstat(sources[i], &st); err != nil {
			return fmt.Errorf("mounting %q: %w", m.Source, err)
		}
		if st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			return fmt.Errorf("mounting %q: it is a socket, which leads out of the sandbox", m.Source)
		}
		if err := t.mount(sources[i], m.Target, st.Mode&unix.S_IFMT == unix.S_IFDIR); err != nil {
			return err
		}
	}
	for _, in := range s.ProcIn {
		if err := t.proc(path.Join(in, "proc")); err != nil {
			return err
		}
	}
	for i, in := range s.DevIn {
		if err := t.devs(path.Join(in, "dev"), i+1); err != nil {
			return err
		}
	}
	return nil
}

// pivot makes the new root the process's and forgets the host's.
func (t *tree) pivot() error {
	// The old root ends up on top of the new one, and is then taken away.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("changing to the new root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leaving the old root: %w", err)
	}
	return unix.Chdir("/")
}

// open is an O_PATH descriptor of name in the new root, which no link can leave.
func (t *tree) open(name string, flags uint64) (int, error) {
	return unix.Openat2(t.root, name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC | flags, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// target is name in the new root, made where it does not exist and can be made.
func (t *tree) target(name string, dir bool) (int, error) {
	fd, err := t.open(name, 0)
	if !errors.Is(err, unix.ENOENT) || name == "/" {
		return fd, err
	}
	parent, err := t.target(path.Dir(name), true)
	if err != nil {
		return -1, err
	}
	defer unix.Close(parent)
	if dir {
		err = unix.Mkdirat(parent, path.Base(name), 0o755)
	} else {
		err = unix.Mknodat(parent, path.Base(name), unix.S_IFREG|0o644, 0)
	}
	if errors.Is(err, unix.EROFS) {
		return -1, fmt.Errorf("%s does not exist and lies on a read-only mount: make it in the source: %w", name, err)
	}
	if err != nil {
		return -1, err
	}
	return t.open(name, unix.O_NOFOLLOW)
}

// mount attaches fd at name, a folder or a file.
func (t *tree) mount(fd int, name string, dir bool) error {
	defer unix.Close(fd)
	at, err := t.target(name, dir)
	if err != nil {
		return fmt.Errorf("mount point %s: %w", name, err)
	}
	defer unix.Close(at)
	if err := attach(fd, at); err != nil {
		return fmt.Errorf("mounting on %s: %w", name, err)
	}
	return nil
}

// proc mounts a new /proc at name, or the caller's, its settings read-only and
// what tells of the machine's other processes hidden.
func (t *tree) proc(name string) error {
	var fd int
	if len(t.procs) > 0 {
		fd, t.procs = t.procs[0], t.procs[1:]
	} else {
		var err error
		if fd, err = newFS("proc", attrProc); err != nil {
			return err
		}
	}
	if err := t.mount(fd, name, true); err != nil {
		return err
	}
	for _, sub := range kernelSettings() {
		if err := t.cover("", path.Join(name, sub), attrProc); err != nil {
			return err
		}
	}
	for _, sub := range hiddenFiles() {
		if err := t.cover("/dev/null", path.Join(name, sub), attrDevice); err != nil {
			return err
		}
	}
	return nil
}

// cover mounts the host's source, or where it is empty target itself, read-only on
// target in the new root, if there is a target.
func (t *tree) cover(source, target string, attr uint64) error {
	at, err := t.open(target, unix.O_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", target, err)
	}
	defer unix.Close(at)
	if source == "" {
		source = fmt.Sprint("/proc/self/fd/", at)
	}
	fd, err := cloneTree(source, attr|attrReadOnly)
	if err != nil {
		return fmt.Errorf("covering %s: %w", target, err)
	}
	defer unix.Close(fd)
	if err := attach(fd, at); err != nil {
		return fmt.Errorf("covering %s: %w", target, err)
	}
	return nil
}

// devs mounts the minimal /dev at name with the nth mount of each device.
func (t *tree) devs(name string, nth int) error {
	fd, err := newFS("tmpfs", unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC,
		[2]string{"mode", "0755"}, [2]string{"size", "1m"})
	if err != nil {
		return err
	}
	if err := t.mount(fd, name, true); err != nil {
		return err
	}
	for _, dev := range devices() {
		if err := t.mount(t.dev[fmt.Sprint(dev, nth)], path.Join(name, dev), false); err != nil {
			return err
		}
	}
	dir, err := t.open(name, unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	for _, l := range [][2]string{{"fd", ""}, {"stdin", "/0"}, {"stdout", "/1"}, {"stderr", "/2"}} {
		if err := unix.Symlinkat("/proc/self/fd"+l[1], dir, l[0]); err != nil {
			return fmt.Errorf("%s: %w", path.Join(name, l[0]), err)
		}
	}
	shm, err := newFS("tmpfs", attrFiles, [2]string{"mode", "1777"})
	if err != nil {
		return err
	}
	return t.mount(shm, path.Join(name, "shm"), true)
}

// closeInherited closes every descriptor above keep that would outlive an exec:
// the caller's own caller may have left some open.
func closeInherited(keep int) error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscan(e.Name(), &fd); err != nil || fd <= keep {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			if err := unix.Close(fd); err != nil {
				return err
			}
		}
	}
	return nil
}

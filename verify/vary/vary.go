// Package vary runs a command under other conditions than the caller's, so
// that what depends on them shows.
//
// Varied are the folder and its file system (with it the order of files in
// folders), the time zone, the locale, the umask, the home folder, the search
// path, further environment, the number of CPUs, address space randomisation
// and, for a caller who is root, the user. Not varied, and said so: the wall
// clock (no namespace moves it, and static programs do not listen to
// libfaketime), the kernel, and the host name where the caller may not set it.
package vary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// marker is argv[0] of a process that is to take on conditions and then
// become the command.
const marker = "caisson-vary"

// UID is the user that root's commands run as: nobody has it.
const UID = 61234

// Condition is one thing, and whether it could be varied.
type Condition struct {
	Name   string // folder, fileSystem, timezone, ...
	Varied bool
	Detail string // the value, or why it was not varied
}

// Conditions are what a command is run under.
type Conditions struct {
	// Dir is the folder for what the command writes, which the command's user
	// owns.
	Dir string
	// Env is the whole environment.
	Env   []string
	Umask int
	// UID and GID are other than the caller's where UID is not 0.
	UID, GID int
	CPUs     int // how many the command may use; 0 for all
	NoASLR   bool
	Hostname string // needs a new UTS namespace; "" to keep it
	// Said is all of it in words.
	Said []Condition
}

// Settings ask for conditions.
type Settings struct {
	Base   string // the folder below which a folder is made where others will not do
	Need   int64  // free bytes wanted there
	Euid   int    // the caller's effective user id
	CPUs   int    // the caller's number of CPUs
	FSType func(dir string) string
}

// New chooses conditions and makes the folder. The caller removes it.
func New(s Settings) (*Conditions, error) {
	c := &Conditions{Umask: 0o077, NoASLR: true}
	base, fs := chooseBase(s)
	dir, err := os.MkdirTemp(base, "rebuild elsewhere ")
	if err != nil {
		return nil, err
	}
	c.Dir = dir
	c.say("folder", true, "another, longer, with blanks")
	c.say("fileSystem", fs != "", fs)
	c.say("fileOrder", fs != "", "as that file system has it")
	if fs == "" {
		c.Said[len(c.Said)-2].Detail = "no other with enough space"
		c.Said[len(c.Said)-1].Detail = "no other file system with enough space"
	}
	c.Env = []string{
		"TZ=Asia/Kathmandu", "LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8", "HOME=/nonexistent", "PATH=/sbin:/usr/sbin:/bin:/usr/bin",
		"TMPDIR=" + dir, "XDG_CACHE_HOME=" + dir, "CAISSON_VARIED=yes", "SOURCE_DATE_EPOCH=1", "GOFLAGS=-race", "RUSTFLAGS=-g", "CC=false",
	}
	for _, kv := range [][2]string{{"timezone", "Asia/Kathmandu (+05:45)"}, {"locale", "tr_TR.UTF-8"}, {"umask", "077"}, {"home", "/nonexistent"}, {"path", "another order"}, {"environment", "SOURCE_DATE_EPOCH, GOFLAGS, RUSTFLAGS, CC set to what would spoil a build that listened"}, {"aslr", "off"}} {
		c.say(kv[0], true, kv[1])
	}
	c.chooseUser(s)
	c.chooseCPUs(s)
	if s.Euid == 0 {
		c.Hostname = "elsewhere"
		c.say("hostname", true, c.Hostname)
	} else {
		c.say("hostname", false, "only root may set it; the sandbox's is fixed")
	}
	c.say("time", false, "later by the clock only: no namespace moves it")
	c.say("kernel", false, "this machine has one")
	return c, nil
}

func (c *Conditions) say(name string, varied bool, detail string) {
	c.Said = append(c.Said, Condition{Name: name, Varied: varied, Detail: detail})
}

func (c *Conditions) chooseUser(s Settings) {
	if s.Euid != 0 {
		c.say("user", false, "only root may become another")
		return
	}
	c.UID, c.GID = UID, UID
	c.say("user", true, "an ordinary user, "+strconv.Itoa(UID))
}

func (c *Conditions) chooseCPUs(s Settings) {
	if s.CPUs < 2 {
		c.say("cpus", false, "this machine has one")
		return
	}
	c.CPUs = s.CPUs - 1
	c.say("cpus", true, fmt.Sprintf("%d of %d", c.CPUs, s.CPUs))
}

// chooseBase is a folder on another file system than Base's with enough
// space, and that file system's type; else Base and "".
func chooseBase(s Settings) (dir, fs string) {
	here := s.FSType(s.Base)
	for _, d := range []string{"/dev/shm", "/var/tmp", "/tmp"} {
		var st unix.Statfs_t
		if unix.Statfs(d, &st) != nil || unix.Access(d, unix.W_OK) != nil {
			continue
		}
		if t := s.FSType(d); t != here && t != "" && int64(st.Bavail)*st.Bsize >= s.Need && st.Flags&unix.ST_NOEXEC == 0 {
			return d, t
		}
	}
	return s.Base, ""
}

// FSType is the type of the file system that dir is on, by its magic number.
func FSType(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	switch st.Type {
	case unix.TMPFS_MAGIC:
		return "tmpfs"
	case unix.EXT4_SUPER_MAGIC:
		return "ext4"
	case unix.XFS_SUPER_MAGIC:
		return "xfs"
	case unix.BTRFS_SUPER_MAGIC:
		return "btrfs"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "overlayfs"
	}
	return fmt.Sprintf("%#x", st.Type)
}

// become is what a process takes on before it becomes the command.
type become struct {
	Umask, CPUs int
	UID, GID    int // 0: stay who we are
	NoASLR      bool
	Hostname    string
	Args        []string
}

// Command prepares this same executable to run with args under the
// conditions. It must call Init first thing.
func (c *Conditions) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	b, err := json.Marshal(become{Umask: c.Umask, CPUs: c.CPUs, UID: c.UID, GID: c.GID, NoASLR: c.NoASLR, Hostname: c.Hostname, Args: args})
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{marker, string(b)}
	cmd.Env = c.Env
	cmd.Dir = c.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	if c.Hostname != "" {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUTS
	}
	return cmd, nil
}

// Init must be called first thing in main: where the process was started by
// Command, it takes on the conditions and becomes the command.
func Init() {
	if len(os.Args) != 2 || os.Args[0] != marker {
		return
	}
	err := start(os.Args[1])
	fmt.Fprintln(os.Stderr, "caisson: taking on the conditions of a rebuild:", err)
	os.Exit(1) //nolint:forbidigo // this process exists to become another
}

func start(text string) error {
	runtime.LockOSThread()
	var b become
	if err := json.Unmarshal([]byte(text), &b); err != nil {
		return err
	}
	unix.Umask(b.Umask)
	if b.Hostname != "" {
		if err := unix.Sethostname([]byte(b.Hostname)); err != nil {
			return fmt.Errorf("setting the host name: %w", err)
		}
	}
	if b.CPUs > 0 {
		if err := limitCPUs(b.CPUs); err != nil {
			return fmt.Errorf("limiting the CPUs: %w", err)
		}
	}
	if b.NoASLR {
		const addrNoRandomize = 0x0040000 // personality(2)
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, addrNoRandomize, 0, 0); e != 0 {
			return fmt.Errorf("personality: %w", e)
		}
	}
	if b.UID != 0 {
		if err := dropTo(b.UID, b.GID); err != nil {
			return err
		}
	}
	return syscall.Exec("/proc/self/exe", append([]string{"caisson"}, b.Args...), os.Environ()) //nolint:forbidigo // the environment that Command chose is handed on
}

func dropTo(uid, gid int) error {
	if err := errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid)); err != nil {
		return fmt.Errorf("becoming user %d: %w", uid, err)
	}
	return nil
}

// limitCPUs keeps the process on n of the CPUs that it may use.
func limitCPUs(n int) error {
	var all, some unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return err
	}
	for cpu := 0; some.Count() < n && cpu < 1024; cpu++ {
		if all.IsSet(cpu) {
			some.Set(cpu)
		}
	}
	return unix.SchedSetaffinity(0, &some)
}

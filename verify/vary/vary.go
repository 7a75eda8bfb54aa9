// Package vary runs a command under other conditions than the caller's, so
// that what depends on them shows.
//
// Limits first. The wall clock is not varied: no namespace moves it, seccomp does
// not see it read (vDSO), and static programs do not listen to libfaketime. The
// kernel is this machine's; what varies is the version that uname(2) tells. The
// number of CPUs is what programs are told, as is the order of files where a
// sandbox reverses it.
//
// The variations are reprotest's fourteen, by its names (see Names). Those around
// the sandbox concern the program that builds; of these the number of CPUs, the
// order of files, the kernel's version and address space randomisation reach the
// sandboxed steps as well. The rest a sandbox keeps the same for every step, and it
// changes for these only with Settings.Inside: no build has them so, and what differs
// then shows which steps are fragile.
package vary

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/sandbox"
)

// The variations, as reprotest calls them.
const (
	Environment  = "environment"
	BuildPath    = "build_path"
	Kernel       = "kernel"
	ASLR         = "aslr"
	CPUs         = "num_cpus"
	Time         = "time"
	UserGroup    = "user_group"
	FileOrdering = "fileordering"
	DomainHost   = "domain_host"
	Home         = "home"
	Locales      = "locales"
	ExecPath     = "exec_path"
	Timezone     = "timezone"
	Umask        = "umask"
)

// Names are the names of all variations, in reprotest's order.
func Names() []string {
	return []string{Environment, BuildPath, Kernel, ASLR, CPUs, Time, UserGroup, FileOrdering, DomainHost, Home, Locales, ExecPath, Timezone, Umask}
}

// Parse reads a choice of variations, as reprotest's --vary has it: names with commas
// between them, each with a + or a - before it, which are applied in their order to
// all variations; "all" is every one of them. A list that begins with a plain name begins
// with none. What comes back is in the order of Names.
func Parse(list string) ([]string, error) {
	var chosen []string
	for i, term := range strings.Split(list, ",") {
		term = strings.TrimSpace(term)
		name, minus := strings.CutPrefix(term, "-")
		name, plus := strings.CutPrefix(name, "+")
		if i == 0 && (plus || minus) {
			chosen = Names()
		}
		these := []string{name}
		switch {
		case name == "all":
			these = Names()
		case !slices.Contains(Names(), name):
			return nil, fmt.Errorf("there is no variation %q: want all, or of %s", name, strings.Join(Names(), ", "))
		}
		chosen = slices.DeleteFunc(chosen, func(n string) bool { return slices.Contains(these, n) })
		if !minus {
			chosen = append(chosen, these...)
		}
	}
	return slices.DeleteFunc(Names(), func(n string) bool { return !slices.Contains(chosen, n) }), nil
}

// UID is the user that root's commands run as, insideUID the one that steps run as:
// nobody has them.
const (
	UID       = 61234
	insideUID = 51234
)

// Condition is one thing, and whether it could be varied.
type Condition struct {
	Name   string // one of Names
	Varied bool
	// Reached tells whether the sandboxed steps had it, too.
	Reached bool
	Detail  string // the value, or why it was not varied
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
	// Persona are the bits of personality(2) that are set.
	Persona  uintptr
	Hostname string // needs a new UTS namespace; "" to keep it
	// Around is what the sandboxes of the command are to have otherwise.
	Around sandbox.Surroundings
	// Said is all of it in words, in the order of Names.
	Said []Condition
}

// Varied are the names of what is varied.
func (c *Conditions) Varied() []string {
	var out []string
	for _, s := range c.Said {
		if s.Varied {
			out = append(out, s.Name)
		}
	}
	return out
}

// Settings ask for conditions.
type Settings struct {
	// Vary are those of Names that are to be varied.
	Vary []string
	// Inside varies what the sandboxes keep the same for their steps as well.
	Inside bool
	Base   string // the folder below which a folder is made where others will not do
	// Like is a folder on a file system other than which is wanted for the
	// order of files: where the image is.
	Like   string
	Need   int64 // free bytes wanted
	Euid   int   // the caller's effective user id
	CPUs   int   // the caller's number of CPUs
	FSType func(dir string) string
	// Release is the kernel's, as uname has it.
	Release string
}

// choosing is one run of New.
type choosing struct {
	*Settings
	*Conditions
	// base and dir are where the folder is made, and how its name begins.
	base, dir  string
	home, path string
}

// New chooses conditions and makes the folder. The caller removes it.
func New(s Settings) (*Conditions, error) {
	c := choosing{
		Settings: &s, Conditions: &Conditions{Umask: 0o022}, base: s.Base, dir: "rebuild-",
		home: "/tmp", path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	}
	for _, name := range Names() {
		if slices.Contains(s.Vary, name) {
			c.choose(name)
		} else {
			c.say(name, false, false, "switched off")
		}
	}
	var err error
	if c.Dir, err = os.MkdirTemp(c.base, c.dir); err != nil {
		return nil, err
	}
	c.Env = append(c.Env, "HOME="+c.home, "PATH="+c.path, "TMPDIR="+c.Dir, "XDG_CACHE_HOME="+c.Dir)
	return c.Conditions, nil
}

// choose varies one thing, if it can be varied here.
func (c *choosing) choose(name string) {
	switch name {
	case Environment:
		c.Env = append(c.Env, "SOURCE_DATE_EPOCH=1", "GOFLAGS=-race", "RUSTFLAGS=-g", "CC=false")
		c.variables("CAISSON_VARIED=yes")
		c.say(name, true, c.Inside, "SOURCE_DATE_EPOCH, GOFLAGS, RUSTFLAGS and CC set to what would spoil a build that listened", "one variable more")
	case BuildPath:
		c.dir = "rebuild elsewhere "
		c.say(name, true, false, "another, longer, with blanks; the steps have $IN, $OUT and their sources at the same place everywhere")
	case Kernel:
		c.persona(name, uname26, fmt.Sprintf("uname says 2.6 in place of %s; it is the same kernel", c.Release))
	case ASLR:
		c.persona(name, addrNoRandomize, "off")
	case CPUs:
		c.Around.CPUs = c.Settings.CPUs + 1
		c.Env = append(c.Env, "GOMAXPROCS="+strconv.Itoa(c.Around.CPUs))
		c.say(name, true, true, fmt.Sprintf("programs are told of %d, and there are %d", c.Around.CPUs, c.Settings.CPUs))
	case Time:
		c.say(name, false, false, "later by the clock only: no namespace moves it, and not every program listens to a library that does")
	case UserGroup:
		c.user()
	case FileOrdering:
		c.fileOrder()
	case DomainHost:
		c.host()
	case Home:
		c.home = "/nonexistent"
		c.inside("HOME=" + c.home)
		c.say(name, true, c.Inside, c.home)
	case Locales:
		c.variables("LANG=tr_TR.UTF-8", "LC_ALL=tr_TR.UTF-8")
		c.say(name, true, c.Inside, "tr_TR.UTF-8", "which is C in programs whose tools root does not have it")
	case ExecPath:
		c.path = "/nonexistent:/sbin:/bin:/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin"
		c.inside("PATH=" + c.path)
		c.say(name, true, c.Inside, "another order, and a folder that does not exist")
	case Timezone:
		c.variables("TZ=" + zone)
		c.say(name, true, c.Inside, zone)
	case Umask:
		c.Umask = 0o077
		if c.Inside {
			c.Around.Umask = c.Umask
		}
		c.say(name, true, c.Inside, "077", "077, but for what installs packages, whose database has the mode that the umask gives")
	}
}

// zone is that of Nepal, in the form that needs no database (POSIX, TZ).
const zone = "NPT-5:45"

// say notes a condition. What is added to the detail is about the steps, where
// they are reached.
func (c *choosing) say(name string, varied, reached bool, detail string, inside ...string) {
	if reached && len(inside) > 0 {
		detail += "; in the steps " + strings.Join(inside, ", ")
	}
	c.Said = append(c.Said, Condition{Name: name, Varied: varied, Reached: reached, Detail: detail})
}

// variables adds to the environment, with Inside to that of the steps as well.
func (c *choosing) variables(env ...string) {
	c.Env = append(c.Env, env...)
	c.inside(env...)
}

// inside adds to the environment of the steps, with Inside.
func (c *choosing) inside(env ...string) {
	if c.Inside {
		c.Around.Env = append(c.Around.Env, env...)
	}
}

// Bits of personality(2), which programs inherit.
const (
	uname26         = 0x0020000
	addrNoRandomize = 0x0040000
)

// persona varies what personality(2) can.
func (c *choosing) persona(name string, bit uintptr, detail string) {
	if err := try(become{Persona: bit}); err != nil {
		c.say(name, false, false, "it cannot be changed here: "+err.Error())
		return
	}
	c.Persona |= bit
	c.say(name, true, true, detail)
}

func (c *choosing) user() {
	outside := ""
	switch {
	case c.Euid != 0:
		outside = "the build's own is the caller: only root may become another"
	case try(become{UID: UID, GID: UID}) != nil:
		outside = "the build's own is the caller: this root may not become another"
	case !c.reachable():
		outside = "the build's own is the caller: there is no folder with enough space that is open to another"
	default:
		c.UID, c.GID = UID, UID
		outside = "an ordinary user, " + strconv.Itoa(UID)
	}
	if c.Inside {
		c.Around.User = insideUID
	}
	c.say(UserGroup, c.UID != 0 || c.Inside, c.Inside, outside, fmt.Sprintf("user and group %d, but for what installs packages, which has to be root", insideUID))
}

// reachable chooses a base that another user can get to.
func (c *choosing) reachable() bool {
	for _, dir := range []string{c.base, "/var/tmp", "/tmp"} {
		if openToAll(dir) && (dir == c.base || c.hasSpace(dir)) {
			c.base = dir
			return true
		}
	}
	return false
}

// openToAll tells whether every user may go through a folder and those above it.
func openToAll(dir string) bool {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return false
	}
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm()&0o001 == 0 {
			return false
		}
	}
	return true
}

// hasSpace tells whether a build can be made in a folder.
func (c *choosing) hasSpace(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && unix.Access(dir, unix.W_OK) == nil &&
		int64(st.Bavail)*st.Bsize >= c.Need && st.Flags&unix.ST_NOEXEC == 0
}

func (c *choosing) host() {
	const name = "elsewhere"
	outside := "the machine's: only root may set another"
	if c.Euid == 0 && try(become{Hostname: name}) == nil {
		c.Hostname, outside = name, name
	}
	if c.Inside {
		c.Around.Hostname = name
	}
	c.say(DomainHost, c.Hostname != "" || c.Inside, c.Inside, outside, name)
}

// fileOrder chooses another file system; where there is none, or the order
// that a step finds is to be other than that of the build for certain, its sandbox
// reverses it.
func (c *choosing) fileOrder() {
	here := c.FSType(c.Like)
	if !c.Inside {
		if dir, fs := c.elsewhere(here); fs != "" {
			c.base = dir
			c.say(FileOrdering, true, true, fmt.Sprintf("as %s has it, in place of %s", fs, here))
			return
		}
	}
	c.Around.Reversed = true
	c.say(FileOrdering, true, true, "in the steps the reverse of what the file system has, by answering getdents64 so")
}

// elsewhere is a folder on a file system of another type with enough space.
func (c *choosing) elsewhere(here string) (dir, fs string) {
	for _, d := range []string{"/dev/shm", "/var/tmp", "/tmp", c.Base} {
		if t := c.FSType(d); t != here && t != "" && c.hasSpace(d) && (c.UID == 0 || openToAll(d)) {
			return d, t
		}
	}
	return "", ""
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

// Command prepares this same executable to run with args under the
// conditions. It must call Init first thing.
func (c *Conditions) Command(ctx context.Context, args ...string) (*exec.Cmd, error) {
	cmd, err := becoming(ctx, become{Umask: c.Umask, UID: c.UID, GID: c.GID, Persona: c.Persona, Hostname: c.Hostname, Args: args})
	if err != nil {
		return nil, err
	}
	cmd.Env, cmd.Dir = c.Env, c.Dir
	return cmd, nil
}

// AroundJSON is Around as text, "" where it changes nothing.
func (c *Conditions) AroundJSON() (string, error) {
	if c.Around.Usual() {
		return "", nil
	}
	b, err := json.Marshal(c.Around)
	return string(b), err
}

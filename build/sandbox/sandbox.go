// Package sandbox runs one command where it can read what it was given and
// reach nothing else, and records what it tried.
//
// Limits first. The kernel is trusted: a hole in it is a hole here. Programs see
// the machine's kernel version, CPU, clock, memory and boot id. The supplementary
// groups of the caller stay with the command (an ordinary user cannot drop them),
// as ids that mean nothing inside. What the record says of addresses and paths is
// read from the program's memory and can be raced: it is evidence; namespaces and
// filter are the enforcement. Linux 5.14 or newer, x86-64 or aarch64. Where parts
// of the caller's /proc are covered, as in a container, the kernel allows no new
// one; then the command sees the caller's, read-only, and in it that other
// processes exist, how they were called and the numbers of their descriptors, but
// nothing else of them (Landlock, Linux 5.19); process numbers in it are not those that the command has.
//
// Not everything that fails is recorded, see NotRecorded: what would have to be
// asked for at every file that is read is refused by the kernel alone.
//
// The promise. The command runs as user 0 of a new user namespace in which one
// user id and one group id exist, the caller's own, and in new mount, pid, ipc,
// uts, cgroup and network namespaces. Its network has a loopback and nothing
// else. Its root is Spec.Root; beyond it there are a new /proc with the kernel's
// settings read-only, a /dev of six devices, an empty /tmp, and Spec.Mounts.
// Its environment is DefaultEnv and Spec.Env. Host name, umask, session and
// resource limits are fixed; no descriptor but 0, 1 and 2 is open, and these are
// pipes. Capabilities over the machine it has none; of those over its own
// namespace it keeps what an installation of packages needs. A seccomp filter
// refuses what would leave the sandbox or enlarge the kernel's surface. All
// processes die with the command.
//
// What is recorded: each refusal of the filter and of the network by program, call
// and destination; each use of a socket that is allowed; each attempt to change what
// lies on a read-only mount, by program, call and path.
//
// How. Run starts this same executable again (see Init) as process 1 of the new
// namespaces, with an empty environment. It builds the mounts, installs the filter
// on one thread, hands the filter's listener to Run, and starts the command from
// that thread. Calls that the filter does not simply allow are decided and
// recorded by Run, outside, where the command cannot touch the record.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Hostname is the host name in every sandbox, unless Surroundings have another.
const Hostname = "caisson"

// A Mount makes Source, a folder or a file of the caller's, appear at Target.
// No file system may be mounted below Source.
type Mount struct {
	Source, Target string
	Writable       bool
}

// Spec says what to run, and in what.
type Spec struct {
	// Root is the folder that becomes /. It is read-only unless RootWritable is set.
	Root         string
	RootWritable bool
	// Mounts are made in the order given. A target that does not exist is created
	// where the file system that it lies on is writable.
	Mounts []Mount
	// Tmpfs are further places that are empty and writable; /tmp always is.
	Tmpfs []string
	// ProcIn and DevIn are further roots, such as "/sysroot", that get a /proc and
	// a /dev of their own.
	ProcIn, DevIn []string

	// Args is the command. Its name is looked up in the sandbox's PATH.
	Args []string
	// Env is added to DefaultEnv and takes precedence over it; "KEY=value".
	Env []string
	// Dir is where the command starts; "/" if empty.
	Dir string
	// Stdin is empty where nil, Stdout and Stderr are discarded where nil. The
	// command sees pipes in every case. A Stdin whose Read blocks for ever keeps a
	// goroutine, but does not keep Run.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Terminal, where it is not nil, is in their place, and the command's own: a
	// pseudo terminal that was made for it. Of the caller's own terminal a command
	// could make keyboard input.
	Terminal *os.File

	// FakeOwnership answers chown, mknod of devices, setting security.* attributes
	// and changes of user or group with success, and records them in Result.Files.
	FakeOwnership bool
	// Files is what earlier runs recorded, their Result.Files, of what is writable
	// in this one: it is gone on from there.
	Files map[FileID]Recorded
	// Shown is what files look like to the command: to a program that makes a file
	// system of a folder, say, that belongs to one user.
	Shown map[FileID]Shown
	// Told, if not nil, is told of every program that the command itself starts, and
	// of what changes files that may be written to, in this order, one thing at a
	// time and before it is done. It is evidence, as the record is.
	Told func(Deed)
	// Timeout bounds the whole run; none if 0.
	Timeout time.Duration
	// MaxProcesses bounds the processes and threads at one time; 16384 if 0. Before
	// Linux 6.14 it does not hold where the caller is root.
	MaxProcesses int
	// Around are other circumstances than the usual ones.
	Around Surroundings
	// Name is the step's name in errors and in the evidence.
	Name string

	probe bool // there is no command
}

// Result is what came of a command that ran.
type Result struct {
	// ExitCode is the command's, or 128 and the signal's number.
	ExitCode int
	// Signal is the name of the signal that ended the command, as "SIGKILL".
	Signal   string
	Evidence Evidence
	// Files is what Spec.FakeOwnership recorded, for the files that are still there:
	// in Root and in Mounts, as far as these are writable. Spec.Files is part of it.
	Files map[FileID]Recorded
}

// ErrTimeout is in the chain of Run's error where Spec.Timeout passed.
var ErrTimeout = errors.New("time limit exceeded")

// DefaultEnv is the environment of every command, before Spec.Env.
func DefaultEnv() []string {
	return []string{
		"HOME=/tmp",
		"LANG=C.UTF-8",
		"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"TZ=UTC",
	}
}

// Run runs the command and waits for it. A command that exits with another code
// than 0, or by a signal, is no error. An error means that the sandbox could not
// be set up, a canary got through, the time limit passed (ErrTimeout) or ctx was
// cancelled (ctx.Err()); where evidence had been collected by then, the Result is
// returned beside the error. No process of the sandbox is alive when Run returns.
func Run(ctx context.Context, s Spec) (*Result, error) {
	s, err := s.checked()
	if err != nil {
		return nil, err
	}
	var cancel context.CancelFunc = func() {}
	if s.Timeout > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, s.Timeout, fmt.Errorf("%w: %s", ErrTimeout, s.Timeout))
	}
	defer cancel()
	r, err := run(ctx, s)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		return r, fmt.Errorf("sandbox: %s: %w", s.Name, err)
	}
	return r, nil
}

// Probe sets up a sandbox as Run does, its canaries included, and runs nothing in
// it: the evidence says what this machine allows, the error what it does not.
// Its root is an empty folder in dir, which is removed.
func Probe(ctx context.Context, dir string) (ev *Evidence, err error) {
	root, err := os.MkdirTemp(dir, "caisson-probe-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(root)) }()
	r, err := Run(ctx, Spec{Name: "probe", Root: root, RootWritable: true, FakeOwnership: true, Timeout: time.Minute, probe: true})
	if err != nil {
		return nil, err
	}
	return &r.Evidence, nil
}

// features are what s asks of the filter.
func (s *Spec) features() features {
	return features{
		FakeOwnership: s.FakeOwnership, Shown: len(s.Shown) > 0, Told: s.Told != nil,
		CPUs: s.Around.CPUs > 0, Reversed: s.Around.Reversed,
	}
}

// checked is s with its defaults, or what is wrong with it.
func (s Spec) checked() (Spec, error) {
	if !s.probe && (len(s.Args) == 0 || s.Args[0] == "") {
		return s, errors.New("sandbox: no command given")
	}
	if s.Name == "" {
		s.Name = path.Base(s.Args[0])
	}
	if s.MaxProcesses == 0 {
		s.MaxProcesses = maxProcesses
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	fail := func(format string, args ...any) (Spec, error) {
		return s, fmt.Errorf("sandbox: %s: %w", s.Name, fmt.Errorf(format, args...))
	}
	var err error
	if s.Root, err = filepath.Abs(s.Root); err != nil {
		return fail("root: %w", err)
	}
	targets := slices.Concat(s.Tmpfs, s.ProcIn, s.DevIn, []string{s.Dir})
	s.Mounts = slices.Clone(s.Mounts)
	for i, m := range s.Mounts {
		if m.Source == "" {
			return fail("mount on %q: no source given", m.Target)
		}
		if s.Mounts[i].Source, err = filepath.Abs(m.Source); err != nil {
			return fail("mount: %w", err)
		}
		targets = append(targets, m.Target)
	}
	for _, t := range targets {
		if !path.IsAbs(t) || path.Clean(t) != t {
			return fail("target %q: want a clean absolute path", t)
		}
	}
	if c := s.Around.CPUs; c < 0 || c > maxCPUs {
		return fail("%d CPUs: want at most %d", c, maxCPUs)
	}
	for _, kv := range slices.Concat(s.Around.Env, s.Env) {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.ContainsRune(kv, 0) {
			return fail("environment %q: want KEY=value", kv)
		}
	}
	return s, nil
}

// environment is DefaultEnv with that of Around and Env in it, sorted by name.
func (s *Spec) environment() []string {
	byKey := map[string]string{}
	for _, kv := range slices.Concat(DefaultEnv(), s.Around.Env, s.Env) {
		k, _, _ := strings.Cut(kv, "=")
		byKey[k] = kv
	}
	var all []string
	for _, kv := range byKey {
		all = append(all, kv)
	}
	slices.Sort(all)
	return all
}

// ended is a wait status as an exit code and the name of a signal.
func ended(ws unix.WaitStatus) (code int, signal string) {
	if ws.Signaled() {
		return 128 + int(ws.Signal()), unix.SignalName(ws.Signal())
	}
	return ws.ExitStatus(), ""
}

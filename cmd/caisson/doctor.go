package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/build/vm"
	"caisson/prefetch"
	"caisson/verify/boot"
	"caisson/verify/vary"
)

// What a build wants of a machine.
const (
	wantMemory = 2 << 30 // bytes: compilers are what takes it
	wantSpace  = 8 << 30 // bytes in the output folder, where no lock says more
	wantFiles  = 100_000 // free inodes there
)

// The three ways in which a finding can turn out.
const (
	found  = "ok"
	lesser = "warning" // it works, but
	wrong  = "problem" // a stage cannot do its work
)

// finding is what doctor says of one thing.
type finding struct {
	Name   string `json:"name"`
	State  string `json:"state"`
	Text   string `json:"text"`
	Advice string `json:"advice,omitempty"`
}

// doctor looks at this machine.
type doctor struct {
	sources
	out      string
	findings []finding
}

func newDoctorCommand(ui *ui) *cobra.Command {
	var (
		d      doctor
		asJSON bool
	)
	c := &cobra.Command{
		Use:   "doctor",
		Short: "Check whether this machine can build, and say what to change",
		Long: `Doctor checks what the stages need of this machine: the kernel and its user
namespaces (by setting up a sandbox), /proc, processors and memory, the folders
of the output and the store, the programs that boot an image, and the network's
settings. With a lock, it also checks that the store has the lock's inputs.

It changes nothing and asks no server. The exit code is 1 where there is a
problem, which is something without which a stage cannot work; a warning is not.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := d.look(c.Context(), c.Flags().Changed("lock")); err != nil {
				return err
			}
			if asJSON {
				if err := ui.json(d.findings); err != nil {
					return err
				}
			} else {
				d.print(ui)
			}
			if n := d.count(wrong); n > 0 {
				return &quietError{exitError}
			}
			return nil
		},
	}
	d.flags(c)
	c.Flags().StringVar(&d.out, "out", ".", "the folder where images are to be built")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// look makes all findings. A lock that was named has to be there.
func (d *doctor) look(ctx context.Context, lockNamed bool) error {
	d.kernel()
	if err := d.sandbox(ctx); err != nil {
		return err
	}
	d.machine()
	dir, err := d.storeDir()
	if err != nil {
		return err
	}
	need := int64(wantSpace)
	if _, err := os.Stat(d.lockFile); lockNamed || err == nil {
		if need, err = d.inputs(); err != nil {
			return err
		}
	}
	d.folder("output folder", d.out, need)
	d.folder("store", dir, 0)
	d.programs()
	d.network()
	return nil
}

func (d *doctor) say(name, state, advice, format string, args ...any) {
	d.findings = append(d.findings, finding{name, state, fmt.Sprintf(format, args...), advice})
}

func (d *doctor) count(state string) (n int) {
	for _, f := range d.findings {
		if f.State == state {
			n++
		}
	}
	return n
}

func (d *doctor) print(ui *ui) {
	for _, f := range d.findings {
		ui.print("%-8s %-16s %s", f.State, f.Name, f.Text)
		if f.Advice != "" {
			ui.print("%-8s %-16s → %s", "", "", f.Advice)
		}
	}
	switch problems, warnings := d.count(wrong), d.count(lesser); {
	case problems > 0:
		ui.print("this machine cannot do all of Caisson's work: %s, %s", count(problems, "problem"), count(warnings, "warning"))
	case warnings > 0:
		ui.print("this machine can build, with %s", count(warnings, "warning"))
	default:
		ui.print("this machine can build")
	}
}

// kernel checks what is not a matter of settings.
func (d *doctor) kernel() {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		d.say("kernel", wrong, "", "uname: %v", err)
		return
	}
	release := unix.ByteSliceToString(u.Release[:])
	switch {
	case runtime.GOARCH != "amd64" && runtime.GOARCH != "arm64":
		d.say("kernel", wrong, "build on x86-64 or aarch64; locking and prefetching work here", "Linux %s on %s", release, runtime.GOARCH)
	case !kernelAtLeast(release, 5, 14):
		d.say("kernel", wrong, "the sandbox's filter needs Linux 5.14 (RHEL 9) or newer", "Linux %s", release)
	default:
		d.say("kernel", found, "", "Linux %s on %s", release, runtime.GOARCH)
	}
}

// kernelAtLeast compares a kernel's release, as "6.1.0-13-amd64", with a
// version. One that cannot be read counts as new.
func kernelAtLeast(release string, major, minor int) bool {
	var a, b int
	if _, err := fmt.Sscanf(release, "%d.%d", &a, &b); err != nil {
		return true
	}
	return a > major || a == major && b >= minor
}

// sandbox sets one up.
func (d *doctor) sandbox(ctx context.Context) error {
	ev, err := sandbox.Probe(ctx, "")
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if errors.As(err, new(*sandbox.RefusedError)) {
		d.say("sandbox", lesser, "", "%v", err)
		d.isolation(err)
		return nil
	}
	if err != nil {
		d.say("sandbox", wrong, "without user namespaces a build is possible in a virtual machine alone: --isolation vm", "%v", err)
		return nil
	}
	d.isolation(nil)
	d.say("sandbox", found, "", "%s namespaces, seccomp filter, all %d attempts to get out refused", strings.Join(ev.Namespaces, " "), len(ev.Canaries))
	if ev.Volatile.SharedProc {
		d.say("/proc", lesser, "steps see the names and arguments of this container's other processes; a pod whose /proc is not masked (procMount: Unmasked) has its own",
			"covered in part: no new one can be mounted")
	} else {
		d.say("/proc", found, "", "each step gets its own")
	}
	if ev.Volatile.Processes != "pid_max" && ev.Volatile.UID == 0 {
		d.say("process limit", lesser, "build as an ordinary user, or on Linux 6.14 or newer", "does not hold root: a step that forks for ever would take the machine with it")
	} else {
		d.say("process limit", found, "", "holds (%s)", ev.Volatile.Processes)
	}
	return nil
}

// machine checks processors and memory.
func (d *doctor) machine() {
	d.say("processors", found, "", "%d", runtime.GOMAXPROCS(0))
	free, err := vm.FreeMemory(os.ReadFile)
	switch {
	case err != nil:
		d.say("memory", lesser, "", "not known: %v", err)
	case free < wantMemory:
		d.say("memory", lesser, fmt.Sprintf("compilers may need more: have %s free", size(wantMemory)), "%s free", size(free))
	default:
		d.say("memory", found, "", "%s free", size(free))
	}
}

// folder checks one that is written to, or the nearest above it that exists.
func (d *doctor) folder(name, dir string, want int64) {
	at, err := filepath.Abs(dir)
	if err != nil {
		d.say(name, wrong, "", "%v", err)
		return
	}
	for {
		_, err := os.Stat(at)
		if !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
		at = filepath.Dir(at)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(at, &st); err != nil {
		d.say(name, wrong, "", "%s: %v", at, err)
		return
	}
	free := int64(st.Bavail) * st.Bsize
	text := fmt.Sprintf("%s: %s free (%s)", dir, size(free), vary.FSType(at))
	switch {
	case unix.Access(at, unix.W_OK) != nil:
		d.say(name, wrong, "name another folder, or have its owner change its mode", "%s: %s may not be written to", dir, at)
	case want > 0 && st.Flags&unix.ST_NOEXEC != 0:
		d.say(name, wrong, "what a step compiles or unpacks is run there: name a folder on a file system that is not mounted noexec", "%s: programs may not be run", text)
	case free < want:
		d.say(name, lesser, fmt.Sprintf("a build needs about %s", size(want)), "%s", text)
	case want > 0 && st.Files > 0 && st.Ffree < wantFiles:
		d.say(name, lesser, fmt.Sprintf("a build may need %d", wantFiles), "%s, %d files more", text, st.Ffree)
	default:
		d.say(name, found, "", "%s", text)
	}
}

// inputs checks that the store has what the lock needs, and returns how many
// bytes a build from it takes.
func (d *doctor) inputs() (need int64, err error) {
	l, _, err := d.readLock()
	if err != nil {
		return 0, err
	}
	st, err := withLower(d.openStore())
	if err != nil {
		d.say("inputs", lesser, "run "+quote(append([]string{"caisson", "prefetch"}, d.args()...)), "%v", err)
		return wantSpace, nil
	}
	if missing := len(prefetch.Missing(l, st)); missing > 0 {
		d.say("inputs", lesser, "run "+quote(append([]string{"caisson", "prefetch"}, d.args()...)), "%d of %d that %s names are not in the store", missing, len(l.Inputs), d.lockFile)
	} else {
		d.say("inputs", found, "", "all %d that %s names are in the store", len(l.Inputs), d.lockFile)
	}
	return build.Space(l, st, machineArch(), ""), nil
}

// programs checks those that some commands start.
func (d *doctor) programs() {
	var missing *boot.MissingError
	if err := boot.Check(); errors.As(err, &missing) {
		d.say("booting", lesser, "install "+missing.Package+" for `caisson boot` and `caisson verify --boot`", "%s is not here", missing.What)
	} else {
		d.say("booting", found, "", "QEMU, UEFI firmware and swtpm are here")
	}
	if p, err := exec.LookPath("cosign"); err != nil {
		d.say("cosign", found, "", "not here: only who checks statements without Caisson needs it")
	} else {
		d.say("cosign", found, "", "%s", p)
	}
}

// network says how servers would be reached.
func (d *doctor) network() {
	var said []string
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"} {
		v := os.Getenv(name)
		if v == "" {
			continue
		}
		u, err := url.Parse(v)
		if err != nil {
			d.say("proxy", wrong, "correct the variable", "%s is not an address", name) // it may hold a password
			return
		}
		said = append(said, name+"="+u.Redacted())
	}
	if v := os.Getenv("SSL_CERT_FILE"); v != "" {
		if _, err := os.Stat(v); err != nil {
			d.say("certificates", wrong, "correct SSL_CERT_FILE", "%v", err)
		} else {
			said = append(said, "SSL_CERT_FILE="+v)
		}
	}
	if len(said) == 0 {
		said = []string{"no proxy, the system's certificates"}
	}
	d.say("network", found, "", "%s", strings.Join(said, ", "))
}

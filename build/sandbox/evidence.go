package sandbox

import "time"

// maxListed bounds each list of the evidence; what did not fit is counted.
const maxListed = 256

// Evidence is what a sandbox was and what was tried in it. Everything but Volatile
// is the same for the same command on the same kind of machine, in any folder and
// for any user, except that a program may repeat a call more or less often, and make
// up names.
type Evidence struct {
	// Step is Spec.Name.
	Step string `json:"step"`
	// Command, Dir and Environment are what was started, complete.
	Command     []string `json:"command"`
	Dir         string   `json:"dir"`
	Environment []string `json:"environment"`
	Hostname    string   `json:"hostname"`
	// Around is what was otherwise than usual.
	Around *Surroundings `json:"around,omitempty"`

	// Namespaces are the kinds that were proven, from outside, to be others than
	// the caller's, sorted.
	Namespaces []string `json:"namespaces"`
	// Interfaces are all that the network namespace had at the end.
	Interfaces []Interface `json:"interfaces"`
	// Mounts are all that the command could see, from outside, sorted by target.
	Mounts []MountPoint `json:"mounts"`
	// Confinement is what the kernel says of the thread that started the command.
	Confinement Confinement `json:"confinement"`
	// Canaries were tried before the command, in the same sandbox.
	Canaries []Canary `json:"canaries"`

	// Attempts are the attempts to reach a network, each refused, in the order of
	// their first occurrence; AttemptsDropped further ones did not fit.
	Attempts        []Attempt `json:"networkAttempts"`
	AttemptsDropped uint64    `json:"networkAttemptsDropped,omitempty"`
	// Sockets counts what was allowed: netlink, UNIX sockets, loopback.
	Sockets        []SocketUse `json:"sockets"`
	SocketsDropped uint64      `json:"socketsDropped,omitempty"`
	// Refused counts the calls that the filter refused for other reasons.
	Refused        []RefusedCall `json:"refused"`
	RefusedDropped uint64        `json:"refusedDropped,omitempty"`
	// Writes counts the attempts to change what lies on a read-only mount, an input
	// or a tool: all failed.
	Writes        []WriteAttempt `json:"writeAttempts"`
	WritesDropped uint64         `json:"writeAttemptsDropped,omitempty"`
	// Faked counts the calls that Spec.FakeOwnership answered, by name.
	Faked map[string]uint64 `json:"faked,omitempty"`

	// ExitCode and Signal are the command's, as in Result.
	ExitCode int    `json:"exitCode"`
	Signal   string `json:"signal,omitempty"`
	// Inputs is for the caller: what it found in the read-only mounts.
	Inputs *Inputs `json:"inputs,omitempty"`

	// Volatile differs from run to run and from machine to machine.
	Volatile Volatile `json:"volatile"`
}

// NotRecorded are the attempts to get out that fail and that no Evidence lists,
// in words: canaries stand for them, where there can be some.
func NotRecorded() []string {
	return []string{
		"reading what is not there: the caller's files, and in /proc, or by a signal, its processes",
		"using the number of a descriptor that is not open: none but 0, 1 and 2 is handed on",
		"changing, through a descriptor that is open for reading, the times of a file on a read-only mount and, while packages are installed, its mode",
		"changing, by the name /proc/NUMBER/fd/N, what another process has open",
	}
}

// Inputs are the Merkle roots, with their algorithm's name in front, of the
// read-only inputs before and after the command. The package leaves them empty.
type Inputs struct {
	Before string `json:"before"`
	After  string `json:"after"`
}

// Volatile is the part of the evidence that no other run repeats.
type Volatile struct {
	// Inside and Outside are the inode numbers of the command's and the caller's
	// namespaces, by kind.
	Inside  map[string]uint64 `json:"namespacesInside"`
	Outside map[string]uint64 `json:"namespacesOutside"`
	// UID and GID are the caller's, which are 0 inside.
	UID int `json:"uid"`
	GID int `json:"gid"`
	// Kernel is the kernel's release.
	Kernel string `json:"kernel"`
	// Seconds is the time from Run's start to the command's end.
	Seconds float64 `json:"seconds"`
	// Processes says what bounds the number of processes: "pid_max" where process
	// numbers are limited per namespace, else "rlimit", which does not hold the
	// machine's own root.
	Processes string `json:"processLimit"`
	// SharedProc is true where the kernel allowed no new /proc, as in a container
	// that covers parts of its own: the command saw the caller's, read-only, with
	// the names, numbers and command lines of the container's processes, but not
	// their memory, environment or files (Landlock).
	SharedProc bool `json:"sharedProc,omitempty"`
}

// Interface is a network interface and what went through it. The counters of lo
// are left out: loopback is allowed.
type Interface struct {
	Name    string `json:"name"`
	RxBytes uint64 `json:"rxBytes"`
	TxBytes uint64 `json:"txBytes"`
}

// MountPoint is a line of mountinfo without what is the machine's.
type MountPoint struct {
	Target string `json:"target"`
	// Type is the file system's; for Spec.Root and Spec.Mounts that is the host's.
	Type string `json:"type"`
	// Flags are those of the mount, sorted; those about atime are left out.
	Flags []string `json:"flags"`
}

// Confinement is a thread's as /proc/PID/status has it.
type Confinement struct {
	// Seccomp is true where a filter is in force, NoNewPrivs where set-uid programs
	// gain nothing.
	Seccomp    bool `json:"seccomp"`
	NoNewPrivs bool `json:"noNewPrivs"`
	// Capabilities are the numbers of those over its own namespace that the command
	// may have, sorted. It has none over the machine.
	Capabilities []int `json:"capabilities"`
}

// Canary is one attempt to get out that the sandbox itself made.
type Canary struct {
	// Layer is what had to stop it: "namespace" alone, before the filter was in
	// force, or "filter", with both.
	Layer string `json:"layer"`
	// Name is what was tried, Destination where to.
	Name        string `json:"name"`
	Destination string `json:"destination,omitempty"`
	// Errno is the name of the error that refused it. Empty, it got through.
	Errno string `json:"errno"`
}

// Program is a program that made a call: its executable as the sandbox sees it,
// the name of its thread, and its arguments (the first 4096 bytes of them).
type Program struct {
	Exe  string   `json:"exe"`
	Comm string   `json:"comm"`
	Args []string `json:"args"`
}

// Attempt is an attempt to reach a network: a connect or send to an internet
// address that is not loopback, a packet, raw or vsock socket, or a UNIX socket
// that lies in a read-only mount, where somebody outside must have made it.
type Attempt struct {
	Program
	// Call is the system call, Family the address family, as "AF_INET".
	Call   string `json:"call"`
	Family string `json:"family"`
	// Destination is "ADDRESS:PORT", or the path of a UNIX socket, where the call has one.
	Destination string `json:"destination,omitempty"`
	Errno       string `json:"errno"`
	Count       uint64 `json:"count"`
}

// SocketUse counts the uses of sockets that were allowed.
type SocketUse struct {
	Exe  string `json:"exe"`
	Call string `json:"call"`
	// What is the family of a socket, or the loopback address of a connect or send.
	What  string `json:"what"`
	Count uint64 `json:"count"`
}

// RefusedCall counts the refusals of one system call to one program.
type RefusedCall struct {
	Exe   string `json:"exe"`
	Call  string `json:"call"`
	Errno string `json:"errno"`
	Count uint64 `json:"count"`
}

// WriteAttempt counts the attempts of one program to change one file, or folder,
// that lies on a read-only mount. Programs that look whether they may, and go on
// where they may not, are among them: it is no offence.
type WriteAttempt struct {
	Exe  string `json:"exe"`
	Call string `json:"call"`
	// Path is without symbolic links.
	Path  string `json:"path"`
	Errno string `json:"errno"`
	Count uint64 `json:"count"`
}

// NetworkAttempts are the command's attempts to reach a network: none may be
// there after a hermetic step. What did not fit into the list is in its last
// element, which then says so.
func (e *Evidence) NetworkAttempts() []Attempt {
	all := append([]Attempt(nil), e.Attempts...)
	if e.AttemptsDropped > 0 {
		all = append(all, Attempt{Program: Program{Exe: "(others, not listed)"}, Count: e.AttemptsDropped})
	}
	return all
}

// FileID names a file as long as it exists: stat's st_dev and st_ino.
type FileID struct{ Dev, Ino uint64 }

// Recorded is what the command believes of a file and the file system does not
// have. A field that was never set is nil: the file's own value holds.
type Recorded struct {
	// Path is where the file lies in the sandbox when the command has ended; a file
	// with several names has one of them here.
	Path string
	// UID and GID are the last owner and group that a chown gave.
	UID, GID *uint32
	// Xattrs are the security.* attributes by name, as they were last set.
	Xattrs map[string][]byte
	// Device is set for a device node: what lies there is an empty regular file,
	// which carries its permissions and can be renamed and removed.
	Device *Device

	// identity tells the file from a later one with the same FileID.
	identity string
}

// Device is what mknod was asked for.
type Device struct {
	Block        bool
	Major, Minor uint32
}

func seconds(d time.Duration) float64 { return d.Round(time.Millisecond).Seconds() }

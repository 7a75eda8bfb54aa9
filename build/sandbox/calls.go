package sandbox

import (
	"slices"

	"golang.org/x/sys/unix"
)

// call is a system call that the filter does not simply allow.
type call struct {
	nr   int
	name string
	rule []unix.SockFilter
	// decide answers a notification. Where it is nil, a call with targets is carried
	// out, and another refused with EPERM.
	decide func(*listener, *request) answer
	// targets are the files that the call writes to; nil where it is none that does.
	targets func(*request) []target
	// when says which sandboxes have a rule for it.
	when condition
}

// condition is what of a Spec asks for a rule.
type condition int

const (
	always  condition = iota
	ifFaked           // Spec.FakeOwnership
	ifShown           // Spec.Shown
	ifTold            // Spec.Told
	unlessFaked
	ifCPUs     // Surroundings.CPUs
	ifReversed // Surroundings.Reversed
)

// features are what a Spec asks of the filter.
type features struct {
	FakeOwnership, Shown, Told, CPUs, Reversed bool
}

// has tells whether a sandbox with these features has a rule for c.
func (f features) has(c *call) bool {
	return [...]bool{
		always: true, ifFaked: f.FakeOwnership, ifShown: f.Shown, ifTold: f.Told, unlessFaked: !f.FakeOwnership,
		ifCPUs: f.CPUs, ifReversed: f.Reversed,
	}[c.when]
}

// calls are those that a sandbox with these features has a rule for, each once: a
// call may be both answered and looked at for what it writes to.
func (f features) calls() []call {
	var out []call
	at := map[int]int{}
	for _, c := range calls() {
		i, twice := at[c.nr]
		switch {
		case !f.has(&c):
		case twice:
			out[i].targets, out[i].rule = c.targets, c.rule
		default:
			at[c.nr] = len(out)
			out = append(out, c)
		}
	}
	return out
}

// calls is the whole policy, in one list: the network, then what Spec.FakeOwnership,
// Spec.Shown and Spec.Around answer and Spec.Told is told of, what is refused, and what writes to
// files. A call that is not here is allowed.
func calls() []call {
	return slices.Concat(networkCalls(), ownerCalls(), archOwnerCalls(), shownCalls(), archShownCalls(), surroundingCalls(), execCalls(),
		refusedCalls(), archRefusedCalls(), writeCalls(), archWriteCalls())
}

func networkCalls() []call {
	return []call{
		{nr: unix.SYS_SOCKET, name: "socket", rule: notifyUnless(unix.AF_UNIX), decide: (*listener).socket},
		{nr: unix.SYS_CONNECT, name: "connect", rule: notifyAlways(), decide: (*listener).connect},
		{nr: unix.SYS_SENDTO, name: "sendto", rule: notifyIfPointer(4), decide: (*listener).sendto},
		{nr: unix.SYS_SENDMSG, name: "sendmsg", rule: notifyAlways(), decide: (*listener).sendmsg},
		{nr: unix.SYS_SENDMMSG, name: "sendmmsg", rule: notifyAlways(), decide: (*listener).sendmmsg},
	}
}

func owner(nr int, name string, rule []unix.SockFilter, decide func(*listener, *request) answer) call {
	return call{nr: nr, name: name, rule: rule, decide: decide, when: ifFaked}
}

func ownerCalls() []call {
	return []call{
		owner(unix.SYS_FCHOWN, "fchown", notifyAlways(), (*listener).fchown),
		owner(unix.SYS_FCHOWNAT, "fchownat", notifyAlways(), (*listener).fchownat),
		owner(unix.SYS_MKNODAT, "mknodat", notifyAlways(), (*listener).mknodat),
		owner(unix.SYS_SETXATTR, "setxattr", notifyAlways(), (*listener).setxattr),
		owner(unix.SYS_LSETXATTR, "lsetxattr", notifyAlways(), (*listener).lsetxattr),
		owner(unix.SYS_FSETXATTR, "fsetxattr", notifyAlways(), (*listener).fsetxattr),
		owner(unix.SYS_REMOVEXATTR, "removexattr", notifyAlways(), (*listener).removexattr),
		owner(unix.SYS_LREMOVEXATTR, "lremovexattr", notifyAlways(), (*listener).lremovexattr),
		owner(unix.SYS_FREMOVEXATTR, "fremovexattr", notifyAlways(), (*listener).fremovexattr),
		owner(unix.SYS_SETUID, "setuid", notifyUnless(0), (*listener).pretend),
		owner(unix.SYS_SETGID, "setgid", notifyUnless(0), (*listener).pretend),
		owner(unix.SYS_SETREUID, "setreuid", notifyAlways(), (*listener).setIDs2),
		owner(unix.SYS_SETREGID, "setregid", notifyAlways(), (*listener).setIDs2),
		owner(unix.SYS_SETRESUID, "setresuid", notifyAlways(), (*listener).setIDs3),
		owner(unix.SYS_SETRESGID, "setresgid", notifyAlways(), (*listener).setIDs3),
		owner(unix.SYS_SETFSUID, "setfsuid", notifyUnless(0), (*listener).pretend),
		owner(unix.SYS_SETFSGID, "setfsgid", notifyUnless(0), (*listener).pretend),
		owner(unix.SYS_SETGROUPS, "setgroups", notifyAlways(), (*listener).pretend),
		owner(unix.SYS_CAPSET, "capset", notifyAlways(), (*listener).pretend),
	}
}

func refuse(nr int, name string) call { return call{nr: nr, name: name, rule: notifyAlways()} }

// refusedCalls are those that make sockets without socket(2), leave the sandbox or
// look out of it, change its mounts, or reach far into the kernel. None is needed
// by rpm, scriptlets, compilers, go or cargo; chroot, which rpm needs, is not here.
func refusedCalls() []call {
	return []call{
		refuse(unix.SYS_IO_URING_SETUP, "io_uring_setup"),
		refuse(unix.SYS_IO_URING_ENTER, "io_uring_enter"),
		refuse(unix.SYS_IO_URING_REGISTER, "io_uring_register"),
		refuse(unix.SYS_BPF, "bpf"),
		refuse(unix.SYS_USERFAULTFD, "userfaultfd"),
		refuse(unix.SYS_PERF_EVENT_OPEN, "perf_event_open"),
		refuse(unix.SYS_PTRACE, "ptrace"),
		refuse(unix.SYS_PROCESS_VM_READV, "process_vm_readv"),
		refuse(unix.SYS_PROCESS_VM_WRITEV, "process_vm_writev"),
		refuse(unix.SYS_PIDFD_GETFD, "pidfd_getfd"),
		refuse(unix.SYS_KCMP, "kcmp"),
		refuse(unix.SYS_ADD_KEY, "add_key"),
		refuse(unix.SYS_REQUEST_KEY, "request_key"),
		refuse(unix.SYS_KEYCTL, "keyctl"),
		refuse(unix.SYS_KEXEC_LOAD, "kexec_load"),
		refuse(unix.SYS_KEXEC_FILE_LOAD, "kexec_file_load"),
		refuse(unix.SYS_INIT_MODULE, "init_module"),
		refuse(unix.SYS_FINIT_MODULE, "finit_module"),
		refuse(unix.SYS_DELETE_MODULE, "delete_module"),
		refuse(unix.SYS_OPEN_BY_HANDLE_AT, "open_by_handle_at"),
		refuse(unix.SYS_MOUNT, "mount"),
		refuse(unix.SYS_UMOUNT2, "umount2"),
		refuse(unix.SYS_PIVOT_ROOT, "pivot_root"),
		refuse(unix.SYS_OPEN_TREE, "open_tree"),
		refuse(unix.SYS_OPEN_TREE_ATTR, "open_tree_attr"),
		refuse(unix.SYS_MOVE_MOUNT, "move_mount"),
		refuse(unix.SYS_FSOPEN, "fsopen"),
		refuse(unix.SYS_FSCONFIG, "fsconfig"),
		refuse(unix.SYS_FSMOUNT, "fsmount"),
		refuse(unix.SYS_FSPICK, "fspick"),
		refuse(unix.SYS_MOUNT_SETATTR, "mount_setattr"),
		refuse(unix.SYS_SWAPON, "swapon"),
		refuse(unix.SYS_SWAPOFF, "swapoff"),
		refuse(unix.SYS_ACCT, "acct"),
		refuse(unix.SYS_REBOOT, "reboot"),
		refuse(unix.SYS_SYSLOG, "syslog"),
		refuse(unix.SYS_SETTIMEOFDAY, "settimeofday"),
		refuse(unix.SYS_CLOCK_SETTIME, "clock_settime"),
		refuse(unix.SYS_SETHOSTNAME, "sethostname"),
		refuse(unix.SYS_SETDOMAINNAME, "setdomainname"),
		refuse(unix.SYS_SETNS, "setns"),
		{nr: unix.SYS_UNSHARE, name: "unshare", rule: notifyIfBits(0, newNamespaces|unix.CLONE_NEWTIME)},
		{nr: unix.SYS_CLONE, name: "clone", rule: notifyIfBits(0, newNamespaces)},
		// Its flags lie in memory, where a filter cannot see them; libraries fall back
		// to clone.
		{nr: unix.SYS_CLONE3, name: "clone3", rule: absent()},
	}
}

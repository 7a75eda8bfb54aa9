package sandbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// escapes are ways out. Each returns the error that stopped it.
func escapes() map[string]func() error {
	sock := func(family, kind, proto int) func() error {
		return func() error {
			fd, err := unix.Socket(family, kind, proto)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}
	}
	raw := func(nr uintptr, args ...uintptr) func() error {
		return func() error {
			var a [6]uintptr
			copy(a[:], args)
			_, _, errno := unix.Syscall6(nr, a[0], a[1], a[2], a[3], a[4], a[5])
			if errno != 0 {
				return errno
			}
			return nil
		}
	}
	return map[string]func() error{
		"tcp":  func() error { return dial("tcp", "192.0.2.7:80") },
		"tcp6": func() error { return dial("tcp", "[2001:db8::7]:80") },
		"udp":  func() error { return dial("udp", "192.0.2.7:9") },
		"udp-sendmsg": func() error {
			c, err := net.ListenUDP("udp4", nil)
			if err != nil {
				return err
			}
			defer c.Close()
			_, _, err = c.WriteMsgUDP([]byte("x"), nil, &net.UDPAddr{IP: net.IPv4(192, 0, 2, 8), Port: 9})
			return err
		},
		"dns": func() error {
			c, err := net.ListenUDP("udp4", nil)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.WriteToUDP([]byte(dnsQuery), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 53), Port: 53})
			return err
		},
		"raw":            sock(unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP),
		"packet":         sock(unix.AF_PACKET, unix.SOCK_RAW, 0x300),
		"vsock":          sock(unix.AF_VSOCK, unix.SOCK_STREAM, 0),
		"alg":            sock(unix.AF_ALG, unix.SOCK_SEQPACKET, 0),
		"abstract":       func() error { return tryAbstract(os.Getenv("HOST_ABSTRACT")) },
		"path-socket":    func() error { return dial("unix", os.Getenv("HOST_SOCKET")) },
		"input-socket":   func() error { return dial("unix", "/input/s") },
		"inherited-fd":   func() error { _, err := unix.Dup(hostFD()); return err },
		"io_uring":       raw(unix.SYS_IO_URING_SETUP, 1, 0),
		"setns":          raw(unix.SYS_SETNS, 0, 0),
		"unshare-user":   func() error { return unix.Unshare(unix.CLONE_NEWUSER) },
		"unshare-net":    func() error { return unix.Unshare(unix.CLONE_NEWNET) },
		"clone-user":     raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD), 0),
		"ptrace-1":       func() error { return unix.PtraceAttach(1) },
		"read-1-mem":     raw(unix.SYS_PROCESS_VM_READV, 1),
		"bpf":            raw(unix.SYS_BPF, 0),
		"keyctl":         raw(unix.SYS_KEYCTL, 0),
		"mount":          func() error { return unix.Mount("x", "/tmp", "tmpfs", 0, "") },
		"remount":        func() error { return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND, "") },
		"umount":         func() error { return unix.Unmount("/proc/sys", 0) },
		"hostname":       func() error { return unix.Sethostname([]byte("x")) },
		"write-root":     func() error { return os.WriteFile("/evil", nil, 0o600) },
		"write-input":    func() error { return os.WriteFile("/input/evil", nil, 0o600) },
		"chmod-input":    func() error { return os.Chmod("/input/file", 0o777) },
		"write-sysctl":   func() error { return os.WriteFile("/proc/sys/kernel/core_pattern", []byte("|/evil"), 0o600) },
		"sysrq":          func() error { return os.WriteFile("/proc/sysrq-trigger", []byte("h"), 0o600) },
		"chmod-null":     func() error { return os.Chmod("/dev/null", 0o600) },
		"read-1-environ": func() error { _, err := os.ReadFile("/proc/1/environ"); return err },
		"read-1-fd":      func() error { _, err := os.ReadFile("/proc/1/fd/0"); return err },
		"read-1-exe":     func() error { _, err := os.Readlink("/proc/1/exe"); return err },
		"host-sys":       func() error { _, err := os.ReadDir("/sys"); return err },
		"host-process":   func() error { return unix.Kill(hostPID(), 0) },
		"leave-chroot":   leaveChroot,
	}
}

func dial(network, addr string) error {
	c, err := net.DialTimeout(network, addr, time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	_, err = c.Write([]byte("x"))
	return err
}

func hostPID() int {
	n, _ := strconv.Atoi(os.Getenv("HOST_PID"))
	return n
}

func hostFD() int {
	n, _ := strconv.Atoi(os.Getenv("HOST_FD"))
	return n
}

// leaveChroot climbs out of a chroot, as every process with CAP_SYS_CHROOT can, and
// must not be above the sandbox's root.
func leaveChroot() error {
	if err := os.MkdirAll("/tmp/jail", 0o700); err != nil {
		return err
	}
	if err := syscall.Chroot("/tmp/jail"); err != nil {
		return fmt.Errorf("chroot is needed by rpm, and was refused: %w", err)
	}
	for range 64 {
		if err := syscall.Chdir(".."); err != nil {
			return err
		}
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	_, err := os.Stat(os.Getenv("HOST_FILE"))
	return err
}

// reportErrors is a process's exit code: 1 where there are errors.
func reportErrors(errs ...error) int {
	code := 0
	for i, err := range errs {
		if err != nil {
			fmt.Printf("step %d: %v\n", i, err)
			code = 1
		}
	}
	return code
}

// guest is what this test's executable does inside a sandbox.
func guest(name string) int {
	switch name {
	case "escape":
		for _, n := range strings.Split(os.Getenv("ESCAPES"), ",") {
			fmt.Printf("%s: %v\n", n, escapes()[n]())
		}
	case "forkbomb":
		for {
			if pid, err := syscall.ForkExec("/proc/self/exe", os.Args, &syscall.ProcAttr{Env: os.Environ()}); err != nil {
				time.Sleep(time.Millisecond)
			} else if pid == 0 {
				return 0
			}
		}
	case "attempts":
		// More different attempts than the record holds.
		for i := range maxListed + 10 {
			_ = dial("udp", fmt.Sprintf("192.0.2.1:%d", i+1))
		}
	case "xattrs":
		return reportErrors(
			os.WriteFile("/a", nil, 0o644), os.WriteFile("/b", nil, 0o644), os.WriteFile("/chowned", nil, 0o644),
			unix.Setxattr("/a", "security.capability", []byte("one"), 0),
			unix.Lsetxattr("/a", "security.capability", []byte("two"), 0),
			unix.Setxattr("/a", "security.selinux", nil, 0),
			unix.Setxattr("/b", "security.x", []byte("v"), 0),
			unix.Removexattr("/b", "security.x"),
			unix.Setxattr("/chowned", "security.capability", []byte("v"), 0),
			unix.Setxattr("/chowned", "security.selinux", []byte("label"), 0),
			os.Chown("/chowned", 1, 1),
			unix.Setxattr("/a", "user.plain", []byte("v"), 0),
		)
	case "caller":
		// Not a guest: a process outside that runs one and is then killed.
		s := Spec{Root: os.Args[1], Mounts: []Mount{{Source: "/usr", Target: "/usr"}}, Stdout: os.Stdout}
		s.Args = append([]string{"sh", "-c", `echo started; "$@"; :`, "sh"}, os.Args[2:]...)
		_, err := Run(context.Background(), s)
		return reportErrors(err)
	case "interfaces":
		all, err := net.Interfaces()
		for _, i := range all {
			fmt.Println(i.Name, i.Flags)
		}
		if err != nil {
			fmt.Println(err)
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			fmt.Println(err)
			return 1
		}
		fmt.Println("loopback:", dial("tcp", l.Addr().String()))
	default:
		fmt.Printf("unknown guest %q\n", name)
		return 1
	}
	return 0
}

package sandbox

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

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
		"udp-sendmmsg": func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			to := unix.RawSockaddrInet4{Family: unix.AF_INET, Port: 0x0900, Addr: [4]byte{192, 0, 2, 9}}
			m := [64]byte{} // struct mmsghdr: the address and its length come first
			*(*uintptr)(unsafe.Pointer(&m[0])), *(*uint32)(unsafe.Pointer(&m[8])) = uintptr(unsafe.Pointer(&to)), unix.SizeofSockaddrInet4
			_, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m[0])), 1, 0, 0, 0)
			runtime.KeepAlive(&to)
			if errno != 0 {
				return errno
			}
			return nil
		},
		"tcp-mapped": func() error {
			fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:192.0.2.7").As16(), Port: 81})
		},
		"tcp-fastopen": func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Sendto(fd, []byte("x"), unix.MSG_FASTOPEN, &unix.SockaddrInet4{Addr: [4]byte{192, 0, 2, 7}, Port: 82})
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
		"raw6":           sock(unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6),
		"netlink-route":  routeOut,
		"setns-1":        func() error { return setnsOf("/proc/1/ns/net") },
		"setns-host":     func() error { return setnsOf(fmt.Sprintf("/proc/%d/ns/net", hostPID())) },
		"host-environ":   func() error { _, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", hostPID())); return err },
		"host-root":      func() error { _, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", hostPID())); return err },
		"host-fd":        func() error { _, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/0", hostPID())); return err },
		"pidfd-getfd":    raw(unix.SYS_PIDFD_GETFD, 0, 0),
		"write-1-mem":    raw(unix.SYS_PROCESS_VM_WRITEV, 1),
		"truncate-input": func() error { return os.Truncate("/input/file", 0) },
		"remove-input":   func() error { return os.Remove("/input/file") },
		"rename-input":   func() error { return os.Rename("/input/file", "/input/other") },
		"link-input":     func() error { return os.Link("/input/file", "/input/other") },
		"touch-input":    func() error { return os.Chtimes("/input/file", time.Unix(1, 0), time.Unix(1, 0)) },
		"xattr-input":    func() error { return unix.Setxattr("/input/file", "user.evil", []byte("x"), 0) },
		"reopen-input":   reopenInput,
		"open-input":     func() error { return os.WriteFile("/input/file", nil, 0o600) },
		"openat2-input": func() error {
			fd, err := unix.Openat2(unix.AT_FDCWD, "/input/file", &unix.OpenHow{Flags: unix.O_RDWR})
			if err == nil {
				unix.Close(fd)
			}
			return err
		},
		"openat-input": func() error {
			return inInput(func(fd int) error { _, err := unix.Openat(fd, "file", unix.O_WRONLY|unix.O_TRUNC, 0); return err })
		},
		"mkdir-input":   func() error { return os.Mkdir("/input/folder", 0o700) },
		"symlink-input": func() error { return os.Symlink("x", "/input/link") },
		"mkfifo-input":  func() error { return unix.Mkfifo("/input/pipe", 0o600) },
		"rmdir-input":   func() error { return unix.Rmdir("/input/none") },
		"chown-input":   func() error { return os.Lchown("/input/file", 0, 0) },
		"fchmod-input":  func() error { return inInput(func(fd int) error { return unix.Fchmod(fd, 0o777) }) },
		"fchown-input":  func() error { return inInput(func(fd int) error { return unix.Fchown(fd, 0, 0) }) },
		"flags-input": func() error {
			return inInput(func(fd int) error { return unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, 0) })
		},
		"write-tool":     func() error { return os.WriteFile("/usr/bin/env", nil, 0o600) },
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

// routeOut asks the kernel by netlink for a way out of the namespace. The socket is
// allowed, and there is no interface to route to.
func routeOut() error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	// struct nlmsghdr and struct rtmsg of RTM_NEWROUTE: a default route on interface 1.
	m := []byte{36, 0, 0, 0, unix.RTM_NEWROUTE, 0, unix.NLM_F_REQUEST | unix.NLM_F_ACK, 4, 1, 0, 0, 0, 0, 0, 0, 0,
		unix.AF_INET, 0, 0, 0, unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RT_SCOPE_LINK, unix.RTN_UNICAST, 0, 0, 0, 0, 8, 0, unix.RTA_OIF, 0, 1, 0, 0, 0}
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil || n < 20 {
		return fmt.Errorf("an answer of %d bytes: %w", n, err)
	}
	if code := int32(binary.LittleEndian.Uint32(answer[16:])); code != 0 { //nolint:gosec // nlmsgerr has it signed
		return syscall.Errno(-code)
	}
	return nil
}

func setnsOf(name string) error {
	fd, err := unix.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Setns(fd, unix.CLONE_NEWNET)
}

// reopenInput opens an input for reading, and again through /proc for writing.
func reopenInput() error {
	f, err := os.Open("/input/file")
	if err != nil {
		return fmt.Errorf("reading was refused: %w", err)
	}
	defer f.Close()
	w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
	if err == nil {
		w.Close()
	}
	return err
}

// inInput opens the input's folder.
func inInput(then func(fd int) error) error {
	fd, err := unix.Open("/input", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil //nolint:nilerr // an escape that is not tried counts as one that worked
	}
	defer unix.Close(fd)
	return then(fd)
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

package sandbox

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Addresses that are set aside for documentation (RFC 5737, RFC 3849): where there
// is a network, packets to them leave the machine and nobody answers.
const (
	canary4 = "192.0.2.1"
	canary6 = "2001:db8::1"
)

// dnsQuery asks for the address of "caisson.invalid" (RFC 1035, section 4).
const dnsQuery = "\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07caisson\x07invalid\x00\x00\x01\x00\x01"

// errnoName is the name of err, and "" where there is none.
func errnoName(err error) string {
	if err == nil || err == syscall.Errno(0) {
		return ""
	}
	var e syscall.Errno
	if errors.As(err, &e) {
		if name := unix.ErrnoName(e); name != "" {
			return name
		}
	}
	return err.Error()
}

// namespaceCanaries try to get out with all capabilities and without the filter:
// that nothing leaves is then the network namespace's doing.
func namespaceCanaries(hostSocket string) []Canary {
	return canaries("namespace", hostSocket)
}

// filterCanaries try to get out from under the filter, as the command will be,
// and to find something of the caller's processes: a descriptor, a process, or,
// where /proc shows them, what is in the caller's own.
func filterCanaries(hostSocket string, hostPID int) []Canary {
	all := canaries("filter", hostSocket)
	for _, c := range []struct {
		name                 string
		family, kind, protoc int
	}{
		{"raw socket", unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP},
		{"packet socket", unix.AF_PACKET, unix.SOCK_DGRAM, 0},
		{"vsock", unix.AF_VSOCK, unix.SOCK_STREAM, 0},
	} {
		fd, err := unix.Socket(c.family, c.kind|unix.SOCK_CLOEXEC, c.protoc)
		if err == nil {
			unix.Close(fd)
		}
		all = append(all, Canary{Layer: "filter", Name: c.name, Errno: errnoName(err)})
	}
	_, _, e := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0)
	all = append(all, Canary{Layer: "filter", Name: "io_uring", Errno: errnoName(e)})
	all = append(all, Canary{Layer: "filter", Name: "inherited descriptor", Errno: errnoName(inherited())})
	if hostPID == 0 {
		return append(all, Canary{Layer: "filter", Name: "another process", Errno: errnoName(otherProcess())})
	}
	// What stops this one is that the caller is outside the Landlock domain.
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/environ", hostPID), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		unix.Close(fd)
	}
	return append(all, Canary{Layer: "filter", Name: "environment of the caller", Errno: errnoName(err)})
}

// inherited looks for an open descriptor that the command would be started with
// beside its three.
func inherited() error {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= 2 {
			continue
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 {
			return nil
		}
	}
	return unix.EBADF
}

// otherProcess looks in /proc for a process beside process 1, who asks.
func otherProcess() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && pid != 1 {
			return nil
		}
	}
	return unix.ENOENT
}

// canaries try TCP, UDP, DNS and an abstract UNIX socket of the caller's network.
func canaries(layer, hostSocket string) []Canary {
	var all []Canary
	for _, ip := range []string{canary4, canary6} {
		for _, c := range []struct {
			name, port string
			try        func(netip.AddrPort) error
		}{
			{"tcp", "80", func(to netip.AddrPort) error { return trySocket(to, unix.SOCK_STREAM, "") }},
			{"udp", "9", func(to netip.AddrPort) error { return trySocket(to, unix.SOCK_DGRAM, "caisson") }},
			{"dns", "53", func(to netip.AddrPort) error { return trySocket(to, unix.SOCK_DGRAM, dnsQuery) }},
		} {
			to := ip + ":" + c.port
			if strings.Contains(ip, ":") {
				to = "[" + ip + "]:" + c.port
			}
			err := c.try(netip.MustParseAddrPort(to))
			all = append(all, Canary{Layer: layer, Name: c.name, Destination: to, Errno: errnoName(err)})
		}
	}
	return append(all, Canary{Layer: layer, Name: "abstract socket", Errno: errnoName(tryAbstract(hostSocket))})
}

// trySocket connects to, or sends one datagram to, an address. EINPROGRESS, a
// connection under way, counts as having got through.
func trySocket(to netip.AddrPort, kind int, datagram string) error {
	family := unix.AF_INET
	var sa unix.Sockaddr
	if to.Addr().Is4() {
		sa = &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())}
	} else {
		family, sa = unix.AF_INET6, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if kind == unix.SOCK_DGRAM {
		return unix.Sendto(fd, []byte(datagram), 0, sa)
	}
	if err := unix.Connect(fd, sa); err != unix.EINPROGRESS {
		return err
	}
	return nil
}

func tryAbstract(name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Connect(fd, &unix.SockaddrUnix{Name: name})
}

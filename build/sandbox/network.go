package sandbox

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxMessages bounds how many messages of one sendmmsg are looked at; the kernel
// itself takes no more (UIO_MAXIOV).
const maxMessages = 1024

// typeMask takes SOCK_NONBLOCK and SOCK_CLOEXEC off a socket's type.
const typeMask = 0xf

func familyName(f int) string {
	names := map[int]string{
		unix.AF_UNSPEC: "AF_UNSPEC", unix.AF_UNIX: "AF_UNIX", unix.AF_INET: "AF_INET", unix.AF_INET6: "AF_INET6",
		unix.AF_NETLINK: "AF_NETLINK", unix.AF_PACKET: "AF_PACKET", unix.AF_VSOCK: "AF_VSOCK", unix.AF_ALG: "AF_ALG",
		unix.AF_BLUETOOTH: "AF_BLUETOOTH", unix.AF_XDP: "AF_XDP", unix.AF_CAN: "AF_CAN", unix.AF_TIPC: "AF_TIPC",
	}
	if n, ok := names[f]; ok {
		return n
	}
	return fmt.Sprint("AF_", f)
}

// socket decides socket(domain, type, protocol), from numbers alone: nothing here
// can be raced.
func (l *listener) socket(r *request) answer {
	family, kind := int(r.arg(0)), int(r.arg(1))&typeMask
	switch family {
	case unix.AF_INET, unix.AF_INET6:
		if kind == unix.SOCK_RAW || kind == unix.SOCK_PACKET {
			l.record.attempt(r, familyName(family)+" raw", "", unix.EPERM)
			return fail(unix.EPERM)
		}
	case unix.AF_NETLINK:
	case unix.AF_PACKET, unix.AF_VSOCK:
		l.record.attempt(r, familyName(family), "", unix.EAFNOSUPPORT)
		return fail(unix.EAFNOSUPPORT)
	default:
		l.record.refused(r, "socket "+familyName(family), unix.EAFNOSUPPORT)
		return fail(unix.EAFNOSUPPORT)
	}
	what := familyName(family)
	if family == unix.AF_NETLINK {
		what = fmt.Sprint(what, " protocol ", r.arg(2))
	}
	l.record.socket(r, what)
	return carryOut()
}

func (l *listener) connect(r *request) answer { return l.towards(r, r.args[1], r.args[2]) }
func (l *listener) sendto(r *request) answer  { return l.towards(r, r.args[4], r.args[5]) }

// sendmsg decides sendmsg(fd, msg, flags): a struct msghdr begins with the address
// and its length.
func (l *listener) sendmsg(r *request) answer {
	w, err := r.words(r.args[1], 2)
	if err != nil {
		return carryOut() // the kernel will find the same fault
	}
	if w[0] == 0 {
		return carryOut()
	}
	return l.towards(r, w[0], uint64(uint32(w[1])))
}

// sendmmsg decides sendmmsg(fd, messages, n, flags) by its first destination that
// is refused.
func (l *listener) sendmmsg(r *request) answer {
	const size = 64 // struct mmsghdr
	n := min(int(uint32(r.args[2])), maxMessages)
	for i := range n {
		w, err := r.words(r.args[1]+uint64(i*size), 2)
		if err != nil || w[0] == 0 {
			continue
		}
		if a := l.towards(r, w[0], uint64(uint32(w[1]))); !a.goOn {
			return a
		}
	}
	return carryOut()
}

// towards decides a call with the address of length n at addr.
func (l *listener) towards(r *request, addr, n uint64) answer {
	if addr == 0 {
		return carryOut()
	}
	b, err := r.memory(addr, int(min(n, unix.SizeofSockaddrAny)))
	if err != nil || len(b) < 2 {
		return carryOut() // the kernel will find the same fault
	}
	family := int(binary.LittleEndian.Uint16(b))
	to, ok := inetAddress(family, b)
	switch {
	case ok && isLoopback(to.Addr()):
		l.record.socket(r, to.String())
		return carryOut()
	case ok:
		l.record.attempt(r, familyName(family), to.String(), unix.ENETUNREACH)
		return fail(unix.ENETUNREACH)
	case family == unix.AF_UNIX && l.isInput(r, b):
		l.record.attempt(r, familyName(family), unixPath(b), unix.ECONNREFUSED)
		return fail(unix.ECONNREFUSED)
	case family == unix.AF_UNIX && isAbstract(b) && !l.bound(b):
		l.record.refused(r, r.call.name+" AF_UNIX "+abstractName(b), unix.ECONNREFUSED)
		return fail(unix.ECONNREFUSED)
	case family == unix.AF_UNIX:
		l.record.socket(r, strings.TrimSpace("AF_UNIX "+unixPath(b)))
		return carryOut()
	case family == unix.AF_NETLINK:
		l.record.socket(r, "AF_NETLINK"+r.netlinkMessage())
		return carryOut()
	case family == unix.AF_UNSPEC:
		l.record.socket(r, familyName(family))
		return carryOut()
	}
	// There is no socket of another family to use it with.
	l.record.refused(r, r.call.name+" "+familyName(family), unix.EAFNOSUPPORT)
	return fail(unix.EAFNOSUPPORT)
}

// unixPath is the path in a struct sockaddr_un, "" for an abstract address.
func unixPath(b []byte) string {
	name, _, _ := bytes.Cut(b[2:], []byte{0})
	return strings.ToValidUTF8(string(name), "\uFFFD")
}

// isAbstract says whether a struct sockaddr_un has an abstract name (unix(7)): it
// begins with a zero byte.
func isAbstract(b []byte) bool { return len(b) > 2 && b[2] == 0 }

// abstractName is the abstract name in a struct sockaddr_un, as /proc/net/unix
// writes it.
func abstractName(b []byte) string {
	return strings.ToValidUTF8(strings.ReplaceAll(string(b[2:]), "\x00", "@"), "\uFFFD")
}

// bound says whether a process inside has bound an abstract name. Where none has,
// who connects to it is looking for somebody outside. What cannot be read counts
// as bound: the namespace holds in any case.
func (l *listener) bound(b []byte) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/unix", l.initPID))
	return err != nil || bytes.Contains(text, []byte(" "+strings.ReplaceAll(string(b[2:]), "\x00", "@")+"\n"))
}

// netlinkMessage is the type of the first message (netlink(7)) that a call sends.
func (r *request) netlinkMessage() string {
	at := r.args[1]
	if r.call.nr == unix.SYS_SENDMSG { // a struct msghdr, and the first struct iovec of it
		w, err := r.words(at+16, 1)
		if err == nil {
			w, err = r.words(w[0], 1)
		}
		if err != nil {
			return ""
		}
		at = w[0]
	}
	if r.call.nr != unix.SYS_SENDTO && r.call.nr != unix.SYS_SENDMSG {
		return ""
	}
	head, err := r.memory(at, 6) // of a struct nlmsghdr: the length, and the type
	if err != nil || len(head) < 6 {
		return ""
	}
	return fmt.Sprint(" message ", binary.LittleEndian.Uint16(head[4:]))
}

// isInput says whether a UNIX address is a file on a read-only mount: nothing inside
// can have made that socket, so whoever listens is outside.
func (l *listener) isInput(r *request, b []byte) bool {
	name := unixPath(b)
	if name == "" {
		return false
	}
	fd, err := l.file(r, unix.AT_FDCWD, name, false)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Flags&unix.ST_RDONLY != 0
}

// inetAddress is the address in a struct sockaddr_in or sockaddr_in6.
func inetAddress(family int, b []byte) (netip.AddrPort, bool) {
	switch {
	case family == unix.AF_INET && len(b) >= 8:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:])), true
	case family == unix.AF_INET6 && len(b) >= 24:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(b[8:24])), binary.BigEndian.Uint16(b[2:])), true
	}
	return netip.AddrPort{}, false
}

// isLoopback says whether Linux sends to a without leaving the machine: loopback,
// or the unspecified address, which stands for it.
func isLoopback(a netip.Addr) bool {
	a = a.Unmap()
	return a.IsLoopback() || a.IsUnspecified()
}

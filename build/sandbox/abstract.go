package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// abstractSocket listens at an abstract UNIX address, chosen by the kernel, of the
// caller's network namespace. Nothing in a sandbox can reach it.
type abstractSocket struct {
	fd   int
	name string // with "@" in front, as unix.SockaddrUnix has it
}

func listenAbstract() (*abstractSocket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	a := &abstractSocket{fd: fd}
	// An empty name binds to a free abstract address (unix(7), autobind).
	if err = unix.Bind(fd, &unix.SockaddrUnix{}); err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		a.close()
		return nil, err
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		a.close()
		return nil, err
	}
	u, ok := sa.(*unix.SockaddrUnix)
	if !ok || len(u.Name) < 2 {
		a.close()
		return nil, fmt.Errorf("the kernel gave the address %v", sa)
	}
	a.name = u.Name
	return a, nil
}

// reachable says whether the caller itself can connect, without which a canary
// that could not would prove nothing.
func (a *abstractSocket) reachable() error { return tryAbstract(a.name) }

func (a *abstractSocket) close() { unix.Close(a.fd) }

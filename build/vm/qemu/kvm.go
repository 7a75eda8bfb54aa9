package qemu

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Calls of KVM's own (Documentation/virt/kvm/api.rst, sections 4.1 and 4.2), and the
// version of them that does not change any more.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmVersion       = 12
)

// createMachine makes a machine without anything in it, which fails where the
// processor, or who runs this machine, does not allow any.
func createMachine(kvm *os.File) error {
	v, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmGetAPIVersion, 0)
	if errno != 0 {
		return fmt.Errorf("%s: asking for the version: %w", kvm.Name(), errno)
	}
	if v != kvmVersion {
		return fmt.Errorf("%s: version %d, want %d", kvm.Name(), v, kvmVersion)
	}
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), kvmCreateVM, 0)
	if errno != 0 {
		return fmt.Errorf("%s: making a machine: %w", kvm.Name(), errno)
	}
	return syscall.Close(int(fd))
}

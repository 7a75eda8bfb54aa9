package vm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The machine's disks, by the serial numbers that they have.
const (
	diskInputs  = "inputs"
	diskResults = "results"
	diskSwap    = "swap"
)

// portName is the name of the port that the machine writes messages to.
const portName = "caisson"

// appear is how long devices may take to be there behind their modules.
const appear = time.Minute

// mountKernel mounts what the kernel has to say.
func mountKernel() error {
	for _, m := range []struct{ fs, at string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}} {
		if err := unix.Mount(m.fs, m.at, m.fs, unix.MS_NOSUID, ""); err != nil && err != unix.EBUSY {
			return fmt.Errorf("mounting %s: %w", m.at, err)
		}
	}
	return nil
}

// loadModules loads the modules of a folder in the order of their names.
func loadModules(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		f, err := os.Open(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		f.Close()
		if err != nil && err != unix.EEXIST {
			return fmt.Errorf("loading the module %s: %w", e.Name(), err)
		}
	}
	return nil
}

// await tries until something is there.
func await[T any](what string, try func() (T, error)) (T, error) {
	for waited := time.Duration(0); ; waited += 10 * time.Millisecond {
		v, err := try()
		if err == nil || waited >= appear {
			if err != nil {
				err = fmt.Errorf("%s has not appeared: %w", what, err)
			}
			return v, err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// openPort opens the port for messages. There is no udev: the device is called as the
// kernel calls it, and sysfs has its name.
func openPort() (*os.File, error) {
	return await("the port for messages", func() (*os.File, error) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == portName {
				fd, err := unix.Open(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), unix.O_WRONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					return nil, err
				}
				return os.NewFile(uintptr(fd), portName), nil
			}
		}
		return nil, errors.New("no port of that name")
	})
}

// openDisk opens a disk by its serial number.
func openDisk(serial string, flags int) (*os.File, error) {
	return await("the disk "+serial, func() (*os.File, error) {
		names, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == serial {
				return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(name))), flags, 0)
			}
		}
		return nil, errors.New("no disk of that number")
	})
}

// swapHeader is the first page of a swap area (union swap_header in Linux's
// include/linux/swap.h): in its last bytes the magic, at byte 1024 a version and the
// number of the last page.
func swapHeader(page int, size int64) []byte {
	b := make([]byte, page)
	binary.NativeEndian.PutUint32(b[1024:], 1)
	binary.NativeEndian.PutUint32(b[1028:], uint32(size/int64(page)-1)) //nolint:gosec // of 16 TiB at most
	copy(b[page-10:], "SWAPSPACE2")
	return b
}

// swapOn has the kernel use the disk for what does not fit into memory.
func swapOn() error {
	f, err := openDisk(diskSwap, os.O_RDWR)
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, 2)
	if err != nil {
		return err
	}
	if _, err := f.WriteAt(swapHeader(os.Getpagesize(), size), 0); err != nil {
		return fmt.Errorf("preparing the swap space: %w", err)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	path, err := unix.BytePtrFromString(f.Name())
	if err != nil {
		return err
	}
	// SWAP_FLAG_DISCARD: what is not used any more takes no room outside.
	const discard = 0x10000
	if _, _, errno := unix.Syscall(unix.SYS_SWAPON, uintptr(unsafe.Pointer(path)), discard, 0); errno != 0 {
		return fmt.Errorf("using the swap space: %w", errno)
	}
	return nil
}

// newRoot makes a tmpfs the root, as large as memory and swap together but for what
// programs need: from the initramfs, which cannot be left, no sandbox could be made.
func newRoot() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	unit := uint64(info.Unit)
	ram, swap := info.Totalram*unit, info.Totalswap*unit
	const at = "/root"
	if err := unix.Mount("tmpfs", at, "tmpfs", 0, fmt.Sprintf("mode=755,nr_inodes=0,size=%d", swap+ram/2)); err != nil {
		return fmt.Errorf("mounting the root: %w", err)
	}
	for _, d := range []string{"dev", "proc", "sys"} {
		to := filepath.Join(at, d)
		if err := os.Mkdir(to, 0o755); err != nil {
			return err
		}
		if err := unix.Mount("/"+d, to, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("moving /%s: %w", d, err)
		}
	}
	if err := unix.Chdir(at); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("moving the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return unix.Chdir("/")
}

// inKernel tells whether a path is one that the machine's kernel keeps, or one of ours.
func inKernel(p string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(p, "/"), "/")
	return slices.Contains([]string{"", "dev", "proc", "sys", "store", lockName}, first)
}

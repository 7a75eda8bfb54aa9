package vm

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"caisson/build/image/cpio"
)

// Where things are in the machine's initramfs.
const (
	initPath    = "/init" // where Linux looks for it
	modulesPath = "/modules"
)

// DynamicError says that the running program cannot be a machine's only one.
type DynamicError struct{ Interpreter string }

func (e *DynamicError) Error() string {
	return fmt.Sprintf("this caisson is linked dynamically (%s), and a virtual machine of its own has no libraries: use a release's, or build it with CGO_ENABLED=0", e.Interpreter)
}

// checkStatic is a *DynamicError for a program that needs others to run.
func checkStatic(r io.ReaderAt) error {
	f, err := elf.NewFile(r)
	if err != nil {
		return fmt.Errorf("reading this program: %w", err)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(io.LimitReader(p.Open(), unix.PathMax))
		if err != nil {
			return fmt.Errorf("reading this program: %w", err)
		}
		return &DynamicError{string(bytes.TrimRight(name, "\x00"))}
	}
	return nil
}

// program opens the running program, which has to be static.
func program() (*os.File, int64, error) {
	f, err := os.Open("/proc/self/exe")
	if err != nil {
		return nil, 0, err
	}
	st, err := f.Stat()
	if err == nil {
		err = checkStatic(f)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, st.Size(), nil
}

// writeInitramfs writes the archive that Linux unpacks as its first root: a program as
// its init, and modules in the order of their names. The same program and modules give
// the same bytes.
func writeInitramfs(w io.Writer, program io.Reader, size int64, modules []module) error {
	a := cpio.NewWriter(w)
	ino := uint32(0)
	put := func(h cpio.Header, content io.Reader) error {
		ino++
		h.Ino, h.Nlink = ino, 1
		if err := a.WriteHeader(h); err != nil {
			return err
		}
		if content == nil {
			return nil
		}
		_, err := io.Copy(a, content)
		return err
	}
	for _, d := range []string{"dev", "proc", "sys", "root", modulesPath[1:]} {
		if err := put(cpio.Header{Name: d, Mode: unix.S_IFDIR | 0o755}, nil); err != nil {
			return err
		}
	}
	// Linux opens it for its init's descriptors 0 to 2.
	if err := put(cpio.Header{Name: "dev/console", Mode: unix.S_IFCHR | 0o600, RdevMajor: 5, RdevMinor: 1}, nil); err != nil {
		return err
	}
	if err := put(cpio.Header{Name: initPath[1:], Mode: unix.S_IFREG | 0o755, Size: size}, program); err != nil {
		return err
	}
	for i, m := range modules {
		h := cpio.Header{Name: fmt.Sprintf("%s/%03d-%s.ko", modulesPath[1:], i, m.name), Mode: unix.S_IFREG | 0o644, Size: int64(len(m.content))}
		if err := put(h, bytes.NewReader(m.content)); err != nil {
			return err
		}
	}
	return a.Close()
}

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openPTY makes a pseudo terminal: what a program writes to tty is read from ctrl.
func openPTY() (ctrl, tty *os.File, err error) {
	if ctrl, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("making a terminal: %w", errors.Join(err, ctrl.Close()))
		}
	}()
	var n int
	err = control(ctrl, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		n, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return ctrl, tty, err
}

// control calls f with a file's descriptor, and leaves the file as it is.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var of error
	err = raw.Control(func(fd uintptr) { of = f(int(fd)) }) //nolint:gosec // a descriptor is a small number
	return errors.Join(of, err)
}

// onOwnTerminal runs f with a terminal of its own that this one, in and out, is
// connected to.
func onOwnTerminal(in, out *os.File, f func(tty *os.File) error) error {
	ctrl, tty, err := openPTY()
	if err != nil {
		return err
	}
	defer ctrl.Close()
	defer tty.Close()
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, unix.SIGWINCH)
	defer signal.Stop(resized)
	copySize(in, ctrl)
	was, err := term.MakeRaw(int(in.Fd())) //nolint:gosec // a descriptor is a small number
	if err != nil {
		return err
	}
	defer func() { _ = term.Restore(int(in.Fd()), was) }() //nolint:gosec // as above
	ended, shown := make(chan error, 1), make(chan struct{})
	go func() { _, _ = io.Copy(ctrl, in) }() // until the program ends
	go func() {
		defer close(shown)
		_, _ = io.Copy(out, ctrl) // until nobody has the other end, which is EIO
	}()
	go func() { ended <- f(tty) }()
	for {
		select {
		case <-resized:
			copySize(in, ctrl)
		case err := <-ended:
			tty.Close()
			<-shown
			return err
		}
	}
}

// copySize gives a terminal the size of another. Where that has none, it keeps
// its own.
func copySize(from, to *os.File) {
	w, h, err := term.GetSize(int(from.Fd())) //nolint:gosec // as above
	if err != nil {
		return
	}
	size := &unix.Winsize{Row: uint16(h), Col: uint16(w)}                                          //nolint:gosec // the kernel's own have 16 bits
	_ = control(to, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, size) }) // it may be of any size
}

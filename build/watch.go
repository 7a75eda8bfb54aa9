package build

import (
	"encoding/binary"
	"errors"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"caisson/lock"
)

// watch sees which inputs are opened, by whomever: a step that was given an
// input need not have read it. It is inotify(7) on the store's files, so what
// it says is evidence of what a lock could do without, and no more.
type watch struct {
	fd int
	of map[int32]*lock.Input // by watch descriptor
}

// watchInputs begins to watch the inputs. Where the kernel gives this user not
// enough watches, it is nil: nothing is known then.
func watchInputs(paths func(*lock.Input) string, inputs []*lock.Input) (*watch, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENOSYS) {
		return nil, nil
	}
	if err != nil {
		return nil, os.NewSyscallError("inotify_init1", err)
	}
	w := &watch{fd: fd, of: map[int32]*lock.Input{}}
	for _, in := range inputs {
		// Only once, so that no step can make so many events that some are lost.
		wd, err := unix.InotifyAddWatch(fd, paths(in), unix.IN_OPEN|unix.IN_ONESHOT)
		switch {
		case errors.Is(err, unix.ENOSPC):
			return nil, w.close()
		case errors.Is(err, unix.ENOENT): // the step that needs it will say so
		case err != nil:
			return nil, errors.Join(&os.PathError{Op: "inotify_add_watch", Path: paths(in), Err: err}, w.close())
		default:
			w.of[int32(wd)] = in //nolint:gosec // the kernel's is an int
		}
	}
	return w, nil
}

func (w *watch) close() error { return unix.Close(w.fd) }

// opened takes those away that were opened, and returns them; false where
// events were lost.
func (w *watch) opened() (map[*lock.Input]bool, bool, error) {
	seen := map[*lock.Input]bool{}
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Read(w.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return seen, true, nil
		case err != nil:
			return nil, false, os.NewSyscallError("reading inotify's events", err)
		}
		for at := 0; at+unix.SizeofInotifyEvent <= n; {
			wd := int32(binary.NativeEndian.Uint32(b[at:])) //nolint:gosec // a struct inotify_event begins with an int
			mask := binary.NativeEndian.Uint32(b[at+4:])
			at += unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[at+12:]))
			if mask&unix.IN_Q_OVERFLOW != 0 {
				return nil, false, nil
			}
			if in := w.of[wd]; in != nil && mask&unix.IN_OPEN != 0 {
				seen[in] = true
			}
		}
	}
}

// unread are the inputs that steps were given and that nobody opened since w
// began, as KIND/NAME; nil where that is not known.
func (b *builder) unread(w *watch, inputs []*lock.Input) (*[]string, error) {
	if w == nil {
		return nil, nil
	}
	opened, ok, err := w.opened()
	if err := errors.Join(err, w.close()); err != nil || !ok || b.copied {
		return nil, err
	}
	out, tools := []string{}, b.of(lock.SetTools) // which were unpacked before
	for _, in := range inputs {
		if b.given[in] && !opened[in] && !b.givenThen[in] && !slices.Contains(tools, in) {
			out = append(out, ref(in))
		}
	}
	return &out, nil
}

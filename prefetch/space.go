package prefetch

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// NoSpaceError says that the store has no room for what is to come.
type NoSpaceError struct {
	Dir        string
	Need, Free int64 // bytes; Need is 0 where it is not known
	Err        error // the file system's; nil where nothing has been written
}

func (e *NoSpaceError) Error() string {
	switch {
	case e.Err == nil:
		return fmt.Sprintf("the store needs %s more, and %s are free in %s", inWords(e.Need), inWords(e.Free), e.Dir)
	case e.Need == 0:
		return fmt.Sprintf("the store is full: %s are free in %s: %v", inWords(e.Free), e.Dir, e.Err)
	}
	return fmt.Sprintf("the store is full: it needs %s more, and %s are free in %s: %v", inWords(e.Need), inWords(e.Free), e.Dir, e.Err)
}

// Unwrap returns the file system's error.
func (e *NoSpaceError) Unwrap() error { return e.Err }

// isFull tells whether there is no room for a file; another place would not
// help.
func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// isReadOnly tells whether something may only be read.
func isReadOnly(err error) bool {
	return errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM)
}

// freeBytes is how many bytes the file system of a folder has for us; false
// where it does not say.
func freeBytes(dir string) (int64, bool) {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil || st.Blocks == 0 {
		return 0, false
	}
	return int64(st.Bavail) * st.Bsize, true
}

// inWords is a number of bytes for people: "1.2 GiB".
func inWords(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if v /= 1 << 10; v < 1000 {
			break
		}
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, unit)
	}
	return fmt.Sprintf("%.0f %s", v, unit)
}

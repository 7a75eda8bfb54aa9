package sandbox

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// offlineChild, set in a child's environment, has TestGoOffline try the calls.
const offlineChild = "SANDBOX_TEST_OFFLINE"

// TestGoOffline tries every family of sockets under the filter, on all threads and
// in a program that is started.
func TestGoOffline(t *testing.T) {
	if os.Getenv(offlineChild) == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		c := exec.Command(exe, "-test.run=^TestGoOffline$", "-test.v")
		c.Env = append(os.Environ(), offlineChild+"=1")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	refused := func(where string) {
		for family := range unix.AF_MAX {
			fd, err := unix.Socket(family, unix.SOCK_DGRAM, 0)
			if err == nil {
				unix.Close(fd)
			}
			if want := family != unix.AF_UNIX; want != errors.Is(err, unix.EACCES) {
				t.Errorf("%s: family %d: %v", where, family, err)
			}
		}
		if _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); err != nil {
			t.Errorf("%s: a pair of UNIX sockets: %v", where, err)
		}
		if _, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0); errno != unix.ENOSYS {
			t.Errorf("%s: io_uring: %v", where, errno)
		}
	}
	if os.Getenv(offlineChild) == "2" {
		refused("a program that is started")
		return
	}
	// A thread that was there before.
	ready, ask, done := make(chan bool), make(chan bool), make(chan bool)
	go func() {
		runtime.LockOSThread()
		ready <- true
		<-ask
		refused("another thread")
		done <- true
	}()
	<-ready
	if err := GoOffline(); err != nil {
		t.Fatal(err)
	}
	refused("this thread")
	ask <- true
	<-done
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe, "-test.run=^TestGoOffline$")
	c.Env = append(os.Environ(), offlineChild+"=2")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

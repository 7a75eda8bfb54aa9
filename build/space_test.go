package build

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// What no disk has room for is refused before anything is done, and built all
// the same where that is asked for.
func TestNoSpace(t *testing.T) {
	l := testLock()
	l.Inputs = []lock.Input{
		{Kind: lock.KindRPM, Name: "large", Size: 1 << 50, SHA256: digest.Of([]byte("large")), For: []lock.Use{{Arch: "x86_64", Set: lock.SetTools}}},
	}
	s, err := cas.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	o := Options{Lock: l, Store: s, Arch: "x86_64", Out: out}
	if hostArch() != o.Arch {
		t.Skip("the lock is for x86_64")
	}
	_, err = Build(context.Background(), o)
	var full *NoSpaceError
	if !errors.As(err, &full) || full.Dir != out || full.Need < 4<<50 || full.Free <= 0 || full.Free > 1<<50 {
		t.Errorf("got %v", err)
	}
	if got, want := (&NoSpaceError{Dir: "/out", Need: 3<<30 + 300<<20, Free: 900 << 20}).Error(), "a build in /out needs about 3.3 GiB, and 900 MiB are free there"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if left := names(t, out); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	o.AnySpace = true
	if _, err = Build(context.Background(), o); !errors.As(err, new(*cas.MissingError)) {
		t.Errorf("any space: got %v", err)
	}
}

// testSpace compares the estimate with what a build takes at most.
func testSpace(t *testing.T, d *distro) {
	t.Parallel()
	t.Run("disk", d.testSpace)
	t.Run("archives", d.packed().testSpace)
}

func (d *distro) testSpace(t *testing.T) {
	o := d.options(t.TempDir())
	need := Space(o.Lock, o.Store, o.Arch, o.Variant)
	var most int64
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				most = max(most, used(o.Out))
			}
		}
	}()
	_, err := Build(context.Background(), o)
	close(stop)
	<-done
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("at most %s, estimated %s", megabytes(most), megabytes(need))
	if most == 0 || need < most || need > 4*most+2*fixedSpace {
		t.Errorf("it took %d bytes at most, and %d were estimated", most, need)
	}
}

// used is what a folder takes on its disk, in bytes.
func used(dir string) (n int64) {
	_ = filepath.WalkDir(dir, func(p string, _ os.DirEntry, err error) error {
		var st unix.Stat_t
		if err == nil && unix.Lstat(p, &st) == nil {
			n += st.Blocks * 512 / int64(max(1, st.Nlink))
		}
		return nil
	})
	return n
}

package prefetch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// fillSmall is a child's work: it mounts a file system of a megabyte and fills
// a store there until that is full, then one with more room.
func fillSmall(dir, url string) int {
	say := func(what string, err error) {
		fmt.Printf("%s: %v\n", what, err)
		if left, e := os.ReadDir(filepath.Join(dir, "tmp")); e == nil && len(left) > 0 {
			fmt.Printf("%s: %d files left over\n", what, len(left))
		}
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	s, err := cas.Open(dir)
	if err != nil {
		say("open", err)
		return 1
	}
	l, cfg := manyFiles(url), quick()
	_, err = Fill(context.Background(), l, s, Options{Config: cfg})
	say("known", err)
	for i := range l.Inputs {
		l.Inputs[i].Size = 0 // so that nobody knows beforehand
	}
	_, err = Fill(context.Background(), l, s, Options{Config: cfg, Parallel: 2})
	say("unknown", err)
	_, err = s.GC(context.Background(), cas.GCOptions{Keep: func(digest.Digest) bool { return false }})
	say("gc", err)
	for _, in := range l.Inputs {
		if e := s.Verify(in.SHA256); e != nil && !errors.As(e, new(*cas.MissingError)) {
			say("verify", e)
		}
	}
	if err := unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, "size=64m"); err != nil {
		fmt.Println("mount:", err)
		return 2
	}
	stats, err := Fill(context.Background(), l, s, Options{Config: cfg})
	say("more room", err)
	fmt.Printf("present: %v\n", stats.Present > 0 && stats.Present+stats.Fetched == manyCount)
	say("verified", VerifyAll(context.Background(), l, s, ""))
	return 0
}

func TestDiskFull(t *testing.T) {
	at := make(map[string]string)
	var total int64
	for n := range manyCount {
		at[fmt.Sprintf("/%d", n)] = manyContent(n)
		total += int64(len(manyContent(n)))
	}
	url := serve(t, newFiles(at))
	c := child(t.TempDir() + " " + url + " small")
	c.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := c.CombinedOutput()
	if errors.Is(err, unix.EPERM) || strings.HasPrefix(string(out), "mount:") {
		if os.Getenv("CAISSON_TOOLS") == "required" {
			t.Fatalf("%v, %s", err, out)
		}
		t.Skipf("a file system cannot be mounted here: %v, %s", err, out)
	}
	if err != nil {
		t.Fatalf("%v, %s", err, out)
	}
	said := make(map[string]string)
	for line := range strings.Lines(string(out)) {
		what, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		said[what] += text
	}
	if !strings.HasPrefix(said["known"], "the store needs "+inWords(total)+" more, and 1.0 MiB are free in ") && !strings.HasPrefix(said["known"], "the store needs "+inWords(total)+" more, and 10") {
		t.Errorf("known: %s", said["known"])
	}
	if !strings.HasPrefix(said["unknown"], "the store is full") || !strings.Contains(said["unknown"], "no space left on device") || strings.Contains(said["unknown"], "left over") {
		t.Errorf("unknown: %s", said["unknown"])
	}
	for _, what := range []string{"gc", "more room", "verified"} {
		if said[what] != "<nil>" {
			t.Errorf("%s: %s", what, said[what])
		}
	}
	if said["verify"] != "" || said["present"] != "true" {
		t.Errorf("%s", out)
	}
}

func TestInWords(t *testing.T) {
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1 << 10: "1.0 KiB", 1234567: "1.2 MiB", 300 << 20: "300 MiB", 1100 << 20: "1.1 GiB", 5 << 50: "5120 TiB"} {
		if got := inWords(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

// readOnly makes a folder one that may only be read, for this test.
func readOnly(t *testing.T, dir string) {
	t.Helper()
	if os.Getuid() == 0 {
		if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("a read-only folder cannot be made here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Skipf("a read-only folder cannot be made here: %v", err)
		}
		return
	}
	var dirs []string
	filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		if d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil
	})
	for _, d := range dirs {
		os.Chmod(d, 0o555)
	}
	t.Cleanup(func() {
		for _, d := range dirs {
			os.Chmod(d, 0o755)
		}
	})
}

// A full store that may only be read serves, whether or not it remembers.
func TestReadOnlyStore(t *testing.T) {
	for _, c := range []struct {
		name    string
		forget  bool
		damaged bool
	}{{"remembers", false, false}, {"forgot", true, false}, {"damaged", false, true}} {
		t.Run(c.name, func(t *testing.T) {
			w, s := newWorld(t), newStore(t)
			if _, err := fill(t, w, s); err != nil {
				t.Fatal(err)
			}
			if c.forget {
				os.RemoveAll(filepath.Join(s.Dir(), "index"))
			}
			if c.damaged {
				break1(t, s, w.find(t, "an.iso").SHA256, "damage")
			}
			readOnly(t, s.Dir())
			s, err := cas.Open(s.Dir())
			if err != nil {
				t.Fatal(err)
			}
			for _, verify := range []bool{false, true} {
				opts := w.options()
				opts.Verify = verify
				stats, err := Fill(context.Background(), w.lock, s, opts)
				n := len(w.lock.Inputs)
				if c.damaged {
					if err == nil || stats.Present != n-1 || !strings.Contains(err.Error(), "file an.iso: writing to the store") {
						t.Errorf("damaged: got %+v, %v", stats, err)
					}
				} else if err != nil || stats != (Stats{Present: n}) {
					t.Errorf("verify %v: got %+v, %v", verify, stats, err)
				}
			}
		})
	}
}

// What a store below has is not fetched, also where it may only be read; a
// damaged file below is replaced above.
func TestLayers(t *testing.T) {
	w, below := newWorld(t), newStore(t)
	all := w.lock.Inputs
	w.lock.Inputs = append([]lock.Input(nil), all[:4]...)
	if _, err := fill(t, w, below); err != nil {
		t.Fatal(err)
	}
	w.lock.Inputs = all
	bad := w.find(t, "hello-2:1.0-3.noarch")
	if !below.Has(bad.SHA256) {
		t.Fatal("the store below lacks the package")
	}
	break1(t, below, bad.SHA256, strings.Repeat("x", int(bad.Size)))
	readOnly(t, below.Dir())
	top := filepath.Join(t.TempDir(), "top")
	s, err := cas.Open(top, below.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if missing := Missing(w.lock, s); len(missing) != len(all)-4 {
		t.Errorf("%d missing", len(missing))
	}
	stats, err := fill(t, w, s)
	if err != nil || stats.Present != 4 || stats.Fetched+stats.Packed != len(all)-4 {
		t.Errorf("got %+v, %v", stats, err)
	}
	if err := VerifyAll(context.Background(), w.lock, s, ""); err == nil || !strings.Contains(err.Error(), "hello-2:1.0-3.noarch") {
		t.Errorf("the damage below: got %v", err)
	}
	opts := w.options()
	opts.Verify = true
	if stats, err = Fill(context.Background(), w.lock, s, opts); err != nil || stats.Repaired != 1 || stats.Fetched != 1 {
		t.Errorf("got %+v, %v", stats, err)
	}
	if err := VerifyAll(context.Background(), w.lock, s, ""); err != nil {
		t.Error(err)
	}
	if !strings.HasPrefix(s.Path(bad.SHA256), top) {
		t.Errorf("the sound copy is %s", s.Path(bad.SHA256))
	}
	if _, ok := Signer(w.lock, s, w.find(t, "world-2:1.0-3.noarch")); !ok {
		t.Error("who signed a package of the store below is not known")
	}
	sound(t, s)
}

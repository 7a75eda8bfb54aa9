package build

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"caisson/lock"
)

// sleepers are the processes that sleep for so many seconds.
func sleepers(t *testing.T, seconds string) (out []string) {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if b, err := os.ReadFile(p); err == nil && string(b) == "sleep\x00"+seconds+"\x00" {
			out = append(out, p)
		}
	}
	return out
}

// marker is a number of seconds that nothing else sleeps for.
func marker(kind int) string { return fmt.Sprintf("%d%09d", kind, time.Now().UnixNano()%1e9) }

// testHostileSteps runs steps that harm the machine if they are let.
func testHostileSteps(t *testing.T, d *distro) {
	tools := t.TempDir()
	programs(t, tools, "truncate", "setsid")
	d = d.with(func(d *distro) { d.add(t, lock.SetTools, "more", tools, "") })
	one := func(script string) *distro {
		return d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: script}} })
	}
	scriptlet := d.with(func(d *distro) {
		d.add(t, lock.SetRoot, "loud", "", "%post\ns=0123456789abcdef; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19; do s=$s$s; done; echo $s >&2\n%files\n")
	})
	t.Run("all", func(t *testing.T) {
		t.Run("never ends", func(t *testing.T) {
			t.Parallel()
			seconds := marker(41)
			before := d.stored(t)
			o := one("sleep " + seconds).options(t.TempDir())
			o.StepTimeout = 15 * time.Second // rpm has to be done in that time, too
			_, err := Build(context.Background(), o)
			var step *StepError
			if !errors.As(err, &step) || step.Step != "step 1: run" || step.Reason != "bash took more than 15s" {
				t.Errorf("got %v", err)
			}
			if left := names(t, o.Out); len(left) != 0 || len(sleepers(t, seconds)) != 0 {
				t.Errorf("left behind: %v, %v", left, sleepers(t, seconds))
			}
			d.untouched(t, before)
		})
		t.Run("leaves processes behind", func(t *testing.T) {
			t.Parallel()
			seconds := marker(42)
			one("setsid sleep "+seconds+" & sleep "+seconds+" & (trap '' TERM HUP; sleep "+seconds+") & disown -a").hostileBuild(t, "")
			if left := sleepers(t, seconds); len(left) != 0 {
				t.Errorf("still there: %v", left)
			}
		})
		t.Run("floods the log", func(t *testing.T) {
			t.Parallel()
			out := one(`s=0123456789abcdef; for ((i = 0; i < 19; i++)); do s=$s$s; done; echo $s$s; echo $s >&2`).hostileBuild(t, "")
			b, err := os.ReadFile(filepath.Join(out, "build.log"))
			if err != nil || len(b) > 2*maxOutput+1<<20 {
				t.Errorf("a log of %d bytes, %v", len(b), err)
			}
			for _, want := range []string{"[12582913 more bytes were not kept]", "[4194305 more bytes were not kept]"} {
				if !strings.Contains(string(b), want) {
					t.Errorf("the log does not say %q", want)
				}
			}
		})
		t.Run("a scriptlet floods the log", func(t *testing.T) {
			t.Parallel()
			scriptlet.hostileBuild(t, "install root: rpm printed more than 4194304 bytes of messages")
		})
		t.Run("a huge sparse file", func(t *testing.T) {
			t.Parallel()
			one("truncate -s 8T $OUT/sparse").hostileBuild(t, "step 1: run: the files that it left have more bytes than the disk, which has ")
		})
		t.Run("a huge sparse file in the root", func(t *testing.T) {
			t.Parallel()
			one("truncate -s 8T $ROOT/sparse").hostileBuild(t, "/sparse has 8796093022208")
		})
		t.Run("deep folders", func(t *testing.T) {
			t.Parallel()
			one(`cd $OUT; n=0123456789; n=$n$n$n$n$n$n$n$n$n$n; for ((i = 0; i < 60; i++)); do install -d $n && cd $n; done`).hostileBuild(t, "file name too long")
		})
	})
}

// full finds in an error that a disk is full, as the kernel says it or Caisson.
var full = regexp.MustCompile(`(?i)no space left on device|, and only \d+ MiB are free in /`)

// testFullDisk builds on disks that fill up, the larger the later.
func testFullDisk(t *testing.T, d *distro) {
	d = d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: "cat /usr/bin/bash > $OUT/a"}} })
	before := d.stored(t)
	stages := map[string]bool{}
	for _, mb := range []string{"1", "12", "15", "18", "21", "24", "27", "30", "33", "36", "40", "45", "50", "60"} {
		got := condition{umask: "022"}.build(t, d, "CAISSON_TEST_DISK="+mb, "CAISSON_TEST_ANY_SPACE=yes")
		stage, rest, ok := strings.Cut(strings.TrimPrefix(got, "last begun: "), "\n")
		if strings.Contains(got, "tiny.qcow2\n") {
			if len(stages) < 4 { // while the outputs are written, roots and tools are removed
				t.Errorf("only these stages had a full disk: %v", stages)
			}
			break
		}
		if !ok || !full.MatchString(rest) || !strings.HasSuffix(rest, "left: []\n") {
			t.Errorf("a disk of %s MB: got %s", mb, got)
		}
		stages[stage] = true
	}
	t.Run("by a step", func(t *testing.T) {
		d := d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: "cat /dev/zero > $OUT/zero"}} })
		got := condition{umask: "022"}.build(t, d, "CAISSON_TEST_DISK=90", "CAISSON_TEST_ANY_SPACE=yes")
		if !full.MatchString(got) || !strings.HasSuffix(got, "left: []\n") {
			t.Errorf("got %s", got)
		}
	})
	d.untouched(t, before)
}

// testKilled kills a build, which cannot clean up: the kernel ends what it ran, and
// the next build removes what it left.
func testKilled(t *testing.T, d *distro) {
	before := d.stored(t)
	seconds := marker(43)
	slow := d.with(func(d *distro) { d.lock.Steps = []lock.Step{{Run: "sleep " + seconds + " & sleep " + seconds}} })
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(slow.childEnv(t, dir), buildIn+"="+out, "CAISSON_TEST_UMASK=022", "PATH="+os.Getenv("PATH"))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	wait(t, "the step to begin", func() bool { return len(sleepers(t, seconds)) == 2 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	wait(t, "the step to be gone", func() bool { return len(sleepers(t, seconds)) == 0 })
	left := names(t, out)
	if len(left) != 1 || !strings.HasPrefix(left[0], workPrefix) {
		t.Errorf("left behind: %v, want a working folder", left)
	}
	if _, err := Build(context.Background(), d.options(out)); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, out) {
		if strings.HasPrefix(name, workPrefix) {
			t.Errorf("the next build left %s", name)
		}
	}
	d.untouched(t, before)
}

// testKilledAnywhere ends builds at random moments, by signals that can be heeded
// and by one that cannot. Nothing of them goes on, or is under a final name, and the
// next build makes the same image and removes what they left.
func testKilledAnywhere(t *testing.T, d *distro) {
	before := d.stored(t)
	began := time.Now()
	want := condition{umask: "022"}.build(t, d)
	whole := time.Since(began)
	dir := publicDir(t, "")
	vars := append(d.childEnv(t, dir), "CAISSON_TEST_UMASK=022", "PATH="+os.Getenv("PATH"))
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	start := func() (*exec.Cmd, *bytes.Buffer) {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd, said := exec.Command(exe), &bytes.Buffer{}
		cmd.Env, cmd.Stdout = append([]string{buildIn + "=" + out}, vars...), said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		return cmd, said
	}
	for n := range 15 {
		sig := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT}[n%3]
		after := time.Duration(rand.Int64N(int64(whole)))
		cmd, _ := start()
		time.Sleep(after)
		_ = cmd.Process.Signal(sig)
		_ = cmd.Wait()
		status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
		unheeded := status.Signaled() // killed, or ended before it could listen
		wait(t, fmt.Sprintf("processes to be gone %s after %s", sig, after), func() bool { return !mounted(t, out) })
		left := names(t, out)
		finished := slices.Contains(left, "tiny.qcow2")
		for _, name := range left {
			if strings.HasPrefix(name, workPrefix) {
				if !unheeded {
					t.Errorf("%s after %s left %s", sig, after, name)
				}
			} else if !finished {
				t.Errorf("%s after %s left %v", sig, after, left)
			}
		}
		if n%3 != 2 && !finished {
			continue // the next one finds what this one left
		}
		cmd, said := start()
		if err := cmd.Wait(); err != nil || said.String() != want {
			t.Errorf("the build after %s: %v, got\n%swant\n%s", sig, err, said, want)
		}
		for _, name := range names(t, out) {
			if strings.HasPrefix(name, workPrefix) {
				t.Errorf("the next build left %s", name)
			}
			if err := os.RemoveAll(filepath.Join(out, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	d.untouched(t, before)
}

// mounted tells whether a process, of a sandbox or not, has something below a folder
// mounted.
func mounted(t *testing.T, dir string) bool {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	return slices.ContainsFunc(all, func(p string) bool {
		b, err := os.ReadFile(p)
		return err == nil && bytes.Contains(b, []byte(dir+"/"))
	})
}

// wait waits for what has to come.
func wait(t *testing.T, what string, done func() bool) {
	t.Helper()
	for range 600 {
		if done() {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Fatalf("waited for %s in vain", what)
}

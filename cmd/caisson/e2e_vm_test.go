package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	corev1 "k8s.io/api/core/v1"
)

// TestE2EVM builds in virtual machines, by the program that `make` has made, with the
// kernel of a real repository.
func TestE2EVM(t *testing.T) {
	if os.Getenv("CAISSON_E2E") == "" {
		t.Skip("virtual machines are built in by `make e2e`")
	}
	repo, err := filepath.EvalSymlinks(os.Getenv("CAISSON_DEBREPO"))
	if err != nil {
		t.Fatalf("CAISSON_DEBREPO: %v; `make e2e` sets it", err)
	}
	bin, err := filepath.Abs("../../bin")
	must(t, err)
	p := scripts("testdata/e2e")
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		e.Setenv("BIN", bin)
		// What a container's user reads lies in here.
		for dir := e.WorkDir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
			if err := os.Chmod(dir, 0o755); err != nil {
				return err
			}
		}
		manifest := filepath.Join(e.WorkDir, "caisson.yaml")
		b, err := os.ReadFile(manifest)
		if err != nil {
			return err
		}
		if err := os.WriteFile(manifest, []byte(strings.ReplaceAll(string(b), "$DEBREPO", repo)), 0o600); err != nil {
			return err
		}
		return setup(e)
	}
	testscript.Run(t, p)
}

// cmdPod runs Caisson's own container image as a pod of a strict policy does: as an ordinary user without
// capabilities, on a read-only root with parts of /proc covered, where a seccomp filter
// refuses user namespaces. The script's folder is where it is, to be read, and out in it
// to be written to.
func cmdPod(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: pod CODE ARG...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	type obj = map[string]any
	work, bundle := ts.MkAbs("."), ts.MkAbs("bundle")
	root, out := filepath.Join(bundle, "rootfs"), filepath.Join(work, "out")
	for _, d := range []string{root, out} {
		ts.Check(os.MkdirAll(d, 0o755))
	}
	ts.Check(os.Chown(out, ordinary, ordinary))
	ts.Check(unpackOwnImage(filepath.Join(ts.Getenv("BIN"), "../out"), root))
	for _, d := range []string{"proc", "dev", "sys", "tmp", work} {
		ts.Check(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	bind := func(from, to, how string) obj {
		return obj{"destination": to, "type": "bind", "source": from, "options": []string{"rbind", "nosuid", how}}
	}
	none := []string{}
	b, err := json.Marshal(obj{
		"ociVersion": "1.0.2",
		"process": obj{
			"user": obj{"uid": ordinary, "gid": ordinary}, "args": append([]string{"/usr/bin/caisson"}, args[1:]...), "cwd": work, "noNewPrivileges": true,
			"env":          []string{"PATH=/usr/bin:/bin", "TMPDIR=" + out, "HOME=/nowhere"},
			"capabilities": obj{"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none},
		},
		"root": obj{"path": "rootfs", "readonly": true}, "hostname": "pod",
		"mounts": []obj{
			{"destination": "/proc", "type": "proc", "source": "proc"},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
			bind(work, work, "ro"), bind(out, out, "rw"),
		},
		"linux": obj{
			"namespaces":    []obj{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}},
			"maskedPaths":   []string{"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"seccomp":       seccomp(corev1.SeccompProfileTypeRuntimeDefault),
		},
	})
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o600))
	cmd := exec.Command("runc", "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, fmt.Sprint("caisson-vm-", os.Getpid(), "-", time.Now().UnixNano()))
	text, err := cmd.CombinedOutput()
	ts.Logf("%s", text)
	ts.Check(os.WriteFile(ts.MkAbs("pod.log"), text, 0o600))
	if cmd.ProcessState == nil {
		ts.Check(err)
	}
	if got := cmd.ProcessState.ExitCode(); got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// cmdInterrupt runs $BIN/caisson until it says something, and then sends it what Ctrl-C
// does: it ends as it should, and so has QEMU when it has.
func cmdInterrupt(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: interrupt WHAT ARG...")
	}
	said := &awaited{want: args[0], there: make(chan struct{})}
	c := exec.Command(filepath.Join(ts.Getenv("BIN"), "caisson"), args[1:]...)
	c.Dir, c.Stderr = ts.MkAbs("."), said
	ts.Check(c.Start())
	ended := make(chan error, 1)
	go func() { ended <- c.Wait() }()
	select {
	case <-said.there:
	case err := <-ended:
		ts.Fatalf("it ended (%v) before it said %q:\n%s", err, args[0], said.text.Bytes())
	}
	machines := children(c.Process.Pid)
	if len(machines) == 0 {
		ts.Fatalf("there is no machine")
	}
	ts.Check(c.Process.Signal(os.Interrupt))
	<-ended
	if code := c.ProcessState.ExitCode(); code != exitInterrupted {
		ts.Fatalf("exit code %d, want %d:\n%s", code, exitInterrupted, said.text.Bytes())
	}
	for _, pid := range machines {
		if syscall.Kill(pid, 0) == nil {
			ts.Fatalf("process %d is left", pid)
		}
	}
}

// awaited keeps what is written to it, and tells when a text is in it.
type awaited struct {
	text  bytes.Buffer
	want  string
	there chan struct{}
	seen  bool
}

func (w *awaited) Write(b []byte) (int, error) {
	n, err := w.text.Write(b)
	if !w.seen && strings.Contains(w.text.String(), w.want) {
		w.seen = true
		close(w.there)
	}
	return n, err
}

// children are the processes that one has started.
func children(pid int) (out []int) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, name := range names {
		b, _ := os.ReadFile(name)
		for _, s := range strings.Fields(string(b)) {
			if n, err := strconv.Atoi(s); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

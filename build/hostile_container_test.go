package build

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"caisson/lock/tooltest"
)

// pod is the OCI configuration of a container as an ordinary Kubernetes pod has it:
// a user who is not root, no capabilities, no_new_privs, a /proc of which parts are
// covered, a read-only root, and one folder that may be written to. The calls in
// denied fail with an error number.
func pod(args, env []string, mounts [][2]string, out string, denied map[string]int) map[string]any {
	type obj = map[string]any
	bind := func(from, to, how string) obj {
		return obj{"destination": to, "type": "bind", "source": from, "options": []string{"rbind", "nosuid", how}}
	}
	all := []obj{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
		{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": []string{"nosuid", "noexec", "nodev", "size=65536k"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
		bind("/usr", "/usr", "ro"),
	}
	for _, m := range mounts {
		all = append(all, bind(m[0], m[1], "ro"))
	}
	all = append(all, bind(out, "/work", "rw"))
	var calls []obj
	for name, errno := range denied {
		call := obj{"names": []string{name}, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}
		if name == "clone" || name == "unshare" { // only where a user namespace is asked for
			call["args"] = []obj{{"index": 0, "value": unix.CLONE_NEWUSER, "valueTwo": unix.CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"}}
		}
		calls = append(calls, call)
	}
	none := []string{}
	return obj{
		"ociVersion": "1.0.2",
		"process": obj{
			"user": obj{"uid": podUser, "gid": podUser}, "args": args, "env": env, "cwd": "/", "noNewPrivileges": true,
			"capabilities": obj{"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none},
		},
		"root": obj{"path": "rootfs", "readonly": true}, "mounts": all, "hostname": "pod",
		"linux": obj{
			"namespaces":    []obj{{"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}},
			"maskedPaths":   []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"seccomp":       obj{"defaultAction": "SCMP_ACT_ALLOW", "architectures": []string{"SCMP_ARCH_X86_64"}, "syscalls": calls},
		},
	}
}

// podUser is who runs in the container.
const podUser = 65532

// usualDenied are calls that the default profiles of containerd and CRI-O do not
// allow without capabilities, but for those that make namespaces and mounts.
func usualDenied() map[string]int {
	out := map[string]int{}
	for _, name := range []string{"bpf", "perf_event_open", "process_vm_readv", "process_vm_writev", "ptrace", "kcmp", "pidfd_getfd", "add_key", "request_key", "keyctl",
		"io_uring_setup", "io_uring_enter", "io_uring_register", "open_by_handle_at", "kexec_load", "init_module", "finit_module", "delete_module", "userfaultfd",
		"reboot", "swapon", "swapoff", "acct", "settimeofday", "clock_settime", "iopl", "ioperm", "syslog", "quotactl", "fanotify_init", "lookup_dcookie"} {
		out[name] = 1 // EPERM
	}
	return out
}

// inPod builds in a container and returns what the child said.
func (d *distro) inPod(t *testing.T, denied map[string]int) string {
	t.Helper()
	runc := tooltest.Find(t, "runc")
	if os.Getuid() != 0 {
		t.Skip("containers are made by root")
	}
	bundle := publicDir(t, "")
	out := filepath.Join(bundle, "out")
	for _, dir := range []string{"rootfs/usr", "rootfs/proc", "rootfs/dev", "rootfs/sys", "rootfs/tmp", "rootfs/store", "rootfs/work", "rootfs/etc", "out"} {
		if err := os.MkdirAll(filepath.Join(bundle, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+l, filepath.Join(bundle, "rootfs", l)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"rootfs/guest", "rootfs/lock"} {
		if err := os.WriteFile(filepath.Join(bundle, name), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(out, podUser, podUser); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d.childEnv(t, bundle) // writes the lock
	env := []string{"PATH=/usr/bin:/bin", "HOME=/nowhere", buildIn + "=/work", "CAISSON_TEST_UMASK=022", "CAISSON_TEST_LOCK=/lock", "CAISSON_TEST_STORE=/store", "CAISSON_TEST_ANY_SPACE=yes"}
	mounts := [][2]string{{exe, "/guest"}, {filepath.Join(bundle, "lock"), "/lock"}, {d.store.Dir(), "/store"}}
	b, err := json.Marshal(pod([]string{"/guest"}, env, mounts, out, denied))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(bundle, "config.json"), b, 0o644); err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint("caisson-", os.Getpid(), "-", filepath.Base(bundle))
	cmd := exec.Command(runc, "--root", filepath.Join(bundle, "state"), "run", "--bundle", bundle, id)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil && said.Len() == 0 {
		t.Fatalf("runc: %v", err)
	}
	return said.String()
}

// testPod builds in an ordinary pod: the same image as outside. Where the pod may
// not make user namespaces, the error says so.
func testPod(t *testing.T, d *distro) {
	want := condition{umask: "022"}.build(t, d)
	if got := d.inPod(t, usualDenied()); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
	for name, errno := range map[string]int{"EPERM": 1, "ENOSYS": 38} {
		t.Run("without user namespaces, "+name, func(t *testing.T) {
			denied := usualDenied()
			denied["clone3"], denied["clone"], denied["unshare"] = 38, errno, errno
			got := d.inPod(t, denied)

			if !strings.Contains(got, "securityContext.seccompProfile of a Kubernetes pod, has to allow unshare") || !strings.Contains(got, "left: []\n") {
				t.Errorf("got %s", got)
			}
		})
	}
}

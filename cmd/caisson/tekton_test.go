package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	tektonv1 "github.com/tektoncd/pipeline/pkg/apis/pipeline/v1"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"caisson/cmd/caisson/internal/tekton"
)

// canRunTasks tells whether the tools for it are there; where they have to be, a
// script fails for want of them.
func canRunTasks() bool {
	for _, name := range []string{"runc", "docker-registry"} {
		if _, err := exec.LookPath(name); err != nil {
			return os.Getenv("CAISSON_TOOLS") == "required"
		}
	}
	return os.Geteuid() == 0 && canMakeTiny()
}

// cmdRegistry starts Debian's docker-registry. The variable becomes HOST:PORT.
func cmdRegistry(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	host := l.Addr().String()
	l.Close()
	config := ts.MkAbs("registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", ts.MkAbs("registry"), host)
	ts.Check(os.WriteFile(config, []byte(text), 0o644))
	c := exec.Command("docker-registry", "serve", config)
	ts.Check(c.Start())
	ts.Defer(func() { c.Process.Kill(); c.Wait() })
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if resp, err := http.Get("http://" + host + "/v2/"); err == nil {
			resp.Body.Close()
			ts.Setenv(args[0], host)
			return
		}
	}
	ts.Fatalf("the registry does not start")
}

// cmdRefuse starts a registry that refuses everybody.
func cmdRefuse(ts *testscript.TestScript, _ bool, args []string) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("WWW-Authenticate", `Basic realm="r"`)
		w.WriteHeader(http.StatusUnauthorized)
	}))
	ts.Defer(srv.Close)
	ts.Setenv(args[0], strings.TrimPrefix(srv.URL, "http://"))
}

// cmdTask runs the scripts of a Task's steps, each in a container as a pod would
// have it, until one fails:
//
//	task KIND CODE NAME=VALUE...
//
// Secrets are the folders below secrets. Results go to results, and what the
// failing step, or the last one, printed to task.log.
func cmdTask(ts *testscript.TestScript, _ bool, args []string) {
	var text strings.Builder
	ts.Check(tekton.Print(&text, args[0], tekton.Options{Image: "quay.io/example/caisson@sha256:" + strings.Repeat("1", 64)}))
	var task tektonv1.Task
	ts.Check(yaml.UnmarshalStrict([]byte(text.String()), &task))
	p := taskRun{ts: ts, dir: ts.MkAbs("pod"), spec: &task.Spec, params: map[string]string{}}
	for _, param := range task.Spec.Params {
		if param.Default != nil {
			p.params[param.Name] = param.Default.StringVal
		}
	}
	for _, a := range args[2:] {
		name, value, _ := strings.Cut(a, "=")
		if !slices.ContainsFunc(task.Spec.Params, func(s tektonv1.ParamSpec) bool { return s.Name == name }) {
			ts.Fatalf("the Task has no parameter %s", name)
		}
		p.params[name] = value
	}
	steps, err := tektonv1.MergeStepsWithStepTemplate(task.Spec.StepTemplate, task.Spec.Steps)
	ts.Check(err)
	p.prepare()
	code, last := 0, ""
	for i := range steps {
		if code, last = p.run(&steps[i]), steps[i].Name; code != 0 {
			break
		}
	}
	if want := args[1]; strconv.Itoa(code) != want {
		ts.Fatalf("step %s ended with %d, want %s:\n%s", last, code, want, ts.ReadFile("task.log"))
	}
	log := ts.ReadFile("task.log")
	ts.Check(os.WriteFile(ts.MkAbs("task.log"), []byte("step "+last+"\n"+log), 0o644))
}

// taskRun is a Task that runs.
type taskRun struct {
	ts     *testscript.TestScript
	dir    string
	spec   *tektonv1.TaskSpec
	params map[string]string
}

// prepare makes the volumes and the container image: caisson, a shell, and the
// libraries of these.
func (p *taskRun) prepare() {
	p.ts.Check(os.RemoveAll(p.dir))
	p.ts.Check(os.RemoveAll(p.ts.MkAbs("results")))
	for _, d := range []string{"rootfs/usr", "rootfs/bin", "rootfs/tekton", "scripts"} {
		p.ts.Check(os.MkdirAll(filepath.Join(p.dir, d), 0o755))
	}
	for _, l := range []string{"lib", "lib64"} {
		p.ts.Check(os.Symlink("usr/"+l, filepath.Join(p.dir, "rootfs", l)))
	}
	exe, err := os.Executable()
	p.ts.Check(err)
	for name, from := range map[string]string{"caisson": exe, "sh": "/bin/sh"} {
		b, err := os.ReadFile(from)
		p.ts.Check(err)
		p.ts.Check(os.WriteFile(filepath.Join(p.dir, "rootfs/bin", name), b, 0o755))
	}
	for _, d := range []string{p.ts.MkAbs("results"), filepath.Join(p.dir, "home")} {
		p.writable(d)
	}
}

// writable makes a folder as an emptyDir is.
func (p *taskRun) writable(dir string) {
	p.ts.Check(os.MkdirAll(dir, 0o755))
	p.ts.Check(os.Chmod(dir, 0o777))
}

// expand puts in the parameters, as Tekton does.
func (p *taskRun) expand(s string) string {
	for name, value := range p.params {
		s = strings.ReplaceAll(s, "$(params."+name+")", value)
	}
	return s
}

// volume is the folder that a volume is; empty for an optional one that is not
// there.
func (p *taskRun) volume(name string) string {
	i := slices.IndexFunc(p.spec.Volumes, func(v corev1.Volume) bool { return v.Name == name })
	v := p.spec.Volumes[i]
	dir := filepath.Join(p.dir, "volume-"+name)
	switch {
	case v.EmptyDir != nil:
		p.writable(dir)
	case v.Secret != nil:
		dir = filepath.Join(p.ts.MkAbs("secrets"), p.expand(v.Secret.SecretName))
	}
	p.ts.Check(os.MkdirAll(dir, 0o755)) // what is optional and not there is an empty folder
	return dir
}

// run runs a step and returns its exit code.
func (p *taskRun) run(s *tektonv1.Step) int {
	type obj = map[string]any
	script := filepath.Join(p.dir, "scripts", s.Name)
	p.ts.Check(os.WriteFile(script, []byte(s.Script), 0o755))
	mounts := []obj{
		{"destination": "/proc", "type": "proc", "source": "proc"},
		{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "mode=755", "size=65536k"}},
		{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
	}
	bind := func(from, to, how string) {
		mounts = append(mounts, obj{"destination": to, "type": "bind", "source": from, "options": []string{"rbind", "nosuid", how}})
	}
	bind("/usr/lib", "/usr/lib", "ro")
	if _, err := os.Stat("/usr/lib64"); err == nil {
		bind("/usr/lib64", "/usr/lib64", "ro")
	}
	bind(p.ts.MkAbs("results"), "/tekton/results", "rw")
	bind(filepath.Join(p.dir, "home"), "/tekton/home", "rw")
	bind(filepath.Join(p.dir, "scripts"), "/tekton/scripts", "ro")
	for _, m := range s.VolumeMounts {
		how := "rw"
		if m.ReadOnly {
			how = "ro"
		}
		bind(p.volume(m.Name), m.MountPath, how)
	}
	env := []string{"PATH=/bin"}
	for _, e := range s.Env {
		env = append(env, e.Name+"="+p.expand(e.Value))
	}
	c := s.SecurityContext
	namespaces := []obj{{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"}}
	if !slices.Contains([]string{"use-source", "use-build", "prefetch", "hand-over", "push"}, s.Name) {
		namespaces = append(namespaces, obj{"type": "network"})
	}
	none := []string{}
	config := obj{
		"ociVersion": "1.0.2",
		"process": obj{
			"user": obj{"uid": *c.RunAsUser, "gid": *c.RunAsGroup}, "args": []string{"/tekton/scripts/" + s.Name}, "env": env, "cwd": s.WorkingDir,
			"noNewPrivileges": !*c.AllowPrivilegeEscalation,
			"capabilities":    obj{"bounding": none, "effective": none, "permitted": none, "inheritable": none, "ambient": none},
		},
		"root": obj{"path": "rootfs", "readonly": *c.ReadOnlyRootFilesystem}, "mounts": mounts, "hostname": "pod",
		"linux": obj{
			"namespaces":    namespaces,
			"maskedPaths":   []string{"/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"},
			"readonlyPaths": []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
			"seccomp":       seccomp(c.SeccompProfile.Type),
		},
	}
	b, err := json.Marshal(config)
	p.ts.Check(err)
	p.ts.Check(os.WriteFile(filepath.Join(p.dir, "config.json"), b, 0o644))
	cmd := exec.Command("runc", "--root", filepath.Join(p.dir, "state"), "run", "--bundle", p.dir, fmt.Sprint("caisson-task-", os.Getpid(), "-", time.Now().UnixNano()))
	log, err := os.Create(p.ts.MkAbs("task.log"))
	p.ts.Check(err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		p.ts.Fatalf("runc: %v", err)
	}
	return cmd.ProcessState.ExitCode()
}

// seccomp is a profile that refuses namespaces and mounts, as the runtimes' own do,
// or none.
func seccomp(kind corev1.SeccompProfileType) map[string]any {
	type obj = map[string]any
	calls := []obj{}
	if kind == corev1.SeccompProfileTypeRuntimeDefault {
		userns := []obj{{"index": 0, "value": unix.CLONE_NEWUSER, "valueTwo": unix.CLONE_NEWUSER, "op": "SCMP_CMP_MASKED_EQ"}}
		calls = []obj{
			{"names": []string{"clone", "unshare"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1, "args": userns},
			{"names": []string{"clone3"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
			{"names": []string{"mount", "setns", "pivot_root", "bpf", "keyctl", "ptrace"}, "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
		}
	}
	return obj{"defaultAction": "SCMP_ACT_ALLOW", "architectures": []string{"SCMP_ARCH_X86_64"}, "syscalls": calls}
}

// cmdReadEnv sets a variable to what a file has.
func cmdReadEnv(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
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
	for _, name := range []string{"runc", "docker-registry", "git"} {
		if _, err := exec.LookPath(name); err != nil {
			return os.Getenv("CAISSON_TOOLS") == "required"
		}
	}
	return os.Geteuid() == 0 && canMakeTiny()
}

// printedTask is a Task as Tekton reads it: KIND, or KIND:vm for one that wants no
// namespaces.
func printedTask(ts *testscript.TestScript, kind string) *tektonv1.TaskSpec {
	kind, isolation, _ := strings.Cut(kind, ":")
	var text strings.Builder
	ts.Check(tekton.Print(&text, kind, tekton.Options{Image: "quay.io/example/caisson@sha256:" + strings.Repeat("1", 64), Isolation: isolation}))
	var task tektonv1.Task
	ts.Check(yaml.UnmarshalStrict([]byte(text.String()), &task))
	return &task.Spec
}

// newTaskRun gives a Task its parameters.
func newTaskRun(ts *testscript.TestScript, spec *tektonv1.TaskSpec, params []string) *taskRun {
	p := &taskRun{ts: ts, dir: ts.MkAbs("pod"), spec: spec, params: paramValues(ts, spec.Params, params)}
	p.prepare()
	return p
}

// paramValues are the values of parameters, NAME=VALUE or as they are by default.
func paramValues(ts *testscript.TestScript, specs tektonv1.ParamSpecs, given []string) map[string]string {
	values := map[string]string{}
	for _, a := range given {
		name, value, _ := strings.Cut(a, "=")
		if !slices.ContainsFunc(specs, func(s tektonv1.ParamSpec) bool { return s.Name == name }) {
			ts.Fatalf("there is no parameter %s", name)
		}
		values[name] = value
	}
	for _, s := range specs {
		if _, ok := values[s.Name]; ok {
			continue
		}
		if s.Default == nil {
			ts.Fatalf("the parameter %s is not given", s.Name)
		}
		values[s.Name] = s.Default.StringVal
	}
	return values
}

// cmdTask runs the scripts of a Task's steps, each in a container as a pod would
// have it, until one fails:
//
//	task KIND CODE NAME=VALUE...
//
// Secrets are the folders below secrets, ConfigMaps those below configmaps, and
// serviceaccount/config.json is the logins at registries. Results go to results, and
// what the failing step, or the last one, printed to task.log.
func cmdTask(ts *testscript.TestScript, _ bool, args []string) {
	code, last := newTaskRun(ts, printedTask(ts, args[0]), args[2:]).runAll()
	finishRun(ts, args[1], code, last)
}

// runAll runs the steps until one fails. It wants every result of those that do not.
func (p *taskRun) runAll() (code int, last string) {
	steps, err := tektonv1.MergeStepsWithStepTemplate(p.spec.StepTemplate, p.spec.Steps)
	p.ts.Check(err)
	for i := range steps {
		if code, last = p.run(&steps[i]), steps[i].Name; code != 0 {
			return code, last
		}
	}
	p.checkResults()
	return code, last
}

// finishRun compares an exit code, and puts the step's name before what it printed.
func finishRun(ts *testscript.TestScript, want string, code int, last string) {
	log := ts.ReadFile("task.log")
	if strconv.Itoa(code) != want {
		ts.Fatalf("step %s ended with %d, want %s:\n%s", last, code, want, log)
	}
	ts.Check(os.WriteFile(ts.MkAbs("task.log"), []byte("step "+last+"\n"+log), 0o644))
}

// checkResults wants every result of a Task that succeeded: a Pipeline that hands
// one on fails without it.
func (p *taskRun) checkResults() {
	for _, want := range p.spec.Results {
		b, err := os.ReadFile(filepath.Join(p.ts.MkAbs("results"), want.Name))
		p.ts.Check(err)
		object := map[string]string{}
		if want.Type != tektonv1.ResultsTypeObject {
			continue
		}
		p.ts.Check(json.Unmarshal(b, &object))
		for key := range want.Properties {
			if object[key] == "" {
				p.ts.Fatalf("result %s has no %s: %s", want.Name, key, b)
			}
		}
	}
	if err := filepath.WalkDir(p.ts.MkAbs("results"), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !slices.ContainsFunc(p.spec.Results, func(r tektonv1.TaskResult) bool { return r.Name == d.Name() }) {
			return fmt.Errorf("the Task does not declare the result %s", d.Name())
		}
		return nil
	}); err != nil {
		p.ts.Fatalf("%v", err)
	}
}

// cmdInPod runs a command as the step prefetch would, in a copy of a folder, and
// copies a file of it back:
//
//	inpod FOLDER FILE caisson ARG...
func cmdInPod(ts *testscript.TestScript, _ bool, args []string) {
	p := newTaskRun(ts, printedTask(ts, "task"), []string{"SOURCE_ARTIFACT=", "OUTPUT_IMAGE="})
	steps, err := tektonv1.MergeStepsWithStepTemplate(p.spec.StepTemplate, p.spec.Steps)
	ts.Check(err)
	s := steps[slices.IndexFunc(steps, func(s tektonv1.Step) bool { return s.Name == "prefetch" })]
	s.Script = "#!/bin/sh\nset -eu\nexec " + strings.Join(args[2:], " ") + "\n"
	work := p.volume("workdir")
	ts.Check(os.CopyFS(work, os.DirFS(ts.MkAbs(args[0]))))
	ts.Check(filepath.WalkDir(work, func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, int(*s.SecurityContext.RunAsUser), int(*s.SecurityContext.RunAsGroup))
	}))
	if code := p.run(&s); code != 0 {
		ts.Fatalf("exit code %d:\n%s", code, ts.ReadFile("task.log"))
	}
	b, err := os.ReadFile(filepath.Join(work, args[1]))
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[0]), args[1]), b, 0o644))
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
	docker := filepath.Join(p.dir, "home", ".docker")
	for _, d := range []string{p.ts.MkAbs("results"), filepath.Join(p.dir, "home"), docker} {
		p.writable(d)
	}
	logins, err := os.ReadFile(filepath.Join(p.ts.MkAbs("serviceaccount"), "config.json"))
	if err == nil { // the step's user gets them from Tekton
		user := p.spec.StepTemplate.SecurityContext
		p.ts.Check(os.WriteFile(filepath.Join(docker, "config.json"), logins, 0o600))
		p.ts.Check(os.Chown(filepath.Join(docker, "config.json"), int(*user.RunAsUser), int(*user.RunAsGroup)))
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
	if v.EmptyDir != nil {
		p.writable(dir)
		return dir
	}
	p.ts.Check(os.RemoveAll(dir))
	p.ts.Check(os.MkdirAll(dir, 0o755))
	secret := func(name string) {
		from := filepath.Join(p.ts.MkAbs("secrets"), p.expand(name))
		entries, err := os.ReadDir(from)
		if !errors.Is(err, fs.ErrNotExist) {
			p.ts.Check(err)
		}
		for _, e := range entries {
			p.put(filepath.Join(from, e.Name()), dir, e.Name())
		}
	}
	switch {
	case v.Secret != nil:
		secret(v.Secret.SecretName)
	case v.ConfigMap != nil:
		for _, item := range v.ConfigMap.Items {
			p.put(filepath.Join(p.ts.MkAbs("configmaps"), p.expand(v.ConfigMap.Name), p.expand(item.Key)), dir, item.Path)
		}
	case v.Projected != nil:
		for _, source := range v.Projected.Sources {
			secret(source.Secret.Name)
		}
	default:
		p.ts.Fatalf("the volume %s is of no known kind", name)
	}
	return dir
}

// put puts a file, which may be absent, into a volume as the kubelet does: a link to a
// link to where it is.
func (p *taskRun) put(from, dir, name string) {
	b, err := os.ReadFile(from)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	p.ts.Check(err)
	data := filepath.Join(dir, "..2026_11_21")
	p.ts.Check(os.MkdirAll(data, 0o755))
	p.ts.Check(os.WriteFile(filepath.Join(data, name), b, 0o644))
	for link, to := range map[string]string{"..data": "..2026_11_21", name: "..data/" + name} {
		if err := os.Symlink(to, filepath.Join(dir, link)); !errors.Is(err, fs.ErrExist) {
			p.ts.Check(err)
		}
	}
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

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/build/sandbox"
	"caisson/build/vm"
	"caisson/lock"
)

// The values of --isolation.
const (
	isolateAuto       = "auto"
	isolateNamespaces = "namespaces"
	isolateVM         = "vm"
)

// isolationEnv is in the place of --isolation where that is not given.
const isolationEnv = "CAISSON_ISOLATION"

// slower is about how many times longer a program takes where it is emulated; the time
// for a step is as much longer unless it was given.
const slower = 20

// madeFile is, in the output folder of a build in a virtual machine, the description of
// what was built.
const madeFile = "made.json"

// isolation is what keeps a build's steps in.
type isolation struct {
	mode, machine string
}

func (o *isolation) isolationFlags(c *cobra.Command) {
	c.Flags().StringVar(&o.mode, "isolation", "", "what steps run in: namespaces, vm (a virtual machine without a network card, by QEMU), or auto, which is the former where the system has them (default $"+isolationEnv+", or auto)")
	c.Flags().StringVar(&o.machine, "vm", "", "how the virtual machine is, where it is one: memory=MiB,cpus=N,accel=kvm or accel=tcg (default: what there is)")
}

// flags are those by which another run of this program isolates likewise.
func (o *isolation) args() []string {
	var out []string
	if o.mode != "" {
		out = append(out, "--isolation", o.mode)
	}
	if o.machine != "" {
		out = append(out, "--vm", o.machine)
	}
	return out
}

// check refuses values that mean nothing.
func (o *isolation) check() error {
	if o.mode == "" {
		o.mode = os.Getenv(isolationEnv)
	}
	if o.mode == "" {
		o.mode = isolateAuto
	}
	if !slices.Contains([]string{isolateAuto, isolateNamespaces, isolateVM}, o.mode) {
		return usageError{fmt.Errorf("--isolation %q: want auto, namespaces or vm", o.mode)}
	}
	_, err := o.wish()
	return err
}

// wish is --vm.
func (o *isolation) wish() (w vm.Wish, err error) {
	if o.machine == "" {
		return w, nil
	}
	for _, term := range strings.Split(o.machine, ",") {
		key, value, _ := strings.Cut(term, "=")
		n, err := strconv.Atoi(value)
		switch {
		case key == "accel" && (value == vm.KVM || value == vm.TCG):
			w.Accelerator = value
		case key == "memory" && err == nil && n >= 512 && n < 1<<30:
			w.Memory = int64(n) << 20
		case key == "cpus" && err == nil && n > 0 && n <= 255:
			w.CPUs = n
		default:
			return w, usageError{fmt.Errorf("--vm %q: want memory=MiB (512 or more), cpus=N, accel=kvm or accel=tcg, with commas between them", term)}
		}
	}
	return w, nil
}

// choice is how steps are isolated, and why.
type choice struct {
	vm bool
	// refused is why namespaces cannot be made, where that was asked.
	refused *sandbox.RefusedError
}

// choose tries whether a sandbox can be made where that decides.
func (o *isolation) choose(ctx context.Context) (choice, error) {
	if err := o.check(); err != nil {
		return choice{}, err
	}
	if o.mode != isolateAuto {
		return choice{vm: o.mode == isolateVM}, nil
	}
	_, err := sandbox.Probe(ctx, "")
	var refused *sandbox.RefusedError
	if errors.As(err, &refused) {
		return choice{vm: true, refused: refused}, nil
	}
	return choice{}, ctx.Err() // another error is told of by the first step
}

// hintVM is the two ways on where there can be neither namespaces nor a machine.
func (c *choice) hintVM() string {
	const qemu = "install QEMU (Debian package qemu-system-x86, RHEL's qemu-kvm) for a build in a virtual machine"
	if c.refused == nil {
		return qemu
	}
	return "allow user namespaces here, or " + qemu
}

// why is why a machine is used.
func (c *choice) why() string {
	if c.refused != nil {
		return "user namespaces are refused here (" + c.refused.Reason + ")"
	}
	return "--isolation " + isolateVM
}

// line says that a machine is used, and how much slower that is.
func (c *choice) line(m *vm.Machine) string {
	how := "in software, which takes about twenty times as long"
	if m.Accelerator == vm.KVM {
		how = "by KVM"
	}
	return fmt.Sprintf("%s: building in a virtual machine without a network card, %s (%s, %s of memory)", c.why(), how, count(m.CPUs, "processor"), size(m.Memory))
}

// refuseInVM refuses what cannot be done in a machine, before anything is.
func (o *buildOptions) refuseInVM(c *choice) error {
	why := "--isolation vm"
	if c.refused != nil {
		why = "user namespaces are refused here, so that the build runs in a virtual machine"
	}
	switch {
	case o.keep:
		return usageError{fmt.Errorf("--keep: %s, and nothing of a step that fails leaves that: build without --keep, whose shell needs user namespaces as well", why)}
	case o.reuse:
		return usageError{fmt.Errorf("--reuse: %s, and what steps make does not leave that but in an image: build without --reuse", why)}
	}
	return nil
}

// builders are what makes an image, or runs steps alone, under the isolation that is
// asked for or has to be.
type builders struct {
	image func(context.Context, build.Options) (*build.Image, error)
	steps func(context.Context, build.Options, []int) error
}

func (o *buildOptions) builders(ctx context.Context, ui *ui) (*builders, error) {
	c, err := o.isolation.choose(ctx)
	if err != nil {
		return nil, err
	}
	if !c.vm {
		return &builders{build.Build, buildSteps}, nil
	}
	if err := o.refuseInVM(&c); err != nil {
		return nil, err
	}
	m := &inMachine{buildOptions: o, ui: ui, choice: c}
	return &builders{m.image, m.steps}, nil
}

// inMachine builds by another run of this program, in a virtual machine.
type inMachine struct {
	*buildOptions
	ui     *ui
	choice choice
}

func (m *inMachine) image(ctx context.Context, o build.Options) (*build.Image, error) {
	return build.Elsewhere(ctx, o, func(ctx context.Context, work, results string) (*build.Image, error) {
		machine, err := m.run(ctx, &o, work, results, func(name string) bool { return name == madeFile || o.Leaves(name) })
		if err != nil {
			return nil, err
		}
		var img build.Image
		if err := takeJSON(filepath.Join(results, madeFile), &img); err != nil {
			return nil, err
		}
		return &img, build.NoteVM(results, &img, machine)
	})
}

func (m *inMachine) steps(ctx context.Context, o build.Options, only []int) error {
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp(o.Out, ".steps-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	results := filepath.Join(work, "results")
	if err := os.Mkdir(results, 0o755); err != nil {
		return err
	}
	if _, err := m.run(ctx, &o, work, results, func(name string) bool { return name == stepsFile }); err != nil {
		return err
	}
	return os.Rename(filepath.Join(results, stepsFile), filepath.Join(o.Out, stepsFile))
}

// run runs the machine.
func (m *inMachine) run(ctx context.Context, o *build.Options, work, results string, wanted func(string) bool) (*build.VM, error) {
	wish, err := m.isolation.wish()
	if err != nil {
		return nil, err
	}
	free, err := vm.FreeMemory(os.ReadFile)
	if err != nil {
		return nil, err
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	if !vm.OwnPath(out) {
		out = "/out"
	}
	uid, gid := os.Geteuid(), os.Getegid()
	if uid == 0 {
		uid, gid = vm.User, vm.User
	}
	umask := syscall.Umask(0)
	syscall.Umask(umask)
	text, err := lock.Format(o.Lock)
	if err != nil {
		return nil, err
	}
	said := &eventLines{tell: o.Events}
	machine, err := vm.Run(ctx, vm.Options{
		Lock: o.Lock, LockText: text, Store: o.Store, Arch: o.Arch, Variant: o.Variant, Out: out,
		Environ: os.Environ(), UID: uid, GID: gid, Umask: umask, Wish: wish, Free: free, AnySpace: o.AnySpace, Wanted: wanted,
		Tell:  func(line string) { _, _ = said.Write([]byte(line + "\n")) }, // it does not fail
		Args:  func(accelerator string) ([]string, error) { return m.args(o, out, accelerator) },
		Begin: func(machine *vm.Machine) { m.ui.stage("%s", m.choice.line(machine)) },
		Again: func(err error) { m.ui.stage("KVM does not work here, so that it is done in software: %v", err) },
	}, work, results)
	return machine, m.translate(err)
}

// args are the command line of this program in the machine.
func (m *inMachine) args(o *build.Options, out, accelerator string) ([]string, error) {
	timeout := o.StepTimeout
	if timeout == 0 {
		timeout = build.StepTimeout
	}
	if timeout == build.StepTimeout && accelerator == vm.TCG {
		timeout *= slower
	}
	args := []string{"build", "--quiet", "--events", "--any-space", "--isolation", isolateNamespaces, "--describe",
		"--lock", vm.LockPath, "--store", vm.StorePath, "--out", out, "--step-timeout", timeout.String()}
	if o.Variant != "" {
		args = append(args, "--variant", o.Variant)
	}
	if !o.Around.Usual() {
		around, err := json.Marshal(o.Around)
		if err != nil {
			return nil, err
		}
		args = append(args, "--around", string(around))
	}
	if len(m.onlySteps) > 0 {
		args = append(args, "--only-steps", numbers(m.onlySteps))
	}
	return args, nil
}

// translate gives the errors of a machine their exit codes and hints: what the program
// in it said is said here, as if it had run here.
func (m *inMachine) translate(err error) error {
	var (
		ended   *vm.ExitError
		missing *vm.MissingError
		kernel  *vm.NoKernelError
		dynamic *vm.DynamicError
	)
	switch {
	case errors.As(err, &ended):
		text, hint, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(ended.Said), "caisson: "), "\nhint: ")
		if text == "" {
			return err
		}
		return &codeError{errors.New(unindent(text)), ended.Code, hint}
	case errors.As(err, &missing):
		if m.choice.refused != nil {
			err = fmt.Errorf("%w; and %w", m.choice.refused, err)
		}
		return &codeError{err, exitError, m.choice.hintVM()}
	case errors.As(err, &kernel):
		return &codeError{err, exitError, "name one in the manifest, such as `sets: {" + lock.SetVM + ": {packages: [kernel-core]}}`, and lock and prefetch again; or allow user namespaces"}
	case errors.As(err, &dynamic):
		return &codeError{err, exitError, "or allow user namespaces"}
	}
	return err
}

// unindent takes back what ui.fail does to the lines of an error behind its first.
func unindent(s string) string { return strings.ReplaceAll(s, "\n  ", "\n") }

// numbers writes numbers with commas between them.
func numbers(all []int) string {
	var out []string
	for _, n := range all {
		out = append(out, strconv.Itoa(n))
	}
	return strings.Join(out, ",")
}

func takeJSON(name string, v any) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("reading %s: %w", filepath.Base(name), err)
	}
	return os.Remove(name)
}

// isolation says what steps would run in here.
func (d *doctor) isolation(refused error) {
	kvm := "in software, about twenty times as slow as by namespaces"
	if vm.Accelerator() == vm.KVM {
		kvm = "by KVM"
	}
	qemu, err := vm.Find(machineArch())
	switch {
	case refused == nil && err == nil:
		d.say("isolation", found, "", "namespaces; with --isolation vm a virtual machine by %s, %s", qemu, kvm)
	case refused == nil:
		d.say("isolation", found, "", "namespaces; %v, and --isolation vm needs it", err)
	case err == nil:
		d.say("isolation", lesser, "allow user namespaces, as it says under sandbox, for quicker builds", "builds run in a virtual machine by %s, %s: the lock needs a kernel, in sets.%s or its root", qemu, kvm, lock.SetVM)
	default:
		d.say("isolation", wrong, (&choice{refused: &sandbox.RefusedError{}}).hintVM(), "no user namespaces, and %v", err)
	}
	if err := vm.CheckProgram(); err != nil && refused != nil {
		d.say("this program", wrong, "", "%v", err)
	}
}

// Package vm builds in a virtual machine where user namespaces are refused, as in pods
// of some policies: the same program does the same build there, sandbox included, and
// leaves the same bytes.
//
// Limits first. It needs QEMU, and a lock with a kernel: from the set lock.SetVM, and
// where there is none from the image's own root or initrd. The kernel has to have
// virtio_pci, virtio_blk and virtio_console, built in or as modules, and user
// namespaces. The running program has to be static. In software, without /dev/kvm,
// a build takes about twenty times as long. Machines are x86-64 and aarch64; on the latter this
// has not been run. What a failed step leaves cannot be kept, nor what steps made be
// reused: nothing leaves the machine but a finished build.
//
// # The machine
//
// It has no network card: `-nodefaults -nic none`. Its kernel is started directly, with
// an initramfs of this program as /init and the kernel's modules that it needs, and
// nothing else. Its root is a tmpfs, with swap space on a disk for what does not fit
// into memory. It has two more disks: the inputs, which is a tar archive, read-only, of
// a job, the lock, and those files of the store that build.Inputs names, proved as they
// are read; and the results, to which it writes a tar archive of what the build left.
// Init unpacks the inputs and runs the program as an ordinary user, with the caller's
// number, umask, host name and locale.
//
// What the program prints comes through a virtio port, a message a line (message), and so
// does its end. The machine ran foreign code, so that results are taken with care
// (readResults): regular files, of names that a build leaves.
//
// QEMU runs as the caller, confines itself where it can (-sandbox), and ends with the
// caller. When Run returns it has ended, and nothing of its folder is left.
package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/build/vm/qemu"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// silence is how long nothing may be heard of a machine, which says every ten seconds
// that it is alive.
const silence = 10 * time.Minute

// birth is how long a machine by KVM may take until it says something for the first time,
// which takes it a few seconds.
const birth = 90 * time.Second

// Options say what a machine is to do.
type Options struct {
	Lock     *lock.Lock
	LockText []byte
	Store    *cas.Store
	Arch     string
	Variant  string
	// Out is the folder for the results in the machine; any path.
	Out string
	// Args is the command line of this program, without its name, in a machine that is
	// run in this way. It finds lock and store at LockPath and StorePath.
	Args func(accelerator string) ([]string, error)
	// Environ is the caller's environment, of which little is handed on; UID, GID and
	// Umask are what the program is to have.
	Environ  []string
	UID, GID int
	Umask    int
	Wish     Wish
	// Free is how many bytes of memory are free.
	Free int64
	// AnySpace goes on without looking whether there is room.
	AnySpace bool
	// Tell is given every line that the program prints.
	Tell func(line string)
	// Begin is told of a machine before it is started, and Again why there is another
	// one: KVM, which nobody asked for, does not work. Both may be nil.
	Begin func(*Machine)
	Again func(error)
	// Wanted tells whether a build leaves a file of that name.
	Wanted func(name string) bool
}

// ExitError is the end of a program that did not do its work.
type ExitError struct {
	Code int
	Said string // on its standard error
}

func (e *ExitError) Error() string {
	return fmt.Sprintf("the build in the virtual machine ended with exit code %d: %s", e.Code, strings.TrimSpace(e.Said))
}

// running is a machine on its way.
type running struct {
	Options
	*Machine
	dir string
	// exit is the machine's last message.
	exit *exit
}

// deadError is of a machine that ended before it said anything.
type deadError struct{ text string }

func (e *deadError) Error() string { return e.text }

// Run runs a program in a machine, in the folder work, and leaves its results in the
// folder results, which has to be there. Inputs that the store lacks or has damaged are
// a *cas.MissingError or *cas.DamagedError. Where KVM was not asked for, and a machine by
// it does not come to life, there is another one in software.
func Run(ctx context.Context, o Options, work, results string) (*build.VM, error) {
	m, err := run(ctx, o, work, results)
	if errors.As(err, new(*deadError)) && o.Wish.Accelerator == "" && Accelerator() == KVM && ctx.Err() == nil {
		if o.Again != nil {
			o.Again(err)
		}
		o.Wish.Accelerator = TCG
		return run(ctx, o, work, results)
	}
	return m, err
}

func run(ctx context.Context, o Options, work, results string) (*build.VM, error) {
	place, from, err := findKernel(o.Lock, o.Store, o.Arch, o.Variant)
	if err != nil {
		return nil, err
	}
	inputs, need := o.inputs()
	m, err := newMachine(ctx, o.Arch, o.Wish, need, o.Free)
	if err != nil {
		return nil, err
	}
	if !o.AnySpace {
		if err := build.CheckSpace(work, o.space(inputs, need, m.Memory)); err != nil {
			return nil, err
		}
	}
	if o.Begin != nil {
		o.Begin(m)
	}
	m.Kernel = place.kernel
	r := &running{Options: o, Machine: m}
	if r.dir, err = filepath.Abs(filepath.Join(work, "vm")); err != nil {
		return nil, err
	}
	if err := os.Mkdir(r.dir, 0o700); err != nil {
		return nil, err
	}
	defer os.RemoveAll(r.dir)
	m.Initramfs, err = r.prepare(ctx, place, from, inputs, need)
	if err != nil {
		return nil, err
	}
	if err := r.start(ctx); err != nil {
		return nil, err
	}
	if r.exit.Code != 0 || r.exit.Result == nil {
		return nil, &ExitError{r.exit.Code, r.exit.Said}
	}
	f, err := os.Open(filepath.Join(r.dir, diskResults))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := readResults(ctx, f, *r.exit.Result, results, o.Wanted); err != nil {
		return nil, fmt.Errorf("what the virtual machine has left: %w", err)
	}
	return &m.VM, nil
}

// inputs are those that a build needs, and the space that it needs in the machine.
func (o *Options) inputs() ([]*lock.Input, int64) {
	inputs := build.Inputs(o.Lock, o.Arch, o.Variant)
	need := build.Space(o.Lock, o.Store, o.Arch, o.Variant)
	for _, in := range inputs {
		need += o.size(in)
	}
	return inputs, need
}

// size is an input's; locks do not have it of every kind.
func (o *Options) size(in *lock.Input) int64 {
	if in.Size > 0 {
		return in.Size
	}
	n, _ := o.Store.Size(in.SHA256) // what is missing is told of by who reads it
	return n
}

// space is how many bytes are needed outside the machine: inputs, kernel and program, the
// results, and what does not fit into the machine's memory.
func (o *Options) space(inputs []*lock.Input, need, memory int64) int64 {
	const kernel = 512 << 20
	n := kernel + need/2 + max(0, need-memory/2)
	for _, in := range inputs {
		n += o.size(in)
	}
	return n
}

// prepare makes the files that the machine has, and returns the digest of its initramfs.
func (r *running) prepare(ctx context.Context, k *place, from, inputs []*lock.Input, need int64) (digest.Digest, error) {
	var sum digest.Digest
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		sum, err = r.writeBoot(ctx, k, from)
		return err
	})
	g.Go(func() error { return r.writeInputs(ctx, inputs) })
	// Both are sparse: what is not written takes no room.
	for name, size := range map[string]int64{diskResults: 2*need + 1<<30, diskSwap: 2*need + 4<<30} {
		g.Go(func() error {
			f, err := os.OpenFile(filepath.Join(r.dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(f.Truncate(size&^(1<<20-1)), f.Close())
		})
	}
	return sum, g.Wait()
}

// writeBoot writes kernel and initramfs.
func (r *running) writeBoot(ctx context.Context, k *place, from []*lock.Input) (digest.Digest, error) {
	modules, err := unpackKernel(ctx, r.Store, k, from, filepath.Join(r.dir, kernelFile), filepath.Join(r.dir, "kernel"))
	if err != nil {
		return digest.Digest{}, err
	}
	exe, size, err := program()
	if err != nil {
		return digest.Digest{}, err
	}
	defer exe.Close()
	name := filepath.Join(r.dir, initramfsFile)
	w, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return digest.Digest{}, err
	}
	defer w.Close()
	if err := writeInitramfs(w, exe, size, modules); err != nil {
		return digest.Digest{}, err
	}
	if _, err := w.Seek(0, io.SeekStart); err != nil {
		return digest.Digest{}, err
	}
	sum, _, err := digest.Reader(w)
	return sum, err
}

func (r *running) writeInputs(ctx context.Context, inputs []*lock.Input) error {
	j := &job{Env: conditions(r.Environ), UID: r.UID, GID: r.GID, Umask: r.Umask, Out: r.Out}
	var err error
	if j.Args, err = r.Args(r.Accelerator); err != nil {
		return err
	}
	if j.Persona, err = personality(); err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return err
	}
	j.Hostname = unix.ByteSliceToString(uts.Nodename[:])
	w, err := os.OpenFile(filepath.Join(r.dir, diskInputs), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(writeInputs(ctx, w, j, r.LockText, r.Store, inputs), w.Close())
}

// personality is the caller's (personality(2)).
func personality() (uint, error) {
	const ask = 0xffffffff
	p, _, errno := unix.Syscall(unix.SYS_PERSONALITY, ask, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("asking for the personality: %w", errno)
	}
	return uint(p), nil
}

// start runs the machine to its end.
func (r *running) start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heard := make(chan struct{}, 1)
	alive := false
	l := &listener{tell: func(m message) {
		alive = true
		select {
		case heard <- struct{}{}:
		default:
		}
		switch {
		case m.Exit != nil:
			r.exit = m.Exit
		case m.Out != "":
			r.Tell(m.Out)
		}
	}}
	p, err := qemu.Start(ctx, r.dir, l, r.program, r.args(r.dir)...)
	if err != nil {
		return err
	}
	defer p.Stop()
	patience := silence
	if r.Accelerator == KVM {
		patience = birth
	}
	quiet := time.NewTimer(patience)
	defer quiet.Stop()
	for {
		select {
		case <-heard:
			patience = silence
			quiet.Reset(patience)
			continue
		case <-quiet.C:
			text := fmt.Sprintf("nothing has been heard of the virtual machine for %v%s", patience, r.console())
			if patience == birth {
				return &deadError{text}
			}
			return errors.New(text)
		case <-p.Done():
		}
		break
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case l.err != nil:
		return l.err
	case r.exit == nil && !alive:
		return &deadError{fmt.Sprintf("the virtual machine did not start (%s)%s", p.Exit(), r.console())}
	case r.exit == nil:
		return fmt.Errorf("the virtual machine ended (%s) before its build%s", p.Exit(), r.console())
	case r.exit.Error != "":
		return fmt.Errorf("in the virtual machine: %s%s", r.exit.Error, r.console())
	}
	return nil
}

// console is the end of what the machine's kernel said, for an error.
func (r *running) console() string {
	const most = 2000
	f, err := os.Open(filepath.Join(r.dir, consoleFile))
	if err != nil {
		return ""
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return ""
	}
	b := make([]byte, min(most, st.Size()))
	n, _ := f.ReadAt(b, st.Size()-int64(len(b))) // what there is
	text := strings.TrimSpace(strings.ToValidUTF8(strings.ReplaceAll(string(b[:n]), "\r", ""), "?"))
	if text == "" {
		return ""
	}
	return "; its console:\n" + text
}

// Package build makes the image that a lock describes, from the lock and the
// store alone.
//
// It runs as an ordinary user. Whatever runs foreign code (compilers, rpm and
// the packages' scriptlets) runs in build/sandbox; everything else is Go code
// that reads the results. The stages, in order: the tools root is unpacked;
// payloads are compiled and run steps run; rpm installs root and initrd; both
// trees are read, given their owners and normalised; the disk is assembled
// from them; every file is accounted for.
//
// The same lock gives the same bytes whoever builds, where, when and under
// which environment: nothing of these is read. A build writes under a
// temporary name in the output folder and renames at the end.
package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// StepTimeout is how long one sandboxed command may run.
const StepTimeout = 30 * time.Minute

// Options say what to build.
type Options struct {
	Lock    *lock.Lock
	Store   *cas.Store
	Variant string
	// Arch is the machine's; one of the lock's.
	Arch string
	// Out is the folder for the results; it is made where it is missing.
	Out string
	// Keep leaves the working folder where a build fails.
	Keep bool
	// Progress is told what begins; it may be nil.
	Progress func(stage string)
}

// NetworkError says that a step tried to reach a network.
type NetworkError struct {
	Step     string
	Attempts []sandbox.Attempt
}

func (e *NetworkError) Error() string {
	a := e.Attempts[0]
	return fmt.Sprintf("%s: %s tried to reach the network (%s %s): refused, and the build with it", e.Step, a.Exe, a.Call, a.Destination)
}

// StepError says that a step failed; Tail is the end of what it printed.
type StepError struct {
	Step   string
	Reason string
	Tail   string
}

func (e *StepError) Error() string {
	s := e.Step + ": " + e.Reason
	if e.Tail != "" {
		s += "\n" + e.Tail
	}
	return s
}

// KeptError adds where the working folder of a failed build was left.
type KeptError struct {
	Dir string
	Err error
}

func (e *KeptError) Error() string { return e.Err.Error() }
func (e *KeptError) Unwrap() error { return e.Err }

// Build makes the image and leaves NAME.qcow2, files.json, evidence.json and
// build.log in Options.Out. Inputs that the store lacks or has damaged are a
// *cas.MissingError or *cas.DamagedError.
func Build(ctx context.Context, o Options) (img *Image, err error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	defer func() {
		b.log.Close()
		switch {
		case err != nil && o.Keep:
			err = &KeptError{Dir: b.work, Err: err}
		default:
			if rmErr := removeAll(b.work); rmErr != nil && err == nil {
				err = rmErr
			}
		}
	}()
	return b.build(ctx)
}

type builder struct {
	Options
	image      lock.Image
	lockDigest digest.Digest
	work       string // below Out, removed at the end
	tools      string // the tools root
	out        string // what steps placed: $OUT, merged into the root
	log        *stepLog

	mu     sync.Mutex
	steps  map[string]sandbox.Evidence
	given  map[*lock.Input]bool
	placed map[string]placing // by path in the root
}

// placing is how a file that no package brought came to be.
type placing struct {
	account Account
	inputs  []string
	by      string
}

func newBuilder(o Options) (*builder, error) {
	im, ok := o.Lock.ImageFor(o.Variant)
	if !ok {
		return nil, fmt.Errorf("the lock has no variant %q", o.Variant)
	}
	if o.Lock.Revision != lock.Revision {
		return nil, fmt.Errorf("the lock is of revision %d and this Caisson makes images of revision %d: it would make other bytes", o.Lock.Revision, lock.Revision)
	}
	if host := hostArch(); host != o.Arch {
		return nil, fmt.Errorf("this machine is %s: an image for %s has to be built on such a machine", host, o.Arch)
	}
	b := &builder{Options: o, image: im, steps: map[string]sandbox.Evidence{}, given: map[*lock.Input]bool{}, placed: map[string]placing{}}
	var err error
	if b.lockDigest, err = o.Lock.Digest(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	out, err := filepath.Abs(o.Out)
	if err != nil {
		return nil, err
	}
	b.Out = out
	if b.work, err = os.MkdirTemp(out, ".build-"); err != nil {
		return nil, err
	}
	b.tools, b.out = filepath.Join(b.work, "tools"), filepath.Join(b.work, "placed")
	for _, d := range []string{b.tools, b.out} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return nil, err
		}
	}
	b.log, err = newStepLog(filepath.Join(b.work, "build.log"))
	return b, err
}

// hostArch is the machine's architecture as RPM calls it.
func hostArch() string {
	if a, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; ok {
		return a
	}
	return runtime.GOARCH
}

func (b *builder) say(format string, args ...any) {
	if b.Progress != nil {
		b.Progress(fmt.Sprintf(format, args...))
	}
}

func (b *builder) build(ctx context.Context) (*Image, error) {
	inputs := b.inputs()
	before, err := b.merkle(ctx, inputs)
	if err != nil {
		return nil, err
	}
	b.say("unpacking %d tools", len(b.of(lock.SetTools)))
	if err := b.unpackTools(ctx); err != nil {
		return nil, err
	}
	root, initrd, err := b.runAll(ctx)
	if err != nil {
		return nil, err
	}
	b.say("assembling the disk")
	img, files, err := b.assemble(ctx, root, initrd)
	if err != nil {
		return nil, err
	}
	after, err := b.merkle(ctx, inputs)
	if err != nil {
		return nil, err
	}
	if before != after {
		return nil, fmt.Errorf("the inputs changed during the build: %s before, %s after", before, after)
	}
	ev := Evidence{
		Version: 1, Lock: b.lockDigest, Inputs: sandbox.Inputs{Before: before.String(), After: after.String()},
		Steps: b.evidence(), Unused: b.unused(inputs),
	}
	return img, b.publish(img, files, &ev)
}

// runAll compiles the payloads beside installing root and initrd, then
// finishes the root with what was compiled and placed.
func (b *builder) runAll(ctx context.Context) (root, initrd *installed, err error) {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return b.runSteps(gctx) })
	g.Go(func() error {
		var err error
		b.say("installing the root")
		if root, err = b.install(gctx, lock.SetRoot); err != nil {
			return err
		}
		b.say("installing the initrd")
		initrd, err = b.install(gctx, lock.SetInitrd)
		return err
	})
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if err := b.finishRoot(ctx, root); err != nil {
		return nil, nil, err
	}
	return root, initrd, b.finishInitrd(ctx, root, initrd)
}

// publish writes the descriptions and gives all results their final names.
func (b *builder) publish(img *Image, files []File, ev *Evidence) error {
	for name, v := range map[string]any{"files.json": files, "evidence.json": ev} {
		if err := writeJSON(filepath.Join(b.work, name), v); err != nil {
			return err
		}
	}
	if err := b.log.Close(); err != nil {
		return err
	}
	for _, name := range []string{"files.json", "evidence.json", "build.log"} {
		out, err := describe(filepath.Join(b.work, name))
		if err != nil {
			return err
		}
		img.Files = append(img.Files, out)
	}
	for _, f := range img.Files {
		if err := os.Rename(filepath.Join(b.work, f.Name), filepath.Join(b.Out, f.Name)); err != nil {
			return err
		}
	}
	return nil
}

func writeJSON(name string, v any) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	enc := json.NewEncoder(f)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	return f.Close()
}

// describe is a file of the output folder by name, size and digest.
func describe(name string) (Output, error) {
	f, err := os.Open(name)
	if err != nil {
		return Output{}, err
	}
	defer f.Close()
	d, n, err := digest.Reader(f)
	return Output{Name: filepath.Base(name), Size: n, SHA256: d}, err
}

// removeAll removes a tree whose folders may be closed to their owner.
func removeAll(dir string) error {
	err := os.RemoveAll(dir)
	if err == nil || !errors.Is(err, os.ErrPermission) {
		return err
	}
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if d != nil && d.IsDir() {
			_ = os.Chmod(p, 0o700) //nolint:errcheck // RemoveAll says what is left
		}
		return nil
	})
	return os.RemoveAll(dir)
}

// stepLog is build.log: what every step printed, in pieces that are not torn.
type stepLog struct {
	mu sync.Mutex
	f  *os.File
}

func newStepLog(name string) (*stepLog, error) {
	f, err := os.Create(name)
	return &stepLog{f: f}, err
}

// Append writes a step's output under its name.
func (l *stepLog) Append(step, output string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if output != "" && !strings.HasSuffix(output, "\n") {
		output += "\n"
	}
	_, err := io.WriteString(l.f, "== "+step+"\n"+output)
	return err
}

// Close ends the log. Closing it again is no error.
func (l *stepLog) Close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return nil
	}
	err := l.f.Close()
	l.f = nil
	return err
}

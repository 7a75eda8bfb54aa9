// Package build makes the image that a lock describes, from the lock and the
// store alone.
//
// It runs as an ordinary user. Whatever runs foreign code (compilers, rpm and
// the packages' scriptlets) runs in build/sandbox; everything else is Go code
// that reads the results. The stages, in order: the tools root is unpacked;
// payloads are compiled and run steps run; rpm installs root and initrd; both
// trees are read, given their owners and normalised; the disk is assembled
// from them, or an archive written of the root; every file is accounted for.
// An archive can do without packages: its root is then what steps and overlays
// bring.
//
// The same lock gives the same bytes whoever builds, where, when and under
// which environment: nothing of these is read.
//
// A build works in a folder of its own in the output folder, and renames its
// results at the end; whenever it is interrupted, no file of it is under a
// final name that is not whole. What an earlier build left is replaced only
// then, and what describes it (image.json above all) is removed before it is.
// The working folder of a killed build is removed by the next one.
//
// Limits: an image for the machine's own architecture; a step may run for
// Options.StepTimeout; of what it prints, 4 MiB a stream are kept; what it leaves
// may claim no more bytes than the disk has, sparse files included.
package build

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"caisson/build/esp"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/prefetch/cas"
)

// StepTimeout is how long one sandboxed command may run unless Options say otherwise.
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
	// Sign makes Secure Boot signatures; nil where none are added.
	Sign esp.Signer
	// Keep leaves the working folder where a build fails.
	Keep bool
	// AnySpace builds without looking first whether Out has room for it.
	AnySpace bool
	// StepTimeout is how long one sandboxed command may run; the constant of that
	// name if 0.
	StepTimeout time.Duration
	// Around is what sandboxed commands are to find otherwise than usual: for finding
	// out what they depend on. Such a build is none to publish.
	Around sandbox.Surroundings
	// Reuse is empty, or names the program that builds, by its digest: then what
	// steps made is kept in the store, and taken from there where the same program
	// has run the same step with the same tools and inputs. Evidence.Reused says of
	// which. A verification does not reuse.
	Reuse string
	// Events is told what goes on, one thing at a time; it may be nil.
	Events func(Event)
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

// KeptError adds where the working folder of a failed build was left, and which
// step of it failed: see KeptStep. Step is empty where it was none.
type KeptError struct {
	Dir, Step string
	Err       error
}

func (e *KeptError) Error() string { return e.Err.Error() }
func (e *KeptError) Unwrap() error { return e.Err }

// Build makes the image and leaves NAME.qcow2, files.json, evidence.json and
// build.log in Options.Out. Inputs that the store lacks or has damaged are a
// *cas.MissingError or *cas.DamagedError; too little room, found before anything
// is done, is a *NoSpaceError.
func Build(ctx context.Context, o Options) (img *Image, err error) {
	b, err := newBuilder(o)
	if err != nil {
		return nil, err
	}
	if !o.AnySpace {
		if err := CheckSpace(b.Out, Space(o.Lock, o.Store, o.Arch, o.Variant)); err != nil {
			return nil, err
		}
	}
	w, err := newWorkDir(b.Out)
	if err != nil {
		return nil, err
	}
	defer func() {
		if b.log != nil {
			b.log.Close()
		}
		if err != nil && o.Keep {
			step, stepErr := b.keepStep(err)
			if dir, keepErr := w.keep(); keepErr == nil {
				err = &KeptError{Dir: dir, Step: step, Err: errors.Join(err, stepErr)}
				return
			}
		}
		if rmErr := w.remove(); rmErr != nil && err == nil {
			err = rmErr
		}
	}()
	if err := b.enter(w.path); err != nil {
		return nil, err
	}
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

	mu    sync.Mutex
	steps map[string]sandbox.Evidence
	given map[*lock.Input]bool
	// reused are the steps whose results came from an earlier build, and
	// givenThen what they were given there.
	reused    map[string]bool
	givenThen map[*lock.Input]bool
	// copied: inputs were copied to give them, so that who opened them says nothing.
	copied bool
	// made is what steps left in out, by path. Steps run one after another.
	made map[string]origin
	// specs are the sandboxes of steps that have begun, by name.
	specs map[string]sandbox.Spec
	// skipped are the scriptlets that were not run, by set.
	skipped map[string][]SkippedScript
	// archives are the OCI archives that run steps are given.
	archives []ociArchive
	// only are the steps that are run, by number from 1; nil for all.
	only []int
	// repositories are the git trees that run steps are given.
	repositories []gitTree
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
	if o.Sign != nil && im.IsArchive() {
		return nil, errors.New("an archive has no EFI programs to be signed for Secure Boot")
	}
	if o.Reuse != "" && !o.Around.Usual() {
		return nil, errors.New("what steps make with other surroundings is not to be reused")
	}
	if o.StepTimeout == 0 {
		o.StepTimeout = StepTimeout
	}
	b := &builder{Options: o, image: im, steps: map[string]sandbox.Evidence{}, given: map[*lock.Input]bool{}, reused: map[string]bool{}, givenThen: map[*lock.Input]bool{}, specs: map[string]sandbox.Spec{}, made: map[string]origin{}, skipped: map[string][]SkippedScript{}}
	var err error
	if b.lockDigest, err = o.Lock.Digest(); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(o.Out, 0o755); err != nil {
		return nil, err
	}
	b.Out, err = filepath.Abs(o.Out)
	return b, err
}

// enter prepares the working folder.
func (b *builder) enter(work string) error {
	b.work, b.tools, b.out = work, filepath.Join(work, "tools"), filepath.Join(work, "placed")
	for _, d := range []string{b.tools, b.out} {
		if err := makeDir(d); err != nil {
			return err
		}
	}
	var err error
	b.log, err = newStepLog(filepath.Join(work, "build.log"))
	return err
}

// hostArch is the machine's architecture as RPM calls it.
func hostArch() string {
	if a, ok := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]; ok {
		return a
	}
	return runtime.GOARCH
}

// product is what was made of the roots: a disk or archives.
type product interface {
	accounts(root, initrd *installed) ([]File, error)
	describe() *Image
}

func (b *builder) build(ctx context.Context) (*Image, error) {
	inputs := b.inputs()
	b.plan()
	before, err := b.merkleBeside(ctx, stepCheck, inputs, b.unpackTools)
	if err != nil {
		return nil, err
	}
	w, err := watchInputs(func(in *lock.Input) string { return b.Store.Path(in.SHA256) }, inputs)
	if err != nil {
		return nil, err
	}
	root, initrd, err := b.runAll(ctx)
	unread, watchErr := b.unread(w, inputs)
	if err := errors.Join(err, watchErr); err != nil {
		return nil, err
	}
	var img *Image
	var files []File
	after, err := b.merkleBeside(ctx, stepCheckAgain, inputs, func(ctx context.Context) error {
		var p product
		var err error
		if b.image.IsArchive() {
			p, err = b.pack(ctx, root)
		} else {
			p, err = b.assemble(ctx, root, initrd)
		}
		if err != nil {
			return err
		}
		if err := b.during(stepAccount, func() error { files, err = p.accounts(root, initrd); return err }); err != nil {
			return err
		}
		img = p.describe()
		img.Totals = totals(files)
		img.Removed, img.SkippedScriptlets = root.removed, b.countSkipped()
		return nil
	})
	if err != nil {
		return nil, err
	}
	if before != after {
		return nil, fmt.Errorf("the inputs changed during the build: %s before, %s after", before, after)
	}
	ev := Evidence{
		Version: 1, Lock: b.lockDigest, Inputs: sandbox.Inputs{Before: before.String(), After: after.String()},
		Steps: b.evidence(), Unused: b.unused(inputs), Unread: unread, Reused: b.reusedSteps(), Skipped: b.skippedScripts(), NotRecorded: sandbox.NotRecorded(),
	}
	return img, b.publish(ctx, img, files, &ev)
}

// merkleBeside reads all inputs while work is done that runs nothing foreign.
func (b *builder) merkleBeside(ctx context.Context, step string, inputs []*lock.Input, work func(context.Context) error) (root digest.Digest, err error) {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		p := b.begin(step).of(int64(len(inputs)), "files")
		defer p.end()
		var err error
		root, err = b.merkle(ctx, inputs, p)
		return err
	})
	g.Go(func() error { return work(ctx) })
	return root, g.Wait()
}

// hasInitrd tells whether the image has an initrd of packages: a vendor's UKI
// brings its own, and an archive has none.
func (b *builder) hasInitrd() bool {
	return !b.image.IsArchive() && (b.image.Boot == nil || b.image.Boot.UKI != lock.UKIVendor)
}

// runAll compiles the payloads beside installing root and initrd, then
// finishes the root with what was compiled and placed, and the initrd with
// the root's kernel modules. There is no initrd where a vendor's UKI brings one.
func (b *builder) runAll(ctx context.Context) (root, initrd *installed, err error) {
	g, gctx := errgroup.WithContext(ctx)
	pending := &pendingRoot{done: make(chan struct{})}
	g.Go(func() error { return b.runSteps(gctx, pending) })
	g.Go(func() error {
		var err error
		if root, err = b.installRoot(gctx); err != nil {
			return err
		}
		pending.installed = root
		close(pending.done)
		return nil
	})
	if b.hasInitrd() {
		g.Go(func() error {
			var err error
			initrd, err = b.install(gctx, lock.SetInitrd)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, nil, err
	}
	if err := b.during(stepRoot, func() error { return b.finishRoot(ctx, root) }); err != nil {
		return nil, nil, err
	}
	if initrd == nil {
		return root, nil, nil
	}
	defer b.begin(stepInitrd).end()
	version, err := kernelVersion(root.tree)
	if err != nil {
		return nil, nil, err
	}
	if err := b.addModules(ctx, root, initrd, version); err != nil {
		return nil, nil, err
	}
	return root, initrd, b.finishInitrd(ctx, initrd)
}

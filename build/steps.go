package build

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/build/cargobuild"
	"caisson/build/gobuild"
	"caisson/build/sandbox"
	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/gomod"
	"caisson/prefetch/view"
)

// compilers is how many programs are compiled at a time.
const compilers = 2

// runSteps runs the manifest's steps and leaves what they made in b.out. The
// programs are compiled beside each other; run steps follow one after another.
// Whatever ran first, results are put down in the order of the steps. Those
// that work on the root wait for it.
func (b *builder) runSteps(ctx context.Context, root *pendingRoot) error {
	done := make([]func() error, len(b.Lock.Steps)) // puts the step's result down
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(compilers)
	for i, s := range b.Lock.Steps {
		g.Go(func() (err error) {
			switch {
			case !b.wanted(i + 1):
			case s.Go != nil:
				defer b.begin(StepName(i+1, s)).end()
				done[i], err = b.goStep(gctx, i+1, s)
			case s.Cargo != nil:
				defer b.begin(StepName(i+1, s)).end()
				done[i], err = b.cargoStep(gctx, i+1, s)
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for i, s := range b.Lock.Steps {
		if !b.wanted(i + 1) {
			continue
		}
		put := done[i]
		if put == nil {
			err := b.during(StepName(i+1, s), func() (err error) {
				put, err = b.runStep(ctx, i+1, s, root)
				return err
			})
			if err != nil {
				return err
			}
		}
		if err := put(); err != nil {
			return err
		}
	}
	return nil
}

// payload finds the source of the payload of that kind and name, and all inputs
// of the payload.
func (b *builder) payload(n int, kind, name string) (tree *lock.Input, inputs []*lock.Input, err error) {
	i := slices.IndexFunc(b.Lock.Payloads, func(p lock.Payload) bool { return p.Kind == kind && p.Name == name })
	if i < 0 {
		return nil, nil, fmt.Errorf("step %d: the lock has no %s payload %q", n, kind, name)
	}
	p := b.Lock.Payloads[i]
	tree = b.Lock.Find(lock.KindTree, p.Source)
	if tree == nil {
		return nil, nil, fmt.Errorf("step %d: the lock has no source %q", n, p.Source)
	}
	inputs = b.Lock.Of(b.Arch, kind+":"+name)
	if !slices.Contains(inputs, tree) {
		inputs = append(inputs, tree)
	}
	return tree, inputs, nil
}

// stepDir is a folder of one step's own.
func (b *builder) stepDir(n int, what string) string {
	return filepath.Join(b.work, fmt.Sprintf("step-%d-%s", n, what))
}

// program moves a step's result to where it belongs and keeps account of it.
func (b *builder) program(from, to string, n int, inputs []*lock.Input) error {
	rel := strings.TrimPrefix(to, "/")
	how := origin{account: Compiled, inputs: refs(inputs), by: fmt.Sprintf("step %d", n)}
	dirs, err := makeDirs(b.out, path.Dir(rel))
	if err != nil {
		return err
	}
	for _, d := range dirs {
		b.made[d] = how
	}
	dst := filepath.Join(b.out, rel)
	if err := os.Rename(from, dst); err != nil {
		return fmt.Errorf("step %d left no program: %w", n, err)
	}
	b.made[rel] = how
	return os.Chmod(dst, 0o755)
}

func refs(inputs []*lock.Input) []string {
	var out []string
	for _, in := range inputs {
		out = append(out, ref(in))
	}
	slices.Sort(out)
	return out
}

func (b *builder) goStep(ctx context.Context, n int, s lock.Step) (put func() error, err error) {
	tree, inputs, err := b.payload(n, "go", s.Go.Input)
	if err != nil {
		return nil, err
	}
	out := b.stepDir(n, "out")
	if err := makeDir(out); err != nil {
		return nil, err
	}
	err = b.orReuse(n, s, reusable{StepName(n, s), inputs, out}, func() error { return b.goBuild(ctx, n, s.Go, tree, inputs, out) })
	if err != nil {
		return nil, err
	}
	program := filepath.Join(out, "program")
	made, err := madeOf(program, inputs)
	if err != nil {
		return nil, fmt.Errorf("step %d: %w", n, err)
	}
	return func() error { return b.program(program, s.Go.To, n, made) }, nil
}

// goBuild compiles a program into the folder out.
func (b *builder) goBuild(ctx context.Context, n int, s *lock.GoStep, tree *lock.Input, inputs []*lock.Input, out string) error {
	src, proxy, toolchain := b.stepDir(n, "src"), b.stepDir(n, "proxy"), b.stepDir(n, "toolchain")
	if err := b.unpackTree(tree, src); err != nil {
		return err
	}
	var files []gobuild.File
	for _, in := range inputs {
		switch in.Kind {
		case lock.KindToolchain:
			if err := gobuild.Toolchain(ctx, b.Store.Path(in.SHA256), toolchain); err != nil {
				return fmt.Errorf("%s: %w", ref(in), err)
			}
		case lock.KindGo:
			kind := strings.TrimPrefix(filepath.Ext(in.Name), ".")
			files = append(files, gobuild.File{Module: in.Go.Module, Version: in.Go.Version, Kind: kind, Path: inSandbox(in), H1: in.Go.H1})
		}
	}
	if err := gobuild.Proxy(proxy, files); err != nil {
		return err
	}
	workspace := gomod.Workspace(os.DirFS(src))
	if workspace {
		if err := gobuild.CompleteWorkSum(src, files); err != nil {
			return fmt.Errorf("step %d: %w", n, err)
		}
	}
	job := gobuild.Job{
		Toolchain: "/toolchain", Proxy: "/proxy", Source: "/src", Out: "/out/program",
		Package: s.Package, LDFlags: s.LDFlags, Epoch: b.Lock.Epoch, Workspace: workspace, Cgo: s.Cgo, Arch: lock.GoArch(s.Arch),
	}
	_, _, err := b.run(ctx, inputs, sandbox.Spec{
		Name: StepName(n, lock.Step{Go: s}), Root: b.tools, Args: job.Args(), Env: job.Env(), Dir: "/src", Around: b.asOther(),
		Mounts: []sandbox.Mount{
			{Source: toolchain, Target: "/toolchain"}, {Source: proxy, Target: "/proxy"},
			{Source: src, Target: "/src"}, {Source: out, Target: "/out", Writable: true},
		},
	})
	if err != nil {
		return err
	}
	return removeAll(toolchain)
}

// madeOf compares what a program says it was made of with what was locked for it,
// and returns the inputs without the modules that are not in it.
func madeOf(program string, inputs []*lock.Input) ([]*lock.Input, error) {
	f, err := os.Open(program)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	used, _, err := gobuild.Modules(f)
	if err != nil {
		return nil, err
	}
	type version struct{ path, version string }
	there := map[version]bool{}
	for _, m := range used {
		there[version{m.Path, m.Version}] = true
	}
	var locked []gomod.Module
	var made []*lock.Input
	for _, in := range inputs {
		if in.Kind != lock.KindGo {
			made = append(made, in)
			continue
		}
		if filepath.Ext(in.Name) == "."+gobuild.KindZip {
			locked = append(locked, gomod.Module{Path: in.Go.Module, Version: in.Go.Version, ZipH1: in.Go.H1})
		}
		if there[version{in.Go.Module, in.Go.Version}] {
			made = append(made, in)
		}
	}
	return made, gobuild.CheckSubset(used, locked)
}

func (b *builder) cargoStep(ctx context.Context, n int, s lock.Step) (put func() error, err error) {
	tree, inputs, err := b.payload(n, "cargo", s.Cargo.Input)
	if err != nil {
		return nil, err
	}
	out := b.stepDir(n, "out")
	if err := makeDir(out); err != nil {
		return nil, err
	}
	err = b.orReuse(n, s, reusable{StepName(n, s), inputs, out}, func() error { return b.cargoBuild(ctx, n, s.Cargo, tree, inputs, out) })
	if err != nil {
		return nil, err
	}
	return func() error { return b.program(filepath.Join(out, "program"), s.Cargo.To, n, inputs) }, nil
}

// cargoBuild compiles a program into the folder out.
func (b *builder) cargoBuild(ctx context.Context, n int, s *lock.CargoStep, tree *lock.Input, inputs []*lock.Input, out string) error {
	src, registry, target := b.stepDir(n, "src"), b.stepDir(n, "registry"), b.stepDir(n, "target")
	if err := b.unpackTree(tree, src); err != nil {
		return err
	}
	if err := makeDir(target); err != nil {
		return err
	}
	locked, err := cargo.Read(os.DirFS(src))
	if err != nil {
		return err
	}
	if err := b.crates(registry, locked, inputs); err != nil {
		return fmt.Errorf("step %d: %w", n, err)
	}
	job := cargobuild.Job{
		Config: "/registry/config.toml", Source: "/src", Tmp: "/target",
		Bin: s.Bin, Features: s.Features, Epoch: b.Lock.Epoch,
	}
	if _, err := os.Stat(filepath.Join(b.tools, "usr/bin/cc")); err != nil {
		job.Linker = "gcc" // cc is made by scriptlets, and the tools root runs none
	}
	if len(locked.Git) > 0 {
		job.Git = "/registry/git"
	}
	config := cargobuild.Config("/registry", job, locked)
	if err := os.WriteFile(filepath.Join(registry, "config.toml"), config, 0o644); err != nil { //nolint:gosec // read inside the sandbox
		return err
	}
	_, _, err = b.run(ctx, inputs, sandbox.Spec{
		Name: StepName(n, lock.Step{Cargo: s}), Root: b.tools, Args: job.Args(), Env: job.Env(), Dir: "/src", Around: b.asOther(),
		Mounts: []sandbox.Mount{
			{Source: registry, Target: "/registry"}, {Source: src, Target: "/src"}, {Source: target, Target: "/target", Writable: true},
		},
	})
	if err != nil {
		return err
	}
	rel, err := filepath.Rel("/target", job.Program())
	if err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(target, rel), filepath.Join(out, "program")); err != nil {
		return fmt.Errorf("step %d left no program: %w", n, err)
	}
	return removeAll(target)
}

// crates lays out what Cargo.lock names, each from the input that the lock has
// for it.
func (b *builder) crates(registry string, locked *cargo.Lock, inputs []*lock.Input) error {
	find := func(is func(in *lock.Input) bool) *lock.Input {
		if i := slices.IndexFunc(inputs, is); i >= 0 {
			return inputs[i]
		}
		return nil
	}
	var files []cargobuild.File
	for _, c := range locked.Crates {
		in := find(func(in *lock.Input) bool {
			return in.Kind == lock.KindCrate && in.URL == c.Name+"/"+c.Version && in.Registry == c.Source && in.SHA256.Hex() == c.Checksum
		})
		if in == nil {
			return fmt.Errorf("the lock does not have %s with checksum %s, which Cargo.lock names", c.File(), c.Checksum)
		}
		files = append(files, cargobuild.File{Crate: c, Path: b.Store.Path(in.SHA256), Target: inSandbox(in)})
	}
	if err := cargobuild.LocalRegistry(registry, files); err != nil || len(locked.Git) == 0 {
		return err
	}
	var repos []view.GitRepo
	for _, g := range locked.Git {
		in := find(func(in *lock.Input) bool { return in.Git != nil && in.Git.Commit == g.Commit })
		if in == nil {
			return fmt.Errorf("the lock does not have %s at commit %s, which Cargo.lock names", g.URL, g.Commit)
		}
		b.mu.Lock()
		b.given[in] = true
		b.mu.Unlock()
		repos = append(repos, view.GitRepo{Git: g, Open: func() (io.ReadCloser, error) { return b.open(in) }})
	}
	return view.GitRepositories(filepath.Join(registry, "git"), "/registry/git", repos)
}

// runStep runs a line of shell with the file inputs and the OCI images in $IN
// and everything it leaves in $OUT going into the root.
func (b *builder) runStep(ctx context.Context, n int, s lock.Step, root *pendingRoot) (put func() error, err error) {
	in, out := b.stepDir(n, "in"), b.stepDir(n, "out")
	for _, d := range []string{in, out} {
		if err := makeDir(d); err != nil {
			return nil, err
		}
	}
	var inputs []*lock.Input
	for i := range b.Lock.Inputs {
		f := &b.Lock.Inputs[i]
		if f.Kind != lock.KindFile {
			continue
		}
		if err := os.Symlink(inSandbox(f), filepath.Join(in, f.Name)); err != nil {
			return nil, err
		}
		inputs = append(inputs, f)
	}
	images, err := b.putImages(in)
	if err != nil {
		return nil, err
	}
	inputs = append(inputs, images...)
	repositories, mounts, err := b.putRepositories(in)
	if err != nil {
		return nil, err
	}
	inputs = append(inputs, repositories...)
	how := origin{account: Compiled, inputs: refs(inputs), by: fmt.Sprintf("step %d", n)}
	spec := sandbox.Spec{
		Name: StepName(n, s), Root: b.tools, Args: []string{"bash", "-euo", "pipefail", "-c", s.Run},
		Env: []string{"IN=/in", "OUT=/out"}, Dir: "/tmp", Around: b.asOther(),
		Mounts: append([]sandbox.Mount{{Source: in, Target: "/in"}, {Source: out, Target: "/out", Writable: true}}, mounts...),
	}
	if usesRoot.MatchString(s.Run) { // what it makes there is in no folder of its own
		err = b.runOnRoot(ctx, root, inputs, spec, how)
	} else {
		err = b.orReuse(n, s, reusable{spec.Name, inputs, out}, func() error {
			_, _, err := b.run(ctx, inputs, spec)
			return err
		})
	}
	if err != nil {
		return nil, err
	}
	left, err := look(out)
	if err == nil {
		err = checkClaims(spec.Name, out, left)
	}
	if err != nil {
		return nil, err
	}
	return func() error { return b.collect(out, how) }, nil
}

// usesRoot finds in a script that it works on the root.
var usesRoot = regexp.MustCompile(`\$(ROOT\b|\{ROOT\b)`)

// pendingRoot is the root while rpm installs it.
type pendingRoot struct {
	done chan struct{} // closed when it is there
	*installed
}

// runOnRoot runs a step with the installed root at $ROOT, as rpm's scriptlets
// have it: what it changes there is accounted for as its own.
func (b *builder) runOnRoot(ctx context.Context, root *pendingRoot, inputs []*lock.Input, s sandbox.Spec, how origin) error {
	select {
	case <-root.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.Mounts = append(s.Mounts, sandbox.Mount{Source: root.dir, Target: sysroot, Writable: true})
	s.ProcIn, s.DevIn = []string{sysroot}, []string{sysroot}
	s.Env = append(s.Env, "ROOT="+sysroot, "SYSTEMD_OFFLINE=1", "PYTHONDONTWRITEBYTECODE=1")
	s.FakeOwnership, s.Files, s.Around.User = true, root.seen, 0
	res, _, err := b.run(ctx, inputs, s)
	if err != nil {
		return err
	}
	root.seen, how.onRoot = res.Files, true
	if err := root.ledger.step(func(string, bool) origin { return how }); err != nil {
		return err
	}
	return checkClaims(s.Name, root.dir, root.ledger.last)
}

// collect moves what a run step left into b.out, folders with the modes that
// it gave them. A file that an earlier step made there is replaced.
func (b *builder) collect(out string, how origin) error {
	return filepath.WalkDir(out, func(full string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(out, full)
		if err != nil || rel == "." {
			return err
		}
		dst := filepath.Join(b.out, rel)
		st, err := os.Lstat(dst)
		there := err == nil
		if there && st.IsDir() != d.IsDir() {
			return fmt.Errorf("%s: $OUT/%s and what an earlier step left there are not both folders", how.by, rel)
		}
		if !d.IsDir() {
			b.made[rel] = how
			return os.Rename(full, dst)
		}
		if there {
			return nil
		}
		b.made[rel] = how
		info, err := d.Info()
		if err != nil {
			return err
		}
		if err := os.Mkdir(dst, 0o700); err != nil {
			return err
		}
		return os.Chmod(dst, info.Mode()&modeBits)
	})
}

// modeBits are the bits of a file's mode that go into the image.
const modeBits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky

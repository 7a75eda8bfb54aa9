package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"caisson/build"
	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
	"caisson/verify/vary"
)

// variations are what a rebuild has otherwise.
type variations struct {
	vary   string
	inside bool
	bisect bool
	given  *pflag.FlagSet
}

func (o *variations) variationFlags(c *cobra.Command) {
	o.given = c.Flags()
	o.given.StringVar(&o.vary, "vary", "all", "what the rebuild varies: all, or names; +NAME and -NAME change the default, which is all. "+strings.Join(vary.Names(), ", "))
	o.given.BoolVar(&o.inside, "vary-inside", false, "vary it for the steps as well, where the sandbox keeps it the same: finds fragile steps")
	o.given.BoolVar(&o.bisect, "bisect", false, "where the rebuild is another image, rebuild until it is known which variation is to blame; --vary-inside does")
}

// check refuses what contradicts itself.
func (o *variations) check(t *trusts) error {
	if _, err := vary.Parse(o.vary); err != nil {
		return usageError{fmt.Errorf("--vary: %w", err)}
	}
	switch {
	case t.noRebuild && (o.given.Changed("vary") || o.inside || o.bisect):
		return usageError{errors.New("--no-rebuild leaves nothing to vary: --vary, --vary-inside and --bisect are about the rebuild")}
	case o.inside && t.key != "":
		return usageError{errors.New("--vary-inside runs the steps as no build does: what comes of it is a verdict on the steps, and none on the image to sign with --key; verify without it to sign")}
	}
	return nil
}

// bisects tells whether it is looked for what is to blame.
func (o *variations) bisects() bool {
	if o.given != nil && o.given.Changed("bisect") {
		return o.bisect
	}
	return o.inside
}

// conditions ask for what is to be varied. need is how many bytes a rebuild takes.
func (o *variations) conditions(image string, need int64) (vary.Settings, error) {
	list := o.vary
	if list == "" { // of another command, which has no such flag
		list = "all"
	}
	names, err := vary.Parse(list)
	if err != nil {
		return vary.Settings{}, err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return vary.Settings{}, fmt.Errorf("asking for the kernel's version: %w", err)
	}
	return vary.Settings{
		Vary: names, Inside: o.inside, Base: os.TempDir(), Like: filepath.Dir(image), Need: need, Euid: os.Geteuid(), CPUs: runtime.NumCPU(),
		FSType: vary.FSType, Release: unix.ByteSliceToString(uts.Release[:]),
	}, nil
}

// shownConditions are what was varied and what is to blame, for people.
func shownConditions(ui *ui, r *verify.Report) {
	var reached, varied, not []string
	for _, c := range r.Conditions {
		switch {
		case c.Reached:
			reached = append(reached, c.Name)
		case c.Varied:
			varied = append(varied, c.Name)
		default:
			not = append(not, c.Name)
		}
	}
	for _, l := range []struct {
		what  string
		names []string
	}{{"varied, and for the steps", reached}, {"varied around the steps", varied}, {"not varied", not}} {
		if len(l.names) > 0 {
			ui.print("  %s: %s", l.what, strings.Join(l.names, ", "))
		}
	}
	for _, b := range r.Blame {
		ui.print("  to blame: %s", b.Text)
	}
	if len(r.Blame) == 0 && r.Differs() && len(r.Conditions) > 0 {
		ui.print("  --bisect finds out which of these is to blame")
	}
}

// rebuilder rebuilds a lock's image by another run of this program.
type rebuilder struct {
	lock     *lock.Lock
	text     []byte
	store    *cas.Store
	variant  string
	ui       *ui
	anySpace bool
	// stepTimeout is that of the rebuild; its default if 0.
	stepTimeout time.Duration
	isolation   isolation
}

// space is how many bytes a rebuild needs where it runs, about: the inputs
// cannot be linked there where that is another file system.
func (r *rebuilder) space() int64 {
	need := build.Space(r.lock, r.store, machineArch(), r.variant)
	for _, in := range build.Inputs(r.lock, machineArch(), r.variant) {
		need += in.Size
	}
	return need
}

// run runs `caisson build` under conditions.
func (r *rebuilder) run(ctx context.Context, c *vary.Conditions, out string) error {
	return r.build(ctx, c, out)
}

// steps runs some steps alone under conditions, and says what they left.
func (r *rebuilder) steps(ctx context.Context, c *vary.Conditions, only []int) ([]build.File, error) {
	out := filepath.Join(c.Dir, "out")
	if err := r.build(ctx, c, out, "--only-steps", numbers(only)); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(out, stepsFile))
	if err != nil {
		return nil, err
	}
	var files []build.File
	if err := json.Unmarshal(b, &files); err != nil {
		return nil, fmt.Errorf("reading %s: %w", stepsFile, err)
	}
	return files, nil
}

// build runs `caisson build` under conditions. Where another user cannot read the
// store, or it has others below it, it is given a store of links to the files.
func (r *rebuilder) build(ctx context.Context, c *vary.Conditions, out string, more ...string) error {
	lockFile, storeDir := filepath.Join(c.Dir, lockName), r.store.Dir()
	if err := os.WriteFile(lockFile, r.text, 0o644); err != nil { //nolint:gosec // for the other user to read
		return err
	}
	if c.UID != 0 && !r.openToAll() || len(r.store.Dirs()) > 1 {
		storeDir = filepath.Join(c.Dir, "store")
		if err := shareStore(ctx, r.store, build.Inputs(r.lock, machineArch(), r.variant), storeDir); err != nil {
			return err
		}
	}
	if c.UID != 0 {
		if err := chownTree(c.Dir, c.UID, c.GID); err != nil {
			return err
		}
	}
	args := append([]string{"build", "--quiet", "--events", "--lock", lockFile, "--store", storeDir, "--out", out}, more...)
	around, err := c.AroundJSON()
	if err != nil {
		return err
	}
	if around != "" {
		args = append(args, "--around", around)
	}
	if r.variant != "" {
		args = append(args, "--variant", r.variant)
	}
	if r.anySpace {
		args = append(args, "--any-space")
	}
	if r.stepTimeout != 0 {
		args = append(args, "--step-timeout", r.stepTimeout.String())
	}
	args = append(args, r.isolation.args()...)
	isolated, err := r.isolation.choose(ctx)
	if err != nil {
		return err
	}
	if isolated.vm {
		r.ui.stage("%s: the rebuild runs in a virtual machine without a network card", isolated.why())
	}
	_, tell, end := r.ui.building()
	defer end()
	cmd, err := c.Command(ctx, args...)
	if err != nil {
		return err
	}
	lines := &eventLines{tell: tell}
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = lines, &said
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		text, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(lines.said.String()+said.String()), "caisson: "), "\nhint: ")
		if exit.ExitCode() == exitMissing {
			return &rebuildError{text: text}
		}
		return fmt.Errorf("the build under other conditions failed: %s", text)
	}
	return err
}

// openToAll tells whether every user can read the inputs where they are.
func (r *rebuilder) openToAll() bool {
	dir, err := filepath.EvalSymlinks(r.store.Dir())
	if err != nil {
		return false
	}
	may := func(name string, bit os.FileMode) bool {
		st, err := os.Stat(name)
		return err == nil && st.Mode().Perm()&bit == bit
	}
	for d := dir; d != "/"; d = filepath.Dir(d) {
		if !may(d, 0o001) {
			return false
		}
	}
	for _, in := range build.Inputs(r.lock, machineArch(), r.variant) {
		if p := r.store.Path(in.SHA256); !may(filepath.Dir(p), 0o001) || !may(p, 0o004) {
			return false
		}
	}
	return true
}

// rebuildError says, in the words of the program that built, which input was
// missing or damaged.
type rebuildError struct {
	text    string
	missing cas.MissingError
}

func (e *rebuildError) Error() string { return e.text }
func (e *rebuildError) Unwrap() error { return &e.missing }

// shareStore makes a store of hard links, or copies where links cannot be.
func shareStore(ctx context.Context, from *cas.Store, inputs []*lock.Input, dir string) error {
	to, err := cas.Open(dir)
	if err != nil {
		return err
	}
	for _, in := range inputs {
		if err := ctx.Err(); err != nil {
			return err
		}
		dst := to.Path(in.SHA256)
		if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
			return err
		}
		if err := os.Link(from.Path(in.SHA256), dst); err == nil || errors.Is(err, os.ErrExist) {
			continue
		}
		f, err := from.Open(in.SHA256)
		if err != nil {
			var missing *cas.MissingError
			if errors.As(err, &missing) {
				missing.Name = in.Kind + "/" + in.Name
			}
			return err
		}
		_, _, err = to.Put(f, in.SHA256)
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// chownTree gives folders, and the lock, to another user. Files of the store
// stay whose they are: everybody may read them.
func chownTree(dir string, uid, gid int) error {
	return filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			return os.Chown(p, uid, gid)
		}
		return nil
	})
}

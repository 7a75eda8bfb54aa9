package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
	"caisson/verify/boot"
	"caisson/verify/measure"
	"caisson/verify/vary"
)

type verifyOptions struct {
	sources
	out  string
	boot bool
	boots
	trusts
	anySpace bool
	json     bool
}

func newVerifyCommand(ui *ui) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Rebuild the image under other conditions and compare",
		Long: `Verify makes the image again from lock and store, in another folder, under
another time zone, locale, umask, home, path and number of CPUs, and as another
user where it runs as root, and compares the whole disk bit for bit. It derives
the root hash and the measurements from the bytes, and reads the evidence. With
--boot it boots the image in a virtual machine and compares what was measured
with what was predicted. report.json and report.html say all of it.

With --key the verifier signs its verdict, a negative one too. With --rebuilders K
the verdict rests also on K others, each with a key of its own that --trust names,
who signed that the same lock gave them the same image; with --no-rebuild it
rests on them alone, and this machine rebuilds nothing and needs no store. One who
is trusted and found the image different refuses it, however many agree: the
same lock cannot give both, so somebody has to look. --policy holds the image
against the rules of a file.

Exit codes: 3 where the image is not what its lock makes; else 5 where a policy
or somebody trusted says no; else 7 where something could not be checked, too few
rebuilders who agree included.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runVerify(cmd.Context(), ui, &o, args[0]) },
	}
	o.flags(c)
	c.Flags().StringVar(&o.out, "out", "", "where the report is written (default beside the image)")
	c.Flags().BoolVar(&o.boot, "boot", false, "boot the image as well")
	o.bootFlags(c)
	o.trustFlags(c)
	spaceFlag(c, &o.anySpace)
	c.Flags().BoolVar(&o.json, "json", false, "print the report as JSON")
	return c
}

// boots are how a machine is booted.
type boots struct {
	memory, cpus int
	timeout      time.Duration
	waitFor      []string
	secureCert   string
}

func (b *boots) bootFlags(c *cobra.Command) {
	c.Flags().IntVar(&b.memory, "memory", 2048, "the booted machine's memory in MiB")
	c.Flags().IntVar(&b.cpus, "cpus", 2, "the booted machine's CPUs")
	c.Flags().DurationVar(&b.timeout, "timeout", 5*time.Minute, "how long the machine may take")
	c.Flags().StringVar(&b.secureCert, "secure-boot-cert", "", "boot with Secure Boot, on a machine that trusts this certificate alone")
	c.Flags().StringArrayVar(&b.waitFor, "wait-for", []string{"login:"}, "a regular expression that a line of the console must match; may be repeated")
}

func (b *boots) options() (*boot.Options, error) {
	o := &boot.Options{Memory: b.memory, CPUs: b.cpus, Timeout: b.timeout}
	if b.secureCert != "" {
		certs, err := (&bootKey{cert: b.secureCert}).certificates()
		if err != nil {
			return nil, err
		}
		platform := measure.Owned(certs[len(certs)-1].Raw)
		o.Secure = &platform
	}
	for _, s := range b.waitFor {
		re, err := regexp.Compile(s)
		if err != nil {
			return nil, usageError{fmt.Errorf("--wait-for: %w", err)}
		}
		o.WaitFor = append(o.WaitFor, re)
	}
	return o, nil
}

func runVerify(ctx context.Context, ui *ui, o *verifyOptions, image string) error {
	if _, err := o.boots.options(); err != nil {
		return err
	}
	if err := o.trusts.check(); err != nil {
		return err
	}
	if o.key != "" { // a wrong password is told now, not after all the work
		var err error
		if o.signer, err = loadSigner(ctx, o.key); err != nil {
			return err
		}
	}
	l, text, store, err := o.openFor()
	if err != nil {
		return err
	}
	r, err := verifyImage(ctx, ui, o, image, l, text, store)
	if err != nil {
		return err
	}
	if err := o.signVerdict(ctx, ui, o.out, image, l, r); err != nil {
		return err
	}
	if o.json {
		if err := ui.json(r); err != nil {
			return err
		}
	} else {
		if err := showReport(ui, r); err != nil {
			return err
		}
	}
	if err := verdictError(r); err != nil {
		return err
	}
	if dir := filepath.Dir(image); filepath.Clean(o.out) == dir {
		ui.next(append([]string{"attest", "--out", dir, "--key", "cosign.key"}, o.args()...)...)
	}
	return nil
}

// openFor opens lock and store; where nothing is rebuilt there is no store.
func (o *verifyOptions) openFor() (*lock.Lock, []byte, *cas.Store, error) {
	if o.noRebuild {
		l, text, err := o.readLock()
		return l, text, nil, err
	}
	return o.open()
}

// verifyImage runs verify.Verify with this program as the one that rebuilds.
func verifyImage(ctx context.Context, ui *ui, o *verifyOptions, image string, l *lock.Lock, text []byte, store *cas.Store) (*verify.Report, error) {
	if o.out == "" {
		o.out = filepath.Dir(image)
	}
	arch := machineArch()
	if o.noRebuild && len(l.Arches) == 1 {
		arch = l.Arches[0]
	}
	variant := variantOf(image, l, arch)
	if err := buildable(l, o.lockFile, variant); err != nil && !o.noRebuild {
		return nil, err
	}
	if err := wantFolder(o.out, "the output folder"); err != nil {
		return nil, err
	}
	if err := wantImage(image); err != nil {
		return nil, err
	}
	r := &rebuilder{lock: l, text: text, store: store, variant: variant, ui: ui, anySpace: o.anySpace}
	opts := verify.Options{
		Image: image, Lock: l, Store: store, Arch: arch, Variant: variant, Out: o.out,
		Version: programVersion(), Now: time.Now, Progress: func(s string) { ui.stage("%s", s) },
		Conditions: vary.Settings{Base: os.TempDir(), Euid: os.Geteuid(), CPUs: runtime.NumCPU(), FSType: vary.FSType},
	}
	if !o.noRebuild {
		opts.Rebuild, opts.Conditions.Need = r.run, r.space()
	}
	if o.boot {
		var err error
		if opts.Boot, err = o.boots.options(); err != nil {
			return nil, err
		}
	}
	if err := o.rest(ui, l, image, &opts); err != nil {
		return nil, err
	}
	return verify.Verify(ctx, opts)
}

// wantImage refuses what is no image at all, before anything is rebuilt.
func wantImage(name string) error {
	if err := wantFile(name); err != nil {
		return err
	}
	d, err := verify.OpenDisk(name)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err == nil {
		defer d.Close()
		if _, err = d.Digest(); err == nil && d.Format == "raw" && !hasTable(d) {
			err = errors.New("it is no qcow2, no VHD, and no disk with a GUID partition table")
		}
	}
	if err != nil {
		return &codeError{fmt.Errorf("%s cannot be what the lock makes: %w", name, cause(err)), exitDifferent, "the image is damaged, or is none: get it again, or build it"}
	}
	return nil
}

// hasTable looks for the signature of a GUID partition table, or of its copy
// at the end of the disk (UEFI 2.10, table 5.5).
func hasTable(d *verify.Disk) bool {
	const block = 512
	signature := []byte("EFI PART")
	b := make([]byte, len(signature))
	for _, off := range []int64{block, d.Size - block} {
		if _, err := d.ReadAt(b, off); err == nil && bytes.Equal(b, signature) {
			return true
		}
	}
	return false
}

// variantOf is the variant that an image is by its name. What it is in truth
// shows when the variant is built again.
func variantOf(image string, l *lock.Lock, arch string) string {
	base := strings.TrimSuffix(filepath.Base(image), filepath.Ext(image))
	for _, v := range l.Variants {
		if base == build.ImageName(l, arch, v.Name) {
			return v.Name
		}
	}
	return ""
}

// rebuilder rebuilds a lock's image by another run of this program.
type rebuilder struct {
	lock     *lock.Lock
	text     []byte
	store    *cas.Store
	variant  string
	ui       *ui
	anySpace bool
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

// run runs `caisson build` under conditions. Where that is another user, or the
// store has others below it, it is given a store of links to the files.
func (r *rebuilder) run(ctx context.Context, c *vary.Conditions, out string) error {
	lockFile, storeDir := filepath.Join(c.Dir, lockName), r.store.Dir()
	if err := os.WriteFile(lockFile, r.text, 0o644); err != nil { //nolint:gosec // for the other user to read
		return err
	}
	if c.UID != 0 || len(r.store.Dirs()) > 1 {
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
	args := []string{"build", "--quiet", "--events", "--lock", lockFile, "--store", storeDir, "--out", out}
	if r.variant != "" {
		args = append(args, "--variant", r.variant)
	}
	if r.anySpace {
		args = append(args, "--any-space")
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

// showReport prints a verdict for people.
func showReport(ui *ui, r *verify.Report) error {
	ui.print("%s: %s", r.Image.Name, strings.ToUpper(string(r.Verdict)))
	ui.print("  %s", r.Reason)
	for _, c := range r.Checks {
		ui.print("  %-24s %-14s %s", c.Name, c.Status, c.Detail)
	}
	shownExceptions(ui, r)
	var varied, not []string
	for _, c := range r.Conditions {
		if c.Varied {
			varied = append(varied, c.Name)
		} else {
			not = append(not, c.Name)
		}
	}
	if len(r.Conditions) > 0 {
		ui.print("  varied: %s; not varied: %s", strings.Join(varied, ", "), strings.Join(not, ", "))
	}
	return showDifferences(ui, r)
}

// verdictError is the exit code of a verdict.
func verdictError(r *verify.Report) error {
	switch r.Verdict {
	case verify.Identical, verify.Equivalent:
		return nil
	case verify.NotVerified:
		if r.Refused() {
			return &quietError{exitRefused}
		}
		return &quietError{exitNotVerified}
	}
	return &quietError{exitDifferent}
}

func newBootCommand(ui *ui) *cobra.Command {
	var b boots
	c := &cobra.Command{
		Use:   "boot IMAGE",
		Short: "Boot an image in a virtual machine and show its console and what it measured",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := b.options()
			if err != nil {
				return err
			}
			d, err := verify.OpenDisk(args[0])
			if err != nil {
				return err
			}
			if m, err := measure.Disk(d, d.Size); err == nil {
				o.Resets = m.Resets
			}
			d.Close()
			o.Disk, o.Format, o.Serial = args[0], d.Format, ui.err
			r, err := boot.Run(cmd.Context(), *o)
			if err != nil {
				return err
			}
			ui.print("%s after %s", r.Exit, r.Time.Round(time.Second))
			for pcr := range 24 {
				if v, ok := r.PCRs[pcr]; ok {
					ui.print("pcr %-2d sha256 %s", pcr, v)
				}
			}
			return nil
		},
	}
	b.bootFlags(c)
	return c
}

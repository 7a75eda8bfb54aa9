package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/lock"
	"caisson/prefetch/cas"
	"caisson/verify"
	"caisson/verify/boot"
	"caisson/verify/measure"
)

type verifyOptions struct {
	sources
	out  string
	boot bool
	boots
	trusts
	variations
	anySpace    bool
	stepTimeout time.Duration
	isolation   isolation
	json        bool
}

func newVerifyCommand(ui *ui) *cobra.Command {
	var o verifyOptions
	c := &cobra.Command{
		Use:   "verify IMAGE",
		Short: "Rebuild the image under other conditions and compare",
		Long: `Verify makes the image again from lock and store, in another folder, under
another time zone, locale, umask, home, path and number of CPUs, and as another
user where it runs as root, and compares the whole disk bit for bit. It derives
the root hash and the measurements from the bytes, and reads the evidence; of an
archive, which no machine boots, it derives every digest in it instead. With
--boot it boots the image in a virtual machine and compares what was measured
with what was predicted. report.json and report.html say all of it.

--vary chooses what is varied, as reprotest's does: --vary=-kernel,-aslr leaves two
out, --vary=umask,home varies these alone. The sandbox keeps most of it the same for
the steps; --vary-inside changes it there as well, and so finds steps that
are reproducible for no other reason. Where the rebuild is another image, --bisect
rebuilds until it can say which variation is to blame, and for which step; with
--vary-inside it does unless --bisect=false says otherwise.

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
	o.variationFlags(c)
	spaceFlag(c, &o.anySpace)
	timeoutFlag(c, &o.stepTimeout)
	o.isolation.isolationFlags(c)
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
	if err := o.isolation.check(); err != nil {
		return err
	}
	if err := o.variations.check(&o.trusts); err != nil {
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
	if err := wantImage(image, l); err != nil {
		return nil, err
	}
	if l.IsArchive() && o.boot {
		return nil, noBoot(l)
	}
	r := &rebuilder{lock: l, text: text, store: store, variant: variant, ui: ui, anySpace: o.anySpace, stepTimeout: o.stepTimeout, isolation: o.isolation}
	opts := verify.Options{
		Image: image, Lock: l, Store: store, Arch: arch, Variant: variant, Out: o.out,
		Version: programVersion(), Now: time.Now, Progress: func(s string) { ui.stage("%s", s) },
	}
	if !o.noRebuild {
		var err error
		if opts.Conditions, err = o.conditions(image, r.space()); err != nil {
			return nil, err
		}
		opts.Rebuild, opts.Steps, opts.Bisect = r.run, r.steps, o.bisects()
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
	report, err := verify.Verify(ctx, opts)
	var unreadable *verify.ImageError
	if errors.As(err, &unreadable) && ctx.Err() == nil {
		return nil, notThisImage(image, err)
	}
	return report, err
}

// noBoot refuses --boot for what no machine boots.
func noBoot(l *lock.Lock) error {
	return usageError{fmt.Errorf("--boot: %s is made as an archive (%s), which no machine boots", l.Name, strings.Join(l.Image.Output, ", "))}
}

// wantImage refuses what is no image at all, or not of the lock's kind, before
// anything is rebuilt.
func wantImage(name string, l *lock.Lock) error {
	if err := wantFile(name); err != nil {
		return err
	}
	d, err := verify.OpenImage(name)
	if errors.Is(err, fs.ErrPermission) {
		return err
	}
	if err == nil {
		defer d.Close()
		switch {
		case d.IsArchive() && !l.IsArchive():
			err = errors.New("it is an archive, and the lock makes a disk")
		case !d.IsArchive() && l.IsArchive():
			err = fmt.Errorf("it is no archive, and the lock makes one (%s)", strings.Join(l.Image.Output, ", "))
		case d.Format == lock.OutputRaw && !hasTable(d):
			err = errors.New("it is no qcow2, no VHD, and no disk with a GUID partition table")
		}
	}
	if err != nil {
		return notThisImage(name, err)
	}
	return nil
}

// notThisImage is the error of a file that cannot be read as an image.
func notThisImage(name string, err error) error {
	return &codeError{fmt.Errorf("%s cannot be what the lock makes: %w", name, cause(err)), exitDifferent, "the image is damaged, or is none: get it again, or build it"}
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
	base := build.BaseName(image)
	for _, v := range l.Variants {
		if base == build.ImageName(l, arch, v.Name) {
			return v.Name
		}
	}
	return ""
}

// showReport prints a verdict for people.
func showReport(ui *ui, r *verify.Report) error {
	ui.print("%s: %s", r.Image.Name, strings.ToUpper(string(r.Verdict)))
	ui.print("  %s", r.Reason)
	for _, c := range r.Checks {
		ui.print("  %-24s %-14s %s", c.Name, c.Status, c.Detail)
	}
	shownExceptions(ui, r)
	shownConditions(ui, r)
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

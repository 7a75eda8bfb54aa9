package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"caisson/build/imagefile"
	"caisson/build/seal"
	"caisson/lock"
	"caisson/lock/digest"
)

type sealOptions struct {
	out, format    string
	backing        []string
	root, espPath  string
	cmdline, salt  string
	free           string
	stub           string
	epoch          string
	noAddon, dirty bool
	secureBoot     bootKey
	json           bool
}

func newSealCommand(ui *ui) *cobra.Command {
	var o sealOptions
	c := &cobra.Command{
		Use:   "seal IMAGE -o OUT",
		Short: "Put a vendor's image on dm-verity, without changing its root",
		Long: `Seal adds to an image that exists a hash tree of its root partition, in a
partition of its own, and beside its unified kernel image an addon that says the
root hash. The root partition is not changed, whatever file system it has. It
needs no privileges and no devices, and the same image gives the same bytes.

IMAGE is a qcow2, with backing files that lie in its folder, a VHD, or the disk
itself. OUT is a qcow2, or what --format or its ending says: vhd (fixed, as Azure
takes it) or raw.

The root partition is the one of a root's type, or the one that --partition
names by number, label or id. The addon goes beside the only kernel image in
EFI/Linux, or to --esp-path; with --no-addon nothing is put there, and what has
to be added to the kernel's command line is printed.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runSeal(cmd.Context(), ui, &o, args[0]) },
	}
	f := c.Flags()
	f.StringVarP(&o.out, "out", "o", "", "the sealed image")
	f.StringVar(&o.format, "format", "", "qcow2, vhd or raw (default by the ending of OUT, or else qcow2)")
	f.StringArrayVar(&o.backing, "backing", nil, "a folder that backing files may lie in; may be repeated (default the image's)")
	f.StringVar(&o.root, "partition", "", "the root partition: its number, label or id")
	f.StringVar(&o.espPath, "esp-path", "", "where the addon goes: KERNEL.efi.extra.d/NAME.addon.efi, or loader/addons/NAME.addon.efi for all kernels")
	f.StringVar(&o.cmdline, "cmdline", seal.DefaultCmdline, "what the addon says beside the root hash")
	f.StringVar(&o.stub, "addon-stub", "", "make the addon of this EFI program, such as systemd's addonx64.efi.stub")
	f.BoolVar(&o.noAddon, "no-addon", false, "make no addon, print what it would say")
	f.StringVar(&o.secureBoot.key, "secure-boot-key", "", "sign the addon with this key: a file or env://NAME")
	f.StringVar(&o.secureBoot.cert, "secure-boot-cert", "", "the certificate of --secure-boot-key")
	f.StringVar(&o.free, "free", lock.FormatSize(seal.DefaultFree), "how much is left free behind the hash tree, for a scratch partition")
	f.StringVar(&o.salt, "salt", "", "the salt of the hash tree, in hex (default derived from the root)")
	f.StringVar(&o.epoch, "epoch", os.Getenv("SOURCE_DATE_EPOCH"), "the time of what is added, in seconds since 1970 (default SOURCE_DATE_EPOCH, or else 0)")
	f.BoolVar(&o.dirty, "dirty", false, "seal a root file system that would have to be recovered all the same")
	f.BoolVar(&o.json, "json", false, "print JSON")
	require(c, "out")
	return c
}

// sealed is what was made of what, for --json.
type sealed struct {
	Input  sealedInput  `json:"input"`
	Output sealedOutput `json:"output"`
	seal.Result
}

type sealedInput struct {
	Format string       `json:"format"`
	Files  []sealedFile `json:"files"` // the image, and what it is based on
}

type sealedFile struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"`
	SHA256 digest.Digest `json:"sha256"`
}

type sealedOutput struct {
	sealedFile
	Format string `json:"format"`
}

func runSeal(ctx context.Context, ui *ui, o *sealOptions, image string) error {
	began := time.Now()
	opts, err := o.options(ui)
	if err != nil {
		return err
	}
	if err := wantFile(image); err != nil {
		return err
	}
	if err := otherFile(image, o.out); err != nil {
		return err
	}
	folders := o.backing
	if folders == nil {
		folders = []string{filepath.Dir(image)}
	}
	d, err := imagefile.OpenBacked(image, folders...)
	if err != nil {
		return err
	}
	defer d.Close()
	opts.Disk, opts.Size = d, d.Size()
	tree, err := treeFile(filepath.Dir(o.out))
	if err != nil {
		return fmt.Errorf("writing %s: %w", o.out, cause(err))
	}
	defer tree.Close()
	opts.Tree = tree
	ui.stage("reading %s (%s, a disk of %s)", image, d.Format, size(d.Size()))
	s, err := seal.Seal(ctx, *opts)
	if err != nil {
		return sealError(image, err)
	}
	r := &sealed{Input: sealedInput{Format: d.Format}, Result: s.Result}
	for _, w := range s.Result.Warnings {
		ui.stage("warning: %s", w)
	}
	ui.stage("writing %s (%s, a disk of %s)", o.out, o.format, size(s.Size()))
	if err := writeImage(ctx, o.out, s, imagefile.Options{Format: o.format, Time: opts.Time}); err != nil {
		return err
	}
	if o.json {
		if err := r.describe(ctx, d.Files, o); err != nil {
			return err
		}
		return ui.json(r)
	}
	r.show(ui, o.out)
	ui.stage("sealed in %s", took(began))
	if !o.noAddon {
		ui.next("measure", o.out)
	}
	return nil
}

// options are what the flags say.
func (o *sealOptions) options(ui *ui) (*seal.Options, error) {
	if o.format == "" {
		o.format = imagefile.Qcow2
		if ext := strings.TrimPrefix(filepath.Ext(o.out), "."); ext == imagefile.VHD || ext == imagefile.Raw {
			o.format = ext
		}
	}
	if o.format != imagefile.Qcow2 && o.format != imagefile.VHD && o.format != imagefile.Raw {
		return nil, usageError{fmt.Errorf("--format %q: want qcow2, vhd or raw", o.format)}
	}
	if o.noAddon && (o.espPath != "" || o.stub != "" || o.secureBoot.key != "") {
		return nil, usageError{errors.New("--no-addon goes with none of --esp-path, --addon-stub and --secure-boot-key")}
	}
	sign, err := o.secureBoot.addonSigner()
	if err != nil {
		return nil, err
	}
	opts := &seal.Options{
		Root: o.root, AddonPath: o.espPath, Cmdline: o.cmdline, NoAddon: o.noAddon, Dirty: o.dirty, Sign: sign,
		Progress: func(stage string) { ui.stage("%s", stage) },
	}
	if opts.Free, err = parseSize(o.free); err != nil {
		return nil, usageError{fmt.Errorf("--free: %w", err)}
	}
	if o.salt != "" {
		if opts.Salt, err = hex.DecodeString(o.salt); err != nil || len(opts.Salt) > 256 {
			return nil, usageError{fmt.Errorf("--salt %q: want at most 256 bytes in hex", o.salt)}
		}
	}
	if o.epoch != "" {
		if opts.Time, err = strconv.ParseInt(o.epoch, 10, 64); err != nil {
			return nil, usageError{fmt.Errorf("--epoch %q: want seconds since 1970", o.epoch)}
		}
	}
	if o.stub != "" {
		if opts.AddonStub, err = os.ReadFile(o.stub); err != nil {
			return nil, err
		}
	}
	return opts, nil
}

// parseSize reads a number of bytes, or of larger units as a manifest has them,
// of which the first letter will do.
func parseSize(s string) (int64, error) {
	digits := strings.TrimRight(s, "KMGTiB")
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[strings.TrimSuffix(s[len(digits):], "iB")]
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || !ok || n < 0 || n > 1<<50>>shift {
		return 0, fmt.Errorf("%q is not a size, such as 512MiB or 10GiB", s)
	}
	return n << shift, nil
}

// otherFile refuses to write over the image that is read.
func otherFile(image, out string) error {
	a, err := os.Stat(image)
	if err != nil {
		return err
	}
	switch b, err := os.Stat(out); {
	case err == nil && b.IsDir():
		return fmt.Errorf("%s is a folder: want the name of the sealed image", out)
	case err == nil && os.SameFile(a, b):
		return usageError{fmt.Errorf("%s is the image itself: want another name for the sealed one", out)}
	}
	return nil
}

// treeFile is a file without a name for the hash tree.
func treeFile(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".caisson-seal-")
	if err != nil {
		return nil, err
	}
	return f, os.Remove(f.Name())
}

// writeImage writes a disk under a temporary name until it is whole.
func writeImage(ctx context.Context, name string, disk *seal.Disk, o imagefile.Options) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-")
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, cause(err))
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if err := imagefile.Write(ctx, f, disk, disk.Size(), o); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if err := errors.Join(f.Chmod(0o644), f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("writing %s: %w", name, cause(err))
	}
	return os.Rename(f.Name(), name)
}

// describe hashes the files that were read, and the one that was written.
func (r *sealed) describe(ctx context.Context, inputs []string, o *sealOptions) error {
	for _, name := range inputs {
		f, err := hashFile(ctx, name)
		if err != nil {
			return err
		}
		r.Input.Files = append(r.Input.Files, f)
	}
	r.Output.Format = o.format
	var err error
	r.Output.sealedFile, err = hashFile(ctx, o.out)
	return err
}

func hashFile(ctx context.Context, name string) (sealedFile, error) {
	f, err := os.Open(name)
	if err != nil {
		return sealedFile{}, err
	}
	defer f.Close()
	sum, n, err := digest.Reader(io.NewSectionReader(imagefile.UntilDone(ctx, f), 0, 1<<62))
	return sealedFile{Name: filepath.Base(name), Size: n, SHA256: sum}, err
}

func (r *sealed) show(ui *ui, out string) {
	ui.print("image       %s", out)
	ui.print("  root hash %s", r.RootHash)
	ui.print("  root      partition %d %q, %s of %s, its id now %s", r.Root.Number, r.Root.Name, size(r.Root.Size), orUnknown(r.FileSystem), r.Root.ID)
	ui.print("  hash tree partition %d %q, %s", r.Verity.Number, r.Verity.Name, size(r.Verity.Size))
	const table = 1 << 20 // where the second copy of the partition table is
	ui.print("  disk      %s, %s free behind the hash tree", size(r.DiskSize), size(r.DiskSize-r.Verity.Start-r.Verity.Size-table))
	if a := r.Addon; a != nil {
		ui.print("  addon     %s", a.Path)
		ui.print("    digest  sha256:%s", a.SHA256)
		ui.print("    pe hash sha256:%s", a.Authenticode)
	}
	ui.print("  cmdline   %s", r.Cmdline)
}

func orUnknown(s string) string {
	if s == "" {
		return "an unknown file system"
	}
	return s
}

// sealError says what to do about what is wrong with an image.
func sealError(image string, err error) error {
	hint := ""
	switch {
	case errors.As(err, new(*seal.SealedError)):
		hint = "`caisson measure` shows what it measures"
	case errors.As(err, new(*seal.DirtyError)):
		hint = "start it once and shut it down, or run fsck on that partition; --dirty seals it as it is"
	default:
		return fmt.Errorf("%s: %w", image, err)
	}
	return &codeError{fmt.Errorf("%s: %w", image, err), exitError, hint}
}

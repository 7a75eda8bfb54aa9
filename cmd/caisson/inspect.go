package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
	"caisson/verify"
	"caisson/verify/diff"
)

type inspectOptions struct {
	lockFile, key string
}

func newInspectCommand(ui *ui) *cobra.Command {
	var o inspectOptions
	c := &cobra.Command{
		Use:   "inspect DIR|IMAGE|LOCK|STATEMENT",
		Short: "Show what an output folder, an image, a lock or a statement is",
		Long: `Inspect shows in a few lines what a lock pins, what a statement says of which
image, or what an output folder holds: the image, its measurements as predicted
and as measured, the account of its files, the verdict and the statements. With
--key the statements' signatures are checked.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return runInspect(cmd.Context(), ui, &o, args[0]) },
	}
	c.Flags().StringVar(&o.lockFile, "lock", "", "the lock that the image should be made from")
	c.Flags().StringVar(&o.key, "key", "", "check the statements' signatures by this public key")
	return c
}

func runInspect(ctx context.Context, ui *ui, o *inspectOptions, path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return inspectFolder(ctx, ui, path, o)
	}
	text, err := isJSON(path)
	if err != nil {
		return err
	}
	if !text {
		return inspectImage(ctx, ui, path, o)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if s, ok := readStatement(b); ok {
		return inspectStatement(ui, path, s, o.key)
	}
	return inspectLock(ui, path)
}

func inspectLock(ui *ui, name string) error {
	s := sources{lockFile: name}
	l, text, err := s.readLock()
	if err != nil {
		return err
	}
	showLocked(ui, name, l, digest.Of(text))
	return nil
}

func showLocked(ui *ui, name string, l *lock.Lock, d digest.Digest) {
	ui.print("lock        %s", name)
	ui.print("  digest    %s", d)
	ui.print("  inputs    %s", summarise(l, d))
	for _, r := range l.Repos {
		checked := "packages must be signed by " + strings.Join(r.Keys, ", ")
		if !r.GPGCheck {
			checked = "SIGNATURES NOT CHECKED"
		}
		ui.print("  packages  %s (%s) %s: %s", r.ID, r.Arch, r.BaseURL, checked)
	}
	showSizes(ui, "", &l.Image)
	for i := range l.Variants {
		showSizes(ui, l.Variants[i].Name, &l.Variants[i].Image)
	}
}

// inspectImage shows the folder of an image where it is one, and otherwise
// what the bytes alone say.
func inspectImage(ctx context.Context, ui *ui, name string, o *inspectOptions) error {
	dir := filepath.Dir(name)
	d, err := verify.ReadDescription(dir)
	if err == nil && len(d.Files) > 0 && d.Files[0].Name == filepath.Base(name) {
		return inspectFolder(ctx, ui, dir, o)
	}
	if im, err := verify.OpenImage(name); err == nil && im.IsArchive() {
		defer im.Close()
		return inspectArchive(ui, name, im)
	}
	m, err := verify.Predict(name)
	if err != nil {
		return err
	}
	ui.print("image       %s", name)
	if err := showDisk(ui, name); err != nil {
		return err
	}
	ui.print("  root hash %s", m.RootHash)
	ui.print("  stub      %s", m.Stub)
	showPCRs(ui, m.PCRs, nil)
	return nil
}

// inspectFolder shows what the stages left in an output folder. What a later
// stage would have left may be missing.
func inspectFolder(ctx context.Context, ui *ui, dir string, o *inspectOptions) error {
	d, err := readBuild(dir)
	if err != nil {
		return err
	}
	if err := asDescribed(dir, d); err != nil {
		return err
	}
	r, err := readReport(dir)
	if err != nil {
		return err
	}
	statements, err := describeStatements(ctx, dir, o.key)
	if err != nil {
		return err
	}
	if o.lockFile != "" {
		if err := showItsLock(ui, o.lockFile, d); err != nil {
			return err
		}
	}
	ui.print("image       %s (%s)", filepath.Join(dir, d.Files[0].Name), size(d.Files[0].Size))
	ui.print("  digest    %s", d.Files[0].SHA256)
	if err := showMade(ui, dir, d, r); err != nil {
		return err
	}
	if r == nil {
		ui.print("verdict     none yet: `caisson verify`")
	} else {
		ui.print("verdict     %s: %s", strings.ToUpper(string(r.Verdict)), r.Reason)
		ui.print("  report    %s", filepath.Join(dir, "report.html"))
	}
	for _, l := range statements {
		ui.print("%s", l)
	}
	return nil
}

// showMade prints what the image is: what a machine measures of a disk, or what is
// in an archive.
func showMade(ui *ui, dir string, d *verify.Description, r *verify.Report) error {
	name := filepath.Join(dir, d.Files[0].Name)
	if d.IsArchive() {
		im, err := verify.OpenImage(name)
		if err != nil {
			return err
		}
		defer im.Close()
		showContainer(ui, im)
		showTotals(ui, d)
		return nil
	}
	if err := showDisk(ui, name); err != nil {
		return err
	}
	ui.print("  root hash %s", d.RootHash)
	ui.print("  kernel    %s, stub %s", d.Kernel, d.Stub)
	showTotals(ui, d)
	showPCRs(ui, d.PCRs, r)
	return nil
}

// asDescribed compares the image's bytes with image.json.
func asDescribed(dir string, d *verify.Description) error {
	want := d.Files[0]
	name := filepath.Join(dir, want.Name)
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	got, _, err := digest.Reader(f)
	if err != nil {
		return fmt.Errorf("reading %s: %w", name, err)
	}
	if got != want.SHA256 {
		return &codeError{fmt.Errorf("%s is not the image that image.json describes: got %s, want %s", name, got, want.SHA256),
			exitDifferent, "it was altered after it was built: `caisson verify` and `caisson diff` say where"}
	}
	return nil
}

// showItsLock shows the lock, which has to be the image's.
func showItsLock(ui *ui, name string, d *verify.Description) error {
	l, text, err := (&sources{lockFile: name}).readLock()
	if err != nil {
		return err
	}
	if got := digest.Of(text); got != d.Lock {
		return &codeError{fmt.Errorf("%s is not the lock that the image was made from: got %s, want %s", name, got, d.Lock),
			exitLock, "give the lock that the image was built from, or build again"}
	}
	showLocked(ui, name, l, d.Lock)
	return nil
}

func showTotals(ui *ui, d *verify.Description) {
	var parts []string
	for _, a := range []build.Account{build.Vendor, build.Changed, build.Compiled, build.Placed, build.Generated} {
		if t := d.Totals[a]; t.Files > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t.Files, a))
		}
	}
	ui.print("  files     %s", strings.Join(parts, ", "))
	if d.Removed != nil {
		ui.print("  removed   %d files of packages", d.Removed.Files)
	}
	for _, set := range slices.Sorted(maps.Keys(d.SkippedScriptlets)) {
		ui.print("  not run   %d scriptlets and triggers of the %s (scriptlets: skip)", d.SkippedScriptlets[set], set)
	}
}

// readReport reads report.json; nil where there is none.
func readReport(dir string) (*verify.Report, error) {
	name := filepath.Join(dir, "report.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var r verify.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, &codeError{fmt.Errorf("reading %s: %w", name, err), exitError, "`caisson verify` writes it anew"}
	}
	return &r, nil
}

// pcrs are the registers that say what was booted.
var pcrs = [...]string{"4", "5", "7", "9", "11", "12"}

// showPCRs prints what is predicted, and beside it what was measured.
func showPCRs(ui *ui, banks map[string]map[string]string, r *verify.Report) {
	for _, pcr := range pcrs {
		v := banks["sha256"][pcr]
		said := "predicted"
		if r != nil && r.Measured != nil {
			said = "predicted; measured: " + r.Measured[pcr]
			switch r.Measured[pcr] {
			case v:
				said = "predicted, and measured when booted"
			case "":
				if strings.Trim(v, "0") == "" {
					said = "predicted, and never extended when booted"
				}
			}
		}
		ui.print("  pcr %-2s    %s  %s", pcr, v, said)
	}
}

// describeStatements says which statements there are, and checks them where a
// key is given.
func describeStatements(ctx context.Context, dir, key string) ([]string, error) {
	all, err := filepath.Glob(filepath.Join(escapeGlob(dir), "statements", "*.sigstore.json"))
	if err != nil || len(all) == 0 {
		return []string{"statements  none yet: `caisson attest`"}, err
	}
	checked := "their signatures were not checked: --key cosign.pub"
	if key != "" {
		c, err := checkStatements(ctx, dir, key)
		if err != nil {
			return nil, err
		}
		checked = count(len(c.Signed), "signature") + " checked by " + key
		if n := len(c.Others); n > 0 {
			checked += fmt.Sprintf("; %d by a verifier's own key, not checked: attest --check", n)
		}
	}
	return []string{
		fmt.Sprintf("statements  %s (%d), %s", filepath.Join(dir, "statements"), len(all), checked),
		"  sbom      " + filepath.Join(dir, "sbom.spdx.json"),
	}, nil
}

// escapeGlob is a path as filepath.Glob reads it to the letter.
func escapeGlob(path string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`).Replace(path)
}

// showDifferences prints where image and rebuild differ.
func showDifferences(ui *ui, r *verify.Report) error {
	if len(r.Differences) == 0 {
		return nil
	}
	ui.print("differences:")
	if err := ui.result(func(w io.Writer) error { return diff.Text(w, r.Differences) }); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if len(r.Affected) > 0 {
		ui.print("measurements that change: %s", strings.Join(r.Affected, ", "))
	}
	return nil
}

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/lock/digest"
	"caisson/verify"
	"caisson/verify/diff"
)

func newInspectCommand(ui *ui) *cobra.Command {
	var lockFile, key string
	c := &cobra.Command{
		Use:   "inspect DIR|IMAGE|LOCK",
		Short: "Show what an output folder, an image or a lock is",
		Long: `Inspect shows in a few lines what a lock pins, or what an output folder holds: the
image, its measurements as predicted and as measured, the account of its files,
the verdict and the statements. With --key the statements' signatures are checked.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			st, err := os.Stat(args[0])
			if err != nil {
				return err
			}
			if st.IsDir() {
				return inspectFolder(cmd.Context(), ui, args[0], lockFile, key)
			}
			if d, err := verify.OpenDisk(args[0]); err == nil && d.Format == "qcow2" {
				d.Close()
				return inspectFolder(cmd.Context(), ui, filepath.Dir(args[0]), lockFile, key)
			}
			return inspectLock(ui, args[0])
		},
	}
	c.Flags().StringVar(&lockFile, "lock", "", "the lock that the image should be made from")
	c.Flags().StringVar(&key, "key", "", "check the statements' signatures by this public key")
	return c
}

func inspectLock(ui *ui, name string) error {
	s := sources{lockFile: name}
	l, text, err := s.readLock()
	if err != nil {
		return err
	}
	sum := summarise(l, digest.Of(text))
	ui.print("lock        %s", name)
	ui.print("  digest    %s", sum.Digest)
	ui.print("  inputs    %s", sum)
	for _, r := range l.Repos {
		checked := "packages must be signed by " + strings.Join(r.Keys, ", ")
		if !r.GPGCheck {
			checked = "SIGNATURES NOT CHECKED"
		}
		ui.print("  repository %s (%s) %s: %s", r.ID, r.Arch, r.BaseURL, checked)
	}
	return nil
}

// inspectFolder shows what the stages left in an output folder. What a later
// stage would have left may be missing.
func inspectFolder(ctx context.Context, ui *ui, dir, lockFile, key string) error {
	d, err := verify.ReadDescription(dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s: there is no image.json: no finished build is here", dir)
	}
	if err != nil {
		return err
	}
	ui.print("")
	if lockFile != "" {
		if err := inspectLock(ui, lockFile); err != nil {
			return err
		}
	}
	ui.print("image       %s (%s)", filepath.Join(dir, d.Files[0].Name), size(d.Files[0].Size))
	ui.print("  digest    %s", d.Files[0].SHA256)
	ui.print("  root hash %s", d.RootHash)
	ui.print("  kernel    %s, stub %s", d.Kernel, d.Stub)
	showTotals(ui, d)
	r := readReport(dir)
	showPCRs(ui, d, r)
	if r == nil {
		ui.print("verdict     none yet: caisson verify")
		return nil
	}
	ui.print("verdict     %s: %s", strings.ToUpper(string(r.Verdict)), r.Reason)
	ui.print("  report    %s", filepath.Join(dir, "report.html"))
	return showStatements(ctx, ui, dir, key)
}

func showTotals(ui *ui, d *verify.Description) {
	var parts []string
	for _, a := range []build.Account{build.Vendor, build.Changed, build.Compiled, build.Placed, build.Generated} {
		if t := d.Totals[a]; t.Files > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", t.Files, a))
		}
	}
	ui.print("  files     %s", strings.Join(parts, ", "))
}

func readReport(dir string) *verify.Report {
	b, err := os.ReadFile(filepath.Join(dir, "report.json"))
	if err != nil {
		return nil
	}
	var r verify.Report
	if json.Unmarshal(b, &r) != nil {
		return nil
	}
	return &r
}

// showPCRs prints what is predicted, and beside it what was measured.
func showPCRs(ui *ui, d *verify.Description, r *verify.Report) {
	for _, pcr := range []string{"4", "5", "7", "9", "11", "12"} {
		v := d.PCRs["sha256"][pcr]
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

func showStatements(ctx context.Context, ui *ui, dir, key string) error {
	all, err := filepath.Glob(filepath.Join(dir, "statements", "*.sigstore.json"))
	if err != nil || len(all) == 0 {
		ui.print("statements  none yet: caisson attest")
		return err
	}
	checked := "their signatures were not checked: --key cosign.pub"
	if key != "" {
		c, err := checkStatements(ctx, dir, key)
		if err != nil {
			return err
		}
		checked = fmt.Sprintf("%d signatures checked by %s", len(c.Signed), key)
	}
	ui.print("statements  %s (%d), %s", filepath.Join(dir, "statements"), len(all), checked)
	ui.print("  sbom      %s", filepath.Join(dir, "sbom.spdx.json"))
	return nil
}

// showDifferences prints where image and rebuild differ.
func showDifferences(ui *ui, r *verify.Report) {
	if len(r.Differences) == 0 {
		return
	}
	ui.print("differences:")
	if err := diff.Text(ui.out, r.Differences); err != nil {
		ui.fail(err, "")
	}
	if len(r.Affected) > 0 {
		ui.print("measurements that change: %s", strings.Join(r.Affected, ", "))
	}
}

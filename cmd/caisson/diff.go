package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"caisson/build"
	"caisson/build/imagefile"
	"caisson/lock/digest"
	"caisson/verify"
	"caisson/verify/diff"
)

func newDiffCommand(ui *ui) *cobra.Command {
	var o diffOptions
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Tell in what two locks or two images differ",
		Long: `Diff compares two locks (inputs added, removed, upgraded and downgraded, with the
advisories that the new lock's repositories have for them, where the store has
their metadata), or two images. An output folder stands for the image in it. The
exit code is 3 where there is a difference.

Images may be anybody's: disks (qcow2, VHD, raw) with a partition table or without,
file systems (EROFS, squashfs, ext2 to ext4, FAT), UKIs, initrds, packages, archives,
programs. What differs is shown down to the file, the package that it is from, and
what in it is another, and with the measurements that change. Of what is not
looked into the bytes are shown, and it is said. --json prints what diffoscope
reads, --html writes a page that needs nothing else.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return runDiff(c.Context(), ui, &o, args[0], args[1]) },
	}
	o.storeFlag(c)
	c.Flags().BoolVar(&o.json, "json", false, "print JSON")
	c.Flags().StringVar(&o.html, "html", "", "write the comparison of two images as a page to this file")
	return c
}

type diffOptions struct {
	sources
	json bool
	html string
}

func runDiff(ctx context.Context, ui *ui, o *diffOptions, a, b string) error {
	var err error
	if a, err = imageIn(a); err != nil {
		return err
	}
	if b, err = imageIn(b); err != nil {
		return err
	}
	first, err := isLock(a)
	if err != nil {
		return err
	}
	second, err := isLock(b)
	if err != nil {
		return err
	}
	switch {
	case first != second:
		return fmt.Errorf("%s and %s: want two locks or two images", a, b)
	case first && o.html != "":
		return usageError{errors.New("--html goes with images")}
	case first:
		return diffLocks(ui, &o.sources, a, b, o.json)
	}
	return diffImages(ctx, ui, o, a, b)
}

// imageIn is the image of an output folder, and any other path as it is.
func imageIn(path string) (string, error) {
	st, err := os.Stat(path)
	if err != nil || !st.IsDir() {
		return path, err
	}
	d, err := readBuild(path)
	if err != nil {
		return "", err
	}
	return filepath.Join(path, d.Files[0].Name), nil
}

// readBuild reads image.json.
func readBuild(dir string) (*verify.Description, error) {
	if err := wantBuild(dir); err != nil {
		return nil, err
	}
	d, err := verify.ReadDescription(dir)
	if err == nil && (len(d.Files) == 0 || !filepath.IsLocal(d.Files[0].Name)) {
		err = fmt.Errorf("%s names no image", filepath.Join(dir, "image.json"))
	}
	return d, err
}

// isLock tells a lock from an image.
func isLock(name string) (bool, error) {
	if isYAML(name) {
		return true, wantFile(name)
	}
	return isJSON(name)
}

// isJSON tells a lock or a statement from an image: JSON begins with a brace.
func isJSON(name string) (bool, error) {
	if err := wantFile(name); err != nil {
		return false, err
	}
	f, err := os.Open(name)
	if err != nil {
		return false, err
	}
	defer f.Close()
	b := make([]byte, 64)
	n, err := io.ReadFull(f, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return false, err
	}
	return strings.HasPrefix(strings.TrimLeft(string(b[:n]), " \t\r\n"), "{"), nil
}

func diffImages(ctx context.Context, ui *ui, o *diffOptions, a, b string) error {
	da, err := verify.OpenCompared(a)
	if err != nil {
		return err
	}
	defer da.Close()
	db, err := verify.OpenCompared(b)
	if err != nil {
		return err
	}
	defer db.Close()
	nodes, err := diff.Disks(ctx, side(da, a), side(db, b), diff.Options{})
	if err != nil {
		return err
	}
	c := &verify.Comparison{Differences: nodes, Caisson: programVersion()}
	if len(nodes) > 0 && (!o.json || o.html != "") {
		c.Affected, c.Unknown = affected(a, b)
	}
	if o.html != "" {
		if c.A, err = verify.ReadCompared(a, da); err == nil {
			c.B, err = verify.ReadCompared(b, db)
		}
		if err == nil {
			err = writePage(o.html, c)
		}
		if err != nil {
			return err
		}
	}
	if o.json {
		err = ui.result(func(w io.Writer) error { return diff.JSON(w, a, b, nodes) })
	} else {
		err = ui.result(func(w io.Writer) error { return diff.Text(w, nodes) })
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if len(nodes) == 0 {
		if da.IsArchive() {
			ui.stage("the archives are the same, to the bit")
			return nil
		}
		return sayEqual(ui, a, b)
	}
	if left := diff.NotCompared(nodes); len(left) > 0 {
		ui.stage("not all was looked into: %s", count(len(left), "place"))
	}
	switch {
	case o.json:
	case c.Unknown != "":
		ui.stage("measurements that change: unknown, %s", c.Unknown)
	default:
		ui.print("measurements that change: %s", cmp.Or(strings.Join(c.Affected, ", "), "none"))
	}
	return &quietError{exitDifferent}
}

// sayEqual says that the disks in two files are the same, and whether the
// files are.
func sayEqual(ui *ui, a, b string) error {
	var sums [2]digest.Digest
	for i, name := range []string{a, b} {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		sums[i], _, err = digest.Reader(f)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	if sums[0] != sums[1] {
		ui.stage("the disks are the same, to the bit; the files that they are kept in are not")
		return nil
	}
	ui.stage("the disks are the same, to the bit")
	return nil
}

// affected names the measurements that change, or says why they are not
// known.
func affected(a, b string) (changed []string, unknown string) {
	ma, err := verify.Predict(a)
	mb, errB := verify.Predict(b)
	if errors.Is(err, imagefile.ErrArchive) && errors.Is(errB, imagefile.ErrArchive) {
		return nil, "" // nothing boots them
	}
	for _, err := range []error{err, errB} {
		if err != nil {
			return nil, err.Error()
		}
	}
	return diff.Affected(ma, mb), ""
}

// writePage writes a comparison to a file.
func writePage(name string, c *verify.Comparison) error {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	return errors.Join(verify.WriteComparison(f, c), f.Close())
}

// side is an image with the account of its files, where there is one beside
// it.
func side(d *verify.Disk, name string) diff.Source {
	owners := map[string]string{}
	var files []build.File
	if b, err := os.ReadFile(filepath.Join(filepath.Dir(name), "files.json")); err == nil && json.Unmarshal(b, &files) == nil {
		for _, f := range files {
			by := f.By
			if len(f.Inputs) == 1 {
				by = f.Inputs[0]
			}
			owners[f.Part+":"+f.Path] = by
		}
	}
	return diff.Source{Name: name, Disk: d, Size: d.Size, Owner: func(part, path string) string { return owners[part+":"+path] }}
}

func diffLocks(ui *ui, s *sources, a, b string, asJSON bool) error {
	la, _, err := (&sources{lockFile: a}).readLock()
	if err != nil {
		return err
	}
	lb, _, err := (&sources{lockFile: b}).readLock()
	if err != nil {
		return err
	}
	d, err := compareLocks(la, lb, s.advisories(ui, lb))
	if err != nil {
		return err
	}
	if asJSON {
		if err := ui.json(d); err != nil {
			return err
		}
	} else {
		d.show(ui)
	}
	if d.empty() {
		ui.stage("the locks are the same")
		return nil
	}
	return &quietError{exitDifferent}
}

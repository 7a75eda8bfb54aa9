package main

import (
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
	"caisson/verify"
	"caisson/verify/diff"
)

func newDiffCommand(ui *ui) *cobra.Command {
	var asJSON bool
	var s sources
	c := &cobra.Command{
		Use:   "diff A B",
		Short: "Tell in what two locks or two images differ",
		Long: `Diff compares two locks (inputs added, removed, upgraded and downgraded, with the
advisories that the new lock's repositories have for them, where the store has
their metadata), or two images (down to the file, and which measurements change). An output folder stands for the
image in it. The exit code is 3 where there is a difference. --json prints, for
images, what diffoscope reads.`,
		Args: cobra.ExactArgs(2),
		RunE: func(c *cobra.Command, args []string) error { return runDiff(c.Context(), ui, &s, args[0], args[1], asJSON) },
	}
	s.storeFlag(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func runDiff(ctx context.Context, ui *ui, s *sources, a, b string, asJSON bool) error {
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
	case first:
		return diffLocks(ui, s, a, b, asJSON)
	}
	return diffImages(ctx, ui, a, b, asJSON)
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

func diffImages(ctx context.Context, ui *ui, a, b string, asJSON bool) error {
	da, err := verify.OpenDisk(a)
	if err != nil {
		return err
	}
	defer da.Close()
	db, err := verify.OpenDisk(b)
	if err != nil {
		return err
	}
	defer db.Close()
	nodes, err := diff.Disks(ctx, side(da, a), side(db, b), diff.Options{})
	if err != nil {
		return err
	}
	if asJSON {
		err = ui.result(func(w io.Writer) error { return diff.JSON(w, a, b, nodes) })
	} else {
		err = ui.result(func(w io.Writer) error { return diff.Text(w, nodes) })
	}
	if err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	if len(nodes) == 0 {
		ui.stage("the disks are the same, to the bit")
		return nil
	}
	if !asJSON {
		showAffected(ui, a, b)
	}
	return &quietError{exitDifferent}
}

// showAffected names the measurements that change, where both images can be
// measured.
func showAffected(ui *ui, a, b string) {
	ma, err := verify.Predict(a)
	if err == nil {
		mb, err2 := verify.Predict(b)
		if err = err2; err == nil {
			what := strings.Join(diff.Affected(ma, mb), ", ")
			if what == "" {
				what = "none"
			}
			ui.print("measurements that change: %s", what)
			return
		}
	}
	ui.stage("measurements that change: unknown, %v", err)
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

package attest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	sbomName      = "sbom.spdx.json"
	statementsDir = "statements"
	bundleEnding  = ".sigstore.json"
)

func statementName(name string) string { return filepath.Join(statementsDir, name+".json") }
func bundleName(name string) string    { return filepath.Join(statementsDir, name+bundleEnding) }

// output is a file to write, by its path in the folder.
type output struct {
	path string
	data []byte
}

// publish writes all files under temporary names, then gives them their own.
// Of the statements replaced, those of an earlier run that are not among the
// files are removed first: a verdict must not outlive the image that it was
// about.
func publish(dir string, files []output, replaced []string) (err error) {
	if err := os.MkdirAll(filepath.Join(dir, statementsDir), 0o755); err != nil {
		return fmt.Errorf("writing the statements: %w", err)
	}
	temporary := map[string]string{}
	defer func() {
		for _, t := range temporary {
			if rmErr := os.Remove(t); rmErr != nil && !errors.Is(rmErr, fs.ErrNotExist) {
				err = errors.Join(err, rmErr)
			}
		}
	}()
	for _, f := range files {
		t, err := writeTemp(filepath.Join(dir, f.path), f.data)
		if t != "" {
			temporary[f.path] = t
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", f.path, err)
		}
	}
	for _, name := range replaced {
		for _, path := range []string{statementName(name), bundleName(name)} {
			if _, ok := temporary[path]; ok {
				continue
			}
			if err := os.Remove(filepath.Join(dir, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("removing an earlier statement: %w", err)
			}
		}
	}
	for _, f := range files {
		if err := os.Rename(temporary[f.path], filepath.Join(dir, f.path)); err != nil {
			return err
		}
		delete(temporary, f.path)
	}
	return nil
}

// writeTemp writes a file beside its final name, synced, and returns its
// path.
func writeTemp(final string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(final), "."+filepath.Base(final)+".*")
	if err != nil {
		return "", err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return f.Name(), err
	}
	if err := f.Chmod(0o644); err != nil {
		return f.Name(), err
	}
	if err := f.Sync(); err != nil {
		return f.Name(), err
	}
	return f.Name(), f.Close()
}

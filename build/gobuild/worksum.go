package gobuild

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// CompleteWorkSum adds the hashes of the locked files to the go.work.sum of a
// workspace, which the go command would otherwise complete itself: it cannot
// where the source is read-only, and would believe the proxy. source is a copy
// of the workspace's folder that belongs to the build alone.
func CompleteWorkSum(source string, files []File) error {
	name := filepath.Join(source, "go.work.sum")
	have, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var lines []string
	for line := range strings.Lines(string(have)) {
		lines = append(lines, strings.TrimRight(line, "\n"))
	}
	for _, f := range files {
		version := f.Version
		if f.Kind == KindMod {
			version += "/go.mod"
		}
		if f.H1 == "" {
			return fmt.Errorf("completing go.work.sum: no h1 of %s %s", f.Module, version)
		}
		lines = append(lines, f.Module+" "+version+" "+f.H1)
	}
	slices.Sort(lines)
	var b bytes.Buffer
	for _, line := range slices.Compact(lines) {
		if line != "" {
			b.WriteString(line + "\n")
		}
	}
	// The source's own may be a link, or not writable.
	if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.WriteFile(name, b.Bytes(), 0o644)
}

// Package cargobuild prepares an offline, reproducible build of a Rust
// program: it lays out the locked crates as local registries, writes the
// configuration that makes cargo use them, and says what to run.
//
// A local registry is a folder of .crate files and an index. Cargo hashes
// each .crate against Cargo.lock before it unpacks it, so a build from one
// needs no trust in the folder, as a vendored folder would.
//
// A git repository is laid out anew from its locked file. Cargo fetches it by a
// file:// address, and takes only the commit that Cargo.lock names.
//
// It runs nothing itself. A Job's paths are those that the command will see,
// and they must be the same in every build: cargo gives the folders that it
// unpacks crates into names that depend on the registry's path, and they end
// up in the program.
package cargobuild

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"caisson/lock/cargo"
	"caisson/prefetch/view"
)

// File is a locked crate and where its .crate file lies.
type File struct {
	Crate cargo.Crate
	// Path is where the file can be read now.
	Path string
	// Target is where it will lie when the registry is read; Path if empty.
	Target string
}

// LocalRegistry lays out crates below dir, with a local registry for each
// registry that they come from: symbolic links and an index. It reads every
// crate, and is an error if one is not what its Crate says.
func LocalRegistry(dir string, files []File) error {
	for source, files := range bySource(files) {
		if err := localRegistry(filepath.Join(dir, view.Registry(source)), files); err != nil {
			return fmt.Errorf("laying out a local registry: %w", err)
		}
	}
	return nil
}

func localRegistry(dir string, files []File) error {
	if err := os.MkdirAll(filepath.Join(dir, "index"), 0o755); err != nil {
		return err
	}
	index := make(map[string][][]byte)
	for _, f := range files {
		line, err := cargo.IndexLine(f.Crate, f.Path)
		if err != nil {
			return err
		}
		p := cargo.IndexPath(f.Crate.Name)
		index[p] = append(index[p], line)
		if err := os.Symlink(cmp.Or(f.Target, f.Path), filepath.Join(dir, f.Crate.File())); err != nil {
			return err
		}
	}
	for p, lines := range index {
		slices.SortFunc(lines, bytes.Compare)
		name := filepath.Join(dir, "index", filepath.FromSlash(p))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(name, append(bytes.Join(lines, []byte("\n")), '\n'), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// bySource sorts files by their registry. crates.io is always among them, so
// that its index is never asked for.
func bySource(files []File) map[string][]File {
	m := map[string][]File{cargo.CratesIO: nil}
	for _, f := range files {
		m[f.Crate.Source] = append(m[f.Crate.Source], f)
	}
	return m
}

package gobuild

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

const (
	// maxToolchain bounds an unpacked toolchain, in bytes; go1.26.0 has 215 MB.
	maxToolchain = 4 << 30
	// maxEntries bounds a toolchain's files; go1.26.0 has 11488.
	maxEntries = 200_000
)

// Toolchain unpacks the zip of a golang.org/toolchain module into dir, which
// must be empty or absent. A module's zip has no modes and no nested go.mod:
// as the go command does, it makes the programs of bin and pkg/tool
// executable and each _go.mod a go.mod. It does not check the zip's hash: see
// gomod.CheckZip.
func Toolchain(ctx context.Context, zipFile, dir string) error {
	if err := unpackToolchain(ctx, zipFile, dir); err != nil {
		return fmt.Errorf("unpacking the Go toolchain %s: %w", zipFile, err)
	}
	return nil
}

func unpackToolchain(ctx context.Context, zipFile, dir string) error {
	zr, err := zip.OpenReader(zipFile)
	if err != nil {
		return err
	}
	defer zr.Close()
	if len(zr.File) > maxEntries {
		return fmt.Errorf("%d files, want at most %d", len(zr.File), maxEntries)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// What is written through root cannot leave dir.
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	left := uint64(maxToolchain)
	made := make(map[string]bool)
	for _, f := range zr.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		name, err := toolchainName(f)
		if err != nil {
			return err
		}
		if f.UncompressedSize64 > left {
			return fmt.Errorf("larger than %d bytes", uint64(maxToolchain))
		}
		left -= f.UncompressedSize64
		if d := path.Dir(name); !made[d] {
			if err := root.MkdirAll(d, 0o755); err != nil {
				return err
			}
			made[d] = true
		}
		if err := unpackFile(root, f, name); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if _, err := root.Stat("bin/go"); err != nil {
		return fmt.Errorf("no toolchain: %w", err)
	}
	return nil
}

// toolchainName is a file's name in the unpacked toolchain.
func toolchainName(f *zip.File) (string, error) {
	mod, ok := strings.CutPrefix(f.Name, "golang.org/toolchain@")
	if !ok {
		return "", fmt.Errorf("%q: not a file of golang.org/toolchain", f.Name)
	}
	_, name, _ := strings.Cut(mod, "/")
	if !fs.ValidPath(name) || name == "." || !f.Mode().IsRegular() || strings.Contains(name, `\`) {
		return "", fmt.Errorf("%q: not a file below the module", f.Name)
	}
	if dir, base := path.Split(name); base == "_go.mod" {
		name = dir + "go.mod"
	}
	return name, nil
}

func unpackFile(root *os.Root, f *zip.File, name string) error {
	mode := fs.FileMode(0o644)
	if strings.HasPrefix(name, "bin/") || strings.HasPrefix(name, "pkg/tool/") {
		mode = 0o755
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	if err == nil {
		err = w.Chmod(mode) // the umask may have taken bits away
	}
	return errors.Join(err, w.Close())
}

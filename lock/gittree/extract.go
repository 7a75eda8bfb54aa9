package gittree

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
)

// Extract lays the files out in a new or empty folder, those of submodules
// where they belong: files with mode 0644 or 0755, folders with 0755, whatever
// the umask is. It is Check besides; after an error the folder holds what came
// before it. Nothing is written outside of dir.
func Extract(dir string, r io.Reader) (*Info, error) {
	if err := makeEmpty(dir); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return Read(r, func(f File, r io.Reader) error {
		if f.Object != "" {
			return nil
		}
		if err := extractFile(root, path.Join(f.Module, f.Path), f, r); err != nil {
			return fmt.Errorf("unpacking %s: %w", path.Join(f.Module, f.Path), err)
		}
		return nil
	})
}

// makeEmpty makes a folder, and refuses one that has something in it.
func makeEmpty(dir string) error {
	if err := os.Mkdir(dir, 0o755); err == nil {
		return os.Chmod(dir, 0o755) //nolint:gosec // for all to read, as what git checks out
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	names, err := os.ReadDir(dir)
	if err == nil && len(names) > 0 {
		err = fmt.Errorf("%s is not empty", dir)
	}
	return err
}

func extractFile(root *os.Root, name string, f File, r io.Reader) error {
	if f.Mode == ModeDir || f.Mode == ModeGitlink {
		return MakeDirs(root, name)
	}
	if err := MakeDirs(root, path.Dir(name)); err != nil {
		return err
	}
	if f.Mode == ModeLink {
		return root.Symlink(f.Target, name)
	}
	perm := fs.FileMode(0o644)
	if f.Mode == ModeExec {
		perm = 0o755
	}
	out, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, r)
	if err == nil {
		err = out.Chmod(perm)
	}
	return errors.Join(err, out.Close())
}

// MakeDirs makes a folder and those above it below root, each with mode 0755
// whatever the umask is. It follows no link that is there instead of one.
func MakeDirs(root *os.Root, dir string) error {
	if dir == "." {
		return nil
	}
	if st, err := root.Lstat(dir); err == nil && st.IsDir() {
		return nil
	}
	if err := MakeDirs(root, path.Dir(dir)); err != nil {
		return err
	}
	if err := root.Mkdir(dir, 0o755); err != nil {
		return err
	}
	return root.Chmod(dir, 0o755)
}

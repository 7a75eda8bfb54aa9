package cas

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// dirSuffix ends the name of a temporary folder: that of the locked file
// beside it, and this.
const dirSuffix = ".d"

// CreateDir makes a folder for what is on its way into the store and is no
// file yet. Call remove when done with it; where the process dies before, the
// next Open does.
func (s *Store) CreateDir() (dir string, remove func(), err error) {
	f, err := createLocked(filepath.Join(s.dir, "tmp"), 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("writing to the store: %w", err)
	}
	dir = f.Name() + dirSuffix
	remove = func() {
		os.RemoveAll(dir)
		os.Remove(f.Name())
		f.Close()
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		remove()
		return "", nil, fmt.Errorf("writing to the store: %w", err)
	}
	return dir, remove, nil
}

// removeStaleDir removes a temporary folder whose file nobody has locked.
func removeStaleDir(dir string) {
	name, ok := strings.CutSuffix(dir, dirSuffix)
	if !ok {
		return
	}
	if f := lockNamed(name, os.O_RDONLY); f != nil {
		os.Remove(f.Name())
		defer f.Close()
	} else if _, err := os.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return
	}
	os.RemoveAll(dir)
}

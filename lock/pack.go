package lock

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// lockName is how a lock is called beside its manifest.
const lockName = "caisson.lock"

// packed is one file of a folder as Pack takes it.
type packed struct {
	name   string // slash-separated, relative
	exec   bool
	dir    bool
	target string // of a symbolic link
	size   int64
}

// Pack writes a folder as a canonical tar archive: its files and symbolic
// links in the order of their names, owned by 0:0, dated 1970, with mode 0755
// where the owner may execute and 0644 elsewhere, so that what git keeps of a
// folder is what counts. Folders are implied by their files.
//
// Left out are .git; every caisson.lock, for a lock cannot hold its own
// digest; and what .gitignore files name, those above the folder included up
// to the repository's root. Neither git's index nor a person's own ignore
// files are asked: the same files give the same bytes with and without git.
// A folder that is itself ignored is packed when it is named.
//
// Devices, sockets and pipes are errors, and so is a file that changes its
// size while it is read.
func Pack(w io.Writer, dir string) error { return packWith(w, dir, nil) }

// packWith packs a folder and gives its files what the lines say.
func packWith(w io.Writer, dir string, lines []*ownerLine) error {
	files, _, err := listFiles(dir)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range withFolders(files, lines) {
		if err := writeEntry(tw, dir, f, findOwner(lines, f.name)); err != nil {
			return fmt.Errorf("packing %s: %w", dir, err)
		}
	}
	if err := checkOwners(lines, dir); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("packing %s: %w", dir, err)
	}
	return nil
}

func writeEntry(tw *tar.Writer, dir string, f packed, l *ownerLine) error {
	h := &tar.Header{Name: f.name, Mode: 0o644, Size: f.size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX, Typeflag: tar.TypeReg}
	if f.exec {
		h.Mode = 0o755
	}
	if f.target != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.target, 0o777
	}
	if f.dir {
		h.Typeflag, h.Mode, h.Name = tar.TypeDir, 0o755, f.name+"/"
	}
	if l != nil {
		if err := l.apply(h); err != nil {
			return err
		}
	}
	if err := tw.WriteHeader(h); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	if f.target != "" || f.dir {
		return nil
	}
	return copyFile(tw, filepath.Join(dir, filepath.FromSlash(f.name)), f.size)
}

// copyFile copies a regular file that has so many bytes.
func copyFile(w io.Writer, name string, size int64) error {
	// What has become a pipe or a link since the folder was listed neither
	// blocks nor is followed.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, io.LimitReader(f, size))
	if err != nil {
		return err
	}
	if m, err := f.Read(make([]byte, 1)); n != size || m != 0 {
		return fmt.Errorf("%s changed while it was read", name)
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// listFiles walks dir. It returns the files that Pack takes, sorted, and the
// files and folders that it leaves out because a .gitignore names them.
func listFiles(dir string) (files []packed, ignored map[string]bool, err error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, nil, err
	}
	if !st.IsDir() {
		return nil, nil, fmt.Errorf("%s is not a folder", dir)
	}
	root, prefix := gitRoot(dir)
	w := packWalk{dir: dir, prefix: prefix, ignored: map[string]bool{}}
	for i := range prefix {
		above := filepath.Join(append([]string{root}, prefix[:i]...)...)
		if err := w.readIgnore(above, i); err != nil {
			return nil, nil, err
		}
	}
	if err := w.walk(""); err != nil {
		return nil, nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	slices.SortFunc(w.files, func(a, b packed) int { return strings.Compare(a.name, b.name) })
	return w.files, w.ignored, nil
}

// packWalk collects the files of dir, which lies at prefix in its repository.
type packWalk struct {
	dir     string
	prefix  []string
	rules   []*ignoreFile
	files   []packed
	ignored map[string]bool
}

func (w *packWalk) readIgnore(dir string, depth int) error {
	f, err := readIgnore(dir, depth)
	if err == nil && f != nil {
		w.rules = append(w.rules, f)
	}
	return err
}

func (w *packWalk) walk(rel string) error {
	here := filepath.Join(w.dir, filepath.FromSlash(rel))
	elems := slices.Clone(w.prefix)
	if rel != "" {
		elems = append(elems, strings.Split(rel, "/")...)
	}
	mark := len(w.rules)
	if err := w.readIgnore(here, len(elems)); err != nil {
		return err
	}
	defer func() { w.rules = w.rules[:mark] }()
	entries, err := os.ReadDir(here)
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := path.Join(rel, e.Name())
		switch {
		case leftOut(e.Name()):
		case ignored(w.rules, append(slices.Clone(elems), e.Name()), e.IsDir()):
			w.ignored[name] = true
		case e.IsDir():
			err = w.walk(name)
		default:
			err = w.add(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// leftOut tells whether a file or folder of that name is in no tree.
func leftOut(name string) bool { return name == ".git" || name == lockName }

func (w *packWalk) add(name string, e fs.DirEntry) error {
	st, err := e.Info()
	if err != nil {
		return err
	}
	p := packed{name: name, size: st.Size(), exec: st.Mode()&0o100 != 0}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		p.size, p.exec = 0, false
		if p.target, err = os.Readlink(filepath.Join(w.dir, filepath.FromSlash(name))); err != nil {
			return err
		}
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a symbolic link", name)
	}
	w.files = append(w.files, p)
	return nil
}

// gitRoot is the work tree that dir lies in and dir's path in it; empty
// outside git.
func gitRoot(dir string) (root string, prefix []string) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", nil
	}
	for at := abs; ; at = filepath.Dir(at) {
		if _, err := os.Lstat(filepath.Join(at, ".git")); err == nil {
			rel, err := filepath.Rel(at, abs)
			if err != nil || rel == "." {
				return at, nil
			}
			return at, strings.Split(filepath.ToSlash(rel), "/")
		}
		if at == filepath.Dir(at) {
			return "", nil
		}
	}
}

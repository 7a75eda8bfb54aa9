package lock

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/gitignore"
)

// packed is one file of a folder as Pack takes it.
type packed struct {
	name   string // slash-separated, relative
	exec   bool
	target string // of a symbolic link
	size   int64
}

// Pack writes a folder as a canonical tar archive: its files and symbolic
// links in the order of their names, owned by 0:0, dated 1970, with mode 0755
// where the owner may execute and 0644 elsewhere, so that what git keeps of a
// folder is what counts. Folders are implied by their files. Left out are
// .git and what .gitignore files name, those above the folder included up to
// the repository's root. Devices, sockets and pipes are errors.
func Pack(w io.Writer, dir string) error {
	files, err := listFiles(dir)
	if err != nil {
		return err
	}
	tw := tar.NewWriter(w)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o644, Size: f.size, ModTime: time.Unix(0, 0), Format: tar.FormatPAX, Typeflag: tar.TypeReg}
		if f.exec {
			h.Mode = 0o755
		}
		if f.target != "" {
			h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.target, 0o777
		}
		if err := tw.WriteHeader(h); err != nil {
			return fmt.Errorf("packing %s: %s: %w", dir, f.name, err)
		}
		if f.target == "" {
			if err := copyFile(tw, filepath.Join(dir, f.name), f.size); err != nil {
				return fmt.Errorf("packing %s: %w", dir, err)
			}
		}
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("packing %s: %w", dir, err)
	}
	return nil
}

func copyFile(w io.Writer, name string, size int64) error {
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.Copy(w, io.LimitReader(f, size+1))
	if err == nil && n != size {
		err = fmt.Errorf("%s changed while it was read", name)
	}
	return err
}

// listFiles walks dir, leaving out what git would ignore.
func listFiles(dir string) ([]packed, error) {
	st, err := os.Stat(dir)
	if err != nil {
		return nil, err
	}
	if !st.IsDir() {
		return nil, fmt.Errorf("%s is not a folder", dir)
	}
	root, prefix := gitRoot(dir)
	w := packWalk{dir: dir, prefix: prefix}
	if root != "" {
		at := root
		for i := 0; i <= len(prefix)-1; i++ {
			if err := w.readIgnore(at, prefix[:i]); err != nil {
				return nil, err
			}
			at = filepath.Join(at, prefix[i])
		}
	}
	if err := w.walk(""); err != nil {
		return nil, fmt.Errorf("reading %s: %w", dir, err)
	}
	slices.SortFunc(w.files, func(a, b packed) int { return strings.Compare(a.name, b.name) })
	return w.files, nil
}

// packWalk collects the files of dir, which lies at prefix in its repository.
type packWalk struct {
	dir      string
	prefix   []string
	patterns []gitignore.Pattern
	files    []packed
}

func (w *packWalk) walk(rel string) error {
	here := filepath.Join(w.dir, rel)
	domain := slices.Clone(w.prefix)
	if rel != "" {
		domain = append(domain, strings.Split(rel, "/")...)
	}
	mark := len(w.patterns)
	if err := w.readIgnore(here, domain); err != nil {
		return err
	}
	defer func() { w.patterns = w.patterns[:mark] }()
	entries, err := os.ReadDir(here)
	if err != nil {
		return err
	}
	match := gitignore.NewMatcher(slices.Clone(w.patterns))
	for _, e := range entries {
		if e.Name() == ".git" || match.Match(append(slices.Clone(domain), e.Name()), e.IsDir()) {
			continue
		}
		name := path.Join(rel, e.Name())
		if e.IsDir() {
			err = w.walk(name)
		} else {
			err = w.add(name, e)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *packWalk) add(name string, e fs.DirEntry) error {
	st, err := e.Info()
	if err != nil {
		return err
	}
	p := packed{name: name, size: st.Size(), exec: st.Mode()&0o100 != 0}
	switch {
	case st.Mode()&fs.ModeSymlink != 0:
		p.size, p.exec = 0, false
		if p.target, err = os.Readlink(filepath.Join(w.dir, name)); err != nil {
			return err
		}
	case !st.Mode().IsRegular():
		return fmt.Errorf("%s is neither a file nor a symbolic link", name)
	}
	w.files = append(w.files, p)
	return nil
}

func (w *packWalk) readIgnore(dir string, domain []string) error {
	b, err := os.ReadFile(filepath.Join(dir, ".gitignore"))
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range bytes.Lines(b) {
		s := strings.TrimRight(string(line), "\r\n")
		if s != "" && !strings.HasPrefix(s, "#") {
			w.patterns = append(w.patterns, gitignore.ParsePattern(s, slices.Clone(domain)))
		}
	}
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

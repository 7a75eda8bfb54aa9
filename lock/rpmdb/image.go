package rpmdb

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"caisson/lock/rpmmd"
)

// Layer is one layer of an image: a tar archive, plain or compressed.
type Layer struct {
	Name string // how errors call it
	// Open may be called twice, and what it gives need not be read to its end.
	Open func() (io.ReadCloser, error)
}

// maxLayer is how many bytes a layer may have when it is unpacked.
const maxLayer = 64 << 30

// FromLayers reads the database of an image whose layers are given from the
// lowest to the topmost. An image that has none gives ErrNone.
func FromLayers(ctx context.Context, layers []Layer) ([]rpmmd.Package, error) {
	tmp, err := os.MkdirTemp("", "caisson-rpmdb-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	f := finder{dir: tmp, files: map[string]fileState{}, links: map[string][]string{}, left: maxDB}
	for _, place := range Places() {
		for _, name := range append(mainFiles(), fileWAL) {
			f.files[path.Join(place, name)] = unknown
		}
	}
	for i := len(layers) - 1; i >= 0; i-- {
		if err := f.layer(ctx, layers[i]); err != nil {
			return nil, fmt.Errorf("layer %s: %w", layers[i].Name, err)
		}
		if done, err := f.settled(); err != nil {
			return nil, err
		} else if done {
			break
		}
	}
	if len(f.links) > 0 {
		for target := range f.links {
			return nil, fmt.Errorf("%s is a link to %s, which is in no layer", f.links[target][0], target)
		}
	}
	if f.db == "" {
		return nil, fmt.Errorf("%w in %s: the image is not made of packages", ErrNone, strings.Join(Places(), ", "))
	}
	if err := f.arrange(); err != nil {
		return nil, err
	}
	return read(ctx, filepath.Join(tmp, "db"))
}

// fileState is what is known of a path, from the layers that were read.
type fileState int

const (
	unknown fileState = iota
	found             // and copied
	gone              // no lower layer counts
)

// finder looks for the files of a database, layer by layer from the top.
type finder struct {
	dir   string
	files map[string]fileState // the paths that are looked for
	links map[string][]string  // targets of hard links that are still to be found, and who needs them
	db    string               // the database's main file, once it is known
	left  int64                // bytes that may still be copied
}

// copyName is where the copy of a path is.
func (f *finder) copyName(name string) string {
	return filepath.Join(f.dir, strings.ReplaceAll(name, "/", "_"))
}

// layer reads one layer, and a second time where it has hard links to what
// came before them.
func (f *finder) layer(ctx context.Context, l Layer) error {
	hidden := map[string]bool{}
	here := map[string]bool{}
	err := eachEntry(ctx, l, func(name string, h *tar.Header, r io.Reader) error {
		f.hide(hidden, name, h)
		if who, ok := f.links[name]; ok && h.Typeflag == tar.TypeReg {
			return f.resolve(name, who, r)
		}
		if state, watched := f.files[name]; !watched || state != unknown && !here[name] {
			return nil
		}
		switch h.Typeflag {
		case tar.TypeReg:
			here[name] = true
			f.files[name] = found
			return f.copy(name, r)
		case tar.TypeLink:
			here[name] = true
			target := cleanName(h.Linkname)
			f.files[name] = found
			f.links[target] = append(f.links[target], name)
		}
		return nil
	})
	if err == nil && len(f.links) > 0 {
		err = eachEntry(ctx, l, func(name string, h *tar.Header, r io.Reader) error {
			if who, ok := f.links[name]; ok && h.Typeflag == tar.TypeReg {
				return f.resolve(name, who, r)
			}
			return nil
		})
	}
	for name := range hidden {
		if f.files[name] == unknown {
			f.files[name] = gone
		}
	}
	return err
}

// eachEntry calls do for each entry of a layer.
func eachEntry(ctx context.Context, l Layer, do func(name string, h *tar.Header, r io.Reader) error) error {
	file, err := l.Open()
	if err != nil {
		return err
	}
	defer file.Close()
	plain, err := rpmmd.Decompress(file, maxLayer)
	if err != nil {
		return err
	}
	defer plain.Close()
	tr := tar.NewReader(plain)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := do(cleanName(h.Name), h, tr); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

// cleanName is a path of an archive, relative to the root.
func cleanName(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

// hide notes which of the files no lower layer can have: what is whited out,
// what is below an opaque folder, and what is below something that is no
// folder.
func (f *finder) hide(hidden map[string]bool, name string, h *tar.Header) {
	const whiteout, opaque = ".wh.", ".wh..wh..opq"
	below := name
	switch base := path.Base(name); {
	case base == opaque:
		below = strings.TrimPrefix(path.Dir("/"+name), "/")
	case strings.HasPrefix(base, whiteout):
		below = path.Join(path.Dir(name), base[len(whiteout):])
	case h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader:
		return
	}
	for w := range f.files {
		if w == below || below == "" || strings.HasPrefix(w, below+"/") {
			hidden[w] = true
		}
	}
}

// copy copies a file out of a layer.
func (f *finder) copy(name string, r io.Reader) error {
	r = io.LimitReader(r, f.left+1)
	if err := writeFile(f.copyName(name), r); err != nil {
		return err
	}
	st, err := os.Stat(f.copyName(name))
	if err != nil {
		return err
	}
	if f.left -= st.Size(); f.left < 0 {
		return fmt.Errorf("more than the %d bytes that a database may have", int64(maxDB))
	}
	return nil
}

// resolve copies the target of hard links.
func (f *finder) resolve(target string, who []string, r io.Reader) error {
	delete(f.links, target)
	if err := f.copy(who[0], r); err != nil {
		return err
	}
	if _, watched := f.files[target]; watched && f.files[target] == unknown {
		who, f.files[target] = append(who, target), found
	}
	for _, more := range who[1:] {
		if err := copyFile(f.copyName(more), f.copyName(who[0])); err != nil {
			return err
		}
	}
	return nil
}

// settled tells whether the database is known and no lower layer can change
// it. The topmost database counts; in one layer, the first in the order of
// Places.
func (f *finder) settled() (bool, error) {
	if len(f.links) > 0 {
		return false, nil
	}
	for _, place := range Places() {
		for _, name := range mainFiles() {
			at := path.Join(place, name)
			if f.db != "" || f.files[at] != found {
				continue
			}
			st, err := os.Stat(f.copyName(at))
			if err != nil {
				return false, err
			}
			if st.Size() > 0 {
				f.db = at
			}
		}
	}
	if f.db == "" || path.Base(f.db) != fileSQLite || f.files[f.db+"-wal"] != unknown {
		return f.db != "", nil
	}
	return f.withoutLog()
}

// withoutLog tells whether an SQLite database cannot have a write-ahead log
// (https://www.sqlite.org/fileformat.html, section 1.3.3).
func (f *finder) withoutLog() (bool, error) {
	file, err := os.Open(f.copyName(f.db))
	if err != nil {
		return false, err
	}
	defer file.Close()
	var head [20]byte
	if _, err := io.ReadFull(file, head[:]); err != nil {
		return false, fmt.Errorf("%s: %w", f.db, err)
	}
	return head[18] != 2 && head[19] != 2, nil
}

// arrange puts the database's files under their own names.
func (f *finder) arrange() error {
	db := filepath.Join(f.dir, "db")
	if err := os.Mkdir(db, 0o700); err != nil {
		return err
	}
	if err := os.Rename(f.copyName(f.db), filepath.Join(db, path.Base(f.db))); err != nil {
		return err
	}
	if wal := f.db + "-wal"; path.Base(f.db) == fileSQLite && f.files[wal] == found {
		return os.Rename(f.copyName(wal), filepath.Join(db, fileWAL))
	}
	return nil
}

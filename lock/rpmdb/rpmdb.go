// Package rpmdb reads which packages are installed in a root: rpm's database
// in its three formats (SQLite, ndb, and the hash of Berkeley DB), out of a
// folder or out of the layers of an OCI image, with no rpm, container or
// privilege.
//
// Limits first. The database has to be in one of Places. A database may have
// 2 GiB and a package's header 64 MiB. What a package's payload was, its
// signatures, scriptlets and triggers are not read, nor which of its files
// are there still: all that its header names count as installed. Keys that
// were imported (gpg-pubkey) are left out. SQLite's write-ahead log counts,
// where it lies beside the database.
//
// Of an image, layers are read from the top, and only until no lower one can
// change what is known of the database. Whiteouts, opaque folders and hard
// links are followed as in an OCI image specification 1.1, layer.md; of
// symbolic links only those between Places, which need not be followed.
package rpmdb

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"caisson/lock/rpmmd"
)

// Places are the folders of a root in which the database may be: those of
// rpm's own default since 4.17, of older distributions, of Flatpak runtimes,
// and of images made by rpm-ostree.
func Places() []string {
	return []string{"usr/lib/sysimage/rpm", "var/lib/rpm", "files/lib/sysimage/rpm", "usr/share/rpm"}
}

// The files that a database is in; the first that there is counts.
const (
	fileSQLite = "rpmdb.sqlite"
	fileWAL    = "rpmdb.sqlite-wal"
	fileNDB    = "Packages.db"
	fileBDB    = "Packages"
)

func mainFiles() []string { return []string{fileSQLite, fileNDB, fileBDB} }

// Limits of what is read.
const (
	maxDB     = 2 << 30
	maxHeader = 64 << 20
	// minHeader is the least that a header can have: its two counts.
	minHeader = 8
)

// ErrNone says that a root has no database.
var ErrNone = errors.New("no rpm database")

// FromRoot reads the database below a folder: its packages in the order in
// which they were installed. It is copied first, so that nothing is written
// there.
func FromRoot(ctx context.Context, root string) ([]rpmmd.Package, error) {
	tmp, err := os.MkdirTemp("", "caisson-rpmdb-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tmp)
	for _, place := range Places() {
		for _, name := range mainFiles() {
			at := filepath.Join(root, filepath.FromSlash(place), name)
			if st, err := os.Stat(at); err != nil || st.Size() == 0 {
				continue
			}
			if err := copyFile(filepath.Join(tmp, name), at); err != nil {
				return nil, err
			}
			if name == fileSQLite {
				err := copyFile(filepath.Join(tmp, fileWAL), filepath.Join(filepath.Dir(at), fileWAL))
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					return nil, err
				}
			}
			return read(ctx, tmp)
		}
	}
	return nil, fmt.Errorf("%s: %w in %s", root, ErrNone, strings.Join(Places(), ", "))
}

func copyFile(to, from string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	return writeFile(to, in)
}

// writeFile makes a file of at most maxDB bytes.
func writeFile(to string, from io.Reader) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	n, err := io.Copy(out, io.LimitReader(from, maxDB+1))
	if err == nil && n > maxDB {
		err = fmt.Errorf("%s: more than the %d bytes that a database may have", path.Base(to), int64(maxDB))
	}
	return errors.Join(err, out.Close())
}

// read reads the database in a folder of ours.
func read(ctx context.Context, dir string) ([]rpmmd.Package, error) {
	for _, name := range mainFiles() {
		at := filepath.Join(dir, name)
		st, err := os.Stat(at)
		if errors.Is(err, fs.ErrNotExist) || err == nil && st.Size() == 0 {
			continue
		}
		if err != nil {
			return nil, err
		}
		c := collector{left: st.Size(), paths: maxPaths}
		if wal, err := os.Stat(filepath.Join(dir, fileWAL)); err == nil {
			c.left += wal.Size()
		}
		if err := readFile(ctx, at, st.Size(), c.add); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return c.sorted(), nil
	}
	return nil, ErrNone
}

// visit is called for each package of a database, with its number there.
type visit func(number uint32, header []byte) error

// readFile gives each header of a database to f, whatever its format: files
// are not always called what they are.
func readFile(ctx context.Context, name string, size int64, f visit) error {
	file, err := os.Open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	var magic [16]byte
	if _, err := io.ReadFull(file, magic[:]); err != nil {
		return fmt.Errorf("no rpm database: %w", err)
	}
	switch {
	case string(magic[:]) == "SQLite format 3\x00":
		return readSQLite(ctx, name, f)
	case bytes.HasPrefix(magic[:], []byte("RpmP")):
		return readNDB(ctx, file, size, f)
	}
	return readBDB(ctx, file, size, f)
}

// Headers calls fn for each header of a database, keys among them, with its
// number, in the order in which they lie there. The file may be called
// anything, is not written to, and a write-ahead log beside it does not count.
// The bytes are those of the database and fn may not keep them: the number of
// entries, the size of the data, the entries and the data, in network byte
// order.
func Headers(ctx context.Context, file string, fn func(number uint32, header []byte) error) error {
	st, err := os.Stat(file)
	if err != nil {
		return err
	}
	left := st.Size()
	return readFile(ctx, file, st.Size(), func(number uint32, header []byte) error {
		if left -= int64(len(header)); left < 0 {
			return errors.New("its headers are larger than the file that they are in")
		}
		return fn(number, header)
	})
}

// collector makes packages of headers.
type collector struct {
	packages []rpmmd.Package
	numbers  []uint32
	left     int64 // bytes of headers that the file can still hold
	paths    int   // bytes of paths that may still come
}

func (c *collector) add(number uint32, header []byte) error {
	if c.left -= int64(len(header)); c.left < 0 {
		return errors.New("its headers are larger than the file that they are in")
	}
	h, err := parseHeader(header)
	if err != nil {
		return fmt.Errorf("package %d: %w", number, err)
	}
	p, err := h.pkg(&c.paths)
	if err != nil {
		return fmt.Errorf("package %d: %w", number, err)
	}
	if p.Name != "gpg-pubkey" {
		c.packages, c.numbers = append(c.packages, *p), append(c.numbers, number)
	}
	return nil
}

// sorted is the packages in the order of their numbers, which is that in
// which they were installed.
func (c *collector) sorted() []rpmmd.Package {
	order := make([]int, len(c.packages))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(c.numbers[a], c.numbers[b]) })
	var out []rpmmd.Package
	for _, i := range order {
		out = append(out, c.packages[i])
	}
	return out
}

// ReleaseVer is the value of dnf's $releasever in a root with these packages:
// the version of the package that says which system it is, or the version
// with which it provides that. Empty if there is none.
func ReleaseVer(installed []rpmmd.Package) string {
	for _, what := range []string{
		"system-release(releasever)", "system-release", "distribution-release(releasever)", "distribution-release", "redhat-release", "suse-release",
	} {
		for i := range installed {
			for _, d := range installed[i].Provides {
				if d.Name != what {
					continue
				}
				if d.Flags == rpmmd.Equal && installed[i].Name != what {
					return d.EVR.String()
				}
				return installed[i].Version
			}
		}
	}
	return ""
}

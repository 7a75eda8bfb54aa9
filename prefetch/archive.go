package prefetch

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"caisson/lock"
)

// Limits of what comes packed. A zip may unpack to as much as go unpacks, a
// crate to as much as cargo does.
const (
	maxZipDirectory = 16 << 20  // bytes of a zip's directory; a toolchain's has 2 MiB
	maxCrate        = 512 << 20 // bytes of a crate, and what it may unpack to
	maxCrateRatio   = 20        // or so many times the crate's size
	maxCrateFiles   = 200_000
	maxNamePart     = 255 // bytes; NAME_MAX of Linux
)

// errBomb says that an archive is larger than its size lets expect.
var errBomb = errors.New("it unpacks to too much")

// checkZip proves the h1 of a module's zip, and that go will unpack it: all
// names are below MODULE@VERSION/, are those of files on any system and differ
// by more than case.
func checkZip(in *lock.Input, c content) error {
	got, err := hashZip(c)
	if err == nil && got != in.Go.H1 {
		return &HashError{Name: in.Name, Got: got, Want: in.Go.H1}
	}
	if err == nil {
		if _, bad := modzip.CheckZip(module.Version{Path: in.Go.Module, Version: in.Go.Version}, c.Name()); bad != nil {
			err = errors.New(printable(bad.Error())) // it has names as they are
		}
	}
	if err != nil {
		return fmt.Errorf("reading the zip: %w", err)
	}
	return nil
}

// hashZip is the h1 of a zip's files (golang.org/x/mod/sumdb/dirhash), by the
// directory at its end: what go reads. What else the zip may hold is nothing
// to it.
func hashZip(c content) (string, error) {
	at := &budgetReaderAt{ReaderAt: c, left: maxZipDirectory}
	z, err := zip.NewReader(at, c.Size())
	if err != nil {
		return "", err
	}
	at.left = math.MaxInt64
	files := make(map[string]*zip.File, len(z.File))
	names := make([]string, 0, len(z.File))
	left := uint64(modzip.MaxZipFile)
	for _, f := range z.File {
		if f.UncompressedSize64 > left { // a file that has more than it says is no zip's
			return "", errBomb
		}
		left -= f.UncompressedSize64
		if files[f.Name] != nil {
			return "", fmt.Errorf("it has %q twice", f.Name)
		}
		files[f.Name] = f
		names = append(names, f.Name)
	}
	u := newUnzipper()
	z.RegisterDecompressor(zip.Deflate, u.inflate)
	return dirhash.Hash1(names, func(name string) (io.ReadCloser, error) { return u.open(files[name]) })
}

// budgetReaderAt ends in an error when more has been read.
type budgetReaderAt struct {
	io.ReaderAt
	left int64
}

func (b *budgetReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, fmt.Errorf("its directory has more than %d bytes", maxZipDirectory)
	}
	return b.ReaderAt.ReadAt(p, off)
}

// budgetReader ends in an error when more has been read.
type budgetReader struct {
	io.Reader
	left int64
}

func (b *budgetReader) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return n, errBomb
	}
	return n, err
}

// crateProof is the key for: this file is an archive of that crate.
func crateProof(in *lock.Input) string {
	return strings.Join([]string{"proof-1 crate", in.SHA256.Hex(), in.URL}, "\x00")
}

// checkCrate reads a crate to its end: one gzip member with a tar archive of
// files and folders below NAME-VERSION/, no two of one name. Cargo refuses what
// is outside, crates.io also links, which cargo never writes.
func checkCrate(in *lock.Input, c content) error {
	top := strings.TrimSuffix(in.Name, ".crate")
	if m := crateID.FindStringSubmatch(in.URL); m != nil {
		top = m[1] + "-" + m[2]
	}
	if err := readCrate(top, c); err != nil {
		return fmt.Errorf("reading the crate: %w", err)
	}
	return nil
}

func readCrate(top string, c content) error {
	packed := bufio.NewReader(io.NewSectionReader(c, 0, c.Size()))
	z, err := gzip.NewReader(packed)
	if err != nil {
		return err
	}
	z.Multistream(false)
	plain := &budgetReader{Reader: z, left: max(maxCrate, c.Size()*maxCrateRatio)}
	if err := readCrateFiles(top, tar.NewReader(plain), plain.left); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, plain); err != nil { // up to the checksum
		return err
	}
	if _, err := packed.ReadByte(); err != io.EOF {
		return errors.New("there is more after the archive")
	}
	return nil
}

func readCrateFiles(top string, tr *tar.Reader, left int64) error {
	seen := make(map[string]byte) // the type by the name
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if left -= h.Size; left < 0 {
			return errBomb
		}
		switch h.Typeflag {
		case tar.TypeXGlobalHeader:
			continue
		case tar.TypeReg, tar.TypeDir:
		default:
			return fmt.Errorf("%q is neither a file nor a folder", h.Name)
		}
		name := h.Name
		if h.Typeflag == tar.TypeDir {
			name = strings.TrimSuffix(name, "/")
		}
		if err := checkCrateName(top, name); err != nil {
			return err
		}
		if was, twice := seen[name]; twice && (was != tar.TypeDir || h.Typeflag != tar.TypeDir) {
			return fmt.Errorf("it has %q twice", name)
		}
		if seen[name] = h.Typeflag; len(seen) > maxCrateFiles {
			return fmt.Errorf("it has more than %d files", maxCrateFiles)
		}
	}
}

// checkCrateName wants a name that means the same to whoever unpacks it.
func checkCrateName(top, name string) error {
	parts := strings.Split(name, "/")
	switch {
	case parts[0] != top || !fs.ValidPath(name):
		return fmt.Errorf("%q is not below %s/", name, top)
	case strings.Contains(name, `\`) || strings.ContainsFunc(name, unicode.IsControl):
		return fmt.Errorf("%q is no name of a file", name)
	case slices.ContainsFunc(parts, func(p string) bool { return len(p) > maxNamePart }):
		return fmt.Errorf("%.100q… has a part of more than %d bytes", name, maxNamePart)
	}
	return nil
}

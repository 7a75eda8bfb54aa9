// Package imagefile opens and writes the files that disks are kept in.
//
// It opens qcow2 (with backing files, where the caller says in which folders
// they may lie), VHD, and the disk itself, told apart by their content. It
// writes the same three: qcow2 with clusters compressed by Zstandard, VHD
// fixed, and raw with holes where the disk has zeros.
package imagefile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"caisson/build/image/ocilayout"
	"caisson/build/image/qcow2"
	"caisson/build/image/vhd"
)

// The formats, which are also the endings of files' names.
const (
	Qcow2 = "qcow2"
	VHD   = "vhd"
	Raw   = "raw"
)

// maxChain is how many files an image and its backing files may be.
const maxChain = 32

// Disk is an image file as the disk that it holds.
type Disk struct {
	io.ReaderAt
	Format string // Qcow2, VHD or Raw
	// Files are the names of the file and of those that it is based on.
	Files []string

	size int64
	open []*os.File
}

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Close closes the files.
func (d *Disk) Close() error {
	var all []error
	for _, f := range d.open {
		all = append(all, f.Close())
	}
	return errors.Join(all...)
}

// Open opens an image file. One that has a backing file is refused.
func Open(name string) (*Disk, error) { return OpenBacked(name) }

// OpenBacked opens an image file, and its backing files where they lie in one
// of the folders or below it. The name of a backing file is chosen by whoever
// made the image, and what it holds becomes part of the disk: so it cannot be
// just any file.
func OpenBacked(name string, folders ...string) (*Disk, error) {
	d := &Disk{}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	top, err := d.add(f, name, "", folders)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), d.Close())
	}
	d.ReaderAt, d.Format, d.size = top, top.format, top.Size()
	return d, nil
}

// layer is a file of a chain.
type layer struct {
	io.ReaderAt
	size   int64
	format string
}

func (l *layer) Size() int64 { return l.size }

// add opens what is in a file. The format is what an image says that its
// backing file is; empty to find it out.
func (d *Disk) add(f *os.File, name, format string, folders []string) (*layer, error) {
	d.open, d.Files = append(d.open, f), append(d.Files, name)
	if len(d.Files) > maxChain {
		return nil, fmt.Errorf("more than %d files are based on each other", maxChain)
	}
	if st, err := f.Stat(); err != nil {
		return nil, err
	} else if st.IsDir() {
		return nil, errors.New("is a folder, no image")
	}
	size, err := f.Seek(0, io.SeekEnd) // a device's too
	if err != nil {
		return nil, err
	}
	if format == "" {
		if format, err = detect(f, size); err != nil {
			return nil, err
		}
	}
	switch format {
	case Raw:
		return &layer{f, size, Raw}, nil
	case VHD, "vpc":
		img, err := vhd.Open(f, size)
		if err != nil {
			return nil, err
		}
		return &layer{img, img.Size(), VHD}, nil
	case Qcow2:
		img, err := qcow2.OpenBacked(f, func(backing, format string) (qcow2.Disk, error) {
			file, path, err := openBacking(name, backing, folders)
			if err != nil {
				return nil, err
			}
			return d.add(file, path, format, folders)
		})
		if err != nil {
			return nil, err
		}
		return &layer{img, img.Size(), Qcow2}, nil
	}
	return nil, fmt.Errorf("format %q is not supported", format)
}

// openBacking opens the backing file of an image.
func openBacking(image, backing string, folders []string) (*os.File, string, error) {
	if len(folders) == 0 {
		return nil, "", errors.New("images with a backing file are not supported here")
	}
	if scheme, _, ok := strings.Cut(backing, ":"); ok && !strings.Contains(scheme, "/") {
		return nil, "", errors.New("only the names of files are supported")
	}
	path := backing
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(image), path)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, "", err
	}
	for _, folder := range folders {
		if folder, err = filepath.Abs(folder); err != nil {
			return nil, "", err
		}
		rel, err := filepath.Rel(folder, path)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		f, err := os.OpenInRoot(folder, rel)
		return f, path, err
	}
	return nil, "", fmt.Errorf("it does not lie in %s", strings.Join(folders, " or "))
}

// ErrCompressed says that a file is compressed as a whole. It may be no disk at
// all: initrds and packages are compressed too.
var ErrCompressed = errors.New("it is compressed")

// ErrArchive says that a file is a tar archive.
var ErrArchive = errors.New("it is a tar archive and no disk: no machine boots it, or measures it")

// detect finds out the format of a file of size bytes.
func detect(r io.ReaderAt, size int64) (string, error) {
	if ocilayout.IsTar(r) {
		return "", ErrArchive
	}
	b := make([]byte, 64)
	n, err := r.ReadAt(b, 0)
	if err != nil && err != io.EOF {
		return "", err
	}
	start := string(b[:n])
	for _, other := range []struct{ magic, name string }{
		{"KDMV", "a VMDK image"}, {"# Disk Descriptor", "a VMDK descriptor"}, {"vhdxfile", "a VHDX image"},
		{"<<< ", "a VDI image"}, {"QED\x00", "a QED image"}, {"QFI\xfb\x00\x00\x00\x01", "a qcow image of version 1"},
	} {
		if strings.HasPrefix(start, other.magic) {
			return "", fmt.Errorf("it is %s, which is not supported: want qcow2, vhd or raw", other.name)
		}
	}
	for _, c := range []struct{ magic, name string }{{"\x1f\x8b", "gzip"}, {"\xfd7zXZ\x00", "xz"}, {"\x28\xb5\x2f\xfd", "zstd"}} {
		if strings.HasPrefix(start, c.magic) {
			return "", fmt.Errorf("%w with %s, which is not supported: want qcow2, vhd or raw", ErrCompressed, c.name)
		}
	}
	switch {
	case strings.HasPrefix(start, "QFI\xfb"):
		return Qcow2, nil
	case vhd.Is(r, size):
		return VHD, nil
	}
	return Raw, nil
}

// Options are how a file is written.
type Options struct {
	Format string // Qcow2, VHD or Raw
	Time   int64  // of a VHD, in seconds since 1970
}

// level is the zstd level of a qcow2's clusters.
const level = 3

// Write writes a disk of size bytes into a new, empty file. The same disk
// gives the same bytes. It ends early when ctx is done.
func Write(ctx context.Context, f *os.File, disk io.ReaderAt, size int64, o Options) error {
	disk = UntilDone(ctx, disk)
	switch o.Format {
	case Qcow2:
		return qcow2.Write(f, disk, size, qcow2.Options{Compress: true, Level: level})
	case VHD:
		return vhd.Write(f, disk, size, vhd.Options{Time: o.Time})
	case Raw:
		return writeRaw(f, disk, size)
	}
	return fmt.Errorf("format %q is not supported: want qcow2, vhd or raw", o.Format)
}

const (
	copySize = 1 << 20
	holeSize = 1 << 16 // what is left out where it is zeros
)

// writeRaw writes the disk itself.
func writeRaw(f *os.File, disk io.ReaderAt, size int64) error {
	b := make([]byte, copySize)
	zeros := make([]byte, holeSize)
	for at := int64(0); at < size; at += copySize {
		part := b[:min(copySize, size-at)]
		if n, err := disk.ReadAt(part, at); n < len(part) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("reading %d bytes of the disk at %d: %w", len(part), at, err)
		}
		for off := 0; off < len(part); off += holeSize {
			piece := part[off:min(off+holeSize, len(part))]
			if string(piece) == string(zeros[:len(piece)]) {
				continue
			}
			if _, err := f.WriteAt(piece, at+int64(off)); err != nil {
				return err
			}
		}
	}
	return f.Truncate(size)
}

// UntilDone is a reader that fails when ctx is done: the writers of formats
// know nothing of contexts.
func UntilDone(ctx context.Context, r io.ReaderAt) io.ReaderAt { return untilDone{ctx, r} }

type untilDone struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	r   io.ReaderAt
}

func (u untilDone) ReadAt(p []byte, off int64) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.ReadAt(p, off)
}

// Hole is that of a qcow2.Sparse.
func (u untilDone) Hole(off, n int64) bool {
	s, ok := u.r.(qcow2.Sparse)
	return ok && u.ctx.Err() == nil && s.Hole(off, n)
}

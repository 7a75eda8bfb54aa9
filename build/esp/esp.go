// Package esp lays out the EFI system partitions of our images: FAT32 with the
// label ESP, the files one after the other in the order of their paths, and
// room for signatures behind each EFI program.
//
// The room makes signing a change of the signature alone. A program that is
// signed later, on another machine, takes clusters that were set aside for it;
// no other file moves, and the partition stays as large as it is. What changes
// is the program's header and end, its size in the folder, its chain in the
// table, and the number of free clusters.
//
// Limits: SignatureRoom bytes of signatures a program, about thirty.
package esp

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"caisson/build/image/fat"
	"caisson/build/image/uki"
)

// SignatureRoom is how many bytes of signatures an EFI program has room for.
const SignatureRoom = 64 << 10

const label = "ESP"

// File is a file: its path with slashes and without a leading one, and its
// content.
type File struct {
	Path    string
	Content *io.SectionReader
	// Program is an EFI program's length without signatures; 0 for other files.
	Program int64
	// ReadOnly is the attribute of that name.
	ReadOnly bool
}

// Options are what a partition has beside its files.
type Options struct {
	Serial uint32
	Time   int64 // of all files and folders, in seconds since 1970, UTC
}

// Program is the file of an EFI program.
func Program(path string, r *io.SectionReader) (File, error) {
	p, err := uki.Split(r, r.Size())
	if err != nil {
		return File{}, fmt.Errorf("%s: %w", path, err)
	}
	return File{Path: path, Content: r, Program: p.Size}, nil
}

// Bytes is a file with that content.
func Bytes(path string, b []byte) File {
	return File{Path: path, Content: io.NewSectionReader(bytes.NewReader(b), 0, int64(len(b)))}
}

// Planned is an EFI program of that many bytes, without signatures, that is not
// made yet: good for MinSize.
func Planned(path string, size int64) File {
	return File{Path: path, Content: io.NewSectionReader(bytes.NewReader(nil), 0, size), Program: size}
}

// MinSize is the smallest size in bytes, a multiple of 1 MiB, of a partition
// with the files and their room.
func MinSize(files []File) int64 { return fat.MinSize(laidOut(files)) }

// Write writes a partition of size bytes. It expects a w that reads as zeros.
func Write(w io.WriterAt, size int64, files []File, o Options) error {
	for _, f := range files {
		if n := f.Content.Size() - f.Program; f.Program > 0 && n > SignatureRoom {
			return fmt.Errorf("%s has %d bytes of signatures, and room for %d", f.Path, n, SignatureRoom)
		}
	}
	return fat.Write(w, size, laidOut(files), fat.Options{Serial: o.Serial, Label: label, Time: o.Time})
}

// laidOut are the files as the file system takes them.
func laidOut(files []File) []fat.File {
	var out []fat.File
	for _, f := range files {
		x := fat.File{Path: f.Path, Size: f.Content.Size(), ReadOnly: f.ReadOnly, Open: func() (io.ReadCloser, error) {
			return io.NopCloser(io.NewSectionReader(f.Content, 0, f.Content.Size())), nil
		}}
		if f.Program > 0 {
			x.Room = f.Program + SignatureRoom
		}
		out = append(out, x)
	}
	return out
}

// Read reads the files of a partition, and what it has beside them. A file is
// an EFI program where it can be read as one. Whether all else is as Write makes
// it, Check tells.
func Read(r io.ReaderAt, size int64) ([]File, Options, error) {
	fs, err := fat.Open(r, size)
	if err != nil {
		return nil, Options{}, err
	}
	o := Options{Serial: fs.Serial, Time: fs.Time()}
	var found []fat.File
	if err := fs.Walk(func(f fat.File) error { found = append(found, f); return nil }); err != nil {
		return nil, o, err
	}
	var files []File
	for _, x := range found {
		content, err := fs.Lookup(x.Path)
		if err != nil {
			return nil, o, err
		}
		f, err := Program(x.Path, content)
		if err != nil {
			f = File{Path: x.Path, Content: content}
		}
		f.ReadOnly = x.ReadOnly
		files = append(files, f)
	}
	return files, o, nil
}

// Scratch is a file to write partitions into, such as an *os.File.
type Scratch interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
}

// ErrOther is of partitions that have more, or other bytes, than their files.
var ErrOther = errors.New("the EFI system partition is not as Caisson writes it")

// Check writes a partition with the files into scratch, and compares it with
// the one of size bytes that r reads: bit for bit, unused clusters included. It
// is ErrOther where they differ.
func Check(r io.ReaderAt, size int64, files []File, o Options, scratch Scratch) error {
	if err := Rewrite(scratch, size, files, o); err != nil {
		return err
	}
	same, err := SameBytes(io.NewSectionReader(r, 0, size), io.NewSectionReader(scratch, 0, size))
	if err == nil && !same {
		err = ErrOther
	}
	return err
}

// Rewrite is Write into a file that may have something in it.
func Rewrite(scratch Scratch, size int64, files []File, o Options) error {
	for _, n := range []int64{0, size} {
		if err := scratch.Truncate(n); err != nil {
			return err
		}
	}
	return Write(scratch, size, files, o)
}

// SameBytes reads two streams until one differs from the other or both end.
func SameBytes(a, b io.Reader) (bool, error) {
	const window = 1 << 20
	x, y := make([]byte, window), make([]byte, window)
	for {
		n, errA := io.ReadFull(a, x)
		m, errB := io.ReadFull(b, y)
		for _, err := range []error{errA, errB} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if !bytes.Equal(x[:n], y[:m]) {
			return false, nil
		}
		if n < window {
			return true, nil
		}
	}
}

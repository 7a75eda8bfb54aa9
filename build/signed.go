package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"caisson/build/esp"
	"caisson/build/image/gpt"
	"caisson/build/imagefile"
	"caisson/build/rootfs"
	"caisson/lock/digest"
)

// SignedProgram is an EFI program that is signed for Secure Boot.
type SignedProgram struct {
	Path string `json:"path"` // on the ESP, absolute
	// By are the certificates of those who signed it.
	By []Signer `json:"by"`
}

// Signer is who signed an EFI program, by the certificate in the signature.
type Signer struct {
	Subject string        `json:"subject"`
	SHA256  digest.Digest `json:"sha256"` // of the certificate
}

// SignedPrograms are those of the programs that have a signature.
func SignedPrograms(all []esp.Signed) []SignedProgram {
	var out []SignedProgram
	for _, s := range all {
		p := SignedProgram{Path: "/" + s.Path}
		for _, by := range s.By {
			p.By = append(p.By, Signer{Subject: by.Signer.Subject.String(), SHA256: digest.Of(by.Signer.Raw)})
		}
		if len(p.By) > 0 {
			out = append(out, p)
		}
	}
	return out
}

// SignedDisk is a disk whose EFI programs were signed.
type SignedDisk struct {
	io.ReaderAt
	Size     int64 // as it was
	Programs []esp.Signed

	files []esp.File
	esp   gpt.Partition
	time  int64 // of all that the build wrote
}

// ReadESP reads the files of a disk's EFI system partition.
func ReadESP(disk io.ReaderAt, size int64) (gpt.Partition, []esp.File, esp.Options, error) {
	table, err := gpt.Read(disk, size)
	if err != nil {
		return gpt.Partition{}, nil, esp.Options{}, fmt.Errorf("reading the partition table: %w", err)
	}
	i := slices.IndexFunc(table.Partitions, func(p gpt.Partition) bool { return p.Type == gpt.TypeESP })
	if i < 0 {
		return gpt.Partition{}, nil, esp.Options{}, errors.New("the disk has no EFI system partition")
	}
	p := table.Partitions[i]
	files, o, err := esp.Read(io.NewSectionReader(disk, p.Start(), p.Size()), p.Size())
	if err != nil {
		return p, nil, o, fmt.Errorf("EFI system partition: %w", err)
	}
	return p, files, o, nil
}

// SignDisk signs the EFI programs of a disk that a build made. The partition
// that they are on is written into scratch, which the disk is then read from;
// nothing but the signatures changes. It is esp.ErrOther where the partition
// has anything that the build would not have written.
func SignDisk(disk io.ReaderAt, size int64, sign esp.Signer, scratch esp.Scratch) (*SignedDisk, error) {
	p, files, o, err := ReadESP(disk, size)
	if err != nil {
		return nil, err
	}
	if err := esp.Check(io.NewSectionReader(disk, p.Start(), p.Size()), p.Size(), files, o, scratch); err != nil {
		return nil, err
	}
	d := &SignedDisk{Size: size, esp: p, time: o.Time}
	if d.files, d.Programs, err = esp.Sign(files, sign); err != nil {
		return nil, err
	}
	if err := esp.Rewrite(scratch, p.Size(), d.files, o); err != nil {
		return nil, err
	}
	d.ReaderAt = patched{disk, scratch, p.Start(), p.Start() + p.Size()}
	return d, nil
}

// patched is a disk with other bytes from start to end.
type patched struct {
	disk, part io.ReaderAt
	start, end int64
}

func (p patched) ReadAt(b []byte, off int64) (int, error) {
	n := 0
	for n < len(b) {
		at, r, from, until := off+int64(n), p.disk, off+int64(n), off+int64(len(b))
		switch {
		case at < p.start:
			until = min(until, p.start)
		case at < p.end:
			r, from, until = p.part, at-p.start, min(until, p.end)
		}
		got, err := r.ReadAt(b[n:n+int(until-at)], from)
		if n += got; int64(got) < until-at {
			return n, err
		}
	}
	return n, nil
}

// WriteFile writes the disk in a format, under a temporary name until it is whole.
func (d *SignedDisk) WriteFile(ctx context.Context, name, format string) error {
	part := name + ".part"
	if err := os.Remove(part); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := WriteImage(ctx, part, d, d.Size, imagefile.Options{Format: format, Time: d.time}); err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, name)
}

// WriteFolder writes what a build with the key would have left in a folder: of
// the image that img describes, at name, the disk in all its formats, and what
// is beside it. It returns the description of that, without what is measured.
func (d *SignedDisk) WriteFolder(ctx context.Context, img *Image, name, to string) (*Image, error) {
	from := filepath.Dir(name)
	own, err := describe(name)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(img.Files, own) {
		return nil, fmt.Errorf("%s is %s, which the image.json beside it does not say", name, own.SHA256)
	}
	if err := removeOld(to, describing()); err != nil {
		return nil, err
	}
	out := *img
	out.Files, out.Partitions, out.Signed = nil, slices.Clone(img.Partitions), SignedPrograms(d.Programs)
	if err := d.sumESP(out.Partitions); err != nil {
		return nil, err
	}
	image := strings.TrimSuffix(own.Name, filepath.Ext(own.Name))
	for _, f := range img.Files {
		at := filepath.Join(to, f.Name)
		switch {
		case f.Name != filepath.Base(f.Name):
			err = fmt.Errorf("image.json names the file %q", f.Name)
		case f.Name == "measurements.json": // it follows from the disk
			continue
		case f.Name == "files.json":
			err = d.writeAccounts(from, to, f, &out)
		case slices.Contains([]string{imagefile.Qcow2, imagefile.VHD, imagefile.Raw}, strings.TrimPrefix(f.Name, image+".")):
			err = d.WriteFile(ctx, at, filepath.Ext(f.Name)[1:])
		default:
			err = copyDescribed(from, to, f)
		}
		if err != nil {
			return nil, err
		}
		now, err := describe(at)
		if err != nil {
			return nil, err
		}
		out.Files = append(out.Files, now)
	}
	return &out, nil
}

// sumESP gives the ESP its digest.
func (d *SignedDisk) sumESP(partitions []Partition) error {
	sum, _, err := digest.Reader(io.NewSectionReader(d, d.esp.Start(), d.esp.Size()))
	for i := range partitions {
		if p := &partitions[i]; p.Start == d.esp.Start() {
			p.SHA256 = sum
		}
	}
	return err
}

// writeAccounts writes files.json, which has to be as it is described, with the
// accounts as they are now, and counts anew.
func (d *SignedDisk) writeAccounts(from, to string, was Output, img *Image) error {
	if err := copyDescribed(from, to, was); err != nil {
		return err
	}
	name := filepath.Join(to, was.Name)
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var files []File
	if err := json.Unmarshal(b, &files); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(from, was.Name), err)
	}
	if err := noteSigned(files, d.files, d.Programs); err != nil {
		return err
	}
	img.Totals = totals(files)
	if err := os.Remove(name); err != nil {
		return err
	}
	return writeJSON(name, files)
}

// copyDescribed copies a file that has to be as it is described.
func copyDescribed(from, to string, want Output) error {
	r, err := os.Open(filepath.Join(from, want.Name))
	if err != nil {
		return err
	}
	defer r.Close()
	part := filepath.Join(to, want.Name+".part")
	w, err := os.Create(part)
	if err != nil {
		return err
	}
	sum, _, err := digest.Reader(io.TeeReader(r, w))
	if err = errors.Join(err, w.Close()); err == nil && sum != want.SHA256 {
		err = fmt.Errorf("%s is %s, image.json says %s", filepath.Join(from, want.Name), sum, want.SHA256)
	}
	if err != nil {
		return errors.Join(err, os.Remove(part))
	}
	return os.Rename(part, filepath.Join(to, want.Name))
}

// noteSigned gives the accounts of the ESP's files what signing changed.
func noteSigned(files []File, programs []esp.File, signed []esp.Signed) error {
	added := map[string]bool{}
	for _, s := range signed {
		added["/"+s.Path] = s.Added
	}
	for _, p := range programs {
		i := slices.IndexFunc(files, func(f File) bool { return f.Part == "esp" && f.Path == "/"+p.Path })
		if i < 0 {
			return fmt.Errorf("/%s of the ESP has no account", p.Path)
		}
		f := &files[i]
		if !added[f.Path] {
			continue
		}
		if err := f.read(p.Content); err != nil {
			return err
		}
		how := signedOrigin(origin{account: f.Account, inputs: f.Inputs, by: f.By})
		f.Account, f.By = how.account, how.by
	}
	return nil
}

// read fills in the size and the digests of a file's content.
func (f *File) read(content *io.SectionReader) error {
	var e rootfs.Entry
	if err := e.Read(io.NewSectionReader(content, 0, content.Size())); err != nil {
		return fmt.Errorf("reading %s: %w", f.Path, err)
	}
	f.Size, f.SHA256, f.SHA1 = e.Size, &e.SHA256, e.SHA1
	return nil
}

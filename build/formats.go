package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"

	"caisson/build/image/fat"
	"caisson/build/image/uki"
	"caisson/build/imagefile"
	"caisson/lock"
)

// What a machine that is booted from a network is given, as the endings of
// files: the kernel, its initrd and its command line as they are in the UKI,
// the root partition, and its hash tree where that is a partition of its own.
const (
	endKernel  = ".vmlinuz"
	endInitrd  = ".initrd"
	endCmdline = ".cmdline"
	endRoot    = ".root"
	endVerity  = ".verity"
)

// endOCI is the ending of an OCI archive.
const endOCI = ".oci.tar"

// BaseName is the name of an image's file without its ending.
func BaseName(file string) string {
	base := filepath.Base(file)
	if name, ok := strings.CutSuffix(base, endOCI); ok {
		return name
	}
	return strings.TrimSuffix(base, filepath.Ext(base))
}

// OutputFiles are the names of the files that an output of an image of that
// name may have.
func OutputFiles(name, output string) []string {
	switch output {
	case lock.OutputOCI:
		return []string{name + endOCI}
	case lock.OutputNetboot:
	default:
		return []string{name + "." + output}
	}
	return []string{name + endKernel, name + endInitrd, name + endCmdline, name + endRoot, name + endVerity}
}

// outputs writes what is asked for, disks first: the first is what is measured.
func (d *disk) outputs(ctx context.Context, p *progress) ([]Output, error) {
	st, err := d.f.Stat()
	if err != nil {
		return nil, err
	}
	wanted := slices.Clone(d.image.Output)
	slices.SortStableFunc(wanted, func(a, b string) int { return rank(a) - rank(b) })
	var all []Output
	for _, o := range wanted {
		names := OutputFiles(filepath.Join(d.work, d.imageName()), o)
		switch o {
		case lock.OutputRaw: // it is what has been assembled
		case lock.OutputNetboot:
			names, err = d.writeNetboot(ctx, filepath.Join(d.work, d.imageName()))
		default:
			err = WriteImage(ctx, names[0], tracked{untilDone{ctx, d.f}, p.of(st.Size(), "bytes")}, st.Size(), imagefile.Options{Format: o, Time: d.Lock.Epoch})
		}
		if err != nil {
			return nil, fmt.Errorf("writing the %s: %w", o, err)
		}
		for _, name := range names {
			out, err := describeSynced(name)
			if err != nil {
				return nil, err
			}
			all = append(all, out)
		}
	}
	return all, nil
}

// rank puts what is no disk behind what is.
func rank(output string) int {
	if output == lock.OutputNetboot {
		return 1
	}
	return 0
}

// WriteImage writes a disk of size bytes to a new file. The same disk gives the
// same bytes.
func WriteImage(ctx context.Context, name string, disk io.ReaderAt, size int64, o imagefile.Options) error {
	err := create(name, func(f *os.File) error { return imagefile.Write(ctx, f, disk, size, o) })
	if err != nil {
		return fmt.Errorf("writing the %s: %w", o.Format, err)
	}
	return nil
}

// create makes a new file.
func create(name string, write func(f *os.File) error) error {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := write(f); err != nil {
		return err
	}
	return f.Close()
}

// writeNetboot takes apart the disk that has been assembled, and returns the
// names of the files.
func (d *disk) writeNetboot(ctx context.Context, base string) ([]string, error) {
	f := untilDone{ctx, d.f}
	fs, err := fat.Open(io.NewSectionReader(f, d.esp.start, d.esp.size), d.esp.size)
	if err != nil {
		return nil, err
	}
	program, err := fs.Lookup(d.ukiPath)
	if err != nil {
		return nil, err
	}
	im, err := uki.Read(program, program.Size())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.ukiPath, err)
	}
	root := d.rootPartition()
	parts := map[string]io.Reader{
		endCmdline: strings.NewReader(d.cmdline() + "\n"),
		endRoot:    io.NewSectionReader(f, root.start, root.size),
	}
	if root == d.data {
		parts[endVerity] = io.NewSectionReader(f, d.hash.start, d.hash.size)
	}
	for end, name := range map[string]string{endKernel: ".linux", endInitrd: ".initrd"} {
		s, err := im.Section(name)
		if err != nil || s == nil {
			return nil, fmt.Errorf("%s: no section %q: %w", d.ukiPath, name, err)
		}
		parts[end] = s.Open()
	}
	var names []string
	for _, name := range OutputFiles(base, lock.OutputNetboot) {
		r, ok := parts[filepath.Ext(name)]
		if !ok {
			continue
		}
		err := create(name, func(f *os.File) error {
			_, err := io.Copy(f, r)
			return err
		})
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, nil
}

// describeSynced describes a file while it is written to the disk.
func describeSynced(name string) (out Output, err error) {
	var g errgroup.Group
	g.Go(func() error {
		f, err := os.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		return f.Sync()
	})
	g.Go(func() (err error) {
		out, err = describe(name)
		return err
	})
	return out, g.Wait()
}

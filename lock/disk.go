package lock

import (
	"cmp"
	"fmt"
	"regexp"
	"strconv"
)

// Disk are sizes that the disk and its partitions are given, in bytes and in
// multiples of DiskUnit. What is 0 is as small as what is in it.
type Disk struct {
	Size int64 `json:"size,omitempty"` // the whole disk; what is behind its partitions is free
	ESP  int64 `json:"esp,omitempty"`  // the EFI system partition
	Root int64 `json:"root,omitempty"` // the root without its hash tree; what is behind the file system is zeros
}

// DiskUnit is what the sizes of disks and partitions are multiples of.
const DiskUnit = 1 << 20

// Limits of sizes: of the ESP what the FAT32 that the build writes can be, of
// all others what keeps sums of them in range.
const (
	minESP  = 33 << 20
	maxESP  = 2 << 30
	maxDisk = 16 << 40
)

// ManifestDisk are sizes as text, such as 512MiB; see Disk.
type ManifestDisk struct {
	Size string `yaml:"size"`
	ESP  string `yaml:"esp"`
	Root string `yaml:"root"`
}

var sizeRE = regexp.MustCompile(`^([1-9][0-9]{0,17})([KMG])iB$`)

// parseSize reads a size as a manifest has it; 0 where it is empty.
func parseSize(s string) (int64, error) {
	if s == "" {
		return 0, nil
	}
	p := sizeRE.FindStringSubmatch(s)
	if p == nil {
		return 0, fmt.Errorf("%q is not a size, such as 512MiB or 10GiB", s)
	}
	shift := map[string]uint{"K": 10, "M": 20, "G": 30}[p[2]]
	n, err := strconv.ParseInt(p[1], 10, 64)
	if err != nil {
		return 0, err
	}
	if n > maxDisk>>shift {
		return 0, fmt.Errorf("got %s; want at most %s", s, FormatSize(maxDisk))
	}
	n <<= shift
	if n%DiskUnit != 0 {
		return 0, fmt.Errorf("got %s; want a multiple of %s", s, FormatSize(DiskUnit))
	}
	return n, nil
}

// FormatSize writes a number of bytes as a manifest has it: in the largest
// unit that leaves no rest; bytes alone have none.
func FormatSize(n int64) string {
	for _, u := range []struct {
		shift uint
		name  string
	}{{30, "GiB"}, {20, "MiB"}, {10, "KiB"}} {
		if n != 0 && n%(1<<u.shift) == 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// disk is the manifest's as the lock has it; nil where nothing is given.
func (m ManifestDisk) disk() (*Disk, *settingError) {
	var d Disk
	for _, f := range []struct {
		key, text string
		to        *int64
	}{{"size", m.Size, &d.Size}, {"esp", m.ESP, &d.ESP}, {"root", m.Root, &d.Root}} {
		n, err := parseSize(f.text)
		if err != nil {
			return nil, settingf(at("disk", f.key), "%w", err)
		}
		*f.to = n
	}
	if d == (Disk{}) {
		return nil, nil
	}
	return &d, d.check()
}

// merge adds a variant's: what it gives is in place of the image's.
func (m ManifestDisk) merge(v ManifestDisk) ManifestDisk {
	return ManifestDisk{Size: cmp.Or(v.Size, m.Size), ESP: cmp.Or(v.ESP, m.ESP), Root: cmp.Or(v.Root, m.Root)}
}

// check is what sizes must satisfy by themselves. Whether all fits in, the
// build finds out.
func (d *Disk) check() *settingError {
	for _, f := range []struct {
		key            string
		n, least, most int64
	}{{"size", d.Size, DiskUnit, maxDisk}, {"esp", d.ESP, minESP, maxESP}, {"root", d.Root, DiskUnit, maxDisk}} {
		switch {
		case f.n == 0:
		case f.n < f.least || f.n > f.most:
			return settingf(at("disk", f.key), "got %s; want %s to %s", FormatSize(f.n), FormatSize(f.least), FormatSize(f.most))
		case f.n%DiskUnit != 0:
			return settingf(at("disk", f.key), "got %d bytes; want a multiple of %s", f.n, FormatSize(DiskUnit))
		}
	}
	return nil
}

// checkDisk checks what the lock carries of sizes and of the scratch space.
func (i *Image) checkDisk() error {
	if d := i.Disk; d != nil {
		if *d == (Disk{}) {
			return fmt.Errorf("disk of the image: no sizes; want the key to be left out")
		}
		if e := d.check(); e != nil {
			return fmt.Errorf("image: %w", e)
		}
	}
	if s := i.Scratch; s != nil {
		if e := s.check(); e != nil {
			return fmt.Errorf("image: %w", e)
		}
	}
	return nil
}

// checkDisk checks the sizes and the scratch space of the image, and of each
// variant with what it has from the image.
func (m *manifestChecker) checkDisk(where []any, im ManifestImage) error {
	if _, e := im.Disk.disk(); e != nil {
		return m.errorf(below(where, e.where...), "%w", e.err)
	}
	if len(where) > 1 && im.Scratch != (ManifestScratch{}) { // a variant's
		im.Scratch = m.Image.Scratch.merge(im.Scratch)
	}
	if _, e := im.Scratch.scratch(); e != nil {
		return m.errorf(below(where, e.where...), "%w", e.err)
	}
	return nil
}

// withDisk gives an image the sizes and the scratch space of a manifest that
// was checked.
func (i *Image) withDisk(m ManifestImage) {
	i.Disk, _ = m.Disk.disk()
	i.Scratch, _ = m.Scratch.scratch()
}

package lock

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// Scratch is space on the disk that was booted from for what a machine keeps
// until it is switched off. The machine makes it when it boots, of what is free
// behind the image's own partitions.
type Scratch struct {
	Mount  string `json:"mount"`  // the folder that it is mounted at
	Size   int64  `json:"size"`   // in bytes, at least; it takes all that is free
	Format string `json:"format"` // ScratchExt4 or ScratchXFS
	// Encrypt is EncryptKey or EncryptNo.
	Encrypt string `json:"encrypt"`
}

// What Scratch.Format and Scratch.Encrypt may be.
const (
	ScratchExt4 = "ext4"
	ScratchXFS  = "xfs"

	EncryptKey = "key" // by a random key of each boot that is kept nowhere, without a header
	EncryptNo  = "no"
)

// minScratch is what either file system has room in.
const minScratch = 512 << 20

// ManifestScratch is scratch space; see Scratch. Unless given, Size is 512MiB,
// Format ext4 and Encrypt key.
type ManifestScratch struct {
	Mount   string `yaml:"mount"`
	Size    string `yaml:"size"`
	Format  string `yaml:"format"`
	Encrypt string `yaml:"encrypt"`
}

// scratch is the manifest's as the lock has it; nil where there is none.
func (m ManifestScratch) scratch() (*Scratch, *settingError) {
	if m == (ManifestScratch{}) {
		return nil, nil
	}
	n, err := parseSize(m.Size)
	if err != nil {
		return nil, settingf(at("scratch", "size"), "%w", err)
	}
	s := &Scratch{Mount: m.Mount, Size: cmp.Or(n, minScratch), Format: cmp.Or(m.Format, ScratchExt4), Encrypt: cmp.Or(m.Encrypt, EncryptKey)}
	return s, s.check()
}

// merge adds a variant's: what it gives is in place of the image's.
func (m ManifestScratch) merge(v ManifestScratch) ManifestScratch {
	return ManifestScratch{
		Mount: cmp.Or(v.Mount, m.Mount), Size: cmp.Or(v.Size, m.Size), Format: cmp.Or(v.Format, m.Format), Encrypt: cmp.Or(v.Encrypt, m.Encrypt),
	}
}

// systemFolders are those that a system does not run without, or that it
// mounts itself.
func systemFolders() []string {
	return []string{"bin", "boot", "dev", "efi", "etc", "lib", "lib64", "proc", "run", "sbin", "sys", "usr"}
}

// check is what it must satisfy by itself.
func (s *Scratch) check() *settingError {
	first, _, _ := strings.Cut(strings.TrimPrefix(s.Mount, "/"), "/")
	switch {
	case !homeRE.MatchString(s.Mount) || path.Clean(s.Mount) != s.Mount || s.Mount == "/":
		return settingf(at("scratch", "mount"), "%q is not an absolute path of letters, digits and ._@+-, such as /var/lib/containers", s.Mount)
	case slices.Contains(systemFolders(), first):
		return settingf(at("scratch", "mount"), "%s belongs to the system: want a folder outside of /%s, such as /var/lib/containers", s.Mount, first)
	case s.Size < minScratch || s.Size > maxDisk || s.Size%DiskUnit != 0:
		return settingf(at("scratch", "size"), "got %s; want %s to %s, in multiples of %s", FormatSize(s.Size), FormatSize(minScratch), FormatSize(maxDisk), FormatSize(DiskUnit))
	case s.Format != ScratchExt4 && s.Format != ScratchXFS:
		return settingf(at("scratch", "format"), "got %q; want %s or %s", s.Format, ScratchExt4, ScratchXFS)
	case s.Encrypt != EncryptKey && s.Encrypt != EncryptNo:
		return settingf(at("scratch", "encrypt"), "got %q; want %s or %s", s.Encrypt, EncryptKey, EncryptNo)
	}
	return nil
}

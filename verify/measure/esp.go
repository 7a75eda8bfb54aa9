package measure

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"caisson/build/image/fat"
	"caisson/build/image/uki"
)

// esp is the EFI system partition.
type esp struct {
	fat   *fat.FS
	arch  arch
	files []string // paths, in the order of the folders' entries
	fixed []string // those that are read-only
}

func openESP(r *io.SectionReader, a arch) (*esp, error) {
	fsys, err := fat.Open(r, r.Size())
	if err != nil {
		return nil, err
	}
	e := &esp{fat: fsys, arch: a}
	return e, fsys.Walk(func(f fat.File) error {
		e.files = append(e.files, f.Path)
		if f.ReadOnly {
			e.fixed = append(e.fixed, f.Path)
		}
		return nil
	})
}

// readOnly tells whether there is such a file, with that attribute.
func (e *esp) readOnly(name string) bool {
	return slices.ContainsFunc(e.fixed, func(f string) bool { return strings.EqualFold(f, name) })
}

// in are the files in a folder, not those in folders below it. As everywhere
// on the partition, case is ignored.
func (e *esp) in(folder string) []string {
	var all []string
	for _, f := range e.files {
		if strings.EqualFold(path.Dir(f), folder) {
			all = append(all, f)
		}
	}
	return all
}

func (e *esp) has(name string) bool {
	_, err := e.fat.Lookup(name)
	return !errors.Is(err, fs.ErrNotExist)
}

// refuse fails for a file that is one of these, or below one of these
// folders, which end with a slash.
func (e *esp) refuse(what string, names ...string) error {
	for _, f := range e.files {
		for _, n := range names {
			if strings.EqualFold(f, n) || strings.HasSuffix(n, "/") && len(f) > len(n) && strings.EqualFold(f[:len(n)], n) {
				return fmt.Errorf("%q: %s not supported", f, what)
			}
		}
	}
	return nil
}

// text is the content of a small file.
func (e *esp) text(name string) ([]byte, error) {
	f, err := e.fat.Lookup(name)
	if err != nil {
		return nil, err
	}
	if f.Size() > maxText {
		return nil, fmt.Errorf("%s: %d bytes, more than %d", name, f.Size(), maxText)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	return b, nil
}

// image is an EFI program.
type image struct {
	*uki.Image
	path string
	file *io.SectionReader
	hash sums   // Authenticode
	name string // shim, or what LoaderInfo says: systemd-boot, systemd-stub, systemd-addon
	// version is that of the program.
	version string
}

// open reads a program and finds out which it is.
func (e *esp) open(name string) (*image, error) {
	file, err := e.fat.Lookup(name)
	if err != nil {
		return nil, err
	}
	im := &image{path: name, file: file}
	if im.Image, err = uki.Read(file, file.Size()); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if im.Machine != e.arch.machine {
		return nil, fmt.Errorf("%s: machine type %#x, want %#x", name, im.Machine, e.arch.machine)
	}
	im.hash, err = sumOf(func(w io.Writer) error { return uki.WriteHashed(w, file, file.Size()) })
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if im.name, im.version, err = im.identify(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return im, nil
}

// identify says which program it is, and its version.
func (im *image) identify() (name, version string, err error) {
	s, err := im.Section(".data.ident")
	if err != nil {
		return "", "", err
	}
	if s == nil {
		// The name of a section has eight bytes; a longer one is in the
		// table of strings, and here its place there.
		for i := range im.Sections {
			if c := &im.Sections[i]; strings.HasPrefix(c.Name, "/") && c.VirtualSize < maxIdent {
				s = c
				if name, version, err = shimVersion(s.Open()); err != nil || name != "" {
					return name, version, err
				}
			}
		}
		return im.LoaderInfo()
	}
	if name, version, err = shimVersion(s.Open()); err == nil && name == "" {
		err = errors.New("section \".data.ident\" is not shim's")
	}
	return name, version, err
}

// maxIdent bounds what shim says of itself, about a hundred bytes.
const maxIdent = 4096

// shimVersion reads shim's version from its section .data.ident; no name if
// it is another section.
func shimVersion(r *io.SectionReader) (name, version string, err error) {
	b := make([]byte, min(r.Size(), maxIdent))
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return "", "", err
	}
	text, ok := strings.CutPrefix(string(b), "UEFI SHIM\n$Version: ")
	version, _, ok2 := strings.Cut(text, " $\n")
	if !ok || !ok2 {
		return "", "", nil
	}
	return "shim", version, nil
}

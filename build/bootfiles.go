package build

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/digest"
)

// bootFile is an EFI program that a package brings, or an overlay or a step.
type bootFile struct {
	content *io.SectionReader
	path    string // in its root
	how     func() (origin, error)
}

// kinds of programs, by their keys in the manifest.
const (
	fileUKI      = "uki"
	fileLoader   = "loader"
	fileShim     = "shim"
	fileFallback = "fallback"
	fileStub     = "stub"
	fileAddon    = "addon"
)

// usualPlaces are where distributions have a program, the first that is there
// counts: signed before unsigned. %s is the architecture as file names of EFI
// have it.
func usualPlaces(kind string) []string {
	const systemd = "usr/lib/systemd/boot/efi/"
	return map[string][]string{
		fileUKI:      {"usr/lib/modules/*/vmlinuz-virt.efi", "usr/lib/modules/*/*.efi"},
		fileLoader:   {systemd + "systemd-boot%s.efi.signed", systemd + "systemd-boot%s.efi"},
		fileStub:     {systemd + "linux%s.efi.stub"},
		fileAddon:    {systemd + "addon%s.efi.stub"},
		fileShim:     {"boot/efi/EFI/*/shim%s.efi", "usr/lib/efi/shim/*/EFI/*/shim%s.efi", "usr/lib/shim/shim%s.efi.signed", "usr/lib/shim/shim%s.efi"},
		fileFallback: {"boot/efi/EFI/BOOT/fb%s.efi", "usr/lib/efi/shim/*/EFI/BOOT/fb%s.efi", "usr/lib/shim/fb%s.efi.signed", "usr/lib/shim/fb%s.efi"},
	}[kind]
}

// whatFor says of a kind of program what it is and where it comes from.
func whatFor(kind string) string {
	return map[string]string{
		fileUKI:      "a vendor's UKI: add its package, such as kernel-uki-virt, to the root set",
		fileLoader:   "systemd-boot: add its package, such as systemd-boot-unsigned or systemd-boot-efi, to the tools set",
		fileStub:     "the EFI stub: add its package, such as systemd-boot-unsigned or systemd-boot-efi, to the tools set",
		fileAddon:    "the EFI stub of addons; Caisson has one of its own where image.boot.files.addon is not given",
		fileShim:     "shim: add its package, such as shim-x64 or shim-signed, to the tools set",
		fileFallback: "shim's fallback: add its package, such as shim-x64 or shim-helpers-amd64-signed, to the tools set, or give image.boot.fallback: false",
	}[kind]
}

// bootFile finds a program: the path given, or the usual places; each in the
// tools root, or else in the root.
func (d *disk) bootFile(root *installed, kind, given string) (*bootFile, error) {
	places := usualPlaces(kind)
	for i := range places {
		if strings.Contains(places[i], "%s") {
			places[i] = fmt.Sprintf(places[i], d.machine.efi)
		}
	}
	if given != "" {
		places = []string{strings.TrimPrefix(given, "/")}
	}
	for _, place := range places {
		for _, in := range []func(*installed, string) (*bootFile, error){d.inTools, d.inRoot} {
			f, err := in(root, place)
			if f != nil || err != nil {
				return f, err
			}
		}
	}
	return nil, &absentError{places, whatFor(kind)}
}

// absentError says that a program is in neither of the roots.
type absentError struct {
	places []string
	what   string
}

func (e *absentError) Error() string {
	return fmt.Sprintf("neither the tools nor the root have /%s: it is for %s", strings.Join(e.places, ", /"), e.what)
}

// only is the one that a pattern found; "" if it found none.
func only(where, pattern string, found []string) (string, error) {
	if len(found) > 1 {
		return "", fmt.Errorf("the %s has several of /%s (%s): image.boot.files says which", where, pattern, strings.Join(found, ", "))
	}
	return strings.Join(found, ""), nil
}

// inTools looks in the tools root. Links lead nowhere else.
func (d *disk) inTools(_ *installed, pattern string) (*bootFile, error) {
	tools, err := os.OpenRoot(d.tools)
	if err != nil {
		return nil, err
	}
	defer tools.Close()
	found := []string{pattern}
	if isPattern(pattern) {
		if found, err = fs.Glob(tools.FS(), pattern); err != nil {
			return nil, err
		}
	} else if at, err := rootfs.RealPath(tools, pattern); err != nil {
		return nil, err
	} else if _, err := tools.Lstat(at); err != nil {
		found = nil
	}
	name, err := only("tools set", pattern, found)
	if name == "" || err != nil {
		return nil, err
	}
	f, err := openRegular(tools, name)
	if err != nil {
		return nil, fmt.Errorf("tools set: /%s: %w", name, err)
	}
	d.opened = append(d.opened, f)
	content, err := whole(f)
	if err != nil {
		return nil, err
	}
	var e rootfs.Entry
	if err := e.Read(io.NewSectionReader(content, 0, content.Size())); err != nil {
		return nil, fmt.Errorf("tools set: /%s: %w", name, err)
	}
	return &bootFile{content, name, func() (origin, error) { return d.toolOrigin(name, e.SHA256) }}, nil
}

func isPattern(p string) bool { return strings.ContainsAny(p, `*?[\`) }

// openRegular opens a file as a process would whose root that is.
func openRegular(root *os.Root, name string) (*os.File, error) {
	below, err := rootfs.RealPath(root, name+"/x") // with the last link followed
	if err != nil {
		return nil, err
	}
	f, err := root.OpenFile(path.Dir(below), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, errors.Join(errors.New("not a file"), err, f.Close())
	}
	return f, nil
}

func whole(f *os.File) (*io.SectionReader, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return io.NewSectionReader(f, 0, st.Size()), nil
}

// toolOrigin is the account of a file of the tools root, which is unpacked and
// not changed: its package's.
func (d *disk) toolOrigin(name string, sum digest.Digest) (origin, error) {
	for _, in := range d.of(lock.SetTools) {
		p, err := d.header(in)
		if err != nil {
			return origin{}, err
		}
		if !slices.ContainsFunc(p.Files, func(f rootfs.PackageFile) bool { return samePath(f.Path, name) }) {
			continue
		}
		if p, err = d.toInstall(in); err != nil { // with the digests of all files
			return origin{}, err
		}
		for _, f := range p.Files {
			if samePath(f.Path, name) && f.SHA256 == sum.Hex() {
				return origin{account: Vendor, inputs: []string{ref(in)}}, nil
			}
		}
	}
	return origin{}, fmt.Errorf("no package of the tools set has /%s", name)
}

// samePath compares a path of a package with one of a root whose top folders
// may be links into /usr.
func samePath(packaged, name string) bool {
	return strings.TrimPrefix(packaged, "/usr") == strings.TrimPrefix("/"+name, "/usr")
}

// inRoot looks in the root.
func (d *disk) inRoot(root *installed, pattern string) (*bootFile, error) {
	var found []string
	if isPattern(pattern) {
		for _, e := range root.tree.Entries() {
			if ok, _ := path.Match(pattern, e.Path); ok && !e.Is(unix.S_IFDIR) {
				found = append(found, e.Path)
			}
		}
	} else if root.tree.Resolve(pattern) != nil {
		found = []string{pattern}
	}
	name, err := only("root", pattern, found)
	if name == "" || err != nil {
		return nil, err
	}
	content, e, err := d.rootFile(root, name)
	if err != nil {
		return nil, err
	}
	return &bootFile{content, e.Path, func() (origin, error) {
		a, err := root.account(e)
		return origin{account: a.Account, inputs: a.Inputs, by: a.By}, err
	}}, nil
}

// rootFile opens a regular file of the root, links followed.
func (d *disk) rootFile(root *installed, name string) (*io.SectionReader, *rootfs.Entry, error) {
	e := root.tree.Resolve(name)
	if e == nil || !e.Is(unix.S_IFREG) {
		return nil, nil, fmt.Errorf("root: /%s: not a file", name)
	}
	if e.HardLink != "" {
		e = root.tree.Get(e.HardLink)
	}
	r, err := e.Open()
	if err != nil {
		return nil, nil, err
	}
	d.opened = append(d.opened, r)
	at, ok := r.(io.ReaderAt)
	if !ok { // content that is not on a disk
		b, err := io.ReadAll(r)
		if err != nil {
			return nil, nil, err
		}
		at = strings.NewReader(string(b))
	}
	return io.NewSectionReader(at, 0, e.Size), e, nil
}

package seal

import (
	"bytes"
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

const (
	maxText     = 64 << 10 // a section of text
	addonName   = "verity.addon.efi"
	addonSuffix = ".addon.efi"
	ukiFolder   = "EFI/Linux"
	addonFolder = "loader/addons"
)

// kernel is a unified kernel image on the ESP.
type kernel struct {
	path    string
	machine uint16
	stub    string // version of systemd-stub
	cmdline string
}

// esp is what was found on the EFI system partition.
type esp struct {
	kernels []kernel
	files   []string
}

// readESP looks for unified kernel images where they are started from, and
// for a root hash in their command lines and in those of addons.
func readESP(r io.ReaderAt, size int64, a arch) (*esp, error) {
	fsys, err := fat.Open(r, size)
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	e := &esp{}
	var programs []fat.File
	err = fsys.Walk(func(f fat.File) error {
		e.files = append(e.files, f.Path)
		if strings.HasSuffix(strings.ToLower(f.Path), ".efi") {
			programs = append(programs, f)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("EFI system partition: %w", err)
	}
	for _, f := range programs {
		if err := e.program(fsys, f, a); err != nil {
			return nil, fmt.Errorf("EFI system partition: %w", err)
		}
	}
	return e, nil
}

// program looks into one EFI program.
func (e *esp) program(fsys *fat.FS, f fat.File, a arch) error {
	dir := path.Dir(f.Path)
	isAddon := strings.HasSuffix(strings.ToLower(f.Path), addonSuffix)
	starts := strings.EqualFold(dir, ukiFolder) || strings.EqualFold(f.Path, a.loader)
	if !isAddon && !starts {
		return nil
	}
	file, err := fsys.Lookup(f.Path)
	if err != nil {
		return err
	}
	im, err := uki.Read(file, file.Size())
	if err != nil {
		return nil //nolint:nilerr // a program of another kind
	}
	cmdline, err := section(im, ".cmdline")
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if slices.ContainsFunc(strings.Fields(cmdline), isRootHash) {
		return &SealedError{fmt.Sprintf("%s has a root hash in its command line %q", f.Path, cmdline)}
	}
	linux, err := im.Section(".linux")
	if err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	if isAddon || linux == nil {
		return nil
	}
	k := kernel{path: f.Path, machine: im.Machine, cmdline: cmdline}
	if k.stub, err = im.StubVersion(); err != nil {
		return fmt.Errorf("%s: %w", f.Path, err)
	}
	e.kernels = append(e.kernels, k)
	return nil
}

func isRootHash(word string) bool { return strings.HasPrefix(word, "roothash=") }

// section is a section of text, without the zeros at its end; empty where
// there is none.
func section(im *uki.Image, name string) (string, error) {
	s, err := im.Section(name)
	if err != nil || s == nil {
		return "", err
	}
	if s.VirtualSize > maxText {
		return "", fmt.Errorf("section %q has %d bytes, more than %d", name, s.VirtualSize, maxText)
	}
	b, err := io.ReadAll(s.Open())
	if err != nil {
		return "", fmt.Errorf("reading section %q: %w", name, err)
	}
	text, _, _ := bytes.Cut(b, []byte{0})
	return string(text), nil
}

// choose finds out where the addon goes, and for which kernel image that is;
// nil where it is for all of them. The place is beside the only image in
// EFI/Linux, or else beside the one that the firmware starts by itself.
func (e *esp) choose(at string, a arch) (string, *kernel, error) {
	if at != "" {
		return e.chosen(at)
	}
	inFolder := slices.DeleteFunc(slices.Clone(e.kernels), func(k kernel) bool { return !strings.EqualFold(path.Dir(k.path), ukiFolder) })
	switch {
	case len(inFolder) == 1:
		return inFolder[0].path + ".extra.d/" + addonName, &inFolder[0], nil
	case len(inFolder) > 1:
		var names []string
		for _, k := range inFolder {
			names = append(names, k.path)
		}
		return "", nil, fmt.Errorf("more than one kernel image: %s; say where the addon goes: %s.extra.d/%s for one, %s/%s for all",
			strings.Join(names, ", "), names[0], addonName, addonFolder, addonName)
	case len(e.kernels) == 1:
		return e.kernels[0].path + ".extra.d/" + addonName, &e.kernels[0], nil
	}
	return "", nil, fmt.Errorf("no unified kernel image in %s, nor at %s: only such a one reads an addon", ukiFolder, a.loader)
}

// chosen checks a place that the caller wants.
func (e *esp) chosen(at string) (string, *kernel, error) {
	dir := path.Dir(at)
	image, extra := strings.CutSuffix(dir, ".extra.d")
	if path.Clean(at) != at || path.IsAbs(at) || !strings.HasSuffix(at, addonSuffix) || !extra && !strings.EqualFold(dir, addonFolder) {
		return "", nil, fmt.Errorf("%q is not where a kernel image looks for addons: want KERNEL.efi.extra.d/NAME%s, or %s/NAME%s", at, addonSuffix, addonFolder, addonSuffix)
	}
	if !extra {
		return at, nil, nil
	}
	for i, k := range e.kernels {
		if strings.EqualFold(k.path, image) {
			return at, &e.kernels[i], nil
		}
	}
	return "", nil, fmt.Errorf("%q: there is no unified kernel image %s", at, image)
}

// check says why a kernel image would not read an addon, or not act on it.
func (k *kernel) check(a arch) error {
	if k.machine != a.machine {
		return fmt.Errorf("%s is for machine type %#x, the root partition for %s (%#x)", k.path, k.machine, a.name, a.machine)
	}
	var major int
	if _, err := fmt.Sscanf(k.stub, "%d", &major); err != nil {
		return fmt.Errorf("%s: what version of systemd-stub %q is is not known", k.path, k.stub)
	}
	// Red Hat's 252 has addons, which came with 254.
	if major < 254 && (major < 252 || !strings.Contains(k.stub, ".el")) {
		return fmt.Errorf("%s: systemd-stub %s reads no addons; 254 and later do", k.path, k.stub)
	}
	for _, word := range strings.Fields(k.cmdline) {
		for _, name := range []string{"systemd.verity=", "rd.systemd.verity="} {
			if v, ok := strings.CutPrefix(word, name); ok && slices.Contains([]string{"0", "no", "n", "false", "f", "off"}, strings.ToLower(v)) {
				return fmt.Errorf("%s: its command line switches verity off (%s)", k.path, word)
			}
		}
	}
	return nil
}

// rootArgument is what has to be said of the root beside its hash: where the
// image's command line has another root, systemd would mount that one, and
// the last one counts.
func (k *kernel) rootArgument() string {
	last := ""
	for _, word := range strings.Fields(k.cmdline) {
		if v, ok := strings.CutPrefix(word, "root="); ok {
			last = v
		}
	}
	if last == "" || last == verityDevice {
		return ""
	}
	return "root=" + verityDevice
}

const verityDevice = "/dev/mapper/root"

// addonError explains why an addon could not be added.
func addonError(at string, err error) error {
	var full *fat.NoRoomError
	switch {
	case errors.As(err, &full):
		return fmt.Errorf("the EFI system partition has no room for the addon: %d bytes are needed, %d are free", full.Need, full.Free)
	case errors.Is(err, fs.ErrExist):
		return &SealedError{fmt.Sprintf("there is an addon %s", at)}
	}
	return fmt.Errorf("EFI system partition: %w", err)
}

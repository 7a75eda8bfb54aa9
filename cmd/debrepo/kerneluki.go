package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"caisson/build/image/uki"
	"caisson/cmd/debrepo/rpmwrite"
)

// kernelUKI is a package that Debian has no counterpart of: Debian's kernel as the vendor's kernel image that Fedora and RHEL have,
// signed by the repository's key. Whoever starts it names the root in an addon.
const kernelUKI = "kernel-uki-virt"

// ukiCmdline is what the image says for itself: the consoles, as the vendors' do.
const ukiCmdline = "console=tty0 console=ttyS0"

// ukiPackages are what it is made of besides its initrd.
var ukiPackages = []string{"linux-image-cloud-amd64", "systemd-boot-efi"}

// stubPath is where systemd-boot-efi has the program that the image begins with.
const stubPath = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// kernelDeb is the file name of the kernel's own package; the one that is named in lists only requires it.
var kernelDeb = regexp.MustCompile(`^linux-image-[0-9]`)

// ukiSources are the .debs of the image.
type ukiSources struct {
	kernel, stub, baseFiles, basePasswd download
	initrd                              []download
}

// ukiSources finds them among those that were chosen.
func (a *apt) ukiSources(ctx context.Context, chosen []download) (*ukiSources, error) {
	names, err := a.existing(ctx, ukiInitrd)
	if err != nil {
		return nil, err
	}
	s := &ukiSources{}
	if s.initrd, err = a.choose(ctx, names); err != nil {
		return nil, err
	}
	for _, d := range chosen {
		name, _, _ := strings.Cut(d.File, "_")
		switch {
		case kernelDeb.MatchString(name):
			s.kernel = d
		case name == "systemd-boot-efi":
			s.stub = d
		case name == "base-files":
			s.baseFiles = d
		case name == "base-passwd":
			s.basePasswd = d
		}
	}
	if s.kernel.File == "" || s.stub.File == "" {
		return nil, fmt.Errorf("%s: apt did not choose a kernel and systemd-boot-efi, which it is made of", kernelUKI)
	}
	return s, nil
}

// id is what the image was made from.
func (s *ukiSources) id() string {
	var from []string
	for _, d := range append([]download{s.kernel, s.stub, s.baseFiles, s.basePasswd}, s.initrd...) {
		from = append(from, d.SHA256)
	}
	slices.Sort(from)
	sum := sha256.Sum256([]byte(strings.Join(from, "\n")))
	return kernelUKI + " of " + hex.EncodeToString(sum[:])
}

// kernelUKI makes the package.
func (r *repository) kernelUKI(ctx context.Context, a *apt, s *ukiSources, old state, now *state) error {
	if b, ok := old.Packages[s.id()]; ok && r.has(b) {
		now.Packages[s.id()] = b
		return nil
	}
	fmt.Fprintf(r.progress, "debrepo: making %s\n", kernelUKI)
	m := &ukiMaker{repository: r, apt: a, work: filepath.Join(r.tmp, "uki")}
	if err := os.Mkdir(m.work, 0o755); err != nil {
		return err
	}
	p, err := m.make(ctx, s)
	m.close()
	if err != nil {
		return fmt.Errorf("%s: %w", kernelUKI, err)
	}
	b, err := r.write(p)
	now.Packages[s.id()] = b
	return errors.Join(err, os.RemoveAll(m.work))
}

// ukiMaker makes one image.
type ukiMaker struct {
	*repository
	apt    *apt
	work   string // scratch
	spills []*os.File
}

func (m *ukiMaker) close() {
	for _, f := range m.spills {
		f.Close()
	}
}

// read converts a .deb, whose contents stay readable until close.
func (m *ukiMaker) read(ctx context.Context, d download) (*rpmwrite.Package, error) {
	spill, err := os.CreateTemp(m.work, "files-*")
	if err != nil {
		return nil, err
	}
	m.spills = append(m.spills, spill)
	return convert(ctx, m.apt.archive(d), spill)
}

// file is the content of a packaged file.
func file(p *rpmwrite.Package, path string) ([]byte, error) {
	i := slices.IndexFunc(p.Files, func(f rpmwrite.File) bool { return f.Path == path })
	if i < 0 {
		return nil, fmt.Errorf("%s has no %s", p.Name, path)
	}
	return content(&p.Files[i])
}

func content(f *rpmwrite.File) ([]byte, error) {
	r, err := f.Open()
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// make makes the image, and its package after the kernel's.
func (m *ukiMaker) make(ctx context.Context, s *ukiSources) (*rpmwrite.Package, error) {
	kernel, err := m.read(ctx, s.kernel)
	if err != nil {
		return nil, err
	}
	version := strings.TrimSuffix(strings.TrimPrefix(kernel.Name, "linux-image-"), "-unsigned")
	initrd, err := m.initrd(ctx, s, kernel, version)
	if err != nil {
		return nil, err
	}
	stub, err := m.read(ctx, s.stub)
	if err != nil {
		return nil, err
	}
	image, err := m.image(ctx, s, kernel, stub, version, initrd)
	if err != nil {
		return nil, err
	}
	p := *kernel
	p.Name, p.Summary = kernelUKI, "The kernel with an initrd for virtual machines, in one EFI program"
	p.Description = p.Summary + ".\nThe root is named in an addon beside it."
	p.Provides = []rpmwrite.Dep{{Name: p.Name, Sense: rpmwrite.Equal, EVR: p.EVR()}}
	p.Requires = []rpmwrite.Dep{{Name: kernel.Name, Sense: rpmwrite.Equal, EVR: p.EVR()}, {Name: "setup", Sense: rpmwrite.Pre}}
	p.Recommends, p.Suggests, p.Enhances, p.Conflicts, p.Obsoletes, p.Scripts, p.Triggers = nil, nil, nil, nil, nil, nil, nil
	p.Files = []rpmwrite.File{{
		Path: "/usr/lib/modules/" + version + "/vmlinuz-virt.efi", Mode: rpmwrite.TypeRegular | 0o644, Owner: "root", Group: "root", MTime: p.BuildTime,
		Size: int64(len(image)), Open: func() (io.Reader, error) { return strings.NewReader(string(image)), nil },
	}}
	return &p, nil
}

// image puts kernel and initrd behind the stub, and signs that.
func (m *ukiMaker) image(ctx context.Context, s *ukiSources, kernel, stub *rpmwrite.Package, version, initrd string) ([]byte, error) {
	base, err := m.read(ctx, s.baseFiles)
	if err != nil {
		return nil, err
	}
	release, err := file(base, "/usr/lib/os-release")
	if err != nil {
		return nil, err
	}
	linux, err := file(kernel, "/usr/lib/modules/"+version+"/vmlinuz")
	if err != nil {
		return nil, err
	}
	program, err := file(stub, stubPath)
	if err != nil {
		return nil, err
	}
	traits, err := uki.ReadKernel(strings.NewReader(string(linux)), int64(len(linux)))
	if err != nil {
		return nil, err
	}
	sbat, err := uki.SBAT(strings.NewReader(string(program)), int64(len(program)), traits)
	if err != nil {
		return nil, err
	}
	st, err := os.Stat(initrd)
	if err != nil {
		return nil, err
	}
	name := filepath.Join(m.work, "image")
	out, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	kernelSection := uki.TextSection(".linux", string(linux))
	kernelSection.NoNX = !traits.NX
	size, err := uki.Write(out, strings.NewReader(string(program)), int64(len(program)), []uki.Section{
		uki.TextSection(".osrel", string(release)), uki.TextSection(".cmdline", ukiCmdline), uki.TextSection(".uname", version), uki.TextSection(".sbat", sbat),
		{Name: ".initrd", Size: st.Size(), Open: func() (io.ReadCloser, error) { return os.Open(initrd) }}, kernelSection,
	})
	if err != nil {
		return nil, err
	}
	return m.key.signProgram(out, size)
}

// modules are the kernel's modules that are named and what they need, with depmod's index: path to content.
func (m *ukiMaker) modules(ctx context.Context, kernel *rpmwrite.Package, version string) (map[string][]byte, error) {
	all, some := filepath.Join(m.work, "all"), filepath.Join(m.work, "some")
	files := moduleFiles(kernel, version)
	for _, f := range files {
		if err := putModule(all, f); err != nil {
			return nil, err
		}
	}
	if _, err := tool(ctx, "depmod", "-b", all, version); err != nil {
		return nil, err
	}
	list, err := tool(ctx, "modprobe", append([]string{"-d", all, "-S", version, "--show-depends", "-a", "--"}, ukiModules...)...)
	if err != nil {
		return nil, err
	}
	wanted := map[string]bool{}
	for line := range strings.Lines(list) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "insmod" { // the others are built into the kernel
			wanted["/usr"+strings.TrimPrefix(f[1], all)] = true
		}
	}
	for path, f := range files {
		if !wanted[path] && !strings.HasPrefix(filepath.Base(path), "modules.") {
			continue
		}
		delete(wanted, path)
		if err := putModule(some, f); err != nil {
			return nil, err
		}
	}
	if len(wanted) > 0 {
		return nil, fmt.Errorf("modprobe names what the kernel has not: %s", strings.Join(sortedKeys(wanted), ", "))
	}
	if _, err := tool(ctx, "depmod", "-b", some, version); err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	return out, filepath.WalkDir(some, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		out["/usr"+strings.TrimPrefix(p, some)], err = os.ReadFile(p)
		return err
	})
}

// moduleFiles are the kernel's modules, and the lists that it has of them, by path.
func moduleFiles(kernel *rpmwrite.Package, version string) map[string]*rpmwrite.File {
	files := map[string]*rpmwrite.File{}
	for i := range kernel.Files {
		f := &kernel.Files[i]
		name, ok := strings.CutPrefix(f.Path, "/usr/lib/modules/"+version+"/")
		if ok && f.Mode&rpmwrite.TypeMask == rpmwrite.TypeRegular && (strings.HasPrefix(name, "kernel/") || strings.HasPrefix(name, "modules.")) {
			files[f.Path] = f
		}
	}
	return files
}

// putModule writes a file into a tree as kmod has it, without /usr.
func putModule(tree string, f *rpmwrite.File) error {
	b, err := content(f)
	if err != nil {
		return err
	}
	name := filepath.Join(tree, strings.TrimPrefix(f.Path, "/usr"))
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return err
	}
	return os.WriteFile(name, b, 0o600)
}

package verify

import (
	"fmt"
	"io"
	"path"
	"strings"

	"caisson/build/fsimage"
	"caisson/build/image/cpio"
	"caisson/build/image/erofs"
	"caisson/build/image/fat"
	"caisson/build/image/gpt"
	"caisson/build/image/uki"
	"caisson/verify/diff"
)

// The units by which systemd extends PCR 11, with the phases that they are
// for (systemd-pcrphase.service(8)).
const (
	unitInitrd  = "systemd-pcrphase-initrd.service"
	unitSysinit = "systemd-pcrphase-sysinit.service"
	unitReady   = "systemd-pcrphase.service"
)

// system is what of an initrd or a root decides whether systemd extends PCR
// 11 there.
type system struct {
	library bool // libtss2-esys, by which it reaches the TPM
	units   map[string]bool
	masked  map[string]bool
}

func newSystem() *system { return &system{units: map[string]bool{}, masked: map[string]bool{}} }

// see takes note of one path, without a leading slash, and of where it leads
// if it is a link.
func (s *system) see(p, target string) {
	base := path.Base(p)
	switch {
	case strings.HasPrefix(base, "libtss2-esys.so.0"):
		s.library = true
	case base != unitInitrd && base != unitSysinit && base != unitReady:
	case target == "/dev/null":
		s.masked[base] = true
	case path.Base(path.Dir(p)) == "system":
		s.units[base] = true
	}
}

func (s *system) extends(unit string) bool { return s.library && s.units[unit] && !s.masked[unit] }

// bootPhases reads from the disk which phases are extended before a login. name
// is the path of the UKI on the ESP.
func bootPhases(d *Disk, name string) ([]string, error) {
	table, err := gpt.Read(d, d.Size)
	if err != nil {
		return nil, err
	}
	initrd, root := newSystem(), newSystem()
	for _, p := range table.Partitions {
		r := io.NewSectionReader(d, p.Start(), p.Size())
		switch p.Type {
		case gpt.TypeESP:
			err = readInitrd(r, name, initrd)
		case gpt.TypeRootX86_64, gpt.TypeRootARM64:
			err = readRoot(r, root)
		}
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", p.Name, err)
		}
	}
	phases := []string{}
	if initrd.extends(unitInitrd) {
		phases = append(phases, "enter-initrd", "leave-initrd")
	}
	if root.extends(unitSysinit) {
		phases = append(phases, "sysinit")
	}
	if root.extends(unitReady) {
		phases = append(phases, "ready")
	}
	return phases, nil
}

func readRoot(r *io.SectionReader, s *system) error {
	fsys, err := fsimage.Open(r)
	if err != nil {
		return err
	}
	return fsys.Walk(func(e erofs.Entry) error {
		s.see(e.Path, e.Target)
		return nil
	})
}

func readInitrd(r *io.SectionReader, name string, s *system) error {
	image, err := openUKI(r, name)
	if err != nil {
		return err
	}
	sec, err := image.Section(".initrd")
	if err != nil {
		return err
	}
	err = diff.WalkInitrd(sec.Open(), func(h *cpio.Header, content io.Reader) error {
		target := ""
		if h.Mode&0o170000 == 0o120000 && h.Size <= 4096 {
			b, err := io.ReadAll(content)
			if err != nil {
				return err
			}
			target = string(b)
		}
		s.see(h.Name, target)
		return nil
	})
	if err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	return nil
}

// openUKI opens a unified kernel image on the ESP.
func openUKI(esp *io.SectionReader, name string) (*uki.Image, error) {
	fsys, err := fat.Open(esp, esp.Size())
	if err != nil {
		return nil, err
	}
	f, err := fsys.Lookup(name)
	if err != nil {
		return nil, err
	}
	return uki.Read(f, f.Size())
}

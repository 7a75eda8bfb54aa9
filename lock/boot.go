package lock

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// What Boot.Loader may be, beside nothing.
const (
	LoaderSystemdBoot = "systemd-boot"
	LoaderShim        = "shim"
)

// UKIVendor is Boot.UKI of a kernel image that a package brings.
const UKIVendor = "vendor"

// What Image.Verity may be.
const (
	VerityUKI   = "uki"   // the root hash is in the UKI's own command line
	VerityAddon = "addon" // the root hash is in an addon beside the UKI
)

// TreeAppended is Image.Tree of an image whose hash tree is behind the root
// file system, in the root's partition.
const TreeAppended = "appended"

// Names for the manifest of what Boot and Tree leave empty.
const (
	treePartition = "partition"
	loaderUKI     = "uki"
	ukiOwn        = "own"
)

// Boot is the way from the firmware to the kernel.
type Boot struct {
	// Loader is what the firmware starts; empty for the UKI itself.
	Loader string `json:"loader,omitempty"`
	// UKI is UKIVendor, or empty for the one that the build makes.
	UKI string `json:"uki,omitempty"`
	// NoFallback leaves out shim's fallback: shim starts the UKI by itself.
	NoFallback bool `json:"noFallback,omitempty"`
	// Files say where EFI programs are taken from.
	Files BootFiles `json:"files,omitzero"`
}

// BootFiles are absolute paths, or patterns (path.Match) of paths, in the tools
// root or else in the root. Those that are not given are looked for where
// distributions have them.
type BootFiles struct {
	UKI      string `yaml:"uki" json:"uki,omitempty"`           // a vendor's
	Loader   string `yaml:"loader" json:"loader,omitempty"`     // systemd-boot
	Shim     string `yaml:"shim" json:"shim,omitempty"`         //
	Fallback string `yaml:"fallback" json:"fallback,omitempty"` // shim's
	Stub     string `yaml:"stub" json:"stub,omitempty"`         // systemd-stub
	Addon    string `yaml:"addon" json:"addon,omitempty"`       // systemd's stub for addons
}

// ManifestBoot is the way from the firmware to the kernel; see Boot.
type ManifestBoot struct {
	// Loader is "uki" (unless given), "systemd-boot" or "shim".
	Loader string `yaml:"loader"`
	// UKI is "own" (unless given) or "vendor".
	UKI      string    `yaml:"uki"`
	Fallback *bool     `yaml:"fallback"`
	Files    BootFiles `yaml:"files"`
}

// byKey are the paths by their keys in the manifest.
func (f *BootFiles) byKey() map[string]*string {
	return map[string]*string{"uki": &f.UKI, "loader": &f.Loader, "shim": &f.Shim, "fallback": &f.Fallback, "stub": &f.Stub, "addon": &f.Addon}
}

// boot is the manifest's as the lock has it; nil where nothing is asked for.
func (m *ManifestBoot) boot() *Boot {
	b := Boot{Loader: m.Loader, UKI: m.UKI, NoFallback: !on(m.Fallback), Files: m.Files}
	if b.Loader == loaderUKI {
		b.Loader = ""
	}
	if b.UKI == ukiOwn {
		b.UKI = ""
	}
	if b == (Boot{}) {
		return nil
	}
	return &b
}

// merge adds a variant's: what it gives is in place of the image's.
func (m ManifestBoot) merge(v ManifestBoot) ManifestBoot {
	out := ManifestBoot{
		Loader: cmp.Or(v.Loader, m.Loader), UKI: cmp.Or(v.UKI, m.UKI), Fallback: cmp.Or(v.Fallback, m.Fallback), Files: m.Files,
	}
	mine := out.Files.byKey()
	for k, p := range v.Files.byKey() {
		*mine[k] = cmp.Or(*p, *mine[k])
	}
	return out
}

// bind is where the root hash is: in an addon where a vendor's UKI has a
// command line of its own.
func (m *ManifestImage) bind() string {
	if m.Verity.Bind == "" && m.Boot.UKI == UKIVendor {
		return VerityAddon
	}
	return cmp.Or(m.Verity.Bind, VerityUKI)
}

// tree is where the hash tree is, as the lock has it.
func (m *ManifestImage) tree() string {
	if m.Verity.Tree == treePartition {
		return ""
	}
	return m.Verity.Tree
}

// withBoot is the image with a variant's way to boot.
func (m ManifestImage) withBoot(v ManifestImage) ManifestImage {
	m.Boot = m.Boot.merge(v.Boot)
	m.Verity = ManifestVerity{Bind: cmp.Or(v.Verity.Bind, m.Verity.Bind), Tree: cmp.Or(v.Verity.Tree, m.Verity.Tree)}
	return m
}

// checkBoot checks the way to boot, of the image and of each variant.
func (m *manifestChecker) checkBoot() error {
	initrd, asked := m.Sets[SetInitrd]
	used := !asked || len(initrd.Packages) == 0
	check := func(where []any, own, whole ManifestImage) error {
		used = used || whole.Boot.UKI != UKIVendor
		if e := own.Boot.check(); e != nil {
			return m.errorf(below(where, e.where...), "%w", e.err)
		}
		switch {
		case whole.Boot.UKI == UKIVendor && whole.bind() != VerityAddon:
			return m.errorf(below(where, "verity", "bind"), "got %s; a vendor's UKI has a command line of its own, so the root hash has to be in an addon", whole.bind())
		case whole.Boot.Loader == LoaderSystemdBoot && strings.HasPrefix(m.Name, "auto-"):
			return m.errorf(at("name"), "systemd-boot passes over kernel images whose names begin with %q", "auto-")
		}
		return nil
	}
	if err := check(at("image"), m.Image, m.Image); err != nil {
		return err
	}
	if e := m.Image.Boot.unused(m.Image.bind()); e != nil {
		return m.errorf(below(at("image"), e.where...), "%w", e.err)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Variants)) {
		v := m.Variants[name].Image
		if err := check(at("variants", name, "image"), v, m.Image.withBoot(v)); err != nil {
			return err
		}
	}
	if !used {
		return m.errorf(at("sets", SetInitrd), "a vendor's UKI has an initrd of its own: leave this set out")
	}
	return nil
}

// check is what the keys must satisfy by themselves.
func (m *ManifestBoot) check() *settingError {
	switch {
	case m.Loader != "" && !slices.Contains([]string{loaderUKI, LoaderSystemdBoot, LoaderShim}, m.Loader):
		return settingf(at("boot", "loader"), "got %q; want uki, systemd-boot or shim", m.Loader)
	case m.UKI != "" && m.UKI != ukiOwn && m.UKI != UKIVendor:
		return settingf(at("boot", "uki"), "got %q; want own or vendor", m.UKI)
	}
	return m.Files.check()
}

func (f *BootFiles) check() *settingError {
	paths := f.byKey()
	for _, k := range slices.Sorted(maps.Keys(paths)) {
		p := *paths[k]
		if p == "" {
			continue
		}
		if _, err := path.Match(p, ""); err != nil || !path.IsAbs(p) || path.Clean(p) != p || p == "/" || !isLine(p) {
			return settingf(at("boot", "files", k), "%q is not an absolute path or a pattern of one, such as /usr/lib/modules/*/vmlinuz-virt.efi", p)
		}
	}
	return nil
}

// unused finds what the rest of the keys leave without a use.
func (m *ManifestBoot) unused(bind string) *settingError {
	shim := m.Loader == LoaderShim
	for _, c := range []struct {
		given, wanted bool
		where         []any
		by            string
	}{
		{m.Fallback != nil, shim, at("boot", "fallback"), "loader: shim"},
		{m.Files.Shim != "", shim, at("boot", "files", "shim"), "loader: shim"},
		{m.Files.Fallback != "", shim && on(m.Fallback), at("boot", "files", "fallback"), "loader: shim with its fallback"},
		{m.Files.Loader != "", m.Loader == LoaderSystemdBoot, at("boot", "files", "loader"), "loader: systemd-boot"},
		{m.Files.UKI != "", m.UKI == UKIVendor, at("boot", "files", "uki"), "uki: vendor"},
		{m.Files.Stub != "", m.UKI != UKIVendor, at("boot", "files", "stub"), "uki: own"},
		{m.Files.Addon != "", bind == VerityAddon, at("boot", "files", "addon"), "verity: {bind: addon}"},
	} {
		if c.given && !c.wanted {
			return settingf(c.where, "it is of no use without %s", c.by)
		}
	}
	return nil
}

// checkBoot checks what the lock carries: one that was edited must not ask for
// what the manifest could not.
func (i *Image) checkBoot() error {
	if !slices.Contains([]string{"", VerityUKI, VerityAddon}, i.Verity) { // an imported lock has no image
		return fmt.Errorf("verity %q is not known to this Caisson", i.Verity)
	}
	if i.Tree != "" && i.Tree != TreeAppended {
		return fmt.Errorf("tree %q is not known to this Caisson", i.Tree)
	}
	b := i.Boot
	if b == nil {
		return nil
	}
	switch {
	case *b == Boot{}:
		return fmt.Errorf("boot of the image: nothing; want the key to be left out")
	case b.Loader != "" && b.Loader != LoaderSystemdBoot && b.Loader != LoaderShim:
		return fmt.Errorf("boot loader %q is not known to this Caisson", b.Loader)
	case b.UKI != "" && b.UKI != UKIVendor:
		return fmt.Errorf("uki %q is not known to this Caisson", b.UKI)
	case b.UKI == UKIVendor && i.Verity != VerityAddon:
		return fmt.Errorf("a vendor's UKI with the root hash in the %s", i.Verity)
	}
	if e := b.Files.check(); e != nil {
		return fmt.Errorf("image: %w", e)
	}
	return nil
}

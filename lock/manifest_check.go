package lock

import (
	"maps"
	"math"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"caisson/lock/digest"
)

var (
	nameRE   = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	moduleRE = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)
	// unitRE is a unit's name as systemd.unit(5) has it.
	unitRE = regexp.MustCompile(`^[A-Za-z0-9:_.\\@-]+\.(service|socket|device|mount|automount|swap|target|path|timer|slice|scope)$`)
	varRE  = regexp.MustCompile(`^\w+$`)
)

// maxEpoch is the latest time that every format of an image can hold, in
// seconds since 1970: cpio and FAT have 32 bits.
const maxEpoch = math.MaxUint32

func archNames() []string { return []string{"aarch64", "ppc64le", "s390x", "x86_64"} }

// imageSets are those that every image has, setNames all that there can be.
func imageSets() []string { return []string{SetTools, SetInitrd, SetRoot} }

func setNames() []string { return append(imageSets(), SetVM) }

// at is a path in the manifest, of keys and indexes.
func at(path ...any) []any { return path }

// below is a longer path.
func below(where []any, more ...any) []any { return slices.Concat(where, more) }

// manifestChecker checks what types cannot. errorf makes an error about the
// value at a path.
type manifestChecker struct {
	*Manifest
	errorf func(path []any, format string, args ...any) error
}

func (m *manifestChecker) check() error {
	if m.Version != 1 {
		return m.errorf(at("version"), "got %d; this Caisson reads version 1", m.Version)
	}
	if err := m.checkName(at("name"), m.Name); err != nil {
		return err
	}
	if strings.ContainsFunc(m.Supplier, unicode.IsControl) {
		return m.errorf(at("supplier"), "got %q; want one line", m.Supplier)
	}
	for i, a := range m.Arches {
		if !slices.Contains(archNames(), a) {
			return m.errorf(at("arches", i), "%q is not one of %s", a, strings.Join(archNames(), ", "))
		}
		if slices.Contains(m.Arches[:i], a) {
			return m.errorf(at("arches", i), "%q is there twice", a)
		}
	}
	if m.Epoch != nil && (*m.Epoch < 0 || *m.Epoch > maxEpoch) {
		return m.errorf(at("epoch"), "got %d; want seconds since 1970, at most %d", *m.Epoch, int64(maxEpoch))
	}
	if m.Network != networkRefuse && m.Network != networkRecord {
		return m.errorf(at("network"), "got %q; want refuse or record", m.Network)
	}
	for _, f := range []func() error{m.checkRPM, m.checkSets, m.checkInputs, m.checkSteps, m.checkImages} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (m *manifestChecker) checkName(where []any, name string) error {
	if name == "" {
		return m.errorf(where, "a name is needed")
	}
	if !nameRE.MatchString(name) {
		return m.errorf(where, "got %q; want lower-case letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

// on is the value of a switch that is on unless it is switched off.
func on(b *bool) bool { return b == nil || *b }

func (m *manifestChecker) checkSets() error {
	for _, name := range slices.Sorted(maps.Keys(m.Sets)) {
		if !slices.Contains(setNames(), name) {
			return m.errorf(at("sets", name), "want one of %s", strings.Join(setNames(), ", "))
		}
		if err := m.checkSet(at("sets", name), name, m.Sets[name]); err != nil {
			return err
		}
	}
	for _, vname := range slices.Sorted(maps.Keys(m.Variants)) {
		if err := m.checkName(at("variants", vname), vname); err != nil {
			return err
		}
		v := m.Variants[vname]
		for _, s := range slices.Sorted(maps.Keys(v.Sets)) {
			where := at("variants", vname, "sets", s)
			if _, ok := m.Sets[s]; !ok && (m.RPM.From == "" || s != m.RPM.Set) {
				return m.errorf(where, "the manifest has no such set to add to")
			}
			if err := m.checkSet(where, s, v.Sets[s]); err != nil {
				return err
			}
		}
	}
	return nil
}

func (m *manifestChecker) checkSet(where []any, name string, s ManifestSet) error {
	empty := func(p string) bool { return strings.TrimSpace(p) == "" }
	if i := slices.IndexFunc(s.Packages, empty); i >= 0 {
		return m.errorf(below(where, "packages", i), "an empty name")
	}
	if i := slices.IndexFunc(s.Exclude, empty); i >= 0 {
		return m.errorf(below(where, "exclude", i), "an empty name")
	}
	if len(s.Modules) > 0 && name != SetInitrd {
		return m.errorf(below(where, "modules"), "modules belong to the initrd")
	}
	for i, k := range s.Modules {
		if !moduleRE.MatchString(k) {
			return m.errorf(below(where, "modules", i), "%q is not the name of a kernel module, such as dm-verity", k)
		}
	}
	return m.checkScriptlets(below(where, "scriptlets"), name, s.Scriptlets)
}

func (m *manifestChecker) checkScriptlets(where []any, set, s string) error {
	switch {
	case s != "" && s != scriptletsRun && s != ScriptletsSkip:
		return m.errorf(where, "got %q; want run or skip", s)
	case s != "" && set == SetVM:
		return m.errorf(where, "of the virtual machine's kernel nothing is installed: no scriptlet is run in any case")
	case s != "" && set == SetTools:
		return m.errorf(where, "the tools are unpacked only: no scriptlet of theirs is run in any case")
	}
	return nil
}

// isURL tells an address from a path beside the manifest.
func isURL(s string) bool { return strings.Contains(s, "://") }

// parseSHA256 reads a digest with or without "sha256:".
func parseSHA256(s string) (digest.Digest, error) {
	return digest.ParseHex(strings.TrimPrefix(s, "sha256:"))
}

func (m *manifestChecker) checkSteps() error {
	for i, s := range m.Steps {
		where := at("steps", i)
		n := 0
		if s.Go != nil {
			n++
			known := m.Inputs.From != "" || slices.ContainsFunc(m.Inputs.Go, func(g ManifestGo) bool { return g.Name == s.Go.Input })
			if err := m.checkStep(below(where, "go"), known, s.Go.Input, s.Go.To); err != nil {
				return err
			}
			if err := m.checkGoArch(below(where, "go"), s.Go); err != nil {
				return err
			}
		}
		if s.Cargo != nil {
			n++
			known := m.Inputs.From != "" || slices.ContainsFunc(m.Inputs.Cargo, func(c ManifestCargo) bool { return c.Name == s.Cargo.Input })
			if err := m.checkStep(below(where, "cargo"), known, s.Cargo.Input, s.Cargo.To); err != nil {
				return err
			}
		}
		if s.Run != "" {
			n++
		}
		if n != 1 {
			return m.errorf(where, "want exactly one of go, cargo, run")
		}
	}
	return nil
}

func (m *manifestChecker) checkStep(where []any, known bool, input, to string) error {
	if !known {
		return m.errorf(below(where, "input"), "inputs.%s has no %q", where[len(where)-1], input)
	}
	if !path.IsAbs(to) || path.Clean(to) != to || to == "/" {
		return m.errorf(below(where, "to"), "%q is not the absolute path of a file", to)
	}
	return nil
}

func (m *manifestChecker) checkGoArch(where []any, s *ManifestGoStep) error {
	switch {
	case s.Arch == "":
		return nil
	case GoArch(s.Arch) == "":
		return m.errorf(below(where, "arch"), "%q is not one of %s", s.Arch, strings.Join(archNames(), ", "))
	case s.Cgo:
		return m.errorf(below(where, "cgo"), "the C compiler of the tools set is for the machine that builds: leave out arch, or cgo")
	}
	return nil
}

func (m *manifestChecker) checkImages() error {
	if strings.HasPrefix(m.Image.Kernel.Cmdline, "+") {
		return m.errorf(at("image", "kernel", "cmdline"), "a + in front belongs to a variant")
	}
	if err := m.checkImage(at("image"), m.Image); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Variants)) {
		if err := m.checkImage(at("variants", name, "image"), m.Variants[name].Image); err != nil {
			return err
		}
	}
	if err := m.checkArchive(); err != nil {
		return err
	}
	if err := m.checkBoot(); err != nil {
		return err
	}
	return m.checkTogether()
}

func (m *manifestChecker) checkImage(where []any, im ManifestImage) error {
	root := im.Root
	if len(where) > 1 { // a variant's
		root = m.Image.Root.merge(root)
	}
	if e := root.check(); e != nil {
		return m.errorf(below(where, append([]any{"root"}, e.where...)...), "%w", e.err)
	}
	if b := im.Verity.Bind; b != "" && b != VerityUKI && b != VerityAddon {
		return m.errorf(below(where, "verity", "bind"), "got %q; want uki or addon", b)
	}
	if t := im.Verity.Tree; t != "" && t != treePartition && t != TreeAppended {
		return m.errorf(below(where, "verity", "tree"), "got %q; want partition or appended", t)
	}
	if i, err := checkOutput(im.Output); err != nil {
		return m.errorf(below(where, "output", i), "%w", err)
	}
	for i, o := range im.Overlay {
		if err := m.checkDir(below(where, "overlay", i), o); err != nil {
			return err
		}
	}
	if err := m.checkUnits(below(where, "services", "enable"), im.Services.Enable); err != nil {
		return err
	}
	if err := m.checkUnits(below(where, "services", "disable"), im.Services.Disable); err != nil {
		return err
	}
	if err := m.checkUnits(below(where, "services", "mask"), im.Services.Mask); err != nil {
		return err
	}
	if strings.ContainsAny(im.Kernel.Cmdline, "\n\r\x00") {
		return m.errorf(below(where, "kernel", "cmdline"), "%q has a line break or NUL", im.Kernel.Cmdline)
	}
	if err := m.checkDisk(where, im); err != nil {
		return err
	}
	return m.checkSettings(where, &im)
}

func (m *manifestChecker) checkUnits(where []any, units []string) error {
	for i, u := range units {
		if !unitRE.MatchString(u) {
			return m.errorf(below(where, i), "%q is not the name of a unit, such as agent.service", u)
		}
	}
	return nil
}

package lock

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Container is how a container is started from an OCI image, as its
// configuration has it (image-spec, config.md). What is not given is empty there.
type Container struct {
	Entrypoint []string `yaml:"entrypoint" json:"entrypoint,omitempty"`
	Cmd        []string `yaml:"cmd" json:"cmd,omitempty"`
	// Env are variables and their values.
	Env map[string]string `yaml:"env" json:"env,omitempty"`
	// User is a user, or user:group, each by name or number.
	User    string            `yaml:"user" json:"user,omitempty"`
	Workdir string            `yaml:"workdir" json:"workdir,omitempty"`
	Labels  map[string]string `yaml:"labels" json:"labels,omitempty"`
}

var (
	variableRE = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_.-]*$`)
	labelRE    = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?$`)
)

func (c *Container) isZero() bool {
	return len(c.Entrypoint)+len(c.Cmd)+len(c.Env)+len(c.Labels) == 0 && c.User == "" && c.Workdir == ""
}

// container is what the manifest says of an image with those outputs, as the
// lock has it; nil where it says nothing.
func (m *ManifestImage) container(outputs []string) *Container {
	if m.Container.isZero() || !slices.Contains(outputs, OutputOCI) {
		return nil
	}
	c := m.Container
	return &c
}

// merge adds a variant's: what it gives is in place of the image's, variables
// and labels one by one.
func (c Container) merge(v Container) Container {
	if v.Entrypoint != nil {
		c.Entrypoint = v.Entrypoint
	}
	if v.Cmd != nil {
		c.Cmd = v.Cmd
	}
	if v.User != "" {
		c.User = v.User
	}
	if v.Workdir != "" {
		c.Workdir = v.Workdir
	}
	c.Env, c.Labels = over(c.Env, v.Env), over(c.Labels, v.Labels)
	return c
}

// check is what it must satisfy by itself.
func (c *Container) check() *settingError {
	where := func(key string, more ...any) []any { return below(at("container", key), more...) }
	for _, l := range []struct {
		key  string
		args []string
	}{{"entrypoint", c.Entrypoint}, {"cmd", c.Cmd}} {
		for i, a := range l.args {
			if strings.ContainsRune(a, 0) {
				return settingf(where(l.key, i), "%q has a NUL", a)
			}
		}
	}
	if len(c.Entrypoint) > 0 && c.Entrypoint[0] == "" {
		return settingf(where("entrypoint", 0), "got an empty one; want a program")
	}
	for _, k := range slices.Sorted(maps.Keys(c.Env)) {
		if !variableRE.MatchString(k) {
			return settingf(where("env", k), "want the name of a variable, such as HOME")
		}
		if strings.ContainsRune(c.Env[k], 0) {
			return settingf(where("env", k), "%q has a NUL", c.Env[k])
		}
	}
	if c.User != "" {
		if err := checkUser(c.User); err != nil {
			return settingf(where("user"), "%w", err)
		}
	}
	if c.Workdir != "" && (!path.IsAbs(c.Workdir) || path.Clean(c.Workdir) != c.Workdir || !isLine(c.Workdir)) {
		return settingf(where("workdir"), "%q is not an absolute path", c.Workdir)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Labels)) {
		if !labelRE.MatchString(k) {
			return settingf(where("labels", k), "want a label's name of letters, digits and ._/-, such as org.opencontainers.image.source")
		}
		if strings.ContainsRune(c.Labels[k], 0) {
			return settingf(where("labels", k), "%q has a NUL", c.Labels[k])
		}
	}
	return nil
}

// checkUser checks who a container runs as.
func checkUser(s string) error {
	user, group, both := strings.Cut(s, ":")
	ids := []string{user}
	if both {
		ids = append(ids, group)
	}
	for _, id := range ids {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil || errors.Is(err, strconv.ErrRange) {
			if err != nil || n > maxID {
				return fmt.Errorf("%q is not an id: want at most %d", id, uint32(maxID))
			}
		} else if !accountRE.MatchString(id) {
			return fmt.Errorf("got %q; want a user or user:group, each a name or a number, such as 65532:65532", s)
		}
	}
	return nil
}

// noMachine says, of the keys of an image that are about the machine that
// boots it, why an archive has none of them.
func (m *ManifestImage) noMachine() *settingError {
	for _, k := range []struct {
		key   string
		given bool
	}{
		{"kernel", m.Kernel != (ManifestKernel{})}, {"root", m.Root != (ManifestRoot{})}, {"verity", m.Verity != (ManifestVerity{})},
		{"boot", m.Boot != (ManifestBoot{})}, {"disk", m.Disk != (ManifestDisk{})}, {"scratch", m.Scratch != (ManifestScratch{})},
		{"sysctl", len(m.Sysctl) > 0}, {"modprobe", len(m.Modprobe.Deny) > 0},
	} {
		if k.given {
			return settingf(at(k.key), "an image whose output is an archive (oci, tar) has no machine that boots it: leave this out")
		}
	}
	return nil
}

// checkArchive checks the outputs of image and variants against each other,
// and that nothing is asked for that only the other kind of image has.
func (m *manifestChecker) checkArchive() error {
	base := m.Image.Output
	images := map[string]ManifestImage{"": m.Image}
	for name, v := range m.Variants {
		images[name] = v.Image
	}
	for _, name := range slices.Sorted(maps.Keys(images)) {
		im, where, outputs := images[name], at("image"), base
		if name != "" {
			where = at("variants", name, "image")
			if len(im.Output) > 0 {
				outputs = im.Output
			}
		}
		if isArchive(outputs[0]) != isArchive(base[0]) {
			return m.errorf(below(where, "output"), "got %s, and the image's is %s: a disk and an archive (oci, tar) are not variants of each other; make two manifests", outputs[0], base[0])
		}
		if !im.Container.isZero() && !slices.Contains(outputs, OutputOCI) {
			return m.errorf(below(where, "container"), "this is the configuration of an OCI image, which output does not ask for: want output: [oci]")
		}
		if e := im.Container.check(); e != nil {
			return m.errorf(below(where, e.where...), "%w", e.err)
		}
		if !isArchive(outputs[0]) {
			continue
		}
		if e := im.noMachine(); e != nil {
			return m.errorf(below(where, e.where...), "%w", e.err)
		}
	}
	if !isArchive(base[0]) {
		return nil
	}
	if _, ok := m.Sets[SetInitrd]; ok {
		return m.errorf(at("sets", SetInitrd), "an image whose output is an archive (oci, tar) has no machine that boots it: leave this set out")
	}
	return m.checkNeedsTools()
}

// checkNeedsTools wants a tools set where an archive's root cannot be made
// without.
func (m *manifestChecker) checkNeedsTools() error {
	if m.asksFor(SetTools) {
		return nil
	}
	if m.asksFor(SetRoot) {
		return m.errorf(at("sets"), "there is no tools set, and its rpm installs the packages of the root: want tools: {packages: [rpm, bash, …]}")
	}
	for i, s := range m.Steps {
		switch {
		case s.Run != "":
			return m.errorf(at("steps", i, "run"), "there is no tools set, whose bash runs it: want sets: {tools: {packages: [bash, …]}}")
		case s.Cargo != nil:
			return m.errorf(at("steps", i, "cargo"), "there is no tools set, whose cargo compiles it: want sets: {tools: {packages: [cargo, gcc, …]}}")
		case s.Go != nil && s.Go.Cgo:
			return m.errorf(at("steps", i, "go", "cgo"), "there is no tools set, whose gcc it needs: want sets: {tools: {packages: [gcc, …]}}")
		}
	}
	return nil
}

// withoutPackages tells an archive for which no set has packages.
func (m *manifestChecker) withoutPackages() bool {
	return slices.ContainsFunc(m.Image.Output, isArchive) && !slices.ContainsFunc(setNames(), m.asksFor)
}

// asksFor tells whether a set has packages.
func (m *manifestChecker) asksFor(set string) bool {
	if m.RPM.From != "" && m.RPM.Set == set {
		return true
	}
	for _, v := range m.Variants {
		if len(v.Sets[set].Packages) > 0 {
			return true
		}
	}
	return len(m.Sets[set].Packages) > 0
}

// checkKind checks what the lock carries of an archive, and that a disk has
// nothing of it.
func (i *Image) checkKind(archive bool) error {
	if len(i.Output) > 0 && i.IsArchive() != archive {
		return errors.New("output of the image: a disk and an archive (oci, tar) are not variants of each other")
	}
	if c := i.Container; c != nil {
		if !slices.Contains(i.Output, OutputOCI) {
			return errors.New("container of the image: the output is no OCI image")
		}
		if c.isZero() {
			return errors.New("container of the image: nothing; want the key to be left out")
		}
		if e := c.check(); e != nil {
			return fmt.Errorf("image: %w", e)
		}
	}
	if archive && (i.Cmdline != "" || i.Root != "" || i.Compression != nil || i.Verity != "" || i.Tree != "" || i.Disk != nil || i.Scratch != nil || i.Boot != nil) {
		return errors.New("the image is an archive (oci, tar), and has settings of a disk")
	}
	return nil
}

package lock

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Manifest is caisson.yaml: what a person asks for. The keys are those of
// the tags below; any other is an error that names its line.
type Manifest struct {
	Version  int                        `yaml:"version"`
	Name     string                     `yaml:"name"`
	Arches   []string                   `yaml:"arches"`
	Epoch    *int64                     `yaml:"epoch"`
	RPM      ManifestRPM                `yaml:"rpm"`
	Sets     map[string]ManifestSet     `yaml:"sets"`
	Inputs   ManifestInputs             `yaml:"inputs"`
	Steps    []ManifestStep             `yaml:"steps"`
	Image    ManifestImage              `yaml:"image"`
	Variants map[string]ManifestVariant `yaml:"variants"`
}

// ManifestRPM is where packages come from and how they are chosen.
type ManifestRPM struct {
	// From is a Konflux rpms.in.yaml whose repositories are added to Repos
	// and whose packages are added to the set named by Set ("root").
	From     string            `yaml:"from"`
	Set      string            `yaml:"set"`
	Repos    []ManifestRepo    `yaml:"repos"`
	Vars     map[string]string `yaml:"vars"`
	WeakDeps *bool             `yaml:"weakDeps"`
	Best     *bool             `yaml:"best"`
}

// ManifestRepo is a repository. Variables ($basearch, $releasever and those
// of Vars) are expanded in BaseURL.
type ManifestRepo struct {
	ID           string   `yaml:"id"`
	BaseURL      string   `yaml:"baseurl"`
	GPGKey       []string `yaml:"gpgkey"` // paths beside the manifest, or URLs
	GPGCheck     *bool    `yaml:"gpgcheck"`
	RepoGPGCheck *bool    `yaml:"repo_gpgcheck"`
	Priority     *int     `yaml:"priority"`
}

// ManifestSet asks for the packages of one root.
type ManifestSet struct {
	Packages []string `yaml:"packages"`
	Exclude  []string `yaml:"exclude"`
	Modules  []string `yaml:"modules"`
}

// ManifestInputs are the inputs besides packages.
type ManifestInputs struct {
	Go    []ManifestGo    `yaml:"go"`
	Cargo []ManifestCargo `yaml:"cargo"`
	Files []ManifestFile  `yaml:"files"`
}

// ManifestGo is a folder with a go.mod.
type ManifestGo struct {
	Name      string `yaml:"name"`
	Dir       string `yaml:"dir"`
	Toolchain string `yaml:"toolchain"` // go1.26.0
}

// ManifestCargo is a folder with a Cargo.lock.
type ManifestCargo struct {
	Name string `yaml:"name"`
	Dir  string `yaml:"dir"`
}

// ManifestFile is a file by URL, or a path beside the manifest.
type ManifestFile struct {
	Name   string `yaml:"name"`
	URL    string `yaml:"url"`
	SHA256 string `yaml:"sha256"`
}

// ManifestStep has exactly one of its fields.
type ManifestStep struct {
	Go    *ManifestGoStep    `yaml:"go"`
	Cargo *ManifestCargoStep `yaml:"cargo"`
	Run   string             `yaml:"run"`
}

// ManifestGoStep builds one Go program.
type ManifestGoStep struct {
	Input   string `yaml:"input"`
	Package string `yaml:"package"`
	To      string `yaml:"to"`
	LDFlags string `yaml:"ldflags"`
}

// ManifestCargoStep builds one Rust program.
type ManifestCargoStep struct {
	Input    string   `yaml:"input"`
	Bin      string   `yaml:"bin"`
	To       string   `yaml:"to"`
	Features []string `yaml:"features"`
}

// ManifestImage is how the disk is to be made.
type ManifestImage struct {
	Overlay  []string         `yaml:"overlay"`
	Services ManifestServices `yaml:"services"`
	Kernel   ManifestKernel   `yaml:"kernel"`
	Root     ManifestRoot     `yaml:"root"`
	Verity   ManifestVerity   `yaml:"verity"`
	Output   []string         `yaml:"output"`
}

// ManifestServices are systemd units to enable and to disable.
type ManifestServices struct {
	Enable  []string `yaml:"enable"`
	Disable []string `yaml:"disable"`
}

// ManifestKernel is the kernel's command line; in a variant one that begins
// with + is appended to the image's.
type ManifestKernel struct {
	Cmdline string `yaml:"cmdline"`
}

// ManifestRoot is the root file system: erofs.
type ManifestRoot struct {
	Format string `yaml:"format"`
}

// ManifestVerity says where the root hash is: uki.
type ManifestVerity struct {
	Bind string `yaml:"bind"`
}

// ManifestVariant is what a variant adds.
type ManifestVariant struct {
	Sets  map[string]ManifestSet `yaml:"sets"`
	Image ManifestImage          `yaml:"image"`
}

// The sets that every image has.
const (
	SetTools  = "tools"  // what the build runs; never in the image
	SetInitrd = "initrd" // the initial RAM disk
	SetRoot   = "root"   // the root file system
)

// maxManifest is the largest manifest read, in bytes.
const maxManifest = 1 << 20

// ParseManifest reads a manifest. name is how errors call the file. Unknown
// keys, wrong types and impossible values are errors that name the line.
func ParseManifest(name string, b []byte) (*Manifest, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that a manifest may have", name, len(b), maxManifest)
	}
	var doc yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(b))
	if err := dec.Decode(&doc); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%s: empty; the least is version, name, rpm and sets", name)
		}
		return nil, yamlError(name, err)
	}
	var m Manifest
	if err := checkKeys(name, &doc, &m); err != nil {
		return nil, err
	}
	if err := doc.Decode(&m); err != nil {
		return nil, yamlError(name, err)
	}
	if err := dec.Decode(new(yaml.Node)); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s: a second YAML document; a manifest is one", name)
	}
	m.setDefaults()
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &m, nil
}

func (m *Manifest) setDefaults() {
	if len(m.Arches) == 0 {
		m.Arches = []string{"x86_64"}
	}
	if m.RPM.Set == "" {
		m.RPM.Set = SetRoot
	}
	if m.Image.Root.Format == "" {
		m.Image.Root.Format = "erofs"
	}
	if m.Image.Verity.Bind == "" {
		m.Image.Verity.Bind = "uki"
	}
	if len(m.Image.Output) == 0 {
		m.Image.Output = []string{"qcow2"}
	}
	if m.Sets == nil {
		m.Sets = map[string]ManifestSet{}
	}
}

var (
	nameRE    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)
	archNames = []string{"aarch64", "ppc64le", "s390x", "x86_64"}
)

func (m *Manifest) check() error {
	if m.Version != 1 {
		return fmt.Errorf("version %d: this Caisson reads version 1", m.Version)
	}
	if !nameRE.MatchString(m.Name) {
		return fmt.Errorf("name %q: want lower-case letters, digits, '.', '_' and '-'", m.Name)
	}
	for _, a := range m.Arches {
		if !slices.Contains(archNames, a) {
			return fmt.Errorf("arches: %q is not one of %s", a, strings.Join(archNames, ", "))
		}
	}
	if m.Epoch != nil && *m.Epoch < 0 {
		return fmt.Errorf("epoch %d: want seconds since 1970", *m.Epoch)
	}
	for _, f := range []func() error{m.checkRepos, m.checkSets, m.checkInputs, m.checkSteps, m.checkImages} {
		if err := f(); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manifest) checkRepos() error {
	seen := map[string]bool{}
	for i, r := range m.RPM.Repos {
		switch {
		case r.ID == "":
			return fmt.Errorf("rpm.repos[%d]: no id", i)
		case seen[r.ID]:
			return fmt.Errorf("rpm.repos: two repositories are called %q", r.ID)
		case r.BaseURL == "":
			return fmt.Errorf("rpm.repos: %q has no baseurl", r.ID)
		case len(r.GPGKey) == 0 && on(r.GPGCheck):
			return fmt.Errorf("rpm.repos: %q has no gpgkey; give the key its packages are signed by, or say gpgcheck: false", r.ID)
		}
		seen[r.ID] = true
	}
	if len(m.RPM.Repos) == 0 && m.RPM.From == "" {
		return errors.New("rpm: no repos and no from; give at least one repository")
	}
	return nil
}

// on is the value of a switch that is on unless it is switched off.
func on(b *bool) bool { return b == nil || *b }

func (m *Manifest) checkSets() error {
	for _, name := range slices.Sorted(maps.Keys(m.Sets)) {
		if !slices.Contains([]string{SetTools, SetInitrd, SetRoot}, name) {
			return fmt.Errorf("sets: %q is not one of %s, %s, %s", name, SetTools, SetInitrd, SetRoot)
		}
		if len(m.Sets[name].Modules) > 0 && name != SetInitrd {
			return fmt.Errorf("sets.%s: modules belong to the initrd", name)
		}
	}
	for vname, v := range m.Variants {
		if !nameRE.MatchString(vname) {
			return fmt.Errorf("variants: %q: want lower-case letters, digits, '.', '_' and '-'", vname)
		}
		for s := range v.Sets {
			if _, ok := m.Sets[s]; !ok {
				return fmt.Errorf("variants.%s.sets: %q is not a set of this manifest", vname, s)
			}
		}
	}
	return nil
}

func (m *Manifest) checkInputs() error {
	seen := map[string]bool{}
	add := func(where, name string) error {
		if !nameRE.MatchString(name) {
			return fmt.Errorf("inputs.%s: name %q: want lower-case letters, digits, '.', '_' and '-'", where, name)
		}
		if seen[name] {
			return fmt.Errorf("inputs: two inputs are called %q", name)
		}
		seen[name] = true
		return nil
	}
	for _, g := range m.Inputs.Go {
		if err := add("go", g.Name); err != nil {
			return err
		}
		if g.Dir == "" || !strings.HasPrefix(g.Toolchain, "go1.") {
			return fmt.Errorf("inputs.go: %q needs a dir and a toolchain such as go1.26.0", g.Name)
		}
	}
	for _, c := range m.Inputs.Cargo {
		if err := add("cargo", c.Name); err != nil {
			return err
		}
		if c.Dir == "" {
			return fmt.Errorf("inputs.cargo: %q needs a dir", c.Name)
		}
	}
	for _, f := range m.Inputs.Files {
		if err := add("files", f.Name); err != nil {
			return err
		}
		if f.URL == "" {
			return fmt.Errorf("inputs.files: %q needs a url", f.Name)
		}
		if f.SHA256 == "" && strings.Contains(f.URL, "://") {
			return fmt.Errorf("inputs.files: %q needs the sha256 of what %s holds", f.Name, f.URL)
		}
	}
	return nil
}

func (m *Manifest) checkSteps() error {
	for i, s := range m.Steps {
		n := 0
		if s.Go != nil {
			n++
			if !slices.ContainsFunc(m.Inputs.Go, func(g ManifestGo) bool { return g.Name == s.Go.Input }) {
				return fmt.Errorf("steps[%d].go: there is no inputs.go called %q", i, s.Go.Input)
			}
			if err := checkTo(i, s.Go.To); err != nil {
				return err
			}
		}
		if s.Cargo != nil {
			n++
			if !slices.ContainsFunc(m.Inputs.Cargo, func(c ManifestCargo) bool { return c.Name == s.Cargo.Input }) {
				return fmt.Errorf("steps[%d].cargo: there is no inputs.cargo called %q", i, s.Cargo.Input)
			}
			if err := checkTo(i, s.Cargo.To); err != nil {
				return err
			}
		}
		if s.Run != "" {
			n++
		}
		if n != 1 {
			return fmt.Errorf("steps[%d]: want exactly one of go, cargo, run", i)
		}
	}
	return nil
}

func checkTo(i int, to string) error {
	if !path.IsAbs(to) || path.Clean(to) != to || to == "/" {
		return fmt.Errorf("steps[%d]: to: %q is not an absolute path of a file", i, to)
	}
	return nil
}

func (m *Manifest) checkImages() error {
	if err := checkImage("image", m.Image); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(m.Variants)) {
		if err := checkImage("variants."+name+".image", m.Variants[name].Image); err != nil {
			return err
		}
	}
	return nil
}

func checkImage(where string, im ManifestImage) error {
	if f := im.Root.Format; f != "" && f != "erofs" {
		return fmt.Errorf("%s.root.format: %q is not erofs", where, f)
	}
	if b := im.Verity.Bind; b != "" && b != "uki" {
		return fmt.Errorf("%s.verity.bind: %q is not uki", where, b)
	}
	for _, o := range im.Output {
		if o != "qcow2" && o != "raw" {
			return fmt.Errorf("%s.output: %q is not one of qcow2, raw", where, o)
		}
	}
	for _, u := range slices.Concat(im.Services.Enable, im.Services.Disable) {
		if path.Base(u) != u || !strings.Contains(u, ".") {
			return fmt.Errorf("%s.services: %q is not the name of a unit, such as agent.service", where, u)
		}
	}
	if strings.ContainsAny(im.Kernel.Cmdline, "\n\x00") {
		return fmt.Errorf("%s.kernel.cmdline: %q has a line break or NUL", where, im.Kernel.Cmdline)
	}
	return nil
}

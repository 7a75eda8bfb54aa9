package lock

import (
	"fmt"

	"caisson/lock/internal/strictyaml"
)

// Manifest is caisson.yaml: what a person asks for. The keys are those of
// the tags below; any other is an error that names its line.
type Manifest struct {
	Version int    `yaml:"version"`
	Name    string `yaml:"name"`
	// Supplier is the organisation that answers for the image.
	Supplier string                 `yaml:"supplier"`
	Arches   []string               `yaml:"arches"`
	Epoch    *int64                 `yaml:"epoch"`
	RPM      ManifestRPM            `yaml:"rpm"`
	Sets     map[string]ManifestSet `yaml:"sets"`
	Inputs   ManifestInputs         `yaml:"inputs"`
	Steps    []ManifestStep         `yaml:"steps"`
	// Network is what becomes of a build whose step tries to reach a network,
	// which is refused in any case: "refuse" (unless given) ends it, "record"
	// only writes it down.
	Network  string                     `yaml:"network"`
	Image    ManifestImage              `yaml:"image"`
	Variants map[string]ManifestVariant `yaml:"variants"`
}

// ManifestSet asks for the packages of one root.
type ManifestSet struct {
	Packages []string `yaml:"packages"`
	Exclude  []string `yaml:"exclude"`
	Modules  []string `yaml:"modules"`
	// Scriptlets is "run" (unless given) or "skip": the packages' scriptlets
	// and triggers. A variant's set is as the image's unless it says otherwise.
	Scriptlets string `yaml:"scriptlets"`
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
	Cgo     bool   `yaml:"cgo"`
	// Arch is what the program is to run on, as in Manifest.Arches; the image's
	// own unless given. Another one excludes cgo.
	Arch string `yaml:"arch"`
}

// ManifestCargoStep builds one Rust program.
type ManifestCargoStep struct {
	Input    string   `yaml:"input"`
	Bin      string   `yaml:"bin"`
	To       string   `yaml:"to"`
	Features []string `yaml:"features"`
}

// ManifestImage is how the disk, or the archive, is to be made.
type ManifestImage struct {
	Overlay  []string         `yaml:"overlay"`
	Services ManifestServices `yaml:"services"`
	Kernel   ManifestKernel   `yaml:"kernel"`
	Root     ManifestRoot     `yaml:"root"`
	Verity   ManifestVerity   `yaml:"verity"`
	Boot     ManifestBoot     `yaml:"boot"`
	Output   []string         `yaml:"output"`
	Disk     ManifestDisk     `yaml:"disk"`
	Scratch  ManifestScratch  `yaml:"scratch"`
	// Container is of an OCI image alone.
	Container Container `yaml:"container"`

	// What Caisson writes into the root; see Settings.
	Users    []User            `yaml:"users"`
	Groups   []Group           `yaml:"groups"`
	Hostname string            `yaml:"hostname"`
	Locale   string            `yaml:"locale"`
	Timezone string            `yaml:"timezone"`
	Sysctl   map[string]string `yaml:"sysctl"`
	Modprobe ManifestModprobe  `yaml:"modprobe"`
	// Remove are paths, or patterns of paths, that are taken out.
	Remove []string `yaml:"remove"`
	// Docs is false where documentation, manual pages, info pages and other
	// languages than Locale's are left out.
	Docs      *bool             `yaml:"docs"`
	Version   string            `yaml:"version"`
	OSRelease map[string]string `yaml:"osRelease"`
}

// ManifestModprobe are kernel modules that may not be loaded.
type ManifestModprobe struct {
	Deny []string `yaml:"deny"`
}

// ManifestServices are systemd units to enable, to disable and to mask.
type ManifestServices struct {
	Enable  []string `yaml:"enable"`
	Disable []string `yaml:"disable"`
	Mask    []string `yaml:"mask"`
}

// ManifestKernel is the kernel's command line; in a variant one that begins
// with + is appended to the image's.
type ManifestKernel struct {
	Cmdline string `yaml:"cmdline"`
}

// ManifestRoot is the root file system: erofs or squashfs, with a compression
// that the tools set's own program makes, and its level.
type ManifestRoot struct {
	Format      string `yaml:"format"`
	Compression string `yaml:"compression"`
	Level       int    `yaml:"level"`
}

// ManifestVerity says where the root hash is: uki, or addon, which it is beside
// a vendor's UKI unless given; and where the hash tree: in a partition of its
// own unless given, or appended to the root.
type ManifestVerity struct {
	Bind string `yaml:"bind"`
	Tree string `yaml:"tree"`
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
	// SetVM need not be there: the kernel, with its modules, of the virtual machine in
	// which a build runs where there are no user namespaces. It is never in the image.
	SetVM = "vm"
)

// What ManifestSet.Scriptlets may be.
const (
	scriptletsRun = "run"
	// ScriptletsSkip is Set.Scriptlets of a set whose scriptlets do not run.
	ScriptletsSkip = "skip"
)

// What Manifest.Network may be.
const (
	networkRefuse = "refuse"
	networkRecord = "record"
)

// maxManifest is the largest manifest read, in bytes.
const maxManifest = 1 << 20

// ParseManifest reads a manifest. name is how errors call the file. Unknown
// keys, wrong types and impossible values are errors that name the line.
func ParseManifest(name string, b []byte) (*Manifest, error) {
	if len(b) > maxManifest {
		return nil, fmt.Errorf("%s: %d bytes, more than the %d that a manifest may have", name, len(b), maxManifest)
	}
	var m Manifest
	doc, err := strictyaml.Decode(name, b, &m)
	if err != nil {
		return nil, err
	}
	m.setDefaults()
	c := manifestChecker{Manifest: &m, errorf: func(path []any, format string, args ...any) error {
		return doc.Errorf(path, format, args...)
	}}
	if err := c.check(); err != nil {
		return nil, err
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
	if m.Network == "" {
		m.Network = networkRefuse
	}
	if len(m.Image.Output) == 0 {
		m.Image.Output = []string{OutputQcow2}
	}
	if m.Image.Root.Format == "" && !isArchive(m.Image.Output[0]) {
		m.Image.Root.Format = RootEROFS
	}
	if m.Sets == nil {
		m.Sets = map[string]ManifestSet{}
	}
}

// Package lock reads a manifest, chooses every input of the image it asks
// for, and writes the choice down: the lock.
//
// # The lock
//
// A lock is canonical JSON: two-space indentation, keys in the order of the
// Go types below, no HTML escaping, one final newline. Parse refuses what
// Format would not print, so a lock has one digest, and that digest is what
// provenance names. It carries the manifest's steps and image settings as
// well as the inputs: with a store that holds the inputs it is all that a
// build needs.
//
// Inputs are sorted by kind and name. Each is one file of the store, pinned
// by its SHA-256. A local folder (payload sources, overlays) is packed into a
// canonical tar archive (see PackInput) and so becomes a file like any other.
//
// # The choice
//
// Resolve is a function of the manifest, of the files it names and of the
// repositories' metadata; neither the clock nor the machine counts. What an
// old lock chose is kept where it still answers the manifest.
package lock

import (
	"slices"
	"strconv"
	"strings"

	"caisson/lock/digest"
)

// Version is the version of the lock's own format.
const Version = 1

// Revision names the bytes that Caisson's own code makes of a lock: writers,
// compressors, normalisation. It rises whenever the same lock would give
// another image, and a Caisson of another revision refuses the lock. What each
// revision changed is in revision.go.
const Revision = 3

// Lock is every input of an image, pinned, and what is made of them.
type Lock struct {
	Version  int           `json:"version"`
	Revision int           `json:"revision"`
	Name     string        `json:"name"`
	Manifest digest.Digest `json:"manifest"`
	// Supplier is who answers for the image, and for what lies beside the
	// manifest, as bills of materials name them; empty where the manifest is silent.
	Supplier string `json:"supplier,omitempty"`
	// Imported is the kind of the file that the lock was converted from,
	// "rpms.lock.yaml", and then Manifest is its digest: what that file does
	// not say (metadata, requests, reasons) is not in the lock.
	Imported string `json:"imported,omitempty"`
	// Context is what the packages of an rpms.in.yaml that was locked on its own
	// come on top of: "image REF", "localSystem", or "bare". Packages that are
	// there already are not in the lock.
	Context string `json:"context,omitempty"`
	// Sources are the other files that say what to choose: a Konflux
	// rpms.in.yaml and what it names. What was fetched for one has its address
	// as name, an image "image:" and its reference; a prefetch-input and the
	// files that it leads to.
	Sources []Source `json:"sources,omitempty"`
	// Epoch is SOURCE_DATE_EPOCH of everything, in seconds since 1970: given,
	// or the newest build time among the locked RPMs, or that of an archive made
	// without any, EpochWithout.
	Epoch  int64      `json:"epoch"`
	Arches []string   `json:"arches"`
	RPM    RPMOptions `json:"rpm"`
	Repos  []Repo     `json:"repos"`
	// MissingSources are the source packages that no repository has, where
	// RPM.Sources allows it: "name-version-release.src.rpm", sorted.
	MissingSources []string  `json:"missingSources,omitempty"`
	Sets           []Set     `json:"sets"`
	Payloads       []Payload `json:"payloads,omitempty"`
	Steps          []Step    `json:"steps,omitempty"`
	// RecordNetwork says that a step's attempt to reach a network, which is
	// refused in any case, is only recorded and does not end the build.
	RecordNetwork bool  `json:"recordNetwork,omitempty"`
	Image         Image `json:"image"`
	// Variants holds what differs from Image: the whole image settings of
	// each variant, already merged. A variant's packages are a set of its
	// own, named by SetName.
	Variants []Variant `json:"variants,omitempty"`
	Inputs   []Input   `json:"inputs"`
}

// Source is a file that took part in the choice and is no input of the build.
type Source struct {
	Name   string        `json:"name"` // its path, relative to the manifest
	SHA256 digest.Digest `json:"sha256"`
}

// RPMOptions are the solver's options, explicit because the hosts' defaults
// differ.
type RPMOptions struct {
	WeakDeps bool `json:"weakDeps"`
	Best     bool `json:"best"`
	// KeepObsoleted is dnf's obsoletes=0.
	KeepObsoleted bool     `json:"keepObsoleted,omitempty"`
	ModuleEnable  []string `json:"moduleEnable,omitempty"`
	ModuleDisable []string `json:"moduleDisable,omitempty"`
	InstallOnly   []string `json:"installonlypkgs,omitempty"` // dnf's list where empty
	Sources       string   `json:"sources,omitempty"`         // "yes", "available", or empty: no source packages
	SameEVR       bool     `json:"sameEVR,omitempty"`
}

// Repo is a repository as it was used: one entry per repository and arch.
type Repo struct {
	ID   string `json:"id"`
	Arch string `json:"arch"`
	// Order is the repository's place in the manifest, from 0: the earlier one
	// wins where a package is in two of equal priority and cost.
	Order   int    `json:"order,omitempty"`
	BaseURL string `json:"baseurl"` // variables expanded, with a final slash
	// ISO is the file input that the repository is in; BaseURL is then
	// "iso:NAME/FOLDER/".
	ISO string `json:"iso,omitempty"`
	// Mirrors are other bases of the same files, with a final slash, in the
	// order in which they are to be tried after BaseURL.
	Mirrors []string `json:"mirrors,omitempty"`
	Auth    *Auth    `json:"auth,omitempty"`
	// Repomd is the digest of the repomd.xml that was used; an input of kind
	// KindRepodata has the same one.
	Repomd digest.Digest `json:"repomd"`
	// Priority as dnf has it: a lower number wins. 99 unless given.
	Priority int `json:"priority"`
	Cost     int `json:"cost,omitempty"` // as dnf's; 0 stands for its 1000
	// ExcludePkgs, IncludePkgs and ModuleHotfixes are dnf's options.
	ExcludePkgs    []string `json:"excludepkgs,omitempty"`
	IncludePkgs    []string `json:"includepkgs,omitempty"`
	ModuleHotfixes bool     `json:"moduleHotfixes,omitempty"`
	// GPGCheck tells whether packages, RepoGPGCheck whether repomd.xml, had
	// to be signed by one of Keys.
	GPGCheck     bool `json:"gpgcheck"`
	RepoGPGCheck bool `json:"repoGpgcheck"`
	// Keys are the fingerprints of the trusted keys, upper-case hex; each is
	// in an input of kind KindKey.
	Keys []string `json:"keys,omitempty"`
}

// Set is what was asked for in the packages of one root.
type Set struct {
	Name     string   `json:"name"` // tools, initrd, root; see SetName
	Packages []string `json:"packages"`
	// Only has the packages that are asked for on one arch and not on all,
	// sorted by arch.
	Only    []ArchPackages `json:"only,omitempty"`
	Exclude []string       `json:"exclude,omitempty"`
	// Modules are kernel modules, for an initrd.
	Modules []string `json:"modules,omitempty"`
	// Scriptlets is "skip" where none of the packages' scriptlets and triggers
	// are run; empty where all are.
	Scriptlets string `json:"scriptlets,omitempty"`
}

// ArchPackages is what is asked for on one arch.
type ArchPackages struct {
	Arch     string   `json:"arch"`
	Packages []string `json:"packages"`
}

// SetName is the set that serves name in a variant: "root+debug". The plain
// name serves where the variant adds no package.
func SetName(name, variant string) string {
	if variant == "" {
		return name
	}
	return name + "+" + variant
}

// Payload is a program's source and what it needs besides.
type Payload struct {
	Kind string `json:"kind"` // go or cargo
	Name string `json:"name"`
	// Source is the name of the KindTree input that holds the source.
	Source string `json:"source"`
	// Toolchain is the locked Go toolchain, such as "go1.26.0"; a Cargo
	// payload is built by the tools root's cargo.
	Toolchain string `json:"toolchain,omitempty"`
}

// Step is one command of the manifest: exactly one of its fields is set.
type Step struct {
	Go    *GoStep    `json:"go,omitempty"`
	Cargo *CargoStep `json:"cargo,omitempty"`
	Run   string     `json:"run,omitempty"`
}

// GoStep builds one Go program.
type GoStep struct {
	Input   string `json:"input"`   // the payload's name
	Package string `json:"package"` // "./cmd/agent"
	To      string `json:"to"`      // absolute path in the root
	LDFlags string `json:"ldflags,omitempty"`
	Cgo     bool   `json:"cgo,omitempty"` // with the tools root's gcc
	// Arch is what the program runs on where that is not the image's own.
	Arch string `json:"arch,omitempty"`
}

// CargoStep builds one Rust program.
type CargoStep struct {
	Input    string   `json:"input"`
	Bin      string   `json:"bin"`
	To       string   `json:"to"`
	Features []string `json:"features,omitempty"`
}

// Image is how the disk is to be made, or the archive: that has none of the
// settings of a machine, whose values are then empty.
type Image struct {
	// Overlay lists KindTree inputs laid over the root, later ones on top.
	Overlay  []string `json:"overlay,omitempty"`
	Services Services `json:"services"`
	// Cmdline is the kernel's command line without what the build adds: the
	// root hash.
	Cmdline string `json:"cmdline"`
	Root    string `json:"root"` // RootEROFS, RootSquashfs
	// Compression is the root's; nil where it has none and Caisson writes it.
	Compression *Compression `json:"compression,omitempty"`
	Verity      string       `json:"verity"` // VerityUKI or VerityAddon
	// Tree is TreeAppended, or empty where the hash tree has a partition of its
	// own.
	Tree   string   `json:"tree,omitempty"`
	Output []string `json:"output"` // see Outputs
	// Disk are the sizes that are given; nil where all are as small as can be.
	Disk *Disk `json:"disk,omitempty"`
	// Scratch is made when the image boots; nil for none.
	Scratch *Scratch `json:"scratch,omitempty"`
	// Boot is the way from the firmware to the kernel; nil where the firmware
	// starts the UKI that the build makes.
	Boot *Boot `json:"boot,omitempty"`
	// Container is the configuration of an OCI image; nil where nothing is given.
	Container *Container `json:"container,omitempty"`
	// Settings are what Caisson writes into the root; nil where it is left as
	// packages, steps and overlays make it.
	Settings *Settings `json:"settings,omitempty"`
}

// Services are systemd units to enable, to disable, and to mask: masked ones
// cannot be started at all.
type Services struct {
	Enable  []string `json:"enable,omitempty"`
	Disable []string `json:"disable,omitempty"`
	Mask    []string `json:"mask,omitempty"`
}

// Variant is a named departure from the image.
type Variant struct {
	Name  string `json:"name"`
	Image Image  `json:"image"`
}

// Kinds of input.
const (
	KindRPM       = "rpm"       // a package
	KindRepodata  = "repodata"  // repomd.xml and the metadata files that were read
	KindKey       = "key"       // an OpenPGP public key
	KindGo        = "go"        // a Go module's .zip or .mod as the module proxy has it
	KindToolchain = "toolchain" // a Go toolchain's .zip
	KindCrate     = "crate"     // a .crate of a registry
	KindFile      = "file"      // a file by URL
	KindTree      = "tree"      // a local folder, packed by PackInput
	KindGit       = "git"       // a git repository at a commit, as package gittree writes it
	KindOCI       = "oci"       // an image index, manifest, config or layer
)

// Input is one file that a build may read.
type Input struct {
	Kind string `json:"kind"`
	// Name is unique within the kind: a NEVRA, "MODULE@VERSION.zip",
	// "NAME-VERSION.crate", "REPO-ARCH/repomd.xml", the manifest's own name,
	// for OCI followed by "/index", "/manifest", "/config", "/layer-0" …, for
	// images of one arch among several by "/ARCH/manifest" and so on.
	Name string `json:"name"`
	PURL string `json:"purl,omitempty"`
	// URL is absolute, or relative to the BaseURL of Repo; for Go inputs
	// relative to a module proxy, for crates to their registry's download
	// address. A tree's is its path in the project. Of an OCI image it is
	// "oci://HOST/REPOSITORY/manifests/DIGEST" or ".../blobs/DIGEST".
	URL string `json:"url"`
	// Mirrors are other addresses of the same file.
	Mirrors []string      `json:"mirrors,omitempty"`
	Auth    *Auth         `json:"auth,omitempty"` // where it has no Repo
	Repo    string        `json:"repo,omitempty"` // the repository's id
	Size    int64         `json:"size,omitempty"` // bytes; 0 where the source does not say
	SHA256  digest.Digest `json:"sha256"`

	RPM  *RPM  `json:"rpm,omitempty"`
	Go   *Go   `json:"go,omitempty"`
	Tree *Tree `json:"tree,omitempty"`
	Git  *Git  `json:"git,omitempty"`
	OCI  *OCI  `json:"oci,omitempty"`
	// Verified says by whom the input is signed, where that was asked for.
	Verified *Verified `json:"verified,omitempty"`
	// Registry is a crate's registry, as Cargo.lock writes its source.
	Registry string `json:"registry,omitempty"`
	// Fingerprint is a key's, in upper-case hex; of a file with several keys
	// all, in the order of the file, joined by commas. See Fingerprints.
	Fingerprint string `json:"fingerprint,omitempty"`

	// For says what the input serves and why it is there; sorted.
	For []Use `json:"for,omitempty"`
}

// Use is one reason for an input.
type Use struct {
	// Arch is the machine it is for; empty for inputs that serve all.
	Arch string `json:"arch,omitempty"`
	// Set is the set or payload it belongs to: "root", "root+debug",
	// "go:agent", "cargo:guest".
	Set string `json:"set,omitempty"`
	// By is what brought it: the request as the manifest has it, or the
	// NEVRA, module or crate that needs it.
	By string `json:"by"`
	// Dep is the dependency by which By needs it; empty for a request.
	Dep string `json:"dep,omitempty"`
}

// RPM is what only a package has.
type RPM struct {
	Name      string `json:"name"`
	Epoch     int    `json:"epoch,omitempty"`
	Version   string `json:"version"`
	Release   string `json:"release"`
	Arch      string `json:"arch"`
	SourceRPM string `json:"sourcerpm,omitempty"`
	Module    string `json:"module,omitempty"` // name:stream:version:context
	// BuildTime is in seconds since 1970.
	BuildTime int64 `json:"buildTime"`
	// Signed says that the package must be signed by one of its repository's
	// keys.
	Signed bool `json:"signed"`
}

// Go is what only a Go module or toolchain has.
type Go struct {
	Module  string `json:"module"`
	Version string `json:"version"`
	// H1 is the go.sum hash of the zip's files, or of go.mod.
	H1 string `json:"h1"`
	// Unproved says that no sum file of the source has H1 and no checksum
	// database was asked: it is that of the file as it was found.
	Unproved bool `json:"unproved,omitempty"`
}

// Tree is what only a local folder has.
type Tree struct {
	// Commit is the git commit the folder is at, and Dirty whether it
	// differs from it; empty outside git.
	Commit string `json:"commit,omitempty"`
	Dirty  bool   `json:"dirty,omitempty"`
}

// Git is what only a git repository has.
type Git struct {
	Ref        string `json:"ref"`    // as it was asked for
	Commit     string `json:"commit"` // in hex, as is Tree
	Tree       string `json:"tree"`
	Tag        string `json:"tag,omitempty"` // the annotated tag's object
	Submodules bool   `json:"submodules,omitempty"`
}

// OCI is what only a part of an image has.
type OCI struct {
	Ref       string `json:"ref"`  // the image as it was asked for
	Role      string `json:"role"` // RoleIndex and so on
	MediaType string `json:"mediaType"`
}

// Verified is a signature that was found good.
type Verified struct {
	// Key is the fingerprint of an OpenPGP or SSH key, or the SHA-256 of a
	// public key in its PKIX form, "sha256:" and hex. Of a file with several
	// OpenPGP keys it is all of them, as Input.Fingerprint is.
	Key string `json:"key,omitempty"`
	// Identity and Issuer are those of a certificate.
	Identity string `json:"identity,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
	// What is signed: "tag", "commit", "image", "checksums", or the predicate
	// type of an attestation.
	What string `json:"what"`
	// From is where the signed checksums lie.
	From string `json:"from,omitempty"`
}

// By says in words who signed.
func (v *Verified) By() string {
	if v.Key != "" {
		return "key " + v.Key
	}
	return v.Identity + " of " + v.Issuer
}

// EVR is epoch:version-release, without an epoch of 0.
func (r *RPM) EVR() string {
	evr := r.Version + "-" + r.Release
	if r.Epoch != 0 {
		evr = strconv.Itoa(r.Epoch) + ":" + evr
	}
	return evr
}

// Fingerprints are the keys of a key file, in upper-case hex.
func (in *Input) Fingerprints() []string {
	if in.Fingerprint == "" {
		return nil
	}
	return strings.Split(in.Fingerprint, ",")
}

// PackagesFor is all that the set asks for on an arch.
func (s *Set) PackagesFor(arch string) []string {
	out := slices.Clone(s.Packages)
	for _, o := range s.Only {
		if o.Arch == arch {
			out = append(out, o.Packages...)
		}
	}
	return out
}

// InSet tells whether the input belongs to the set on that machine.
func (in *Input) InSet(arch, set string) bool {
	for _, u := range in.For {
		if u.Set == set && (u.Arch == "" || u.Arch == arch) {
			return true
		}
	}
	return false
}

// onlyFor tells whether nothing but a set, in whatever variant, needs the input.
func (in *Input) onlyFor(set string) bool {
	for _, u := range in.For {
		if name, _, _ := strings.Cut(u.Set, "+"); name != set {
			return false
		}
	}
	return len(in.For) > 0
}

// Find returns the input of that kind and name, or nil.
func (l *Lock) Find(kind, name string) *Input {
	for i := range l.Inputs {
		if in := &l.Inputs[i]; in.Kind == kind && in.Name == name {
			return in
		}
	}
	return nil
}

// Of returns the inputs of a set or payload on a machine, in the lock's order.
func (l *Lock) Of(arch, set string) []*Input {
	var out []*Input
	for i := range l.Inputs {
		if l.Inputs[i].InSet(arch, set) {
			out = append(out, &l.Inputs[i])
		}
	}
	return out
}

// SetFor is the name of the set that serves name in a variant: the variant's
// own where it has one, else name.
func (l *Lock) SetFor(name, variant string) string {
	own := SetName(name, variant)
	for _, s := range l.Sets {
		if s.Name == own {
			return own
		}
	}
	return name
}

// ImageFor is the image settings of a variant; false if there is no such
// variant. The empty variant is the image itself.
func (l *Lock) ImageFor(variant string) (Image, bool) {
	if variant == "" {
		return l.Image, true
	}
	for _, v := range l.Variants {
		if v.Name == variant {
			return v.Image, true
		}
	}
	return Image{}, false
}

// RepoURL is where an input of a repository lies: the repository's base and
// the input's relative address, for the first arch that uses it.
func (l *Lock) RepoURL(in *Input) (string, bool) {
	if in.Repo == "" || isURL(in.URL) {
		return in.URL, isURL(in.URL)
	}
	if r := l.RepoOf(in); r != nil {
		return r.BaseURL + in.URL, true
	}
	return "", false
}

// RepoOf is the repository of an input, for the first arch that uses it; nil
// where it has none.
func (l *Lock) RepoOf(in *Input) *Repo {
	for i := range l.Repos {
		if r := &l.Repos[i]; in.Repo != "" && r.ID == in.Repo && (len(in.For) == 0 || in.For[0].Arch == "" || in.For[0].Arch == r.Arch) {
			return r
		}
	}
	return nil
}

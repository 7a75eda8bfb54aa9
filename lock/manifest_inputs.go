package lock

import (
	"errors"

	"go.yaml.in/yaml/v3"
)

// ManifestInputs are the inputs besides packages.
type ManifestInputs struct {
	Go    []ManifestGo    `yaml:"go"`
	Cargo []ManifestCargo `yaml:"cargo"`
	Git   []ManifestGit   `yaml:"git"`
	OCI   []ManifestOCI   `yaml:"oci"`
	Files []ManifestFile  `yaml:"files"`
	// From is a Hermeto prefetch-input whose packages are added: a JSON or
	// YAML file beside the manifest.
	From string `yaml:"from"`
}

// ManifestGo is a folder with a go.mod or a go.work.
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

// ManifestGit is a git repository at a commit.
type ManifestGit struct {
	Name string `yaml:"name"`
	URL  string `yaml:"url"`
	Ref  string `yaml:"ref"` // a tag, a branch or a commit
	// Mirrors are other addresses of the same repository.
	Mirrors []string `yaml:"mirrors"`
	// Submodules says whether they are taken too.
	Submodules bool            `yaml:"submodules"`
	Verify     *ManifestVerify `yaml:"verify"` // of the tag's or the commit's signature
	Auth       *Auth           `yaml:"auth"`
}

// ManifestOCI is an OCI image or artifact.
type ManifestOCI struct {
	Name   string          `yaml:"name"`
	Ref    string          `yaml:"ref"` // registry/repository:tag, or @sha256:…, or both
	Verify *ManifestVerify `yaml:"verify"`
	// SBOM is "import" where the SBOM that is attached to the image is an
	// input too.
	SBOM string `yaml:"sbom"`
}

// ManifestVerify says by whom an input has to be signed: by a key, or by an
// identity that an issuer vouched for (sigstore, keyless).
type ManifestVerify struct {
	Key      string `yaml:"key"` // a path beside the manifest: an OpenPGP, SSH or cosign public key
	Identity string `yaml:"identity"`
	Issuer   string `yaml:"issuer"`
	// Attestation is the predicate type of an attestation that the image
	// must have, instead of a signature.
	Attestation string `yaml:"attestation"`
}

// ManifestFile is a file by URL, or a path beside the manifest.
type ManifestFile struct {
	Name    string        `yaml:"name"`
	URL     string        `yaml:"url"`
	Mirrors []string      `yaml:"mirrors"` // other addresses of the same file
	SHA256  string        `yaml:"sha256"`
	Sums    *ManifestSums `yaml:"sums"` // instead of SHA256
	Auth    *Auth         `yaml:"auth"`
}

// ManifestSums is a signed file of checksums, as sha256sum writes it or in
// its BSD form.
type ManifestSums struct {
	URL string `yaml:"url"`
	// Signature is the address of the detached signature; empty where the
	// file is clear-signed.
	Signature string `yaml:"signature"`
	Key       string `yaml:"key"` // a path beside the manifest: an OpenPGP or cosign public key
}

// StringList is one text or a list of them.
type StringList []string

// UnmarshalYAML reads a text or a list of texts.
func (l *StringList) UnmarshalYAML(n *yaml.Node) error {
	var one string
	if n.Decode(&one) == nil {
		*l = StringList{one}
		return nil
	}
	var all []string
	if n.Decode(&all) != nil {
		return errors.New("want a text, or a list of texts")
	}
	*l = all
	return nil
}

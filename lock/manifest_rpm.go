package lock

// ManifestRPM is where packages come from and how they are chosen.
type ManifestRPM struct {
	// From is a Konflux rpms.in.yaml whose repositories are added to Repos
	// and whose packages are added to the set named by Set ("root"). Its
	// installWeakDeps counts where WeakDeps is not given.
	From     string            `yaml:"from"`
	Set      string            `yaml:"set"`
	Repos    []ManifestRepo    `yaml:"repos"`
	Vars     map[string]string `yaml:"vars"`
	WeakDeps *bool             `yaml:"weakDeps"`
	Best     *bool             `yaml:"best"`
	// Obsoletes is dnf's option: unless it is off, asking for a package that
	// another one obsoletes brings the other.
	Obsoletes *bool `yaml:"obsoletes"`
	// ModuleEnable are streams ("name:stream", or "name" for the default
	// one), ModuleDisable names of modules.
	ModuleEnable  []string `yaml:"moduleEnable"`
	ModuleDisable []string `yaml:"moduleDisable"`
	// InstallOnly are provides whose packages are installed beside each
	// other; dnf's list (kernels) unless given.
	InstallOnly []string `yaml:"installonlypkgs"`
	// Sources says whether the source packages are locked too: "no" (unless
	// given), "yes", where one that is missing is an error, or "available".
	Sources string `yaml:"sources"`
	// SameEVR demands that a package that is chosen for several arches has
	// the same epoch, version and release on all.
	SameEVR bool `yaml:"sameEVR"`
}

// ManifestRepo is a repository; the keys are dnf's (dnf.conf(5)). Variables
// ($basearch, $releasever and others of Vars) are expanded in the addresses
// and in GPGKey. It has exactly one of BaseURL, Metalink, Mirrorlist and ISO.
type ManifestRepo struct {
	ID           string     `yaml:"id"`
	BaseURL      StringList `yaml:"baseurl"` // the first is locked, the others are its mirrors
	Metalink     string     `yaml:"metalink"`
	Mirrorlist   string     `yaml:"mirrorlist"`
	ISO          string     `yaml:"iso"`    // NAME or NAME/FOLDER: one of inputs.files, and where in it the repository is
	GPGKey       []string   `yaml:"gpgkey"` // paths beside the manifest, or URLs
	GPGCheck     *bool      `yaml:"gpgcheck"`
	RepoGPGCheck *bool      `yaml:"repo_gpgcheck"`
	Priority     *int       `yaml:"priority"`
	Cost         *int       `yaml:"cost"`
	// ExcludePkgs and IncludePkgs are names, NEVRA forms or globs.
	ExcludePkgs    []string `yaml:"excludepkgs"`
	IncludePkgs    []string `yaml:"includepkgs"`
	ModuleHotfixes bool     `yaml:"module_hotfixes"`
	// How to reach it; see Auth for what may stand here.
	SSLClientCert string `yaml:"sslclientcert"`
	SSLClientKey  string `yaml:"sslclientkey"`
	SSLCACert     string `yaml:"sslcacert"`
	Username      string `yaml:"username"`
	Password      string `yaml:"password"`
	Proxy         string `yaml:"proxy"`
}

// auth is how the repository's server is logged in to; nil where nothing is
// said of it.
func (r *ManifestRepo) auth() *Auth {
	a := Auth{Proxy: r.Proxy}
	if r.SSLClientCert != "" || r.SSLClientKey != "" || r.SSLCACert != "" {
		a.TLS = &AuthTLS{Cert: r.SSLClientCert, Key: r.SSLClientKey, CA: r.SSLCACert}
	}
	if r.Username != "" {
		a.Basic = &AuthBasic{Username: r.Username, Password: Secret(r.Password)}
	}
	if a == (Auth{}) {
		return nil
	}
	return &a
}

// places is how many of its addresses are given.
func (r *ManifestRepo) places() int {
	n := 0
	for _, given := range []bool{len(r.BaseURL) > 0, r.Metalink != "", r.Mirrorlist != "", r.ISO != ""} {
		if given {
			n++
		}
	}
	return n
}

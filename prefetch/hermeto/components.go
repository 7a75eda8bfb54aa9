package hermeto

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"
	"golang.org/x/mod/modfile"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/konflux"
	"caisson/prefetch/rpmsig"
)

// Tags of an RPM's main header (rpm's rpmtag.h).
const (
	tagSummary         = 1004
	tagVendor          = 1011
	tagModularityLabel = 5096
)

// bom is the SBOM of what was fetched, and of the sources it was fetched for.
func (p *Plan) bom() (*BOM, error) {
	all := map[string][]Component{}
	for i := range p.Lock.Inputs {
		in := &p.Lock.Inputs[i]
		var c Component
		backend := ""
		switch in.Kind {
		case lock.KindGo:
			if path.Ext(in.Name) != ".zip" {
				continue
			}
			backend = "gomod"
			c = Component{Name: in.Go.Module, Version: in.Go.Version}
			c.PURL = purl("golang", "", c.Name, c.Version, map[string]string{"type": "module"}, "")
		case lock.KindCrate:
			backend, c = "cargo", crate(in)
		case lock.KindGit:
			continue // its packages are told of below
		case lock.KindRPM:
			var err error
			if c, err = p.rpm(in); err != nil {
				return nil, fmt.Errorf("%s: %w", in.Name, err)
			}
			backend = "rpm"
		case lock.KindFile:
			backend, c = "generic", p.file(in)
		default:
			continue
		}
		c.Hashes = append(c.Hashes, Hash{Algorithm: "SHA-256", Content: in.SHA256.Hex()})
		all[backend] = append(all[backend], c)
	}
	if err := p.mains(all); err != nil {
		return nil, err
	}
	return newBOM(all, p.req.Epoch), nil
}

func crate(in *lock.Input) Component {
	name, version, _ := strings.Cut(strings.TrimSuffix(in.URL, "/"), "/")
	c := Component{Name: name, Version: version}
	q := map[string]string{"checksum": in.SHA256.Hex()}
	if in.Registry != cargo.CratesIO {
		q["repository_url"] = strings.TrimPrefix(in.Registry, "registry+")
	}
	c.PURL = purl("cargo", "", c.Name, c.Version, q, "")
	return c
}

// file is the component of a file of artifacts.lock.yaml.
func (p *Plan) file(in *lock.Input) Component {
	c := Component{
		Name: base(in.Name), Type: "file", PURL: in.PURL,
		References: []ExternalReference{{URL: in.URL, Type: "distribution"}},
	}
	if m := p.artifacts[in.Name].Maven; m != nil {
		c.Name, c.Version, c.Type = m.ArtifactID, m.Version, "library"
	}
	return c
}

// rpm reads from a package's header what the lock does not have.
func (p *Plan) rpm(in *lock.Input) (Component, error) {
	f, err := p.req.Store.Open(in.SHA256)
	if err != nil {
		return Component{}, err
	}
	defer f.Close()
	h, err := rpmsig.Open(f, f.Size())
	if err != nil {
		return Component{}, err
	}
	var texts [3]string
	for i, tag := range []uint32{tagVendor, tagModularityLabel, tagSummary} {
		s, err := h.Strings(tag)
		if err != nil {
			return Component{}, err
		}
		if len(s) > 0 {
			texts[i] = s[0]
		}
	}
	vendor, module, summary := texts[0], texts[1], texts[2]
	q := map[string]string{"arch": h.Arch, "repository_id": in.Repo, "checksum": in.SHA256.String()}
	epoch, err := h.Numbers(1003) // RPMTAG_EPOCH: one that is 0 is told from none
	if err != nil {
		return Component{}, err
	}
	if len(epoch) > 0 {
		q["epoch"] = fmt.Sprint(epoch[0])
	}
	if in.Repo == "" {
		q["download_url"] = in.URL
	}
	c := Component{Name: h.Name, Version: h.Version, PURL: purl("rpm", rpmNamespace(vendor), h.Name, h.Version+"-"+h.Release, q, "")}
	if module != "" {
		c.Properties = append(c.Properties, Property{propModularity, module})
	}
	if p.summaries[in.Name] {
		c.Properties = append(c.Properties, Property{propSummary, summary})
	}
	return c, nil
}

// rpmNamespace is what Hermeto makes of a package's vendor.
func rpmNamespace(vendor string) string {
	for _, known := range []struct{ vendor, namespace string }{{"Red Hat", "redhat"}, {"Fedora", "fedora"}, {"SUSE", "suse"}} {
		if strings.Contains(vendor, known.vendor) {
			return known.namespace
		}
	}
	return strings.ReplaceAll(strings.ToLower(vendor), " ", "_")
}

// mains adds the sources' own modules and packages.
func (p *Plan) mains(all map[string][]Component) error {
	repo, err := readGit(p.req.Source)
	if err != nil {
		return err
	}
	for _, pkg := range p.req.Input.Packages {
		var c Component
		var err error
		switch pkg.Type {
		case "gomod":
			var b []byte
			if b, _, err = p.read(pkg, "go.mod"); err != nil {
				break // a workspace whose top is no module has none
			}
			c.Name, c.Version = modfile.ModulePath(b), repo.goVersion(modfile.ModulePath(b), pkg.Path)
			q := map[string]string{"type": "module", "vcs_url": repo.vcsURL()}
			c.PURL = purl("golang", "", c.Name, c.Version, q, "")
		case "cargo":
			if c, err = p.cargoMain(pkg, repo); err == nil {
				err = p.gitCrates(pkg, all)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		if err == nil && c.Name != "" {
			all[pkg.Type] = append(all[pkg.Type], c)
		}
	}
	return nil
}

// cargoMain is the package or workspace of a Cargo.toml.
func (p *Plan) cargoMain(pkg konflux.PrefetchPackage, repo *repository) (Component, error) {
	b, s, err := p.read(pkg, "Cargo.toml")
	if err != nil {
		return Component{}, err
	}
	var manifest struct {
		Package struct {
			Name    string `toml:"name"`
			Version any    `toml:"version"` // or {workspace = true}
		} `toml:"package"`
		Workspace struct {
			Package struct {
				Version string `toml:"version"`
			} `toml:"package"`
		} `toml:"workspace"`
	}
	if err := toml.Unmarshal(b, &manifest); err != nil {
		return Component{}, fmt.Errorf("reading %s: %w", s.Name, err)
	}
	c := Component{Name: manifest.Package.Name, Version: manifest.Workspace.Package.Version}
	if c.Name == "" {
		abs, err := filepath.Abs(filepath.Join(p.req.Source, pkg.Path))
		if err != nil {
			return Component{}, err
		}
		c.Name = filepath.Base(abs)
	}
	if v, ok := manifest.Package.Version.(string); ok {
		c.Version = v
	}
	subpath := ""
	if repo.vcsURL() != "" && pkg.Path != "." {
		subpath = pkg.Path
	}
	c.PURL = purl("cargo", "", c.Name, c.Version, map[string]string{"vcs_url": repo.vcsURL()}, subpath)
	return c, nil
}

// gitCrates adds the packages of a Cargo.lock that come from git.
func (p *Plan) gitCrates(pkg konflux.PrefetchPackage, all map[string][]Component) error {
	b, s, err := p.read(pkg, "Cargo.lock")
	if err != nil {
		return err
	}
	var file struct {
		Packages []struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			Source  string `toml:"source"`
		} `toml:"package"`
	}
	if err := toml.Unmarshal(b, &file); err != nil {
		return fmt.Errorf("reading %s: %w", s.Name, err)
	}
	for _, c := range file.Packages {
		if !strings.HasPrefix(c.Source, "git+") {
			continue
		}
		address, commit, _ := strings.Cut(c.Source, "#")
		address, _, _ = strings.Cut(address, "?")
		all["cargo"] = append(all["cargo"], Component{
			Name: c.Name, Version: c.Version,
			PURL: purl("cargo", "", c.Name, c.Version, map[string]string{"vcs_url": address + "@" + commit}, ""),
		})
	}
	return nil
}

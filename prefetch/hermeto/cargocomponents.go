package hermeto

import (
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/BurntSushi/toml"

	"caisson/lock"
	"caisson/lock/cargo"
	"caisson/lock/konflux"
)

// crate is the component of a crate of the lock.
func (p *Plan) crate(in *lock.Input) Component {
	name, version, _ := strings.Cut(strings.TrimSuffix(in.URL, "/"), "/")
	c := Component{Name: name, Version: version}
	q := map[string]string{"checksum": in.SHA256.Hex()}
	if in.Registry != cargo.CratesIO {
		q["repository_url"] = strings.TrimPrefix(in.Registry, "registry+")
	} else {
		c.References = p.req.Settings.crateReferences()
	}
	c.PURL = purl("cargo", "", c.Name, c.Version, q, "")
	return c
}

// cargoComponents are those packages of the Cargo.locks that are no crates of a
// registry: the sources' own, and those of git repositories.
func (p *Plan) cargoComponents() ([]Component, error) {
	var out []Component
	for _, pkg := range p.req.Input.Packages {
		if pkg.Type != "cargo" {
			continue
		}
		b, s, err := p.read(pkg, "Cargo.lock")
		if err != nil {
			return nil, err
		}
		type locked struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			Source  string `toml:"source"`
		}
		var file struct {
			Root     locked   `toml:"root"` // before Cargo 1.17
			Packages []locked `toml:"package"`
		}
		if err := toml.Unmarshal(b, &file); err != nil {
			return nil, fmt.Errorf("reading %s: %w", s.Name, err)
		}
		folders, err := p.cargoFolders(pkg)
		if err != nil {
			return nil, err
		}
		for _, c := range append(file.Packages, file.Root) {
			switch dir, own := folders[c.Name]; {
			case c.Name == "":
			case c.Source == "" && own:
				local, err := p.localCrate(c.Name, c.Version, dir)
				if err != nil {
					return nil, err
				}
				out = append(out, local)
			case strings.HasPrefix(c.Source, "git+"):
				address, commit, _ := strings.Cut(c.Source, "#")
				address, _, _ = strings.Cut(address, "?")
				q := map[string]string{"vcs_url": address + "@" + commit}
				out = append(out, Component{Name: c.Name, Version: c.Version, PURL: purl("cargo", "", c.Name, c.Version, q, "")})
			}
		}
	}
	return out, nil
}

// cargoFolders are the folders of a source's own packages, by name.
func (p *Plan) cargoFolders(pkg konflux.PrefetchPackage) (map[string]string, error) {
	root, err := os.OpenRoot(p.req.Source)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	all, err := cargo.Folders(root.FS(), pkg.Path)
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, dir := range all {
		b, s, err := p.read(konflux.PrefetchPackage{Path: dir}, "Cargo.toml")
		if err != nil {
			return nil, err
		}
		var manifest struct {
			Package struct {
				Name string `toml:"name"`
			} `toml:"package"`
		}
		if err := toml.Unmarshal(b, &manifest); err != nil {
			return nil, fmt.Errorf("reading %s: %w", s.Name, err)
		}
		out[manifest.Package.Name] = dir
	}
	return out, nil
}

// localCrate is the component of a package in a folder of the source.
func (p *Plan) localCrate(name, version, dir string) (Component, error) {
	c := Component{Name: name, Version: version}
	at := filepath.Join(p.req.Source, filepath.FromSlash(dir))
	r, err := p.repository(at)
	if err != nil {
		return c, err
	}
	subpath := ""
	if r.vcsURL() != "" {
		if subpath, err = r.rel(at); err != nil {
			return c, err
		}
	}
	c.PURL = purl("cargo", "", name, version, map[string]string{"vcs_url": r.vcsURL()}, strings.TrimPrefix(path.Clean("/"+subpath), "/"))
	return c, nil
}

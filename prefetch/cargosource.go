package prefetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/BurntSushi/toml"
)

// The registry of crates.io, as Cargo.lock writes it, and its indexes.
const (
	cratesIOName   = "crates-io"
	cratesIOGit    = "https://github.com/rust-lang/crates.io-index"
	cratesIOSparse = "sparse+https://index.crates.io/"
)

// maxCargoConfig is the size in bytes above which a configuration is refused.
const maxCargoConfig = 1 << 20

// cargoSource is one [source.NAME] or [registries.NAME] of cargo's configuration.
type cargoSource struct {
	Registry      string `toml:"registry"`
	ReplaceWith   string `toml:"replace-with"`
	Directory     string `toml:"directory"`
	LocalRegistry string `toml:"local-registry"`
	Git           string `toml:"git"`
	Index         string `toml:"index"` // of [registries.NAME]
}

// cargoConfig is what cargo's configuration says of registries.
type cargoConfig struct {
	Source     map[string]cargoSource `toml:"source"`
	Registries map[string]cargoSource `toml:"registries"`
}

// readCargoConfig reads the configuration as cargo does: the files in dir and
// above it, nearest first, then the one in home; the nearest that says a
// thing counts. index is what the environment says.
func readCargoConfig(dir, home string, index map[string]string) (*cargoConfig, error) {
	var folders []string
	if filepath.IsAbs(dir) {
		for d := filepath.Clean(dir); ; d = filepath.Dir(d) {
			folders = append(folders, filepath.Join(d, ".cargo"))
			if d == filepath.Dir(d) {
				break
			}
		}
	}
	if home != "" {
		folders = append(folders, filepath.Clean(home))
	}
	all := &cargoConfig{Source: make(map[string]cargoSource), Registries: make(map[string]cargoSource)}
	seen := make(map[string]bool)
	for _, folder := range folders {
		if seen[folder] {
			continue
		}
		seen[folder] = true
		one, err := readCargoFile(folder)
		if err != nil {
			return nil, fmt.Errorf("reading cargo's configuration: %w", err)
		}
		merge(all.Source, one.Source)
		merge(all.Registries, one.Registries)
	}
	for name := range all.Registries {
		if v := index[cargoEnvName(name)]; v != "" {
			all.Registries[name] = cargoSource{Index: v}
		}
	}
	for name, v := range index {
		if _, ok := all.Registries[name]; !ok {
			all.Registries[name] = cargoSource{Index: v}
		}
	}
	return all, nil
}

// cargoEnvName is a registry's name as variables of the environment have it.
func cargoEnvName(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// readCargoFile reads the configuration of one folder, empty where there is
// none. "config" is the old name, and counts where both are there.
func readCargoFile(folder string) (cargoConfig, error) {
	var c cargoConfig
	for _, name := range []string{"config", "config.toml"} {
		path := filepath.Join(folder, name)
		fi, err := os.Stat(path)
		if errors.Is(err, fs.ErrNotExist) || err == nil && !fi.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return c, err
		}
		if fi.Size() > maxCargoConfig {
			return c, fmt.Errorf("%s: %d bytes, want at most %d", path, fi.Size(), maxCargoConfig)
		}
		if _, err := toml.DecodeFile(path, &c); err != nil {
			return c, fmt.Errorf("%s: %w", path, err)
		}
		for name, s := range c.Source { // relative to the folder above .cargo
			if s.LocalRegistry != "" && !filepath.IsAbs(s.LocalRegistry) {
				s.LocalRegistry = filepath.Join(filepath.Dir(folder), s.LocalRegistry)
				c.Source[name] = s
			}
		}
		return c, nil
	}
	return c, nil
}

// merge adds to all what it does not say yet.
func merge(all, further map[string]cargoSource) {
	for name, f := range further {
		s := all[name]
		for _, p := range []struct {
			have *string
			more string
		}{
			{&s.Registry, f.Registry}, {&s.ReplaceWith, f.ReplaceWith}, {&s.Directory, f.Directory},
			{&s.LocalRegistry, f.LocalRegistry}, {&s.Git, f.Git}, {&s.Index, f.Index},
		} {
			if *p.have == "" {
				*p.have = p.more
			}
		}
		all[name] = s
	}
}

// registryAddress is where a registry's crates are to be had: the address of
// a sparse index, or the folder of a local registry.
type registryAddress struct {
	index, local string
}

// find follows a registry, as Cargo.lock writes it, through the replacements.
func (c *cargoConfig) find(registry string) (registryAddress, error) {
	addr, ok := strings.CutPrefix(registry, "registry+")
	if !ok && !strings.HasPrefix(addr, "sparse+") {
		return registryAddress{}, fmt.Errorf("registry %q: want registry+URL or sparse+URL", registry)
	}
	name := c.nameOf(addr)
	for range 16 {
		s, ok := c.Source[name]
		if !ok || name == "" {
			s = c.Registries[name]
		}
		switch {
		case s.ReplaceWith != "":
			name, addr = s.ReplaceWith, ""
			continue
		case s.LocalRegistry != "":
			return registryAddress{local: s.LocalRegistry}, nil
		case s.Directory != "" || s.Git != "":
			return registryAddress{}, fmt.Errorf("cargo's source %q is a folder of sources or a git repository: its crates have no .crate files", name)
		case s.Registry != "":
			addr = s.Registry
		case s.Index != "":
			addr = s.Index
		case name == cratesIOName:
			addr = cratesIOSparse
		case addr == "":
			return registryAddress{}, fmt.Errorf("cargo's source %q is not configured", name)
		}
		return sparseIndex(addr)
	}
	return registryAddress{}, fmt.Errorf("cargo's source %q is replaced in a circle", name)
}

// nameOf is the name that the configuration has for an address, or empty.
func (c *cargoConfig) nameOf(addr string) string {
	same := func(s string) bool { return s != "" && strings.TrimSuffix(s, "/") == strings.TrimSuffix(addr, "/") }
	if same(cratesIOGit) || same(cratesIOSparse) {
		return cratesIOName
	}
	best := ""
	for name, s := range c.Source {
		if same(s.Registry) && (best == "" || name < best) {
			best = name
		}
	}
	for name, s := range c.Registries {
		if same(s.Index) && best == "" {
			best = name
		}
	}
	return best
}

func sparseIndex(addr string) (registryAddress, error) {
	if strings.TrimSuffix(addr, "/") == cratesIOGit {
		addr = cratesIOSparse
	}
	index, ok := strings.CutPrefix(addr, "sparse+")
	if !ok {
		return registryAddress{}, fmt.Errorf("registry %s has a git index, which is not supported yet; name its sparse one in cargo's configuration", safeURL(addr))
	}
	return registryAddress{index: strings.TrimSuffix(index, "/") + "/"}, nil
}

// crateID is the form of a crate's URL in a lock.
var crateID = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9_-]*)/([0-9][0-9A-Za-z.+-]*)$`)

// downloads knows the download addresses of the indexes that were asked.
type downloads struct {
	mu sync.Mutex
	at map[string]*download
}

type download struct {
	mu       sync.Mutex
	template string // empty as long as nobody has asked
	err      error
}

func (d *downloads) of(index string) *download {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at == nil {
		d.at = make(map[string]*download)
	}
	e := d.at[index]
	if e == nil {
		e = new(download)
		d.at[index] = e
	}
	return e
}

// crate is where a crate "NAME/VERSION" of a registry is.
func (f *Fetcher) crate(ctx context.Context, registry, id, checksum string) ([]candidate, error) {
	m := crateID.FindStringSubmatch(id)
	if m == nil {
		return nil, fmt.Errorf("crate %q: want NAME/VERSION", id)
	}
	name, version := m[1], m[2]
	conf, err := f.cargo()
	if err != nil {
		return nil, err
	}
	at, err := conf.find(registry)
	if err != nil {
		return nil, err
	}
	if at.local != "" {
		u := url.URL{Scheme: "file", Path: filepath.Join(at.local, name+"-"+version+".crate")}
		return []candidate{{url: u.String()}}, nil
	}
	template, err := f.template(ctx, at.index)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(template, "{") {
		template = strings.TrimSuffix(template, "/") + "/{crate}/{version}/download"
	}
	if strings.Contains(template, "{sha256-checksum}") && checksum == "" {
		return nil, fmt.Errorf("registry %s wants a checksum in the address, and there is none for %s", safeURL(at.index), id)
	}
	prefix := cratePrefix(name)
	u := strings.NewReplacer("{crate}", name, "{version}", version, "{prefix}", prefix,
		"{lowerprefix}", strings.ToLower(prefix), "{sha256-checksum}", checksum).Replace(template)
	return []candidate{{url: u}}, nil
}

// cratePrefix is the folder of a crate in an index.
func cratePrefix(name string) string {
	switch len(name) {
	case 1, 2:
		return fmt.Sprint(len(name))
	case 3:
		return "3/" + name[:1]
	}
	return name[:2] + "/" + name[2:4]
}

// template asks an index, once, for its "dl".
func (f *Fetcher) template(ctx context.Context, index string) (string, error) {
	e := f.dl.of(index)
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.template != "" || e.err != nil {
		return e.template, e.err
	}
	t, err := f.askTemplate(ctx, index)
	if err != nil {
		if ctx.Err() == nil {
			e.err = err
		}
		return "", err
	}
	e.template = t
	return t, nil
}

func (f *Fetcher) askTemplate(ctx context.Context, index string) (string, error) {
	to, err := f.store.Create()
	if err != nil {
		return "", err
	}
	defer to.Discard()
	address := index + "config.json"
	if err := f.client.Get(ctx, Request{URL: address}, to); err != nil {
		return "", err
	}
	if to.Size() > maxCargoConfig {
		return "", fmt.Errorf("%s: %d bytes, want at most %d", safeURL(address), to.Size(), maxCargoConfig)
	}
	var conf struct {
		DL   string `json:"dl"`
		Auth bool   `json:"auth-required"`
	}
	if err := json.NewDecoder(io.NewSectionReader(to, 0, to.Size())).Decode(&conf); err != nil {
		return "", fmt.Errorf("%s: %w", safeURL(address), err)
	}
	switch {
	case conf.Auth:
		return "", fmt.Errorf("registry %s wants a token, which is not supported yet", safeURL(index))
	case conf.DL == "":
		return "", fmt.Errorf("%s: there is no \"dl\" in it", safeURL(address))
	}
	return conf.DL, nil
}

package prefetch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"caisson/lock"
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
	// Of [registries.NAME].
	Index    string `toml:"index"`
	Token    string `toml:"token"`
	Provider any    `toml:"credential-provider"` // a text, or a list with arguments
}

// cargoConfig is what cargo's configuration says of registries.
type cargoConfig struct {
	Source     map[string]cargoSource `toml:"source"`
	Registries map[string]cargoSource `toml:"registries"`
	Registry   struct {
		Global []any `toml:"global-credential-providers"`
	} `toml:"registry"`
	HTTP CargoHTTP `toml:"http"`
}

// CargoHTTP is how cargo reaches registries, as [http] of its configuration and
// CARGO_HTTP_PROXY and CARGO_HTTP_CAINFO have it.
type CargoHTTP struct {
	Proxy  string `toml:"proxy"`
	CAInfo string `toml:"cainfo"`
}

// fill takes from another what is not said yet.
func (h *CargoHTTP) fill(other CargoHTTP) {
	h.Proxy, h.CAInfo = cmp.Or(h.Proxy, other.Proxy), cmp.Or(h.CAInfo, other.CAInfo)
}

// auth is how a registry's server is reached, as a lock would say it; nil for
// as all others are.
func (h CargoHTTP) auth() *lock.Auth {
	if h == (CargoHTTP{}) {
		return nil
	}
	a := &lock.Auth{Proxy: h.Proxy}
	if h.CAInfo != "" {
		a.TLS = &lock.AuthTLS{CA: h.CAInfo}
	}
	return a
}

// readCargoConfig reads the configuration as cargo does: the files in dir and
// above it, nearest first, then the one in home; the nearest that says a
// thing counts, but credentials.toml in home before all of them. index and
// tokens are what the environment says, and count first.
func readCargoConfig(dir, home string, index, tokens map[string]string, http CargoHTTP) (*cargoConfig, error) {
	all := &cargoConfig{Source: make(map[string]cargoSource), Registries: make(map[string]cargoSource), HTTP: http}
	if home != "" {
		secret, err := readCargoFile(filepath.Clean(home), "credentials", "credentials.toml")
		if err != nil {
			return nil, fmt.Errorf("reading cargo's credentials: %w", err)
		}
		for name, s := range secret.Registries {
			all.Registries[name] = cargoSource{Token: s.Token}
		}
	}
	seen := make(map[string]bool)
	for _, folder := range cargoFolders(dir, home) {
		if seen[folder] {
			continue
		}
		seen[folder] = true
		one, err := readCargoFile(folder, "config", "config.toml")
		if err != nil {
			return nil, fmt.Errorf("reading cargo's configuration: %w", err)
		}
		merge(all.Source, one.Source)
		merge(all.Registries, one.Registries)
		all.HTTP.fill(one.HTTP)
		if all.Registry.Global == nil {
			all.Registry.Global = one.Registry.Global
		}
	}
	all.override(index, func(s *cargoSource, v string) { *s = cargoSource{Index: v, Token: s.Token, Provider: s.Provider} })
	all.override(tokens, func(s *cargoSource, v string) { s.Token = v })
	return all, nil
}

// cargoFolders are where configuration may be, the nearest first.
func cargoFolders(dir, home string) []string {
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
	return folders
}

// override has what the environment says of registries count. The registries
// may be in no file at all.
func (c *cargoConfig) override(env map[string]string, set func(s *cargoSource, v string)) {
	known := make(map[string]bool)
	for name, s := range c.Registries {
		if v := env[cargoEnvName(name)]; v != "" {
			set(&s, v)
			c.Registries[name] = s
			known[cargoEnvName(name)] = true
		}
	}
	for name, v := range env {
		if !known[name] && v != "" {
			s := cargoSource{}
			set(&s, v)
			c.Registries[name] = s
		}
	}
}

// cargoEnvName is a registry's name as variables of the environment have it.
func cargoEnvName(name string) string {
	return strings.ReplaceAll(strings.ToLower(name), "-", "_")
}

// readCargoFile reads the configuration of one folder, empty where there is
// none. The first of the names is the old one, and counts where both are there.
func readCargoFile(folder string, names ...string) (cargoConfig, error) {
	var c cargoConfig
	for _, name := range names {
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
			var at toml.ParseError
			if errors.As(err, &at) { // without the line itself, which may be a token's
				err = fmt.Errorf("line %d: not TOML", at.Position.Line)
			}
			return c, fmt.Errorf("%s: %w", path, err)
		}
		for name, s := range c.Source { // relative to the folder above .cargo
			if s.LocalRegistry != "" && !filepath.IsAbs(s.LocalRegistry) {
				s.LocalRegistry = filepath.Join(filepath.Dir(folder), s.LocalRegistry)
				c.Source[name] = s
			}
		}
		if ca := c.HTTP.CAInfo; ca != "" && !filepath.IsAbs(ca) {
			c.HTTP.CAInfo = filepath.Join(filepath.Dir(folder), ca)
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
			{&s.LocalRegistry, f.LocalRegistry}, {&s.Git, f.Git}, {&s.Index, f.Index}, {&s.Token, f.Token},
		} {
			if *p.have == "" {
				*p.have = p.more
			}
		}
		if s.Provider == nil {
			s.Provider = f.Provider
		}
		all[name] = s
	}
}

// registryAddress is where a registry's crates are to be had: the address of
// a sparse index, or the folder of a local registry.
type registryAddress struct {
	index, local string
	token        string // what its server is logged in to by; may be empty
	// elsewhere is where the token has to be asked for, which is not done;
	// empty where token is all there is.
	elsewhere string
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
		at, err := sparseIndex(addr)
		at.token, at.elsewhere = c.credentials(name, addr)
		return at, err
	}
	return registryAddress{}, fmt.Errorf("cargo's source %q is replaced in a circle", name)
}

// credentials are the token of a registry, and the provider that cargo would
// ask where it has none, as [registries.NAME] says for its name or its index.
func (c *cargoConfig) credentials(name, addr string) (token, elsewhere string) {
	s, ok := c.Registries[name]
	for _, other := range sortedNames(c.Registries) {
		if r := c.Registries[other]; !ok && sameIndex(r.Index, addr) {
			s, ok = r, true
		}
	}
	providers := c.Registry.Global
	if s.Provider != nil {
		providers = []any{s.Provider}
	}
	for _, p := range slices.Backward(providers) { // the last one counts first
		if list, ok := p.([]any); ok && len(list) > 0 {
			p = list[0]
		}
		if p == "cargo:token" {
			return s.Token, ""
		}
		elsewhere = cmp.Or(elsewhere, fmt.Sprint(p))
	}
	if elsewhere == "" {
		return s.Token, ""
	}
	return "", elsewhere
}

func sortedNames(m map[string]cargoSource) []string {
	out := make([]string, 0, len(m))
	for name := range m {
		out = append(out, name)
	}
	slices.Sort(out)
	return out
}

// sameIndex tells whether two addresses are those of one registry.
func sameIndex(a, b string) bool {
	return a != "" && strings.TrimSuffix(a, "/") == strings.TrimSuffix(b, "/")
}

// nameOf is the name that the configuration has for an address, or empty.
func (c *cargoConfig) nameOf(addr string) string {
	if sameIndex(cratesIOGit, addr) || sameIndex(cratesIOSparse, addr) {
		return cratesIOName
	}
	for _, name := range sortedNames(c.Source) {
		if sameIndex(c.Source[name].Registry, addr) {
			return name
		}
	}
	for _, name := range sortedNames(c.Registries) {
		if sameIndex(c.Registries[name].Index, addr) {
			return name
		}
	}
	return ""
}

func sparseIndex(addr string) (registryAddress, error) {
	if strings.TrimSuffix(addr, "/") == cratesIOGit {
		addr = cratesIOSparse
	}
	index, ok := strings.CutPrefix(addr, "sparse+")
	if !ok {
		return registryAddress{}, fmt.Errorf("registry %s has a git index, which is not read; name its sparse one in cargo's configuration", safeURL(addr))
	}
	return registryAddress{index: strings.TrimSuffix(index, "/") + "/"}, nil
}

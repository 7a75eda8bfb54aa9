package cargo

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sort"
	"strings"

	"caisson/lock/digest"

	"github.com/BurntSushi/toml"
)

const (
	// maxManifest bounds a crate's Cargo.toml, in bytes; web-sys, which has
	// the largest in wide use, needs 100 KiB.
	maxManifest = 4 << 20
	// maxUnpacked bounds a crate's unpacked size, in bytes, as crates.io does.
	maxUnpacked = 512 << 20
)

// indexLine is one version of a crate as an index describes it: "Index
// Format" in the chapter on registries of The Cargo Book.
type indexLine struct {
	Name     string              `json:"name"`
	Vers     string              `json:"vers"`
	Deps     []indexDep          `json:"deps"`
	Cksum    string              `json:"cksum"`
	Features map[string][]string `json:"features"`
	// Features2 are those with "dep:" or "?/", which cargo before 1.60 cannot
	// read; V is 2 where there are any.
	Features2   map[string][]string `json:"features2,omitempty"`
	Yanked      bool                `json:"yanked"`
	Links       *string             `json:"links"`
	RustVersion string              `json:"rust_version,omitempty"`
	V           int                 `json:"v,omitempty"`
}

type indexDep struct {
	Name            string   `json:"name"` // the name in the manifest, which may be another
	Req             string   `json:"req"`
	Features        []string `json:"features"`
	Optional        bool     `json:"optional"`
	DefaultFeatures bool     `json:"default_features"`
	Target          *string  `json:"target"`
	Kind            string   `json:"kind"`               // normal, build or dev
	Registry        *string  `json:"registry,omitempty"` // null: the crate's own
	Package         *string  `json:"package,omitempty"`  // the crate's name, where Name may be another
}

// IndexLine is the line, without a newline, by which a registry's index
// describes the crate, made from the manifest inside its .crate file. It is
// an error if the file has another SHA-256 than the crate's, or holds another
// crate.
func IndexLine(c Crate, cratePath string) ([]byte, error) {
	f, err := os.Open(cratePath)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	h := sha256.New()
	manifest, err := readManifest(io.TeeReader(f, h), c.Name+"-"+c.Version+"/Cargo.toml")
	if err != nil {
		return nil, fmt.Errorf("%s: reading %s: %w", c.File(), cratePath, err)
	}
	if _, err := io.Copy(h, f); err != nil {
		return nil, fmt.Errorf("%s: reading %s: %w", c.File(), cratePath, err)
	}
	if sum := digest.Digest(h.Sum(nil)).Hex(); sum != c.Checksum {
		return nil, fmt.Errorf("%s: %s has sha256:%s, want sha256:%s", c.File(), cratePath, sum, c.Checksum)
	}
	line, err := lineOf(c, manifest)
	if err != nil {
		return nil, fmt.Errorf("%s: Cargo.toml: %w", c.File(), err)
	}
	return line, nil
}

// readManifest returns one file of a gzipped tar archive. It may leave the
// rest of r unread.
func readManifest(r io.Reader, name string) ([]byte, error) {
	gz, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	defer gz.Close()
	tr := tar.NewReader(io.LimitReader(gz, maxUnpacked))
	for {
		hdr, err := tr.Next()
		if err == io.EOF {
			return nil, fmt.Errorf("no %s in it", name)
		}
		if err != nil {
			return nil, err
		}
		if hdr.Name != name {
			continue
		}
		if hdr.Typeflag != tar.TypeReg || hdr.Size > maxManifest {
			return nil, fmt.Errorf("%s is no file, or larger than %d bytes", name, maxManifest)
		}
		return io.ReadAll(tr)
	}
}

// manifest is what we read of a crate's Cargo.toml. Dependencies stay raw:
// a version alone or a table.
type manifest struct {
	Package struct {
		Name        string `toml:"name"`
		Version     string `toml:"version"`
		Links       string `toml:"links"`
		RustVersion string `toml:"rust-version"`
	} `toml:"package"`
	manifestDeps
	Features map[string][]string     `toml:"features"`
	Target   map[string]manifestDeps `toml:"target"`
}

// manifestDeps are the dependency tables of a manifest or of a target; the
// names with an underscore are old ones.
type manifestDeps struct {
	Dependencies map[string]any `toml:"dependencies"`
	Build        map[string]any `toml:"build-dependencies"`
	BuildOld     map[string]any `toml:"build_dependencies"`
	Dev          map[string]any `toml:"dev-dependencies"`
	DevOld       map[string]any `toml:"dev_dependencies"`
}

// lineOf makes the index line from a manifest as cargo normalises it when a
// crate is published.
func lineOf(c Crate, b []byte) ([]byte, error) {
	var m manifest
	if _, err := toml.Decode(string(b), &m); err != nil {
		return nil, err
	}
	if m.Package.Name != c.Name || m.Package.Version != c.Version {
		return nil, fmt.Errorf("it is %q %q, want %q %q", m.Package.Name, m.Package.Version, c.Name, c.Version)
	}
	line := indexLine{
		Name: c.Name, Vers: c.Version, Cksum: c.Checksum,
		Deps: []indexDep{}, Features: map[string][]string{},
		RustVersion: m.Package.RustVersion,
	}
	if m.Package.Links != "" {
		line.Links = &m.Package.Links
	}
	var err error
	if line.Deps, err = appendDeps(line.Deps, m.manifestDeps, nil, c.Source); err != nil {
		return nil, err
	}
	for target, deps := range m.Target {
		if line.Deps, err = appendDeps(line.Deps, deps, &target, c.Source); err != nil {
			return nil, fmt.Errorf("target %s: %w", target, err)
		}
	}
	sortDeps(line.Deps)
	for name, values := range m.Features {
		if values == nil {
			values = []string{}
		}
		if slices.ContainsFunc(values, isFeature2) {
			if line.Features2 == nil {
				line.Features2, line.V = make(map[string][]string), 2
			}
			line.Features2[name] = values
		} else {
			line.Features[name] = values
		}
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(line); err != nil {
		return nil, err
	}
	return bytes.TrimRight(out.Bytes(), "\n"), nil
}

// isFeature2 tells whether a feature's value needs an index of version 2.
func isFeature2(v string) bool {
	return strings.HasPrefix(v, "dep:") || strings.Contains(v, "?/")
}

func appendDeps(out []indexDep, deps manifestDeps, target *string, source string) ([]indexDep, error) {
	for _, t := range []struct {
		kind  string
		table map[string]any
	}{
		{"normal", deps.Dependencies},
		{"build", deps.Build}, {"build", deps.BuildOld},
		{"dev", deps.Dev}, {"dev", deps.DevOld},
	} {
		for name, v := range t.table {
			d, err := dependency(name, v, source)
			if err != nil {
				return nil, fmt.Errorf("%s dependency %q: %w", t.kind, name, err)
			}
			d.Kind, d.Target = t.kind, target
			out = append(out, d)
		}
	}
	return out, nil
}

// dependency reads one entry of a dependency table, for a crate of source.
func dependency(name string, v any, source string) (indexDep, error) {
	d := indexDep{Name: name, Req: "*", DefaultFeatures: true, Features: []string{}}
	if req, ok := v.(string); ok {
		d.Req = req
		d.Registry = registryOf("", source)
		return d, nil
	}
	table, ok := v.(map[string]any)
	if !ok {
		return d, errors.New("neither a version nor a table")
	}
	var pkg, registry string
	for key, v := range table {
		var err error
		switch key {
		case "version":
			err = set(&d.Req, v)
		case "optional":
			err = set(&d.Optional, v)
		case "default-features", "default_features":
			err = set(&d.DefaultFeatures, v)
		case "package":
			err = set(&pkg, v)
		case "registry-index":
			err = set(&registry, v)
		case "features":
			err = setStrings(&d.Features, v)
		case "workspace":
			err = errors.New("inherited from a workspace, which a published crate has not")
		}
		if err != nil {
			return d, fmt.Errorf("%s: %w", key, err)
		}
	}
	if pkg != "" {
		d.Package = &pkg
	}
	d.Registry = registryOf(registry, source)
	return d, nil
}

// registryOf is a dependency's registry in the index of source, nil for that
// same one; index is what the manifest says, empty for crates.io.
func registryOf(index, source string) *string {
	if index == "" {
		index = strings.TrimPrefix(CratesIO, "registry+")
	}
	if plain(index) == plain(source) {
		return nil
	}
	return &index
}

// plain is a registry's address without "registry+", and the same one for
// both of crates.io's.
func plain(source string) string {
	if source == cratesIOSparse {
		source = CratesIO
	}
	return strings.TrimPrefix(source, "registry+")
}

func set[T any](dst *T, v any) error {
	t, ok := v.(T)
	if !ok {
		return fmt.Errorf("got a %T, want a %T", v, *dst)
	}
	*dst = t
	return nil
}

func setStrings(dst *[]string, v any) error {
	list, ok := v.([]any)
	if !ok {
		return fmt.Errorf("got a %T, want a list", v)
	}
	for _, e := range list {
		var s string
		if err := set(&s, e); err != nil {
			return err
		}
		*dst = append(*dst, s)
	}
	return nil
}

// sortDeps orders dependencies by kind, name and target: tables have no order.
func sortDeps(deps []indexDep) {
	key := func(d indexDep) string {
		t := ""
		if d.Target != nil {
			t = *d.Target
		}
		return d.Kind + "\x00" + d.Name + "\x00" + t
	}
	sort.SliceStable(deps, func(i, j int) bool { return key(deps[i]) < key(deps[j]) })
}

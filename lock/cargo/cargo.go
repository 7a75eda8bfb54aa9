// Package cargo reads which crates a Cargo.lock names, and writes the lines by
// which a registry's index describes them.
//
// Read understands Cargo.lock's versions 1 to 4. Every crate it returns comes
// from a registry and is pinned by the SHA-256 of its .crate file. Packages
// without a source are folders of the tree itself. Git dependencies have no
// checksum and are refused.
//
// An index line (see IndexLine) is made from the crate's own manifest, so
// that cargo can resolve from .crate files alone, with no copy of the index.
package cargo

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"sort"
	"strings"

	"caisson/lock/digest"

	"github.com/BurntSushi/toml"
	"golang.org/x/mod/semver"
)

// maxLock bounds a Cargo.lock, in bytes; one with 1000 crates has 0.3 MiB.
const maxLock = 16 << 20

// CratesIO is the source of crates.io's crates, as Cargo.lock writes it.
const CratesIO = "registry+https://github.com/rust-lang/crates.io-index"

// cratesIOSparse is the same registry by its sparse index's address.
const cratesIOSparse = "sparse+https://index.crates.io/"

// Crate is one version of a crate of a registry.
type Crate struct {
	Name, Version string
	Source        string // the registry: "registry+https://…" or "sparse+https://…"
	Checksum      string // SHA-256 of the .crate file, 64 hex digits
}

// File is the crate's file name: "serde-1.0.229.crate".
func (c Crate) File() string { return c.Name + "-" + c.Version + ".crate" }

// Both end up in file names; versions are semantic ones, with build metadata.
var (
	crateName    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,127}$`)
	crateVersion = regexp.MustCompile(`^[0-9][0-9A-Za-z.+-]{0,127}$`)
)

// lockFile is what we read of a Cargo.lock.
type lockFile struct {
	Version  int               `toml:"version"`
	Root     *lockPackage      `toml:"root"` // version 1: the root package
	Packages []lockPackage     `toml:"package"`
	Metadata map[string]string `toml:"metadata"` // versions 1 and 2: checksums
}

type lockPackage struct {
	Name     string `toml:"name"`
	Version  string `toml:"version"`
	Source   string `toml:"source"`
	Checksum string `toml:"checksum"`
}

// Read returns the registry crates that the Cargo.lock at the top of fsys
// names, sorted by name, version and source.
func Read(fsys fs.FS) ([]Crate, error) {
	f, err := fsys.Open("Cargo.lock")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading Cargo.lock: %w; run `cargo generate-lockfile`", err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading Cargo.lock: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxLock+1))
	if err != nil {
		return nil, fmt.Errorf("reading Cargo.lock: %w", err)
	}
	if len(b) > maxLock {
		return nil, fmt.Errorf("reading Cargo.lock: larger than %d bytes", maxLock)
	}
	crates, err := parseLock(b)
	if err != nil {
		return nil, fmt.Errorf("parsing Cargo.lock: %w", err)
	}
	return crates, nil
}

func parseLock(b []byte) ([]Crate, error) {
	var lf lockFile
	if _, err := toml.Decode(string(b), &lf); err != nil {
		return nil, err
	}
	if lf.Version < 0 || lf.Version > 4 {
		return nil, fmt.Errorf("version %d: want 1 to 4", lf.Version)
	}
	pkgs := lf.Packages
	if lf.Root != nil {
		pkgs = append(pkgs, *lf.Root)
	}
	var out []Crate
	seen := make(map[Crate]bool)
	for _, p := range pkgs {
		if p.Source == "" {
			continue
		}
		c, err := lf.crate(p)
		if err != nil {
			return nil, fmt.Errorf("package %q %s: %w", p.Name, p.Version, err)
		}
		id := Crate{Name: c.Name, Version: c.Version, Source: c.Source}
		if seen[id] {
			return nil, fmt.Errorf("package %q %s: listed twice", p.Name, p.Version)
		}
		seen[id] = true
		out = append(out, c)
	}
	sortCrates(out)
	return out, nil
}

// crate checks a package and finds its checksum.
func (lf *lockFile) crate(p lockPackage) (Crate, error) {
	c := Crate(p)
	kind, url, _ := strings.Cut(p.Source, "+")
	switch {
	case kind == "git":
		return c, fmt.Errorf("not supported yet: git dependency %s", url)
	case kind != "registry" && kind != "sparse" || url == "":
		return c, fmt.Errorf("source %q: want \"registry+URL\" or \"sparse+URL\"", p.Source)
	case !crateName.MatchString(c.Name):
		return c, errors.New("not a crate's name")
	case !crateVersion.MatchString(c.Version):
		return c, errors.New("not a crate's version")
	}
	if c.Checksum == "" {
		c.Checksum = lf.Metadata["checksum "+p.Name+" "+p.Version+" ("+p.Source+")"]
	}
	if c.Checksum == "" || c.Checksum == "<none>" {
		return c, fmt.Errorf("no checksum; %s has none for it", p.Source)
	}
	if _, err := digest.ParseHex(c.Checksum); err != nil {
		return c, err
	}
	return c, nil
}

func sortCrates(cs []Crate) {
	sort.Slice(cs, func(i, j int) bool {
		a, b := cs[i], cs[j]
		if a.Name != b.Name {
			return a.Name < b.Name
		}
		if c := semver.Compare("v"+a.Version, "v"+b.Version); c != 0 {
			return c < 0
		}
		if a.Version != b.Version {
			return a.Version < b.Version
		}
		return a.Source < b.Source
	})
}

// IndexPath is where a registry's index has a crate, relative to its top:
// "1/a", "2/ab", "3/a/abc", "se/rd/serde", in lower case.
func IndexPath(name string) string {
	n := strings.ToLower(name)
	switch len(n) {
	case 0, 1, 2:
		return fmt.Sprintf("%d/%s", len(n), n)
	case 3:
		return "3/" + n[:1] + "/" + n
	}
	return n[:2] + "/" + n[2:4] + "/" + n
}

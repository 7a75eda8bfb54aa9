// Package cargo reads which crates and git repositories a Cargo.lock names,
// and writes the lines by which a registry's index describes crates.
//
// Read understands Cargo.lock's versions 1 to 4. A crate comes from a registry
// and is pinned by the SHA-256 of its .crate file. A git dependency is pinned
// by its commit; one repository may have several packages. Packages without a
// source are folders of the tree itself: Folders finds them.
//
// An index line (see IndexLine) is made from the crate's own manifest, so
// that cargo can resolve from .crate files alone, with no copy of the index.
package cargo

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"regexp"
	"slices"
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

// Lock is what a Cargo.lock names.
type Lock struct {
	Version int     // 1 to 4
	Crates  []Crate // sorted by name, version and source
	Git     []Git   // sorted by address, reference and commit
}

// Crate is one version of a crate of a registry.
type Crate struct {
	Name, Version string
	Source        string // the registry: "registry+https://…" or "sparse+https://…"
	Checksum      string // SHA-256 of the .crate file, 64 hex digits
	// By is the package that depends on it, "NAME VERSION": the first one in
	// breadth-first order from the tree's own, which are the empty By.
	By string
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
	// Patch has the packages of [patch] that nothing uses: cargo wants those of
	// git all the same.
	Patch struct {
		Unused []lockPackage `toml:"unused"`
	} `toml:"patch"`
}

type lockPackage struct {
	Name         string   `toml:"name"`
	Version      string   `toml:"version"`
	Source       string   `toml:"source"`
	Checksum     string   `toml:"checksum"`
	Dependencies []string `toml:"dependencies"` // "NAME", "NAME VERSION" or "NAME VERSION (SOURCE)"
}

// Read returns what the Cargo.lock at the top of fsys names.
func Read(fsys fs.FS) (*Lock, error) {
	b, err := readFile(fsys, "Cargo.lock", maxLock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; run `cargo generate-lockfile`", err)
	}
	if err != nil {
		return nil, err
	}
	l, err := parseLock(b)
	if err != nil {
		return nil, fmt.Errorf("parsing Cargo.lock: %w", err)
	}
	return l, nil
}

// readFile reads a file of the tree, up to limit bytes.
func readFile(fsys fs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("reading %s: larger than %d bytes", name, limit)
	}
	return b, nil
}

func parseLock(b []byte) (*Lock, error) {
	var lf lockFile
	if _, err := toml.Decode(string(b), &lf); err != nil {
		return nil, err
	}
	if lf.Version < 0 || lf.Version > 4 {
		return nil, fmt.Errorf("version %d: want 1 to 4", lf.Version)
	}
	pkgs := lf.Packages
	if lf.Root != nil {
		pkgs = append([]lockPackage{*lf.Root}, pkgs...)
	}
	by := dependents(pkgs)
	l := &Lock{Version: lf.version()}
	seen := make(map[lockID]bool)
	repos := make(map[Git]bool)
	for i, p := range append(pkgs, lf.Patch.Unused...) {
		if p.Source == "" {
			continue
		}
		unused := i >= len(pkgs)
		err := p.check()
		switch {
		case err != nil:
		case seen[p.id()]:
			err = errors.New("listed twice")
		case strings.HasPrefix(p.Source, "git+"):
			var g Git
			if g, err = parseGit(p.Source, l.Version); err == nil && !repos[g] {
				repos[g] = true
				g.By = by[p.id()]
				l.Git = append(l.Git, g)
			}
		case unused: // a crate that no build reads
		default:
			var c Crate
			if c, err = lf.crate(p); err == nil {
				c.By = by[p.id()]
				l.Crates = append(l.Crates, c)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("package %q %s: %w", p.Name, p.Version, err)
		}
		seen[p.id()] = true
	}
	slices.SortFunc(l.Crates, compareCrates)
	slices.SortFunc(l.Git, compareGit)
	return l, nil
}

// version is the lock's version, which 1 and 2 do not say: 1 has its
// checksums in a table, and its dependencies are written out.
func (lf *lockFile) version() int {
	switch {
	case lf.Version != 0:
		return lf.Version
	case lf.Root != nil || len(lf.Metadata) > 0:
		return 1
	}
	return 2
}

// lockID is what makes a package one, as dependencies name it: a git source
// without its commit.
type lockID struct{ name, version, source string }

func (p lockPackage) id() lockID {
	source, _, _ := strings.Cut(p.Source, "#")
	return lockID{p.Name, p.Version, source}
}

// check refuses what cannot be a package's name or version.
func (p lockPackage) check() error {
	switch {
	case !crateName.MatchString(p.Name):
		return errors.New("not a crate's name")
	case !crateVersion.MatchString(p.Version):
		return errors.New("not a crate's version")
	}
	return nil
}

// dependents finds for each package one that depends on it, "NAME VERSION":
// the first in breadth-first order from those of the tree.
func dependents(pkgs []lockPackage) map[lockID]string {
	byName := make(map[string][]lockPackage)
	for _, p := range pkgs {
		byName[p.Name] = append(byName[p.Name], p)
	}
	by := make(map[lockID]string)
	seen := make(map[lockID]bool)
	var queue []lockPackage
	for _, p := range pkgs {
		if p.Source == "" && !seen[p.id()] {
			seen[p.id()] = true
			queue = append(queue, p)
		}
	}
	for i := 0; i < len(queue); i++ {
		p := queue[i]
		for _, d := range p.Dependencies {
			name, rest, _ := strings.Cut(d, " ")
			version, source, _ := strings.Cut(rest, " ")
			source, _, _ = strings.Cut(strings.Trim(source, "()"), "#")
			for _, q := range byName[name] {
				id := q.id()
				if seen[id] || version != "" && version != q.Version || source != "" && source != id.source {
					continue
				}
				seen[id] = true
				if p.Source != "" {
					by[id] = p.Name + " " + p.Version
				}
				queue = append(queue, q)
			}
		}
	}
	return by
}

// crate checks a package of a registry and finds its checksum.
func (lf *lockFile) crate(p lockPackage) (Crate, error) {
	c := Crate{Name: p.Name, Version: p.Version, Source: p.Source, Checksum: p.Checksum}
	kind, url, _ := strings.Cut(p.Source, "+")
	if kind != "registry" && kind != "sparse" || url == "" {
		return c, fmt.Errorf("source %q: want \"registry+URL\", \"sparse+URL\" or \"git+URL\"", p.Source)
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

func compareCrates(a, b Crate) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), semver.Compare("v"+a.Version, "v"+b.Version),
		cmp.Compare(a.Version, b.Version), cmp.Compare(a.Source, b.Source))
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

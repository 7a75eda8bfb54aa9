// Package hermeto does what Hermeto's fetch-deps does, with Caisson's store,
// proofs and views: it takes Hermeto's input, reads the same lock files of a
// source folder, and leaves the same output for what still expects it.
//
// # Input
//
// gomod, cargo, rpm and generic are done, and no other type. go.mod and go.sum
// (of workspaces too, and of what stands in other folders of the source),
// Cargo.lock, rpms.lock.yaml and artifacts.lock.yaml (1.0 and 2.0) are made one
// lock, which pins every file by its SHA-256, and which is left beside the
// output as caisson.lock: with it and the store anybody can check the output,
// or make it again. What this is stricter in than Hermeto:
//
//   - There is no permissive mode: a file that is not pinned is an error, an
//     RPM without a checksum too.
//   - Checksums are SHA-256, SHA-384 or SHA-512. TLS certificates are always
//     verified: options.ssl's ssl_verify may not be false, for whoever answers
//     would be logged in to.
//   - In a login (auth) the password or the token has an environment variable in
//     it: the lock beside the output repeats the text.
//   - RPM signatures are checked where keys are given, and always that a package
//     is the one that the file says.
//   - A vendor folder is compared with the modules that it was made of, whose
//     files are in the output too.
//   - No symbolic link leads out of the source. The source is never copied, and
//     no package manager is run.
//
// Of Hermeto's configuration (see Settings) the proxies of gomod and cargo, the
// environment variables of gomod, time limits, retries and connections count.
//
// # Output
//
//	deps/gomod/pkg/mod/cache/download/…   a module cache and proxy, as Hermeto's; with the toolchain that go.mod names
//	deps/cargo/REGISTRY/…                 local registries, where Hermeto vendors: cargo verifies these
//	deps/cargo/git/…                      git repositories, for crates that are from there
//	deps/rpm/ARCH/REPO/…                  packages, with repodata and modules, which Hermeto leaves to inject-files
//	deps/generic/FILE
//	.build-config.json                    environment variables, project files, dnf options
//	bom.json                              CycloneDX 1.6 or SPDX 2.3
//	caisson.lock
//
// Where rpms.lock.yaml gives a package no repository, it lies in "unaffiliated", where
// Hermeto's is "hermeto-" and a random number.
//
// # SBOM
//
// Components, package URLs, properties and annotations are Hermeto's, and so are
// SPDX's ids and relationships; hashes are added, nothing depends on the time
// of the run, and the tool is called caisson. What is otherwise:
//
//   - Of the standard library of Go there are the packages that others import,
//     and what these import only where the lock has the toolchain: which one
//     compiles is not known else. All are those of a build for Linux, for each
//     arch, with cgo unless the flag cgo-disable is given, without experiments.
//   - Of a workspace, or a go.mod below 1.17, there are all modules of the sum
//     files, as all are fetched.
//   - Modules and crates in folders of the source are called by where they lie in
//     the git repository that has them, a submodule too, and members of a Rust
//     workspace are such and not crates of crates.io. Tags are those of the
//     clone: nothing asks its origin for more.
//   - Outside git, and without an origin, a module is called by its own path.
//
// Conforma applies its rules for prefetched packages to what Hermeto has
// found. For SPDX its rule looks for "hermeto" in an annotator, and finds
// "caisson:hermeto-compatible". For CycloneDX it wants the property
// hermeto:found_by to be "hermeto", so that is there, beside caisson:found_by.
// Its rules for registry proxies look for what proxies Hermeto's configuration
// names, and that is told here too.
package hermeto

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
)

// maxFile is the largest lock file or go.mod that is read, in bytes.
const maxFile = 64 << 20

// Request is what is to be fetched.
type Request struct {
	Input *konflux.PrefetchInput
	// Digest is that of the input's text.
	Digest digest.Digest
	// Source is the folder that the input's paths are relative to.
	Source string
	// Arches are the machines that Go toolchains are for, beside those of
	// rpms.lock.yaml.
	Arches []string
	// Keys are OpenPGP key files. Where there are any, every RPM has to be
	// signed by one.
	Keys []string
	// Epoch is the time that is written into the SBOM, in seconds since 1970.
	Epoch int64
	// Settings are Hermeto's configuration; nil for its defaults.
	Settings *Settings
	Store    *cas.Store
	// Fetch brings a file that is pinned by another checksum than SHA-256.
	Fetch lock.Fetch
	// Resolve locks what the Go and Cargo sources of a manifest need.
	Resolve func(ctx context.Context, m *lock.Manifest) (*lock.Lock, error)
}

// Plan is a request with all files known: Write makes the output of it when
// the store has them.
type Plan struct {
	Lock *lock.Lock

	req       Request
	artifacts map[string]konflux.Artifact // by file name
	summaries map[string]bool             // names of packages whose summary goes into the SBOM
	repos     map[string]*repository      // by the folders of their worktrees
	// alone says that a Go source is one folder, as a build takes it, and no
	// go.work above it counts.
	alone bool
}

// UnpinnedError says that a lock file names a file without its SHA-256.
type UnpinnedError struct {
	File, URL, Checksum string
}

func (e *UnpinnedError) Error() string {
	return fmt.Sprintf("%s: %s has the checksum %q, and so is not pinned by a SHA-256", e.File, e.URL, e.Checksum)
}

// New reads the lock files and pins all that they name.
func New(ctx context.Context, req Request) (*Plan, error) {
	p := &Plan{req: req, artifacts: map[string]konflux.Artifact{}, summaries: map[string]bool{}, repos: map[string]*repository{}}
	var locks []*lock.Lock
	m := &lock.Manifest{Version: 1, Name: "prefetch", Arches: req.Arches}
	for _, pkg := range req.Input.Packages {
		var l *lock.Lock
		var err error
		switch pkg.Type {
		case "rpm":
			l, err = p.rpms(ctx, pkg)
		case "generic":
			l, err = p.generic(ctx, pkg)
		case "gomod":
			g := lock.ManifestGo{}
			g.Dir, g.Toolchain, l, err = p.goSource(pkg)
			if g.Name = g.Dir; !slices.Contains(m.Inputs.Go, g) { // not twice for a workspace
				m.Inputs.Go = append(m.Inputs.Go, g)
			}
		case "cargo":
			l, err = p.sources(pkg, "Cargo.toml", "Cargo.lock")
			m.Inputs.Cargo = append(m.Inputs.Cargo, lock.ManifestCargo{Name: pkg.Path, Dir: pkg.Path})
		default:
			err = errors.New("not done here")
		}
		if err != nil {
			return nil, fmt.Errorf("%s in %q: %w", pkg.Type, pkg.Path, err)
		}
		locks = append(locks, l)
		m.Arches = append(m.Arches, l.Arches...)
	}
	slices.Sort(m.Arches)
	m.Arches = slices.Compact(m.Arches)
	if len(m.Inputs.Go)+len(m.Inputs.Cargo) > 0 {
		l, err := req.Resolve(ctx, m)
		if err != nil {
			return nil, err
		}
		locks = append(locks, l)
	}
	var err error
	if p.Lock, err = lock.Merge("prefetch", req.Digest, locks...); err != nil {
		return nil, err
	}
	p.Lock.Epoch = req.Epoch
	return p, nil
}

// read is a file of a package, and what the lock notes of it.
func (p *Plan) read(pkg konflux.PrefetchPackage, name string) ([]byte, lock.Source, error) {
	rel := path.Join(pkg.Path, name)
	at := filepath.Join(p.req.Source, filepath.FromSlash(rel))
	if filepath.IsAbs(name) {
		rel, at = name, name
	} else if err := inside(p.req.Source, at); err != nil {
		return nil, lock.Source{}, err
	}
	f, err := os.Open(at)
	if err != nil {
		return nil, lock.Source{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(b) > maxFile {
		err = fmt.Errorf("reading %s: more than the %d bytes that are read", rel, maxFile)
	}
	return b, lock.Source{Name: rel, SHA256: digest.Of(b)}, err
}

// inside refuses a file that symbolic links lead out of the source.
func inside(source, at string) error {
	root, err := filepath.EvalSymlinks(source)
	if err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(at)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("%s leads out of the source", at)
	}
	return nil
}

// sources notes the files that say what a package needs.
func (p *Plan) sources(pkg konflux.PrefetchPackage, names ...string) (*lock.Lock, error) {
	l := &lock.Lock{}
	for _, name := range names {
		_, s, err := p.read(pkg, name)
		if err != nil {
			return nil, err
		}
		l.Sources = append(l.Sources, s)
	}
	return l, nil
}

// lockfile is the path of a package's artifacts.lock.yaml.
func lockfile(pkg konflux.PrefetchPackage) string { return cmp.Or(pkg.Lockfile, "artifacts.lock.yaml") }

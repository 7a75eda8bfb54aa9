// Package hermeto does what Hermeto's fetch-deps does, with Caisson's store,
// proofs and views: it takes Hermeto's input, reads the same lock files of a
// source folder, and leaves the same output for what still expects it.
//
// # Input
//
// gomod, cargo, rpm and generic are done. go.mod and go.sum, Cargo.lock,
// rpms.lock.yaml and artifacts.lock.yaml (1.0 and 2.0) are made one lock, which
// pins every file by its SHA-256, and which is left beside the output as
// caisson.lock: with it and the store anybody can check the output, or make it
// again. What this is stricter in than Hermeto:
//
//   - There is no permissive mode: a file that is not pinned is an error, an
//     RPM without a checksum too.
//   - Checksums are SHA-256, or SHA-384 and SHA-512 for generic files.
//     TLS certificates are always verified.
//   - RPM signatures are checked where keys are given.
//   - A vendor folder is compared with the modules that it was made of.
//   - The whole source is never copied, and no package manager is run.
//
// # Output
//
//	deps/gomod/pkg/mod/cache/download/…   a module cache and proxy, as Hermeto's; with the toolchain that go.mod names
//	deps/cargo/REGISTRY/…                 local registries, where Hermeto vendors: cargo verifies these
//	deps/rpm/ARCH/REPO/…                  packages, with repodata, which Hermeto leaves to inject-files
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
// Components, package URLs, properties and annotations are Hermeto's; hashes
// are added, nothing depends on the time of the run, and the tool is called
// caisson. Of Go there are the modules, not their packages, and not those of
// the standard library: which are used is known when the program is built.
//
// Conforma applies its rules for prefetched packages to what Hermeto has
// found. For SPDX its rule looks for "hermeto" in an annotator, and finds
// "caisson:hermeto-compatible". For CycloneDX it wants the property
// hermeto:found_by to be "hermeto", so that is there, beside caisson:found_by.
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
	"strings"

	"caisson/lock"
	"caisson/lock/digest"
	"caisson/lock/konflux"
	"caisson/prefetch/cas"
	"caisson/prefetch/rpmsig"
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

// rpms is the lock of an rpms.lock.yaml.
func (p *Plan) rpms(ctx context.Context, pkg konflux.PrefetchPackage) (*lock.Lock, error) {
	b, source, err := p.read(pkg, "rpms.lock.yaml")
	if err != nil {
		return nil, err
	}
	k, err := konflux.ParseLock(source.Name, b)
	if err != nil {
		return nil, err
	}
	if pkg.BinaryArch != "" {
		want := strings.Split(pkg.BinaryArch, ",")
		var have []string
		for _, a := range k.Arches {
			have = append(have, a.Arch)
		}
		for _, a := range want {
			if !slices.Contains(have, a) {
				return nil, fmt.Errorf("binary.arch: %s has no %s, only %s", source.Name, a, strings.Join(have, ", "))
			}
		}
		k.Arches = slices.DeleteFunc(k.Arches, func(a konflux.LockArch) bool { return !slices.Contains(want, a.Arch) })
	}
	tls, err := sslAuth(pkg)
	if err != nil {
		return nil, err
	}
	for _, a := range k.Arches {
		for _, list := range [][]konflux.LockFile{a.Packages, a.Source, a.ModuleMetadata} {
			if err := p.pinRPMs(ctx, source.Name, list, tls); err != nil {
				return nil, err
			}
		}
	}
	l, err := lock.FromKonflux("prefetch", k, source.SHA256)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", source.Name, err)
	}
	l.Sources = append(l.Sources, source)
	for i := range l.Repos {
		l.Repos[i].Auth = tls
	}
	for i := range l.Inputs {
		if l.Inputs[i].Repo == "" {
			l.Inputs[i].Auth = tls
		}
	}
	if err := p.trust(l); err != nil {
		return nil, err
	}
	for i := range l.Inputs {
		if pkg.IncludeSummary {
			p.summaries[l.Inputs[i].Name] = true
		}
	}
	return l, nil
}

// pinRPMs gives all files a SHA-256: those that are pinned by a longer checksum
// are fetched for it.
func (p *Plan) pinRPMs(ctx context.Context, name string, files []konflux.LockFile, tls *lock.Auth) error {
	for i := range files {
		f := &files[i]
		switch algorithm, _, _ := strings.Cut(strings.ToLower(f.Checksum), ":"); algorithm {
		case "sha256":
		case "sha384", "sha512":
			d, size, err := p.pin(ctx, lock.Want{Kind: lock.KindFile, URL: f.URL, Size: f.Size, Auth: tls}, f.Checksum)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", name, f.URL, err)
			}
			if f.Size > 0 && f.Size != size {
				return fmt.Errorf("%s: %s: got %d bytes, want %d", name, f.URL, size, f.Size)
			}
			f.Checksum, f.Size = d.String(), size
		default:
			return &UnpinnedError{File: name, URL: f.URL, Checksum: f.Checksum}
		}
	}
	return nil
}

// sslAuth is options.ssl as a login, nil for none.
func sslAuth(pkg konflux.PrefetchPackage) (*lock.Auth, error) {
	if pkg.SSLVerify != nil && !*pkg.SSLVerify {
		return nil, errors.New("options.ssl: ssl_verify false: whoever answers would be believed to be the server, and be logged in to; name the certificate of the server's authority as ca_bundle")
	}
	tls := lock.AuthTLS{Cert: pkg.SSLClientCert, Key: pkg.SSLClientKey, CA: pkg.SSLCACert}
	if tls == (lock.AuthTLS{}) {
		return nil, nil
	}
	for _, f := range []struct {
		key  string
		file *string
	}{{"client_cert", &tls.Cert}, {"client_key", &tls.Key}, {"ca_bundle", &tls.CA}} {
		if *f.file == "" {
			continue
		}
		fi, err := os.Stat(*f.file)
		if err == nil && !fi.Mode().IsRegular() {
			err = fmt.Errorf("%s is not a file", *f.file)
		}
		if err == nil {
			*f.file, err = filepath.Abs(*f.file) // as Hermeto has it: of the current folder
		}
		if err != nil {
			return nil, fmt.Errorf("options.ssl: %s: %w", f.key, err)
		}
	}
	return &lock.Auth{TLS: &tls}, nil
}

// trust makes the keys those that all packages have to be signed by.
func (p *Plan) trust(l *lock.Lock) error {
	if len(p.req.Keys) == 0 {
		return nil
	}
	var all []string
	for _, name := range p.req.Keys {
		b, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		ring, err := rpmsig.ReadKeys(b)
		if err != nil {
			return fmt.Errorf("reading the key %s: %w", name, err)
		}
		d, n, err := p.req.Store.Put(strings.NewReader(string(b)), digest.Of(b))
		if err != nil {
			return err
		}
		abs, err := filepath.Abs(name)
		if err != nil {
			return err
		}
		all = append(all, ring.Fingerprints()...)
		in := lock.Input{
			Kind: lock.KindKey, Name: d.Hex()[:16], URL: "file://" + filepath.ToSlash(abs), Size: n, SHA256: d,
			Fingerprint: strings.Join(ring.Fingerprints(), ","),
		}
		l.Inputs = append(l.Inputs, in)
	}
	slices.Sort(all)
	all = slices.Compact(all)
	for i := range l.Repos {
		l.Repos[i].GPGCheck, l.Repos[i].Keys = true, all
	}
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.RPM == nil {
			continue
		}
		if in.Repo == "" {
			return fmt.Errorf("%s has no repoid, and so no keys by which its signature can be checked", in.Name)
		}
		in.RPM.Signed = true
	}
	return nil
}

// lockfile is the path of a package's artifacts.lock.yaml.
func lockfile(pkg konflux.PrefetchPackage) string { return cmp.Or(pkg.Lockfile, "artifacts.lock.yaml") }

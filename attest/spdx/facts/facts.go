// Package facts reads, from the inputs in a store, what a bill of materials
// says of them and a lock does not: who made a package, under which licence, and
// what it requires.
//
// Each file is verified as a whole before it is read: nothing that is read
// here can differ from what the lock pins. What cannot be read, or is longer
// than a megabyte, is an error; of an SBOM in a form that is not known, or of more
// than 64 MiB, it is said that it is so.
package facts

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/cavaliergopher/rpm"

	"caisson/attest/spdx"
	"caisson/build/rootfs"
	"caisson/lock"
	"caisson/lock/rpmmd"
	"caisson/prefetch/cas"
)

// maxText is the longest of the texts that are read, in bytes.
const maxText = 1 << 20

// Of reads the facts of one input: an RPM, a zip of a Go module, a crate, or the
// SBOM of an OCI image.
func Of(store *cas.Store) func(*lock.Input) (spdx.Facts, error) {
	return func(in *lock.Input) (spdx.Facts, error) {
		f, err := store.Open(in.SHA256)
		if err != nil {
			return spdx.Facts{}, err
		}
		defer f.Close()
		if err := f.Verify(); err != nil {
			return spdx.Facts{}, err
		}
		switch {
		case in.RPM != nil:
			return ofRPM(f)
		case in.Go != nil:
			return ofModule(f, f.Size(), in.Go.Module+"@"+in.Go.Version+"/")
		case in.Kind == lock.KindCrate:
			return ofCrate(f, strings.TrimSuffix(in.Name, ".crate"))
		case in.OCI != nil && in.OCI.Role == lock.RoleSBOM:
			return ofSBOM(f)
		}
		return spdx.Facts{}, nil
	}
}

// ofRPM reads an RPM's header.
func ofRPM(f io.ReadSeeker) (spdx.Facts, error) {
	p, err := rpm.Read(full{bufio.NewReader(f)})
	if err != nil {
		return spdx.Facts{}, fmt.Errorf("reading the RPM's headers: %w", err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return spdx.Facts{}, err
	}
	content, err := rootfs.ReadPackage(bufio.NewReader(f))
	if err != nil {
		return spdx.Facts{}, fmt.Errorf("reading the RPM's files: %w", err)
	}
	facts := spdx.Facts{
		Vendor: p.Vendor(), Packager: p.Packager(), License: p.License(), URL: p.URL(), Summary: p.Summary(),
	}
	for _, c := range content.Files {
		facts.Paths = append(facts.Paths, c.Path)
	}
	if facts.Requires, err = dependencies(p, tagRequire); err != nil {
		return spdx.Facts{}, err
	}
	facts.Provides, err = dependencies(p, tagProvide)
	return facts, err
}

// dependencyTags are the tags of a header that make up a list of dependencies.
type dependencyTags struct{ name, flags, version int }

// Tags and flags of dependencies (rpm's rpmtag.h and rpmds.h).
var (
	tagRequire = dependencyTags{1049, 1048, 1050}
	tagProvide = dependencyTags{1047, 1112, 1113}
)

const (
	flagLess    = 1 << 1
	flagGreater = 1 << 2
	flagEqual   = 1 << 3
	flagRpmlib  = 1 << 24
)

func dependencies(p *rpm.Package, tags dependencyTags) ([]spdx.Dependency, error) {
	names, flags, versions := p.Header.GetTag(tags.name).StringSlice(), p.Header.GetTag(tags.flags).Int64Slice(), p.Header.GetTag(tags.version).StringSlice()
	if len(flags) != len(names) || len(versions) != len(names) {
		return nil, fmt.Errorf("reading the RPM's headers: %d dependencies, %d flags and %d versions", len(names), len(flags), len(versions))
	}
	var out []spdx.Dependency
	for i, name := range names {
		if flags[i]&flagRpmlib != 0 || strings.HasPrefix(name, "rpmlib(") {
			continue
		}
		d := spdx.Dependency{Name: name}
		for _, f := range []struct {
			bit  int64
			flag rpmmd.Flags
		}{{flagLess, rpmmd.Less}, {flagEqual, rpmmd.Equal}, {flagGreater, rpmmd.Greater}} {
			if flags[i]&f.bit != 0 {
				d.Flags |= f.flag
			}
		}
		if d.Flags != 0 && versions[i] != "" {
			evr, err := rpmmd.ParseEVR(versions[i])
			if err != nil {
				return nil, fmt.Errorf("dependency %q: %w", name, err)
			}
			d.EVR = evr
		}
		out = append(out, d)
	}
	return out, nil
}

// full fills the buffer, which the rpm library takes for granted.
type full struct{ r io.Reader }

func (f full) Read(b []byte) (int, error) {
	n, err := io.ReadFull(f.r, b)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// readText reads a text that may not be longer than maxText.
func readText(name string, r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxText+1))
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	if len(b) > maxText {
		return "", fmt.Errorf("reading %s: more than %d bytes", name, maxText)
	}
	return string(b), nil
}

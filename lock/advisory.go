package lock

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"

	"caisson/lock/digest"
	"caisson/lock/rpmmd"
)

// Advisory says what an update is for, as the repository's updateinfo has it.
type Advisory struct {
	ID         string              `json:"id"`
	Type       string              `json:"type,omitempty"`     // "security", "bugfix", "enhancement" …
	Severity   string              `json:"severity,omitempty"` // "Critical", "Important", "Moderate", "Low" …
	Title      string              `json:"title,omitempty"`
	Issued     string              `json:"issued,omitempty"` // as the repository writes it
	References []AdvisoryReference `json:"references,omitempty"`
}

// AdvisoryReference is what an advisory is about.
type AdvisoryReference struct {
	Type  string `json:"type,omitempty"` // "cve", "bugzilla" …
	ID    string `json:"id,omitempty"`
	URL   string `json:"url,omitempty"`
	Title string `json:"title,omitempty"`
}

// AdvisoryIndex is the advisories of a lock's repositories that name one of
// its packages, in whatever version.
type AdvisoryIndex struct {
	byName map[string][]namedBy
}

// namedBy is one package that an advisory names.
type namedBy struct {
	evr      rpmmd.EVR
	arch     string
	advisory *Advisory
}

// Advisories reads the updateinfo of the lock's repositories, of those that
// have it. open gives the file of a digest, verified.
func Advisories(l *Lock, open func(digest.Digest) (io.ReadCloser, error)) (*AdvisoryIndex, error) {
	names := make(map[string]bool)
	for i := range l.Inputs {
		if p := l.Inputs[i].RPM; p != nil {
			names[p.Name] = true
		}
	}
	x := &AdvisoryIndex{byName: make(map[string][]namedBy)}
	read := make(map[digest.Digest]bool)
	for i := range l.Inputs {
		in := &l.Inputs[i]
		if in.Kind != KindRepodata || path.Base(in.Name) != "updateinfo" || read[in.SHA256] {
			continue
		}
		read[in.SHA256] = true
		if err := x.read(in, names, open); err != nil {
			return nil, fmt.Errorf("%s %s: %w", in.Kind, in.Name, err)
		}
	}
	return x, nil
}

// read takes over the advisories of one file.
func (x *AdvisoryIndex) read(in *Input, names map[string]bool, open func(digest.Digest) (io.ReadCloser, error)) error {
	f, err := open(in.SHA256)
	if err != nil {
		return err
	}
	err = rpmmd.ParseUpdateinfo(f, func(from *rpmmd.Advisory) error {
		var a *Advisory
		for _, p := range from.Packages {
			if !names[p.Name] {
				continue
			}
			if a == nil {
				a = &Advisory{ID: from.ID, Type: from.Type, Severity: from.Severity, Title: from.Title, Issued: from.Issued}
				for _, r := range from.References {
					a.References = append(a.References, AdvisoryReference(r))
				}
			}
			x.byName[p.Name] = append(x.byName[p.Name], namedBy{p.EVR, p.Arch, a})
		}
		return nil
	})
	return errors.Join(err, f.Close())
}

// For is the advisories of an update: those that name the version of now, or
// one between before and now. Without before, those that name the version of
// now. They are sorted by id; a downgrade has none.
func (x *AdvisoryIndex) For(before, now *RPM) []Advisory {
	var out []Advisory
	for _, n := range x.byName[now.Name] {
		if n.arch != now.Arch {
			continue
		}
		to := n.evr.Compare(now.evr())
		if to > 0 || before == nil && to != 0 || before != nil && n.evr.Compare(before.evr()) <= 0 {
			continue
		}
		if !slices.ContainsFunc(out, func(a Advisory) bool { return a.ID == n.advisory.ID }) {
			out = append(out, *n.advisory)
		}
	}
	slices.SortFunc(out, func(a, b Advisory) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

// Open is the advisories of a newer version than that of now: what an update
// would bring that is not in the lock. They are sorted by id.
func (x *AdvisoryIndex) Open(now *RPM) []Advisory {
	var out []Advisory
	for _, n := range x.byName[now.Name] {
		if n.arch != now.Arch || n.evr.Compare(now.evr()) <= 0 {
			continue
		}
		if !slices.ContainsFunc(out, func(a Advisory) bool { return a.ID == n.advisory.ID }) {
			out = append(out, *n.advisory)
		}
	}
	slices.SortFunc(out, func(a, b Advisory) int { return cmp.Compare(a.ID, b.ID) })
	return out
}

func (r *RPM) evr() rpmmd.EVR {
	return rpmmd.EVR{Epoch: r.Epoch, Version: r.Version, Release: r.Release}
}

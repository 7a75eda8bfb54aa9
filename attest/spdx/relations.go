package spdx

import (
	"fmt"
	"slices"
	"strings"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/attest/internal/use"
	"caisson/lock"
	"caisson/lock/rpmmd"
)

// Dependency is what an RPM requires or provides.
type Dependency = rpmmd.Dep

// relateInputs says what the inputs are to the image and to each other.
func (w *writer) relateInputs() {
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		u := w.use(in)
		if u == 0 || w.isPartOfModule(in) {
			continue
		}
		id := w.doc.byInput[ref(in)]
		if u&use.Image != 0 || w.linked[ref(in)] {
			w.relate(imageID, common.TypeRelationshipContains, id, "")
		}
		if w.asked(in) {
			w.relate(imageID, common.TypeRelationshipDependsOn, id, "")
		}
		if u&use.Tool != 0 {
			w.relate(id, "BUILD_TOOL_OF", imageID, "")
		}
		if u&use.Source != 0 {
			w.relate(id, common.TypeRelationshipBuildDependencyOf, imageID, "")
		}
		switch {
		case u&use.Metadata == 0:
		case in.Kind == lock.KindKey:
			w.relate(id, "OTHER", imageID, "a key whose signatures on packages and metadata were trusted")
		default:
			w.relate(id, "OTHER", imageID, "repository metadata that the packages were chosen from")
		}
		if in.RPM == nil {
			for _, by := range w.needers(in) {
				w.relate(by, common.TypeRelationshipDependsOn, id, "")
			}
		}
	}
}

// asked tells whether the manifest asks for a package to be in the image.
func (w *writer) asked(in *lock.Input) bool {
	return in.RPM != nil && slices.ContainsFunc(in.For, func(f lock.Use) bool {
		return f.Dep == "" && (f.Arch == "" || f.Arch == w.Image.Arch) &&
			(f.Set == w.Lock.SetFor(lock.SetRoot, w.Image.Variant) || f.Set == w.Lock.SetFor(lock.SetInitrd, w.Image.Variant))
	})
}

// needers are what the lock gives as reasons for a module or a crate: the
// folder whose go.sum or Cargo.lock names it, or another module or crate.
func (w *writer) needers(in *lock.Input) []common.ElementID {
	var ids []common.ElementID
	for _, f := range in.For {
		if f.Dep == "" || !use.Reason(w.Lock, in, f, w.Image.Arch, w.Image.Variant) {
			continue
		}
		for _, name := range []string{
			lock.KindTree + "/" + f.By,
			lock.KindGo + "/" + f.By + ".zip",
			lock.KindGo + "/" + f.By + ".mod",
			lock.KindCrate + "/" + strings.Replace(f.By, " ", "-", 1) + ".crate",
		} {
			if id := w.doc.byInput[name]; id != "" {
				ids = append(ids, id)
				break
			}
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

// addSource adds the source package of an RPM, once, where the lock has it, and
// says that the RPM was made of it.
func (w *writer) addSource(p *v2_3.Package, in *lock.Input) error {
	locked := w.sources[in.RPM.SourceRPM]
	if locked == nil || in.RPM.IsSource() {
		return nil
	}
	if w.packages[ref(locked)] == nil {
		src, err := w.inputPackage(locked)
		if err != nil {
			return fmt.Errorf("%s: %w", ref(locked), err)
		}
		src.PrimaryPackagePurpose, src.PackageComment = "SOURCE", "Packages of the image or of its tools were made of it; no build reads it."
		w.add(ref(locked), src)
	}
	w.relate(p.PackageSPDXIdentifier, "GENERATED_FROM", w.doc.byInput[ref(locked)], "")
	return nil
}

// findSources finds the source packages of the lock, by their files' names.
func (w *writer) findSources() {
	w.sources = map[string]*lock.Input{}
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		if r := in.RPM; r != nil && r.IsSource() {
			w.sources[r.Name+"-"+r.Version+"-"+r.Release+"."+r.Arch+".rpm"] = in
		}
	}
}

// relateRPMs says what the RPMs of each set require of each other.
func (w *writer) relateRPMs() {
	type edge struct{ from, to common.ElementID }
	var edges []edge
	for _, set := range []string{lock.SetInitrd, lock.SetRoot, lock.SetTools} {
		var members []*lock.Input
		for _, in := range w.Lock.Of(w.Image.Arch, w.Lock.SetFor(set, w.Image.Variant)) {
			if in.RPM != nil && w.packages[ref(in)] != nil {
				members = append(members, in)
			}
		}
		providers := map[string][]provision{}
		for _, in := range members {
			f, id := w.facts[ref(in)], w.doc.byInput[ref(in)]
			for _, d := range f.Provides {
				providers[d.Name] = append(providers[d.Name], provision{d, id})
			}
			for _, path := range f.Paths {
				providers[path] = append(providers[path], provision{Dependency{Name: path}, id})
			}
		}
		for _, in := range members {
			id := w.doc.byInput[ref(in)]
			for _, want := range w.facts[ref(in)].Requires {
				for _, p := range providers[want.Name] {
					if p.by != id && satisfies(p.Dependency, want) {
						edges = append(edges, edge{id, p.by})
					}
				}
			}
			for _, f := range in.For { // rich dependencies, and the like
				if by := w.doc.byInput[lock.KindRPM+"/"+f.By]; by != "" && f.Dep != "" && use.Reason(w.Lock, in, f, w.Image.Arch, w.Image.Variant) {
					edges = append(edges, edge{by, id})
				}
			}
		}
	}
	slices.SortFunc(edges, func(a, b edge) int {
		if a.from != b.from {
			return strings.Compare(string(a.from), string(b.from))
		}
		return strings.Compare(string(a.to), string(b.to))
	})
	for _, e := range slices.Compact(edges) {
		w.relate(e.from, common.TypeRelationshipDependsOn, e.to, "")
	}
}

// provision is what a package provides.
type provision struct {
	Dependency
	by common.ElementID
}

// satisfies tells whether what is provided is what is wanted, as rpm does
// where the provided version is one, and not a range: a release counts where both have
// one.
func satisfies(have, want Dependency) bool {
	if have.Flags == 0 || want.Flags == 0 || have.Flags != rpmmd.Equal {
		return true
	}
	a, b := have.EVR, want.EVR
	if a.Release == "" || b.Release == "" {
		a.Release, b.Release = "", ""
	}
	switch c := a.Compare(b); {
	case c < 0:
		return want.Flags&rpmmd.Less != 0
	case c > 0:
		return want.Flags&rpmmd.Greater != 0
	}
	return want.Flags&rpmmd.Equal != 0
}

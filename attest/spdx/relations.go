package spdx

import (
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
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

// addSource adds the source package of an RPM, once, and says that it was made
// of it.
func (w *writer) addSource(p *v2_3.Package, in *lock.Input) {
	file := in.RPM.SourceRPM
	if file == "" {
		return
	}
	id, ok := w.sources[file]
	if !ok {
		src := w.sourcePackage(p, in)
		id = src.PackageSPDXIdentifier
		w.sources[file] = id
		w.doc.packages = append(w.doc.packages, src)
	}
	w.relate(p.PackageSPDXIdentifier, "GENERATED_FROM", id, "")
}

// sourcePackage describes the source package of an RPM: as the lock has it,
// or by its file's name.
func (w *writer) sourcePackage(binary *v2_3.Package, in *lock.Input) *v2_3.Package {
	file := in.RPM.SourceRPM
	src := &v2_3.Package{
		PackageName:             file,
		PackageSPDXIdentifier:   elementID("Source-rpm", file, file),
		PackageFileName:         file,
		PackageSupplier:         binary.PackageSupplier,
		PackageOriginator:       binary.PackageOriginator,
		PackageDownloadLocation: none,
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   "SOURCE",
		PackageComment:          "Named by the header of " + in.Name + "; it is no input of this lock.",
	}
	// NAME-VERSION-RELEASE.src.rpm
	parts := strings.Split(strings.TrimSuffix(file, ".rpm"), "-")
	var purl string
	if n := len(parts); n >= 3 {
		release, arch := parts[n-1], ""
		if i := strings.LastIndexByte(release, '.'); i >= 0 {
			release, arch = release[:i], release[i+1:]
		}
		src.PackageName, src.PackageVersion = strings.Join(parts[:n-2], "-"), parts[n-2]+"-"+release
		purl = packageurl.NewPackageURL(packageurl.TypeRPM, "", src.PackageName, src.PackageVersion,
			packageurl.QualifiersFromMap(map[string]string{"arch": arch}), "").ToString()
	}
	for i := range w.Lock.Inputs {
		locked := &w.Lock.Inputs[i]
		r := locked.RPM
		if r == nil || !r.IsSource() || r.Name+"-"+r.Version+"-"+r.Release+"."+r.Arch+".rpm" != file {
			continue
		}
		src.PackageChecksums, purl = sha256Sum(locked.SHA256), locked.PURL
		src.PackageComment = "An input of the lock, for whoever wants the sources; no build reads it."
		if u, ok := w.location(locked); ok {
			src.PackageDownloadLocation = u
		}
		break
	}
	if purl != "" {
		src.PackageExternalReferences = []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: purl},
		}
	}
	return src
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

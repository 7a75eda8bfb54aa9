package spdx

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/lock"
)

// Imported is a package that the bill of materials of an OCI image lists. What is
// not known is empty.
type Imported struct {
	// ID names it in its document, where it need not be unique.
	ID            string
	Name, Version string
	PURL          string
	License       string // in its own words
	Supplier      string
	SHA256        string // in hex
	// Needs are IDs of what it depends on.
	Needs []string
}

// importSBOM adds what the bill of materials of an OCI image lists, as parts of
// that image.
func (w *writer) importSBOM(p *v2_3.Package, in *lock.Input) error {
	f, err := w.Facts(in)
	if err != nil {
		return err
	}
	if f.NotImported != "" {
		p.PackageComment += " What it lists is not here: " + oneLine(f.NotImported) + "."
		return nil
	}
	p.PackageComment += " What it lists is here, as its own word: " + strconv.Itoa(len(f.Imported)) + " packages."
	w.imports = append(w.imports, imported{in, f.Imported})
	return nil
}

// imported is what the bill of materials that is an input lists.
type imported struct {
	in   *lock.Input
	list []Imported
}

// addImported adds the packages, when the packages of all inputs are known.
func (w *writer) addImported() {
	for _, im := range w.imports {
		image := w.imageOf(im.in)
		ids := map[string]common.ElementID{}
		for i := range im.list {
			c := &im.list[i]
			id := elementID("Imported", ref(im.in)+"\n"+c.ID+"\n"+strconv.Itoa(i), c.Name+" "+c.Version) // never clean: it has a blank
			if _, twice := ids[c.ID]; !twice {
				ids[c.ID] = id
			}
			w.doc.packages = append(w.doc.packages, w.importedPackage(c, id, im.in))
			w.relate(image, common.TypeRelationshipContains, id, "")
		}
		for i := range im.list {
			for _, need := range im.list[i].Needs {
				from, to := ids[im.list[i].ID], ids[need]
				if to != "" && from != to {
					w.relate(from, common.TypeRelationshipDependsOn, to, "")
				}
			}
		}
	}
}

func (w *writer) importedPackage(c *Imported, id common.ElementID, in *lock.Input) *v2_3.Package {
	p := &v2_3.Package{
		PackageName:             oneLine(c.Name),
		PackageSPDXIdentifier:   id,
		PackageVersion:          oneLine(c.Version),
		PackageSupplier:         &common.Supplier{Supplier: none},
		PackageDownloadLocation: none,
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PackageSourceInfo:       "listed by the SBOM " + in.SHA256.String() + " of the image " + in.OCI.Ref,
	}
	if s := oneLine(c.Supplier); s != "" {
		p.PackageSupplier = organization(s)
	}
	if c.SHA256 != "" {
		p.PackageChecksums = []common.Checksum{{Algorithm: common.SHA256, Value: c.SHA256}}
	}
	if c.PURL != "" {
		p.PackageExternalReferences = []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: c.PURL},
		}
	}
	w.setLicense(p, Facts{License: c.License})
	return p
}

// imageOf is the package of the OCI image that an SBOM is of: its manifest for
// this machine, or its index.
func (w *writer) imageOf(sbom *lock.Input) common.ElementID {
	var index, manifest common.ElementID
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		if in.OCI == nil || in.OCI.Ref != sbom.OCI.Ref || w.use(in) == 0 || !sameImage(in.Name, sbom.Name) {
			continue
		}
		switch in.OCI.Role {
		case lock.RoleIndex:
			index = w.doc.byInput[ref(in)]
		case lock.RoleManifest:
			manifest = w.doc.byInput[ref(in)]
		}
	}
	return cmp.Or(manifest, index, w.doc.byInput[ref(sbom)])
}

// sameImage compares the names of parts of OCI images up to the first slash: the
// manifest's name for the image.
func sameImage(a, b string) bool {
	a, _, _ = strings.Cut(a, "/")
	b, _, _ = strings.Cut(b, "/")
	return a == b
}

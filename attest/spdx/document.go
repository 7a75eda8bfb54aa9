// Package spdx writes the software bill of materials of an image, as an SPDX
// 2.3 document in JSON.
//
// Limits first: copyright texts are not looked for, and nobody has read the
// sources: what is concluded of a licence rests on what is declared. What of a
// crate is in a binary is
// not looked at: crates that are listed were given to the compiler.
//
// # What is in it
//
// One package for the image, which the document describes; one for the lock;
// one for each input of the lock that serves this image (by machine, variant
// and set): RPMs, Go modules, crates, toolchains, git trees, parts of OCI images,
// files, folders, repository metadata and keys; and one for the source package of
// each RPM, where the lock has it (else the RPM's package names it). The go.mod of a module whose zip
// is there is a part of that module; one of a module that no zip is there of was
// read to choose versions, and is a mere file, because nothing of that module is
// in the image.
// The comment of an RPM whose signature the lock demands
// names the key that it was proved by. One file for each regular file of root,
// initrd and ESP, named ./PART/PATH, with SHA-1 (which section 8.4 demands) and
// SHA-256; its comment begins with its account.
// Folders, symbolic links and devices have no content to sum: they are
// counted in the image's comment.
//
//	image CONTAINS package                 its files are in root or initrd; a Go module: it is in a program there
//	package CONTAINS file                  the file is as its vendor packaged it
//	image CONTAINS file                    every other file
//	file GENERATED_FROM package            packaged and then changed, compiled, placed, generated; of the lock where
//	                                       nothing tells of which of its inputs
//	package GENERATED_FROM package         an RPM, and its source package
//	image DEPENDS_ON package               the manifest asks for it
//	package DEPENDS_ON package             an RPM and what provides what it requires, in one set; else why the lock has the second one
//	package BUILD_TOOL_OF image            the tools set and toolchains
//	package BUILD_DEPENDENCY_OF image      sources, modules, crates, files, folders
//	package DEPENDENCY_MANIFEST_OF image   the lock
//	package CONTAINS package               an OCI image, and what its own SBOM lists: that one's word, and no more
//	package OTHER image                    repository metadata, keys
//
// A package of which the image has files is one with analysed files: its
// verification code (section 7.9) covers those, not what the package holds
// besides. The image's code covers all its files.
//
// # Licences
//
// A declared licence is what RPM header, Cargo.toml or LICENSE file say, as
// package license reads it; what the SPDX list does not have is a LicenseRef
// whose text is those words. The words themselves are in the comment. The
// concluded licence is the declared one: nothing else was looked at.
//
// # Who, and where from
//
// The supplier of an RPM is its vendor, of what came from a server that server's
// host (crates.io for its crates), and of the image and what lay beside the
// manifest who the manifest names as its supplier: NOASSERTION where it names
// nobody. Package URLs are the lock's, and have besides where the file came from
// (download_url) and, for RPMs of the image, its os-release's distribution
// (distro). A CPE is given where os-release has one, to the package that brings
// that. Inputs carry the annotation by which Conforma knows what a prefetcher
// brought.
//
// # The same bytes
//
// The document is a function of lock and image: one line of JSON, without
// blanks, each element as tools-golang writes it. Its time is the lock's epoch,
// its namespace is made of the digests of image and lock, and its creator is
// Caisson with the revision of this format, not with the version of a
// binary: whoever rebuilds the image can write it again. It is written as a
// stream; what is in memory are the packages, and the list of files that was given.
package spdx

import (
	"fmt"
	"strings"
	"time"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/attest/internal/use"
	"caisson/build"
	"caisson/lock"
	"caisson/lock/digest"
)

// Revision names the form of the document: it rises when the same lock and
// image would give other bytes.
const Revision = 3

const (
	none      = "NOASSERTION"
	namespace = "https://caisson.dev/spdx/"
	imageID   = "Image"
	lockID    = "Lock"
)

// Subject is what a document is written from.
type Subject struct {
	// Name is the document's: the reference that the image is published under, with
	// the digest of the Manifest.
	Name string
	// Manifest is that of the OCI image that holds the disk.
	Manifest   digest.Digest
	Lock       *lock.Lock
	LockDigest digest.Digest
	Image      build.Image
	// Disk is the disk image's file, and PURL its package URL.
	Disk build.Output
	PURL string
	// Files are all files of the image: files.json.
	Files []build.File
	// Facts gives what only the input itself says, for RPMs, Go modules, crates and
	// the SBOMs of OCI images that serve the image.
	Facts func(*lock.Input) (Facts, error)
	// Signer gives who signed a package, for those of which the lock wants a
	// signature.
	Signer func(*lock.Input) (Signer, error)
	// System is what the root's os-release says; zero where there is none.
	System System
}

// Signer is the OpenPGP key that a package is signed with: the fingerprint of
// its primary key, in upper-case hex, and who its owner says to be.
type Signer struct {
	Fingerprint, UserID string
}

// Facts are what a package says of itself, as its vendor wrote it.
type Facts struct {
	Vendor   string
	Packager string
	URL      string
	Summary  string
	// License is the declared licence in its own words, an RPM's or a crate's.
	License string
	// Text is a Go module's LICENSE file.
	Text *LicenseText
	// Requires and Provides are an RPM's, and Paths the files that it has.
	Requires, Provides []Dependency
	Paths              []string
	// Imported is what the bill of materials of an OCI image lists, NotImported why
	// that cannot be said.
	Imported    []Imported
	NotImported string
}

// LicenseText is a licence that is known by its text.
type LicenseText struct {
	// File is its name in the package, such as "LICENSE".
	File string
	// License is the SPDX expression of the known licences in it; empty where
	// there is none that most of the text is of.
	License string
	// Percent is how much of the text is of known licences.
	Percent float64
	// Text is what it says.
	Text string
}

// System is what os-release (5) says of an operating system.
type System struct {
	// Input is KIND/NAME of the package that brings the file.
	Input string
	// ID and VersionID name the distribution; CPE is its CPE_NAME.
	ID, VersionID, CPE string
}

// Document is a document that can be written.
type Document struct {
	head          v2_3.Document // without the lists
	packages      []*v2_3.Package
	files         []*build.File // regular ones, by name
	licenses      []*v2_3.OtherLicense
	relationships []*v2_3.Relationship // between packages
	byInput       map[string]common.ElementID
}

// writer is a document in the making.
type writer struct {
	Subject
	doc *Document
	// packages finds the package of an input by KIND/NAME.
	packages map[string]*v2_3.Package
	facts    map[string]Facts       // of RPMs
	sources  map[string]*lock.Input // source packages, by their files
	refs     map[string]*v2_3.OtherLicense
	// sums collects the SHA-1 of the files that a package contains.
	sums    map[*v2_3.Package][]string
	imports []imported
	// linked are the Go modules that are in a program of the image, and zips
	// the names of all.
	linked, zips map[string]bool
}

// New makes the document. It is an error for a file to name an input
// that is not the image's, or to have no digest.
func New(s Subject) (*Document, error) {
	base := strings.TrimSuffix(s.Disk.Name, ".qcow2")
	w := &writer{
		Subject: s,
		doc: &Document{
			head: v2_3.Document{
				SPDXVersion:       v2_3.Version,
				DataLicense:       v2_3.DataLicense,
				SPDXIdentifier:    "DOCUMENT",
				DocumentName:      s.Name,
				DocumentNamespace: namespace + base + "/" + s.Disk.SHA256.Hex() + "/" + s.LockDigest.Hex() + "/" + s.Manifest.Hex(),
				CreationInfo: &v2_3.CreationInfo{
					Created:  epoch(s.Lock.Epoch),
					Creators: []common.Creator{{CreatorType: "Tool", Creator: fmt.Sprintf("caisson-%d", Revision)}},
				},
			},
			byInput: map[string]common.ElementID{},
		},
		packages: map[string]*v2_3.Package{},
		facts:    map[string]Facts{},
		refs:     map[string]*v2_3.OtherLicense{},
		sums:     map[*v2_3.Package][]string{},
	}
	if s.Lock.Supplier != "" {
		c := &w.doc.head.CreationInfo.Creators
		*c = append(*c, common.Creator{CreatorType: "Organization", Creator: oneLine(s.Lock.Supplier)})
	}
	image := w.addImage()
	w.addLock()
	w.findLinked()
	w.findSources()
	if err := w.addInputs(); err != nil {
		return nil, err
	}
	w.relateInputs()
	w.relateRPMs()
	w.addImported()
	if err := w.addFiles(image); err != nil {
		return nil, err
	}
	w.setCodes()
	w.addLicenses()
	return w.doc, nil
}

func epoch(seconds int64) string { return time.Unix(seconds, 0).UTC().Format(time.RFC3339) }

// local is who supplies what is no server's: who the manifest says.
func (w *writer) local() *common.Supplier {
	if w.Lock.Supplier == "" {
		return &common.Supplier{Supplier: none}
	}
	return organization(w.Lock.Supplier)
}

func (w *writer) addImage() *v2_3.Package {
	p := &v2_3.Package{
		PackageName:             w.imageName(),
		PackageSPDXIdentifier:   imageID,
		PackageVersion:          w.LockDigest.String(),
		PackageFileName:         w.Disk.Name,
		PackageSupplier:         w.local(),
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(w.Disk.SHA256),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   w.purpose(),
		PackageComment:          w.contents(),
		PackageExternalReferences: []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: w.PURL},
		},
	}
	w.doc.packages = append(w.doc.packages, p)
	w.relate("DOCUMENT", common.TypeRelationshipDescribe, imageID, "")
	return p
}

func (w *writer) imageName() string {
	if w.Image.IsArchive() {
		return build.BaseName(w.Disk.Name)
	}
	return strings.TrimSuffix(w.Disk.Name, ".qcow2")
}

// purpose is the image's (section 7.24).
func (w *writer) purpose() string {
	switch {
	case !w.Image.IsArchive():
		return "OPERATING_SYSTEM" // the JSON schema's spelling; the section has a hyphen
	case w.Image.Manifest != nil:
		return "CONTAINER"
	}
	return "ARCHIVE"
}

// contents says what of the image is no SPDX file, and what the files are.
func (w *writer) contents() string {
	accounts := map[build.Account]int{}
	var folders, links, others int
	for i := range w.Files {
		switch w.Files[i].Mode & modeType {
		case modeRegular:
			accounts[w.Files[i].Account]++
		case modeFolder:
			folders++
		case modeLink:
			links++
		default:
			others++
		}
	}
	var totals []string
	for _, a := range []build.Account{build.Vendor, build.Changed, build.Compiled, build.Placed, build.Generated} {
		totals = append(totals, fmt.Sprintf("%d %s", accounts[a], a))
	}
	return fmt.Sprintf("Regular files: %s. Beside them %d folders, %d symbolic links and %d other entries, which have no content.",
		strings.Join(totals, ", "), folders, links, others)
}

func (w *writer) addLock() {
	w.doc.packages = append(w.doc.packages, &v2_3.Package{
		PackageName:             "caisson.lock",
		PackageSPDXIdentifier:   lockID,
		PackageVersion:          w.LockDigest.String(),
		PackageFileName:         "caisson.lock",
		PackageSupplier:         w.local(),
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(w.LockDigest),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   "FILE",
		PackageExternalReferences: []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: "pkg:generic/caisson.lock?checksum=" + w.LockDigest.String()},
		},
	})
	w.relate(lockID, "DEPENDENCY_MANIFEST_OF", imageID, "")
}

func (w *writer) addInputs() error {
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		if w.use(in) == 0 || w.isPartOfModule(in) {
			continue
		}
		p, err := w.inputPackage(in)
		if err != nil {
			return fmt.Errorf("%s: %w", ref(in), err)
		}
		w.add(ref(in), p)
	}
	for i := range w.Lock.Inputs {
		// What is made of a go.mod is made of the module that it is a part of.
		if in := &w.Lock.Inputs[i]; w.use(in) != 0 && w.isPartOfModule(in) {
			w.doc.byInput[ref(in)] = w.doc.byInput[zipOf(in)]
			w.packages[ref(in)] = w.packages[zipOf(in)]
		}
	}
	return nil
}

func (w *writer) add(name string, p *v2_3.Package) {
	w.doc.packages = append(w.doc.packages, p)
	w.packages[name] = p
	w.doc.byInput[name] = p.PackageSPDXIdentifier
}

// ref is an input's name in files.json.
func ref(in *lock.Input) string { return in.Kind + "/" + in.Name }

func (w *writer) use(in *lock.Input) use.Use {
	return use.Of(w.Lock, in, w.Image.Arch, w.Image.Variant)
}

// zipOf is the name of the zip of the module that a go.mod is of.
func zipOf(in *lock.Input) string {
	return in.Kind + "/" + strings.TrimSuffix(in.Name, ".mod") + ".zip"
}

// isPartOfModule tells whether an input is the go.mod of a module whose zip is
// there.
func (w *writer) isPartOfModule(in *lock.Input) bool {
	return in.Kind == lock.KindGo && strings.HasSuffix(in.Name, ".mod") && w.zips[zipOf(in)]
}

// findLinked finds the modules that are there as a whole, and those that a
// compiled program names as its own.
func (w *writer) findLinked() {
	w.linked, w.zips = map[string]bool{}, map[string]bool{}
	for i := range w.Lock.Inputs {
		if in := &w.Lock.Inputs[i]; in.Kind == lock.KindGo {
			w.zips[ref(in)] = true
		}
	}
	for i := range w.Files {
		if w.Files[i].Account != build.Compiled {
			continue
		}
		for _, in := range w.Files[i].Inputs {
			if strings.HasPrefix(in, lock.KindGo+"/") && strings.HasSuffix(in, ".zip") {
				w.linked[in] = true
			}
		}
	}
}

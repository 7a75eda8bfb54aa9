// Package spdx writes the software bill of materials of an image, as an SPDX
// 2.3 document in JSON.
//
// Limits first: licences are what the packages' headers say, quoted, and
// stay NOASSERTION as SPDX expressions; copyright texts are not looked for.
// A Go module or crate that is listed was given to the compiler; what of it
// is in the binary is not looked at.
//
// # What is in it
//
// One package for the image, which the document describes; one for the lock;
// one for each input of the lock that serves this image (by machine, variant
// and set): RPMs, Go modules, crates, toolchains, files, folders, repository
// metadata and keys. The comment of an RPM whose signature the lock demands
// names the key that it was proved by. One file for each regular file of root,
// initrd and ESP, named ./PART/PATH, with SHA-1 (which section 8.4 demands) and
// SHA-256.
// Folders, symbolic links and devices have no content to sum: they are
// counted in the image's comment.
//
//	image CONTAINS package                 its files are in root or initrd
//	package CONTAINS file                  the file is as its vendor packaged it
//	image CONTAINS file                    every other file
//	file GENERATED_FROM package            packaged and then changed, compiled, placed, generated
//	package DEPENDS_ON package             why the lock has the second one
//	package BUILD_TOOL_OF image            the tools set and toolchains
//	package BUILD_DEPENDENCY_OF image      sources, modules, crates, files, folders
//	package DEPENDENCY_MANIFEST_OF image   the lock
//	package OTHER image                    repository metadata, keys
//
// A package of which the image has files is one with analysed files: its
// verification code (section 7.9) covers those, not what the package holds
// besides. The image's code covers all its files.
//
// # The same bytes
//
// The document is a function of lock and image. Its time is the lock's epoch,
// its namespace is made of the digests of image and lock, and its creator is
// Caisson with the revision of this format, not with the version of a
// binary: whoever rebuilds the image can write it again.
package spdx

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
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
const Revision = 2

const (
	none      = "NOASSERTION"
	namespace = "https://caisson.dev/spdx/"
	imageID   = "Image"
	lockID    = "Lock"
)

// Subject is what a document is written from.
type Subject struct {
	Lock       *lock.Lock
	LockDigest digest.Digest
	Image      build.Image
	// Disk is the disk image's file, and PURL its package URL.
	Disk build.Output
	PURL string
	// Files are all files of the image: files.json.
	Files []build.File
	// Header gives what only the RPM itself says, for the packages that serve
	// the image.
	Header func(*lock.Input) (Header, error)
	// Signer gives who signed a package, for those of which the lock wants a
	// signature.
	Signer func(*lock.Input) (Signer, error)
}

// Signer is the OpenPGP key that a package is signed with: the fingerprint of
// its primary key, in upper-case hex, and who its owner says to be.
type Signer struct {
	Fingerprint, UserID string
}

// Header is what an RPM says of itself, as its vendor wrote it.
type Header struct {
	Vendor   string
	Packager string
	License  string
	URL      string
	Summary  string
}

// writer is a document in the making.
type writer struct {
	Subject
	doc *v2_3.Document
	// packages finds the package of an input by KIND/NAME.
	packages map[string]*v2_3.Package
	// sums collects the SHA-1 of the files that a package contains.
	sums map[*v2_3.Package][]string
}

// Document makes the document. It is an error for a file to name an input
// that is not the image's, or to have no digest.
func Document(s Subject) (*v2_3.Document, error) {
	created := time.Unix(s.Lock.Epoch, 0).UTC().Format(time.RFC3339)
	base := strings.TrimSuffix(s.Disk.Name, ".qcow2")
	w := &writer{
		Subject: s,
		doc: &v2_3.Document{
			SPDXVersion:       v2_3.Version,
			DataLicense:       v2_3.DataLicense,
			SPDXIdentifier:    "DOCUMENT",
			DocumentName:      base + "@" + s.Disk.SHA256.String(),
			DocumentNamespace: namespace + base + "/" + s.Disk.SHA256.Hex() + "/" + s.LockDigest.Hex(),
			CreationInfo: &v2_3.CreationInfo{
				Created:  created,
				Creators: []common.Creator{{CreatorType: "Tool", Creator: fmt.Sprintf("caisson-%d", Revision)}},
			},
		},
		packages: map[string]*v2_3.Package{},
		sums:     map[*v2_3.Package][]string{},
	}
	image := w.addImage()
	w.addLock()
	if err := w.addInputs(); err != nil {
		return nil, err
	}
	w.relateInputs()
	if err := w.addFiles(image); err != nil {
		return nil, err
	}
	w.setCodes()
	return w.doc, nil
}

// Write writes the document's text: JSON with one blank a level, as
// tools-golang's json.Write has it. The long lists are written element by
// element, so that the text need not be in memory.
func Write(out io.Writer, doc *v2_3.Document) error {
	bw := bufio.NewWriter(out)
	if err := writeDocument(bw, doc); err != nil {
		return fmt.Errorf("writing the SPDX document: %w", err)
	}
	return bw.Flush()
}

func writeDocument(w io.Writer, doc *v2_3.Document) error {
	head := *doc
	head.Packages, head.Files, head.Relationships = nil, nil, nil
	b, err := text("", &head, "")
	if err != nil {
		return err
	}
	if _, err := w.Write(bytes.TrimSuffix(b, []byte("\n}"))); err != nil {
		return err
	}
	if err := writeList(w, "packages", doc.Packages); err != nil {
		return err
	}
	if err := writeList(w, "files", doc.Files); err != nil {
		return err
	}
	if err := writeList(w, "relationships", doc.Relationships); err != nil {
		return err
	}
	_, err = io.WriteString(w, "\n}\n")
	return err
}

// writeList writes a member of the document; one that is empty is left out.
func writeList[E any](w io.Writer, name string, list []*E) error {
	if len(list) == 0 {
		return nil
	}
	lead := ",\n \"" + name + "\": [\n  "
	for _, e := range list {
		b, err := text(lead, e, "  ")
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
		lead = ",\n  "
	}
	_, err := io.WriteString(w, "\n ]")
	return err
}

// text is a value's JSON behind a lead, its further lines behind a prefix.
func text(lead string, v any, prefix string) ([]byte, error) {
	b := bytes.NewBufferString(lead)
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	enc.SetIndent(prefix, " ")
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (w *writer) addImage() *v2_3.Package {
	p := &v2_3.Package{
		PackageName:             strings.TrimSuffix(w.Disk.Name, ".qcow2"),
		PackageSPDXIdentifier:   imageID,
		PackageVersion:          w.LockDigest.String(),
		PackageFileName:         w.Disk.Name,
		PackageSupplier:         &common.Supplier{Supplier: none},
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(w.Disk.SHA256),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		// The JSON schema's spelling; section 7.24 has a hyphen.
		PrimaryPackagePurpose: "OPERATING_SYSTEM",
		PackageComment:        w.contents(),
		PackageExternalReferences: []*v2_3.PackageExternalReference{
			{Category: common.CategoryPackageManager, RefType: common.TypePackageManagerPURL, Locator: w.PURL},
		},
	}
	w.doc.Packages = append(w.doc.Packages, p)
	w.relate("DOCUMENT", common.TypeRelationshipDescribe, imageID, "")
	return p
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
	w.doc.Packages = append(w.doc.Packages, &v2_3.Package{
		PackageName:             "caisson.lock",
		PackageSPDXIdentifier:   lockID,
		PackageVersion:          w.LockDigest.String(),
		PackageFileName:         "caisson.lock",
		PackageSupplier:         &common.Supplier{Supplier: none},
		PackageDownloadLocation: none,
		PackageChecksums:        sha256Sum(w.LockDigest),
		PackageLicenseConcluded: none,
		PackageLicenseDeclared:  none,
		PackageCopyrightText:    none,
		PrimaryPackagePurpose:   "FILE",
	})
	w.relate(lockID, "DEPENDENCY_MANIFEST_OF", imageID, "")
}

func (w *writer) addInputs() error {
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		if w.use(in) == 0 {
			continue
		}
		p, err := w.inputPackage(in)
		if err != nil {
			return fmt.Errorf("%s/%s: %w", in.Kind, in.Name, err)
		}
		w.doc.Packages = append(w.doc.Packages, p)
		w.packages[in.Kind+"/"+in.Name] = p
	}
	return nil
}

func (w *writer) use(in *lock.Input) use.Use {
	return use.Of(w.Lock, in, w.Image.Arch, w.Image.Variant)
}

func (w *writer) relate(a common.ElementID, kind string, b common.ElementID, comment string) {
	w.doc.Relationships = append(w.doc.Relationships, &v2_3.Relationship{
		RefA:                common.DocElementID{ElementRefID: a},
		RefB:                common.DocElementID{ElementRefID: b},
		Relationship:        kind,
		RelationshipComment: comment,
	})
}

// relateInputs says what the inputs are to the image and to each other.
func (w *writer) relateInputs() {
	for i := range w.Lock.Inputs {
		in := &w.Lock.Inputs[i]
		u := w.use(in)
		if u == 0 {
			continue
		}
		id := w.packages[in.Kind+"/"+in.Name].PackageSPDXIdentifier
		if u&use.Image != 0 {
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
		for _, by := range w.needers(in) {
			w.relate(by, common.TypeRelationshipDependsOn, id, "")
		}
	}
}

// needers are the packages that the lock gives as reasons for an input: an
// RPM, or the folder whose go.sum or Cargo.lock names a module or crate.
func (w *writer) needers(in *lock.Input) []common.ElementID {
	from := lock.KindRPM
	if in.RPM == nil {
		from = lock.KindTree
	}
	var ids []common.ElementID
	for _, f := range in.For {
		p := w.packages[from+"/"+f.By]
		if p != nil && f.Dep != "" && use.Reason(w.Lock, in, f, w.Image.Arch, w.Image.Variant) {
			ids = append(ids, p.PackageSPDXIdentifier)
		}
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}

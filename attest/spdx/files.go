package spdx

import (
	"crypto/sha1" // SPDX 2.3 demands it, section 8.4
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/spdx/tools-golang/spdx/v2/common"
	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/build"
	"caisson/lock/digest"
)

// File types of st_mode, inode(7).
const (
	modeType    = 0o170000
	modeRegular = 0o100000
	modeFolder  = 0o040000
	modeLink    = 0o120000
)

// addFiles adds the image's regular files, by part and path.
func (w *writer) addFiles(image *v2_3.Package) error {
	var files []*build.File
	for i := range w.Files {
		if w.Files[i].Mode&modeType == modeRegular {
			files = append(files, &w.Files[i])
		}
	}
	slices.SortFunc(files, func(a, b *build.File) int {
		return strings.Compare(fileName(a), fileName(b))
	})
	w.doc.Files = make([]*v2_3.File, 0, len(files))
	for i, f := range files {
		if i > 0 && fileName(f) == fileName(files[i-1]) {
			return fmt.Errorf("%s is there twice", fileName(f))
		}
		if err := w.addFile(image, f); err != nil {
			return fmt.Errorf("%s: %w", fileName(f), err)
		}
	}
	return nil
}

// fileName is a file's name in the document (section 8.1).
func fileName(f *build.File) string { return "./" + f.Part + f.Path }

func (w *writer) addFile(image *v2_3.Package, f *build.File) error {
	if f.SHA256 == nil || f.SHA256.IsZero() {
		return fmt.Errorf("no SHA-256")
	}
	if b, err := hex.DecodeString(f.SHA1); err != nil || len(b) != sha1.Size || strings.ToLower(f.SHA1) != f.SHA1 {
		return fmt.Errorf("SHA-1 %q, want %d lower-case hex digits", f.SHA1, 2*sha1.Size)
	}
	name := fileName(f)
	file := &v2_3.File{
		FileName:           name,
		FileSPDXIdentifier: common.ElementID("File-" + digest.Of([]byte(name)).Hex()[:24]),
		Checksums: []common.Checksum{
			{Algorithm: common.SHA1, Value: f.SHA1},
			{Algorithm: common.SHA256, Value: f.SHA256.Hex()},
		},
		LicenseConcluded:  none,
		FileCopyrightText: none,
	}
	var made string
	switch f.Account {
	case build.Vendor:
		if len(f.Inputs) == 0 {
			return fmt.Errorf("a vendor's file that names no package")
		}
	case build.Changed:
		made = "packaged, then changed"
	case build.Compiled:
		made = "compiled"
	case build.Placed:
		made = "placed"
	case build.Generated:
		made = "generated"
	default:
		return fmt.Errorf("account %q is none", f.Account)
	}
	if made != "" && f.By != "" {
		made += " by " + f.By
	}
	file.FileComment = made
	w.doc.Files = append(w.doc.Files, file)
	return w.relateFile(image, f, file)
}

// relateFile says whose a file is, and what it was made of.
func (w *writer) relateFile(image *v2_3.Package, f *build.File, file *v2_3.File) error {
	vendor := f.Account == build.Vendor
	if !vendor {
		w.relate(image.PackageSPDXIdentifier, common.TypeRelationshipContains, file.FileSPDXIdentifier, "")
	}
	w.sums[image] = append(w.sums[image], f.SHA1)
	for _, in := range f.Inputs {
		p := w.packages[in]
		if p == nil {
			return fmt.Errorf("made of %q, which is no input of this image", in)
		}
		if vendor {
			w.relate(p.PackageSPDXIdentifier, common.TypeRelationshipContains, file.FileSPDXIdentifier, "")
			w.sums[p] = append(w.sums[p], f.SHA1)
		} else {
			w.relate(file.FileSPDXIdentifier, "GENERATED_FROM", p.PackageSPDXIdentifier, "")
		}
	}
	return nil
}

// setCodes gives every package that contains files its verification code
// (section 7.9): the SHA-1 of the files' SHA-1, in hex, sorted and joined.
func (w *writer) setCodes() {
	for _, p := range w.doc.Packages {
		sums := w.sums[p]
		if len(sums) == 0 {
			continue
		}
		slices.Sort(sums)
		h := sha1.New()
		for _, s := range sums {
			h.Write([]byte(s))
		}
		p.FilesAnalyzed = true
		p.PackageVerificationCode = &common.PackageVerificationCode{Value: hex.EncodeToString(h.Sum(nil))}
		p.PackageLicenseInfoFromFiles = []string{none}
	}
}

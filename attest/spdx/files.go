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

// addFiles checks the image's regular files, and takes them by part and path.
func (w *writer) addFiles(image *v2_3.Package) error {
	for i := range w.Files {
		if w.Files[i].Mode&modeType == modeRegular {
			w.doc.files = append(w.doc.files, &w.Files[i])
		}
	}
	slices.SortFunc(w.doc.files, compareFiles)
	for i, f := range w.doc.files {
		if i > 0 && compareFiles(f, w.doc.files[i-1]) == 0 {
			return fmt.Errorf("%s is there twice", fileName(f))
		}
		if err := w.checkFile(f); err != nil {
			return fmt.Errorf("%s: %w", fileName(f), err)
		}
		w.sums[image] = append(w.sums[image], f.SHA1)
		if f.Account != build.Vendor {
			continue
		}
		for _, in := range f.Inputs {
			p := w.packages[in]
			w.sums[p] = append(w.sums[p], f.SHA1)
		}
	}
	return nil
}

// compareFiles compares files by their names in the document.
func compareFiles(a, b *build.File) int {
	if a.Part == b.Part {
		return strings.Compare(a.Path, b.Path)
	}
	return strings.Compare(fileName(a), fileName(b))
}

// fileName is a file's name in the document (section 8.1).
func fileName(f *build.File) string { return "./" + f.Part + f.Path }

func fileID(f *build.File) common.ElementID {
	return common.ElementID("File-" + digest.Of([]byte(fileName(f))).Hex()[:24])
}

// checkFile is an error where a file cannot be described.
func (w *writer) checkFile(f *build.File) error {
	if f.SHA256 == nil || f.SHA256.IsZero() {
		return fmt.Errorf("no SHA-256")
	}
	if b, err := hex.DecodeString(f.SHA1); err != nil || len(b) != sha1.Size || strings.ToLower(f.SHA1) != f.SHA1 {
		return fmt.Errorf("SHA-1 %q, want %d lower-case hex digits", f.SHA1, 2*sha1.Size)
	}
	if made(f) == "" {
		return fmt.Errorf("account %q is none", f.Account)
	}
	if f.Account == build.Vendor && len(f.Inputs) == 0 {
		return fmt.Errorf("a vendor's file that names no package")
	}
	for _, in := range f.Inputs {
		if w.packages[in] == nil {
			return fmt.Errorf("made of %q, which is no input of this image", in)
		}
	}
	return nil
}

// made says how a file came to be; empty where it has no account.
func made(f *build.File) string {
	var how string
	switch f.Account {
	case build.Vendor:
		how = "as its vendor packaged it"
	case build.Changed:
		how = "packaged, then changed"
	case build.Compiled, build.Placed, build.Generated:
		how = string(f.Account)
	default:
		return ""
	}
	if f.By != "" && f.Account != build.Vendor {
		how += " by " + f.By
	}
	return how
}

// file is a file as SPDX has it.
func file(f *build.File) *v2_3.File {
	return &v2_3.File{
		FileName:           fileName(f),
		FileSPDXIdentifier: fileID(f),
		Checksums: []common.Checksum{
			{Algorithm: common.SHA1, Value: f.SHA1},
			{Algorithm: common.SHA256, Value: f.SHA256.Hex()},
		},
		LicenseConcluded:  none,
		FileCopyrightText: none,
		FileComment:       made(f),
	}
}

// setCodes gives every package that contains files its verification code
// (section 7.9): the SHA-1 of the files' SHA-1, in hex, sorted and joined.
func (w *writer) setCodes() {
	for _, p := range w.doc.packages {
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

package spdx

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spdx/tools-golang/spdx/v2/v2_3"

	"caisson/lock/license"
)

// maxText is how much of a licence's text is quoted, in bytes.
const maxText = 64 << 10

// setLicense writes down what a package declares.
func (w *writer) setLicense(p *v2_3.Package, f Facts) {
	switch {
	case f.License != "":
		e := license.Parse(f.License)
		p.PackageLicenseDeclared, p.PackageLicenseConcluded = e.SPDX, e.SPDX
		for _, r := range e.Refs {
			w.cite(r)
		}
		if words := oneLine(f.License); words != e.SPDX {
			p.PackageLicenseComments = "Declared as: " + words
		}
	case f.Text != nil && f.Text.License != "":
		p.PackageLicenseDeclared, p.PackageLicenseConcluded = f.Text.License, f.Text.License
		p.PackageLicenseComments = fmt.Sprintf("%.1f%% of %s is the text of known licences.", f.Text.Percent, f.Text.File)
	case f.Text != nil:
		id := "LicenseRef-" + string(p.PackageSPDXIdentifier) + "-" + string(elementID("file", f.Text.File, f.Text.File))
		p.PackageLicenseDeclared, p.PackageLicenseConcluded = id, id
		p.PackageLicenseComments = fmt.Sprintf("%.1f%% of %s is the text of known licences.", f.Text.Percent, f.Text.File)
		w.refs[id] = &v2_3.OtherLicense{LicenseIdentifier: id, ExtractedText: clip(f.Text.Text), LicenseName: p.PackageName + " " + f.Text.File}
	}
}

// cite has the words that a LicenseRef stands for. Words that differ in blanks
// only have one reference: the first by order stands for them.
func (w *writer) cite(r license.Ref) {
	text := oneLine(r.Text)
	if old := w.refs[r.ID]; old != nil && old.LicenseName <= text {
		return
	}
	l := &v2_3.OtherLicense{LicenseIdentifier: r.ID, ExtractedText: clip(text), LicenseName: text}
	if !r.Known {
		l.LicenseComment = "A name that neither the SPDX list, nor Fedora's, nor Debian's has."
	}
	w.refs[r.ID] = l
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "")
}

func (w *writer) addLicenses() {
	for _, id := range slices.Sorted(maps.Keys(w.refs)) {
		w.doc.licenses = append(w.doc.licenses, w.refs[id])
	}
}

// Package license reads the licence that a package declares, in whichever of
// three languages it was written, as an SPDX licence expression (SPDX 2.3,
// annex D).
//
// # What is read
//
//	SPDX      identifiers and exceptions of the SPDX licence list, as Fedora 38, RHEL 10 and later have them
//	Callaway  Fedora's older short names, as RHEL and CentOS 9 have them: "GPLv2+ and BSD", "ASL 2.0"
//	DEP-5     the short names of Debian's machine-readable copyright files: "GPL-2+", "Expat"
//
// The SPDX list is the one that github/go-spdx carries. The Callaway names and
// what they stand for are those of Fedora's licence data
// (gitlab.com/fedora/legal/fedora-license-data, "legacy-abbreviation"); the names
// of DEP-5 those of the copyright format 1.0, section 7.1. A text may mix them.
//
// # What is not guessed
//
// Whatever has no counterpart in the SPDX list becomes a LicenseRef, and
// Expression.Refs has the words that it stands for:
//
//	LicenseRef-Callaway-BSD           a Callaway name that covers several licences of the list, in the form
//	                                  that Fedora itself gave it when it moved to SPDX
//	LicenseRef-Fedora-Public-Domain   a name that Fedora's licence data has a LicenseRef for
//	LicenseRef-DEP5-public-domain     a name of DEP-5 that covers several
//	LicenseRef-WORDS                  anything else: Ref.Known is false
//
// Two readings need a reason. LGPLv2+ covers LGPL-2.0-or-later and
// LGPL-2.1-or-later; it is read as the second, which is true of both. MIT, which
// Callaway has for variants as well, is read as SPDX has it: the same three
// letters on their own are either, and no text says which.
//
// "GPL+ or Artistic" is one Callaway name: the terms of Perl.
//
// # Grammar
//
// "and" binds tighter than "or" in all three languages; a comma before either
// binds least (DEP-5, section 7.2). A comma alone joins what are licences on both
// sides, and is else a part of a name. A text of which no name is known, or whose
// brackets do not match, is one name.
package license

import (
	"slices"
	"strings"
)

// Expression is what a text declares.
type Expression struct {
	// SPDX is a valid expression, without a LicenseRef that is not in Refs;
	// empty where the text is.
	SPDX string
	// Refs are the LicenseRefs in it, sorted by ID.
	Refs []Ref

	root *node
}

// Ref is a licence that the SPDX list does not have.
type Ref struct {
	ID string // "LicenseRef-Callaway-BSD"
	// Text is the name as it was written.
	Text string
	// Known tells whether the name is one of those that Callaway or DEP-5
	// define, or was a LicenseRef already.
	Known bool
}

// Parse reads a licence field. It has an answer for every text.
func Parse(text string) Expression {
	words := strings.Join(strings.Fields(text), " ")
	if words == "" {
		return Expression{}
	}
	root := parse(words)
	root = root.simplify()
	e := Expression{SPDX: root.String(), root: root}
	root.walk(func(n *node) {
		if n.ref != nil && !slices.Contains(e.Refs, *n.ref) {
			e.Refs = append(e.Refs, *n.ref)
		}
	})
	slices.SortFunc(e.Refs, func(a, b Ref) int { return strings.Compare(a.ID, b.ID) })
	return e
}

// Unknown are the names that are in none of the lists, as they were written.
func (e Expression) Unknown() []string {
	var names []string
	for _, r := range e.Refs {
		if !r.Known {
			names = append(names, r.Text)
		}
	}
	return names
}

// Denied are the licences that stand in the way where only some are allowed,
// sorted: "GPL-2.0-only WITH Linux-syscall-note" and "LicenseRef-Callaway-BSD"
// are one each. Of alternatives one has to be allowed. It is empty where the
// expression can be satisfied, and for an empty text, which declares nothing.
func (e Expression) Denied(allowed func(license string) bool) []string {
	if e.root == nil {
		return nil
	}
	denied := e.root.denied(allowed)
	slices.Sort(denied)
	return slices.Compact(denied)
}

// node is a licence, or several joined by and or by or.
type node struct {
	op   operator
	kids []*node
	term string // of a licence
	ref  *Ref   // where term is a LicenseRef
}

type operator int

const (
	single operator = iota
	and
	or
)

// String writes the expression with no more brackets than it needs.
func (n *node) String() string {
	if n.op == single {
		return n.term
	}
	parts := make([]string, len(n.kids))
	for i, k := range n.kids {
		parts[i] = k.String()
		if n.op == and && k.op == or {
			parts[i] = "(" + parts[i] + ")"
		}
	}
	if n.op == and {
		return strings.Join(parts, " AND ")
	}
	return strings.Join(parts, " OR ")
}

// simplify takes out what is there twice, and brackets that change nothing.
func (n *node) simplify() *node {
	if n.op == single {
		return n
	}
	var kids []*node
	seen := map[string]bool{}
	for _, k := range n.kids {
		k = k.simplify()
		inner := []*node{k}
		if k.op == n.op {
			inner = k.kids
		}
		for _, i := range inner {
			if s := i.String(); !seen[s] {
				seen[s] = true
				kids = append(kids, i)
			}
		}
	}
	if len(kids) == 1 {
		return kids[0]
	}
	return &node{op: n.op, kids: kids}
}

func (n *node) walk(f func(*node)) {
	f(n)
	for _, k := range n.kids {
		k.walk(f)
	}
}

func (n *node) denied(allowed func(string) bool) []string {
	if n.op == single {
		if allowed(n.term) {
			return nil
		}
		return []string{n.term}
	}
	var all []string
	for _, k := range n.kids {
		d := k.denied(allowed)
		if n.op == or && len(d) == 0 {
			return nil
		}
		all = append(all, d...)
	}
	return all
}

package license

import (
	"cmp"
	"strings"
	"sync"

	"github.com/github/go-spdx/v2/spdxexp/spdxlicenses"

	"caisson/lock/digest"
)

// lists are the SPDX list's identifiers, by their lower-case form.
type lists struct{ licenses, exceptions map[string]string }

// spdxLists reads go-spdx's lists once: they are constants of that module.
var spdxLists = sync.OnceValue(func() lists {
	l := lists{map[string]string{}, map[string]string{}}
	for _, id := range spdxlicenses.GetDeprecated() {
		l.licenses[strings.ToLower(id)] = id
	}
	for _, id := range spdxlicenses.GetLicenses() {
		l.licenses[strings.ToLower(id)] = id
	}
	for _, id := range spdxlicenses.GetExceptions() {
		l.exceptions[strings.ToLower(id)] = id
	}
	return l
})

// lookup finds a name in the lists, in the order SPDX, Callaway, DEP-5; nil
// where it is in none.
func lookup(name string) *node {
	if n := spdx(name); n != nil {
		return n
	}
	lower := strings.ToLower(name)
	if id, ok := callaway[lower]; ok {
		return term(id)
	}
	if id, ok := fedoraRefs[lower]; ok {
		return reference(id, name, true)
	}
	for _, u := range umbrellas {
		if strings.EqualFold(u, name) {
			return reference("LicenseRef-Callaway-"+slug(u), name, true)
		}
	}
	return dep5(name)
}

// spdx is a simple or compound expression of SPDX's, by its identifiers
// (annex D.2: they are matched without regard to case).
func spdx(name string) *node {
	base, exception, with := strings.Cut(name, " WITH ")
	id := licenseID(base)
	switch {
	case id == "":
		if !with && isRef(name) {
			return reference(name, name, true)
		}
		return nil
	case !with:
		return term(id)
	}
	if e := spdxLists().exceptions[strings.ToLower(exception)]; e != "" {
		return term(id + " WITH " + e)
	}
	return nil
}

// licenseID is an identifier as the list writes it; those of the GNU family
// that have "-only" and "-or-later" in place of what is deprecated, and of "+",
// get that. It is empty for what is no identifier, and for one with "+" that has no
// such form: the grammar allows it (annex D.3), and readers refuse it.
func licenseID(name string) string {
	all := spdxLists().licenses
	base, later := strings.CutSuffix(strings.ToLower(name), "+")
	if later {
		return all[base+"-or-later"]
	}
	return cmp.Or(all[base+"-only"], all[base])
}

// isRef tells whether a name is a LicenseRef: letters, digits, dots and hyphens
// behind the prefix.
func isRef(name string) bool {
	rest, ok := strings.CutPrefix(name, "LicenseRef-")
	return ok && rest != "" && !strings.ContainsFunc(rest, notInID)
}

func notInID(r rune) bool {
	return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-'
}

func term(id string) *node { return &node{term: id} }

func reference(id, text string, known bool) *node {
	return &node{term: id, ref: &Ref{ID: id, Text: text, Known: known}}
}

// maxSlug is how much of a name is in its LicenseRef, in bytes.
const maxSlug = 64

// unknown is a licence that is in no list.
func unknown(name string) *node {
	return reference("LicenseRef-"+slug(name), name, false)
}

// slug makes an identifier of a name. "+" at the end of a word is said in
// words, as the SPDX list says it; where more is lost than blanks, a part of the
// name's digest keeps it apart.
func slug(name string) string {
	words := strings.Fields(name)
	for i, w := range words {
		if rest, ok := strings.CutSuffix(w, "+"); ok && rest != "" {
			words[i] = rest + "-or-later"
		}
	}
	plain := strings.Join(words, "-")
	id := strings.Map(func(r rune) rune {
		if notInID(r) {
			return '-'
		}
		return r
	}, plain)
	if len(id) > maxSlug {
		id = id[:maxSlug]
	}
	if id == plain {
		return id
	}
	return strings.TrimLeft(strings.Trim(id, "-")+"-"+digest.Of([]byte(name)).Hex()[:8], "-")
}

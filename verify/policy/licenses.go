package policy

import (
	"fmt"
	"slices"
	"strings"

	"caisson/lock"
	"caisson/lock/license"
)

// licenses holds what the packages of root and initrd declare against the lists.
func (j *judge) licenses() *rule {
	packages := j.shipped()
	r := &rule{name: ruleLicenses, passed: fmt.Sprintf("%d packages, none under a licence that is not allowed", len(packages)), mend: "leave the package out, allow its licence in rpm.licenses, or have an exception signed"}
	if j.License == nil {
		r.unknown("", "no package can be looked into: there is no store here")
		return r
	}
	for _, in := range packages {
		text, err := j.License(in)
		if err != nil {
			r.unknown(in.Name, "%s: %v", in.Name, err)
			continue
		}
		e := license.Parse(text)
		if e.SPDX == "" {
			r.unknown(in.Name, "%s declares no licence", in.Name)
			continue
		}
		if denied := e.Denied(j.RPM.Licenses.passes); len(denied) > 0 {
			r.find(in.Name, "%s is under %s, of which not allowed: %s", in.Name, e.SPDX, strings.Join(denied, ", "))
			continue
		}
		// Without a list of those that are allowed, nobody said that of a name that
		// nobody knows.
		if names := e.Unknown(); len(names) > 0 && len(j.RPM.Licenses.Allow) == 0 {
			r.unknown(in.Name, "%s is under %q, which no list of licences has", in.Name, strings.Join(names, ", "))
		}
	}
	return r
}

// passes tells whether a licence is on the one list, if there is one, and not on
// the other.
func (l *Licenses) passes(name string) bool {
	on := func(list []string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return matches(strings.ToLower(p), strings.ToLower(name)) })
	}
	return (len(l.Allow) == 0 || on(l.Allow)) && !on(l.Deny)
}

// shipped are the packages that the image holds, not those that only build it.
func (j *judge) shipped() []*lock.Input {
	var out []*lock.Input
	for _, set := range []string{lock.SetInitrd, lock.SetRoot} {
		for _, in := range j.Facts.Lock.Of(j.Arch, j.Facts.Lock.SetFor(set, j.Variant)) {
			if in.RPM != nil && !slices.Contains(out, in) {
				out = append(out, in)
			}
		}
	}
	return out
}

package main

import (
	"fmt"
	"slices"

	"caisson/cmd/debrepo/rpmwrite"
)

// dependencies fills in what p provides, needs and excludes, from the control fields of its Debian package.
// A dependency that a maintainer script alone needs is left out, with all its alternatives.
func dependencies(p *rpmwrite.Package, c control) error {
	own := rpmwrite.Dep{Name: p.Name, Sense: rpmwrite.Equal, EVR: p.EVR()}
	p.Provides = append(p.Provides, own)
	provides, err := parseRelations(c["Provides"])
	if err != nil {
		return fmt.Errorf("provides of %s: %w", p.Name, err)
	}
	for _, group := range provides {
		d, err := group[0].dep()
		if err != nil {
			return err
		}
		p.Provides = append(p.Provides, d)
	}
	for _, f := range []struct {
		field string
		into  *[]rpmwrite.Dep
		sense rpmwrite.Sense
	}{
		{"Pre-Depends", &p.Requires, rpmwrite.Pre},
		{"Depends", &p.Requires, 0},
		{"Recommends", &p.Recommends, 0},
		{"Suggests", &p.Suggests, 0},
		{"Enhances", &p.Enhances, 0},
	} {
		groups, err := parseRelations(c[f.field])
		if err != nil {
			return fmt.Errorf("%s of %s: %w", f.field, p.Name, err)
		}
		for _, group := range groups {
			if scriptOnly(group) {
				continue
			}
			d, err := anyOf(group)
			if err != nil {
				return fmt.Errorf("%s of %s: %w", f.field, p.Name, err)
			}
			d.Sense |= f.sense
			*f.into = append(*f.into, d)
		}
	}
	for _, name := range loaded[p.Name] {
		if !slices.ContainsFunc(p.Requires, func(d rpmwrite.Dep) bool { return d.Name == name }) {
			p.Requires = append(p.Requires, rpmwrite.Dep{Name: name})
		}
	}
	return exclusions(p, c)
}

// scriptOnly says whether a maintainer script's need satisfies the dependency.
func scriptOnly(group []relation) bool {
	for _, r := range group {
		if isDropped(r.name) {
			return true
		}
	}
	return false
}

// exclusions maps Conflicts and Breaks to Conflicts, and Replaces, where the package also excludes the same name, to Obsoletes.
// Replaces alone allows a package to take over files, for which RPM has no word and, files being the same, no need.
// A package that excludes what it provides itself is the only provider that may be installed: RPM ignores the package itself too.
func exclusions(p *rpmwrite.Package, c control) error {
	excluded := map[string]bool{}
	for _, field := range []string{"Conflicts", "Breaks", "Replaces"} {
		groups, err := parseRelations(c[field])
		if err != nil {
			return fmt.Errorf("%s of %s: %w", field, p.Name, err)
		}
		for _, group := range groups {
			r := group[0]
			d, err := r.dep()
			if err != nil {
				return fmt.Errorf("%s of %s: %w", field, p.Name, err)
			}
			switch {
			case r.name == p.Name:
			case field != "Replaces":
				p.Conflicts = append(p.Conflicts, d)
				excluded[r.name] = true
			case excluded[r.name]:
				p.Obsoletes = append(p.Obsoletes, d)
			}
		}
	}
	return nil
}

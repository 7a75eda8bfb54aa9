package rpmmd

import (
	"fmt"
	"io"
)

// Comps is comps.xml: the groups and environments of a repository.
type Comps struct {
	Groups       []Group
	Environments []Environment
}

// Group is a named list of packages.
type Group struct {
	ID, Name string
	Packages []GroupPackage
}

// GroupPackage is one package name of a group.
type GroupPackage struct {
	Name         string
	Type         string // "mandatory", "default", "optional" or "conditional"
	Requires     string // of a conditional package: the package that it comes with
	BaseArchOnly bool
}

// Environment is a named list of groups.
type Environment struct {
	ID, Name string
	Groups   []string // ids of the groups that belong to it
	Options  []EnvironmentOption
}

// EnvironmentOption is a group that an environment offers.
type EnvironmentOption struct {
	Group   string // its id
	Default bool
}

// ParseComps reads comps.xml, compressed or not.
func ParseComps(r io.Reader) (*Comps, error) {
	z, err := Decompress(r, MaxComps)
	if err != nil {
		return nil, fmt.Errorf("comps: %w", err)
	}
	defer z.Close()
	s := newScanner(z, "comps")
	p := &compsParser{s, newInterner(s)}
	if err := s.root("comps"); err != nil {
		return nil, err
	}
	c := &Comps{}
	err = s.children(func(name []byte) error {
		switch string(name) {
		case "group":
			g, err := p.group()
			c.Groups = append(c.Groups, g)
			return err
		case "environment":
			e, err := p.environment()
			c.Environments = append(c.Environments, e)
			return err
		}
		return s.skip()
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

type compsParser struct {
	s  *scanner
	in *interner
}

// untranslated reads a text into v, unless the element is a translation.
func (p *compsParser) untranslated(v *string) (err error) {
	if p.s.attr("xml:lang") != nil {
		return p.s.skip()
	}
	*v, err = p.in.text()
	return err
}

func (p *compsParser) group() (g Group, err error) {
	err = p.s.children(func(name []byte) error {
		switch string(name) {
		case "id":
			return p.untranslated(&g.ID)
		case "name":
			return p.untranslated(&g.Name)
		case "packagelist":
			return p.s.children(func(name []byte) error {
				if string(name) != "packagereq" {
					return p.s.skip()
				}
				q, err := p.packagereq()
				g.Packages = append(g.Packages, q)
				return err
			})
		}
		return p.s.skip()
	})
	if err == nil && g.ID == "" {
		err = p.s.errorf("group %q has no id", g.Name)
	}
	return g, err
}

func (p *compsParser) packagereq() (q GroupPackage, err error) {
	q.BaseArchOnly = string(p.s.attr("basearchonly")) == "true"
	if q.Requires, err = p.in.attr("requires"); err != nil {
		return q, err
	}
	if q.Type, err = p.in.attr("type"); err != nil {
		return q, err
	}
	switch q.Type {
	case "":
		q.Type = "mandatory"
	case "mandatory", "default", "optional", "conditional":
	default:
		return q, p.s.errorf("packagereq has the unknown type %q", q.Type)
	}
	q.Name, err = p.in.text()
	return q, err
}

func (p *compsParser) environment() (e Environment, err error) {
	groups := func(add func(id string, byDefault bool)) error {
		return p.s.children(func(name []byte) error {
			if string(name) != "groupid" {
				return p.s.skip()
			}
			byDefault := string(p.s.attr("default")) == "true"
			id, err := p.in.text()
			add(id, byDefault)
			return err
		})
	}
	err = p.s.children(func(name []byte) error {
		switch string(name) {
		case "id":
			return p.untranslated(&e.ID)
		case "name":
			return p.untranslated(&e.Name)
		case "grouplist":
			return groups(func(id string, _ bool) { e.Groups = append(e.Groups, id) })
		case "optionlist":
			return groups(func(id string, byDefault bool) {
				e.Options = append(e.Options, EnvironmentOption{id, byDefault})
			})
		}
		return p.s.skip()
	})
	if err == nil && e.ID == "" {
		err = p.s.errorf("environment %q has no id", e.Name)
	}
	return e, err
}

package rpmmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"
)

// ParsePrimary reads primary.xml, compressed or not. Packages come in the
// order of the file. Strings are shared between packages. A package without
// name, architecture, version, checksum or location is an error, as is a
// location that leaves the repository.
func ParsePrimary(r io.Reader) ([]Package, error) {
	return parsePrimary(r, MaxPrimary)
}

func parsePrimary(r io.Reader, limit int64) ([]Package, error) {
	z, err := Decompress(r, limit)
	if err != nil {
		return nil, fmt.Errorf("primary: %w", err)
	}
	z = readAhead(z)
	defer z.Close()
	p := &primary{s: newScanner(z, "primary")}
	p.in = newInterner(p.s)
	if err := p.s.root("metadata"); err != nil {
		return nil, err
	}
	var pkgs []Package
	if n, err := strconv.Atoi(string(p.s.attr("packages"))); err == nil && n > 0 {
		pkgs = make([]Package, 0, min(n, 4096)) // the count is only a hint
	}
	err = p.s.children(func(name []byte) error {
		if string(name) != "package" || string(p.s.attr("type")) != "rpm" {
			return p.s.skip()
		}
		pkgs = append(pkgs, Package{})
		return p.pkg(&pkgs[len(pkgs)-1])
	})
	return pkgs, err
}

type primary struct {
	s     *scanner
	in    *interner
	deps  []Dep // the rest of a block that deps are cut from
	list  []Dep
	files []string
}

// cutDeps returns a copy of list in memory that many lists share.
func (p *primary) cutDeps() []Dep {
	n := len(p.list)
	if n == 0 {
		return nil
	}
	if len(p.deps) < n {
		p.deps = make([]Dep, max(n, 4096))
	}
	out := p.deps[:n:n]
	copy(out, p.list)
	p.deps = p.deps[n:]
	return out
}

// pkg reads one <package>.
func (p *primary) pkg(k *Package) error {
	p.files = p.files[:0]
	err := p.s.children(func(name []byte) (err error) {
		switch string(name) {
		case "name":
			k.Name, err = p.in.text()
		case "arch":
			k.Arch, err = p.in.text()
		case "version":
			if k.EVR, err = p.evr(); err == nil {
				err = p.s.skip()
			}
		case "checksum":
			err = p.checksum(k)
		case "time":
			k.BuildTime, err = p.number("build")
		case "size":
			if k.Size, err = p.numberAttr("package"); err == nil {
				k.InstalledSize, err = p.number("installed")
			}
		case "location":
			err = p.location(k)
		case "format":
			err = p.format(k)
		default:
			err = p.s.skip()
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(p.files) > 0 {
		k.Files = append([]string(nil), p.files...)
	}
	return p.complete(k)
}

// complete checks that nothing is missing that a package needs.
func (p *primary) complete(k *Package) error {
	for _, f := range []struct{ what, value string }{
		{"name", k.Name}, {"arch", k.Arch}, {"version", k.Version}, {"release", k.Release},
		{"checksum", k.Checksum.Hex}, {"location", k.Location},
	} {
		if f.value == "" {
			return p.s.errorf("package %q has no %s", k.Name, f.what)
		}
	}
	return nil
}

func (p *primary) checksum(k *Package) (err error) {
	if k.Checksum.Algorithm, err = p.in.attr("type"); err != nil {
		return err
	}
	if k.Checksum.Hex, err = p.in.uniqueText(); err != nil {
		return err
	}
	if err := k.Checksum.check(); err != nil {
		return p.s.errorf("package %q: %w", k.Name, err)
	}
	return nil
}

func (p *primary) location(k *Package) (err error) {
	if k.Location, err = p.in.attr("href"); err != nil {
		return err
	}
	if k.Base, err = p.in.attr("xml:base"); err != nil {
		return err
	}
	if err := checkHref(k.Location); err != nil {
		return p.s.errorf("package %q: %w", k.Name, err)
	}
	return p.s.skip()
}

// number reads an attribute and consumes the element.
func (p *primary) number(name string) (int64, error) {
	n, err := p.numberAttr(name)
	if err != nil {
		return 0, err
	}
	return n, p.s.skip()
}

// numberAttr reads an attribute that is an unsigned number; absent is 0.
func (p *primary) numberAttr(name string) (int64, error) {
	raw := p.s.attr(name)
	if raw == nil {
		return 0, nil
	}
	n, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || n < 0 {
		return 0, p.s.errorf("%s %.40q is not a number", name, raw)
	}
	return n, nil
}

// evr reads the epoch, ver and rel attributes of the present tag.
func (p *primary) evr() (EVR, error) {
	var e EVR
	var err error
	for _, a := range p.s.attrs {
		switch string(a.name) {
		case "epoch":
			if e.Epoch, err = parseEpoch(string(a.value)); err != nil {
				return EVR{}, p.s.errorf("%w", err)
			}
		case "ver":
			if e.Version, err = p.in.value(a.value); err != nil {
				return EVR{}, err
			}
		case "rel":
			if e.Release, err = p.in.value(a.value); err != nil {
				return EVR{}, err
			}
		}
	}
	return e, nil
}

// format reads <format>.
func (p *primary) format(k *Package) error {
	return p.s.children(func(name []byte) (err error) {
		local, isRPM := strings.CutPrefix(string(name), "rpm:")
		if !isRPM {
			if local == "file" {
				var path string
				path, err = p.in.text()
				p.files = append(p.files, path)
				return err
			}
			return p.s.skip()
		}
		list := k.relation(local)
		switch {
		case list != nil:
			*list, err = p.entries()
		case local == "sourcerpm":
			k.SourceRPM, err = p.in.text()
		default:
			err = p.s.skip()
		}
		return err
	})
}

// relation returns the field that holds an element of <format>, or nil.
func (p *Package) relation(name string) *[]Dep {
	switch name {
	case "provides":
		return &p.Provides
	case "requires":
		return &p.Requires
	case "conflicts":
		return &p.Conflicts
	case "obsoletes":
		return &p.Obsoletes
	case "recommends":
		return &p.Recommends
	case "suggests":
		return &p.Suggests
	case "supplements":
		return &p.Supplements
	case "enhances":
		return &p.Enhances
	}
	return nil
}

// entries reads the <rpm:entry> elements of one relation.
func (p *primary) entries() ([]Dep, error) {
	p.list = p.list[:0]
	err := p.s.children(func(name []byte) error {
		if string(name) != "rpm:entry" {
			return p.s.skip()
		}
		d, err := p.entry()
		if err != nil {
			return err
		}
		p.list = append(p.list, d)
		return p.s.skip()
	})
	return p.cutDeps(), err
}

func (p *primary) entry() (d Dep, err error) {
	for _, a := range p.s.attrs {
		switch string(a.name) {
		case "name":
			if d.Name, err = p.in.value(a.value); err != nil {
				return Dep{}, err
			}
		case "flags":
			if d.Flags = flagNames[string(a.value)]; d.Flags == 0 {
				return Dep{}, p.s.errorf("unknown flags %.20q", a.value)
			}
		}
	}
	if d.Name == "" {
		return Dep{}, p.s.errorf("a dependency without a name")
	}
	if d.Flags == 0 {
		return d, nil
	}
	if d.EVR, err = p.evr(); err != nil {
		return Dep{}, err
	}
	return d, nil
}

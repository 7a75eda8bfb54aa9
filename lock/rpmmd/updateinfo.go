package rpmmd

import (
	"fmt"
	"io"
)

// MaxUpdateinfo bounds updateinfo.xml, in decompressed bytes.
const MaxUpdateinfo = 1 << 30

// maxAdvisory bounds one advisory, in bytes of its text: it is kept in memory.
// The largest that distributions publish, with thousands of packages, have
// about 1 MB.
const maxAdvisory = 16 << 20

// Advisory is one entry of updateinfo.xml: what an update is for.
type Advisory struct {
	ID         string // "RHSA-2024:1234"
	Type       string // "security", "bugfix", "enhancement", "newpackage"
	Severity   string // "Critical", "Important", "Moderate", "Low"; empty where it has none
	Title      string
	Issued     string // as it is written: "2024-05-01 12:00:00", or seconds since 1970
	References []Reference
	Packages   []AdvisoryPackage
}

// Reference is what an advisory is about.
type Reference struct {
	Type  string // "cve", "bugzilla", "self"
	ID    string // "CVE-2024-1234"
	URL   string
	Title string
}

// AdvisoryPackage is a package that an advisory brings.
type AdvisoryPackage struct {
	Name string
	EVR  EVR
	Arch string
}

// ParseUpdateinfo reads updateinfo.xml, compressed or not, and calls visit
// with each advisory, in the order of the file. An advisory without an id, and
// a package in it without name, version, release or architecture, are errors.
// An error of visit stops the reading and is returned as it is.
func ParseUpdateinfo(r io.Reader, visit func(*Advisory) error) error {
	return parseUpdateinfo(r, MaxUpdateinfo, visit)
}

func parseUpdateinfo(r io.Reader, limit int64, visit func(*Advisory) error) error {
	z, err := Decompress(r, limit)
	if err != nil {
		return fmt.Errorf("updateinfo: %w", err)
	}
	defer z.Close()
	s := newScanner(z, "updateinfo")
	p := &updateinfoParser{s: s}
	if err := s.root("updates"); err != nil {
		return err
	}
	return s.children(func(name []byte) error {
		if string(name) != "update" {
			return s.skip()
		}
		p.in, p.start = newInterner(s), s.offset() // texts hardly repeat between advisories: keep none
		a, err := p.advisory()
		if err != nil {
			return err
		}
		return visit(a)
	})
}

type updateinfoParser struct {
	s     *scanner
	in    *interner
	start int64 // where the present advisory begins
}

func (p *updateinfoParser) advisory() (*Advisory, error) {
	a := &Advisory{}
	var err error
	if a.Type, err = p.in.attr("type"); err != nil {
		return nil, err
	}
	err = p.s.children(func(name []byte) (err error) {
		switch string(name) {
		case "id":
			a.ID, err = p.in.text()
		case "title":
			a.Title, err = p.in.text()
		case "severity":
			a.Severity, err = p.in.text()
		case "issued":
			if a.Issued, err = p.in.attr("date"); err == nil {
				err = p.s.skip()
			}
		case "references":
			err = p.s.children(func(name []byte) error { return p.reference(a, name) })
		case "pkglist":
			err = p.s.children(func(name []byte) error {
				if string(name) != "collection" {
					return p.s.skip()
				}
				return p.s.children(func(name []byte) error { return p.pkg(a, name) })
			})
		default:
			err = p.s.skip()
		}
		return err
	})
	if err == nil && a.ID == "" {
		err = p.s.errorf("advisory %.80q has no id", a.Title)
	}
	return a, err
}

func (p *updateinfoParser) reference(a *Advisory, name []byte) error {
	if string(name) != "reference" {
		return p.s.skip()
	}
	var r Reference
	for _, f := range []struct {
		name string
		into *string
	}{{"type", &r.Type}, {"id", &r.ID}, {"href", &r.URL}, {"title", &r.Title}} {
		var err error
		if *f.into, err = p.in.attr(f.name); err != nil {
			return err
		}
	}
	a.References = append(a.References, r)
	return p.end(a)
}

func (p *updateinfoParser) pkg(a *Advisory, name []byte) error {
	if string(name) != "package" {
		return p.s.skip()
	}
	var k AdvisoryPackage
	for _, f := range []struct {
		name string
		into *string
	}{{"name", &k.Name}, {"version", &k.EVR.Version}, {"release", &k.EVR.Release}, {"arch", &k.Arch}} {
		var err error
		if *f.into, err = p.in.attr(f.name); err != nil {
			return err
		}
		if *f.into == "" {
			return p.s.errorf("advisory %.80q: a package without %s", a.ID, f.name)
		}
	}
	var err error
	if k.EVR.Epoch, err = parseEpoch(string(p.s.attr("epoch"))); err != nil {
		return p.s.errorf("advisory %.80q: %w", a.ID, err)
	}
	a.Packages = append(a.Packages, k)
	return p.end(a)
}

// end consumes a part of an advisory, unless that is too large.
func (p *updateinfoParser) end(a *Advisory) error {
	if p.s.offset()-p.start > maxAdvisory {
		return p.s.errorf("advisory %.80q has more than %d bytes", a.ID, maxAdvisory)
	}
	return p.s.skip()
}

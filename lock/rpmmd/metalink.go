package rpmmd

import (
	"cmp"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// MaxMetalink bounds a metalink, in bytes; Fedora's have about 60 kB.
	MaxMetalink = 4 << 20
	// MaxMirrors bounds how many mirrors a metalink or a list of mirrors has.
	MaxMirrors = 10000
	// maxVersions bounds how many repomd.xml a metalink accepts.
	maxVersions = 100
)

// Metalink says where a repository's repomd.xml lies and which digest it has:
// a metalink 3.0 with the mm0 elements that MirrorManager adds.
type Metalink struct {
	// Versions are the repomd.xml that a mirror may have: the present one, and
	// then those before it (mm0:alternates) that are accepted still.
	Versions []MetalinkVersion
	// Mirrors are the repositories' addresses, with a final slash: those of
	// http and https, the one to be tried first first.
	Mirrors []string
}

// MetalinkVersion is one repomd.xml.
type MetalinkVersion struct {
	Timestamp int64 // seconds since 1970; 0: not said
	Size      int64 // bytes; 0: not said
	Checksums []Checksum
}

// SHA256 is the version's SHA-256 in hex, "" where the metalink has none.
func (v *MetalinkVersion) SHA256() string {
	for _, c := range v.Checksums {
		if c.Algorithm == "sha256" {
			return c.Hex
		}
	}
	return ""
}

// ParseMetalink reads the metalink of a repository. Mirrors are sorted by
// preference, the highest first; among equals https comes before http, and
// then the address decides. What is not a repodata/repomd.xml by http or https
// is left out. A metalink that names no repomd.xml, or two, is an error.
func ParseMetalink(r io.Reader) (*Metalink, error) {
	z, err := Decompress(r, MaxMetalink)
	if err != nil {
		return nil, fmt.Errorf("metalink: %w", err)
	}
	defer z.Close()
	s := newScanner(z, "metalink")
	p := &metalinkParser{s: s, in: newInterner(s)}
	if err := s.root("metalink"); err != nil {
		return nil, err
	}
	err = s.children(func(name []byte) error {
		if string(name) != "files" {
			return s.skip()
		}
		return s.children(p.file)
	})
	if err == nil && p.out.Versions == nil {
		err = s.errorf("it names no repomd.xml")
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(p.mirrors, func(a, b metalinkMirror) int {
		return cmp.Or(cmp.Compare(b.preference, a.preference), cmp.Compare(b.scheme, a.scheme), cmp.Compare(a.base, b.base))
	})
	seen := make(map[string]bool)
	for _, m := range p.mirrors {
		if !seen[m.base] {
			seen[m.base] = true
			p.out.Mirrors = append(p.out.Mirrors, m.base)
		}
	}
	return &p.out, nil
}

type metalinkParser struct {
	s       *scanner
	in      *interner
	out     Metalink
	mirrors []metalinkMirror
}

type metalinkMirror struct {
	base, scheme string
	preference   int
}

// file reads one <file>.
func (p *metalinkParser) file(name []byte) error {
	if string(name) != "file" {
		return p.s.skip()
	}
	what, err := p.in.attr("name")
	if err != nil {
		return err
	}
	if what != "repomd.xml" {
		return p.s.skip()
	}
	if p.out.Versions != nil {
		return p.s.errorf("repomd.xml is there twice")
	}
	var now MetalinkVersion
	var before []MetalinkVersion
	err = p.s.children(func(name []byte) error {
		switch string(name) {
		case "mm0:alternates":
			return p.s.children(func([]byte) error {
				var v MetalinkVersion
				err := p.s.children(func(name []byte) error { return p.version(name, &v) })
				if before = append(before, v); err == nil && len(before) > maxVersions {
					err = p.s.errorf("more than %d versions of repomd.xml", maxVersions)
				}
				return err
			})
		case "resources":
			return p.s.children(p.resource)
		}
		return p.version(name, &now)
	})
	p.out.Versions = append([]MetalinkVersion{now}, before...)
	return err
}

// version reads one of the elements that describe a repomd.xml.
func (p *metalinkParser) version(name []byte, v *MetalinkVersion) (err error) {
	switch string(name) {
	case "mm0:timestamp":
		v.Timestamp, err = parseSize(p.s, p.in)
	case "size":
		v.Size, err = parseSize(p.s, p.in)
	case "verification":
		err = p.s.children(func(name []byte) error {
			if _, known := hexLengths[string(p.s.attr("type"))]; string(name) != "hash" || !known {
				return p.s.skip()
			}
			c, err := parseChecksum(p.s, p.in)
			if v.Checksums = append(v.Checksums, c); err == nil && len(v.Checksums) > len(hexLengths) {
				err = p.s.errorf("more than %d checksums of one file", len(hexLengths))
			}
			return err
		})
	default:
		err = p.s.skip()
	}
	return err
}

// resource reads one <url>.
func (p *metalinkParser) resource(name []byte) error {
	if string(name) != "url" {
		return p.s.skip()
	}
	var m metalinkMirror
	if raw := p.s.attr("preference"); len(raw) > 0 {
		n, err := strconv.Atoi(string(raw))
		if err != nil {
			return p.s.errorf("preference %.40q is not a number", raw)
		}
		m.preference = n
	}
	text, err := p.in.text()
	if err != nil {
		return err
	}
	base, ok := strings.CutSuffix(strings.TrimSpace(text), "/repodata/repomd.xml")
	u, err := url.Parse(base)
	if !ok || err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil
	}
	if len(p.mirrors) == MaxMirrors {
		return p.s.errorf("more than %d mirrors", MaxMirrors)
	}
	m.base, m.scheme = strings.TrimRight(base, "/")+"/", u.Scheme
	p.mirrors = append(p.mirrors, m)
	return nil
}

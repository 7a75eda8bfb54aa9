package facts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode"

	"caisson/attest/spdx"
)

// Limits of a bill of materials that came with an image.
const (
	maxDocument = 64 << 20 // bytes
	maxWrapped  = 3        // bundle, envelope, statement
)

// ofSBOM reads what a bill of materials lists: an SPDX 2 document or one of
// CycloneDX, in JSON, bare or in an attestation. Of one in another form it says
// so.
func ofSBOM(r io.Reader) (spdx.Facts, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxDocument+1))
	if err != nil {
		return spdx.Facts{}, err
	}
	if len(b) > maxDocument {
		return spdx.Facts{NotImported: fmt.Sprintf("it has more than %d bytes", maxDocument)}, nil
	}
	listed, err := listed(b, maxWrapped)
	if err != nil {
		return spdx.Facts{NotImported: err.Error()}, nil
	}
	return spdx.Facts{Imported: listed}, nil
}

// wrapped is the outermost object of any of the forms.
type wrapped struct {
	Envelope  json.RawMessage `json:"dsseEnvelope"` // a sigstore bundle
	Payload   []byte          `json:"payload"`      // a DSSE envelope
	Predicate json.RawMessage `json:"predicate"`    // an in-toto statement

	SPDX   string `json:"spdxVersion"`
	Format string `json:"bomFormat"`
}

func listed(b []byte, depth int) ([]spdx.Imported, error) {
	var w wrapped
	if err := json.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("it is no JSON that can be read: %w", err)
	}
	switch {
	case strings.HasPrefix(w.SPDX, "SPDX-2."):
		return listedSPDX(b)
	case w.Format == "CycloneDX":
		return listedCycloneDX(b)
	case depth == 0:
	case len(w.Envelope) > 0:
		return listed(w.Envelope, depth-1)
	case len(w.Payload) > 0:
		return listed(w.Payload, depth-1)
	case len(w.Predicate) > 0:
		return listed(w.Predicate, depth-1)
	}
	return nil, errors.New("it is neither SPDX 2 nor CycloneDX")
}

// listedSPDX reads sections 7 and 11 of an SPDX 2 document.
func listedSPDX(b []byte) ([]spdx.Imported, error) {
	var doc struct {
		Packages []struct {
			ID        string `json:"SPDXID"`
			Name      string `json:"name"`
			Version   string `json:"versionInfo"`
			Supplier  string `json:"supplier"`
			Declared  string `json:"licenseDeclared"`
			Checksums []struct {
				Algorithm string `json:"algorithm"`
				Value     string `json:"checksumValue"`
			} `json:"checksums"`
			Refs []struct {
				Type    string `json:"referenceType"`
				Locator string `json:"referenceLocator"`
			} `json:"externalRefs"`
		} `json:"packages"`
		Relationships []struct {
			From string `json:"spdxElementId"`
			To   string `json:"relatedSpdxElement"`
			Type string `json:"relationshipType"`
		} `json:"relationships"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("reading it as SPDX: %w", err)
	}
	needs := map[string][]string{}
	for _, r := range doc.Relationships {
		switch r.Type {
		case "DEPENDS_ON":
			needs[r.From] = append(needs[r.From], r.To)
		case "DEPENDENCY_OF":
			needs[r.To] = append(needs[r.To], r.From)
		}
	}
	var out []spdx.Imported
	for _, p := range doc.Packages {
		c := spdx.Imported{ID: p.ID, Name: p.Name, Version: p.Version, License: asserted(p.Declared), Supplier: asserted(p.Supplier), Needs: needs[p.ID]}
		c.Supplier = strings.TrimSpace(strings.TrimPrefix(strings.TrimPrefix(c.Supplier, "Organization:"), "Person:"))
		for _, s := range p.Checksums {
			if s.Algorithm == "SHA256" {
				c.SHA256 = sum(s.Value)
			}
		}
		for _, r := range p.Refs {
			if r.Type == "purl" && c.PURL == "" {
				c.PURL = purl(r.Locator)
			}
		}
		if c.ID != "" && c.Name != "" {
			out = append(out, c)
		}
	}
	return out, nil
}

type cdxComponent struct {
	Ref      string `json:"bom-ref"`
	Group    string `json:"group"`
	Name     string `json:"name"`
	Version  string `json:"version"`
	PURL     string `json:"purl"`
	Supplier struct {
		Name string `json:"name"`
	} `json:"supplier"`
	Hashes []struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	} `json:"hashes"`
	Licenses []struct {
		Expression string `json:"expression"`
		License    struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"license"`
	} `json:"licenses"`
	Components []cdxComponent `json:"components"`
}

// listedCycloneDX reads components and dependencies of a CycloneDX document.
func listedCycloneDX(b []byte) ([]spdx.Imported, error) {
	var doc struct {
		Components   []cdxComponent `json:"components"`
		Dependencies []struct {
			Ref string   `json:"ref"`
			On  []string `json:"dependsOn"`
		} `json:"dependencies"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return nil, fmt.Errorf("reading it as CycloneDX: %w", err)
	}
	needs := map[string][]string{}
	for _, d := range doc.Dependencies {
		needs[d.Ref] = append(needs[d.Ref], d.On...)
	}
	return flatten(nil, doc.Components, needs), nil
}

// flatten adds components and those in them.
func flatten(out []spdx.Imported, components []cdxComponent, needs map[string][]string) []spdx.Imported {
	for i := range components {
		c := &components[i]
		if c.Name == "" {
			continue
		}
		im := spdx.Imported{ID: c.Ref, Name: c.Name, Version: c.Version, PURL: purl(c.PURL), Supplier: c.Supplier.Name, License: c.license(), Needs: needs[c.Ref]}
		if c.Group != "" {
			im.Name = c.Group + "/" + c.Name
		}
		if im.ID == "" { // only what is referred to has to have one
			im.ID = im.Name + "@" + im.Version
		}
		for _, h := range c.Hashes {
			if h.Algorithm == "SHA-256" {
				im.SHA256 = sum(h.Content)
			}
		}
		out = flatten(append(out, im), c.Components, needs)
	}
	return out
}

// license joins what a component lists: all of it applies.
func (c *cdxComponent) license() string {
	var all []string
	for _, l := range c.Licenses {
		for _, s := range []string{l.Expression, l.License.ID, l.License.Name} {
			if s != "" {
				all = append(all, s)
				break
			}
		}
	}
	if len(all) > 1 {
		for i, s := range all {
			if strings.Contains(s, " ") {
				all[i] = "(" + s + ")"
			}
		}
	}
	return strings.Join(all, " AND ")
}

// asserted is a field's value, or nothing where nobody asserts one.
func asserted(s string) string {
	if s == "NOASSERTION" || s == "NONE" {
		return ""
	}
	return s
}

// purl is a package URL that has the form of one; else nothing.
func purl(s string) string {
	if !strings.HasPrefix(s, "pkg:") || strings.ContainsFunc(s, unicode.IsSpace) {
		return ""
	}
	return s
}

// sum is a SHA-256 in hex; else nothing.
func sum(s string) string {
	s = strings.ToLower(s)
	if len(s) != 64 || strings.Trim(s, "0123456789abcdef") != "" {
		return ""
	}
	return s
}

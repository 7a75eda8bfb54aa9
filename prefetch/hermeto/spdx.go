package hermeto

import (
	"cmp"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"caisson/lock/digest"
)

const (
	spdxRoot     = "SPDXRef-DocumentRoot-File-"
	spdxDocument = "SPDXRef-DOCUMENT"
	noAssertion  = "NOASSERTION"
	// Annotators, by what their comments are.
	annotatorJSON    = "Tool: " + ourMark
	annotatorBackend = "Tool: hermeto:backend"
	// hermetoJSON ends the annotator of a property that Hermeto wrote.
	hermetoJSON = "hermeto:jsonencoded"
)

// SPDX is an SPDX 2.3 document in Hermeto's shape: a root without a name that
// contains all packages.
type SPDX struct {
	Version       string         `json:"spdxVersion"`
	ID            string         `json:"SPDXID"`
	DataLicense   string         `json:"dataLicense"`
	Name          string         `json:"name"`
	Namespace     string         `json:"documentNamespace"`
	Creation      SPDXCreation   `json:"creationInfo"`
	Packages      []SPDXPackage  `json:"packages"`
	Relationships []SPDXRelation `json:"relationships"`
}

// SPDXCreation says who wrote a document, and when.
type SPDXCreation struct {
	Creators []string `json:"creators"`
	Created  string   `json:"created"`
}

// SPDXPackage is one package.
type SPDXPackage struct {
	ID          string           `json:"SPDXID"`
	Name        string           `json:"name"`
	Version     string           `json:"versionInfo,omitempty"`
	References  []SPDXReference  `json:"externalRefs,omitempty"`
	Annotations []SPDXAnnotation `json:"annotations,omitempty"`
	Location    string           `json:"downloadLocation"`
	SourceInfo  string           `json:"sourceInfo,omitempty"`
	Checksums   []SPDXChecksum   `json:"checksums,omitempty"`
}

// SPDXReference is a package URL, or a patch.
type SPDXReference struct {
	Locator  string `json:"referenceLocator"`
	Type     string `json:"referenceType"`
	Category string `json:"referenceCategory"`
}

// SPDXAnnotation is a property, or says which backend found the package.
type SPDXAnnotation struct {
	Annotator string `json:"annotator"`
	Date      string `json:"annotationDate"`
	Type      string `json:"annotationType"`
	Comment   string `json:"comment"`
}

// SPDXChecksum is "SHA256" and hex digits.
type SPDXChecksum struct {
	Algorithm string `json:"algorithm"`
	Value     string `json:"checksumValue"`
}

// SPDXRelation joins two elements.
type SPDXRelation struct {
	Element string `json:"spdxElementId"`
	Comment string `json:"comment"`
	Related string `json:"relatedSpdxElement"`
	Type    string `json:"relationshipType"`
}

var notInID = regexp.MustCompile(`[^0-9a-zA-Z.-]`)

// SPDX is the same document in the other format; epoch is in seconds since
// 1970.
func (b *BOM) SPDX(name string, epoch int64) (*SPDX, error) {
	created := timestamp(epoch)
	doc := &SPDX{
		Version: "SPDX-2.3", ID: spdxDocument, DataLicense: "CC0-1.0", Name: name, Creation: SPDXCreation{Created: created},
		Packages:      []SPDXPackage{{ID: spdxRoot, Location: noAssertion}},
		Relationships: []SPDXRelation{{Element: spdxDocument, Related: spdxRoot, Type: "DESCRIBES"}},
	}
	for _, t := range b.Metadata.Tools {
		doc.Creation.Creators = append(doc.Creation.Creators, "Tool: "+t.Name, "Organization: "+t.Vendor)
	}
	backends := map[string][]Annotation{}
	for _, a := range b.Annotations {
		for _, ref := range a.Subjects {
			backends[ref] = append(backends[ref], a)
		}
	}
	for i := range b.Components {
		p, err := b.Components[i].spdx(backends[b.Components[i].Ref], created)
		if err != nil {
			return nil, err
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, SPDXRelation{Element: spdxRoot, Related: p.ID, Type: "CONTAINS"})
	}
	// An address that nothing is at, but that no other document has.
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	doc.Namespace = "https://spdx.org/spdxdocs/prefetch-" + digest.Of(text).Hex()
	return doc, nil
}

func (c *Component) spdx(notes []Annotation, created string) (SPDXPackage, error) {
	readable := c.Name
	if c.Version != "" {
		readable += "-" + c.Version
	}
	id, err := c.id()
	if err != nil {
		return SPDXPackage{}, err
	}
	p := SPDXPackage{
		ID:   notInID.ReplaceAllString("SPDXRef-Package-"+readable+"-"+id, "-"),
		Name: c.Name, Version: c.Version, Location: noAssertion,
		References: []SPDXReference{{Locator: c.PURL, Type: "purl", Category: "PACKAGE-MANAGER"}},
	}
	for _, h := range c.Hashes {
		p.Checksums = append(p.Checksums, SPDXChecksum{Algorithm: strings.ReplaceAll(h.Algorithm, "-", ""), Value: h.Content})
	}
	var proxies []string
	for _, r := range c.References {
		if r.Type == "distribution" && r.Comment == "proxy URL" {
			proxies = append(proxies, r.URL)
		}
	}
	p.SourceInfo = strings.Join(proxies, ";")
	for _, a := range notes {
		annotator := annotatorJSON
		if strings.HasPrefix(a.Text, backendPrefix) {
			annotator = annotatorBackend
		}
		p.Annotations = append(p.Annotations, SPDXAnnotation{Annotator: annotator, Date: a.Timestamp, Type: "OTHER", Comment: a.Text})
	}
	for _, prop := range c.Properties {
		text, err := prop.comment()
		if err != nil {
			return p, err
		}
		p.Annotations = append(p.Annotations, SPDXAnnotation{Annotator: annotatorJSON, Date: created, Type: "OTHER", Comment: text})
	}
	return p, nil
}

// comment is a property as the text of an annotation.
func (p Property) comment() (string, error) { return pythonJSON("name", p.Name, "value", p.Value) }

// id tells a package from others of its name and version.
func (c *Component) id() (string, error) {
	text, err := pythonJSON("name", c.Name, "purl", c.PURL, "version", c.Version)
	if c.Version == "" {
		text = strings.TrimSuffix(text, `""}`) + "null}"
	}
	return digest.Of([]byte(text)).Hex(), err
}

// pythonJSON is an object of names and texts with the blanks that Python's
// json.dumps puts: Hermeto's ids are made of such, and Konflux compares whole
// annotations.
func pythonJSON(pairs ...string) (string, error) {
	var b strings.Builder
	for i, s := range pairs {
		var text strings.Builder
		enc := json.NewEncoder(&text)
		enc.SetEscapeHTML(false)
		if err := enc.Encode(s); err != nil {
			return "", fmt.Errorf("writing JSON: %w", err)
		}
		switch {
		case i%2 == 1:
			b.WriteString(": ")
		case i > 0:
			b.WriteString(", ")
		}
		b.WriteString(strings.TrimSpace(text.String()))
	}
	return "{" + b.String() + "}", nil
}

// CycloneDX is the same document in the other format.
func (d *SPDX) CycloneDX() (*BOM, error) {
	b := &BOM{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1}
	var tool Tool
	for _, c := range d.Creation.Creators {
		if name, ok := strings.CutPrefix(c, "Tool: "); ok {
			tool.Name = name
		}
		if vendor, ok := strings.CutPrefix(c, "Organization: "); ok {
			tool.Vendor = vendor
		}
		if tool.Name != "" && tool.Vendor != "" {
			b.Metadata.Tools = append(b.Metadata.Tools, tool)
			tool = Tool{}
		}
	}
	for i := range d.Packages {
		p := &d.Packages[i]
		if p.Name == "" && p.Version == "" && len(p.References) == 0 {
			continue // the root
		}
		if err := p.addTo(b); err != nil {
			return nil, fmt.Errorf("%s: %w", p.ID, err)
		}
	}
	b.normalize()
	return b, nil
}

// addTo adds a component for each of the package's package URLs.
func (p *SPDXPackage) addTo(b *BOM) error {
	c := Component{Name: p.Name, Version: p.Version, Type: "library", Properties: []Property{}}
	for _, s := range p.Checksums {
		c.Hashes = append(c.Hashes, Hash{Algorithm: strings.Replace(s.Algorithm, "SHA", "SHA-", 1), Content: s.Value})
	}
	for u := range strings.SplitSeq(p.SourceInfo, ";") {
		if u != "" {
			c.References = append(c.References, ExternalReference{URL: u, Type: "distribution", Comment: "proxy URL"})
		}
	}
	var urls []string
	for _, r := range p.References {
		if r.Type == "purl" {
			urls = append(urls, r.Locator)
		}
	}
	for _, a := range p.Annotations {
		switch {
		case a.Annotator == annotatorBackend || strings.HasPrefix(a.Comment, backendPrefix):
			b.Annotations = append(b.Annotations, Annotation{
				Subjects: slices.Clone(urls), Annotator: map[string]map[string]string{"organization": {"name": toolName}},
				Timestamp: a.Date, Text: a.Comment,
			})
		case a.Annotator == annotatorJSON || strings.HasSuffix(a.Annotator, hermetoJSON):
			var prop Property
			if err := json.Unmarshal([]byte(a.Comment), &prop); err != nil {
				return fmt.Errorf("annotation %q: %w", a.Comment, err)
			}
			c.Properties = append(c.Properties, prop)
		default:
			c.Properties = append(c.Properties, Property{Name: a.Annotator, Value: a.Comment})
		}
	}
	if len(urls) == 0 {
		urls = []string{""}
	}
	for _, u := range urls {
		c.PURL, c.Ref = u, u
		b.Components = append(b.Components, c)
	}
	return nil
}

// normalize makes one package of those with the same package URLs, and sorts.
func (d *SPDX) normalize() {
	key := func(p *SPDXPackage) string {
		var urls []string
		for _, r := range p.References {
			if r.Type == "purl" {
				urls = append(urls, r.Locator)
			}
		}
		if len(urls) == 0 {
			return "\x00" + p.Name + "\x00" + p.Version
		}
		slices.Sort(urls)
		return strings.Join(urls, "\x00")
	}
	byKey, renamed := map[string]*SPDXPackage{}, map[string]string{}
	var out []*SPDXPackage
	for i := range d.Packages {
		p := &d.Packages[i]
		old, ok := byKey[key(p)]
		if !ok {
			byKey[key(p)] = p
			out = append(out, p)
			continue
		}
		old.References = append(old.References, p.References...)
		old.Annotations = append(old.Annotations, p.Annotations...)
		old.Checksums = append(old.Checksums, p.Checksums...)
		renamed[p.ID] = old.ID
	}
	slices.SortStableFunc(out, func(a, b *SPDXPackage) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.Version, b.Version), strings.Compare(a.ID, b.ID))
	})
	packages := make([]SPDXPackage, 0, len(out))
	for _, p := range out {
		p.References = sortedSet(p.References, func(r SPDXReference) string { return r.Locator + "\x00" + r.Type + "\x00" + r.Category })
		p.Annotations = sortedSet(p.Annotations, func(a SPDXAnnotation) string { return a.Annotator + "\x00" + a.Date + "\x00" + a.Comment })
		p.Checksums = sortedSet(p.Checksums, func(c SPDXChecksum) string { return c.Algorithm + "\x00" + c.Value })
		packages = append(packages, *p)
	}
	d.Packages = packages
	for i := range d.Relationships {
		r := &d.Relationships[i]
		r.Element, r.Related = cmp.Or(renamed[r.Element], r.Element), cmp.Or(renamed[r.Related], r.Related)
	}
	d.Relationships = sortedSet(d.Relationships, func(r SPDXRelation) string {
		return r.Element + "\x00" + r.Type + "\x00" + r.Related + "\x00" + r.Comment
	})
}

// Format is the document's text.
func (d *SPDX) Format() ([]byte, error) { return formatJSON(d) }

package hermeto

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Names that Hermeto gives, and ours beside them.
const (
	propFoundBy    = "hermeto:found_by"
	propOurs       = "caisson:found_by"
	propModularity = "hermeto:rpm_modularity_label"
	propSummary    = "hermeto:rpm_summary"
	backendPrefix  = "hermeto:backend:"

	// foundBy is what Conforma's rules for Hermeto look for.
	foundBy = "hermeto"
	// ourMark is the same for who looks for a name in it, and is true.
	ourMark  = "caisson:hermeto-compatible"
	toolName = "caisson"
)

// BOM is a CycloneDX 1.6 document as Hermeto writes it: what it has no field
// for, Hermeto's own documents do not have either, but for hashes.
type BOM struct {
	BOMFormat   string       `json:"bomFormat"`
	Annotations []Annotation `json:"annotations,omitempty"`
	Components  []Component  `json:"components"`
	Metadata    Metadata     `json:"metadata"`
	SpecVersion string       `json:"specVersion"`
	Version     int          `json:"version"`
}

// Annotation says which backend found components.
type Annotation struct {
	Subjects  []string                     `json:"subjects"`
	Annotator map[string]map[string]string `json:"annotator"`
	Timestamp string                       `json:"timestamp"`
	Text      string                       `json:"text"`
}

// Component is one package or file.
type Component struct {
	Ref        string              `json:"bom-ref"`
	Name       string              `json:"name"`
	PURL       string              `json:"purl"`
	Version    string              `json:"version,omitempty"`
	Properties []Property          `json:"properties"`
	Type       string              `json:"type"`
	Hashes     []Hash              `json:"hashes,omitempty"`
	References []ExternalReference `json:"externalReferences,omitempty"`
	Pedigree   json.RawMessage     `json:"pedigree,omitempty"`
}

// Property is a name and a value.
type Property struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Hash is a checksum: "SHA-256" and hex digits.
type Hash struct {
	Algorithm string `json:"alg"`
	Content   string `json:"content"`
}

// ExternalReference is where a component was had.
type ExternalReference struct {
	URL     string `json:"url"`
	Type    string `json:"type"`
	Comment string `json:"comment,omitempty"`
}

// Metadata names the tools.
type Metadata struct {
	Tools []Tool `json:"tools"`
}

// Tool is a program.
type Tool struct {
	Vendor string `json:"vendor"`
	Name   string `json:"name"`
}

// newBOM is a document of these components, found by the backends of their
// names, at a time in seconds since 1970.
func newBOM(byBackend map[string][]Component, epoch int64) *BOM {
	b := &BOM{BOMFormat: "CycloneDX", SpecVersion: "1.6", Version: 1, Metadata: Metadata{Tools: []Tool{{Vendor: toolName, Name: toolName}}}}
	for backend, all := range byBackend {
		if len(all) == 0 {
			continue
		}
		a := Annotation{
			Annotator: map[string]map[string]string{"organization": {"name": toolName}},
			Timestamp: timestamp(epoch), Text: backendPrefix + backend,
		}
		for _, c := range all {
			c.Properties = append(c.Properties, Property{propFoundBy, foundBy}, Property{propOurs, ourMark})
			c.Ref, c.Type = c.PURL, cmp.Or(c.Type, "library")
			b.Components = append(b.Components, c)
			a.Subjects = append(a.Subjects, c.Ref)
		}
		b.Annotations = append(b.Annotations, a)
	}
	b.normalize()
	return b
}

func timestamp(epoch int64) string { return time.Unix(epoch, 0).UTC().Format(time.RFC3339) }

// normalize makes one component of those with the same package URL, one
// annotation of those with the same text, and sorts.
func (b *BOM) normalize() {
	slices.SortStableFunc(b.Components, func(x, y Component) int { return strings.Compare(x.PURL, y.PURL) })
	out := []Component{}
	for _, c := range b.Components {
		if n := len(out); n > 0 && out[n-1].PURL == c.PURL {
			last := &out[n-1]
			last.Properties = append(last.Properties, c.Properties...)
			last.Hashes = append(last.Hashes, c.Hashes...)
			last.References = append(last.References, c.References...)
			continue
		}
		c.Properties, c.Hashes, c.References = slices.Clone(c.Properties), slices.Clone(c.Hashes), slices.Clone(c.References)
		out = append(out, c)
	}
	for i := range out {
		c := &out[i]
		c.Properties = sortedSet(c.Properties, func(p Property) string { return p.Name + "\x00" + p.Value })
		c.Hashes = sortedSet(c.Hashes, func(h Hash) string { return h.Algorithm + "\x00" + h.Content })
		c.References = sortedSet(c.References, func(r ExternalReference) string { return r.Type + "\x00" + r.URL + "\x00" + r.Comment })
	}
	b.Components = out
	slices.SortStableFunc(b.Annotations, func(x, y Annotation) int {
		return cmp.Or(strings.Compare(x.Text, y.Text), strings.Compare(x.Timestamp, y.Timestamp))
	})
	var notes []Annotation
	for _, a := range b.Annotations {
		if n := len(notes); n > 0 && notes[n-1].Text == a.Text && strings.HasPrefix(a.Text, backendPrefix) {
			a.Subjects = append(a.Subjects, notes[n-1].Subjects...) // and the later of the two times
			notes = notes[:n-1]
		}
		a.Subjects = sortedSet(a.Subjects, func(s string) string { return s })
		notes = append(notes, a)
	}
	b.Annotations = notes
	b.Metadata.Tools = sortedSet(b.Metadata.Tools, func(t Tool) string { return t.Vendor + "\x00" + t.Name })
}

// sortedSet is a list in the order of its keys, each once.
func sortedSet[T any](all []T, key func(T) string) []T {
	slices.SortFunc(all, func(a, b T) int { return strings.Compare(key(a), key(b)) })
	return slices.CompactFunc(all, func(a, b T) bool { return key(a) == key(b) })
}

// Format is the document's text.
func (b *BOM) Format() ([]byte, error) { return formatJSON(b) }

func formatJSON(v any) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("writing JSON: %w", err)
	}
	return out.Bytes(), nil
}

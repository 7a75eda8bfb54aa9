package hermeto

import (
	"bytes"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

func sample() *BOM {
	return newBOM(map[string][]Component{
		"gomod":   {{Name: "m", Version: "v1", PURL: "pkg:golang/m@v1?type=module", Hashes: []Hash{{"SHA-256", "00"}}}},
		"generic": {{Name: "f", PURL: "pkg:generic/f", Type: "file", References: []ExternalReference{{URL: "https://h/f", Type: "distribution"}}}},
		"cargo":   nil,
	}, 1700000000)
}

func format(t *testing.T, d interface{ Format() ([]byte, error) }) []byte {
	t.Helper()
	b, err := d.Format()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestConforma applies Conforma's rule of what Hermeto found (its
// policy/lib/sbom/sbom.rego: component_found_by_hermeto, package_found_by_hermeto).
func TestConforma(t *testing.T) {
	b := sample()
	for _, c := range b.Components {
		found := false
		for _, p := range c.Properties {
			found = found || p == Property{"hermeto:found_by", "hermeto"}
		}
		if !found {
			t.Errorf("%s: %+v", c.Name, c.Properties)
		}
	}
	d, err := b.SPDX("", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range d.Packages[1:] {
		found := false
		for _, a := range p.Annotations {
			found = found || a.Annotator == "Tool: caisson:hermeto-compatible" && a.Type == "OTHER" && regexp.MustCompile(".*hermeto.*").MatchString(a.Annotator)
		}
		if !found {
			t.Errorf("%s: %+v", p.Name, p.Annotations)
		}
	}
}

// TestFormats: an SBOM stays what it is through the other format and a merge
// with itself.
func TestFormats(t *testing.T) {
	b := sample()
	d, err := b.SPDX("n", 1700000000)
	if err != nil {
		t.Fatal(err)
	}
	back, err := d.CycloneDX()
	if err != nil {
		t.Fatal(err)
	}
	for i := range back.Components { // SPDX has no word for these
		if back.Components[i].Name == "f" {
			back.Components[i].Type, back.Components[i].References = "file", b.Components[i].References
		}
	}
	if got, want := format(t, back), format(t, b); !bytes.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for _, spdx := range []bool{false, true} {
		want := format(t, b)
		if spdx {
			d.normalize()
			want = format(t, d)
		}
		one, err := ReadDocument("one", format(t, b))
		if err != nil {
			t.Fatal(err)
		}
		two, err := ReadDocument("two", format(t, d))
		if err != nil {
			t.Fatal(err)
		}
		all := []Document{one, one}
		if spdx {
			all = []Document{two, one}
		}
		got, err := Merge(all, spdx, "n", 1700000000)
		if err != nil {
			t.Fatal(err)
		}
		if got := format(t, got); !bytes.Equal(got, want) {
			t.Errorf("merged:\n%s\nwant\n%s", got, want)
		}
	}
}

// hermetoSPDX is in the shape that Hermeto writes.
const hermetoSPDX = `{"spdxVersion": "SPDX-2.3", "SPDXID": "SPDXRef-DOCUMENT", "dataLicense": "CC0-1.0", "name": "", "documentNamespace": "NOASSERTION",
 "creationInfo": {"creators": ["Tool: hermeto", "Organization: red hat"], "created": "2026-01-01T00:00:00Z"},
 "packages": [{"SPDXID": "SPDXRef-DocumentRoot-File-", "name": "", "versionInfo": "", "downloadLocation": "NOASSERTION", "externalRefs": [], "annotations": []},
  {"SPDXID": "SPDXRef-Package-x", "name": "x", "versionInfo": "1", "downloadLocation": "NOASSERTION", "sourceInfo": "https://p1;https://p2",
   "externalRefs": [{"referenceLocator": "pkg:pypi/x@1", "referenceType": "purl", "referenceCategory": "PACKAGE-MANAGER"}],
   "annotations": [{"annotator": "Tool: hermeto:jsonencoded", "annotationDate": "2026-01-01T00:00:00Z", "annotationType": "OTHER", "comment": "{\"name\": \"hermeto:found_by\", \"value\": \"hermeto\"}"},
    {"annotator": "Tool: hermeto:backend", "annotationDate": "2026-01-01T00:00:00Z", "annotationType": "OTHER", "comment": "hermeto:backend:pip"}]}],
 "relationships": [{"spdxElementId": "SPDXRef-DOCUMENT", "comment": "", "relatedSpdxElement": "SPDXRef-DocumentRoot-File-", "relationshipType": "DESCRIBES"},
  {"spdxElementId": "SPDXRef-DocumentRoot-File-", "comment": "", "relatedSpdxElement": "SPDXRef-Package-x", "relationshipType": "CONTAINS"}]}`

// TestMergeHermeto: Hermeto's own documents are merged with ours.
func TestMergeHermeto(t *testing.T) {
	theirs, err := ReadDocument("theirs", []byte(hermetoSPDX))
	if err != nil {
		t.Fatal(err)
	}
	merged, err := Merge([]Document{{BOM: sample()}, theirs}, false, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	b := merged.BOM
	if len(b.Components) != 3 || len(b.Annotations) != 3 || len(b.Metadata.Tools) != 2 {
		t.Errorf("got %s", format(t, b))
	}
	for _, c := range b.Components {
		if c.Name == "x" && (len(c.References) != 2 || len(c.Properties) != 1 || c.Properties[0] != Property{"hermeto:found_by", "hermeto"}) {
			t.Errorf("got %+v", c)
		}
	}
	merged, err = Merge([]Document{theirs, {BOM: sample()}}, true, "all", 0)
	if err != nil {
		t.Fatal(err)
	}
	d := merged.SPDX
	if len(d.Packages) != 4 || len(d.Relationships) != 4 || d.Name != "all" || d.Creation.Created != "1970-01-01T00:00:00Z" {
		t.Errorf("got %s", format(t, d))
	}
	if _, err := Merge([]Document{theirs}, true, "", 0); err == nil {
		t.Error("one document was merged")
	}
}

func FuzzReadDocument(f *testing.F) {
	f.Add([]byte(hermetoSPDX))
	b, err := sample().Format()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(strings.Replace(hermetoSPDX, `{\"name\"`, `{\"nam`, 1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ReadDocument("x", b)
		if err != nil {
			return
		}
		for _, spdx := range []bool{false, true} {
			m, err := Merge([]Document{d, d}, spdx, "", 0)
			if err != nil {
				continue
			}
			out, err := m.Format()
			if err != nil || !json.Valid(out) {
				t.Errorf("%v: %s", err, out)
			}
		}
	})
}

package facts

import (
	"bytes"
	"encoding/base64"
	"reflect"
	"strings"
	"testing"

	"caisson/attest/spdx"
)

const spdxSBOM = `{"spdxVersion": "SPDX-2.3", "packages": [
	{"SPDXID": "SPDXRef-a", "name": "a", "versionInfo": "1", "supplier": "Organization: Example", "licenseDeclared": "MIT",
	 "checksums": [{"algorithm": "SHA1", "checksumValue": "00"}, {"algorithm": "SHA256", "checksumValue": "` + sixtyFour + `"}],
	 "externalRefs": [{"referenceType": "cpe23Type", "referenceLocator": "cpe:2.3:a:b"}, {"referenceType": "purl", "referenceLocator": "pkg:generic/a@1"}]},
	{"SPDXID": "SPDXRef-b", "name": "b", "supplier": "NOASSERTION", "licenseDeclared": "NOASSERTION", "checksums": [{"algorithm": "SHA256", "checksumValue": "xx"}],
	 "externalRefs": [{"referenceType": "purl", "referenceLocator": "pkg:with a blank"}]},
	{"SPDXID": "SPDXRef-nameless"}],
	"relationships": [{"spdxElementId": "SPDXRef-a", "relatedSpdxElement": "SPDXRef-b", "relationshipType": "DEPENDS_ON"},
	{"spdxElementId": "SPDXRef-a", "relatedSpdxElement": "SPDXRef-b", "relationshipType": "DEPENDENCY_OF"}]}`

const cycloneDX = `{"bomFormat": "CycloneDX", "specVersion": "1.5", "components": [
	{"bom-ref": "1", "group": "org", "name": "a", "version": "1", "purl": "pkg:maven/org/a@1", "supplier": {"name": "Example"},
	 "hashes": [{"alg": "SHA-256", "content": "` + sixtyFour + `"}], "licenses": [{"license": {"id": "MIT"}}, {"expression": "Apache-2.0 OR BSD-3-Clause"}],
	 "components": [{"name": "inner", "version": "2", "licenses": [{"license": {"name": "Own words"}}]}]}],
	"dependencies": [{"ref": "1", "dependsOn": ["inner@2"]}]}`

const sixtyFour = "abcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdefabcdef0123"

func envelope(document string) string {
	return `{"payloadType": "application/vnd.in-toto+json", "payload": "` + base64.StdEncoding.EncodeToString([]byte(`{"_type": "x", "predicate": `+document+`}`)) + `", "signatures": []}`
}

func TestSBOM(t *testing.T) {
	inSPDX := []spdx.Imported{
		{ID: "SPDXRef-a", Name: "a", Version: "1", PURL: "pkg:generic/a@1", License: "MIT", Supplier: "Example", SHA256: sixtyFour, Needs: []string{"SPDXRef-b"}},
		{ID: "SPDXRef-b", Name: "b", Needs: []string{"SPDXRef-a"}},
	}
	inCycloneDX := []spdx.Imported{
		{ID: "1", Name: "org/a", Version: "1", PURL: "pkg:maven/org/a@1", License: "MIT AND (Apache-2.0 OR BSD-3-Clause)", Supplier: "Example", SHA256: sixtyFour, Needs: []string{"inner@2"}},
		{ID: "inner@2", Name: "inner", Version: "2", License: "Own words"},
	}
	for name, tt := range map[string]struct {
		text string
		want []spdx.Imported
		not  string
	}{
		"SPDX":          {text: spdxSBOM, want: inSPDX},
		"CycloneDX":     {text: cycloneDX, want: inCycloneDX},
		"an envelope":   {text: envelope(spdxSBOM), want: inSPDX},
		"a bundle":      {text: `{"mediaType": "b", "dsseEnvelope": ` + envelope(cycloneDX) + `}`, want: inCycloneDX},
		"empty":         {text: "", not: "it is no JSON that can be read: unexpected end of JSON input"},
		"a list":        {text: "[]", not: "it is no JSON that can be read: json: cannot unmarshal array into Go value of type facts.wrapped"},
		"tag and value": {text: "SPDXVersion: SPDX-2.3\n", not: "it is no JSON that can be read: invalid character 'S' looking for beginning of value"},
		"SPDX 3":        {text: `{"@context": "https://spdx.org/rdf/3.0.1/spdx-context.jsonld"}`, not: "it is neither SPDX 2 nor CycloneDX"},
		"too deep":      {text: envelope(envelope(envelope(spdxSBOM))), not: "it is neither SPDX 2 nor CycloneDX"},
		"bad packages":  {text: `{"spdxVersion": "SPDX-2.3", "packages": 1}`, not: "reading it as SPDX: json: cannot unmarshal number"},
		"bad component": {text: `{"bomFormat": "CycloneDX", "components": {}}`, not: "reading it as CycloneDX: json: cannot unmarshal object"},
	} {
		f, err := ofSBOM(strings.NewReader(tt.text))
		if err != nil || !reflect.DeepEqual(f.Imported, tt.want) || !strings.HasPrefix(f.NotImported, tt.not) || tt.not == "" && f.NotImported != "" {
			t.Errorf("%s: got %+v, %q, %v\nwant %+v, %q", name, f.Imported, f.NotImported, err, tt.want, tt.not)
		}
	}
}

func FuzzSBOM(f *testing.F) {
	for _, s := range []string{spdxSBOM, cycloneDX, envelope(spdxSBOM), "{}"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := ofSBOM(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range facts.Imported {
			if c.ID == "" || c.Name == "" || c.SHA256 != "" && len(c.SHA256) != 64 {
				t.Errorf("got %+v", c)
			}
		}
	})
}

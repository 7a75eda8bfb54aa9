package spdx_test

import (
	"bytes"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"caisson/attest/spdx"
)

// TestSchema checks the documents with the JSON schema of SPDX 2.3, which is
// that of github.com/spdx/spdx-spec (CC-BY-3.0), schemas/spdx-schema.json.
func TestSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile("testdata/spdx-schema-2.3.json")
	if err != nil {
		t.Fatal(err)
	}
	debug := subject(t)
	debug.Image.Variant = "debug"
	for name, s := range map[string]spdx.Subject{"image": subject(t), "debug": debug} {
		v, err := jsonschema.UnmarshalJSON(bytes.NewReader(write(t, s)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(v); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		v.(map[string]any)["packages"].([]any)[0].(map[string]any)["primaryPackagePurpose"] = "OPERATING-SYSTEM"
		if schema.Validate(v) == nil {
			t.Errorf("%s: with a purpose that there is not, it is valid too", name)
		}
	}
}

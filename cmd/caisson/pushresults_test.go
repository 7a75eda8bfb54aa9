package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"caisson/verify"
)

// testOutputSchema is what Konflux's documentation asks of TEST_OUTPUT ("Tekton
// results", "TEST_OUTPUT Schema Validation").
const testOutputSchema = `{
  "type": "object", "required": ["result", "timestamp", "successes", "failures", "warnings"],
  "properties": {
    "result": {"enum": ["SUCCESS", "FAILURE", "WARNING", "SKIPPED", "ERROR"]},
    "timestamp": {"type": "string", "pattern": "^\\d{4}-\\d{2}-\\d{2}T\\d{2}:\\d{2}:\\d{2}(\\.\\d+)?(Z|[+-]\\d{2}:\\d{2})$"},
    "namespace": {"type": "string"}, "note": {"type": "string"},
    "successes": {"type": "integer", "minimum": 0}, "failures": {"type": "integer", "minimum": 0}, "warnings": {"type": "integer", "minimum": 0}
  }
}`

func TestTestOutput(t *testing.T) {
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(testOutputSchema))
	must(t, err)
	c := jsonschema.NewCompiler()
	must(t, c.AddResource("test-output.json", doc))
	schema, err := c.Compile("test-output.json")
	must(t, err)
	dir := t.TempDir()
	for v, want := range map[verify.Verdict]string{verify.Identical: "SUCCESS", verify.Equivalent: "WARNING", verify.Different: "FAILURE", verify.NotVerified: "ERROR"} {
		r := verdict()
		r.Verdict, r.Reason = v, strings.Repeat("ä", 5000)
		b, err := r.Encode()
		must(t, err)
		must(t, os.WriteFile(filepath.Join(dir, "report.json"), b, 0o644))
		got, err := testedOutput(dir)
		must(t, err)
		parsed, err := jsonschema.UnmarshalJSON(strings.NewReader(got))
		must(t, err)
		if err := schema.Validate(parsed); err != nil {
			t.Errorf("%s: %v", v, err)
		}
		if len(got) > 1000 {
			t.Errorf("%s: %d bytes", v, len(got))
		}
		if result := parsed.(map[string]any)["result"]; result != want {
			t.Errorf("%s: got %v, want %s", v, result, want)
		}
	}
}

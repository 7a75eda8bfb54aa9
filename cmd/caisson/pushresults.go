package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode/utf8"

	"caisson/attest"
	"caisson/attest/slsa"
	"caisson/prefetch"
	"caisson/verify"
)

// testOutput is Konflux's TEST_OUTPUT (konflux-test's make_result_json).
type testOutput struct {
	Result    string `json:"result"`
	Timestamp string `json:"timestamp"`
	Note      string `json:"note"`
	Namespace string `json:"namespace"`
	Successes int    `json:"successes"`
	Failures  int    `json:"failures"`
	Warnings  int    `json:"warnings"`
}

// maxNote is the longest note in bytes: Tekton has 4096 for all results of a step
// (its documentation, "Emitting Results").
const maxNote = 600

// shortened cuts a text off, between two characters.
func shortened(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	s = s[:limit-len("…")]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// writeResults writes the results of a Konflux task, a file each without a
// newline at its end, as $(results.NAME.path) wants them:
//
//	IMAGE_URL        the reference that was pushed to, with its tag
//	IMAGE_DIGEST     sha256:HEX, of the manifest
//	IMAGE_REFERENCE  IMAGE_URL@IMAGE_DIGEST
//	IMAGE_REF        the same, as Konflux's container builds call it
//	SBOM_BLOB_URL    REPO@sha256:HEX, of the blob that is the SPDX document
//	RPMS_DATA        {"keys":{KEYID or "unsigned": packages}}
//	TEST_OUTPUT      what verify found
//
// What there is nothing to say of is left out: SBOM and packages where the image
// was not attested, TEST_OUTPUT where it was not verified.
func writeResults(dir, out, ref string, p *attest.Package) error {
	r, err := prefetch.ParseRef(ref, "latest")
	if err != nil {
		return err
	}
	repository, _, _ := strings.Cut(ref, "@")
	repository = strings.TrimSuffix(repository, ":"+r.Identifier())
	where := p.Image.Digest.String()
	results := map[string]string{"IMAGE_URL": ref, "IMAGE_DIGEST": where, "IMAGE_REFERENCE": strings.TrimSuffix(ref, "@"+where) + "@" + where}
	results["IMAGE_REF"] = results["IMAGE_REFERENCE"]
	if !p.SBOM.IsZero() {
		results["SBOM_BLOB_URL"] = repository + "@" + p.SBOM.String()
	}
	for name, write := range map[string]func(string) (string, error){"RPMS_DATA": rpmsData, "TEST_OUTPUT": testedOutput} {
		value, err := write(out)
		if err != nil {
			return err
		}
		if value != "" {
			results[name] = value
		}
	}
	return writeTektonResults(dir, results)
}

// writeTektonResults writes a file for each result.
func writeTektonResults(dir string, results map[string]string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing the results: %w", err)
	}
	for name, value := range results {
		// Not by renaming: Tekton's are there before, and on a mount of its own.
		if err := os.WriteFile(filepath.Join(dir, name), []byte(value), 0o644); err != nil {
			return fmt.Errorf("writing the results: %w", err)
		}
	}
	return nil
}

// rpmsData is RPMS_DATA, as the provenance has it: konflux's rpms-signature-scan
// writes it so, and Conforma's rpm_signature rules read it. It is empty where
// the image was not attested.
func rpmsData(out string) (string, error) {
	name := filepath.Join(out, "statements", "provenance.json")
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	keys, err := slsa.RPMKeys(b)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", name, err)
	}
	encoded, err := json.Marshal(map[string]any{"keys": keys})
	return string(encoded), err
}

// testedOutput is TEST_OUTPUT; empty where there is no report.
func testedOutput(out string) (string, error) {
	b, err := os.ReadFile(filepath.Join(out, "report.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var r verify.Report
	if err := json.Unmarshal(b, &r); err != nil {
		return "", fmt.Errorf("reading %s: %w", filepath.Join(out, "report.json"), err)
	}
	at, err := time.Parse(time.RFC3339, r.Finished)
	if err != nil {
		return "", fmt.Errorf("reading %s: %w", filepath.Join(out, "report.json"), err)
	}
	t := testOutput{Timestamp: at.UTC().Format(time.RFC3339), Note: shortened("caisson verify: "+string(r.Verdict)+": "+r.Reason, maxNote), Namespace: "default"}
	for _, c := range r.Checks {
		switch c.Status {
		case verify.Passed:
			t.Successes++
		case verify.Failed, verify.Refused, verify.NotChecked:
			t.Failures++
		}
	}
	switch r.Verdict {
	case verify.Identical:
		t.Result = "SUCCESS"
	case verify.Equivalent:
		t.Result, t.Warnings = "WARNING", 1
	case verify.Different:
		t.Result = "FAILURE"
	default:
		t.Result = "ERROR"
	}
	encoded, err := json.Marshal(t)
	return string(encoded), err
}

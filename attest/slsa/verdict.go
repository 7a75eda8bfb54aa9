package slsa

import (
	"fmt"
	"time"

	"caisson/lock/digest"
	"caisson/verify"
)

// Verification is a report and who made it.
type Verification struct {
	Speaker
	Report *verify.Report
	// ReportDigest is the digest of report.json.
	ReportDigest digest.Digest
}

// Policy names what a verification summary was made against: the rules of
// `caisson verify`, without a policy of anybody's own.
const Policy = "https://caisson.dev/policy/rebuild/v1"

// What a verification summary says beside SLSA's own levels. None of SLSA's
// is claimed: they are about build services, and a rebuild does not show
// them.
const (
	LevelIdentical  = "CAISSON_REBUILD_IDENTICAL"  // a rebuild from the lock gave the same bytes
	LevelEquivalent = "CAISSON_REBUILD_EQUIVALENT" // the same but for published exceptions
	LevelBooted     = "CAISSON_BOOT_AS_PREDICTED"  // booted, and measured what was predicted
	levelFailed     = "FAILED"
)

type testResult struct {
	Result        string     `json:"result"` // PASSED, WARNED or FAILED
	Configuration []Resource `json:"configuration"`
	PassedTests   []string   `json:"passedTests,omitempty"`
	WarnedTests   []string   `json:"warnedTests,omitempty"`
	FailedTests   []string   `json:"failedTests,omitempty"`
}

// TestResult is the statement of a report as an in-toto test result:
// identical is PASSED, equivalent is WARNED, and both different and not
// verified are FAILED. What was asked for and could not be checked is a
// failed test; what was not asked for is none.
func TestResult(image Resource, v Verification) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("test result: %w", err)
	}
	r := v.Report
	res := testResult{Configuration: []Resource{
		File("caisson.lock", r.Lock),
		{Name: "report.json", Digest: sha256Of(v.ReportDigest), MediaType: "application/json",
			Annotations: map[string]any{"verdict": string(r.Verdict), "reason": r.Reason}},
		v.binary(),
	}}
	switch r.Verdict {
	case verify.Identical:
		res.Result = "PASSED"
	case verify.Equivalent:
		res.Result = "WARNED"
		res.WarnedTests = []string{"identical"}
	default:
		res.Result = "FAILED"
	}
	for _, c := range r.Checks {
		switch c.Status {
		case verify.Passed:
			res.PassedTests = append(res.PassedTests, c.Name)
		case verify.Failed, verify.NotChecked:
			res.FailedTests = append(res.FailedTests, c.Name)
		}
	}
	return marshal(image, TypeTestResult, res)
}

type summaryOf struct {
	Verifier struct {
		ID      string            `json:"id"`
		Version map[string]string `json:"version"`
	} `json:"verifier"`
	TimeVerified       string   `json:"timeVerified"`
	ResourceURI        string   `json:"resourceUri"`
	Policy             Resource `json:"policy"`
	VerificationResult string   `json:"verificationResult"` // PASSED or FAILED
	VerifiedLevels     []string `json:"verifiedLevels"`
	SLSAVersion        string   `json:"slsaVersion"`
}

// VSA is the statement of a report as a SLSA verification summary. Only
// identical and equivalent pass.
func VSA(image Resource, v Verification) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("verification summary: %w", err)
	}
	finished, err := time.Parse(time.RFC3339, v.Report.Finished)
	if err != nil {
		return nil, fmt.Errorf("verification summary: the report's time: %w", err)
	}
	s := summaryOf{
		TimeVerified: timestamp(finished),
		ResourceURI:  ImageURI(image),
		Policy:       Resource{URI: Policy},
		SLSAVersion:  "1.1",
	}
	s.Verifier.ID = v.Role.ID()
	s.Verifier.Version = v.versions()
	s.Verifier.Version["caisson-binary"] = v.Tool.Digest.String()
	s.VerificationResult, s.VerifiedLevels = levels(v.Report)
	return marshal(image, TypeVSA, s)
}

func levels(r *verify.Report) (result string, verified []string) {
	switch r.Verdict {
	case verify.Identical:
		verified = []string{LevelIdentical}
	case verify.Equivalent:
		verified = []string{LevelEquivalent}
	default:
		return "FAILED", []string{levelFailed}
	}
	for _, c := range r.Checks {
		if c.Name == "boot" && c.Status == verify.Passed {
			verified = append(verified, LevelBooted)
		}
	}
	return "PASSED", verified
}

func (v Verification) check() error {
	if err := v.Speaker.check(); err != nil {
		return err
	}
	if v.ReportDigest.IsZero() {
		return fmt.Errorf("no digest of the report given")
	}
	switch v.Report.Verdict {
	case verify.Identical, verify.Equivalent, verify.Different, verify.NotVerified:
		return nil
	}
	return fmt.Errorf("verdict %q is none", v.Report.Verdict)
}

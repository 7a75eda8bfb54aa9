package slsa

import (
	"fmt"
	"slices"
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
	LevelIdentical   = "CAISSON_REBUILD_IDENTICAL"  // a rebuild from the lock gave the same bytes
	LevelEquivalent  = "CAISSON_REBUILD_EQUIVALENT" // the same but for published exceptions
	LevelRebuilders  = "CAISSON_REBUILT_BY_OTHERS"  // others signed that their rebuild gave the same bytes
	LevelBooted      = "CAISSON_BOOT_AS_PREDICTED"  // booted, and measured what was predicted
	LevelDifferent   = "CAISSON_REBUILD_DIFFERENT"  // beside FAILED: a rebuild gave other bytes, or the image contradicts itself
	LevelNotVerified = "CAISSON_NOT_VERIFIED"       // beside FAILED: something could not be checked, or a policy refused
	levelFailed      = "FAILED"
)

// The inputs of a verification summary.
const (
	inputLock   = "caisson.lock"
	inputReport = "report.json"
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
func TestResult(image Image, v Verification) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("test result: %w", err)
	}
	r := v.Report
	res := testResult{Configuration: []Resource{
		File("caisson.lock", r.Lock),
		{Name: "report.json", Digest: sha256Of(v.ReportDigest), MediaType: "application/json",
			Annotations: map[string]any{"verdict": string(r.Verdict), "reason": r.Reason, "finished": r.Finished}},
		v.binary(),
	}}
	if r.Policy != nil {
		res.Configuration = append(res.Configuration, File(r.Policy.Name, r.Policy.SHA256))
	}
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
		case verify.Failed, verify.Refused, verify.NotChecked:
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
	TimeVerified       string     `json:"timeVerified"`
	ResourceURI        string     `json:"resourceUri"`
	Policy             Resource   `json:"policy"`
	Inputs             []Resource `json:"inputAttestations"`
	VerificationResult string     `json:"verificationResult"` // PASSED or FAILED
	VerifiedLevels     []string   `json:"verifiedLevels"`
	SLSAVersion        string     `json:"slsaVersion"`
}

// VSA is the statement of a report as a SLSA verification summary. Only
// identical and equivalent pass. Its inputs are the lock and the report, by
// their digests; the policy's digest is that of the file, where there was one.
func VSA(image Image, v Verification) ([]byte, error) {
	if err := v.check(); err != nil {
		return nil, fmt.Errorf("verification summary: %w", err)
	}
	finished, err := time.Parse(time.RFC3339, v.Report.Finished)
	if err != nil {
		return nil, fmt.Errorf("verification summary: the report's time: %w", err)
	}
	s := summaryOf{
		TimeVerified: timestamp(finished),
		ResourceURI:  ImageURI(image.File),
		Policy:       Resource{URI: Policy},
		Inputs:       []Resource{{URI: inputLock, Digest: sha256Of(v.Report.Lock)}, {URI: inputReport, Digest: sha256Of(v.ReportDigest)}},
		SLSAVersion:  "1.1",
	}
	if p := v.Report.Policy; p != nil {
		s.Policy.Digest = sha256Of(p.SHA256)
	}
	s.Verifier.ID = v.Role.ID()
	s.Verifier.Version = v.versions()
	s.Verifier.Version["caisson-binary"] = v.Tool.Digest.String()
	s.VerificationResult, s.VerifiedLevels = levels(v.Report)
	return marshal(image, TypeVSA, s)
}

func levels(r *verify.Report) (result string, verified []string) {
	switch {
	case r.Verdict == verify.Identical && passed(r, "rebuild"):
		verified = []string{LevelIdentical}
	case r.Verdict == verify.Identical:
		verified = []string{LevelRebuilders}
	case r.Verdict == verify.Equivalent:
		verified = []string{LevelEquivalent}
	case r.Verdict == verify.Different:
		return "FAILED", []string{levelFailed, LevelDifferent}
	default:
		return "FAILED", []string{levelFailed, LevelNotVerified}
	}
	if passed(r, "boot") {
		verified = append(verified, LevelBooted)
	}
	return "PASSED", verified
}

func passed(r *verify.Report, check string) bool {
	return slices.ContainsFunc(r.Checks, func(c verify.Check) bool { return c.Name == check && c.Status == verify.Passed })
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

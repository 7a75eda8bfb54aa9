package verify

import (
	"bytes"
	"encoding/json"
	"slices"

	"caisson/lock/digest"
	"caisson/verify/diff"
)

// Verdict is what a verification found.
type Verdict string

// The verdicts.
const (
	Identical   Verdict = "identical"    // every bit
	Equivalent  Verdict = "equivalent"   // but for what the published exceptions name
	Different   Verdict = "different"    // otherwise than the lock says, or measured otherwise than predicted
	NotVerified Verdict = "not verified" // something could not be checked, or is refused by a policy
)

// Report is report.json.
type Report struct {
	Version int     `json:"version"`
	Verdict Verdict `json:"verdict"`
	// Reason is the verdict in one sentence.
	Reason  string        `json:"reason"`
	Name    string        `json:"name"`
	Variant string        `json:"variant,omitempty"`
	Lock    digest.Digest `json:"lock"`
	// Image is what was verified, Rebuilt what the rebuild made of the lock.
	Image   Artifact  `json:"image"`
	Rebuilt *Artifact `json:"rebuilt,omitempty"`
	// RootHash and PCRs are predicted from the image's bytes.
	RootHash string            `json:"rootHash,omitempty"`
	PCRs     map[string]string `json:"pcrs,omitempty"`
	// Checks is what the verdict rests on, in order, and what was not asked
	// for.
	Checks []Check `json:"checks"`
	// Conditions is what the rebuild ran under, beside what is usual.
	Conditions  []Condition  `json:"conditions"`
	Differences []*diff.Node `json:"differences,omitempty"`
	// Blame says what the differences come from, where that was looked for.
	Blame []Blame `json:"blame,omitempty"`
	// Affected names the measurements that the differences change.
	Affected []string `json:"affected,omitempty"`
	// Measured is what the booted machine's TPM had at login, by PCR.
	Measured map[string]string `json:"measured,omitempty"`
	// Policy is the policy that the image was held against.
	Policy *PolicyFile `json:"policy,omitempty"`
	// Exceptions are those that the verdict rests on.
	Exceptions []Exception `json:"exceptions,omitempty"`
	// Rebuilders is what others say, counted or not.
	Rebuilders []Opinion `json:"rebuilders,omitempty"`
	// Caisson is the version of the program that verified.
	Caisson string `json:"caisson,omitempty"`
	// Started and Finished are in RFC 3339.
	Started  string `json:"started"`
	Finished string `json:"finished"`
}

// Artifact is an image by its bytes.
type Artifact struct {
	Name   string        `json:"name"`
	Size   int64         `json:"size"` // bytes
	SHA256 digest.Digest `json:"sha256"`
	// Disk is the digest of the disk that the image holds, without the
	// container format.
	Disk digest.Digest `json:"disk,omitzero"`
	// Manifest is the digest of a container image's manifest. An archive has it in
	// place of a disk.
	Manifest digest.Digest `json:"manifest,omitzero"`
}

// PolicyFile is a policy by its bytes.
type PolicyFile struct {
	Name   string        `json:"name"`
	SHA256 digest.Digest `json:"sha256"`
}

// Exception is something that was let pass, and by whom.
type Exception struct {
	// Rule is the rule of a policy, or Function the name and version of the
	// function that was applied to both sides; Match is what it was applied to.
	Rule     string `json:"rule,omitempty"`
	Function string `json:"function,omitempty"`
	Match    string `json:"match"`
	// Certificate is the SHA-256, in hex, of the only certificate that the function
	// secure-boot-signature lets sign; empty for any.
	Certificate string `json:"certificate,omitempty"`
	Who         string `json:"who"`
	Why         string `json:"why"`
	Until       string `json:"until"` // YYYY-MM-DD, the last day
}

// IsArchive tells whether the image is an archive and no disk.
func (r *Report) IsArchive() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Name == checkContents })
}

// Refused tells whether a policy, or somebody who is trusted, says no.
func (r *Report) Refused() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool { return c.Status == Refused })
}

// Differs tells whether there is no rebuild that is the image, or only none.
func (r *Report) Differs() bool {
	return slices.ContainsFunc(r.Checks, func(c Check) bool {
		return (c.Name == "disk" || c.Name == checkArchive) && c.Status == Failed || c.Name == "rebuild" && c.Status == NotChecked
	})
}

// Status is how a check ended.
type Status string

// The statuses.
const (
	Passed Status = "passed"
	Failed Status = "failed"
	// Refused: a rule of the policy, or a signed statement of somebody who is
	// trusted, says no.
	Refused    Status = "refused"
	NotChecked Status = "not checked" // asked for, but could not be done
	NotAsked   Status = "not asked for"
)

// Check is one thing that was looked at.
type Check struct {
	Name   string `json:"name"` // rebuild, disk or archive, root hash, measurements or contents, evidence, boot, policy: RULE …
	Status Status `json:"status"`
	Detail string `json:"detail,omitempty"`
}

// Condition is one thing that the rebuild did under other circumstances.
type Condition struct {
	Name   string `json:"name"` // one of vary.Names
	Varied bool   `json:"varied"`
	// Reached tells whether the sandboxed steps had it, too.
	Reached bool `json:"reachedSteps"`
	// Detail is the value, or why it was not varied.
	Detail string `json:"detail"`
}

// Encode is report.json: the same report gives the same bytes.
func (r *Report) Encode() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(r)
	return b.Bytes(), err
}

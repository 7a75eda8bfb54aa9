package slsa

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"caisson/lock/digest"
	"caisson/verify"
)

// Claim is what a statement says, in short, whatever its type: what it does
// not say is empty. It is the signer's word, no more.
type Claim struct {
	PredicateType string     `json:"predicateType"`
	Subject       []Resource `json:"subject"`
	// Role is the signer's own, ID the builder's or verifier's URI.
	Role Role   `json:"role,omitempty"`
	ID   string `json:"id,omitempty"`
	// Result is PASSED, WARNED or FAILED, Verdict the report's.
	Result  string         `json:"result,omitempty"`
	Verdict verify.Verdict `json:"verdict,omitempty"`
	// Rebuilt says that the verdict rests on a rebuild by the signer.
	Rebuilt bool          `json:"rebuilt,omitempty"`
	Lock    digest.Digest `json:"lock,omitzero"`
	Report  digest.Digest `json:"report,omitzero"`
	Time    string        `json:"time,omitempty"` // as the statement has it
}

// ReadClaim reads a statement of any type. Of types that are not Caisson's it
// says type and subject.
func ReadClaim(b []byte) (*Claim, error) {
	var st Statement
	if err := strict(b, &st); err != nil {
		return nil, fmt.Errorf("reading a statement: %w", err)
	}
	if st.Type != StatementType {
		return nil, fmt.Errorf("statement of type %q, want %q", st.Type, StatementType)
	}
	if len(st.Subject) == 0 || st.PredicateType == "" {
		return nil, errors.New("statement without a subject or a predicate type")
	}
	c := &Claim{PredicateType: st.PredicateType, Subject: st.Subject}
	var err error
	switch st.PredicateType {
	case TypeProvenance:
		err = c.provenance(st.Predicate)
	case TypeTestResult:
		err = c.testResult(st.Predicate)
	case TypeVSA:
		err = c.summary(st.Predicate)
	case TypeReferenceValues:
		err = c.referenceValues(st.Predicate)
	}
	if err != nil {
		return nil, fmt.Errorf("reading a statement of type %s: %w", st.PredicateType, err)
	}
	return c, nil
}

func (c *Claim) setID(id string) {
	c.ID = id
	for _, r := range []Role{Builder, Verifier} {
		if id == r.ID() {
			c.Role = r
		}
	}
}

func (c *Claim) provenance(b []byte) error {
	var p provenance
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	c.setID(p.RunDetails.Builder.ID)
	c.Time = p.RunDetails.Metadata.FinishedOn
	if p.BuildDefinition.BuildType == BuildType {
		c.Lock = p.BuildDefinition.ExternalParameters.Lock
	}
	return nil
}

func (c *Claim) referenceValues(b []byte) error {
	var p struct {
		Lock digest.Digest `json:"lock"`
	}
	err := json.Unmarshal(b, &p)
	c.Lock = p.Lock
	return err
}

func (c *Claim) testResult(b []byte) error {
	var p testResult
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	c.Result = p.Result
	c.Rebuilt = slices.Contains(p.PassedTests, "rebuild") && (slices.Contains(p.PassedTests, "disk") || slices.Contains(p.PassedTests, "archive"))
	for _, r := range p.Configuration {
		var err error
		switch r.Name {
		case "caisson.lock":
			c.Lock, err = digest.ParseHex(r.Digest["sha256"])
		case "report.json":
			c.Report, err = digest.ParseHex(r.Digest["sha256"])
			c.Verdict, c.Time = verify.Verdict(note(r, "verdict")), note(r, "finished")
		case "caisson":
			c.Role = Role(note(r, "role"))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
	}
	return c.consistent(map[verify.Verdict]string{verify.Identical: "PASSED", verify.Equivalent: "WARNED"})
}

func (c *Claim) summary(b []byte) error {
	var p summaryOf
	if err := json.Unmarshal(b, &p); err != nil {
		return err
	}
	c.setID(p.Verifier.ID)
	c.Result, c.Time = p.VerificationResult, p.TimeVerified
	if p.Policy.URI != Policy {
		return nil // of another verifier: there is no verdict of ours in it
	}
	for _, l := range p.VerifiedLevels {
		switch l {
		case LevelIdentical:
			c.Verdict, c.Rebuilt = verify.Identical, true
		case LevelRebuilders:
			c.Verdict = verify.Identical
		case LevelEquivalent:
			c.Verdict = verify.Equivalent
		case LevelDifferent:
			c.Verdict = verify.Different
		case LevelNotVerified:
			c.Verdict = verify.NotVerified
		}
	}
	for _, r := range p.Inputs {
		var err error
		switch r.URI {
		case inputLock:
			c.Lock, err = digest.ParseHex(r.Digest["sha256"])
		case inputReport:
			c.Report, err = digest.ParseHex(r.Digest["sha256"])
		}
		if err != nil {
			return fmt.Errorf("%s: %w", r.URI, err)
		}
	}
	return c.consistent(map[verify.Verdict]string{verify.Identical: "PASSED", verify.Equivalent: "PASSED"})
}

// consistent checks that the result follows from the verdict: want has those
// of the verdicts that do not fail.
func (c *Claim) consistent(want map[verify.Verdict]string) error {
	if c.Verdict == "" {
		return nil
	}
	result, ok := want[c.Verdict]
	if !ok {
		result = "FAILED"
	}
	if c.Result != result {
		return fmt.Errorf("the result is %q with the verdict %q, want %q", c.Result, c.Verdict, result)
	}
	return nil
}

func note(r Resource, key string) string {
	s, _ := r.Annotations[key].(string)
	return s
}

// maxNesting bounds how deep the values of a statement nest.
const maxNesting = 100

// noKeyTwice refuses JSON in which an object has a key twice: readers disagree
// on which of them counts.
func noKeyTwice(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	type object struct {
		keys  map[string]bool // nil in a list
		value bool            // a key was read, its value comes
	}
	var stack []object
	for {
		t, err := dec.Token()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		top := len(stack) - 1
		if key, ok := t.(string); ok && top >= 0 && stack[top].keys != nil && !stack[top].value {
			folded := strings.ToLower(key) // as encoding/json matches fields
			if stack[top].keys[folded] {
				return fmt.Errorf("the key %q is there twice", key)
			}
			stack[top].keys[folded], stack[top].value = true, true
			continue
		}
		if top >= 0 {
			stack[top].value = false
		}
		switch t {
		case json.Delim('{'):
			stack = append(stack, object{keys: map[string]bool{}})
		case json.Delim('['):
			stack = append(stack, object{})
		case json.Delim('}'), json.Delim(']'):
			stack = stack[:top]
		}
		if len(stack) > maxNesting {
			return fmt.Errorf("values nested more than %d deep", maxNesting)
		}
	}
}

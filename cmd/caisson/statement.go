package main

import (
	"encoding/json"
	"fmt"
	"os"

	"caisson/attest/sign"
	"caisson/attest/slsa"
	"caisson/lock/digest"
)

// statement is an in-toto statement, or the bundle around one.
type statement struct {
	slsa.Statement
	bundle []byte // empty where the statement is not signed
	hint   string // of the key, as the bundle says
}

// readStatement reads a statement or a sigstore bundle; false where the JSON
// is neither.
func readStatement(b []byte) (*statement, bool) {
	var bundle struct {
		Material struct {
			PublicKey struct {
				Hint string `json:"hint"`
			} `json:"publicKey"`
		} `json:"verificationMaterial"`
		Envelope struct {
			Payload []byte `json:"payload"`
		} `json:"dsseEnvelope"`
	}
	s := new(statement)
	payload := b
	if json.Unmarshal(b, &bundle) == nil && len(bundle.Envelope.Payload) > 0 {
		payload, s.bundle, s.hint = bundle.Envelope.Payload, b, bundle.Material.PublicKey.Hint
	}
	if json.Unmarshal(payload, &s.Statement) != nil || s.Type == "" || s.PredicateType == "" {
		return nil, false
	}
	return s, true
}

// inspectStatement shows what a statement is about, and checks its signature
// where a key is given.
func inspectStatement(ui *ui, name string, s *statement, key string) error {
	checked := "not checked: --key cosign.pub"
	switch {
	case s.bundle == nil:
		checked = "none: it is in the bundle, NAME.sigstore.json"
		if key != "" {
			return &codeError{fmt.Errorf("%s is not signed", name), exitRefused, "the signature is in the bundle, NAME.sigstore.json"}
		}
	case key != "":
		if err := checkSigned(name, s, key); err != nil {
			return err
		}
		checked = "good, by " + key
	}
	ui.print("statement   %s", name)
	ui.print("  type      %s", s.PredicateType)
	for _, r := range s.Subject {
		ui.print("  about     %s sha256:%s", r.Name, r.Digest["sha256"])
	}
	ui.print("  signature %s", checked)
	if s.hint != "" {
		ui.print("  key       %s", s.hint)
	}
	return nil
}

// checkSigned verifies a bundle by a public key.
func checkSigned(name string, s *statement, key string) error {
	public, err := os.ReadFile(key)
	if err != nil {
		return fmt.Errorf("reading the public key: %w", err)
	}
	if len(s.Subject) == 0 {
		return fmt.Errorf("%s: a statement about nothing", name)
	}
	d, err := digest.ParseHex(s.Subject[0].Digest["sha256"])
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := sign.Verify(s.bundle, public, d); err != nil {
		return &codeError{fmt.Errorf("%s: %w", name, err), exitRefused, ""}
	}
	return nil
}
